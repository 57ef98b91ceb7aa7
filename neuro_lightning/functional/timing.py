"""Neural speed and its correlation with produced time intervals (dmfc_rsg).

Source: Sohn et al. 2019, doi:10.1016/j.neuron.2019.06.012; Neural Latents Benchmark '21, arXiv:2109.04463 (tp corr).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.correlation import pearson


def neural_speed(rates: Tensor, scored: Tensor) -> Tensor:
    """The mean distance that the population's rates move from one scored bin to the next.

    Args:
        rates: (B, T, N) spikes per bin.
        scored: (B, T) bool, the bins between set and go.

    Returns:
        (B,) float64 speeds in spikes per bin squared; NaN for a trial with fewer than two scored bins.

    Example:
        >>> rates = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]])
        >>> neural_speed(rates, torch.ones(1, 3, dtype=torch.bool))
        tensor([5.], dtype=torch.float64)
    """
    # scored bins first, in their order: a gap inside a trial is stepped over
    order = (~scored).to(torch.uint8).argsort(dim=1, stable=True)
    path = rates.double().gather(1, order[..., None].expand_as(rates))
    steps = (scored.sum(1, keepdim=True) - 1).clamp(min=0)
    taken = torch.arange(rates.shape[1] - 1, device=rates.device) < steps
    length = torch.where(taken, path.diff(dim=1).norm(dim=2), 0.0)
    return length.sum(1) / steps[:, 0]


def grouped_correlation(x: Tensor, y: Tensor, groups: Tensor) -> Tensor:
    """Pearson's correlation within each group of trials, mean over groups.

    Args:
        x: (B,) one value a trial.
        y: (B,) another.
        groups: (B, G) columns whose distinct rows are the groups; trials with a NaN among them are left out, and so
            are groups of a single trial, in which no correlation exists.

    Returns:
        A float64 scalar; NaN where no group is left or a correlation is undefined.
    """
    known = ~groups.isnan().any(1)
    x, y, groups = x[known], y[known], groups[known]
    names, member, size = groups.unique(dim=0, return_inverse=True, return_counts=True)
    within = [pearson(x[member == g], y[member == g]) for g in range(len(names)) if size[g] > 1]
    return torch.stack(within).mean() if within else x.new_tensor(torch.nan, dtype=torch.float64)
