"""Workers that die."""

import os
import signal
from pathlib import Path

import pytorch_lightning as pl


class DieOnce(pl.Callback):
    """Kills its process after a step, as somebody's `kill -9` would, unless the file says that it has been done.

    Args:
        step: the step.
        mark: a file.
    """

    def __init__(self, step: int, mark: str) -> None:
        self.step, self.mark = step, Path(mark)

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step == self.step and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class DieAlways(pl.Callback):
    """Kills its process at once, where the model has so many units.

    Args:
        hidden: the units.
    """

    def __init__(self, hidden: int) -> None:
        self.hidden = hidden

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        if pl_module.recipe["model"]["hidden"] == self.hidden:
            os.kill(os.getpid(), signal.SIGKILL)
