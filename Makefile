# Two commands do everything on a fresh machine, installs included:
#   make train                                 train the default; ARGS="model=gru data=mc_rtt" passes overrides
#   make test                                  the whole test suite
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=

.PHONY: install train predict test lint bench clean

install: $(STAMP)

# nlb_tools asks for pandas <= 1.3.4, which has no build for today's Python, but works with pandas 2: hence --no-deps
$(STAMP): pyproject.toml
	@echo "installs neuro_lightning and what it needs into $(VENV): some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install -qq --editable ".[dev]"
	@$(BIN)/python -m pip install -qq --no-deps nlb_tools==0.0.4
	@touch $@

train: $(STAMP)
	$(BIN)/python train.py $(ARGS)

predict: $(STAMP)
	$(BIN)/python predict.py $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py --model gru
	$(BIN)/python benchmarks/overhead.py --model cnn
	$(BIN)/python benchmarks/overhead.py --model hsm
	$(BIN)/python benchmarks/attention.py --threads 1 --cpu-time
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/prepare.py

clean:
	rm -rf $(VENV) build *.egg-info
