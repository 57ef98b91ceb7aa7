"""The smoothing baseline against scikit-learn and against itself."""

import gc

import numpy as np
import pytest
import torch
from sklearn.linear_model import PoissonRegressor

from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.recording import Trials
from neuro_lightning.functional.poisson_regression import poisson_regression
from neuro_lightning.functional.smoothing import gaussian_smooth, smooth_observed
from neuro_lightning.models import smoothing
from neuro_lightning.models.smoothing import FLOOR, SmoothingNet


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0])
def test_poisson_regression_equals_scikit_learn(alpha):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 12)) @ rng.normal(size=(12, 12)) * 0.3
    y = rng.poisson(np.exp(x @ rng.normal(size=(12, 3)) * 0.2 - 2))
    weight, bias = poisson_regression(torch.from_numpy(x), torch.from_numpy(y).double(), alpha)
    for q in range(3):
        reference = PoissonRegressor(alpha=alpha, tol=1e-10, max_iter=10_000).fit(x, y[:, q])
        np.testing.assert_allclose(weight[:, q], reference.coef_, atol=2e-4)
        np.testing.assert_allclose(bias[q], reference.intercept_, atol=2e-4)


def test_a_bin_weighs_by_its_observed_share():
    weights, share = torch.tensor([[1.0, 0.5, 0.25]]), torch.tensor([1.0, 0.5, 0.0])
    counts = torch.tensor([2.0, 6.0, torch.nan])
    found = smooth_observed(weights, counts[None, :, None], share[None, :, None], torch.zeros(1))
    assert float(found) == pytest.approx((2.0 + 0.5 * 0.5 * 6.0) / (1.0 + 0.5 * 0.5))


def test_a_fit_keeps_no_reference_to_the_data():
    """A sweep's process fits hundreds; a graph from a parameter to itself is one that Python cannot collect."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors()
    poisson_regression(torch.randn(200, 3), torch.poisson(torch.ones(200, 2)), 0.1)
    assert tensors() == before


def test_a_silent_neuron_and_a_constant_feature_are_survived():
    x = torch.cat([torch.randn(200, 2), torch.ones(200, 1)], 1)
    y = torch.cat([torch.zeros(200, 1), torch.poisson(torch.ones(200, 1))], 1)
    weight, bias = poisson_regression(x, y, 0.1)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all() and bias[0] < -8


def planted(n_trials=60, bins=40, forward=4, seed=0):
    """Two latents drive all neurons: held-out rates can be predicted from held-in counts."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (n_trials, 1, 1))
    time = np.arange(bins + forward)[None, :, None] / 12
    latents = np.concatenate([np.sin(time + phase), np.cos(time + phase)], 2)
    rates = np.exp(latents @ np.random.default_rng(1).normal(size=(2, 24)) * 0.7 - 1)
    counts = rng.poisson(rates).astype(np.uint8)
    return Trials(counts[:, :bins, :18], counts[:, :bins, 18:], counts[:, bins:, :18], counts[:, bins:, 18:])


def bits(net, trials):
    from neuro_lightning.functional.likelihood import bits_per_spike

    rates = net(torch.from_numpy(trials.heldin).float())["log_rates"].exp()
    bins = trials.heldin.shape[1]
    return float(bits_per_spike(rates[:, :bins, 18:], torch.from_numpy(trials.heldout)))


def fitted(sd_bins, alpha):
    net = SmoothingNet(18, 24, 4)
    net.fit(TrialDataset(planted(), n_out=6, n_forward=4, evaluate=False), sd_bins=sd_bins, alpha=alpha)
    return net


def test_it_predicts_what_can_be_predicted():
    net, unseen = fitted([4.0], [0.01]), planted(seed=5)
    assert bits(net, unseen) > 0.05
    shifted = planted(seed=5)
    shifted.heldout = np.roll(shifted.heldout, 20, axis=0)
    assert bits(net, shifted) < 0, "of other trials it knows nothing"


def test_held_in_rates_are_the_smoothed_counts():
    net, trials = fitted([3.0], [0.01]), planted()
    inputs = torch.from_numpy(trials.heldin).float()
    expected = (gaussian_smooth(inputs, 3.0) + FLOOR).log()
    torch.testing.assert_close(net(inputs)["log_rates"][:, :40, :18], expected)


def test_held_in_rates_have_the_kernel_that_predicts_left_out_counts():
    assert float(fitted([0.5, 4.0, 60.0], [0.01]).heldin_sd_bins) == 4.0


def test_the_kernel_is_chosen_on_training_trials():
    chosen = fitted([0.5, 4.0, 60.0], [0.001, 0.01, 0.1])
    assert float(chosen.sd_bins) == 4.0
    assert bits(chosen, planted(seed=5)) >= max(bits(fitted([sd], [0.01]), planted(seed=5)) for sd in (0.5, 60.0))


@pytest.mark.parametrize("n_out", [6, 0])
def test_what_chooses_was_not_fitted_on(monkeypatch, n_out):
    """Kernel and penalty are chosen by the last fifth of the training trials, fitted on the others."""
    trials = planted(n_trials=20, bins=12)
    if not n_out:
        heldin = np.concatenate([trials.heldin, trials.heldout], 2)
        trials = Trials(heldin, None, np.concatenate([trials.heldin_forward, trials.heldout_forward], 2))
    data, fits, scored = TrialDataset(trials, n_out=n_out, n_forward=4, evaluate=False), [], []
    net = SmoothingNet(24 - n_out, 24, 4)
    nll, regress = smoothing.poisson_nll, smoothing._regress
    monkeypatch.setattr(smoothing, "_regress", lambda *a: fits.append(a[1]) or regress(*a))
    monkeypatch.setattr(smoothing, "poisson_nll", lambda *a: scored.append((*a[:2], len(fits))) or nll(*a))
    net.fit(data, sd_bins=[0.5, 4.0], alpha=[0.01, 1.0])
    whole = data[list(range(20))]["targets"]
    heldout, ahead = whole[:, :12, 18:], whole[:, 12:]
    choosing = heldout if n_out else ahead
    chosen = [(rates, counts) for rates, counts, done in scored if done]
    inner, final = fits[:4], fits[4:]
    assert len(chosen) >= 4 and all(torch.equal(counts, choosing[:16].flatten(0, 1)) for counts in inner)
    fitted = [heldout, ahead] if n_out else [ahead]
    assert len(final) == len(fitted), "what was chosen is fitted on all"
    assert all(torch.equal(counts, part.flatten(0, 1)) for counts, part in zip(final, fitted, strict=True))
    assert all(torch.equal(counts, choosing[16:].flatten(0, 1)) for _, counts in chosen[:4])
    assert all(torch.isfinite(rates).all() for rates, _ in chosen[:4])


def test_a_penalty_that_overfits_is_not_chosen():
    """Of noise the weakest penalty explains the trials that it was fitted on best, and others worst."""
    rng = np.random.default_rng(0)
    heldin, heldout = rng.poisson(0.5, (12, 10, 30)), rng.poisson(0.5, (12, 10, 4))
    data = TrialDataset(Trials(heldin.astype(np.uint8), heldout.astype(np.uint8)), n_out=4, n_forward=0, evaluate=False)
    net, strong = SmoothingNet(30, 34, 0), SmoothingNet(30, 34, 0)
    net.fit(data, sd_bins=[2.0], alpha=[1e-4, 10.0])
    strong.fit(data, sd_bins=[2.0], alpha=[10.0])
    torch.testing.assert_close(net.weight, strong.weight)
