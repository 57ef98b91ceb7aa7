"""Masking by the bits of the numbers: for masks drawn at random, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers of so many bytes: a floating-point number can be viewed as one of as many."""
FEW = 2**12  # elements, for which torch.where takes less than the call of a function with a gradient of its own


def zero_outside(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is True, zeros elsewhere: neither value nor gradient sees what is there, NaN included.

    It is ``torch.where(mask, values, 0.0)`` to the bit. That takes a CPU three times as long as an exponential if the
    mask was drawn at random, as each element is a branch that cannot be predicted; to keep all bits of a number or none
    takes a tenth.

    Args:
        values: floating-point.
        mask: bool, like the values.

    Example:
        >>> zero_outside(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]))
        tensor([1., 0.])
    """
    return _ZeroOutside.apply(values, mask) if by_bits(values, mask) else torch.where(mask, values, 0.0)


def by_bits(values: Tensor, mask: Tensor) -> bool:
    """Whether the functions of this module mask these values by their bits."""
    numbers = values.device.type == "cpu" and values.is_floating_point() and values.element_size() in INTEGERS
    return numbers and mask.shape == values.shape and values.numel() >= FEW


def zero_inside(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is False, zeros elsewhere; see :func:`zero_outside`."""
    return zero_outside(values, ~mask)


class _ZeroOutside(torch.autograd.Function):
    """Both directions of :func:`zero_outside`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, mask: Tensor) -> Tensor:
        return _keep(values, _all_or_no_bits(mask, values))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return zero_outside(gradients[0], mask), None


def masked_log_rate_nll(log_rates: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """:func:`~neuro_lightning.functional.likelihood.log_rate_nll` inside the mask, zeros elsewhere, to the bit.

    Its gradient is written out, in a third of the passes over memory. It has no second derivative.

    Args:
        log_rates: (...) natural log of the expected spikes per bin, for which :func:`by_bits` holds.
        counts: (...) spike counts of the same type.
        mask: bool, like the log-rates.
    """
    return _MaskedPoisson.apply(log_rates, counts, mask)[0]


class _MaskedPoisson(torch.autograd.Function):
    """Both directions of :func:`masked_log_rate_nll`; beside it rates and counts, with ones and zeros outside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_rates: Tensor, counts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kept = _all_or_no_bits(mask, log_rates)
        logs, counts = _keep(log_rates, kept), _keep(counts, kept)
        rates = logs.exp()
        nll = rates - logs.mul_(counts)
        nll.view(kept.dtype).bitwise_and_(kept)
        return nll, rates, counts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[2], *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *nothing: None) -> tuple[Tensor, None, None]:
        mask, rates, counts = ctx.saved_tensors
        inside = _keep(gradient, _all_or_no_bits(mask, gradient))
        return (inside * rates).sub_(inside.mul_(counts)), None, None


def _all_or_no_bits(mask: Tensor, like: Tensor) -> Tensor:
    """-1, which has all bits, where the mask is True, else 0; integers as wide as the other's numbers."""
    return mask.view(torch.int8).neg().to(INTEGERS[like.element_size()])


def _keep(values: Tensor, kept: Tensor) -> Tensor:
    """The values' bits that are kept."""
    return (kept & values.view(kept.dtype)).view(values.dtype)
