"""How long a training step takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytorch_lightning as pl


class StepClock(pl.Callback):
    """Keeps the time of each training step, from the arrival of the batch to the updated weights.

    Attributes:
        ms_per_step: median over the steps of the last epoch with more than one, ms; None before.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the times of earlier epochs once there are more than 100."""
        if len(self._times) > 100:
            self._times.clear()

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        steps = len(batch) if isinstance(batch, list) else 1  # a batch of the trainer's may hold several
        self._times.append((time.perf_counter() - self._start) / steps)

    @property
    def ms_per_step(self) -> float | None:
        """Median time of a step, ms."""
        return 1000 * statistics.median(self._times) if self._times else None
