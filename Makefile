# Two commands do everything on a fresh machine, installs included:
#   make train                                 train the default; ARGS="model=gru data=mc_rtt" passes overrides
#   make test                                  the test suite; make test-all: the long and rare tests, too
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=

.PHONY: install train predict test test-all coverage lint docs bench clean

install: $(STAMP)

# CONSTRAINTS=constraints.txt takes the versions that are known to work, in place of the newest that fit
CONSTRAINTS ?=
PIP := $(BIN)/python -m pip install $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# nlb_tools asks for pandas <= 1.3.4, which has no build for today's Python, but works with pandas 2; ibl-bwb-eval asks
# for one version of torch alone, and its metrics work with ours: hence --no-deps
$(STAMP): pyproject.toml
	@echo "installs neuro_lightning and what it needs into $(VENV): some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade pip
	@$(PIP) -qq --editable ".[dev]"
	@$(PIP) -qq --no-deps nlb_tools==0.0.4 ibl-bwb-eval==0.1.0
	@touch $@

train: $(STAMP)
	$(BIN)/python train.py $(ARGS)

predict: $(STAMP)
	$(BIN)/python predict.py $(ARGS)

# three workers for two cores: some tests wait for processes
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not rare" $(ARGS)

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# where the tests do not go; of all processes that they start. TESTS=tests/test_gru.py measures with these alone
TESTS ?=
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-report=xml $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint -s .

# -W: a broken link, a docstring that does not parse or a page that nothing leads to ends the build. NOTEBOOKS=run runs the
# tutorials, some minutes at first, and shows their figures and output
NOTEBOOKS ?=
docs: $(STAMP)
	NOTEBOOKS=$(NOTEBOOKS) OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -j 2 -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py --model gru
	$(BIN)/python benchmarks/overhead.py --model cnn
	$(BIN)/python benchmarks/overhead.py --model hsm
	$(BIN)/python benchmarks/attention.py --threads 1 --cpu-time
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/sessions.py --only time
	$(BIN)/python benchmarks/latency.py

clean:
	rm -rf $(VENV) build *.egg-info docs/_build
