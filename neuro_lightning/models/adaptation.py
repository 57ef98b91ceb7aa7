"""A trained core with new data: when its weights move, how fast, and which weights of single neurons are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.errors import ConfigError

STARTS = ("auto", "random", "conditions", "average")


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Adaptation:
    """How a core that another run has trained is adapted to new data.

    Attributes:
        core_from: share of the epochs after which the core's weights move: 0 from the start, 1 never.
        core_lr: learning rate of the core, times that of the rest.
        same_units: units with the same number are the same neurons in both recordings.
        least_steps: of the training, in place of ``data.least_steps``: a core that is trained already needs fewer.
        start: where read-in and readout of other units begin: at ``random``, by the ``conditions`` that both recordings
            share, by the ``average`` over all trials, which both have aligned to the same event, or ``auto``: by
            conditions where that is possible, else at random.

    Raises:
        ConfigError: a share outside of [0, 1], a negative learning rate, or no such start.
    """

    core_from: float = 0.25
    core_lr: float = 1.0
    same_units: bool = False
    least_steps: int = 300
    start: str = "auto"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ConfigError(f"adapt.start={self.start}: give {', '.join(STARTS[:-1])} or {STARTS[-1]}")
        if not 0 <= self.core_from <= 1:
            raise ConfigError(f"adapt.core_from={self.core_from}: a share of the training, from 0 to 1")
        if not self.core_lr > 0:
            raise ConfigError(f"adapt.core_lr={self.core_lr} must be above 0; adapt=stitch never trains the core")

    def core_trains(self, epoch: int, epochs: int | None) -> bool:
        """Whether the core's weights move in an epoch.

        Args:
            epoch: from 0.
            epochs: of the whole training; with an open end the core trains from its start, or never.
        """
        if epochs is None or epochs < 1:
            return self.core_from < 1
        return self.core_from < 1 and epoch >= math.ceil(self.core_from * epochs)


def parameter_groups(model: nn.Module, core: nn.Module, adaptation: Adaptation | None) -> Any:
    """All parameters for an optimizer; those of an adapted core in a group of their own, with its share of the rate.

    Args:
        model: with all parameters.
        core: a part of it.
        adaptation: None where nothing is adapted.
    """
    if adaptation is None:
        return model.parameters()
    of_core = {id(parameter) for parameter in core.parameters()}
    others = [parameter for parameter in model.parameters() if id(parameter) not in of_core]
    return [{"params": others}, {"params": list(core.parameters()), "share": adaptation.core_lr}]


def keep_batch_statistics(core: nn.Module) -> None:
    """Let a core normalise by the statistics that it has learnt, which new data do not change."""
    for part in core.modules():
        if isinstance(part, BATCH_NORMS):
            part.eval()


@torch.no_grad()
def copy_units(target: Tensor, source: Tensor, ids: Sequence[int | str], others: Sequence[int | str]) -> int:
    """Copy the weights of the units that two sessions share, in place; returns how many these are.

    Args:
        target: (N, ...) weights of a session's units.
        source: (N', ...) those of another session's.
        ids: (N,) the units' numbers or names.
        others: (N',) those of the other session's.

    Example:
        >>> weights = torch.zeros(3)
        >>> copy_units(weights, torch.tensor([1.0, 2.0]), ids=[4, 5, 6], others=[6, 4]), weights
        (2, tensor([2., 0., 1.]))
    """
    known = {unit: place for place, unit in enumerate(others)}
    pairs = [(place, known[unit]) for place, unit in enumerate(ids) if unit in known]
    if pairs:
        to, of = (torch.tensor(places) for places in zip(*pairs, strict=True))
        target[to] = source[of].to(target)
    return len(pairs)
