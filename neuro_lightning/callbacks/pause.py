"""A run that rests after so many epochs, to go on later exactly as if it had not."""

from __future__ import annotations

import math

import pytorch_lightning as pl

from neuro_lightning.errors import ConfigError


class Pause(pl.Callback):
    """Ends a training after an epoch, without its being over: ``trainer.max_epochs`` and schedules stay as they are.

    Searches that give their trials little by little train so: a generation is a run that goes on from its last
    checkpoint and rests again.

    Args:
        until: epochs done in all when the run rests; None never does, nor does the run's own last epoch.

    Attributes:
        ended: ``paused`` once it has, else None.

    Raises:
        ConfigError: no validation falls on this epoch, so that there would be no checkpoint to go on from.
    """

    def __init__(self, until: int | None = None) -> None:
        if until is not None and until < 1:
            raise ConfigError(f"sweep.until={until}: give a number of epochs, 1 or more")
        self.until = until
        self.ended: str | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See that there will be a checkpoint."""
        self.ended = None
        every = trainer.check_val_every_n_epoch
        if self._rests(trainer) and (not every or self.until % every):
            raise ConfigError(
                f"sweep.until={self.until}: a run rests after a validation; give a multiple of "
                f"trainer.check_val_every_n_epoch={every}"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rest at once, if the run has come here from a checkpoint as late as this."""
        if trainer.current_epoch >= (self.until or math.inf) and self._rests(trainer):
            self.ended = "paused"
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop here, if this is the epoch."""
        if self._rests(trainer) and trainer.current_epoch + 1 >= self.until:
            self.ended = "paused"
            trainer.should_stop = True

    def _rests(self, trainer: pl.Trainer) -> bool:
        over = trainer.max_epochs
        return self.until is not None and (over in (None, -1) or self.until < over)
