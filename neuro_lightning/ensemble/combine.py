"""Averages several models: each predicts once, some are selected, and memory does not grow with their number."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.table import relative
from neuro_lightning.ensemble.compatibility import check_members, check_same_data
from neuro_lightning.ensemble.member_files import MemberFiles
from neuro_lightning.ensemble.validation_halves import ValidationHalves
from neuro_lightning.errors import CheckpointError, ConfigError, DivergedError, NeuroError
from neuro_lightning.functional.likelihood import ZERO_RATE
from neuro_lightning.functional.selection import Candidates, greedy, per_neuron, stack, top
from neuro_lightning.models.inference import predict_split
from neuro_lightning.models.loading import Saved, load_checkpoint

log = logging.getLogger(__name__)

MIN_WEIGHT = 1e-6  # a member with less is dropped


@dataclass(frozen=True)
class EnsembleSettings:
    """How several models are averaged.

    Attributes:
        method: ``mean`` of all, ``top``, ``greedy``, ``stack`` or ``per_neuron``, see
            :mod:`neuro_lightning.functional.selection`.
        space: ``rate`` for the mean of rates, as the benchmark's winners had it, or ``log_rate`` for the geometric one.
        seed: by which validation trials are split into halves.
        max_members: members that ``top`` and ``greedy`` take at most.
        shrinkage: towards equal weights, and each neuron's towards those of all, in nats.
    """

    method: str = "mean"
    space: str = "rate"
    seed: int = 0
    max_members: int = 50
    shrinkage: float = 1.0


@dataclass(frozen=True)
class Ensemble:
    """M members, their weights and their scores.

    Attributes:
        settings: how they were averaged.
        members: their checkpoints, those of diverged models left out.
        weights: (M,) or, for each neuron, (M, N); they sum to one over members.
        left_out: a line for each member that could not be used.
        metric: what the scores are: ``co-bps``, ``fp-bps``, ``bits/spike`` or ``MSE``.
        halves: how many validation trials are in each half, in a line.
        selecting: (P,) bool of each trial (or part of a sequence), True in the half that selected.
        scores: of ``best`` (the best member in the selecting half), ``mean`` (of all members) and ``ensemble``, on the
            selecting half and on the other.
        member_scores: (M, 2) likewise.
        gain: of the ensemble over ``best`` and ``mean`` on the other half, positive where it is better, with
            its standard error over trials, None where they are few.
    """

    settings: EnsembleSettings
    members: list[Path]
    weights: np.ndarray
    left_out: list[str]
    metric: str
    halves: str
    selecting: np.ndarray
    scores: dict[str, tuple[float, float]]
    member_scores: np.ndarray
    gain: dict[str, tuple[float, float | None]]

    @property
    def n_used(self) -> int:
        """Members whose weight is not zero."""
        return int(self.weights.reshape(len(self.members), -1).any(1).sum())


def combine(
    members: Sequence[Path],
    data: PopulationDataModule,
    splits: Iterable[str],
    device: torch.device | str,
    settings: EnsembleSettings,
    *,
    session: str = "",
    trusted: Sequence[str] = (),
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> tuple[dict[str, np.ndarray], Ensemble | None]:
    """The average rates of several models, each of which predicts once.

    Args:
        members: checkpoints trained on the same data, first the one that these data are of; else their order does not
            matter.
        data: what to predict.
        splits: which of its splits.
        device: where the networks run.
        settings: how they are averaged; members are selected on validation trials, never on others.
        session: the name of these data among the sessions that the members were trained on; of those that were trained
            on this recording alone it says nothing.
        trusted: packages of your own that the checkpoints may build from.
        progress: shows how far the members have come.

    Returns:
        (B, L, N) or (B, N) float64 for each split, and the ensemble: None for one model, whose rates are unchanged.

    Raises:
        CheckpointError: a checkpoint of other data, or none that predicts finite rates.
        ConfigError: members cannot be selected on these data.
        DataError: the disk has no room for what the members predict.
    """
    splits = list(splits)
    if len(members) == 1:
        net = _load(members[0], data, session, trusted).model.net
        return {split: predict_split(net, data, split, device)["rates"].astype(np.float64) for split in splits}, None
    halves = _validation_halves(data, settings, check_members(members, data, session))
    with TemporaryDirectory(prefix="neuro_lightning-members-") as folder:
        pool = _Members(data, splits, settings, halves, MemberFiles(Path(folder)), n_members=len(members))
        for path in progress(sorted(members, key=_numbers_by_value)):
            try:
                net = _load(path, data, session, trusted).model.net
            except DivergedError:
                pool.left_out.append(f"{relative(path)} is left out: not all of its weights are numbers")
                continue
            pool.add(path, {split: predict_split(net, data, split, device)["rates"] for split in pool.predicted})
        return pool.average()


class _Members:
    """The members that have predicted: their losses, and their sum or, where some are selected, files of each."""

    def __init__(
        self,
        data: PopulationDataModule,
        splits: Sequence[str],
        settings: EnsembleSettings,
        halves: ValidationHalves | None,
        files: MemberFiles,
        n_members: int,
    ) -> None:
        self.splits, self.settings, self.halves, self.files = splits, settings, halves, files
        self.predicted = list(dict.fromkeys([*(["val"] if halves else []), *splits]))
        self.members: list[Path] = []
        self.left_out: list[str] = []
        self.losses: list[np.ndarray] = []
        self.linear: list[np.ndarray] = []
        self.sums: dict[str, np.ndarray] = {}
        self.neurons, self.spikes = data.spec.n_neurons, data.spec.kind == "spikes"
        self.selects = settings.method != "mean"
        if self.selects:
            self.entries, self.targets, self.starts = halves.selection_entries()
            datasets = [data.dataset(split, evaluate=True) for split in self.predicted]
            sizes = [len(dataset) * dataset[[0]]["targets"].numel() for dataset in datasets]
            files.reserve(4 * n_members * (len(self.entries) + sum(sizes)))

    def add(self, path: Path, predictions: Mapping[str, np.ndarray]) -> None:
        """Take in one member's rates of each split; one whose rates cannot be is left out.

        A rate that is not finite, or negative, would spoil the average in every weighting.
        """
        number = len(self.members)
        if not all(
            np.isfinite(rates).all() and not (self.spikes and (rates < 0).any()) for rates in predictions.values()
        ):
            what = "numbers from 0 on" if self.spikes else "numbers"
            self.left_out.append(f"{relative(path)} is left out: not all of its rates are {what}")
            return
        if self.halves:
            self.losses.append(self.halves.losses(predictions["val"]))
        if self.selects:
            values, linear = self.halves.member_entries(predictions["val"], self.entries)
            self.files.write("entries", number, values)
            self.linear.append(linear)
        for split, rates in predictions.items():
            if self.selects:
                self.files.write(split, number, rates)
            if split == "val" or not self.selects:
                self.sums[split] = _add(self.sums.get(split), rates, 1.0, self.settings.space)
        self.members.append(path)

    def average(self) -> tuple[dict[str, np.ndarray], Ensemble | None]:
        """The rates of the ensemble by split, and its description; None where no validation trials measure it.

        Raises:
            CheckpointError: no member is left.
        """
        if not self.members:
            raise CheckpointError("; ".join(self.left_out))
        n_members = len(self.members)
        means = {split: _divide(total, n_members, self.settings.space) for split, total in self.sums.items()}
        weights, averages = np.ones(n_members), means
        if self.selects:
            weights = self._select()
            averages = {split: self._weighted_mean(split, weights) for split in self.predicted}
        rates = {split: averages[split] for split in self.splits}
        if self.halves is None:
            return rates, None
        losses = np.array(self.losses)
        found = {
            "best": losses[np.argmin(losses[:, self.halves.selecting].sum(1))],
            "mean": self.halves.losses(means["val"]),
            "ensemble": self.halves.losses(averages["val"]),
        }
        return rates, Ensemble(
            settings=self.settings,
            members=self.members,
            weights=weights / weights.sum(0),
            left_out=self.left_out,
            metric=self.halves.metric,
            halves=self.halves.description,
            selecting=self.halves.selecting,
            scores={who: self.halves.scores(values) for who, values in found.items()},
            member_scores=np.array([self.halves.scores(values) for values in losses]),
            gain={who: self.halves.gain(found["ensemble"], found[who]) for who in ("best", "mean")},
        )

    def _select(self) -> np.ndarray:
        """(M,) or (M, N) weights, by the selecting half."""
        n_members, settings = len(self.members), self.settings
        candidates = Candidates(
            lambda start, stop: self.files.columns("entries", n_members, start, stop),
            self.targets, self.starts, np.array(self.linear), self.halves.family,
        )  # fmt: skip
        if settings.method in ("top", "greedy"):
            return {"top": top, "greedy": greedy}[settings.method](candidates, settings.max_members)
        weights = stack(candidates, settings.shrinkage)
        if settings.method == "per_neuron":
            own = per_neuron(candidates, settings.shrinkage, weights)
            weights = np.repeat(weights[:, None], self.neurons, axis=1)
            weights[:, self.halves.neurons] = own
        return np.where(weights < MIN_WEIGHT, 0.0, weights)

    def _weighted_mean(self, split: str, weights: np.ndarray) -> np.ndarray:
        """The weighted mean of the members' rates of a split, read a block of trials at a time."""
        used = np.flatnonzero(weights.reshape(len(weights), -1).any(1))
        space = self.settings.space if len(used) > 1 else "rate"  # the rates of a single member do not change at all
        blocks = []
        for rows in row_blocks(self.files.open(split, 0)):
            total = None
            for member in used:
                total = _add(total, self.files.open(split, member)[rows], weights[member], space)
            blocks.append(_divide(total, weights.sum(0), space))
        return np.concatenate(blocks)


