"""Calibration: whether bins of which a model expects so many spikes have as many on average."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Calibration(NamedTuple):
    """Groups of bins by their predicted rate, lowest first.

    Attributes:
        rate: (K,) mean predicted rate, spikes per bin.
        observed: (K,) mean count, spikes per bin.
        error: (K,) standard error of ``observed`` with trials as independent; NaN for fewer than two trials.
        entries: (K,) bins of a neuron in a trial.
    """

    rate: Tensor
    observed: Tensor
    error: Tensor
    entries: Tensor


def calibration(rates: Tensor, counts: Tensor, observed: Tensor | None = None, n_groups: int = 10) -> Calibration:
    """Predicted rates against mean counts, in groups of equally many entries (deciles).

    Equal rates fall into one group, so there may be fewer groups. Of a calibrated model ``observed`` is ``rate`` within
    its error. The error allows for counts of a trial that vary together.

    Args:
        rates: (B, T, N) predicted spikes per bin; NaN takes no part.
        counts: (B, T, N) spike counts; NaN takes no part.
        observed: (B, T, N) bool, True where counts were observed; None means everywhere.
        n_groups: K at most.

    Returns:
        float64, K = 0 where nothing was observed.
    """
    known = rates.isfinite() & counts.isfinite()
    known = known if observed is None else known & observed
    n_trials = len(rates)
    trial = torch.arange(n_trials, device=rates.device)[:, None, None].expand(rates.shape)[known]
    rate, count = rates[known].double(), counts[known].double()
    if not len(rate):
        return Calibration(*(rate for _ in range(4)))
    cuts = torch.tensor([len(rate) * k // n_groups for k in range(1, n_groups)], device=rates.device)
    edges = rate.sort().values[cuts].unique()
    _, group = torch.bucketize(rate, edges, right=True).unique(return_inverse=True)
    entries = group.bincount()
    mean_rate, mean_count = group.bincount(rate) / entries, group.bincount(count) / entries
    place = group * n_trials + trial
    residual = place.bincount(count - mean_count[group], len(entries) * n_trials).view(-1, n_trials)
    trials = (place.bincount(minlength=residual.numel()).view(-1, n_trials) > 0).sum(1)
    spread = residual.square().sum(1) * trials / (trials - 1)  # 0 / 0 of a single trial is the NaN
    return Calibration(mean_rate, mean_count, spread.sqrt() / entries, entries)
