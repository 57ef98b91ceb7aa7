"""Gaussian smoothing of spike counts along time, the simplest estimate of a firing rate."""

from __future__ import annotations

import torch
from torch import Tensor


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
