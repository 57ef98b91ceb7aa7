"""The common ground of all metrics: float64 sums that add up over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Sequence, ValuesView
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from neuro_lightning.contracts import Batch, Output

Sums = TypeVar("Sums", bound=NamedTuple)


class SumMetric(Metric):
    """A metric whose states are float64 sums, so that no split of the trials changes its value.

    A subclass declares its sums with :meth:`add_sum`, adds to them in ``update`` and reads them in ``compute``.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)  # a cached value would not know of updates by other methods

    def add_sum(self, name: str, *shape: int) -> None:
        """Declares a state of zeros that is summed over processes."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def accumulate(self, sums: NamedTuple) -> None:
        """Adds sums to the states of their names."""
        for name, value in sums._asdict().items():
            setattr(self, name, getattr(self, name) + value)

    def collect(self, kind: type[Sums]) -> Sums:
        """The states by the names of a named tuple, in one."""
        return kind._make(getattr(self, name) for name in kind._fields)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Moves the sums to another device but never to another precision (``module.to(torch.bfloat16)``)."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, exclude_state)


class TrialMetric(SumMetric):
    """A metric that needs the values of every trial: they are kept by the trial's number.

    Args:
        n_trials: trials in all.
        widths: how many numbers of each kind a trial has, by the kind's name.
    """

    seen: Tensor

    def __init__(self, n_trials: int, **widths: int) -> None:
        super().__init__()
        for name, width in {**widths, "seen": 1}.items():
            self.add_sum(name, n_trials, width)

    def add_trials(self, index: Tensor, **values: Tensor) -> None:
        """Adds the values (B, width) of the trials with the numbers ``index`` (B,)."""
        for name, value in {**values, "seen": torch.ones_like(index)[:, None]}.items():
            setattr(self, name, getattr(self, name).index_add(0, index, value.double()))

    def trial_values(self, name: str) -> Tensor:
        """(n, width) the values of the trials that were seen; of one that was seen twice, their mean."""
        seen = self.seen[:, 0] > 0
        return getattr(self, name)[seen] / self.seen[seen]


class MetricDict(nn.ModuleDict):
    """Metrics by name, as a module. Each has methods of its own, which the type of a module does not tell."""

    def __getitem__(self, name: str) -> Any:
        """The metric of a name."""
        return super().__getitem__(name)

    def items(self) -> ItemsView[str, Any]:
        """Names with their metrics."""
        return super().items()

    def values(self) -> ValuesView[Any]:
        """The metrics."""
        return super().values()


class MetricGroup(nn.Module):
    """Metrics by name that are updated from batches, kept in ``metrics``."""

    metrics: MetricDict

    @property
    def needs_train(self) -> bool:
        """Whether :meth:`update_train` must see the training trials, in evaluation mode, before ``compute``."""
        return False

    def update_train(self, output: Output, batch: Batch) -> None:
        """Training trials; most metrics learn nothing from them."""

    def reset(self) -> None:
        """Forgets all trials."""
        for metric in self.metrics.values():
            metric.reset()


def finite_or_nan(value: Tensor) -> Tensor:
    """NaN in place of infinities: a diverged model has no score."""
    return torch.where(value.isfinite(), value, torch.nan)


def register_constant(module: nn.Module, name: str, value: Any) -> None:
    """A float64 tensor that moves with the module and stays out of its checkpoint."""
    module.register_buffer(name, torch.as_tensor(value, dtype=torch.float64), persistent=False)