def _add(total: np.ndarray | None, rates: np.ndarray, weight: np.ndarray | float, space: str) -> np.ndarray:
    """Add one member's rates, in float64."""
    values = rates.astype(np.float64)
    if space == "log_rate":
        values = np.log(np.where(values == 0, ZERO_RATE, values))
    values *= weight
    return values if total is None else np.add(total, values, out=total)


def _divide(total: np.ndarray, weight: np.ndarray | float, space: str) -> np.ndarray:
    """The mean from a sum, which it replaces in memory."""
    total /= weight
    return np.exp(total, out=total) if space == "log_rate" else total


def _validation_halves(
    data: PopulationDataModule, settings: EnsembleSettings, reason: str | None
) -> ValidationHalves | None:
    """The validation trials in two halves; None where they cannot score the members, which a mean does not need.

    Args:
        data: whose validation trials.
        settings: how the members are averaged.
        reason: why these trials cannot score them; None if they can.

    Raises:
        ConfigError: members cannot be selected on these data.
        CheckpointError: a member was trained on validation trials of another.
    """
    if settings.space == "log_rate" and data.spec.kind != "spikes":
        raise ConfigError(f"space=log_rate is for rates of spikes; leave it out for {data.spec.kind}")
    try:
        if "val" not in data.recording.splits:
            raise ConfigError(f"{data.spec.dataset} has no validation trials here to choose with; give ensemble=mean")
        if reason is not None:
            raise CheckpointError(reason)
        return ValidationHalves(data, seed=settings.seed, space=settings.space)
    except NeuroError:
        if settings.method != "mean":
            raise
        if reason is not None:
            log.warning(f"this mean is not scored on the validation trials, which would be too optimistic: {reason}")
        return None


def _load(path: Path, data: PopulationDataModule, session: str, trusted: Sequence[str]) -> Saved:
    saved = load_checkpoint(path, trusted=trusted).of_session(session)
    check_same_data(saved, data.spec, "the first checkpoint's data")
    return saved


def _numbers_by_value(path: Path) -> list[str | int]:
    """A sort key for paths in which 10 comes after 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path.resolve()))]
