"""Poisson D2 against IBL BrainWideBench's own metric, and where it is shown."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional.likelihood import spike_sums
from neuro_lightning.functional.poisson_d2 import count_log_counts, poisson_d2, poisson_d2_per_neuron
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.metrics.deviance import PoissonD2


def samples(seed=0, n=400, neurons=6):
    """Log-rates and counts; one neuron has no spike, one a single one, one the same count everywhere."""
    rng = np.random.default_rng(seed)
    log_rates = rng.normal(-1, 0.6, (n, neurons)).astype(np.float32)
    counts = rng.poisson(np.exp(log_rates)).astype(np.float32)
    counts[:, 0] = 0
    counts[:, 1] = np.arange(n) == 17
    counts[:, 2] = 2
    return torch.from_numpy(log_rates), torch.from_numpy(counts)


@pytest.mark.parametrize("corner", ["all", "silent", "one spike", "perfect"])
def test_it_equals_the_benchmarks(corner):
    reference = pytest.importorskip("ibl_bwb_eval.metrics", exc_type=ImportError)
    log_rates, counts = samples()
    log_rates, counts = {
        "all": (log_rates[:, [0, 1, 3, 4, 5]], counts[:, [0, 1, 3, 4, 5]]), "silent": (log_rates[:, :1], counts[:, :1]),
        "one spike": (log_rates[:, 1:2], counts[:, 1:2]),
        "perfect": ((counts[:, 3:] + 1e-6).log(), counts[:, 3:]),
    }[corner]  # fmt: skip
    theirs = reference.PoissonD2Score()
    theirs.update(log_rates.double(), counts)
    theirs = float(theirs.compute())
    ours = float(poisson_d2(log_rates.double().exp(), counts))
    assert (math.isnan(ours) and math.isnan(theirs)) or ours == pytest.approx(theirs, abs=2e-6)
    metric = PoissonD2(counts.shape[1])
    for rates, part in zip(log_rates.double().exp().split(150), counts.split(150), strict=True):
        metric.update(rates[None], part[None], torch.ones(1, *part.shape, dtype=torch.bool))
    assert float(metric.compute()) == pytest.approx(ours, abs=1e-12, nan_ok=True)


def test_bits_per_spike_equal_the_benchmarks():
    reference = pytest.importorskip("ibl_bwb_eval.metrics", exc_type=ImportError)
    from neuro_lightning.functional.likelihood import bits_per_spike

    log_rates, counts = samples()
    theirs = reference.BPS()
    theirs.update(log_rates, counts)
    kept = counts.sum(0) > 0  # the benchmark leaves silent neurons out
    ours = bits_per_spike(log_rates.exp()[:, kept], counts[:, kept])
    assert float(ours) == pytest.approx(float(theirs.compute()), abs=1e-6)


def test_mean_rates_score_zero_and_the_counts_themselves_one():
    _, counts = samples()
    counts = counts[:, 3:]
    assert float(poisson_d2(counts.mean(0).expand_as(counts), counts)) == pytest.approx(0, abs=1e-12)
    assert float(poisson_d2(counts, counts)) == pytest.approx(1, abs=1e-7)


def test_masked_counts_change_nothing():
    log_rates, counts = samples()
    mask = torch.rand(counts.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    mask[:, 4] = False  # a neuron that is not scored at all
    poisoned = torch.where(mask, counts, torch.nan)
    found = poisson_d2(log_rates.exp(), poisoned, mask)
    assert float(found) == float(poisson_d2(torch.where(mask, log_rates.exp(), 1e9), counts, mask))
    own = poisson_d2_per_neuron(spike_sums(log_rates.exp(), counts, mask), count_log_counts(counts, mask))
    assert own.isnan().tolist() == [True, False, True, False, True, False]
    chosen = mask[:, 3]
    alone = poisson_d2(log_rates.exp()[chosen][:, 3:4], counts[chosen][:, 3:4])
    assert float(own[3]) == pytest.approx(float(alone), abs=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_model_has_no_score(bad):
    log_rates, counts = samples()
    rates = log_rates.exp()
    rates[3, 4] = bad
    metric = PoissonD2(6)
    metric.update(rates[None], counts[None], torch.ones(1, *counts.shape, dtype=torch.bool))
    assert math.isnan(float(metric.compute()))


def test_it_is_a_score_where_the_data_ask_for_it():
    spec = DataSpec("x", n_in=3, n_bins=4, mean_rates=(0.5,) * 3, partial=True)
    assert "poisson_d2" not in build_metrics(spec).names
    metrics = build_metrics(DataSpec(**{**spec.__dict__, "deviance": True}))
    assert metrics.names[0] == "poisson_d2"
    rates = torch.rand(5, 4, 3) + 0.2
    batch = {
        "targets": torch.poisson(rates),
        "mask": torch.rand(5, 4, 3) < 0.7,
        "observed": torch.ones(5, 4, 3, dtype=torch.bool),
    }
    metrics.update({"rates": rates}, batch)
    assert metrics.compute()["poisson_d2"] == pytest.approx(float(poisson_d2(rates, batch["targets"], batch["mask"])))
    assert isinstance(metrics.metrics["poisson_d2"], nn.Module)
