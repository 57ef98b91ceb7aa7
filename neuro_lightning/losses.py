"""The loss of spike counts under predicted rates."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.likelihood import log_rate_nll


def poisson(log_rates: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Masked Poisson negative log-likelihood (without ``ln(count!)``) in float32 at least.

    It returns sum and number apart: divide by the number over *all* processes, and the mean is that of the whole batch
    however it was shared out. Neither loss nor gradient sees what lies outside the mask, NaN included.

    Args:
        log_rates: (B, L, N) natural log of the expected spikes per bin.
        targets: (B, L, N) spike counts of any dtype, anything where ``mask`` is False.
        mask: (B, L, N) bool, True where a count was observed and counts.

    Returns:
        The sum over the mask in nats, and the number of entries in it, both scalars.
    """
    # masked before exp and product: a NaN or inf that is masked after them still reaches the gradient as 0 * NaN
    precision = torch.promote_types(log_rates.dtype, torch.float32)
    log_rates = torch.where(mask, log_rates.to(precision), 0.0)
    counts = torch.where(mask, targets.to(precision), 0.0)
    nll = torch.where(mask, log_rate_nll(log_rates, counts), 0.0)
    return nll.sum(), mask.sum().to(precision)
