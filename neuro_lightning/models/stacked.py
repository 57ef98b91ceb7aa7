"""Training steps of several models as one: one forward and one backward pass of their stacked networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output, call_network
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.stack import Stack
from neuro_lightning.nn.stacked_adam import Rows, StackedAdam, can_step_at_once, clip_members

ONE_BY_ONE = "train such networks one by one"


@dataclass(frozen=True)
class WantedSteps:
    """Steps that a model is to take.

    Attributes:
        model: in its trainer's training loop.
        batches: of the steps.
        first: the number of the first step in the epoch.
    """

    model: PopulationModule
    batches: list[Batch]
    first: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Trials in each batch."""
        return tuple(len(batch["inputs"]) for batch in self.batches)


class StackedSteps:
    """Takes the steps of several models of one architecture together.

    Each model has its own batches, masks, loss, clipping, optimizer and schedule, in which nothing differs from a
    training of its own. The networks run as one :class:`~neuro_lightning.nn.stack.Stack`: the models' parameters are
    rows of its own, and their gradients rows of its gradients. Dropout is drawn as in a training of its own on a CPU,
    and the steps of Adam and AdamW are taken at once.
    """

    def __init__(self) -> None:
        self._stack: Stack | None = None
        self._models: list[PopulationModule] = []
        self._rows: Rows = []
        self._adam: StackedAdam | None = None  # None where each model's own optimizer takes its steps

    def take(self, wanted: Sequence[WantedSteps]) -> list[bool]:
        """Take the steps; for each model, whether all of its losses were finite.

        Args:
            wanted: as many steps of each model, on batches of the same sizes.

        Raises:
            ConfigError: the networks cannot be stacked. No step has been taken then.
        """
        self._bind([each.model for each in wanted])
        before = torch.get_default_dtype()
        torch.set_default_dtype(wanted[0].model.dtype)  # as the trainer does it in a step
        try:
            losses = [self._step(wanted, i) for i in range(len(wanted[0].batches))]
        finally:
            torch.set_default_dtype(before)
        return torch.stack(losses).isfinite().all(0).tolist()

    def _step(self, wanted: Sequence[WantedSteps], i: int) -> Tensor:
        """Step ``i`` of each model; the losses (K,)."""
        shown = []
        for k, each in enumerate(wanted):
            each.model.begin_step(each.first + i)
            shown.append(each.model.show(each.batches[i]))
            self._stack.generators[k] = copy_generator(each.model.device)
        outputs = self._forward(torch.stack([inputs for _, inputs, _ in shown]))
        losses = [
            each.model.loss_of(output, batch, mask, each.first + i)
            for each, output, (batch, _, mask) in zip(wanted, outputs, shown, strict=True)
        ]
        values = torch.stack(losses)
        self._stack.zero_grad()
        values.sum().backward()
        if self._adam is not None:
            clip_members((rows for rows, _ in self._rows), values.new_tensor([largest_norm(m) for m in self._models]))
            self._adam.step()
        for k, (each, loss) in enumerate(zip(wanted, losses, strict=True)):
            each.model.end_step(self._gradients(k, each.model, loss.detach()))
        return values.detach()

    def _forward(self, inputs: Tensor) -> list[Output]:
        """(K, ...) inputs of the models -> the output of each network.

        Raises:
            ConfigError: torch cannot run these networks as one.
        """
        try:
            return _unbound(self._stack(inputs), len(inputs))
        except RuntimeError as error:
            name, said = type(self._models[0].net).__name__, str(error).strip().splitlines()[0]
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(f"{name} cannot be stacked, {ONE_BY_ONE}: {said}") from error

    def _gradients(self, k: int, model: PopulationModule, loss: Tensor) -> Callable[[], Tensor]:
        """What gives a model its rows of the gradients, unless its step is taken already, and returns its loss."""

        def give() -> Tensor:
            for rows, parameters in self._rows:
                parameters[k].grad = None if rows.grad is None or self._adam is not None else rows.grad[k]
            model.on_after_backward()
            return loss

        return give

    def _bind(self, models: list[PopulationModule]) -> None:
        """Let the parameters of the models be rows of a stack, unless they are already.

        Raises:
            ConfigError: the networks cannot be stacked.
        """
        if models == self._models and self._is_bound():
            if self._adam is not None and not self._adam.is_bound():
                self._adam = StackedAdam(self._adam.optimizers, self._rows)
            return
        self._stack, self._adam, self._rows = None, None, []  # their memory is free before the next one's is taken
        self._models = models
        self._stack = Stack([_Called(model.net) for model in models]).train()
        self._rows = [
            (rows, [model.get_parameter(name) for model in models]) for name, rows in self._stack.net.named_parameters()
        ]
        for rows, parameters in self._rows:
            for row, parameter in zip(rows.data, parameters, strict=True):
                parameter.data = row
        optimizers: list[Any] = [model.optimizers(use_pl_optimizer=False) for model in models]
        at_once = can_step_at_once(optimizers) and not any(sees_gradients(model) for model in models)
        self._adam = StackedAdam(optimizers, self._rows) if at_once else None

    def _is_bound(self) -> bool:
        """Whether the parameters are still the stack's rows: whoever replaces one makes a new stack necessary."""
        return self._stack is not None and all(
            parameter.data_ptr() == rows.data_ptr() + k * rows.stride(0) * rows.element_size()
            for rows, parameters in self._rows
            for k, parameter in enumerate(parameters)
        )


