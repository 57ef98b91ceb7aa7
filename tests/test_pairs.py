"""Every model meets every kind of data: it runs there, or it is refused in one line that says why."""

import math
from pathlib import Path

import pytest
from runs import TINY, here, record, rows

from neuro_lightning.errors import ConfigError

MODELS = sorted(p.stem for p in (Path(__file__).parents[1] / "conf/model").glob("*.yaml") if p.stem[0] != "_")
TRIVIAL = {"mean", "zero", "constant"}
IMAGES = {"cnn", "core_readout", "hsm", "hsm_qn", "lnp", "rln", *TRIVIAL}
RUNS = {
    # with forward bins, which an autoencoder has none of
    "tiny": {
        "gru",
        "gru_smoothed",
        "gpfa",
        "plds",
        "fa",
        "lfads",
        "ndt",
        "neural_roberta",
        "stndt",
        "smoothing",
        "mean",
        "constant",
    },
    "tiny_traces": {
        "gru",
        "gru_smoothed",
        "gpfa",
        "lfads",
        "ndt",
        "neural_roberta",
        "stndt",
        "lstm_autoencoder",
        "pca",
        "fa",
        *TRIVIAL,
    },
    "pictures": IMAGES,
    "pictures data.offset=-2": IMAGES - {"lnp"},  # z-scored responses, say: no Poisson likelihood
}
SMALL = {"cnn": ["model.dense=[{units: 8}]", "model.conv=[{filters: 4, kernel: 3}]"], "hsm_qn": ["model.restarts=1"]}


def base(data: str) -> list[str]:
    kept = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    return [*kept, *f"data={data}".split(), "trusted=[tiny,pictures,tiny_traces]", "trainer.max_epochs=1"]


# for data whose neurons are missing from some inputs, or are all seen and predicted ahead; tests/test_conditional.py
BENCHMARK = {"reduced_rank", "population_coupling", "ridge_ar", "trailing_mean"}


def test_every_model_is_in_the_table():
    assert set(MODELS) - BENCHMARK == set().union(*RUNS.values())


# the second kind of images differs from the first in its likelihood: two models see it quickly, the others are rare
def pair(model: str, data: str):
    rare = data == "pictures data.offset=-2" and model not in ("lnp", "cnn")
    return pytest.param(model, data, marks=pytest.mark.rare if rare else [])


@pytest.mark.parametrize(("model", "data"), [pair(model, data) for model in MODELS for data in RUNS])
def test_it_runs_or_says_why_not(tmp_path, model, data):
    words = [f"model={model}", *SMALL.get(model, [])]
    if model in RUNS[data]:
        run = here(tmp_path, *words, base=base(data))
        assert math.isfinite(run.score) and record(run.folder)["status"] == "finished"
        assert (run.folder / "checkpoints" / "best.ckpt").is_file()
        return
    with pytest.raises(ConfigError, match="cannot run on") as refused:
        here(tmp_path, *words, base=base(data))
    assert "\n" not in str(refused.value) and record(tmp_path)["status"] == "failed"


@pytest.mark.parametrize("model", sorted(RUNS["tiny"] | {"lstm_autoencoder"}))
def test_it_runs_where_no_neuron_is_held_out(tmp_path, model):
    """The way LFADS is used most: what the model sees is scored, and decoded from; the checkpoint is chosen by it."""
    words = [f"model={model}", "+data.heldout=false", "+data.forward=false"]
    run = here(tmp_path, *words, base=base("tiny"))
    found = record(run.folder)
    assert found["status"] == "finished" and found["objective"]["name"] == "val/bps"
    assert run.score == found["metrics"]["val/bps"] == found["objective"]["value"]
    assert {"val/vel_r2", "test/bps"} <= set(found["metrics"]) and "val/co_bps" not in found["metrics"]
    assert float(rows(run.folder)[-1]["val/bps"]) == pytest.approx(found["objective"]["end"], abs=1e-6)
