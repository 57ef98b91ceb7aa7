"""Gaussian-process factor analysis: factors that change smoothly in time, each at its own pace.

Activity is ``y_t = C x_t + d + noise``, the noise private to each neuron; each latent is a Gaussian process of unit
variance with a squared-exponential covariance. All trials have the same times, so that one posterior covariance
serves all of them, and a step of expectation-maximization costs one Cholesky factor.

Source: Yu, Cunningham et al. 2009, "Gaussian-process factor analysis for low-dimensional single-trial analysis of
neural population activity", J Neurophysiol 102:614-635.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional.factors import factor_analysis

NOISE = 1e-3  # share of a latent's variance that is white, as published: it keeps covariances invertible
FACTORS = (1.0, 1.5, 1.15, 1.04, 1.01)  # by which a timescale may change in one step


class GPFA(NamedTuple):
    """The model's parameters; float64, times in steps.

    Attributes:
        loadings: (N, D).
        mean: (N,).
        private: (N,) variances of the noise.
        timescales: (D,) standard deviation of each latent's squared-exponential covariance.
    """

    loadings: Tensor
    mean: Tensor
    private: Tensor
    timescales: Tensor


class Posterior(NamedTuple):
    """The posterior of the latents given the activity.

    Attributes:
        mean: (B, T, D).
        over_time: (D, T, T) covariances of each latent, the same in all trials.
        across: (T, D, D) covariances of the latents at each time, the same in all trials.
        log_likelihood: of the activity, in nats, summed over trials.
    """

    mean: Tensor
    over_time: Tensor
    across: Tensor
    log_likelihood: Tensor


def kernel(timescales: Tensor, rows: int, columns: int) -> Tensor:
    """Prior covariances (..., rows, columns) between the first steps, for timescales (...)."""
    lag = torch.arange(rows, device=timescales.device)[:, None] - torch.arange(columns, device=timescales.device)
    smooth = torch.exp(-0.5 * (lag / timescales[..., None, None]).square())
    return (1 - NOISE) * smooth + NOISE * (lag == 0)


def extrapolate(y: Tensor, model: GPFA, ahead: int = 0) -> Tensor:
    """Posterior means of the latents in the observed steps and beyond.

    Args:
        y: (B, T, N) activity.
        model: the parameters.
        ahead: steps after the last observed one.

    Returns:
        (B, T + ahead, D).
    """
    steps = y.shape[1]
    half, chol = _condition(steps, model)
    dual = _dual(evidence(y, model), half, chol, kernel(model.timescales, steps, steps))
    return torch.einsum("ist,bti->bsi", kernel(model.timescales, steps + ahead, steps), dual)


def posterior(y: Tensor, model: GPFA) -> Posterior:
    """Means, the covariances that expectation-maximization needs, and the likelihood of (B, T, N) activity."""
    trials, steps, neurons = y.shape
    prior = kernel(model.timescales, steps, steps)
    pull, (half, chol) = evidence(y, model), _condition(steps, model)
    mean = torch.einsum("ist,bti->bsi", prior, _dual(pull, half, chol, prior))
    # covariance = K - Z'Z, with Z = chol^-1 B' K over (all, steps, latents)
    cross = torch.einsum("its,ia->tasi", prior, half).reshape(len(chol), -1)
    z = torch.linalg.solve_triangular(chol, cross, upper=False).unflatten(1, (steps, -1))
    by_latent, by_step = z.permute(2, 0, 1), z.permute(1, 0, 2)
    over_time = prior - by_latent.mT @ by_latent
    across = torch.diag_embed(prior.diagonal(dim1=1, dim2=2).T) - by_step.mT @ by_step
    centered = y - model.mean
    misfit = (centered.square() / model.private).sum() - (pull * mean).sum()
    logs = steps * (neurons * math.log(2 * math.pi) + model.private.log().sum()) + 2 * chol.diagonal().log().sum()
    return Posterior(mean, over_time, across, -0.5 * (misfit + trials * logs))


def evidence(y: Tensor, model: GPFA) -> Tensor:
    """How the activity (..., N) of a step pulls at the latents, (..., D): ``C' R^-1 (y - d)``."""
    return (y - model.mean) @ (model.loadings / model.private[:, None])


def looking_back(model: GPFA, steps: int) -> tuple[Tensor, Tensor]:
    """What makes posterior means of a step's latents from the evidence of the steps so far.

    The leading blocks of a Cholesky factor are the factors of the first steps alone: one factor serves all of them.

    Args:
        model: the parameters.
        steps: T that are looked back at.

    Returns:
        Twice weights (T, D, T, D) of the evidence in T steps, of which the last is the newest. Row ``t`` is for when
        there are ``t`` steps before the one that is asked about, and is zero for steps that there are not. With the
        first the newest step is the one that is asked about; with the second, the one before it.
    """
    half, chol = _condition(steps, model)
    prior = kernel(model.timescales, steps, steps)
    cross = torch.einsum("its,ia->tasi", prior, half)
    dim = len(model.timescales)
    white = torch.linalg.solve_triangular(chol, cross.reshape(len(chol), -1), upper=False).unflatten(1, (steps, dim))
    given_all, given_past = prior.new_zeros(2, steps, dim, steps, dim)
    for t in range(steps):
        for weights, seen in ((given_all, t + 1), (given_past, t)):
            known = white[: seen * dim]
            explained = (known[:, t].T @ known[:, :seen].flatten(1)).unflatten(1, (seen, dim)) if seen else 0.0
            apart = torch.diag_embed(prior[:, t, :seen].T).transpose(0, 1)
            weights[t, :, steps - seen :] = apart - explained
    return given_all, given_past


