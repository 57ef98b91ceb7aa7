"""Ends a training when the system asks for it, in all its processes at the same step, and queues SLURM's job again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from neuro_lightning.ranks import is_main_process


class StopOnSignal(pl.Callback):
    """On SIGTERM or SLURM's SIGUSR1, ends the training after the current step, in all processes at the same step.

    Lightning's own handlers let the processes exchange data while they are in the middle of another exchange, and wait
    for each other for ever. Here the handler sets a mark, and after every step the processes tell each other of it.
    After SIGUSR1 the main process asks SLURM to queue the job again, which then resumes in its folder.
    """

    def __init__(self) -> None:
        self.asked = self.again = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's handlers, which it removes itself at the end; submitit's are left to submitit."""
        self.asked = self.again = False
        if threading.current_thread() is not threading.main_thread() or "SUBMITIT_EXECUTOR" in os.environ:
            return
        signal.signal(signal.SIGTERM, self._note)
        if "SLURM_JOB_ID" in os.environ:
            signal.signal(signal.SIGUSR1, self._note)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End here, if any process was asked to."""
        if self._any(trainer, self.asked):
            if self._any(trainer, self.again) and is_main_process():
                requeue_slurm_job()
            raise SIGTERMException

    def _any(self, trainer: pl.Trainer, mine: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(mine, all=False) if trainer.world_size > 1 else mine

    def _note(self, number: int, *_: Any) -> None:
        self.asked, self.again = True, self.again or number == signal.SIGUSR1


def requeue_slurm_job() -> None:
    """Ask SLURM to queue this job again; where it will not, a warning says so."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # by its number, one task's name is that of the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        said = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        logging.getLogger(__name__).warning("scontrol requeue %s: %s", job, said)
