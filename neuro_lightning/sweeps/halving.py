"""Settings of successive halving, which Ray's ASHA does (Li et al. 2020, "A system for massively parallel tuning")."""

from __future__ import annotations

from dataclasses import dataclass

from neuro_lightning.errors import ConfigError


@dataclass(frozen=True)
class Halving:
    """After its first epochs, and whenever it has done ``factor`` times as many, a trial goes on if it is good enough.

    Good enough is the best ``1/factor`` of those that have come as far, when it comes there: no trial waits for others.

    Attributes:
        grace_epochs: epochs that every trial gets.
        factor: how many times as many epochs the next comparison is at; one of so many goes on.
    """

    grace_epochs: int
    factor: int = 4

    def milestones(self, epochs: int) -> list[int]:
        """The epochs at whose ends trials are compared, and the end of the training.

        Raises:
            ConfigError: there is no comparison before the end, or the factor is below 2.
        """
        if self.factor < 2:
            raise ConfigError(f"hydra.sweeper.scheduler.factor={self.factor}: give 2 or more")
        if not 1 <= self.grace_epochs < epochs:
            raise ConfigError(
                f"hydra.sweeper.scheduler.grace_epochs={self.grace_epochs}: give 1 or more, and less than "
                f"trainer.max_epochs={epochs}"
            )
        rungs = [self.grace_epochs]
        while rungs[-1] * self.factor < epochs:
            rungs.append(rungs[-1] * self.factor)
        return [*rungs, epochs]
