"""Every model streams what its run predicts, or is refused in one line."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import spec_of
from runs import ROOT, TINY, here
from tiny import BINS, N_IN

import neuro_lightning as nl
from neuro_lightning.contracts import DataSpec, rates_of, run_network
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.stepping import Stepwise
from neuro_lightning.realtime.stream import Stream, check_streams
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.registry import find_target

WITHOUT = [word for word in TINY if not word.startswith("model")]
MEAN = [0.5, 0.2, 0.9, 1.0, 0.4, 0.3, 0.8, 0.6]


MODELS = {
    "gru": ["model=gru", "model.hidden=6", "model.bidirectional=false"],
    "gru_smoothed": ["model=gru_smoothed", "model.hidden=6", "model.bidirectional=false"],
    "ndt": ["model=ndt", "model.width=8", "model.layers=2", "model.attention.context_forward_ms=0"],
    "stndt": ["model=stndt", "model.width=8", "model.layers=2", "model.attention.context_forward_ms=0"],
    "smoothing": ["model=smoothing", "model.causal=true"],
    "plds": ["model=plds", "model.causal=true", "model.n_latents=3", "model.iterations=2"],
    "gpfa": ["model=gpfa", "model.causal=true", "model.n_latents=3", "model.iterations=2"],
    "mean": ["model=mean"],
    "constant": ["model=constant"],
}
OTHERS = [name for name in MODELS if name not in ("gru", "ndt", "plds")]


@pytest.mark.parametrize("name", ["gru", "ndt", "plds", *(pytest.param(n, marks=pytest.mark.rare) for n in OTHERS)])
def test_a_run_streams_what_it_predicts(name, tmp_path):
    here(tmp_path, *MODELS[name], base=WITHOUT)
    run = nl.load(tmp_path, trusted=["tiny"])
    counts, rates = run.data.recording.splits["val"].heldin, run.rates("val")
    stream = nl.stream(tmp_path, behavior=True, trusted=["tiny"])
    bins = [stream.step(counts[:, t]) for t in range(BINS)]
    np.testing.assert_allclose(np.stack([one.rates for one in bins], axis=1), rates[:, :BINS], rtol=1e-5, atol=1e-6)
    if name in ("mean", "constant"):
        assert bins[0].latents is None
        return
    np.testing.assert_allclose(
        np.stack([one.latents for one in bins], 1), run.latents("val")[:, :BINS], rtol=1e-4, atol=1e-5
    )
    assert list(stream.unit_ids[:N_IN]) == list(run.unit_ids[:N_IN])
    behavior = run.data.recording.splits["val"].behavior
    error = np.square(np.stack([one.behavior for one in bins], axis=1) - behavior).sum((0, 1))
    r2 = 1 - error / np.square(behavior - behavior.mean((0, 1))).sum((0, 1))
    assert r2.mean() == pytest.approx(run.scores["val/vel_r2"], abs=1e-4)


def test_a_head_of_the_network_decodes_behavior(tmp_path):
    here(tmp_path, *MODELS["gru"], "+head@model.heads.velocity=linear", "model.heads.velocity.weight=1", base=WITHOUT)
    saved = load_checkpoint(tmp_path, trusted=["tiny"])
    counts = nl.load(tmp_path, trusted=["tiny"]).data.recording.splits["val"].heldin
    expected = run_network(saved.model.net, {"inputs": torch.from_numpy(counts)})["heads"]["velocity"]
    stream = nl.stream(tmp_path, trusted=["tiny"])
    found = np.stack([stream.step(counts[:, t]).behavior for t in range(BINS)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (["gru", "model.hidden=6"], "train it with model.bidirectional=false"),
        (["ndt", "model.width=8", "model.layers=1"], "train it with model.attention.context_forward_ms=0"),
        (["smoothing"], "train it with model.causal=true"),
        (["plds", "model.n_latents=3", "model.iterations=1"], "train it with model.causal=true"),
        (["gpfa", "model.n_latents=3", "model.iterations=1"], "train it with model.causal=true"),
        (["stndt", "model.width=8", "model.layers=1"], "train it with model.attention.context_forward_ms=0"),
        (["lfads"], "model=gru model.bidirectional=false and model=ndt"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_model_that_looks_ahead_is_refused_with_the_words_that_mend_it(model, words, tmp_path):
    here(tmp_path, f"model={model[0]}", *model[1:], "trainer.max_epochs=1", base=WITHOUT)
    with pytest.raises(ConfigError, match=f"cannot run bin by bin: it.*; .*{words}") as refused:
        nl.stream(tmp_path, trusted=["tiny"])
    assert "\n" not in str(refused.value)


# ---- every model there is

NAMES = sorted(path.stem for path in (ROOT / "conf" / "model").glob("[!_]*.yaml"))
SMALL = {"n_latents": 3, "n_components": 3}


@cache
def built(name: str, *words: str):
    """A model as it is configured, with random weights, for spikes that it can be trained on; and their description."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[f"model={name}", *words]).model
    for key in SMALL.keys() & cfg.keys():
        cfg[key] = SMALL[key]
    kinds = find_target(cfg._target_).kinds
    if "spikes" not in kinds:
        return None, DataSpec("mine", kinds[0])
    specs = [spec_of(n_in=5, n_neurons=n, n_forward=ahead, mean_rates=MEAN[:n]) for n in (8, 5) for ahead in (3, 0)]
    specs = [replace(spec, bin_ms=10) for spec in specs]
    spec = next(spec for spec in specs if find_target(cfg._target_).refuse(spec) is None)
    torch.manual_seed(0)
    net = instantiate(cfg, spec=spec).net.eval()
    net = net if name == "smoothing" else net.double()  # whose float32 is its own choice
    for weight in (*net.parameters(), *net.buffers()):
        if weight.is_floating_point() and not weight.any():
            torch.nn.init.normal_(weight)
    return net, spec


