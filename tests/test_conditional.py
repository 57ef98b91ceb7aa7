"""The cheap models of BrainWideBench: closed forms, and nothing of a missing neuron in its own rate."""

import numpy as np
import pytest
import torch

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional.conditional_rates import (
    coupling_weights,
    moments,
    past_means,
    reduced_rank_weights,
    ridge_forecast,
)
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.conditional import Conditional, Forecast

N, B, T = 6, 60, 30


def counts(seed=0, n_trials=B):
    """Neurons that share two slow signals."""
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.normal(size=(n_trials, T, 2)), axis=1) / 4
    mix = np.random.default_rng(1).normal(size=(2, N)) * 0.4
    return torch.from_numpy(rng.poisson(np.exp(slow @ mix)).astype(np.float32))


class Data(list):
    """A split as a fitted model reads it."""

    def __init__(self, batch):
        super().__init__(range(len(batch["inputs"])))
        self.batch = batch

    def __getitem__(self, index):
        return self.batch


def spec(**values):
    return DataSpec("x", n_in=N, n_bins=T, bin_ms=20, mean_rates=(1.0,) * N, partial=True, **values)


def test_full_rank_is_least_squares_and_a_rank_is_kept():
    x = counts().flatten(0, 1).double()
    seen = torch.tensor([True, True, True, False, True, False])
    found = moments(x, x)
    weights = reduced_rank_weights(found, seen, rank=2, ridge=0.0)
    centered = (x - x.mean(0)).numpy()
    expected = np.linalg.lstsq(centered[:, seen.numpy()], centered[:, ~seen.numpy()], rcond=None)[0]
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-9)
    one = reduced_rank_weights(found, seen, rank=1, ridge=0.0)
    assert np.linalg.matrix_rank(one.numpy(), tol=1e-9) == 1
    # of all weights of rank one, these leave the smallest squared error: the first direction of what is predicted
    predicted = centered[:, seen.numpy()] @ expected
    direction = np.linalg.svd(predicted, full_matrices=False)[2][:1]
    np.testing.assert_allclose(one.numpy(), expected @ direction.T @ direction, atol=1e-9)


def test_coupling_is_the_regression_on_the_sum():
    x = counts().flatten(0, 1).double()
    seen = torch.tensor([True, False, True, True, True, True])
    weights = coupling_weights(moments(x, x), seen, ridge=0.0)
    total = x[:, seen].sum(1).numpy()
    slope = np.polyfit(total, x[:, 1].numpy(), 1)[0]
    np.testing.assert_allclose(weights.numpy(), np.full((5, 1), slope), atol=1e-9)


def test_a_forecast_is_ridge_regression():
    past, ahead = counts(), counts(3)[:, :5]
    features = past_means(past, (5, 30)).flatten(1)
    np.testing.assert_allclose(features[:, 0].numpy(), past[:, -5:, 0].mean(1).numpy(), rtol=1e-6)
    weight, mean, center = ridge_forecast(features, ahead.mean(1), ridge=0.3)
    x, y = (features.double() - mean).numpy(), (ahead.mean(1).double() - center).numpy()
    gram = x.T @ x / len(x)
    expected = np.linalg.solve(gram + 0.3 * np.diag(gram).mean() * np.eye(len(gram)), x.T @ y / len(x))
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_missing_neuron_is_predicted_from_the_others_alone(rank):
    model = Conditional(spec(), rank=rank, ridge=0.01)
    model.fit_net(Data({"inputs": counts()}))
    new = counts(5, 20)
    observed = torch.ones(20, T, N, dtype=torch.bool)
    observed[:12, :, 2] = False  # another neuron is missing in the other trials
    observed[12:, :, 4] = False
    poisoned = new.masked_fill(~observed, 1e6)
    shown = torch.where(observed, poisoned, 0.0)
    rates = model.net(shown, observed)["log_rates"].exp()
    assert torch.equal(rates, model.net(new.masked_fill(~observed, 0), observed)["log_rates"].exp())
    truth = gaussian_smooth(new, 3.0)
    found = np.corrcoef(rates[:12, :, 2].flatten(), truth[:12, :, 2].flatten())[0, 1]
    assert found > 0.2, "it follows the neuron that it does not see"
    own = gaussian_smooth(new, model.net.sd_bins)[12:, :, 2]
    torch.testing.assert_close(rates[12:, :, 2], own.clamp_min(1e-2), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("others", [True, False])
def test_bins_ahead_follow_the_last_bins(others):
    every = torch.cat([counts(k, 40) for k in range(4)])
    past, ahead = every[:, :-5], every
    data = spec(n_forward=5)
    model = Forecast(DataSpec(**{**data.__dict__, "n_bins": T - 5}), widths_ms=(100, 400), others=others, ridge=0.1)
    model.fit_net(Data({"inputs": past, "targets": ahead}))
    new = counts(9, 80)
    rates = model.net(new[:, :-5])["log_rates"].exp()
    assert rates.shape == (80, T, N) and rates.isfinite().all()
    assert np.corrcoef(rates[:, -1].flatten(), new[:, -5:].mean(1).flatten())[0, 1] > 0.4
    first = model.net(torch.cat([torch.full((80, 3, N), 9.0), new[:, 3:-5]], 1))["log_rates"]
    if not others:
        torch.testing.assert_close(first[:, -1], model.net(new[:, :-5])["log_rates"][:, -1])  # beyond the widths


def test_data_without_forward_bins_or_with_held_out_neurons_are_refused():
    assert "forward bins" in Forecast.refuse(spec()) and "forward bins" in Forecast.refuse(spec(n_out=2, n_forward=3))
    assert Forecast.refuse(spec(n_forward=5)) is None and Conditional.refuse(spec()) is None
    assert "missing from some inputs" in Conditional.refuse(spec(n_out=2))
    assert "missing from some inputs" in Conditional.refuse(spec(n_forward=2))
