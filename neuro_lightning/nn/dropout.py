"""Dropout that is cheap on a CPU, where torch's own takes longer than the layers that it stands between."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro_lightning.functional.masked import INTEGERS


class Dropout(nn.Dropout):
    """``nn.Dropout`` with four elements to a random number on a CPU; elsewhere torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with probability ``p`` in training, and scale the others by ``1 / (1 - p)``."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or not x.is_floating_point():
            return super().forward(x)
        return x * dropout_factors(x, self.p)


def dropout_factors(like: Tensor, p: float) -> Tensor:
    """0 with probability ``p``, else what keeps the mean at 1; shaped like ``like``.

    The elements are 16-bit parts of 64-bit draws, and ``p`` is rounded to a 65,536th; the mean is exactly 1.

    Args:
        like: a floating-point tensor on the CPU.
        p: 0 to 1.
    """
    if round(p * 2**16) == 2**16:
        return torch.zeros_like(like)
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return keep_factors(draws, like, p)


def keep_factors(draws: Tensor, like: Tensor, p: float) -> Tensor:
    """The factors of :func:`dropout_factors` from 64-bit draws, of which one serves four elements.

    Args:
        draws: of all elements, or (K, ...) of each of the first axis of ``like``.
        like: shaped as the factors.
        p: 0 to 1.
    """
    dropped = round(p * 2**16)
    if dropped == 2**16:
        return torch.zeros_like(like)
    if dropped == 0:
        return torch.ones_like(like)
    first, integer = dropped - 2**15, INTEGERS[like.element_size()]  # the smallest draw that is kept
    used = draws.view(torch.int16)[..., : like.numel() // math.prod(draws.shape[:-1])]
    kept = first - 1 - used.clamp(first - 1, first)  # -1, which has all bits, or 0
    factor = torch.ones((), dtype=like.dtype).mul_(2**16 / (2**16 - dropped))
    # to keep all bits of the factor or none takes half of the time of a comparison, a conversion and a product
    return kept.to(integer).bitwise_and_(factor.view(integer)).view(like.dtype).view(like.shape)
