"""Choosing an ensemble's members and weights: against brute force and a general optimizer, on random problems."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from neuro_lightning.functional import selection
from neuro_lightning.functional.selection import (
    Candidates,
    greedy,
    member_losses,
    mixture_losses,
    per_neuron,
    simplex_minimum,
    stack,
    top,
)

FAMILIES = ("poisson", "log", "squared")


def problem(seed: int, family: str = "poisson", members: int = 5, neurons: int = 3, bins: int = 80):
    """Members that know different parts of the truth; the candidates, their predictions and the targets."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.7, 0.7, (bins, neurons))
    logs = truth + rng.normal(0, rng.uniform(0.2, 1.0, (members, 1, 1)), (members, bins, neurons))
    rates, counts = np.exp(logs), rng.poisson(np.exp(truth)).astype(float)
    values = logs if family == "log" else rates
    flat, targets = values.transpose(0, 2, 1).reshape(members, -1), counts.T.ravel()
    starts, linear = np.arange(neurons + 1) * bins, np.zeros((members, neurons))
    if family == "poisson":  # entries without a spike count by their sums alone
        spike = targets > 0
        linear = rates.sum(1)
        starts = np.concatenate([[0], np.cumsum(spike)])[starts]
        flat, targets = flat[:, spike], targets[spike]
    elif family == "log":
        linear = -(counts * logs).sum(1)
    return Candidates(lambda a, b: flat[:, a:b], targets, starts, linear, family), values, counts


def direct(family: str, values: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> float:
    """The loss of a mixture, as it is written in a textbook."""
    mixed = np.tensordot(weights, values, 1)
    if family == "squared":
        return float(np.square(mixed - counts).sum())
    rates = np.exp(mixed) if family == "log" else mixed
    return float((rates - counts * np.log(rates)).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_textbooks(family, monkeypatch):
    candidates, values, counts = problem(0, family)
    weights = np.random.default_rng(1).dirichlet(np.ones(5), size=4)
    expected = [direct(family, values, counts, row) for row in weights]
    np.testing.assert_allclose(mixture_losses(candidates, weights), expected, rtol=1e-12)
    monkeypatch.setattr(selection, "BLOCK", 35)  # seven entries at a time
    np.testing.assert_allclose(mixture_losses(candidates, weights), expected, rtol=1e-12)
    np.testing.assert_allclose(mixture_losses(candidates, np.eye(5)), member_losses(candidates), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FAMILIES), st.integers(1, 7))
def test_no_way_is_worse_than_the_best_member(seed, family, members):
    candidates, *_ = problem(seed, family, members, bins=25)
    best = member_losses(candidates).min()
    for counts in (greedy(candidates, 20), top(candidates, 20)):
        assert (counts >= 0).all() and counts.sum() >= 1 and not (counts % 1).any()
        assert mixture_losses(candidates, counts[None] / counts.sum())[0] <= best + 1e-9
    weights = stack(candidates, 0.0)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
    chosen = greedy(candidates, 20)
    reached = mixture_losses(candidates, np.stack([weights, chosen / chosen.sum()]))
    assert reached[0] <= reached[1] + 1e-5, "the optimum over all weights is at least as good as greedy's"


def test_greedy_takes_what_helps_most_until_nothing_does():
    candidates, *_ = problem(3)
    counts = np.zeros(5)
    for size in range(1, 30):  # by brute force
        tried = [mixture_losses(candidates, (counts + row)[None] / size)[0] for row in np.eye(5)]
        if size > 1 and min(tried) >= mixture_losses(candidates, counts[None] / (size - 1))[0] - selection.GAP:
            break
        counts += np.eye(5)[np.argmin(tried)]
    assert greedy(candidates, 50).tolist() == counts.tolist() and counts.max() > 1, "with replacement"
    assert greedy(candidates, 2).sum() == 2 and greedy(candidates, 1).sum() == 1


def test_top_takes_the_number_that_is_best():
    candidates, *_ = problem(4, members=6)
    order = np.argsort(member_losses(candidates))
    means = [np.isin(np.arange(6), order[:n]) / n for n in range(1, 7)]
    best = int(np.argmin(mixture_losses(candidates, np.array(means)))) + 1
    assert 1 < best < 6 and set(np.flatnonzero(top(candidates, 6))) == set(order[:best])
    assert top(candidates, best - 1).sum() == best - 1


def test_of_equal_means_the_smaller_one():
    candidates, *_ = problem(5, members=1)
    flat = candidates.read(0, len(candidates.targets))
    twins = Candidates(
        lambda a, b: np.repeat(flat[:, a:b], 4, axis=0), candidates.targets, candidates.starts,
        np.repeat(candidates.linear, 4, axis=0), "poisson",
    )  # fmt: skip
    assert top(twins, 4).tolist() == greedy(twins, 4).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_stacking_finds_the_optimum(family, shrinkage):
    candidates, values, counts = problem(6, family)
    unit = 1.0
    if family == "squared":
        unit = 2 * member_losses(candidates).min() / len(candidates.targets)

    def objective(weights):
        return direct(family, values, counts, weights) / unit + shrinkage * 5 * np.square(weights - 0.2).sum()

    found = minimize(
        objective, np.full(5, 0.2), method="SLSQP", bounds=[(0, 1)] * 5, options={"ftol": 1e-13, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )  # fmt: skip
    weights = stack(candidates, shrinkage)
    assert found.success and np.ptp(weights) > 0.05
    np.testing.assert_allclose(weights, found.x, atol=2e-4)
    assert objective(weights) <= found.fun + selection.GAP


def test_shrinkage_leads_from_the_data_to_equal_weights():
    candidates, *_ = problem(7)
    distance = [np.abs(stack(candidates, s) - 0.2).sum() for s in (0, 1, 10, 100, 1e4, math.inf)]
    assert all(np.diff(distance) < 0) and distance[-1] == 0 and distance[0] > 0.1


def test_a_neurons_weights_shrink_to_those_of_all():
    candidates, values, counts = problem(8)
    center = stack(candidates, 1.0)
    assert (per_neuron(candidates, math.inf, center) == center[:, None]).all()
    own = per_neuron(candidates, 1.0, center)
    assert own.shape == (5, 3) and np.abs(own - center[:, None]).max() > 0.01
    np.testing.assert_allclose(own.sum(0), 1, atol=1e-12)
    free = per_neuron(candidates, 0.0, center)
    for n in range(3):
        for other in (center, own[:, n]):
            here = [direct("poisson", values[..., n], counts[:, n], w) for w in (free[:, n], other)]
            assert here[0] <= here[1] + selection.GAP
    np.testing.assert_allclose(per_neuron(candidates, 1e6, center), np.repeat(center[:, None], 3, 1), atol=1e-3)


def test_a_silent_neuron_keeps_the_weights_of_all():
    candidates, *_ = problem(9)
    silent = Candidates(candidates.read, candidates.targets[:0], np.zeros(2, int), candidates.linear[:, :1], "poisson")
    assert (per_neuron(silent, 1.0, np.full(5, 0.2)) == 0.2).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_the_least_of_a_quadratic_on_the_simplex(seed, size):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    curvature, slope = root @ root.T + 1e-3 * np.eye(size), rng.normal(0, 10 ** rng.uniform(-2, 3), size)
    weights = simplex_minimum(curvature, slope)
    gradient = curvature @ weights + slope
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    assert gradient @ weights - gradient.min() <= 1e-8 * (1 + np.abs(gradient).max())
