"""Population-based training as AutoLFADS does it: who wins, what losers take over, and when it is over.

Plain bookkeeping, without Ray: the same generations follow from the same seed and the same scores, in whatever order
they come in, so that a sweep that was killed is led to where it stood by its journal.

Sources: Keshtkaran et al. 2022, "A large-scale neural network training framework for generalized estimation of
single-trial population dynamics" (AutoLFADS); arsedler9/lfads-torch for the numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.tune.journal import Result, Start
from neuro_lightning.sweeps.tune.space import Dimension, Interval

NEAREST = 0.002  # share of a width by which a value moves at least
TRIES = 100  # draws before a value is moved to its bound


@dataclass(frozen=True)
class Population:
    """Settings of population-based training.

    Attributes:
        generation_epochs: epochs between two tournaments.
        burn_in_epochs: epochs before the first one.
        initial: with which value all members begin, by key; the others are drawn.
        width: how far a value moves at most, as a share of it, by key; ``default`` for the others.
        patience: generations over which the best score is compared.
        improvement: the population rests when the best has improved by no more than this share of its mean.
    """

    generation_epochs: int = 25
    burn_in_epochs: int = 105
    initial: Mapping[str, float] = field(default_factory=dict)
    width: Mapping[str, float] = field(default_factory=dict)
    patience: int = 4
    improvement: float = 5e-4

    def milestones(self, epochs: int, every: int) -> list[int]:
        """The epochs at whose ends members are compared; the last is the end of the training.

        Args:
            epochs: of the whole training.
            every: epochs from one validation to the next.

        Raises:
            ConfigError: a number of epochs is not 1 or more, or there is no validation then.
        """
        for name in ("generation_epochs", "burn_in_epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"hydra.sweeper.scheduler.{name}={getattr(self, name)}: give 1 or more")
        first = max(self.burn_in_epochs, self.generation_epochs)
        if first >= epochs:
            raise ConfigError(
                f"trainer.max_epochs={epochs}: members would never meet, the first time is after epoch {first}; give "
                "more epochs, or a shorter hydra.sweeper.scheduler.burn_in_epochs and generation_epochs"
            )
        milestones = [*range(first, epochs, self.generation_epochs), epochs]
        if uneven := [milestone for milestone in milestones[:-1] if milestone % every]:
            raise ConfigError(
                f"members are compared after epoch {uneven[0]}, where there is no validation: give a divisor of "
                f"burn_in_epochs and generation_epochs as trainer.check_val_every_n_epoch, not {every}"
            )
        return milestones

    def check(self, space: Mapping[str, Dimension]) -> None:
        """See that every key can be perturbed.

        Raises:
            ConfigError: naming the key.
        """
        for key, dimension in space.items():
            if not isinstance(dimension, Interval):
                raise ConfigError(
                    f"{key}: population-based training moves numbers within an interval, not lists of values; "
                    "give interval(...) or one value"
                )
        for name, values in {"initial": self.initial, "width": self.width}.items():
            if unknown := set(values) - set(space) - ({"default"} if name == "width" else set()):
                raise ConfigError(
                    f"hydra.sweeper.scheduler.{name}: {', '.join(sorted(unknown))} is not searched; "
                    f"hydra.sweeper.params has {', '.join(space)}"
                )
        for key, value in self.initial.items():
            if not space[key].low <= value <= space[key].high:
                raise ConfigError(f"hydra.sweeper.scheduler.initial.{key}={value}: outside {space[key]}")
        for key, value in self.width.items():
            if not 0 < value < 1:
                raise ConfigError(f"hydra.sweeper.scheduler.width.{key}={value}: give a share between 0 and 1")

    def widths(self, space: Mapping[str, Dimension]) -> dict[str, float]:
        """How far each value moves at most, as a share of it."""
        return {key: self.width.get(key, self.width.get("default", 0.2)) for key in space}


def tournament(scores: Sequence[float], rng: random.Random) -> dict[int, int]:
    """Meet in pairs drawn at random, everybody once: a binary tournament. With an odd number one sits out.

    Args:
        scores: of each member; more is better.
        rng: draws the pairs.

    Returns:
        For each loser the winner that it met.
    """
    order = list(range(len(scores)))
    rng.shuffle(order)
    half = len(order) // 2
    pairs = zip(order[:half], order[len(order) - half :], strict=True)
    return {(b if scores[a] > scores[b] else a): (a if scores[a] > scores[b] else b) for a, b in pairs}


def perturb(value: float, width: float, bounds: Interval, rng: random.Random) -> float:
    """Move a value: times 1 plus or minus something between 0.002 and 1 times the width, drawn until within bounds.

    Args:
        value: what the winner has.
        width: the share by which it moves at most.
        bounds: where it stays.
        rng: draws the move.
    """
    for _ in range(TRIES):
        moved = value * (1 + rng.choice((-1, 1)) * rng.uniform(NEAREST * width, width))
        if bounds.low <= moved <= bounds.high:
            break
    return bounds.inside(moved)


def has_settled(best: Sequence[float], patience: int, improvement: float) -> bool:
    """Whether the population's best score has stopped improving.

    The improvement is that of the best over the first of the last ``patience`` generations, as a share of their mean
    size; the first generation is not counted, as in the source.

    Args:
        best: the best score of each generation so far; more is better.
        patience: generations to look back.
        improvement: the share that is too little.
    """
    window = list(best)[-patience:]
    if len(best) <= patience or not all(map(math.isfinite, window)):
        return False
    size = math.fsum(abs(score) for score in window) / len(window)
    return max(window) - window[0] <= improvement * size


@dataclass
class Member:
    """One of the population.

    Attributes:
        number: its trial's.
        values: its hyperparameters by key.
        start: what it goes on from.
    """

    number: int
    values: dict[str, Any]
    start: Start


@dataclass
class Generations:
    """The population as it goes from generation to generation.

    Args:
        settings: see there.
        space: bounds by key.
        members: in the order of their numbers.
        seed: of all draws.
        last: the epoch at which the training ends.

    Attributes:
        results: of the generation that is trained now, by number.
        best: the best score of each generation before.
        over: why no further generation is trained; None while there is one.
    """

    settings: Population
    space: Mapping[str, Interval]
    members: list[Member]
    seed: int
    last: int
    results: dict[int, Result] = field(default_factory=dict)
    best: list[float] = field(default_factory=list)
    over: str | None = None

    def report(self, result: Result) -> dict[int, int] | None:
        """Take a member's result in; with the last one of a generation, go on to the next.

        Returns:
            For each loser the winner that it takes over from, by number; None while others are being trained.
        """
        self.results[result.trial] = result
        if len(self.results) < len(self.members):
            return None
        results = [self.results[member.number] for member in self.members]
        for member, done in zip(self.members, results, strict=True):
            member.start = done.start or member.start  # who failed goes on from where it began
        self.best.append(max(done.score for done in results))
        self.results = {}
        if (why := self._why_over(results)) is not None:
            self.over = why
            return {}
        taken = tournament([done.score for done in results], self._rng("tournament"))
        taken = {loser: winner for loser, winner in taken.items() if results[winner].start is not None}
        winners = {winner: (dict(self.members[winner].values), self.members[winner].start) for winner in taken.values()}
        for loser, winner in taken.items():
            self._take_over(self.members[loser], *winners[winner])
        return {self.members[loser].number: self.members[winner].number for loser, winner in taken.items()}

    def _why_over(self, results: Sequence[Result]) -> str | None:
        if all(done.start is None for done in results):
            return "every member failed"
        if max(done.epochs for done in results) >= self.last:
            return f"all {self.last} epochs are done"
        if has_settled(self.best, self.settings.patience, self.settings.improvement):
            return f"the best has not improved over {self.settings.patience} generations"
        return None

    def _take_over(self, loser: Member, values: Mapping[str, Any], start: Start) -> None:
        rng, widths = self._rng(f"member {loser.number}"), self.settings.widths(self.space)
        loser.values = {key: perturb(value, widths[key], self.space[key], rng) for key, value in values.items()}
        own = loser.start.own if loser.start.grafted else loser.start.checkpoint
        loser.start = Start(start.epochs, start.checkpoint, grafted=True, own=own)

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}, generation {len(self.best)}, {what}")
