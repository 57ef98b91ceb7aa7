"""What a training step through the framework costs over the same network and batch in a bare PyTorch loop.

    python benchmarks/overhead.py [--epochs 12] [--threads 2]

The GRU on the shape of mc_maze_medium (188 trials, 140 + 40 bins of 5 ms, 114 + 38 neurons), batches of 64. The bare
loop does the same work: coordinated dropout, masked Poisson loss, gradient clipping, AdamW. Epochs of the two
alternate in one process, so that a noisy machine disturbs both alike; the figure is the ratio of the median epochs.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.seeds import StepSeed
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.loggers import MetricsCSV
from neuro_lightning.models.gru import GRU, GRUNet
from neuro_lightning.nn.masking import CoordinatedDropout
from neuro_lightning.optim import cosine
from neuro_lightning.run import quiet_libraries

TRIALS, BINS, FORWARD, N_IN, N_OUT, BATCH = 188, 140, 40, 114, 38, 64


def counts(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.03, shape).astype(np.uint8)


def trials(n: int) -> Trials:
    return Trials(
        counts(0, n, BINS, N_IN), counts(1, n, BINS, N_OUT), counts(2, n, FORWARD, N_IN), counts(3, n, FORWARD, N_OUT)
    )


class Shape(PopulationDataModule):
    """Random counts of mc_maze_medium's shape."""

    def load(self) -> Recording:
        """188 training trials."""
        return Recording("shape", 5, {"train": trials(TRIALS), "val": trials(4)}, np.arange(N_IN + N_OUT))


class Bare:
    """The same training, written out."""

    def __init__(self, data: Shape) -> None:
        torch.manual_seed(0)
        self.net = GRUNet(N_IN, N_IN + N_OUT, FORWARD, mean_rates=data.spec.mean_rates).train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=5e-3, weight_decay=1e-4)
        self.masking = CoordinatedDropout(0.27)
        self.targets = data.dataset("train", evaluate=False).counts.float()

    def epoch(self) -> float:
        """One epoch; returns its time in seconds."""
        start = time.perf_counter()
        for index in torch.randperm(TRIALS).tensor_split(-(-TRIALS // BATCH)):
            targets = self.targets[index]
            inputs, hidden = self.masking(targets[:, :BINS, :N_IN])
            scored = torch.ones_like(targets, dtype=torch.bool)
            scored[:, :BINS, :N_IN] = hidden
            log_rates = self.net(inputs)["log_rates"]
            loss = (F.poisson_nll_loss(log_rates, targets, reduction="none") * scored).sum() / scored.sum()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 200)
            self.optimizer.step()
        return time.perf_counter() - start


class Alternate(pl.Callback):
    """Times each epoch of the trainer and runs a bare epoch after it."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.framework, self.plain = [], []
        self.end = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the watch."""
        self.start = self.end or time.perf_counter()  # what lies between two epochs is the framework's too

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it, and let the bare loop run its epoch."""
        self.framework.append(time.perf_counter() - self.start)
        self.plain.append(self.bare.epoch())
        self.end = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    data = Shape(batch_size=BATCH)
    module = GRU(
        data.spec, hidden=64, layers=2, bidirectional=True, step_ms=None,
        input_dropout=0.5, layer_dropout=0.5, readout_dropout=0.5,
        masking=CoordinatedDropout(0.27),
        optimizer=functools.partial(torch.optim.AdamW, lr=5e-3, weight_decay=1e-4),
        scheduler=cosine,
    )  # fmt: skip
    alternate = Alternate(Bare(data))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=options.epochs + 2, callbacks=[StepSeed(0), StepClock(), alternate],
            logger=[MetricsCSV(folder)], enable_checkpointing=False, enable_model_summary=False,
            limit_val_batches=0, use_distributed_sampler=False, gradient_clip_val=200, log_every_n_steps=1,
            deterministic=True,
        )  # fmt: skip
        trainer.fit(module, data)
    steps = -(-TRIALS // BATCH)
    framework, plain = (1000 * statistics.median(x[2:]) / steps for x in (alternate.framework, alternate.plain))
    ratios = sorted(a / b for a, b in zip(alternate.framework[2:], alternate.plain[2:], strict=True))
    print(f"\nframework {framework:.1f} ms per step, bare loop {plain:.1f} ms per step ({options.threads} threads)")
    print(f"ratio of medians {framework / plain:.3f}; epoch by epoch {ratios[0]:.3f} to {ratios[-1]:.3f}, "
          f"median {statistics.median(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
