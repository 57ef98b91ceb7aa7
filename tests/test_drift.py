"""Whether neurons still fire as a model says: false alarms, and what is to be noticed."""

import math

import numpy as np
import pytest
import torch
from runs import TINY, here
from tiny import N_IN

import neuro_lightning as nl
from neuro_lightning.functional.drift import Drift, compare, usual

N, BINS = 30, 25


def trials(n, seed=0):
    """Counts and the rates behind them, (n, BINS, N)."""
    rng = np.random.default_rng(seed)
    gain = np.exp(0.5 * np.sin(np.arange(BINS)[None, :, None] / 4 + rng.uniform(0, 6, (n, 1, N))))
    rates = gain * np.linspace(0.02, 0.8, N)
    return torch.from_numpy(rng.poisson(rates)), torch.from_numpy(rates)


def watch(counts, rates, bins, observed=None, reference=None) -> Drift:
    drift = Drift(usual(*trials(200)) if reference is None else reference, bins)
    for trial in range(len(counts)):
        for t in range(BINS):
            seen = None if observed is None else observed[trial, t][None]
            drift.add(counts[trial, t][None], rates[trial, t][None], seen)
    return drift


def test_the_log_likelihood_is_that_of_the_poisson_distribution():
    counts, rates = trials(2)
    expected = torch.distributions.Poisson(rates).log_prob(counts.double())
    torch.testing.assert_close(compare(counts, rates), (expected, counts - rates))


def test_the_usual_spread_is_that_over_trials_and_never_below_that_of_poisson_counts():
    counts = torch.tensor([[0.0, 0.0], [20.0, 0.0]])[:, None].expand(2, 2, 2)  # (B, T, N), the second neuron is silent
    found = usual(counts, torch.tensor([10.0, 0.0]).expand(2, 2, 2))
    assert found.excess_spread.tolist() == pytest.approx([math.sqrt(200), math.sqrt(1 / 4 / 2)])  # 1 spike in 4 bins


def test_nothing_is_wrong_where_nothing_has_changed():
    """The scores of many streams have a mean near 0 and a standard deviation near 1."""
    found = [watch(*trials(6, seed), bins=6 * BINS) for seed in range(1, 25)]
    scores, neurons = torch.tensor([drift.score for drift in found]), torch.stack([drift.neurons for drift in found])
    assert abs(scores.mean()) < 0.9 and 0.6 < scores.std() < 1.5 and scores.abs().max() < 4
    assert abs(neurons.mean()) < 0.2 and 0.7 < neurons.std() < 1.3


def test_a_neuron_that_vanishes_and_one_that_appears_are_found():
    counts, rates = trials(12, 1)
    counts[..., 25], counts[..., 3] = 0, counts[..., 28]
    drift = watch(counts, rates, bins=12 * BINS)
    assert drift.neurons[25] < -6 and drift.neurons[3] > 6
    others = np.delete(np.arange(N), [3, 25])
    assert drift.neurons[others].abs().max() < 4.5


def test_neurons_in_another_order_lower_the_score():
    counts, rates = trials(12, 1)
    assert watch(counts.roll(5, 2), rates, bins=12 * BINS).score < -10


def test_old_bins_are_forgotten():
    counts, rates = trials(12, 1)
    counts[:6] = counts[:6].flip(2)
    whole, recent = (watch(counts, rates, bins=bins * BINS) for bins in (12, 6))
    assert whole.score < -6 and abs(recent.score) < 4
    assert recent.compared == 6 * BINS


def test_a_masked_neuron_counts_for_nothing():
    counts, rates = trials(12, 1)
    observed = torch.ones_like(counts, dtype=torch.bool)
    observed[..., 25] = False
    poisoned = counts.double()
    poisoned[..., 25] = math.nan
    drift = watch(poisoned, rates, 12 * BINS, observed)
    assert abs(drift.score) < 4 and drift.neurons[25].isnan()
    assert drift.score == pytest.approx(watch(counts, rates, 12 * BINS, observed).score)


def test_before_the_first_bin_nothing_is_known():
    assert math.isnan(Drift(usual(*trials(10)), 5).score)


def test_a_stream_watches(tmp_path):
    """A run's validation trials are usual by themselves; one silent neuron is found, one that is masked is not."""
    words = [word for word in TINY if not word.startswith("model")]
    here(tmp_path, "model=gru", "model.hidden=6", "model.bidirectional=false", base=words)
    counts = nl.load(tmp_path, trusted=["tiny"]).data.recording.splits["val"].heldin
    silent = counts.copy()
    silent[..., 2] = 0
    present = np.arange(N_IN) != 2
    found = []
    for given, mask in ((counts, None), (silent, None), (silent, present)):
        stream = nl.stream(tmp_path, drift=10_000, trusted=["tiny"])
        for trial in given:
            stream.reset()
            for each in trial:
                stream.step(each, mask)
        found.append(stream.drift)
    assert found[0].compared == counts.shape[0] * (counts.shape[1] - 1)
    assert found[0].score == pytest.approx(0, abs=1e-4) and found[0].neurons.abs().max() < 1e-4
    assert found[1].neurons[2] < -4 and abs(found[1].neurons[4]) < 3 and found[2].neurons[2].isnan()
