"""Randomness that does not depend on what came before."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch


class StepSeed(pl.Callback):
    """Seeds every training step by (seed, step, process), so that a resumed run draws the same dropout masks.

    Restoring a generator's state is not enough: it is advanced by whatever else ran. A pure function of the step is.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed all of torch's generators."""
        step = self.seed * 1_000_003 + trainer.fit_loop.total_batch_idx * 1_009 + trainer.global_rank
        torch.manual_seed(step % 2**63)
