"""Heads: behavior decoded from the latents of a network, and trained with it.

A head is a linear map. It is added to a finished network and draws no random numbers: its weights begin at zero, so
that a seed gives the network that it gives without one. What it predicts begins at the mean of the training split, in
the physical unit; errors are measured in standard deviations of the training split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import IN_BINS, Batch, BehaviorInfo, DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dropout import Dropout

MOST_CLASSES = 50


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What a head decodes, and what its errors cost.

    Attributes:
        kind: ``linear`` (the behavior, bin by bin), ``class`` or ``number`` (of each trial).
        target: the trial column, one of ``data.labels``, of a class or number; None for the behavior in bins.
        weight: of its loss beside that of the rates. The loss is a squared error in standard deviations of the training
            split, or a cross entropy in nats, and the mean over what is known of a batch.
        dropout: of the latents that it reads.

    Raises:
        ConfigError: a value has no meaning.
    """

    kind: Literal["linear", "class", "number"]
    target: str | None = None
    weight: float = 0.003
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "class", "number"):
            raise ConfigError(f"kind={self.kind}: a head is linear, class or number")
        if not self.weight >= 0:
            raise ConfigError(f"weight={self.weight} of a head must be 0 at least")
        if (self.kind == "linear") != (self.target is None):
            raise ConfigError(
                "target: a linear head decodes data.behavior and takes no target"
                if self.kind == "linear"
                else f"target: name the trial column that the {self.kind} head decodes, one of data.labels"
            )

    @property
    def behavior(self) -> str:
        """The name of what is decoded: the trial column, or ``contracts.IN_BINS``."""
        return self.target or IN_BINS

    def build(self, name: str, spec: DataSpec, width: int) -> Head:
        """The head of one recording, or of several that have the same behavior.

        Args:
            name: of the head.
            spec: the description of the data.
            width: of the latents.

        Raises:
            ConfigError: the data do not have the behavior, or sessions have behavior of different kinds.
        """
        found = joint_behavior(name, self.behavior, spec)
        if self.kind == "class":
            return ClassHead(name, self, found, width)
        if not found.mean:
            raise ConfigError(f"model.heads.{name}.target={self.target} is text: take head@model.heads.{name}=class")
        return NumberHead(name, self, found, width)


class Head(nn.Module):
    """Latents -> a linear map. Subclasses say what it means.

    Args:
        name: of the head.
        settings: of the head.
        outputs: numbers that the map gives.
        width: of the latents.
    """

    def __init__(self, name: str, settings: HeadSettings, outputs: int, width: int) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.dropout = Dropout(settings.dropout)
        self.weight = nn.Parameter(torch.zeros(outputs, width))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def read(self, latents: Tensor, recorded: Tensor | None) -> Tensor:
        """The map of the latents (B, T, D) of each bin, or of their mean over the recorded bins (B, T) of a trial."""
        if self.settings.kind != "linear":
            latents = latents.mean(1) if recorded is None else _mean_where(latents, recorded)
        return F.linear(self.dropout(latents), self.weight, self.bias)

    def loss(self, predicted: Tensor, batch: Batch, spec: DataSpec) -> tuple[Tensor, Tensor]:
        """The sum of the loss over what is known of a batch, and how many entries that is.

        Args:
            predicted: what the head gives for it.
            batch: with the behavior; what is unknown gives no gradient.
            spec: the description of the recording that it is from.
        """
        raise NotImplementedError


class NumberHead(Head):
    """Behavior in bins (B, T, K), or a number of each trial (B,), in the physical unit.

    Args:
        name: of the head.
        settings: of the head.
        behavior: what is known of the target, with mean and standard deviation in the training split.
        width: of the latents.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, settings: HeadSettings, behavior: BehaviorInfo, width: int) -> None:
        super().__init__(name, settings, len(behavior.mean), width)
        self.register_buffer("mean", torch.tensor(behavior.mean))
        self.register_buffer("std", torch.tensor(behavior.std))

    def forward(self, latents: Tensor, recorded: Tensor | None) -> Tensor:
        """(B, T, D) latents, and which bins (B, T) were recorded, None for all -> (B, T, K) or (B,)."""
        values = self.read(latents, recorded) * self.std + self.mean
        return values if self.settings.kind == "linear" else values.squeeze(-1)

    def target(self, batch: Batch, spec: DataSpec) -> Tensor:
        """What is to be decoded, like what the head gives; NaN where it is unknown."""
        if self.settings.kind == "linear":
            return batch["behavior"]
        return batch["labels"][:, spec.label(self.settings.behavior)[0]]

    def loss(self, predicted: Tensor, batch: Batch, spec: DataSpec) -> tuple[Tensor, Tensor]:
        """Squared errors in units of the variance; see :meth:`Head.loss`."""
        target = self.target(batch, spec)
        known = target.isfinite()
        error = torch.where(known, predicted - target, 0.0) / self.std
        return error.square().sum(), known.sum().to(error.dtype)


class ClassHead(Head):
    """The logits (B, C) of each trial's class.

    Args:
        name: of the head.
        settings: of the head.
        behavior: what is known of the target, with the classes of the training split.
        width: of the latents.

    Raises:
        ConfigError: there is one class only, or there are too many.
    """

    def __init__(self, name: str, settings: HeadSettings, behavior: BehaviorInfo, width: int) -> None:
        classes = behavior.classes
        what = f"model.heads.{name}.target={settings.target}"
        if len(classes) > MOST_CLASSES:
            raise ConfigError(f"{what} has {len(classes)} values in training: take head@model.heads.{name}=number")
        if len(classes) < 2:
            raise ConfigError(f"{what}: there is nothing to decode, the training trials know {len(classes)} class")
        super().__init__(name, settings, len(classes), width)
        self.classes = classes
        self._codes: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}  # by session: made once on a device

    def forward(self, latents: Tensor, recorded: Tensor | None) -> Tensor:
        """(B, T, D) latents, and which bins (B, T) were recorded, None for all -> logits (B, C)."""
        return self.read(latents, recorded)

    def target(self, batch: Batch, spec: DataSpec) -> Tensor:
        """(B,) int64 the trials' classes, -1 for one that is unknown or that no training trial has."""
        column, info = spec.label(self.settings.behavior)
        labels = batch["labels"][:, column]
        if (key := (spec.session, labels.device)) not in self._codes:
            place = {value: k for k, value in enumerate(self.classes)}
            index = torch.tensor([place[value] for value in info.classes], device=labels.device)
            self._codes[key] = torch.tensor(info.codes, dtype=labels.dtype, device=labels.device), index
        codes, index = self._codes[key]
        match = labels[:, None] == codes
        return torch.where(match.any(1), index[match.int().argmax(1)], -1)

    def loss(self, predicted: Tensor, batch: Batch, spec: DataSpec) -> tuple[Tensor, Tensor]:
        """Cross entropy in nats; see :meth:`Head.loss`."""
        target = self.target(batch, spec)
        total = F.cross_entropy(predicted, target, ignore_index=-1, reduction="sum")
        return total, (target >= 0).sum().to(predicted.dtype)


