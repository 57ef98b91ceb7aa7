"""Dropout of stacked networks: each draws what it would draw alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.nn.dropout import Dropout, keep_factors

Generators = list[torch.Generator | None]
"""The random numbers of each member; None is torch's own generator."""


class MemberDropout(nn.Dropout):
    """Dropout at each member's own rate, with numbers of its own. It is called under ``torch.vmap`` over the members.

    On a CPU the numbers are those that the member's own layer would draw from the same generator.

    Args:
        layers: the members' layers.
        rates: the members' probabilities. ``p`` is the one that they share; NaN, which torch's own functions refuse,
            where they differ.
        generators: of the members; the list is kept, and its elements may be replaced.
    """

    def __init__(self, layers: Sequence[nn.Module], rates: Sequence[float], generators: Generators) -> None:
        super().__init__(rates[0] if len(set(rates)) == 1 else math.nan)
        self.rates, self.generators = list(rates), generators
        self._ours = isinstance(layers[0], Dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with the member's probability in training, and scale the others to keep the mean."""
        if not self.training or not any(self.rates):
            return x
        return x * _Factors.apply(x.detach(), self.draw)

    def draw(self, like: Tensor) -> Tensor:
        """The factors of all members, (K, ...)."""
        draw = project_factors if self._ours and like.device.type == "cpu" else torch_factors
        if len(set(self.rates)) == 1:
            return draw(like, self.rates[0], self.generators)
        parts = zip(like.split(1), self.rates, self.generators, strict=True)
        return torch.cat([draw(own, p, [each]) if p else torch.ones_like(own) for own, p, each in parts])


def project_factors(like: Tensor, p: float, generators: Generators) -> Tensor:
    """The factors of each member (K, ...) as :class:`~neuro_lightning.nn.dropout.Dropout` draws them on a CPU."""
    draws = torch.empty(len(like), -(-like[0].numel() // 4), dtype=torch.int64)
    for own, generator in zip(draws, generators, strict=True):
        own.random_(-(2**63), None, generator=generator)
    return keep_factors(draws, like, p)


def torch_factors(like: Tensor, p: float, generators: Generators) -> Tensor:
    """The factors of each member (K, ...) as ``torch.nn.functional.dropout`` draws them on a CPU."""
    if p == 1:
        return torch.zeros_like(like)
    kept = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    for own, generator in zip(kept, generators, strict=True):
        own.bernoulli_(1 - p, generator=generator)
    return kept.div_(1 - p)


class _Factors(torch.autograd.Function):
    """Calls a function of tensors that have their member axis in front, from within ``torch.vmap``."""

    @staticmethod
    def forward(x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        raise RuntimeError("dropout of stacked networks is drawn for all members at once, under torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept: the factors have no gradient."""

    @staticmethod
    def vmap(info: Any, dims: tuple[int, None], x: Tensor, draw: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        """The factors of all members."""
        return draw(x.movedim(dims[0], 0)), 0
