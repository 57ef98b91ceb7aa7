"""The rules of population-based training as in AutoLFADS: who wins, what losers take over, when training is over.

Nothing is trained here. The same generations follow from the same seed and the same scores.

Sources: Keshtkaran et al. 2022, "A large-scale neural network training framework for generalized estimation of
single-trial population dynamics" (AutoLFADS); arsedler9/lfads-torch for the numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuro_lightning.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

    Interval = FloatDistribution | IntDistribution

SMALLEST_MOVE = 0.002  # share of a width by which a value moves at least
MAX_DRAWS = 100  # before a value is set to its nearest bound
DIGITS = 6  # of a value: typed again by hand it is the same one
Values = dict[str, float]  # hyperparameters by key


@dataclass(frozen=True)
class Population:
    """Settings of population-based training.

    Attributes:
        generation_epochs: epochs between two tournaments.
        burn_in_epochs: epochs before the first tournament.
        initial: value with which all members start, by key; the others are drawn at random.
        width: largest relative change of a value, by key; ``default`` for the others.
        patience: generations over which the best score is compared.
        improvement: training ends when the best score has improved by no more than this share of its mean.
    """

    generation_epochs: int = 25
    burn_in_epochs: int = 105
    initial: Mapping[str, float] = field(default_factory=dict)
    width: Mapping[str, float] = field(default_factory=dict)
    patience: int = 4
    improvement: float = 5e-4

    def milestones(self, epochs: int, every: int) -> list[int]:
        """The epochs after which members are compared; the last one is the end of the training.

        Args:
            epochs: of the whole training.
            every: epochs from one validation to the next.

        Raises:
            ConfigError: a number of epochs is below 1, or there is no validation at one of them.
        """
        for name in ("generation_epochs", "burn_in_epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"hydra.sweeper.{name}={getattr(self, name)}: give 1 or more")
        first = max(self.burn_in_epochs, self.generation_epochs)
        if first >= epochs:
            raise ConfigError(
                f"trainer.max_epochs={epochs}: there is no tournament, the first one is after epoch {first}; give "
                "more epochs, or a shorter hydra.sweeper.burn_in_epochs and generation_epochs"
            )
        milestones = [*range(first, epochs, self.generation_epochs), epochs]
        if uneven := [milestone for milestone in milestones[:-1] if milestone % every]:
            raise ConfigError(
                f"members are compared after epoch {uneven[0]}, where there is no validation: give a divisor of "
                f"burn_in_epochs and generation_epochs as trainer.check_val_every_n_epoch, not {every}"
            )
        return milestones

    def check(self, space: Mapping[str, BaseDistribution]) -> None:
        """Check that every key of the space can be perturbed.

        Raises:
            ConfigError: naming the key.
        """
        for key, distribution in space.items():
            if not hasattr(distribution, "low"):
                raise ConfigError(
                    f"{key}: population-based training moves numbers within an interval, not lists of values; "
                    "give interval(...) or one value"
                )
        for name, values in {"initial": self.initial, "width": self.width}.items():
            if unknown := set(values) - set(space) - ({"default"} if name == "width" else set()):
                raise ConfigError(
                    f"hydra.sweeper.{name}: {', '.join(sorted(unknown))} is not searched; "
                    f"hydra.sweeper.params has {', '.join(space)}"
                )
        for key, value in self.initial.items():
            low, high = space[key].low, space[key].high
            if not low <= value <= high:
                raise ConfigError(f"hydra.sweeper.initial.{key}={value}: outside {low:g} to {high:g}")
        for key, value in self.width.items():
            if not 0 < value < 1:
                raise ConfigError(f"hydra.sweeper.width.{key}={value}: give a share between 0 and 1")

    def next_values(
        self, values: Sequence[Values], scores: Sequence[float], space: Mapping[str, Interval], seed: str
    ) -> tuple[list[Values], dict[int, int]]:
        """Hold a tournament: losers take over the winners' values, perturbed.

        Args:
            values: of each member.
            scores: of each member, more is better; minus infinity for a member that failed.
            space: the bounds by key.
            seed: of all draws, different for each generation.

        Returns:
            The values of each member in the next generation, and for each loser the winner that it takes over from.
        """
        taken = tournament(scores, random.Random(f"{seed}, tournament"))
        taken = {loser: winner for loser, winner in taken.items() if math.isfinite(scores[winner])}
        after = [dict(value) for value in values]
        for loser, winner in taken.items():
            rng = random.Random(f"{seed}, member {loser}")
            for key, value in values[winner].items():
                width = self.width.get(key, self.width.get("default", 0.2))
                after[loser][key] = perturb(value, width, space[key], rng)
        return after, taken


def tournament(scores: Sequence[float], rng: random.Random) -> dict[int, int]:
    """Compare pairs drawn at random, each member once: a binary tournament. With an odd number one sits out.

    Args:
        scores: of each member; more is better.
        rng: draws the pairs.

    Returns:
        For each loser the winner of its pair.
    """
    order = list(range(len(scores)))
    rng.shuffle(order)
    half = len(order) // 2
    pairs = zip(order[:half], order[len(order) - half :], strict=True)
    return {(b if scores[a] > scores[b] else a): (a if scores[a] > scores[b] else b) for a, b in pairs}


def perturb(value: float, width: float, bounds: Interval, rng: random.Random) -> float:
    """Multiply a value by 1 plus or minus a number between 0.002 and 1 times the width, drawn until it is in bounds.

    Args:
        value: the winner's.
        width: the share by which it moves at most.
        bounds: where it stays.
        rng: draws the move.
    """
    for _ in range(MAX_DRAWS):
        moved = value * (1 + rng.choice((-1, 1)) * rng.uniform(SMALLEST_MOVE * width, width))
        if bounds.low <= moved <= bounds.high:
            break
    return nearest(moved, bounds)


def nearest(value: float, bounds: Interval) -> float:
    """The number within the bounds that is nearest to a value, in steps or with :data:`DIGITS` digits."""
    if bounds.step:
        value = bounds.low + round((value - bounds.low) / bounds.step) * bounds.step
    else:
        value = float(f"{value:.{DIGITS}g}")
    return min(max(value, bounds.low), bounds.high)


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
