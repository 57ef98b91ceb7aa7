"""Chains of latents against the joint Gaussian, and Laplace's approximation against a generic optimizer."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from neuro_lightning.functional.kalman import (
    Dynamics,
    Posterior,
    fit_dynamics,
    laplace_filter,
    laplace_smoother,
    log_prior,
    poisson_log_joint,
    predict_ahead,
    predict_next,
    prior_precision,
    solve_tridiagonal,
)

DIM, NEURONS = 2, 5


def gaussian_smoother(y: Tensor, loadings: Tensor, mean: Tensor, private: Tensor, dynamics: Dynamics) -> Posterior:
    """The exact posterior given ``y_t = loadings x_t + mean + noise``.

    Args:
        y: (B, T, N) activity.
        loadings: (N, D).
        mean: (N,).
        private: (N,) variances of the noise.
        dynamics: of the latents.
    """
    weighted = loadings / private[:, None]
    diagonal, below, potential = prior_precision(dynamics, y.shape[1])
    x, cov, cross, logdet = solve_tridiagonal(
        (diagonal + loadings.T @ weighted)[None], below, potential + (y - mean) @ weighted
    )
    misfit = ((y - mean - x @ loadings.T).square() / private + (2 * math.pi * private).log()).sum((1, 2))
    evidence = log_prior(x, dynamics) - 0.5 * misfit - 0.5 * logdet + 0.5 * x[0].numel() * math.log(2 * math.pi)
    return Posterior(x, cov, cross, evidence)


def dynamics(seed=0, dim=DIM) -> Dynamics:
    rng = np.random.default_rng(seed)
    transition = 0.9 * np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    noise, first = (a @ a.T + 0.1 * np.eye(dim) for a in 0.3 * rng.normal(size=(2, dim, dim)))
    return Dynamics(*map(torch.from_numpy, (transition, noise, rng.normal(size=dim), first)))


def readout(seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(NEURONS, DIM))), torch.from_numpy(rng.normal(size=NEURONS))


def joint(model: Dynamics, steps: int):
    """Mean (T, D) and covariance (T, D, T, D) of the latents, from the definition."""
    a, noise, mean, cov = model
    means, covs = [mean], torch.zeros(steps, len(mean), steps, len(mean)).double()
    covs[0, :, 0] = cov
    for t in range(1, steps):
        means.append(a @ means[-1])
        covs[t, :, t] = a @ covs[t - 1, :, t - 1] @ a.T + noise
        for s in range(t):
            covs[t, :, s] = a @ covs[t - 1, :, s]
            covs[s, :, t] = covs[t, :, s].T
    return torch.stack(means), covs


def sample(model: Dynamics, trials: int, steps: int, seed=0) -> torch.Tensor:
    mean, cov = joint(model, steps)
    rng = torch.from_numpy(np.random.default_rng(seed).normal(size=(trials, mean.numel())))
    return mean + (rng @ torch.linalg.cholesky(cov.reshape(mean.numel(), -1)).T).view(trials, *mean.shape)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_smoother_is_the_gaussian_conditional(steps):
    model, (loadings, bias) = dynamics(), readout()
    private = torch.linspace(0.2, 1.0, NEURONS).double()
    y = sample(model, 3, steps) @ loadings.T + bias
    y = y + torch.from_numpy(np.random.default_rng(1).normal(size=y.shape)) * private.sqrt()
    mean, cov = joint(model, steps)
    wide = torch.kron(torch.eye(steps).double(), loadings)
    flat = cov.reshape(steps * DIM, -1)
    activity = wide @ flat @ wide.T + torch.diag(private.repeat(steps))
    gain = torch.linalg.solve(activity, wide @ flat).T
    offset = (mean @ loadings.T + bias).flatten()
    expected = mean.flatten() + (y.flatten(1) - offset) @ gain.T
    after = (flat - gain @ wide @ flat).view(steps, DIM, steps, DIM)
    found = gaussian_smoother(y, loadings, bias, private, model)
    torch.testing.assert_close(found.mean, expected.view(3, steps, DIM))
    torch.testing.assert_close(found.cov[0], torch.stack([after[t, :, t] for t in range(steps)]))
    assert found.cross.shape[1] == steps - 1
    for t in range(1, steps):
        torch.testing.assert_close(found.cross[0, t - 1], after[t, :, t - 1])
    torch.testing.assert_close(found.log_likelihood, MultivariateNormal(offset, activity).log_prob(y.flatten(1)))


def test_the_prior_is_the_joint_gaussian():
    x = sample(dynamics(), 4, 5)
    mean, cov = joint(dynamics(), 5)
    expected = MultivariateNormal(mean.flatten(), cov.reshape(mean.numel(), -1)).log_prob(x.flatten(1))
    torch.testing.assert_close(log_prior(x, dynamics()), expected)


def poisson(trials=4, steps=6, scale=1.0):
    model, (loadings, bias) = dynamics(), readout()
    rates = (sample(model, trials, steps) @ (scale * loadings).T + bias).exp()
    return torch.from_numpy(np.random.default_rng(2).poisson(rates)).double(), scale * loadings, bias, model


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_the_mode_has_no_slope_and_is_a_generic_optimizers(scale):
    counts, loadings, bias, model = poisson(scale=scale)
    found = laplace_smoother(counts, loadings, bias, model)
    x = found.mean.clone().requires_grad_()
    poisson_log_joint(x, counts, loadings, bias, model).sum().backward()
    assert float(x.grad.abs().max()) < 1e-6
    other = torch.zeros_like(x).detach().requires_grad_()
    optimizer = torch.optim.LBFGS([other], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -poisson_log_joint(other, counts, loadings, bias, model).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(found.mean, other.detach(), atol=1e-4, rtol=1e-4)


def test_the_curvature_at_the_mode():
    counts, loadings, bias, model = poisson(trials=1, steps=4)
    found = laplace_smoother(counts, loadings, bias, model)

    def loss(x):
        return -poisson_log_joint(x.view(1, 4, DIM), counts, loadings, bias, model).sum()

    hessian = torch.autograd.functional.hessian(loss, found.mean.flatten())
    cov = torch.linalg.inv(hessian).view(4, DIM, 4, DIM)
    for t in range(4):
        torch.testing.assert_close(found.cov[0, t], cov[t, :, t])
    torch.testing.assert_close(found.cross[0, 1], cov[2, :, 1])
    expected = -loss(found.mean) - 0.5 * torch.logdet(hessian / (2 * torch.pi))
    torch.testing.assert_close(found.log_likelihood[0], expected)


def test_laplaces_likelihood_is_near_the_true_one():
    """Of one latent in one step, by quadrature."""
    model = Dynamics(*(torch.tensor(v).double() for v in ([[0.9]], [[0.2]], [0.3], [[0.5]])))
    loadings, bias = torch.tensor([[1.0], [-0.5], [0.7]]).double(), torch.tensor([0.5, 1.0, 0.0]).double()
    counts = torch.tensor([[[3.0, 1.0, 2.0]]]).double()
    grid = torch.linspace(-6, 6, 4001).double()
    joint = poisson_log_joint(grid[:, None, None], counts, loadings, bias, model).exp()
    exact = float((joint * (grid[1] - grid[0])).sum().log())
    assert abs(float(laplace_smoother(counts, loadings, bias, model).log_likelihood) - exact) < 0.02


def test_a_trial_does_not_depend_on_its_batch():
    counts, loadings, bias, model = poisson(trials=9, scale=1.5)
    whole = laplace_smoother(counts, loadings, bias, model).mean
    torch.testing.assert_close(laplace_smoother(counts[4:5], loadings, bias, model).mean, whole[4:5])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(laplace_smoother(counts[order], loadings, bias, model).mean, whole[order])


def test_newton_converges_from_a_far_start_and_for_a_silent_trial():
    counts, loadings, bias, model = poisson(scale=1.5)
    counts[0] = 0
    best = laplace_smoother(counts, loadings, bias, model)
    wild = laplace_smoother(counts, loadings, bias, model, start=torch.full_like(best.mean, 5.0))
    torch.testing.assert_close(wild.mean, best.mean, atol=1e-6, rtol=1e-6)


def test_dynamics_of_what_is_known_exactly_are_found():
    x = sample(dynamics(), 4000, 8)
    nothing = torch.zeros(1, 8, DIM, DIM).double()
    found = fit_dynamics(Posterior(x, nothing, nothing[:, 1:], torch.zeros(4000)))
    for one, other in zip(found, dynamics(), strict=True):
        torch.testing.assert_close(one, other, atol=0.03, rtol=0)


def test_em_of_the_dynamics_never_lowers_the_likelihood():
    truth, (loadings, bias) = dynamics(), readout()
    y = sample(truth, 60, 8) @ loadings.T + bias
    private = torch.full((NEURONS,), 0.3).double()
    y = y + torch.from_numpy(np.random.default_rng(1).normal(size=y.shape)) * private.sqrt()
    model, history = dynamics(seed=5), []
    for _ in range(25):
        chain = gaussian_smoother(y, loadings, bias, private, model)
        history.append(float(chain.log_likelihood.sum()))
        model = fit_dynamics(chain)
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(history))
    expected = float(gaussian_smoother(y, loadings, bias, private, truth).log_likelihood.sum())
    assert history[0] < expected - 10 and history[-1] > expected


def test_what_is_ahead_is_the_conditional_mean():
    """Steps of which nothing was observed, smoothed, are those that the dynamics run on to."""
    model, (loadings, bias) = dynamics(), readout()
    y = sample(model, 3, 5) @ loadings.T + bias
    private = torch.full((NEURONS,), 0.3).double()
    mean, cov = joint(model, 9)
    wide = torch.kron(torch.eye(9).double()[:5], loadings)
    flat = cov.reshape(9 * DIM, -1)
    activity = wide @ flat @ wide.T + torch.diag(private.repeat(5))
    gain = torch.linalg.solve(activity, wide @ flat).T
    expected = mean.flatten() + (y.flatten(1) - (mean[:5] @ loadings.T + bias).flatten()) @ gain.T
    found = predict_ahead(gaussian_smoother(y, loadings, bias, private, model).mean, model.transition, 4)
    torch.testing.assert_close(found, expected.view(3, 9, DIM))


# ---- the filter


@pytest.mark.parametrize("rate", [0.1, 30.0])
def test_a_step_of_the_filter_is_the_smoother_of_one_step(rate):
    """From few spikes and from many, where Newton's method alone goes too far; each trial by itself."""
    loadings, bias = readout()
    chain = dynamics()
    counts = torch.poisson(torch.full((7, 1, NEURONS), rate, dtype=torch.float64))
    expected = laplace_smoother(counts, loadings, bias, chain, iterations=200, tolerance=1e-10)
    before = chain.first_mean.expand(7, -1), chain.first_cov.expand(7, -1, -1)
    mean, cov = laplace_filter(*before, counts[:, 0], loadings, bias)
    torch.testing.assert_close(mean, expected.mean[:, 0], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(cov, expected.cov[:, 0], rtol=1e-6, atol=1e-7)
    alone = laplace_filter(before[0][:1], before[1][:1], counts[:1, 0], loadings, bias)
    torch.testing.assert_close(alone[0], mean[:1], rtol=1e-12, atol=1e-12)


def test_the_filter_without_counts_and_with_a_share_of_them():
    loadings, bias = readout()
    chain = dynamics()
    before = chain.first_mean[None], chain.first_cov[None]
    counts = torch.poisson(torch.full((1, NEURONS), 2.0, dtype=torch.float64))
    none = torch.zeros_like(counts)
    torch.testing.assert_close(laplace_filter(*before, none, loadings, bias, none), before)
    half = laplace_filter(*before, counts, loadings, bias, torch.full_like(counts, 0.5))
    torch.testing.assert_close(half, laplace_filter(*before, counts, loadings, bias + math.log(0.5)))


def test_prediction_is_the_joint_gaussians():
    chain = dynamics()
    mean, cov = predict_next(chain.first_mean[None], chain.first_cov[None], chain)
    diagonal, below, potential = prior_precision(chain, 2)
    wanted, cov_wanted, *_ = solve_tridiagonal(diagonal[None], below, potential[None])
    torch.testing.assert_close((mean, cov), (wanted[:, 1], cov_wanted[:, 1]))
