"""Several models as one: each predicts once, some are chosen, and memory does not grow with their number."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.contracts import DataSpec, rates_of, run_network
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.ensemble.belonging import check_members
from neuro_lightning.ensemble.files import MemberFiles
from neuro_lightning.ensemble.halves import Halves
from neuro_lightning.errors import CheckpointError, ConfigError, DivergedError, NeuroError
from neuro_lightning.functional.likelihood import ZERO_RATE
from neuro_lightning.functional.selection import Candidates, greedy, per_neuron, stack, top
from neuro_lightning.models.loading import Saved, load_checkpoint
from neuro_lightning.report.table import relative

log = logging.getLogger(__name__)

METHODS = ("mean", "top", "greedy", "stack", "per_neuron")
SPACES = ("rate", "log_rate")
NO_WEIGHT = 1e-6  # below it a member does not take part
LATENTS = {"latents", "inferred_inputs", "initial_condition"}


def check_same_data(saved: Saved, spec: DataSpec, what: str) -> None:
    """A model may only speak of the neurons and bins that it was trained on.

    Args:
        saved: the trained model.
        spec: the data it is to predict.
        what: where ``spec`` comes from, for the message.

    Raises:
        CheckpointError: naming what differs.
    """
    own = saved.spec
    for name in ("kind", "bin_ms", "n_bins", "n_forward", "n_in", "n_out", "image_shape"):
        if getattr(own, name) != getattr(spec, name):
            raise CheckpointError(
                f"{saved.path} was trained on {own.dataset} with {name}={getattr(own, name)}, but {what} has "
                f"{name}={getattr(spec, name)} ({spec.dataset}): predict the data it was trained on"
            )
    if own.unit_ids != spec.unit_ids:
        raise CheckpointError(
            f"{saved.path} was trained on other neurons of {own.dataset} than {what} has (their unit ids differ): "
            "check the file, data.seed and data.heldout_fraction"
        )


@torch.no_grad()
def predict_rates(
    model: torch.nn.Module, data: PopulationDataModule, split: str, device: torch.device | str
) -> np.ndarray:
    """Expected values of a split's targets, (B, L, N) or (B, N) float32 in the order of the trial table."""
    model = model.to(device).eval()
    rates, done = None, 0
    for batch in data.eval_dataloader(split):
        part = rates_of(run_network(model, batch, device)).numpy()
        if rates is None:
            rates = np.empty((len(data.dataset(split, evaluate=True)), *part.shape[1:]), part.dtype)
        rates[done : done + len(part)] = part
        done += len(part)
    return rates


@dataclass(frozen=True)
class Recipe:
    """How several models become one.

    Attributes:
        method: ``mean`` of all, ``top``, ``greedy``, ``stack`` or ``per_neuron``, see
            :mod:`neuro_lightning.functional.selection`.
        space: ``rate`` for the mean of rates, as the benchmark's winners had it, or ``log_rate`` for the geometric one.
        seed: of the halves of the validation trials.
        most: members that are taken at most, by ``top`` and ``greedy``.
        shrinkage: towards equal weights, and each neuron's towards those of all, in nats.

    Raises:
        ConfigError: one of them is not known.
    """

    method: str = "mean"
    space: str = "rate"
    seed: int = 0
    most: int = 50
    shrinkage: float = 1.0

    def __post_init__(self) -> None:
        for name, value, known in (("ensemble", self.method, METHODS), ("space", self.space, SPACES)):
            if value not in known:
                raise ConfigError(f"{name}={value}: give {', '.join(known[:-1])} or {known[-1]}")
        if not isinstance(self.most, int) or self.most < 1:
            raise ConfigError(f"max_members={self.most}: give a whole number from 1 on")
        if not isinstance(self.shrinkage, int | float) or not self.shrinkage >= 0:
            raise ConfigError(f"shrinkage={self.shrinkage}: give a number from 0 on, in nats")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"ensemble_seed={self.seed}: give a whole number from 0 on")


@dataclass(frozen=True)
class Choice:
    """What became of M members.

    Attributes:
        recipe: how they were chosen.
        members: their checkpoints, those of diverged models left out.
        weights: (M,) or, for each neuron, (M, N); they sum to one over members.
        left_out: a line for each member that could not take part.
        metric: what the scores are: ``co-bps``, ``fp-bps``, ``bits/spike`` or ``MSE``.
        halves: which validation trials chose and which report, in a line.
        chose: (P,) bool of each trial (or part of a sequence), True where it chose.
        scores: of ``best`` (the best member where it was chosen), ``mean`` (of all members) and ``ensemble``, on the
            half that chose and on the other.
        member_scores: (M, 2) likewise.
        gain: of the ensemble over ``best`` and ``mean`` on the half that reports, positive where it is better, with
            its standard error over trials, None where they are few.
    """

    recipe: Recipe
    members: list[Path]
    weights: np.ndarray
    left_out: list[str]
    metric: str
    halves: str
    chose: np.ndarray
    scores: dict[str, tuple[float, float]]
    member_scores: np.ndarray
    gain: dict[str, tuple[float, float | None]]