@pytest.mark.parametrize("name", NAMES)
def test_every_model_streams_what_it_says_of_whole_trials_or_is_refused_in_one_line(name):
    """And the words that a refusal gives are those that mend it."""
    net, spec = built(name)
    try:
        check_streams(net, spec)
    except ConfigError as error:
        words = str(error).partition("; train it with ")[2]
        assert "cannot run bin by bin" in str(error) and "\n" not in str(error)
        if not words:
            assert "a stream takes spikes" in str(error) or "; those that look back only are model=gru" in str(error)
            return
        net, spec = built(name, *words.split())
    inputs = torch.poisson(torch.ones(3, 10, 5)).to(torch.float32 if name == "smoothing" else torch.float64)
    whole, stream = net(inputs), Stream(net, spec)
    bins = [stream.step(inputs[:, t]) for t in range(10)]
    tolerance = 1e-5 if name == "smoothing" else 1e-6
    rates = np.stack([one.rates for one in bins], 1)
    np.testing.assert_allclose(rates, rates_of(whole)[:, :10].detach(), rtol=tolerance, atol=tolerance)
    if "latents" in whole:
        latents = np.stack([one.latents for one in bins], 1)
        np.testing.assert_allclose(latents, whole["latents"][:, :10].detach(), rtol=tolerance, atol=tolerance)


def test_which_models_stream():
    """What is added to this list is added to the table in docs/how_to/real_time.md."""
    found = set()
    for name in NAMES:
        net, _ = built(name)
        if isinstance(net, Stepwise) and (net.causal_words or not net.looks_ahead):
            found.add(name)
    assert found == {"constant", "gpfa", "gru", "gru_smoothed", "mean", "ndt", "plds", "smoothing", "stndt"}
    page = (ROOT / "docs" / "how_to" / "real_time.md").read_text()
    table = page[page.index("| model | settings that make it causal |") : page.index("`experiment=causal`")]
    assert found == set(re.findall(r"`(\w+)`", re.sub(r"\|[^|]*\|$", "", table, flags=re.MULTILINE)))