class _Called(nn.Module):
    """A network with its heads, in training mode as :func:`~neuro_lightning.contracts.call_network` calls them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Output:
        return call_network(self.net, {}, inputs)


def largest_norm(model: PopulationModule) -> float:
    """The norm to which the trainer clips the gradient of a model; infinity where it does not."""
    return float(model.trainer.gradient_clip_val or math.inf)


def sees_gradients(model: PopulationModule) -> bool:
    """Whether something beside the optimizer needs a model's gradients: then the optimizer takes its steps itself."""
    by_value = model.trainer.gradient_clip_val and model.trainer.gradient_clip_algorithm == "value"
    hooks: list[Any] = [model, *model.trainer.callbacks]
    bases = (pl.LightningModule, *[pl.Callback] * len(model.trainer.callbacks))
    listens = any(
        type(each).on_before_optimizer_step is not base.on_before_optimizer_step
        for each, base in zip(hooks, bases, strict=True)
    )
    return bool(by_value) or listens or model.adaptation is not None


def copy_generator(device: torch.device) -> torch.Generator | None:
    """A generator that goes on as torch's own of a device would from here; None where torch has no such state."""
    if device.type not in ("cpu", "cuda"):
        return None
    generator = torch.Generator(device)
    generator.set_state(torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device))
    return generator


def _unbound(value: Any, members: int) -> list[Any]:
    """Each member's part of a nest of dictionaries whose tensors begin with the member axis."""
    if not isinstance(value, dict):
        return list(value.unbind())
    parts = {name: _unbound(each, members) for name, each in value.items()}
    return [{name: part[k] for name, part in parts.items()} for k in range(members)]


def refuse_stack(model: PopulationModule, spec: DataSpec) -> str | None:
    """The reason why the training steps of a model cannot be stacked, as far as model and data tell; None if they can.

    Args:
        model: that is to be trained.
        spec: the description of its data.
    """
    if spec.sessions:
        return "several sessions, of which each batch has another one, cannot be stacked"
    if spec.partial:
        return "trials of unequal length, or with neurons that come and go, cannot be stacked"
    name = type(model).__name__
    if getattr(model.net, "by_condition", False) or getattr(model.net, "by_pupil", False):
        return f"{name} reads more than a trial's inputs (its condition, the pupil) and cannot be stacked"
    if type(model).training_step is not PopulationModule.training_step:
        return f"{name} is not trained in steps of an optimizer and cannot be stacked"
    if [key for key, _ in model.named_parameters() if not key.startswith("net.")]:
        return f"{name} trains more than its network and cannot be stacked"
    return None
