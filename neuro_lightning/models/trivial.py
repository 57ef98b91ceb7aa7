"""Predictors that ignore their input: zero, a constant, each neuron's mean."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.models.fitted import FittedModule
from neuro_lightning.nn.stepping import State, Stepwise

FLOOR = 1e-4  # spikes per bin: a neuron that was silent in training may fire one day


class TrivialNet(Stepwise):
    """The same value for each neuron, whatever the input.

    Args:
        spec: the description of the data.
        n_groups: imaging planes, whose neurons are different ones.
    """

    def __init__(self, spec: DataSpec, n_groups: int = 1) -> None:
        super().__init__()
        self.kind, self.n_forward, self.by_condition = spec.kind, spec.n_forward, n_groups > 1
        self.register_buffer("values", torch.zeros(n_groups, spec.n_neurons))

    def forward(self, inputs: Tensor, condition: Tensor | None = None, observed: Tensor | None = None) -> Output:
        """(B, T, N_in) or (B, C, H, W) -> (B, L, N) or (B, N); log-rates of spikes, else rates."""
        values = self.values.clamp_min(FLOOR).log() if self.kind == "spikes" else self.values
        values = values[condition] if self.by_condition else values.expand(len(inputs), -1)
        if self.kind != "images":
            values = values[:, None].expand(-1, inputs.shape[1] + self.n_forward, -1)
        return {"log_rates": values} if self.kind == "spikes" else {"rates": values}

    looks_ahead = False

    def initial_state(self, batch: int) -> State:
        """Nothing is remembered."""
        return {}

    def step(self, inputs: Tensor, state: State, observed: Tensor | None = None) -> tuple[Output, State]:
        """See :class:`Stepwise`; there are no latents."""
        return {name: values[:, 0] for name, values in self(inputs[:, None]).items()}, state


class Zero(FittedModule):
    """Zero, everywhere: its squared error is the mean square of the data.

    Args:
        spec: the description of the data.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces", "images")  # of spikes it would be infinitely wrong

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(TrivialNet(spec), spec)

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """There is nothing to fit."""


class Constant(FittedModule):
    """One number for all neurons.

    Args:
        spec: the description of the data.
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
            total, count = _observed_sums(train[list(range(len(train)))])
            self.net.values.fill_(float(total.sum() / count.sum().clamp_min(1)))
        else:
            self.net.values.fill_(self.value)


class Mean(FittedModule):
    """Each neuron's mean: what is gained over it is all that a model says about time, stimulus or population.

    Imaging planes have neurons of their own, and each of those a mean.

    Args:
        spec: the description of the data.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces", "images")

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(TrivialNet(spec, spec.decode_groups if spec.kind == "traces" else 1), spec)

    @torch.no_grad()
    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Each neuron's mean over its observed training targets; one never observed gets the mean of all."""
        batch = train[list(range(len(train)))]
        total, count = _observed_sums(batch)
        overall = total.sum() / count.sum().clamp_min(1)
        for group, values in enumerate(self.net.values):
            if self.net.by_condition:
                total, count = _observed_sums({k: batch[k][batch["condition"] == group] for k in ("targets", "mask")})
            values.copy_(torch.where(count > 0, total / count.clamp_min(1), overall))


def _observed_sums(batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum and number of each neuron's observed targets, (N,) float64."""
    mask = batch["mask"].flatten(0, -2)
    targets = torch.where(mask, batch["targets"].flatten(0, -2).double(), 0.0)
    return targets.sum(0), mask.sum(0).double()