class Heads(nn.Module):
    """The heads of a network by name; see :func:`neuro_lightning.contracts.call_network`.

    Args:
        settings: of each head by its name.
        spec: the description of the data.
        width: of the latents.

    Raises:
        ConfigError: see :meth:`HeadSettings.build`.
    """

    def __init__(self, settings: Mapping[str, HeadSettings], spec: DataSpec, width: int) -> None:
        super().__init__()
        self.by_name: Any = nn.ModuleDict({name: each.build(name, spec, width) for name, each in settings.items()})

    def __iter__(self) -> Any:
        return iter(self.by_name.values())

    def forward(self, latents: Tensor, n_bins: int, observed: Tensor | None = None) -> dict[str, Tensor]:
        """What each head decodes, by name.

        Args:
            latents: (B, L, D) of all bins.
            n_bins: T observed ones, which alone are read.
            observed: (B, T, N_in) bool, which inputs were recorded; None for all.
        """
        recorded = None if observed is None else observed.any(2)
        return {name: head(latents[:, :n_bins], recorded) for name, head in self.by_name.items()}

    def step(self, latents: Tensor) -> dict[str, Tensor]:
        """The same of a single bin's latents (B, D), by the heads that decode bins; others need whole trials."""
        in_bins = {name: head for name, head in self.by_name.items() if head.settings.kind == "linear"}
        return {name: head(latents[:, None], None)[:, 0] for name, head in in_bins.items()}


def joint_behavior(head: str, name: str, spec: DataSpec) -> BehaviorInfo:
    """What is known of a behavior, of several sessions together: each counts alike, and classes are those of any.

    Args:
        head: the head that decodes it, for messages.
        name: of the behavior: a trial column, or ``contracts.IN_BINS``.
        spec: the description of the data.

    Raises:
        ConfigError: a recording lacks the behavior, or two differ in its channels or in what its values are.
    """
    found: list[BehaviorInfo] = []
    for part in spec.parts:
        if (info := part.behavior_of(name)) is None:
            of_session = f"session {part.session} of " if part.session else ""
            raise ConfigError(f"model.heads.{head}: {of_session}{part.dataset} has {_missing(name)}")
        found.append(info)
        if len(info.mean) != len(found[0].mean):
            raise ConfigError(
                f"model.heads.{head}: sessions {spec.parts[0].session} and {part.session} cannot share a head, they "
                f"have {len(found[0].mean)} and {len(info.mean)} channels of {name} (text has none)"
            )
    if len(found) == 1:
        return found[0]
    mean, std = pooled([info.mean for info in found], [info.std for info in found])
    classes: Any = tuple(sorted({value for info in found for value in info.classes}))
    return BehaviorInfo(name, mean=mean, std=std, classes=classes)


def pooled(means: Sequence[Sequence[float]], stds: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation (K,) of several sessions together, each with the same weight.

    Example:
        >>> pooled([[0.0], [2.0]], [[0.0], [0.0]])
        ((1.0,), (1.0,))
    """
    mean, std = torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64)
    joint = mean.mean(0)
    return tuple(joint.tolist()), tuple((std.square() + (mean - joint).square()).mean(0).sqrt().tolist())


def _missing(name: str) -> str:
    if name == IN_BINS:
        return "no behavior bin by bin: give data.behavior=SERIES where data are read from a file that has one"
    return f"no label {name}: give data.labels=[{name}], a column of the table of trials"


def _mean_where(latents: Tensor, recorded: Tensor) -> Tensor:
    """(B, D) mean of the latents (B, T, D) over the recorded bins (B, T); zero for a trial without any."""
    weights = recorded.to(latents.dtype)
    total = torch.where(recorded[..., None], latents, 0.0).sum(1)
    return total / weights.sum(1, keepdim=True).clamp_min(1)
