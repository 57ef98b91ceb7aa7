"""A network as a function of tensors alone, which is what torch.export and ONNX take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec, Output, rates_of
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.nn.stepping import State, Stepwise
from neuro_lightning.realtime.stream import behavior_of

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Function:
    """What is exported.

    Attributes:
        module: takes the inputs and returns the outputs, in their order.
        inputs: examples of the inputs, by name; those of the state begin with ``state.``.
        outputs: names of the outputs; those of the next state begin with ``next.``.
    """

    module: nn.Module
    inputs: Tensors
    outputs: tuple[str, ...]

    def __call__(self, inputs: Tensors) -> Tensors:
        """The outputs by name."""
        with torch.no_grad():
            found = self.module(*(inputs[name] for name in self.inputs))
        return dict(zip(self.outputs, found, strict=True))


class _Said(nn.Module):
    """Base class: a network with its decoder.

    Args:
        net: the network.
        decoder: of behavior from rates; None has none.
        example: an output of the network.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, net: nn.Module, decoder: Ridge | None, example: Output) -> None:
        super().__init__()
        self.net, self.decodes = net, decoder is not None
        if decoder is not None:
            self.register_buffer("weight", decoder.weight.float())
            self.register_buffer("bias", decoder.bias.float())
        self.names = list(self.said(example))

    def said(self, output: Output) -> Tensors:
        """Rates, latents and behavior of an output, those that there are, all in single precision."""
        rates = rates_of(output).float()
        decoder = Ridge(self.weight, self.bias) if self.decodes else None
        single: Output = {**output, "rates": rates}
        found = {"rates": rates, "latents": output.get("latents"), "behavior": behavior_of(single, decoder)}
        # a tensor may be only one of the inputs and outputs of an exported function
        return {name: value.float().clone() for name, value in found.items() if value is not None}


class _Step(_Said):
    def __init__(self, net: Stepwise, decoder: Ridge | None, example: Output, state: State) -> None:
        super().__init__(net, decoder, example)
        self.parts, self.like = list(state), _dtype(net)

    def forward(self, counts: Tensor, observed: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        before = dict(zip(self.parts, state, strict=True))
        output, after = self.net.step(counts.to(self.like), before, observed)
        return (*self.said(output).values(), *(after[name].clone() for name in self.parts))


class _Trial(_Said):
    def forward(self, counts: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.said(self.net(counts.to(_dtype(self.net)))).values())


def step_function(net: Stepwise, spec: DataSpec, decoder: Ridge | None = None, batch: int = 1) -> Function:
    """One bin: counts, which of them were recorded, and the state -> what is said of the bin, and the next state.

    Args:
        net: a network that looks back only, in evaluation mode.
        spec: the description of its data.
        decoder: of behavior from rates.
        batch: trials side by side.
    """
    state = {name: value.clone() for name, value in net.initial_state(batch).items()}
    counts = torch.zeros(batch, spec.n_in)
    observed = torch.ones(batch, spec.n_in, dtype=torch.bool)
    with torch.no_grad():
        output, _ = net.step(counts.to(_dtype(net)), state, observed)
    module = _Step(net, decoder, output, state).eval()
    inputs = {"counts": counts, "observed": observed, **{f"state.{name}": value for name, value in state.items()}}
    return Function(module, inputs, (*module.names, *(f"next.{name}" for name in state)))


def trial_function(net: nn.Module, spec: DataSpec, decoder: Ridge | None = None, batch: int = 1) -> Function:
    """A whole trial: counts (B, T, N_in) -> what is said of all of its bins; see :func:`step_function`."""
    counts = torch.zeros(batch, spec.n_bins, spec.n_in)
    with torch.no_grad():
        output = net(counts.to(_dtype(net)))
    module = _Trial(net, decoder, output).eval()
    return Function(module, {"counts": counts}, tuple(module.names))


def _dtype(net: nn.Module) -> torch.dtype:
    own = (value.dtype for value in (*net.parameters(), *net.buffers()) if value.is_floating_point())
    return next(own, torch.float32)
