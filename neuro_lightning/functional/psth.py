"""Peristimulus time histograms (PSTHs) of predicted rates: their mean over the trials of each condition.

Source: Pei, Ye et al. 2021, "Neural Latents Benchmark '21", arXiv:2109.04463; neurallatents/nlb_tools.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.correlation import r2_score


def shift_trials(rates: Tensor, jitter: Tensor) -> Tensor:
    """Moves each trial later in time by its jitter, which undoes a window that was shifted by as much.

    Args:
        rates: (B, T, N).
        jitter: (B,) integer bins; negative moves earlier.

    Returns:
        (B, T, N), NaN where a bin has no source.

    Example:
        >>> shift_trials(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([1])).flatten()
        tensor([nan, 1., 2.])
    """
    n_bins = rates.shape[1]
    source = torch.arange(n_bins, device=rates.device) - jitter.to(rates.device).long()[:, None]
    inside = (source >= 0) & (source < n_bins)
    moved = rates.gather(1, source.clamp(0, n_bins - 1)[..., None].expand_as(rates))
    return torch.where(inside[..., None], moved, torch.nan)


def condition_sums(
    rates: Tensor,
    condition: Tensor,
    n_conditions: int,
    jitter: Tensor | None = None,
    recorded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of trials by condition, which add up over batches.

    Args:
        rates: (B, T, N) predicted spikes per bin.
        condition: (B,) integer, each trial's condition, -1 for none.
        n_conditions: C.
        jitter: (B,) integer bins to undo by :func:`shift_trials`; None for none.
        recorded: (B, T) bool, the bins that count; None is all.

    Returns:
        (C, T, N) sums in float64 and (C,) numbers of trials, float64 as well; with ``recorded`` (C, T) numbers.
    """
    if recorded is not None:
        weights, numbers = recorded[..., None].double(), (condition, n_conditions, jitter)
        sums, _ = condition_sums(torch.where(recorded[..., None], rates.double(), 0.0), *numbers)
        return sums, condition_sums(weights, *numbers)[0][..., 0].nan_to_num()
    member = condition >= 0
    rates, condition = rates[member].double(), condition[member].long()
    if jitter is not None:
        rates = shift_trials(rates, jitter[member])
    sums = rates.new_zeros(n_conditions, *rates.shape[1:]).index_add_(0, condition, rates)
    trials = rates.new_zeros(n_conditions).index_add_(0, condition, rates.new_ones(len(rates)))
    return sums, trials


def psth_r2(psth: Tensor, sums: Tensor, trials: Tensor) -> Tensor:
    """R2 of predicted against true PSTHs: conditions one after another in time, mean over neurons.

    Args:
        psth: (C, T, N) true PSTHs in spikes per bin. Bins in which that of the first neuron is NaN are not scored.
        sums: (C, T, N) sums of predicted rates over trials, see :func:`condition_sums`.
        trials: (C,) or (C, T) trials in each sum; where there are none nothing is scored.

    Returns:
        A float64 scalar; NaN where a scored bin holds a NaN, or where nothing is scored.
    """
    trials = trials[:, None].expand(sums.shape[:2]) if trials.ndim == 1 else trials
    scored = (trials > 0) & ~psth[..., 0].isnan()
    return r2_score(psth[scored].double(), sums[scored] / trials[scored, None])
