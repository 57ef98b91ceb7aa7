"""Linear dynamical systems: the posterior of a chain of latents, given Gaussian activity or Poisson counts.

The latents' joint precision is block-tridiagonal. One elimination forward and one substitution back give means,
covariances and the determinant: Kalman's filter and the Rauch-Tung-Striebel smoother in information form, batched over
trials. With Poisson counts each step of Newton's method to the posterior's mode is such a smoother (Laplace's
approximation).

Source: Paninski et al. 2010, "A new look at state-space models for neural data", J Comput Neurosci 29:107-126.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

EXPORTED = 8
"""Steps of Newton's method in an exported filter, which cannot stop when it has converged."""


class Dynamics(NamedTuple):
    """``x_1 ~ N(first_mean, first_cov)``, ``x_(t+1) = transition x_t + N(0, noise)``; float64.

    Attributes:
        transition: (D, D).
        noise: (D, D) covariance.
        first_mean: (D,).
        first_cov: (D, D).
    """

    transition: Tensor
    noise: Tensor
    first_mean: Tensor
    first_cov: Tensor


class Posterior(NamedTuple):
    """The posterior of the latents; B is 1 in covariances that all trials share.

    Attributes:
        mean: (B, T, D).
        cov: (B, T, D, D).
        cross: (B, T - 1, D, D) covariance of each step with the one before, rows are the later step.
        log_likelihood: (B,) of the observations, in nats; Laplace's approximation of it for counts.
    """

    mean: Tensor
    cov: Tensor
    cross: Tensor
    log_likelihood: Tensor


