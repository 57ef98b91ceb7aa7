"""Ends a training of several processes when the system asks for it, in all of them at the same step."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException


class EndTogether(pl.Callback):
    """Takes note of SIGTERM, and of SLURM's SIGUSR1, and ends the training after the step, in all processes alike.

    Lightning's own handlers let the processes exchange data while they are in the middle of another exchange, and wait
    for each other for ever. Here the handler sets a mark, and after every step the processes tell each other of it.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's handlers, which it removes itself at the end; submitit's are left to submitit."""
        self.asked = False
        if threading.current_thread() is not threading.main_thread() or "SUBMITIT_EXECUTOR" in os.environ:
            return
        signal.signal(signal.SIGTERM, self._note)
        if "SLURM_JOB_ID" in os.environ:
            signal.signal(signal.SIGUSR1, self._note)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End here, if any process was asked to."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            raise SIGTERMException

    def _note(self, *_: Any) -> None:
        self.asked = True
