"""Settings of successive halving, which Ray's ASHA does (Li et al. 2020, "A system for massively parallel tuning")."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuro_lightning.errors import ConfigError


@dataclass(frozen=True)
class Halving:
    """After its first epochs, and whenever it has done ``factor`` times as many, a trial goes on if it is good enough.

    Good enough is the best ``1/factor`` of those that have come as far, when it comes there: no trial waits for others.

    Attributes:
        grace: share of all epochs that every trial gets.
        factor: how many times as many epochs the next comparison is at; one of so many goes on.
    """

    grace: float = 1 / 16
    factor: int = 4

    def milestones(self, epochs: int, every: int) -> list[int]:
        """The epochs at whose ends trials are compared, at validations, and the end of the training.

        Args:
            epochs: of the whole training.
            every: epochs from one validation to the next.

        Raises:
            ConfigError: there is no comparison before the end, or the factor is below 2.
        """
        if self.factor < 2 or self.factor != int(self.factor):
            raise ConfigError(f"hydra.sweeper.scheduler.factor={self.factor}: give a whole number, 2 or more")
        if not 0 < self.grace < 1:
            raise ConfigError(
                f"hydra.sweeper.scheduler.grace={self.grace}: give a share of trainer.max_epochs, such as 0.0625"
            )
        rungs = [math.ceil(self.grace * epochs / every) * every]
        while rungs[-1] * self.factor < epochs:
            rungs.append(rungs[-1] * self.factor)
        if rungs[0] >= epochs:
            raise ConfigError(
                f"trainer.max_epochs={epochs} has no validation before its end at which trials could be compared: "
                f"give less than trainer.check_val_every_n_epoch={every}"
            )
        return [*rungs, epochs]
