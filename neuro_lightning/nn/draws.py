"""Random numbers as a function of a seed, an epoch, an image's number and a stream number.

There is no state to save, to share or to advance. A resumed run, a run on several processes and a run on another
device draw the very same numbers for the same image, whatever else is in its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
MASK = 2**64 - 1
BITS = 24
"""What a float32 holds, so that every draw is exact and below one."""


def uniform(index: Tensor, *, seed: int, epoch: int, stream: int, n: int = 1) -> Tensor:
    """Numbers in [0, 1), redrawn for every image and epoch.

    A counter-based generator: SplitMix64's output function (Steele, Lea & Flood, OOPSLA 2014) of the image's number,
    on a sequence of its own for each of the other arguments. The arithmetic is that of int64, which wraps around on
    every device alike.

    Args:
        index: (B,) whole numbers, the images' numbers in their split.
        seed: of the run.
        epoch: 0, 1, ...
        stream: what the numbers are for; each has numbers of its own.
        n: how many for each image.

    Returns:
        (B, n) float32 on the device of ``index``.
    """
    keys = torch.tensor([_signed(_key(seed, epoch, stream, draw)) for draw in range(n)], device=index.device)
    state = keys + index.to(torch.int64)[:, None] * _signed(GAMMA)
    for shift, factor in MIX:
        state = (state ^ _shift_right(state, shift)) * _signed(factor)
    state = state ^ _shift_right(state, LAST_SHIFT)
    return _shift_right(state, 64 - BITS).to(torch.float32) * 2.0**-BITS


def _key(*numbers: int) -> int:
    """One 64-bit number from several; any change of any of them changes it thoroughly."""
    key = 0
    for number in numbers:
        key = _mix((key ^ _mix(number + GAMMA)) + GAMMA)
    return key


def _mix(state: int) -> int:
    state &= MASK
    for shift, factor in MIX:
        state = (state ^ (state >> shift)) * factor & MASK
    return state ^ (state >> LAST_SHIFT)


def _signed(number: int) -> int:
    """The int64 with the bits of this uint64."""
    return number - 2**64 if number >= 2**63 else number


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Shift in zeros, as for unsigned numbers; ``>>`` alone would repeat the sign."""
    return (state >> bits) & (2 ** (64 - bits) - 1)
