"""Quasi-Newton fits against known minima; bounds, early stopping, restarts."""

import pytest
import torch
from torch import nn

from neuro_lightning.models.quasi_newton import best_of_restarts, quasi_newton


class Point(nn.Module):
    """Two parameters, the first of them perhaps bounded."""

    def __init__(self, start=(-1.2, 1.0), limits=None):
        super().__init__()
        self.x, self.y = (nn.Parameter(torch.tensor([value])) for value in start)
        self.limits = limits

    def bounds(self):
        return {} if self.limits is None else {"x": tuple(torch.tensor([limit]) for limit in self.limits)}


def rosenbrock(point):
    return ((1 - point.x) ** 2 + 100 * (point.y - point.x**2) ** 2).sum()


def test_minimum_of_a_hard_valley():
    point = Point()
    fit = quasi_newton(point, rosenbrock)
    assert point.x.dtype == torch.float64
    assert abs(float(point.x) - 1) < 1e-3 and abs(float(point.y) - 1) < 1e-3
    assert fit.loss == fit.score < 1e-6 and 0 < fit.iterations < 200
    assert torch.equal(fit.state["x"], point.x.detach())


def test_bounds_hold_on_the_way():
    seen = []

    def objective(point):
        seen.append(float(point.x.detach()))
        return rosenbrock(point)

    point = Point(start=(0.0, 0.0), limits=(-0.5, 0.5))
    quasi_newton(point, objective)
    assert max(seen) <= 0.5 and min(seen) >= -0.5
    assert abs(float(point.x) - 0.5) < 1e-6 and abs(float(point.y) - 0.25) < 1e-3  # the best within


def test_the_lowest_validation_loss_is_kept():
    torch.manual_seed(0)
    features = torch.randn(60, 40, dtype=torch.float64)
    target = features[:, :1] + torch.randn(60, 1, dtype=torch.float64)
    net = nn.Linear(40, 1)

    def on(rows):
        return lambda net: (net(features[rows]) - target[rows]).square().mean()

    train, val = slice(0, 42), slice(42, 60)  # as many weights as rows: to the end, it would fit the noise
    fit = quasi_newton(net, on(train), validation=on(val), every=1, patience=3)
    assert float(on(val)(net)) == fit.score == min(score for _, score in fit.history)
    free = nn.Linear(40, 1)
    free.load_state_dict(net.state_dict())
    quasi_newton(free, on(train), iterations=500)
    assert float(on(val)(free)) > fit.score and float(on(train)(free)) < fit.loss


def test_a_fit_ends_when_validation_has_not_improved_for_long():
    def worse_all_the_way(point):
        return -rosenbrock(point)

    point = Point()
    fit = quasi_newton(point, rosenbrock, validation=worse_all_the_way, every=2, patience=3)
    assert fit.iterations == 2 * 3 and len(fit.history) in (4, 5)
    assert float(point.x) == pytest.approx(-1.2) and fit.score == fit.history[0][1]  # the start was the best


def test_training_and_evaluation_mode():
    modes = []
    point = Point()

    def objective(net):
        modes.append(("objective", net.training))
        return rosenbrock(net)

    def validation(net):
        modes.append(("validation", net.training))
        return rosenbrock(net)

    quasi_newton(point, objective, validation=validation, iterations=6, every=2)
    assert set(modes) == {("objective", True), ("validation", False)}


def two_valleys(point):
    """A shallow minimum near x = 3 and the deep one near x = -3."""
    return ((point.x**2 - 9) ** 2 / 20 + point.x + point.y**2).sum()


def test_best_of_several_starts_is_kept_and_repeats():
    def build():
        return Point(start=torch.empty(2).uniform_(-4, 4).tolist())

    before = torch.random.get_rng_state()
    best, fits = best_of_restarts(build, two_valleys, restarts=6, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert best.score == min(fit.score for fit in fits) and float(best.state["x"]) < -2.9
    assert max(fit.score for fit in fits) > best.score + 3  # some starts do end in the other valley
    again, _ = best_of_restarts(build, two_valleys, restarts=6, seed=3)
    assert again.score == best.score and torch.equal(again.state["x"], best.state["x"])
    shifted = best_of_restarts(build, two_valleys, restarts=5, seed=4)[1]
    assert [fit.score for fit in shifted] == [fit.score for fit in fits[1:]]


def test_the_start_that_validates_best_is_kept_and_not_the_one_that_fits_best():
    starts = iter([-4.0, 4.0])

    def validation(point):
        return (point.x - 3).square().sum()  # right in the shallow valley

    best, fits = best_of_restarts(
        lambda: Point(start=(next(starts), 0.0)), two_valleys, validation=validation, restarts=2, seed=0
    )
    assert best is fits[1] and best.score < fits[0].score and best.loss > fits[0].loss
    assert float(best.state["x"]) > 2


def test_fits_without_a_finite_start_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        best_of_restarts(Point, rosenbrock, restarts=0, seed=0)
    with pytest.raises(ValueError, match="stayed finite"):
        best_of_restarts(Point, lambda point: (point.x * torch.nan).sum(), restarts=1, seed=0, iterations=2)
