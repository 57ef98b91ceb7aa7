"""Poisson linear dynamical systems: latents with linear dynamics, and neurons that fire at exponential rates.

Laplace-EM: the expectations are those of the Gaussian at the posterior's mode; loadings and biases then take a few
damped steps of Newton's method, each neuron by itself.

Source: Macke, Buesing et al. 2011, "Empirical models of spiking in neural populations", NeurIPS 24.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional import gpfa
from neuro_lightning.functional.kalman import Dynamics, Posterior, fit_dynamics, laplace_smoother
from neuro_lightning.functional.poisson_regression import poisson_regression

RIDGE = 1.0  # of the loadings: as much as one spike of evidence, against loadings of silent neurons


class PLDS(NamedTuple):
    """The model's parameters; float64.

    Attributes:
        loadings: (N, D), log-rate per unit of each latent.
        bias: (N,) log of spikes per step where all latents are zero.
        dynamics: of the latents.
    """

    loadings: Tensor
    bias: Tensor
    dynamics: Dynamics


def initial(counts: Tensor, n_latents: int, timescale: float) -> PLDS:
    """A start from smooth latents: a few steps of GPFA, their dynamics, and a Poisson regression from them.

    Args:
        counts: (B, T, N) in steps.
        n_latents: D; at most N count.
        timescale: of GPFA's latents, in steps.
    """
    roots = counts.sqrt()
    smooth, _ = gpfa.fit(roots, n_latents, timescale=timescale, iterations=5)
    found = gpfa.posterior(roots, smooth)
    # of the means alone: the posterior's covariances, which are not those of a chain, would make the dynamics forget
    nothing = torch.zeros_like(found.across)[None]
    dynamics = fit_dynamics(Posterior(found.mean, nothing, nothing[:, 1:], found.log_likelihood))
    some = 0.01 * torch.eye(len(dynamics.noise)).to(dynamics.noise)
    dynamics = dynamics._replace(noise=dynamics.noise + some, first_cov=dynamics.first_cov + some)
    weight, bias = poisson_regression(found.mean.flatten(0, 1), counts.flatten(0, 1), alpha=1e-2)
    return PLDS(weight.T.contiguous(), bias, dynamics)


def fit(counts: Tensor, n_latents: int, *, timescale: float, iterations: int) -> tuple[PLDS, list[float]]:
    """Laplace-EM.

    Args:
        counts: (B, T, N) in steps, float64.
        n_latents: D; at most N count.
        timescale: of the start's latents, in steps.
        iterations: steps.

    Returns:
        The parameters, and Laplace's approximation of the log-likelihood before each step.
    """
    model, history, mode = initial(counts, n_latents, timescale), [], None
    for i in range(iterations):
        # the mode of the step before is near: two steps of Newton's suffice until the end
        chain = laplace_smoother(counts, *model, start=mode, iterations=2 if i else 20)
        history.append(float(chain.log_likelihood.sum()))
        loadings, bias = fit_readout(counts, chain, model.loadings, model.bias)
        model, mode = PLDS(loadings, bias, fit_dynamics(chain)), chain.mean
    return model, history


def expected_log_likelihood(y: Tensor, x: Tensor, cov: Tensor, loadings: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of each neuron's counts under the posterior, (N,), without ``ln(count!)`` and with the loadings' ridge.

    Args:
        y: (R, N) counts, a row for each step of each trial.
        x: (R, D) the posterior's means.
        cov: (R, D, D) its covariances.
        loadings: (N, D).
        bias: (N,).

    Returns:
        The log-likelihoods, and the expected rates (R, N).
    """
    spread = cov.flatten(1) @ (loadings[:, :, None] * loadings[:, None]).flatten(1).T
    eta = x @ loadings.T + bias
    rates = (eta + 0.5 * spread).exp()
    return (y * eta - rates).sum(0) - 0.5 * RIDGE * loadings.square().sum(1), rates


def fit_readout(
    counts: Tensor, chain: Posterior, loadings: Tensor, bias: Tensor, iterations: int = 2
) -> tuple[Tensor, Tensor]:
    """Loadings (N, D) and biases (N,) of greater expected log-likelihood, by damped steps of Newton's method."""
    y, x, cov = (part.flatten(0, 1) for part in (counts, chain.mean, chain.cov))
    dim = x.shape[1]
    ridge = torch.diag(torch.cat([x.new_full((dim,), RIDGE), x.new_full((1,), 1e-3)]))
    design = torch.nn.functional.pad(x, (0, 1), value=1.0)
    second = design[:, :, None] * design[:, None]
    second[:, :dim, :dim] += cov
    value, rates = expected_log_likelihood(y, x, cov, loadings, bias)
    for _ in range(iterations):
        pulled = (rates.T @ cov.flatten(1)).unflatten(1, (dim, dim)) @ loadings[..., None]
        slope = torch.cat([(y - rates).T @ x - pulled[..., 0] - RIDGE * loadings, (y - rates).sum(0)[:, None]], dim=1)
        curvature = (rates.T @ second.flatten(1)).unflatten(1, (dim + 1, dim + 1)) + ridge
        step = torch.linalg.solve(curvature, slope)
        for _ in range(20):
            tried, rates = expected_log_likelihood(y, x, cov, loadings + step[:, :-1], bias + step[:, -1])
            worse = ~(tried >= value)
            if not worse.any():
                break
            step = torch.where(worse[:, None], step / 2, step)
        step = torch.where(worse[:, None], 0.0, step)
        loadings, bias = loadings + step[:, :-1], bias + step[:, -1]
        value, rates = expected_log_likelihood(y, x, cov, loadings, bias)
    return loadings, bias
