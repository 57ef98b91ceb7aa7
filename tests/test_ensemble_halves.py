"""The halves of the validation trials: how they are split and scored."""

from dataclasses import replace

import numpy as np
import pytest
from ensembles import data_of
from hypothesis import given
from hypothesis import strategies as st
from pictures import Pictures
from tiny_traces import TinyTraces

from neuro_lightning.ensemble.validation_halves import ValidationHalves, split_in_halves


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 99))
def test_halves_are_even_in_all_and_in_every_condition(conditions, seed):
    condition = np.array(conditions)
    chooses = split_in_halves(condition, seed)
    assert abs(2 * chooses.sum() - len(chooses)) <= 1
    for one in set(conditions):
        assert abs(2 * chooses[condition == one].sum() - (condition == one).sum()) <= 1
    assert np.array_equal(chooses, split_in_halves(condition, seed))


def test_other_seeds_give_other_halves():
    assert len({tuple(split_in_halves(np.zeros(20, int), seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", ["traces", "images"])
def test_traces_and_images_are_scored_by_squared_error(kind):
    if kind == "traces":
        data = TinyTraces(n_in=4, n_out=2, n_train=3, n_bins=10, noise=0.1)
    else:
        data = Pictures(n_train=20, n_val=10, offset=0)
    halves = ValidationHalves(data, seed=0, space="rate")
    batch = data.dataset("val", evaluate=True)[list(range(len(data.recording.splits["val"])))]
    targets, mask = batch["targets"].numpy(), batch["mask"].numpy()
    rates = targets + np.random.default_rng(0).normal(size=targets.shape)
    found = halves.scores(halves.losses(rates))
    for half, chosen in enumerate((halves.selecting, ~halves.selecting)):
        seen = mask & chosen[halves.part][..., None]
        assert found[half] == pytest.approx(np.square(rates - targets)[seen].mean())
        assert seen.any()
    if kind == "traces":  # one sequence: its first or its second half
        assert (
            halves.selecting.tolist() in ([True, False], [False, True])
            and halves.part[0].tolist() == [0] * 10 + [1] * 10
        )
    assert halves.metric == "MSE"


def test_without_held_out_neurons_forward_bins_are_scored():
    data = data_of()
    for trials in data.recording.splits.values():
        trials.heldin = np.concatenate([trials.heldin, np.nan_to_num(trials.heldout)], axis=2)
        trials.heldin_forward = np.concatenate([trials.heldin_forward, trials.heldout_forward], axis=2)
        trials.heldout = trials.heldout_forward = None
    assert data.spec.n_out == 0
    halves = ValidationHalves(data, seed=0, space="rate")
    assert halves.metric == "fp-bps" and halves.targets.shape == (11, 3, 10)
    data._spec = replace(data.spec, n_forward=0)
    assert ValidationHalves(data, seed=0, space="rate").metric == "bits/spike"


@pytest.mark.parametrize("n_parts", [24, 400])
def test_standard_error_of_the_gain(n_parts):
    """Gains of trials drawn again and again: their standard deviation is what each of them says its error is."""
    rng = np.random.default_rng(0)
    halves = ValidationHalves.__new__(ValidationHalves)
    halves.selecting = np.arange(n_parts) % 2 == 0
    halves._sums = {"weight": np.array([50.0, 0.5 * n_parts])}
    draws = [halves.gain(rng.normal(1, 2, n_parts), rng.normal(1.3, 1, n_parts)) for _ in range(3000)]
    gains, errors = np.array(draws).T
    assert errors.mean() == pytest.approx(gains.std(), rel=0.06)
    assert gains.mean() == pytest.approx(0.3, abs=0.05), "positive where the one is better"
    # the half that chose has no say
    losses, reference = rng.normal(size=(2, n_parts))
    elsewhere = losses + np.where(halves.selecting, 100.0, 0.0)
    assert halves.gain(losses, reference) == halves.gain(elsewhere, reference)


def test_gain_over_few_trials_has_no_standard_error():
    halves = ValidationHalves.__new__(ValidationHalves)
    halves.selecting, halves._sums = np.arange(18) < 9, {"weight": np.ones(2)}
    assert halves.gain(np.zeros(18), np.ones(18)) == (9.0, None)