def _condition(steps: int, model: GPFA) -> tuple[Tensor, Tensor]:
    """A root B of the precision that a step's activity gives, and a Cholesky factor of I + B'KB."""
    weighted = model.loadings / model.private[:, None]
    values, vectors = torch.linalg.eigh(weighted.T @ model.loadings)
    half = vectors * values.clamp_min(0).sqrt()
    prior = kernel(model.timescales, steps, steps)
    inner = torch.einsum("ia,its,ib->tasb", half, prior, half)
    inner = inner.reshape(steps * len(values), -1)
    inner = inner + torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
    return half, torch.linalg.cholesky(inner)


def _dual(pull: Tensor, half: Tensor, chol: Tensor, prior: Tensor) -> Tensor:
    """What the prior covariance with any times is multiplied with to give posterior means there, (B, T, D)."""
    spread = torch.einsum("ist,bti->bsi", prior, pull) @ half
    solved = torch.cholesky_solve(spread.flatten(1).T, chol).T.unflatten(1, pull.shape[1:])
    return pull - solved @ half.T


def initial(y: Tensor, n_latents: int, timescale: float, iterations: int = 100) -> GPFA:
    """Factor analysis of all steps as a start; at most N latents."""
    factors, private = factor_analysis(y.flatten(0, 1), n_latents, max_iterations=iterations)
    return GPFA(factors.loadings.T, factors.mean, private, private.new_full((len(factors.loadings),), timescale))


def fit(
    y: Tensor, n_latents: int, *, timescale: float, iterations: int, tolerance: float = 1e-5
) -> tuple[GPFA, list[float]]:
    """Expectation-maximization from factor analysis.

    Args:
        y: (B, T, N) activity, float64.
        n_latents: D; at most N count.
        timescale: of all latents at first, in steps.
        iterations: at most so many steps.
        tolerance: stop when the log-likelihood rises by less, in nats per value.

    Returns:
        The parameters, and the log-likelihood before each step: it never falls.
    """
    model, history = initial(y, n_latents, timescale), []
    floor = 1e-4 * y.flatten(0, 1).var(0, correction=0)
    floor = floor.clamp_min(1e-4 * float(floor.mean()) + 1e-12)
    model = model._replace(private=model.private.maximum(floor))
    for _ in range(iterations):
        now = posterior(y, model)
        history.append(float(now.log_likelihood))
        if len(history) > 1 and history[-1] - history[-2] < tolerance * y.numel():
            break
        model = maximize(y, now, model.timescales, floor)
    return model, history


def maximize(y: Tensor, now: Posterior, timescales: Tensor, floor: Tensor) -> GPFA:
    """The parameters that fit best to the posterior of the latents; timescales are improved by one step of a search.

    Args:
        y: (B, T, N) activity.
        now: the posterior.
        timescales: (D,) as they were.
        floor: (N,) the least private variances.
    """
    trials, steps, _ = y.shape
    x = torch.nn.functional.pad(now.mean, (0, 1), value=1.0).flatten(0, 1)
    second = x.T @ x
    second[:-1, :-1] += trials * now.across.sum(0)
    first = y.flatten(0, 1).T @ x
    readout = torch.linalg.lstsq(second, first.T, driver="gelsd").solution.T
    private = (y.square().sum((0, 1)) - (readout * first).sum(1)) / (trials * steps)
    moment = now.over_time + torch.einsum("bti,bsi->its", now.mean, now.mean) / trials
    return GPFA(readout[:, :-1], readout[:, -1], private.maximum(floor), _better_timescales(timescales, moment))


def _better_timescales(timescales: Tensor, moment: Tensor) -> Tensor:
    """The best of a few timescales around each, for second moments (D, T, T) of the latents over time."""
    factors = timescales.new_tensor(sorted({f**sign for f in FACTORS for sign in (1, -1)}))
    tried = timescales[:, None] * factors
    chol = torch.linalg.cholesky(kernel(tried, moment.shape[1], moment.shape[1]))
    trace = torch.cholesky_solve(moment[:, None].expand(chol.shape), chol).diagonal(dim1=2, dim2=3).sum(2)
    loss = trace + 2 * chol.diagonal(dim1=2, dim2=3).log().sum(2)
    return tried.gather(1, loss.argmin(1, keepdim=True))[:, 0]
