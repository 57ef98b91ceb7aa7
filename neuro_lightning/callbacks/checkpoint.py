"""Checkpoints from which a run goes on exactly as if it had not stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints, with two differences.

    ``last.ckpt`` is the last: it is written at every validation, where Lightning writes it only when the monitored
    metric has improved, so that a run would fall back to its best epoch when it is resumed.

    None is saved between an epoch's last step and its validation. With ``every_n_train_steps`` Lightning may save
    there, and a run that is resumed from such a checkpoint begins the next epoch: the validation, and what it would
    have chosen, is lost. Here this save waits for the epoch's end.
    """

    _waiting: tuple[Any, ...] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """A model that is fitted in closed form takes no steps, and is saved all the same."""
        super().setup(trainer, pl_module, stage)
        if self._last_global_step_saved == 0:
            self._last_global_step_saved = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the steps asked for, but for an epoch's last."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._waiting = (outputs, batch, batch_idx)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is best, and the last in any case."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the epochs asked for, and what waited."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            super().on_train_batch_end(trainer, pl_module, *waiting)
        if self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def _keep_last(self, trainer: pl.Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):  # also where this step is saved already
            self.current_score = self._monitor_candidates(trainer).get(self.monitor)  # Lightning: of the last best
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        """Nothing is deleted but a checkpoint in the run's own folder: a resumed file says what the one before was.

        Lightning compares the paths as they are written (``checkpoints/../../other``), deletes whole folders, and on
        other file systems whatever it is told.
        """
        path = Path(previous).resolve()
        own = path.parent == Path(self.dirpath).resolve() and path.suffix == self.FILE_EXTENSION and not path.is_dir()
        return own and super()._should_remove_checkpoint(trainer, previous, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With the last score, which a run that is resumed at its very end does not compute again."""
        super().load_state_dict(state_dict)
        self.current_score = state_dict.get("current_score")
