"""Sums of losses over the steps of a training epoch, from which its means are logged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuro_lightning.models.head_losses import means_of_epoch


class EpochSums:
    """Sums over the steps of a training epoch: of the loss, of the scored elements and of further terms.

    They stay one tensor on the device until they are read, which waits for it.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._values: Tensor | None = None
        self._steps = 0
        self._last: tuple[int, int] | None = None

    def add(self, values: Mapping[str, Tensor], step: tuple[int, int]) -> Mapping[str, Tensor]:
        """Add the values of a step; returns them, each the mean over all processes.

        Some optimizers evaluate a batch more than once in a step (SAM, LBFGS): the first time counts.

        Args:
            values: scalars by name, ``loss`` among them.
            step: epoch and batch.
        """
        dtype = torch.float64 if values["loss"].device.type != "mps" else torch.float32
        added = torch.stack([value.detach() for value in values.values()]).to(dtype)
        means = values
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(added)
            added = added / torch.distributed.get_world_size()
            means = dict(zip(values, added.to(values["loss"].dtype), strict=True))
        if self._last != step:
            self._last = step
            before = 0 if self._values is None else self._values.to(added.device)
            self._names, self._values = tuple(values), before + added
            self._steps += 1
        return means

    def end(self) -> dict[str, float]:
        """The means of the epoch, and begin the next one; none where there was no step, as after a resume at its end.

        The loss is divided by the scored elements, further terms by the steps.
        """
        sums, steps = self._sums(), self._steps
        self._values, self._steps = None, 0
        return means_of_epoch(sums, steps) if sums else {}

    def to_dict(self) -> dict[str, float]:
        """The sums and the number of steps, as a checkpoint keeps them."""
        return {**self._sums(), "steps": self._steps}

    def load(self, saved: Mapping[str, float]) -> None:
        """Take the sums of an interrupted epoch from a checkpoint; an empty one has none."""
        sums = dict(saved)
        self._steps = int(sums.pop("steps", 0))
        self._names = tuple(sums)
        self._values = torch.tensor(list(sums.values()), dtype=torch.float64) if sums else None

    def _sums(self) -> dict[str, float]:
        return {} if self._values is None else dict(zip(self._names, self._values.tolist(), strict=True))
