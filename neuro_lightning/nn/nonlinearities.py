"""What follows a layer's linear part, by name, and the inverses, with which an output starts at given values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST = 1e-3  # of the values that a positive output starts at


class Nonlinearity(NamedTuple):
    """A function with its inverse, elementwise.

    Attributes:
        function: what is applied.
        inverse: for values of at least ``LOWEST``, where the function gives nothing below zero.
        never_negative: whether the function gives nothing below zero.
    """

    function: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    never_negative: bool = True


LARGEST_EXPONENT = 88.0  # of a float32


def unchanged(values: Tensor) -> Tensor:
    """The values themselves."""
    return values


def positive_elu(values: Tensor) -> Tensor:
    """``ELU(x) + 1``."""
    return F.elu(values) + 1


def _inverse_positive_elu(values: Tensor) -> Tensor:
    return torch.where(values >= 1, values - 1, values.clamp_min(LOWEST).log())


def softplus(beta: float = 1.0) -> Nonlinearity:
    """``log(1 + exp(beta x)) / beta``: the larger ``beta``, the closer to a rectifier.

    A small one bends over a range of about ``1 / beta``, where it is close to an exponential function. 0.07 is what the
    winner of Sensorium 2023 found for responses of several tens (repository lRomul/sensorium).
    """

    def inverse(values: Tensor) -> Tensor:
        scaled = beta * values.clamp_min(LOWEST)
        return torch.where(scaled < LARGEST_EXPONENT, scaled.expm1().log(), scaled) / beta

    return Nonlinearity(partial(F.softplus, beta=beta), inverse)


NONLINEARITIES = {
    "none": Nonlinearity(unchanged, unchanged, never_negative=False),
    "identity": Nonlinearity(unchanged, unchanged, never_negative=False),
    "relu": Nonlinearity(F.relu, unchanged),
    "softplus": softplus(),
    "elu": Nonlinearity(positive_elu, _inverse_positive_elu),
    "exp": Nonlinearity(torch.exp, lambda values: values.clamp_min(LOWEST).log()),
}
"""By name; ``identity`` is another name of ``none``."""
