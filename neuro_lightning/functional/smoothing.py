"""Gaussian smoothing of spike counts along time, the simplest estimate of a firing rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST = 1e-3
"""Weight of observed bins, of which the nearest bin alone would have 1, below which a kernel is said to see nothing."""


def gaussian_weights(n_out: int, n_in: int, sd: float | Tensor, *, causal: bool = False) -> Tensor:
    """The matrix that smooths ``n_in`` bins into ``n_out`` estimates; row t has the weights of the bins around t.

    They are divided by the weight that lies inside the window, so that constant counts stay constant. Rows past
    ``n_in`` extrapolate from the last bins.

    Args:
        n_out: number of bins estimated.
        n_in: number of bins observed, the first ones.
        sd: standard deviation of the kernel in bins, positive; a tensor may carry gradients.
        causal: use no bin after the one estimated (a half-Gaussian).

    Returns:
        (n_out, n_in) non-negative weights, in float32 or in the dtype of ``sd``.

    Raises:
        ValueError: ``sd`` is not positive.
    """
    sd = torch.as_tensor(sd, dtype=None if isinstance(sd, Tensor) else torch.float32)
    if not bool(sd > 0):
        raise ValueError(f"the kernel's standard deviation must be positive, not {float(sd)} bins")
    lag = torch.arange(n_out, device=sd.device)[:, None] - torch.arange(n_in, device=sd.device)
    log_weight = -0.5 * (lag / sd).square()
    if causal:
        log_weight = log_weight.masked_fill(lag < 0, -torch.inf)
    # a softmax: far from the window every weight underflows, their ratios do not
    return log_weight.softmax(dim=1)


def kernels_of_past(sds: Tensor, length: int) -> Tensor:
    """The causal kernels of a bin that has a long past, (K, M): of the oldest bin first, the last is the bin itself.

    Args:
        sds: (K,) standard deviations in bins.
        length: bins M, see :func:`length_of_past`.
    """
    lag = torch.arange(length - 1, -1, -1, device=sds.device)
    return (-0.5 * (lag / sds[:, None]).square()).exp()


def length_of_past(sds: Tensor) -> int:
    """Bins whose weight single precision can tell from zero: more than a ten-billionth of the greatest."""
    return math.ceil(7 * float(sds.max())) + 1


def smooth_observed(weights: Tensor, counts: Tensor, share: Tensor, fill: Tensor) -> Tensor:
    """Counts smoothed over those bins in which they were observed.

    Args:
        weights: (L, T) of the bins in each estimate, see :func:`gaussian_weights`; their scale does not matter.
        counts: (B, T, N), anything where nothing was observed.
        share: (B, T, N) observed share of each bin, 0 to 1, which weights it.
        fill: (N,) the estimate where next to nothing was observed under the kernel.

    Returns:
        (B, L, N). Bins without anything observed, such as a trial's padding, change nothing.
    """
    weights = weights / weights.amax(1, keepdim=True).clamp_min(1e-30)
    seen = weights @ share
    mean = weights @ torch.where(share > 0, counts * share, 0.0) / seen.clamp_min(LEAST)
    return torch.where(seen > LEAST, mean, fill)


def gaussian_smooth(counts: Tensor, sd: float | Tensor, *, causal: bool = False, n_out: int | None = None) -> Tensor:
    """Smooths counts along time.

    Args:
        counts: (B, T, N) spike counts.
        sd: standard deviation of the kernel in bins, positive.
        causal: use no bin after the one estimated.
        n_out: bins estimated, T by default; more extrapolates beyond the window.

    Returns:
        (B, n_out, N) rates in spikes per bin, in the dtype of ``counts`` if that is floating, else float32.

    Raises:
        ValueError: ``sd`` is not positive.

    Example:
        >>> gaussian_smooth(torch.tensor([[[0.0], [0.0], [4.0], [0.0], [0.0]]]), sd=1.0).flatten().round(decimals=2)
        tensor([0.3100, 1.0300, 1.6100, 1.0300, 0.3100])
    """
    n_bins = counts.shape[1]
    weights = gaussian_weights(n_out or n_bins, n_bins, sd, causal=causal).to(counts.device)
    if not counts.is_floating_point():
        counts = counts.float()
    return weights.to(counts.dtype) @ counts
