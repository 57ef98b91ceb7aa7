"""Rates of neurons from other neurons and from their own past, in closed form: the cheap lines of BrainWideBench.

All work on smoothed counts and least squares. Which neurons are missing may differ from one evaluation to the next:
what is fitted are means and covariances, from which the regression on any set of neurons follows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """First and second moments of neurons' smoothed counts.

    Attributes:
        mean: (N,) float64.
        covariance: (N, N) float64, of smoothed counts with counts: those of another neuron in the same bin.
        features: (N, N) float64, of smoothed counts with smoothed counts.
    """

    mean: Tensor
    covariance: Tensor
    features: Tensor


def moments(smooth: Tensor, counts: Tensor) -> Moments:
    """The moments of (R, N) smoothed counts and counts, a row for each bin."""
    smooth, counts = smooth.double(), counts.double()
    mean, center = smooth.mean(0), counts.mean(0)
    centered = smooth - mean
    return Moments(mean, centered.T @ (counts - center) / len(smooth), centered.T @ centered / len(smooth))


def reduced_rank_weights(found: Moments, seen: Tensor, rank: int, ridge: float) -> Tensor:
    """(S, M) weights from the S neurons that are ``seen`` to the M others, of a rank at most.

    Ridge regression, whose predictions are then projected on their first principal directions.

    Args:
        found: moments of all neurons.
        seen: (N,) bool.
        rank: of the weights.
        ridge: share of the mean variance of the neurons seen that is added to each.
    """
    inner = found.features[seen][:, seen]
    inner = inner + ridge * inner.diagonal().mean().clamp_min(1e-12) * torch.eye(len(inner), dtype=inner.dtype)
    weights = torch.linalg.solve(inner, found.covariance[seen][:, ~seen])
    predicted = weights.T @ found.features[seen][:, seen] @ weights
    _, directions = torch.linalg.eigh((predicted + predicted.T) / 2)
    kept = directions[:, -rank:]
    return weights @ kept @ kept.T


def coupling_weights(found: Moments, seen: Tensor, ridge: float) -> Tensor:
    """(S, M) weights that read each other neuron from the summed activity of those that are ``seen``.

    Source: Okun et al. 2015, "Diverse coupling of neurons to populations in sensory cortex".

    Args:
        found: moments of all neurons.
        seen: (N,) bool.
        ridge: share of the sum's variance that is added to it.
    """
    variance = found.features[seen][:, seen].sum()
    slope = found.covariance[seen][:, ~seen].sum(0) / (variance * (1 + ridge)).clamp_min(1e-12)
    return slope.expand(int(seen.sum()), -1)


def past_means(counts: Tensor, widths: tuple[int, ...]) -> Tensor:
    """(B, N, W) the means of the last bins of (B, T, N) counts, over each of several widths in bins."""
    return torch.stack([counts[:, -width:].mean(1) for width in widths], dim=2)


def ridge_forecast(features: Tensor, ahead: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of the bins ahead on features of the past.

    Args:
        features: (B, P).
        ahead: (B, Q) counts to predict.
        ridge: share of the features' mean variance that is added to each.

    Returns:
        Weights (P, Q), and the means of features (P,) and of counts (Q,), float64.
    """
    x, y = features.double(), ahead.double()
    mean, center = x.mean(0), y.mean(0)
    gram = (x - mean).T @ (x - mean) / len(x)
    gram = gram + ridge * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, (x - mean).T @ (y - center) / len(x)), mean, center
