"""Seed every training step by its number."""

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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the model call this before each of several steps that it takes in one batch of the trainer's."""
        pl_module.before_step = lambda step: self.seed_step(step, trainer.global_rank)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Seed all of torch's generators."""
        if pl_module.automatic_optimization:
            self.seed_step(trainer.fit_loop.total_batch_idx, trainer.global_rank)

    def seed_step(self, step: int, rank: int) -> None:
        """Seed all of torch's generators for a step of a process.

        ``torch.manual_seed`` does more: without a GPU it stores at each step, with a traceback, a call for the case
        that one is initialized later, which takes longer than a step of a small network.
        """
        seed = (self.seed * 1_000_003 + step * 1_009 + rank) % 2**63
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        if torch.backends.mps.is_available():
            torch.mps.manual_seed(seed)
