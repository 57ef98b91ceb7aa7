"""Steps of the Adam or AdamW of several networks at once, each with its own numbers, on stacked parameters.

Axis letters: K members.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

Rows = list[tuple[nn.Parameter, list[nn.Parameter]]]
"""Stacked parameters, and those of the members, which are their rows."""
OTHER_STEPS = ("amsgrad", "maximize", "capturable", "differentiable", "fused")
STATE = ("step", "exp_avg", "exp_avg_sq")  # as torch names it in checkpoints


def can_step_at_once(optimizers: Sequence[Optimizer]) -> bool:
    """Whether :class:`StackedAdam` takes the steps of these optimizers."""
    groups = [each.param_groups for each in optimizers]
    plain = not any(group.get(option) for own in groups for group in own for option in OTHER_STEPS)
    apart = any(group.get("decoupled_weight_decay", False) for own in groups for group in own)  # as AdamW's is
    kinds = {type(each) for each in optimizers}
    return (kinds == {AdamW} or (kinds == {Adam} and not apart)) and plain and len({len(own) for own in groups}) == 1


def clip_members(parameters: Iterable[Tensor], largest: Tensor | float) -> Tensor:
    """Clip the gradient of each member to a norm of its own, in place; returns the norms before it, (K,).

    A member whose gradient is not finite changes no other.

    Args:
        parameters: with a leading member axis.
        largest: the norm that is left at most, of all or of each (K,); infinity leaves the gradient as it is.
    """
    gradients = [value.grad for value in parameters if value.grad is not None]
    norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(_beside(factors, gradient))
    return norms


class StackedAdam:
    """Does what the ``step`` of each optimizer would do, with the gradients of stacked parameters.

    The optimizers keep their groups, whose learning rates a schedule may change, and their states, whose tensors become
    rows of stacked ones: they can be saved, or go on alone, at any time.

    Args:
        optimizers: of the members, see :func:`can_step_at_once`.
        rows: the parameters.
    """

    def __init__(self, optimizers: Sequence[Optimizer], rows: Rows) -> None:
        self.optimizers, self._rows = list(optimizers), rows
        groups = {id(own): g for g, group in enumerate(optimizers[0].param_groups) for own in group["params"]}
        self._group = [groups.get(id(own[0]), 0) for _, own in rows]
        self._stacked: dict[int, list[Tensor]] = {}  # the state of each parameter that has had a gradient
        self._own: dict[int, list[dict[str, Tensor]]] = {}  # its rows

    def is_bound(self) -> bool:
        """Whether the optimizers still have the states from here: one that has loaded another has not."""
        return all(
            optimizer.state[parameter].get("step") is own["step"]
            for i, owns in self._own.items()
            for optimizer, parameter, own in zip(self.optimizers, self._rows[i][1], owns, strict=True)
        )

    @torch.no_grad()
    def step(self) -> None:
        """Take a step of each member; parameters without a gradient stay as they are."""
        numbers: dict[tuple[float, ...], _Numbers] = {}
        for i, (rows, _) in enumerate(self._rows):
            if rows.grad is None:
                continue
            steps, mean, square = self._state(i)
            steps += 1
            group = self._group[i]
            key = (group, *steps.tolist())
            if key not in numbers:
                groups = [each.param_groups[group] for each in self.optimizers]
                numbers[key] = _Numbers(groups, key[1:], rows, apart=isinstance(self.optimizers[0], AdamW))
            numbers[key].step(rows, rows.grad, mean, square)

    def _state(self, i: int) -> list[Tensor]:
        """The steps taken (K,) and the two moments (K, ...) of a stacked parameter; zeros where there are none yet."""
        if i not in self._stacked:
            states = [each.state[own] for each, own in zip(self.optimizers, self._rows[i][1], strict=True)]
            zeros = dict(zip(STATE, (torch.zeros(()), *[torch.zeros_like(self._rows[i][0][0])] * 2), strict=True))
            self._stacked[i] = [torch.stack([state.get(name, zeros[name]) for state in states]) for name in STATE]
            parts = zip(*(each.unbind() for each in self._stacked[i]), strict=True)
            self._own[i] = [dict(zip(STATE, part, strict=True)) for part in parts]
            for state, own in zip(states, self._own[i], strict=True):
                state.update(own)
        return self._stacked[i]


class _Numbers:
    """The members' numbers in a step of parameters that have taken equally many, each (K,).

    Args:
        groups: of the members' optimizers.
        steps: taken by each, with this one.
        like: a tensor of the parameters' type and on their device.
        apart: whether the weight decay acts on the parameters themselves, not on their gradients.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], steps: Sequence[float], like: Tensor, *, apart: bool) -> None:
        rates, decays = [float(group["lr"]) for group in groups], [float(group["weight_decay"]) for group in groups]
        first, second = zip(*(group["betas"] for group in groups), strict=True)
        rows = [
            [1 - beta for beta in first],
            second,
            [1 - beta for beta in second],
            [-rate / (1 - beta**step) for rate, beta, step in zip(rates, first, steps, strict=True)],
            [(1 - beta**step) ** 0.5 for beta, step in zip(second, steps, strict=True)],
            [group["eps"] for group in groups],
            [1 - rate * decay for rate, decay in zip(rates, decays, strict=True)],
            decays,
        ]
        self._rows = like.new_tensor(rows)
        self._decays, self._apart = any(decays), apart

    def step(self, parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
        """Take the step of a stacked parameter with its gradient and moments; see ``torch.optim.Adam``."""
        numbers = (_beside(row, parameter) for row in self._rows)
        new, kept, new_square, rate, root, epsilon, shrunk, decay = numbers
        if self._decays and self._apart:
            parameter.mul_(shrunk)
        elif self._decays:
            gradient = torch.addcmul(gradient, parameter, decay)
        mean.lerp_(gradient, new)
        square.mul_(kept).addcmul_(gradient * new_square, gradient)
        parameter.addcmul_(mean / (square.sqrt() / root + epsilon), rate)


def _beside(numbers: Tensor, rows: Tensor) -> Tensor:
    """Numbers of the members (K,) shaped to be multiplied with their rows (K, ...)."""
    return numbers.view(-1, *[1] * (rows.dim() - 1))
