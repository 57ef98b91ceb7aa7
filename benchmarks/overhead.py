"""What an epoch through the framework costs over the same network and batches in a bare PyTorch loop.

    python benchmarks/overhead.py [--model gru|cnn|hsm] [--epochs 12] [--threads 2] [--steps-at-once 1] [--cpu-time]

* ``gru``: the GRU on the shape of mc_maze_medium (188 trials, 140 + 40 bins of 5 ms, 114 + 38 neurons), batches of 64.
* ``cnn``: the UWNDC19 winner's network on 531 color images of 48 x 48 and 18 neurons with missing responses, all of
  them in one batch, their saturation drawn anew in each epoch.
* ``hsm``: the hierarchical structural model on the shape of Antolik's region 1 (1800 images of 31 x 31, 103 neurons),
  batches of 16: steps of a millisecond, of which the framework takes as many at once as ``data=antolik_v1`` says.

The bare loop does the same work: the same network, coordinated dropout or distortion of the images, masked loss and
penalties, gradient clipping, optimizer. Epochs of the two alternate in one process, so that a noisy machine disturbs
both alike; the figure is the ratio of the median epochs. On a very busy machine measure processor time instead.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.seeds import StepSeed
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.module import ImageDataModule, PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.loggers.building import MetricsCSV
from neuro_lightning.models.gru import GRU
from neuro_lightning.nn.augment import Saturation
from neuro_lightning.nn.masking import CoordinatedDropout
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.runs.train import quiet_libraries
from neuro_lightning.settings.config import instantiate

CONF = str(Path(__file__).resolve().parents[1] / "conf")
CLIP = 200.0


@dataclass
class Problem:
    """A network, what it learns from, and its training.

    Attributes:
        data: serves it to the framework.
        module: the framework's model; the bare loop trains a network of its own of the same kind.
        net: that network.
        loss: (network, indices of a batch, epoch) -> loss, written out.
        optimizer: called with the parameters.
    """

    data: PopulationDataModule
    module: pl.LightningModule
    net: nn.Module
    loss: Callable[[nn.Module, Tensor, int], Tensor]
    optimizer: Callable


# ---- the three problems


BINS, FORWARD, N_IN, N_OUT = 140, 40, 114, 38


def counts(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.03, shape).astype(np.uint8)


def trials(n: int) -> Trials:
    return Trials(
        counts(0, n, BINS, N_IN), counts(1, n, BINS, N_OUT), counts(2, n, FORWARD, N_IN), counts(3, n, FORWARD, N_OUT)
    )


class Spikes(PopulationDataModule):
    """Random counts of mc_maze_medium's shape."""

    def load(self) -> Recording:
        """188 training trials."""
        return Recording("shape", 5, {"train": trials(188), "val": trials(4)}, np.arange(N_IN + N_OUT))


def gru(steps_at_once: int | None) -> Problem:
    data = Spikes(batch_size=64, steps_at_once=steps_at_once or 1)
    masking = CoordinatedDropout(0.27)
    optimizer = functools.partial(torch.optim.AdamW, lr=5e-3, weight_decay=1e-4)
    module, twin = (
        GRU(
            data.spec, hidden=64, layers=2, bidirectional=True, step_ms=None, layer_dropout=0.5,
            readin=ReadInSettings(dropout=0.5), readout=ReadoutSettings(dropout=0.5),
            masking=CoordinatedDropout(0.27), optimizer=optimizer,
        )
        for _ in range(2)
    )  # fmt: skip
    everything = data.dataset("train", evaluate=False)[list(range(188))]["targets"].float()

    def loss(net: nn.Module, index: Tensor, epoch: int) -> Tensor:
        targets = everything[index]
        inputs, hidden = masking(targets[:, :BINS, :N_IN])
        scored = torch.ones_like(targets, dtype=torch.bool)
        scored[:, :BINS, :N_IN] = hidden
        nll = F.poisson_nll_loss(net(inputs)["log_rates"], targets, reduction="none")
        return (nll * scored).sum() / scored.sum()

    return Problem(data, module, twin.net, loss, optimizer)


class Images(ImageDataModule):
    """Random images and responses.

    Args:
        shape: (C, H, W).
        n_train: training images.
        neurons: N.
        missing: share of responses that were not observed.
        loader: see the base class.
    """

    def __init__(self, shape: Sequence[int], n_train: int, neurons: int, missing: float, **loader) -> None:
        super().__init__(**loader)
        self.shape, self.n_train, self.neurons, self.missing = shape, n_train, neurons, missing

    def load(self) -> Recording:
        """The images and a few more to validate with."""
        rng = np.random.default_rng(0)
        splits = {}
        for name, n in {"train": self.n_train, "val": 4}.items():
            responses = rng.gamma(1.0, 1.0, (n, self.neurons)).astype(np.float32)
            responses[rng.random(responses.shape) < self.missing] = np.nan
            splits[name] = ImageTrials(rng.random((n, *self.shape), dtype=np.float32), responses)
        return Recording("shape", 0, splits, np.arange(self.neurons), kind="images")


