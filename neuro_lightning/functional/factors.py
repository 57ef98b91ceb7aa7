"""Principal components and factor analysis, from covariances."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-6  # the least private variance, as a share of a neuron's variance: none may be explained to the last digit


class Factors(NamedTuple):
    """A linear description of many neurons by a few latents; float64.

    Attributes:
        mean: (N,).
        loadings: (D, N), what one unit of each latent adds to each neuron.
        encoder: (N, D), latents are ``(x - mean) @ encoder``.
    """

    mean: Tensor
    loadings: Tensor
    encoder: Tensor


def principal_components(x: Tensor, n_components: int) -> Factors:
    """The first principal components, strongest first; the largest loading of each is positive.

    Args:
        x: (n, N) samples.
        n_components: D; at most N count.
    """
    mean, covariance = _moments(x)
    _, vectors = torch.linalg.eigh(covariance)
    axes = _signed(vectors.flip(1).T[:n_components])
    return Factors(mean, axes, axes.T.clone())


def factor_analysis(
    x: Tensor, n_components: int, *, tolerance: float = 1e-7, max_iterations: int = 1000
) -> tuple[Factors, Tensor]:
    """Factor analysis by maximum likelihood: shared variance in a few latents, private variance for each neuron.

    Given the private variances, the best loadings are the leading eigenvectors of the covariance in units of them;
    given the loadings, the private variances are what is left of each neuron's variance. The two steps alternate
    (Barber 2012, "Bayesian reasoning and machine learning", algorithm 21.1). Latents are posterior means.

    Args:
        x: (n, N) samples.
        n_components: D; at most N count.
        tolerance: stop when the log-likelihood rises by less, in nats per sample and neuron.
        max_iterations: stop anyway.

    Returns:
        The factors, and the private variances (N,).
    """
    mean, covariance = _moments(x)
    variance = covariance.diagonal().clone()
    floor = (FLOOR * variance).clamp_min(FLOOR * float(variance.mean()) + torch.finfo(torch.float64).tiny)
    private = variance.clamp_min(floor)
    n_components, before = min(n_components, len(variance)), -math.inf
    for _ in range(max_iterations):
        sd = private.sqrt()
        values, vectors = torch.linalg.eigh(covariance / sd.outer(sd))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        likelihood = _mean_log_likelihood(values, private, n_components)
        loadings = (values[:n_components] - 1).clamp_min(0).sqrt()[:, None] * vectors.T[:n_components] * sd
        if likelihood - before < tolerance * len(private):
            break
        private, before = (variance - loadings.square().sum(0)).clamp_min(floor), likelihood
    loadings = _signed(loadings)
    weighted = loadings / private
    precision = torch.eye(len(loadings), dtype=torch.float64, device=x.device) + weighted @ loadings.T
    return Factors(mean, loadings, torch.linalg.solve(precision, weighted).T), private


def _mean_log_likelihood(values: Tensor, private: Tensor, n_components: int) -> float:
    """Log-likelihood per sample at the best loadings, from the eigenvalues of the scaled covariance."""
    shared = values[:n_components]
    shared = shared[shared > 1]  # a direction with less than its private variance has no loading
    trace = len(shared) + values.sum() - shared.sum()  # of the covariance in units of the model's
    logarithms = shared.log().sum() + private.log().sum()
    return -0.5 * float(len(private) * math.log(2 * math.pi) + logarithms + trace)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()
    mean = x.mean(0)
    centered = x - mean
    return mean, centered.T @ centered / len(x)


def _signed(axes: Tensor) -> Tensor:
    """Rows with their largest element positive: the sign of an axis is arbitrary, and should not be the machine's."""
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -axes, axes)
