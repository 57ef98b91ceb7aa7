"""Predictors that do not look at their input: zero, a constant, each neuron's mean. The first lines to beat."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuro_lightning.contracts import Batch, DataSpec, Output, with_link
from neuro_lightning.models.fitted import FittedModule

FLOOR = 1e-4  # spikes per bin: a neuron that was silent in training may fire one day


class TrivialNet(nn.Module):
    """The same value for each neuron, whatever the input.

    Args:
        spec: what to know of the data.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.kind, self.n_forward = spec.kind, spec.n_forward
        self.register_buffer("values", torch.zeros(spec.n_neurons))

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) or (B, C, H, W) -> (B, L, N) or (B, N); log-rates of spikes, else rates."""
        bins = () if self.kind == "images" else (inputs.shape[1] + self.n_forward,)
        values = self.values.clamp_min(FLOOR).log() if self.kind == "spikes" else self.values
        return with_link(values.expand(len(inputs), *bins, -1), self.kind)


class Zero(FittedModule):
    """Zero, everywhere: its squared error is the mean square of the data.

    Args:
        spec: what to know of the data.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces", "images")  # of spikes it would be infinitely wrong

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(TrivialNet(spec), spec)

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """There is nothing to fit."""


class Constant(FittedModule):
    """One number for all neurons.

    Args:
        spec: what to know of the data.
        value: the number; None takes the mean of all observed training targets.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces", "images")

    def __init__(self, spec: DataSpec, *, value: float | None = None) -> None:
        super().__init__(TrivialNet(spec), spec)
        self.value = value

    @torch.no_grad()
    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """The mean of all observed training targets, if no number was given."""
        if self.value is None:
            total, count = _observed(train[list(range(len(train)))])
            self.net.values.fill_(float(total.sum() / count.sum().clamp_min(1)))
        else:
            self.net.values.fill_(self.value)


class Mean(FittedModule):
    """Each neuron's mean: what is gained over it is all that a model says about time, stimulus or population.

    Args:
        spec: what to know of the data.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces", "images")

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(TrivialNet(spec), spec)

    @torch.no_grad()
    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Each neuron's mean over its observed training targets; one never observed gets the mean of all."""
        total, count = _observed(train[list(range(len(train)))])
        overall = total.sum() / count.sum().clamp_min(1)
        self.net.values.copy_(torch.where(count > 0, total / count.clamp_min(1), overall))


def _observed(batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum and number of each neuron's observed targets, (N,) float64."""
    mask = batch["mask"].flatten(0, -2)
    targets = torch.where(mask, batch["targets"].flatten(0, -2).double(), 0.0)
    return targets.sum(0), mask.sum(0).double()