def combine(
    members: Sequence[Path],
    data: PopulationDataModule,
    splits: Iterable[str],
    device: torch.device | str,
    recipe: Recipe,
    *,
    trusted: Sequence[str] = (),
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> tuple[dict[str, np.ndarray], Choice | None]:
    """Rates of several models as one, each predicted once; where members are chosen, theirs wait on the disk.

    Args:
        members: checkpoints trained on the same data, first the one that these data are of; else their order does not
            matter.
        data: what to predict.
        splits: which of its splits.
        device: where the networks run.
        recipe: how they are combined; the validation trials choose, never others.
        trusted: packages of your own that the checkpoints may build from.
        progress: shows how far the members have come.

    Returns:
        (B, L, N) or (B, N) float64 for each split, and what was chosen: None of one model, which is itself.

    Raises:
        CheckpointError: a checkpoint of other data, or none that predicts finite rates.
        ConfigError: these data cannot choose.
        DataError: the disk has no room for what the members predict.
    """
    splits = list(splits)
    if len(members) == 1:
        saved = _load(members[0], data, trusted)
        return {split: predict_rates(saved.model.net, data, split, device).astype(np.float64) for split in splits}, None
    halves = _halves(data, recipe, check_members(members, data))
    members = sorted(members, key=_by_number)
    with MemberFiles() as files:
        pool = _Pool(data, splits, recipe, halves, files, n_members=len(members))
        for path in progress(members):
            try:
                saved = _load(path, data, trusted)
            except DivergedError:
                pool.left_out.append(f"{relative(path)} is left out: not all of its weights are numbers")
                continue
            pool.add(path, lambda split, net=saved.model.net: predict_rates(net, data, split, device))
        return pool.finish()


class _Pool:
    """The members that have been predicted: their losses, their sum, and on the disk what is chosen from."""

    def __init__(
        self,
        data: PopulationDataModule,
        splits: Sequence[str],
        recipe: Recipe,
        halves: Halves | None,
        files: MemberFiles,
        n_members: int,
    ) -> None:
        self.splits, self.recipe, self.halves, self.files = splits, recipe, halves, files
        judged = ["val"] if halves else []  # first, for it says whether a member takes part
        self.predicted = list(dict.fromkeys([*judged, *splits]))
        self.members: list[Path] = []
        self.left_out: list[str] = []
        self.losses: list[np.ndarray] = []
        self.linear: list[np.ndarray] = []
        self.sums: dict[str, np.ndarray] = {}
        self.neurons, self.spikes = data.spec.n_neurons, data.spec.kind == "spikes"
        if recipe.method != "mean":
            self.where, self.targets, self.starts = halves.choose_from()
            entries = len(self.where) + sum(_n_entries(data, split) for split in self.predicted)
            files.reserve(4 * n_members * entries)

    def add(self, path: Path, predict: Callable[[str], np.ndarray]) -> None:
        """Take in one member, whose rates of a split ``predict`` gives."""
        keep = self.recipe.method != "mean"
        number = len(self.members)
        predictions = {split: predict(split) for split in self.predicted}
        if not all(self._possible(rates) for rates in predictions.values()):
            what = "numbers from 0 on" if self.spikes else "numbers"
            self.left_out.append(f"{relative(path)} is left out: not all of its rates are {what}")
            return
        for split, rates in predictions.items():
            if split == "val" and self.halves:
                self.losses.append(self.halves.losses(rates))
                if keep:
                    values, linear = self.halves.values(rates, self.where)
                    self.files.write("chooses", number, values)
                    self.linear.append(linear)
            if keep:
                self.files.write(split, number, rates)
            if split == "val" or not keep:
                self.sums[split] = _add(self.sums.get(split), rates, 1.0, self.recipe.space)
        self.members.append(path)

    def _possible(self, rates: np.ndarray) -> bool:
        """Whether these can be expected values of the data, in every entry: one that cannot would spoil all."""
        return bool(np.isfinite(rates).all() and (not self.spikes or (rates >= 0).all()))

    def finish(self) -> tuple[dict[str, np.ndarray], Choice | None]:
        """The rates of the ensemble, and what it is."""
        if not self.members:
            raise CheckpointError("; ".join(self.left_out))
        n_members = len(self.members)
        means = {split: _mean(total, n_members, self.recipe.space) for split, total in self.sums.items()}
        if self.recipe.method == "mean":
            weights, mixed = np.ones(n_members), means
        else:
            weights = self._weights()
            mixed = {split: self._mixture(split, weights) for split in self.predicted}
        rates = {split: mixed[split] for split in self.splits}
        if self.halves is None:
            return rates, None
        losses = np.array(self.losses)
        best = losses[np.argmin(losses[:, self.halves.chooses].sum(1))]
        found = {"best": best, "mean": self.halves.losses(means["val"])}
        found["ensemble"] = self.halves.losses(mixed["val"])
        return rates, Choice(
            recipe=self.recipe,
            members=self.members,
            weights=weights / weights.sum(0),
            left_out=self.left_out,
            metric=self.halves.metric,
            halves=self.halves.what,
            chose=self.halves.chooses,
            scores={who: self.halves.scores(values) for who, values in found.items()},
            member_scores=np.array([self.halves.scores(values) for values in losses]),
            gain={who: self.halves.gain(found["ensemble"], found[who]) for who in ("best", "mean")},
        )

    def _weights(self) -> np.ndarray:
        """(M,) or (M, N), by the half that chooses."""
        n_members, recipe = len(self.members), self.recipe
        candidates = Candidates(
            lambda start, stop: self.files.columns("chooses", n_members, start, stop),
            self.targets, self.starts, np.array(self.linear), self.halves.family,
        )  # fmt: skip
        if recipe.method in ("top", "greedy"):
            return {"top": top, "greedy": greedy}[recipe.method](candidates, recipe.most)
        weights = stack(candidates, recipe.shrinkage)
        if recipe.method == "per_neuron":
            own = per_neuron(candidates, recipe.shrinkage, weights)
            weights = np.repeat(weights[:, None], self.neurons, axis=1)
            weights[:, self.halves.neurons] = own
        return np.where(weights < NO_WEIGHT, 0.0, weights)

    def _mixture(self, split: str, weights: np.ndarray) -> np.ndarray:
        """The weighted mean of what lies on the disk, a block of trials at a time."""
        used = np.flatnonzero(weights.reshape(len(weights), -1).any(1))
        space = self.recipe.space if len(used) > 1 else "rate"  # one model is itself, to the last bit
        blocks = []
        for rows in self.files.blocks(split):
            total = None
            for member in used:
                total = _add(total, self.files.read(split, member, rows), weights[member], space)
            blocks.append(_mean(total, weights.sum(0), space))
        return np.concatenate(blocks)


def _add(total: np.ndarray | None, rates: np.ndarray, weight: np.ndarray | float, space: str) -> np.ndarray:
    """Add one member's rates, in float64."""
    values = rates.astype(np.float64)
    if space == "log_rate":
        values = np.log(np.where(values == 0, ZERO_RATE, values))
    values *= weight
    return values if total is None else np.add(total, values, out=total)


def _mean(total: np.ndarray, weight: np.ndarray | float, space: str) -> np.ndarray:
    """The mean of what was added, in the place of it."""
    total /= weight
    return np.exp(total, out=total) if space == "log_rate" else total


def _halves(data: PopulationDataModule, recipe: Recipe, seen: str | None) -> Halves | None:
    """What judges the members; None where nothing does, and a mean does not need it.

    Args:
        data: whose validation trials judge.
        recipe: how the members are combined.
        seen: why these trials cannot judge them; None if they can.

    Raises:
        ConfigError: these data cannot choose.
        CheckpointError: what one member validates with, another has trained on.
    """
    if recipe.space == "log_rate" and data.spec.kind != "spikes":
        raise ConfigError(f"space=log_rate is for rates of spikes; leave it out for {data.spec.kind}")
    try:
        if "val" not in data.recording.splits:
            raise ConfigError(f"{data.spec.dataset} has no validation trials here to choose with; give ensemble=mean")
        if seen is not None:
            raise CheckpointError(seen)
        return Halves(data, seed=recipe.seed, space=recipe.space)
    except NeuroError:
        if recipe.method != "mean":
            raise
        if seen is not None:
            log.warning(f"the validation trials do not judge this mean, whose predictions of them flatter: {seen}")
        return None


def _load(path: Path, data: PopulationDataModule, trusted: Sequence[str]) -> Saved:
    saved = load_checkpoint(path, trusted=trusted)
    check_same_data(saved, data.spec, "the first checkpoint's data")
    return saved


def _n_entries(data: PopulationDataModule, split: str) -> int:
    """Predictions of a split."""
    trials, spec = data.recording.splits[split], data.spec
    if spec.kind == "images":
        return len(trials) * spec.n_neurons
    return len(trials) * (trials.heldin.shape[1] + spec.n_forward) * spec.n_neurons


def _by_number(path: Path) -> list[str | int]:
    """Sorts paths, numbers in them by their value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path.resolve()))]


@torch.no_grad()
def predict_latents(
    model: torch.nn.Module, data: PopulationDataModule, split: str, device: torch.device | str
) -> dict[str, np.ndarray]:
    """What a network says of the population's state, by the names of :class:`Output`; empty if it has no latents.

    Returns:
        ``latents`` (B, L, D) and, of some networks, ``inferred_inputs`` (B, L, U) and ``initial_condition`` (B, D) of
        every trial of a split, float32 in the order of the trial table.
    """
    model, found = model.to(device).eval(), {}
    for batch in data.eval_dataloader(split):
        output = run_network(model, batch, device)
        for name in LATENTS & set(output):
            found.setdefault(name, []).append(output[name])
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}
