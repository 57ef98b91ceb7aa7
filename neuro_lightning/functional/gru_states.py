"""The states of many GRUs at once, with their gradient in closed form.

torch's own GRU takes one set of weights, and a graph of its steps keeps and adds up some thirty tensors for each. Here
a step is eight operations forward and four backward, for all networks together.

Axis letters: G networks (of each member and direction), S steps, B trials, H units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 5
"""Steps whose factors are computed at once: many for few operations, few for tensors that fit a CPU's cache."""


def gru_states(drive: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The states (G, S, B, H) of GRUs that start at zero, as ``torch.nn.GRU`` defines them.

    Under ``torch.vmap`` the members and G become one axis. There is no second derivative.

    Args:
        drive: (G, S, B, 3H) what the inputs and their bias give to the gates, in torch's order: reset, update, new.
        weight: (G, H, 3H) from the state to the gates.
        bias: (G, 3H) of the same.
    """
    return _GRUStates.apply(drive, weight, bias)[0]


class _GRUStates(torch.autograd.Function):
    @staticmethod
    def forward(drive: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States, the gates (G, S, B, 3H), and what a state gives to the next before it is reset (G, S, B, H)."""
        groups, steps, trials, width = drive.shape
        size = width // 3
        states, gates = drive.new_empty(groups, steps, trials, size), torch.empty_like(drive)
        unreset, before = torch.empty_like(states), drive.new_zeros(groups, trials, size)
        for step in range(steps):
            from_inputs, driven_new = drive[:, step].split((2 * size, size), -1)
            from_state, unreset_new = torch.baddbmm(bias[:, None], before, weight).split((2 * size, size), -1)
            both, new = gates[:, step].split((2 * size, size), -1)
            reset, update = torch.add(from_inputs, from_state, out=both).sigmoid_().chunk(2, -1)
            unreset[:, step] = unreset_new
            torch.addcmul(driven_new, reset, unreset_new, out=new).tanh_()
            before = torch.lerp(new, before, update, out=states[:, step])
        return states, gates, unreset

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)  # zeros as large as the gates
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[1], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor, *_: None) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of drive, weight and bias from that of the states, (G, S, B, H)."""
        weight, states, gates, unreset = ctx.saved_tensors
        size, back = states.shape[-1], weight.mT.contiguous()
        of_drive, of_weight, of_bias = torch.empty_like(gates), torch.zeros_like(weight), torch.zeros_like(weight[:, 0])
        later = torch.zeros_like(states[:, 0])  # what later steps give to the gradient of a state
        for end in range(states.shape[1], 0, -BLOCK):
            block = slice(max(end - BLOCK, 0), end)
            before = states[:, max(block.start - 1, 0) : end - 1]
            if block.start == 0:
                before = torch.cat([torch.zeros_like(states[:, :1]), before], 1)
            reset, update, new = gates[:, block].unflatten(-1, (3, size)).unbind(-2)
            of_new = (1 - update) * (1 - new.square())
            of_reset = of_new * unreset[:, block] * reset * (1 - reset)
            factors = torch.stack([of_reset, (before - new) * update * (1 - update), of_new * reset], -2)
            of_states, of_given = torch.empty_like(of_new), torch.empty_like(factors)
            for i in reversed(range(end - block.start)):
                here = torch.add(wanted[:, block.start + i], later, out=of_states[:, i])
                given = torch.mul(here[..., None, :], factors[:, i], out=of_given[:, i]).flatten(-2)
                later = torch.baddbmm(here * update[:, i], given, back)
            of_drive[:, block] = of_given.flatten(-2)
            torch.mul(of_states, of_new, out=of_drive[:, block, :, 2 * size :])
            rows = of_given.flatten(-2).flatten(1, 2)
            of_weight.baddbmm_(before.flatten(1, 2).mT, rows)
            of_bias += rows.sum(1)
        return of_drive, of_weight, of_bias

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The states of all members, as those of more networks."""
        members = info.batch_size
        rows = [
            value.expand(members, *value.shape) if dim is None else value.movedim(dim, 0)
            for value, dim in zip(inputs, dims, strict=True)
        ]
        outputs = _GRUStates.apply(*(value.flatten(0, 1) for value in rows))
        return tuple(value.unflatten(0, (members, -1)) for value in outputs), (0, 0, 0)
