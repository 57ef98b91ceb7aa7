"""Pause a run after a number of epochs, to be resumed exactly later."""

from __future__ import annotations

import math

import pytorch_lightning as pl

from neuro_lightning.errors import ConfigError


class Pause(pl.Callback):
    """Ends a training after an epoch and leaves ``trainer.max_epochs`` and schedules as they are.

    Searches that train their trials in parts use it: a generation resumes a run from its last checkpoint and pauses it
    again.

    Args:
        until: epochs done in all when the run pauses; None never pauses, nor does the run's own last epoch.

    Attributes:
        ended: ``paused`` once it has, else None.

    Raises:
        ConfigError: no validation falls on this epoch, so that there would be no checkpoint to resume from.
    """

    def __init__(self, until: int | None = None) -> None:
        if until is not None and until < 1:
            raise ConfigError(f"sweep.until={until}: give a number of epochs, 1 or more")
        self.until = until
        self.ended: str | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that there will be a checkpoint."""
        self.ended = None
        every = trainer.check_val_every_n_epoch
        if self._pauses(trainer) and (not every or self.until % every):
            raise ConfigError(
                f"sweep.until={self.until}: a run can pause only after a validation; give a multiple of "
                f"trainer.check_val_every_n_epoch={every}"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pause at once a run that was resumed from this epoch or a later one."""
        if trainer.current_epoch >= (self.until or math.inf) and self._pauses(trainer):
            self.ended = "paused"
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop here, if this is the epoch."""
        if self._pauses(trainer) and trainer.current_epoch + 1 >= self.until:
            self.ended = "paused"
            trainer.should_stop = True

    def _pauses(self, trainer: pl.Trainer) -> bool:
        over = trainer.max_epochs
        return self.until is not None and (over in (None, -1) or self.until < over)