def solve_tridiagonal(diagonal: Tensor, below: Tensor, potential: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A Gaussian chain from its block-tridiagonal precision.

    Args:
        diagonal: (B or 1, T, D, D) blocks of the precision.
        below: (D, D) block beneath each of them.
        potential: (B, T, D), precision times mean.

    Returns:
        Mean (B, T, D), covariances (B or 1, T, D, D), covariances with the step before (B or 1, T - 1, D, D), and the
        log-determinant of the precision (B or 1,).
    """
    precision, filtered = diagonal[:, 0], potential[:, 0]
    inverses: list[Tensor] = []
    gains: list[Tensor] = []
    means: list[Tensor] = []
    logdet = diagonal.new_zeros(())
    for t in range(diagonal.shape[1]):
        if t:
            precision = diagonal[:, t] - below @ gains[-1]
            filtered = potential[:, t] - means[-1] @ below.T
        chol = torch.linalg.cholesky(precision)
        logdet = logdet + 2 * chol.diagonal(dim1=1, dim2=2).log().sum(1)
        inverses.append(torch.cholesky_inverse(chol))
        gains.append(inverses[-1] @ below.T)
        means.append((inverses[-1] @ filtered[..., None])[..., 0])
    mean, cov, cross = [means[-1]], [inverses[-1]], []
    for inverse, gain, now in zip(inverses[-2::-1], gains[-2::-1], means[-2::-1], strict=True):
        mean.append(now - (gain @ mean[-1][..., None])[..., 0])
        cross.append(-cov[-1] @ gain.mT)
        cov.append(inverse - gain @ cross[-1])
    none = diagonal[:, :0]
    stacked = torch.stack(cross[::-1], 1) if cross else none
    return torch.stack(mean[::-1], 1), torch.stack(cov[::-1], 1), stacked, logdet


def prior_precision(dynamics: Dynamics, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks (T, D, D) of the prior's precision, the block beneath each (D, D), and the potential (T, D)."""
    a, q, mean, cov = dynamics
    q_inverse, cov_inverse = torch.linalg.inv(q), torch.linalg.inv(cov)
    diagonal = torch.zeros(steps, *a.shape, dtype=a.dtype, device=a.device)
    diagonal[0] = cov_inverse
    diagonal[1:] += q_inverse
    diagonal[:-1] += a.T @ q_inverse @ a
    potential = torch.zeros(steps, len(mean), dtype=a.dtype, device=a.device)
    potential[0] = cov_inverse @ mean
    return diagonal, -q_inverse @ a, potential


def log_prior(x: Tensor, dynamics: Dynamics) -> Tensor:
    """Log-density (B,) of latents (B, T, D)."""
    a, q, mean, cov = dynamics
    first, rest = x[:, :1] - mean, x[:, 1:] - x[:, :-1] @ a.T
    return _log_normal(first, cov) + _log_normal(rest, q)


def _log_normal(residuals: Tensor, cov: Tensor) -> Tensor:
    """Log-density (B,) of residuals (B, T, D) that all have the covariance (D, D)."""
    chol = torch.linalg.cholesky(cov)
    white = torch.linalg.solve_triangular(chol, residuals.flatten(0, 1).T, upper=False)
    squares = white.square().sum(0).view(residuals.shape[:2]).sum(1)
    constant = 2 * chol.diagonal().log().sum() + len(cov) * math.log(2 * math.pi)
    return -0.5 * (squares + residuals.shape[1] * constant)


def poisson_log_joint(x: Tensor, counts: Tensor, loadings: Tensor, bias: Tensor, dynamics: Dynamics) -> Tensor:
    """Log-density (B,) of latents (B, T, D) and counts (B, T, N) with rates ``exp(loadings x + bias)``."""
    log_rates = x @ loadings.T + bias
    return log_prior(x, dynamics) + (counts * log_rates - log_rates.exp() - torch.lgamma(counts + 1)).sum((1, 2))


def laplace_smoother(
    counts: Tensor,
    loadings: Tensor,
    bias: Tensor,
    dynamics: Dynamics,
    *,
    start: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-6,
) -> Posterior:
    """The posterior's mode and its curvature, given ``counts_t ~ Poisson(exp(loadings x_t + bias))``.

    Newton's method; a step that lowers a trial's density is halved, and a converged trial is left as it is: no
    trial depends on the others of its batch.

    Args:
        counts: (B, T, N).
        loadings: (N, D).
        bias: (N,).
        dynamics: of the latents.
        start: (B, T, D) where to begin; the prior's zero by default.
        iterations: at most so many steps.
        tolerance: a trial has converged when none of its latents moves further.
    """
    steps, dim = counts.shape[1], loadings.shape[1]
    prior, below, potential = prior_precision(dynamics, steps)
    outer = (loadings[:, :, None] * loadings[:, None]).flatten(1)
    x = counts.new_zeros(len(counts), steps, dim) if start is None else start
    value = poisson_log_joint(x, counts, loadings, bias, dynamics)

    def newton(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rates = (x @ loadings.T + bias).exp()
        curvature = (rates @ outer).unflatten(2, (dim, dim))
        pull = (counts - rates) @ loadings + (curvature @ x[..., None])[..., 0]
        return solve_tridiagonal(prior + curvature, below, potential + pull)

    moving = torch.ones(len(counts), dtype=torch.bool, device=counts.device)
    for _ in range(iterations):
        there = x[moving]
        step = newton(there, counts[moving])[0] - there
        for _ in range(30):
            tried = poisson_log_joint(there + step, counts[moving], loadings, bias, dynamics)
            worse = ~(tried >= value[moving] - 1e-9 * value[moving].abs())
            if not worse.any():
                break
            step = torch.where(worse[:, None, None], step / 2, step)
        x, value = x.index_put((moving,), there + step), value.index_put((moving,), tried)
        moving = moving.index_put((moving,), step.abs().amax((1, 2)) > tolerance)
        if not moving.any():
            break
    _, cov, cross, logdet = newton(x, counts)
    return Posterior(x, cov, cross, value - 0.5 * logdet + 0.5 * steps * dim * math.log(2 * math.pi))


def laplace_filter(
    mean: Tensor,
    cov: Tensor,
    counts: Tensor,
    loadings: Tensor,
    bias: Tensor,
    share: Tensor | None = None,
    *,
    iterations: int = 30,
    tolerance: float = 1e-9,
) -> tuple[Tensor, Tensor]:
    """One step of the filter: the mode of the latents given a step's counts, and the inverse curvature there.

    Newton's method; of each step the share is taken that makes the density greatest. No trial depends on the others of
    its batch.

    Args:
        mean: (B, D) of the latents before the step's counts are known.
        cov: (B, D, D) likewise.
        counts: (B, N) of the step.
        loadings: (N, D).
        bias: (N,).
        share: (B, N) recorded share of the step, 0 to 1; None is 1.
        iterations: at most so many steps of Newton's method.
        tolerance: a trial has converged when none of its latents moves further.

    Returns:
        Mean (B, D) and covariance (B, D, D).
    """
    # without the check that it went well, which would raise for counts that are not finite
    precision = torch.cholesky_inverse(torch.linalg.cholesky_ex(cov).L)
    outer = (loadings[:, :, None] * loadings[:, None]).flatten(1)
    exposure = torch.ones_like(counts) if share is None else share
    parts = torch.cat([mean.new_tensor([0.0]), 0.5 ** torch.arange(10).to(mean)])[:, None, None]

    def density(x: Tensor) -> Tensor:
        away = x - mean
        log_rates = x @ loadings.T + bias
        prior = (away * (precision @ away[..., None])[..., 0]).sum(-1)
        return (counts * log_rates - exposure * log_rates.exp()).sum(-1) - 0.5 * prior

    def curvature(rates: Tensor) -> Tensor:
        return torch.linalg.cholesky_ex(precision + (rates @ outer).unflatten(1, cov.shape[1:])).L

    x, moving = mean, torch.ones(len(mean), 1, dtype=torch.bool, device=mean.device)
    for _ in range(EXPORTED if torch.compiler.is_exporting() else iterations):
        rates = exposure * (x @ loadings.T + bias).exp()
        slope = (counts - rates) @ loadings - (precision @ (x - mean)[..., None])[..., 0]
        step = torch.cholesky_solve(slope[..., None], curvature(rates))[..., 0]
        best = density(x + parts * step).argmax(0)
        step = torch.where(moving, parts[best, 0] * step, 0.0)
        x, moving = x + step, moving & (step.abs().amax(1, keepdim=True) > tolerance)
        if not torch.compiler.is_exporting() and not moving.any():
            break
    return x, torch.cholesky_inverse(curvature(exposure * (x @ loadings.T + bias).exp()))


def predict_next(mean: Tensor, cov: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Mean (B, D) and covariance (B, D, D) of the latents a step later."""
    return mean @ dynamics.transition.T, dynamics.transition @ cov @ dynamics.transition.T + dynamics.noise


def predict_ahead(x: Tensor, transition: Tensor, ahead: int) -> Tensor:
    """Latents (B, T, D) and what the dynamics make of the last ones, (B, T + ahead, D)."""
    latents = [x]
    for _ in range(ahead):
        latents.append(latents[-1][:, -1:] @ transition.T)
    return torch.cat(latents, dim=1)


def fit_dynamics(chain: Posterior) -> Dynamics:
    """The dynamics of the greatest expected log-likelihood, given the posterior of the latents."""
    mean, trials, steps = chain.mean, *chain.mean.shape[:2]
    cov, cross = (part.expand(trials, *part.shape[1:]).sum(0) for part in (chain.cov, chain.cross))
    earlier, later = mean[:, :-1].flatten(0, 1), mean[:, 1:].flatten(0, 1)
    before = earlier.T @ earlier + cov[:-1].sum(0)
    between = later.T @ earlier + cross.sum(0)
    after = later.T @ later + cov[1:].sum(0)
    first = mean[:, 0] - mean[:, 0].mean(0)
    first_cov = (first.T @ first + cov[0]) / trials
    if steps < 2:
        return Dynamics(torch.eye(len(first_cov)).to(first_cov), first_cov, mean[:, 0].mean(0), first_cov)
    a = torch.linalg.solve(_positive(before), between.T).T
    noise = (after - a @ between.T) / (trials * (steps - 1))
    return Dynamics(a, _positive(noise), mean[:, 0].mean(0), _positive(first_cov))


def _positive(cov: Tensor) -> Tensor:
    """Symmetric, and no direction without any variance."""
    cov = (cov + cov.T) / 2
    return cov + 1e-9 * cov.diagonal().mean() * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