def cnn(steps_at_once: int | None) -> Problem:
    saturation = Saturation(0.7, 1.3)
    data = Images((3, 48, 48), 531, 18, 0.28, batch_size=531, augment=[saturation], steps_at_once=steps_at_once or 1)
    config = configured("model=cnn")
    module, twin = (instantiate(config.model, spec=data.spec) for _ in range(2))
    dataset = data.dataset("train", evaluate=False)

    def loss(net: nn.Module, index: Tensor, epoch: int) -> Tensor:
        rates = net(saturation(dataset.images[index], index, epoch))["rates"]
        mask = dataset.mask[index]
        return ((rates - dataset.responses[index]).square() * mask).sum() / mask.sum()

    return Problem(data, module, twin.net, loss, instantiate(config.model.optimizer))


def hsm(steps_at_once: int | None) -> Problem:
    config = configured("model=hsm", "data=antolik_v1")
    steps_at_once = steps_at_once or config.data.steps_at_once
    data = Images((1, 31, 31), 1800, 103, 0.0, batch_size=16, steps_at_once=steps_at_once)
    module, twin = (instantiate(config.model, spec=data.spec) for _ in range(2))
    dataset, means = data.dataset("train", evaluate=False), torch.tensor(data.spec.mean_rates)

    def loss(net: nn.Module, index: Tensor, epoch: int) -> Tensor:
        output, responses = net(dataset.images[index]), dataset.responses[index]
        nll = output["rates"] - responses * (output["rates"] + 1e-6).log()
        return (nll / means).sum() / len(index) + sum(output["losses"].values())

    return Problem(data, module, twin.net, loss, instantiate(config.model.optimizer))


def configured(*overrides: str):
    with initialize_config_dir(CONF):
        return compose("train", overrides=[*overrides, "scheduler@model.scheduler=none"])


# ---- the comparison


class Bare:
    """The same training, written out."""

    def __init__(self, problem: Problem, now: Callable[[], float]) -> None:
        self.problem, self.now, self.epochs = problem, now, 0
        self.net = problem.net.train()
        self.optimizer = problem.optimizer(self.net.parameters())
        self.n, self.batch_size = len(problem.data.recording.splits["train"]), problem.data.batch_size

    def epoch(self) -> float:
        """One epoch; returns its time in seconds."""
        start = self.now()
        for index in torch.randperm(self.n).tensor_split(-(-self.n // self.batch_size)):
            loss = self.problem.loss(self.net, index, self.epochs)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            self.optimizer.step()
        self.epochs += 1
        return self.now() - start


class Alternate(pl.Callback):
    """Times each epoch of the trainer and runs a bare epoch after it."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.framework, self.plain = [], []
        self.end = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the watch."""
        self.start = self.end or self.bare.now()  # what lies between two epochs is the framework's too

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it, and let the bare loop run its epoch."""
        self.framework.append(self.bare.now() - self.start)
        self.plain.append(self.bare.epoch())
        self.end = self.bare.now()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["gru", "cnn", "hsm"], default="gru")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps-at-once", type=int, help="what the framework takes together; as configured without")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, all threads together")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    quiet_libraries()
    problem = {"gru": gru, "cnn": cnn, "hsm": hsm}[options.model](options.steps_at_once)
    alternate = Alternate(Bare(problem, time.process_time if options.cpu_time else time.perf_counter))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=options.epochs + 2, callbacks=[StepSeed(0), StepClock(), alternate],
            logger=[MetricsCSV(folder)], enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, limit_val_batches=0, use_distributed_sampler=False, gradient_clip_val=CLIP,
            log_every_n_steps=1, deterministic=True,
        )  # fmt: skip
        trainer.fit(problem.module, problem.data)
    steps = -(-alternate.bare.n // problem.data.batch_size)
    framework, plain = (1000 * statistics.median(x[2:]) / steps for x in (alternate.framework, alternate.plain))
    ratios = sorted(a / b for a, b in zip(alternate.framework[2:], alternate.plain[2:], strict=True))
    print(f"\n{options.model}: framework {framework:.2f} ms per step, bare loop {plain:.2f} ms per step "
          f"({steps} steps in an epoch, {problem.data.steps_at_once} at once, {options.threads} threads)")  # fmt: skip
    print(f"ratio of medians {framework / plain:.3f}; epoch by epoch {ratios[0]:.3f} to {ratios[-1]:.3f}, "
          f"median {statistics.median(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
