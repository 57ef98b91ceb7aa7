"""Rates from the training trials that a model predicts alike.

A network trained on few trials also learns the noise of their spikes. The spikes that were recorded in trials similar
to the one at hand are an estimate with other errors, so that the two together are better than either. Similar are
trials with similar predicted rates, around the same time. It is a kernel regression (Nadaraya 1964, Watson 1964)
whose distances come from the model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_lightning.functional.smoothing import gaussian_weights, smooth_observed

STEP_MS, ALIKE_MS, SMOOTH_MS = 20, 100, 40
LEAST_TRIALS = 3
AT_ONCE = 64  # trials whose distances to all training trials are in memory together
MEAN_TRIALS = 2.0
"""Weight of the mean of all training trials, in trials of the greatest weight: no rate is zero."""


def number_of_neighbors(n_trials: int) -> int:
    """How many similar trials are averaged: twice the square root of the number of training trials, at most all."""
    return min(n_trials, max(2, round(2 * math.sqrt(n_trials))))


def rates_of_similar_trials(
    rates: Tensor, train_rates: Tensor, train_counts: Tensor, *, bin_ms: float, same: bool = False
) -> Tensor:
    """The mean smoothed counts of the training trials that are predicted most alike, (V, L, N).

    Two trials differ, in a step of 20 ms, by the squared distance of the roots of their rates; around a step the
    differences are averaged with a Gaussian of 100 ms. A root makes the noise of all rates alike. The nearest trial has
    the weight 1, the one at the end of the neighborhood 0; counts are smoothed with a Gaussian of 40 ms.

    Args:
        rates: (V, L, N) predicted, in spikes per bin.
        train_rates: (B, L, N) of the training trials, by the same model.
        train_counts: (B, L, N) that were recorded in them, NaN where nothing was.
        bin_ms: width of a bin.
        same: the trials are the training trials themselves, V = B; nothing of a trial's own counts is in its mean then.

    Raises:
        ValueError: there are fewer than three training trials.
    """
    n_train, n_bins, n_neurons = train_counts.shape
    if n_train < LEAST_TRIALS:
        raise ValueError(f"{n_train} training trials are too few to be similar: there must be {LEAST_TRIALS}")
    stride = max(1, round(STEP_MS / bin_ms))
    steps, neighbors = -(-n_bins // stride), number_of_neighbors(n_train - same)
    around = gaussian_weights(steps, steps, ALIKE_MS / (stride * bin_ms)).to(rates)
    smoothing = gaussian_weights(n_bins, n_bins, SMOOTH_MS / bin_ms).to(rates)
    share = (~train_counts.isnan()).to(rates)
    smoothed = smooth_observed(smoothing, train_counts.to(rates), share, torch.full((n_neurons,), torch.nan))
    seen = (~smoothed.isnan()).to(rates)
    smoothed = smoothed.nan_to_num(0.0)
    known, found = _roots(train_rates, stride), []
    by_step, seen_by_step = _by_step(smoothed, stride), _by_step(seen, stride)
    for first in range(0, len(rates), AT_ONCE):
        asked = _roots(rates[first : first + AT_ONCE], stride)
        row = torch.arange(first, first + asked.shape[1])
        differences = torch.cdist(asked, known, compute_mode="donot_use_mm_for_euclid_dist").square()
        differences = torch.einsum("rs,svb->rvb", around, differences)
        if same:
            differences[:, row - first, row] = torch.inf
        weights = neighbor_weights(differences, neighbors)
        others, seen_others = smoothed.sum(0), seen.sum(0)
        if same:
            others, seen_others = others - smoothed[row], seen_others - seen[row]
        mean = others / seen_others.clamp_min(1)
        sums, total = (
            (weights @ each).unflatten(2, (stride, n_neurons)).transpose(0, 1).flatten(1, 2)[:, :n_bins]
            for each in (by_step, seen_by_step)
        )
        found.append((sums + MEAN_TRIALS * mean) / (total + MEAN_TRIALS))
    return torch.cat(found)


def neighbor_weights(differences: Tensor, neighbors: int) -> Tensor:
    """Weights (..., B) from 1 for the nearest to 0 for the last of so many neighbors, and 0 for all others.

    Args:
        differences: (..., B) not negative; infinite for what is no neighbor.
        neighbors: two at least; where they are all equally far, each has the weight 1.
    """
    near = differences.topk(neighbors, largest=False)
    nearest, last = near.values[..., :1], near.values[..., -1:]
    place = ((near.values - nearest) / (last - nearest)).nan_to_num(0.0)
    return torch.zeros_like(differences).scatter_(-1, near.indices, (1 - place).square())


def _roots(rates: Tensor, stride: int) -> Tensor:
    """(S, B, N) roots of the mean rates in steps of so many bins; the last may have fewer."""
    parts = [part.mean(1) for part in rates.split(stride, dim=1)]
    return torch.stack(parts).clamp_min(0).sqrt()


def _by_step(values: Tensor, stride: int) -> Tensor:
    """(S, B, stride * N) of (B, L, N): the bins of each step in a row, zeros after the last."""
    padded = F.pad(values, (0, 0, 0, -values.shape[1] % stride))
    return padded.unflatten(1, (-1, stride)).transpose(0, 1).flatten(2)
