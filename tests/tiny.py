"""A recording in memory, with everything that a recording can have, small enough to train on in a second."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from neuro_lightning.callbacks.checkpoint import Checkpoint
from neuro_lightning.callbacks.seeds import StepSeed
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials

BINS, FORWARD, N_IN, N_OUT, CONDITIONS = 12, 3, 6, 4, 3


class Tiny(PopulationDataModule):
    """Uneven splits, NaN targets, forward bins, velocity, conditions, true rates and labelled test trials.

    Args:
        n_train: training trials.
        n_val: validation trials; there are as many test trials.
        heldout: False holds out no neurons: the model sees all of them.
        forward: False leaves out the forward bins.
        labels: True says two things of each trial: its ``kind``, text, of which validation knows one more than training
            and a trial nothing; and its ``size``, a number.
        poison: writes a number over a part of the recording: ``{"test": nan}`` over every array of the split,
            ``{"val.heldout": 1e30}`` over one.
        loader: see the base class.
    """

    def __init__(
        self,
        *,
        n_train: int,
        n_val: int,
        poison: dict[str, float],
        heldout: bool = True,
        forward: bool = True,
        labels: bool = False,
        **loader,
    ):
        super().__init__(**loader)
        self.heldout, self.forward, self.labels = heldout, forward, labels
        self.sizes, self.poison = {"train": n_train, "val": n_val, "test": n_val}, poison

    def load(self) -> Recording:
        rng = np.random.default_rng(0)
        splits = {name: make_trials(n, rng) for name, n in self.sizes.items()}
        psth = rng.gamma(2.0, 0.2, (CONDITIONS, BINS, N_IN + N_OUT))
        for trials in splits.values():
            if not self.heldout:
                trials.heldin = np.concatenate([trials.heldin, np.nan_to_num(trials.heldout)], axis=2)
                trials.heldin_forward = np.concatenate([trials.heldin_forward, trials.heldout_forward], axis=2)
                trials.heldout = trials.heldout_forward = None
            if not self.forward:
                trials.heldin_forward = trials.heldout_forward = None
                trials.rates = trials.rates[:, :BINS]
        info = {}
        if self.labels:
            info["labels"] = [("kind", ["apart", "ball", "cup"]), ("size", None)]
            for name, trials in splits.items():
                kind = (trials.behavior[:, 0, 0] > 0) + 0.0
                kind[:2] = (2 if name != "train" else 0), np.nan
                trials.labels = np.stack([kind, 5 + 2 * trials.behavior[:, 0, 1]], axis=1)
        for part, value in self.poison.items():
            poison(splits, part, value)
        ids = np.arange(N_IN + N_OUT)
        return Recording("tiny", 10, splits, ids, psth=psth, behavior_kind="velocity", simulated=True, info=info)


def make_trials(n: int, rng: np.random.Generator) -> Trials:
    """Spikes that follow a wave of random phase; a tenth of the held-out targets was not observed."""
    time = np.arange(BINS + FORWARD)[None, :, None] / 3
    phase = rng.uniform(0, 6, (n, 1, 1))
    rates = np.exp(np.sin(time + phase + np.arange(N_IN + N_OUT) % 3) - 0.7).astype(np.float32)
    counts = rng.poisson(rates).astype(np.float32)
    heldout = counts[:, :BINS, N_IN:].copy()
    heldout[rng.random(heldout.shape) < 0.1] = np.nan
    return Trials(
        heldin=counts[:, :BINS, :N_IN],
        heldout=heldout,
        heldin_forward=counts[:, BINS:, :N_IN],
        heldout_forward=counts[:, BINS:, N_IN:],
        behavior=np.concatenate([np.sin(time + phase), np.cos(time + phase)], axis=2)[:, :BINS],
        condition=np.arange(n) % CONDITIONS,
        rates=rates,
        row=np.arange(n),
    )


def poison(splits: dict[str, Trials], part: str, value: float) -> None:
    """Write ``value`` over one array of a split, or over all of its numbers."""
    split, _, name = part.partition(".")
    for array in [name] if name else ["heldin", "heldout", "heldin_forward", "heldout_forward", "behavior", "rates"]:
        getattr(splits[split], array)[...] = value


class Kill(pl.Callback):
    """Ends the process at once after a step, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Fail(pl.Callback):
    """Fails in one of a job's processes: before they meet, or after their second step."""

    def __init__(self, process: int, early: bool) -> None:
        self.process, self.early = process, early
        if early and os.environ.get("LOCAL_RANK", "0") == str(process):
            raise RuntimeError(f"process {process} has failed early")

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step == 2 and trainer.global_rank == self.process:
            raise RuntimeError(f"process {self.process} has failed at work")


class Told(pl.Callback):
    """One process is asked to end, as SLURM does it, in the middle of a step.

    Args:
        process: its rank.
        number: the signal's.
    """

    def __init__(self, process: int, number: int = signal.SIGTERM) -> None:
        self.process, self.number = process, number

    def on_train_batch_start(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step == 5 and trainer.global_rank == self.process:
            os.kill(os.getpid(), self.number)


class SeesGradients(pl.Callback):
    """Keeps the norm of the gradient of each step in ``norms``, of all runs."""

    norms: ClassVar[list[float]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


class AtSeed(pl.Callback):
    """Does something in the run of one seed, at a validation.

    Args:
        chosen: the seed of the run in which it is done.
        epoch: of the validation.
        what: ``spoil`` (weights that are no numbers), ``stop`` (end the training), ``fail``, or ``copy``: what a power
            cut would leave at this moment of the run whose member this is, or of the sweep, beside its folder.
    """

    def __init__(self, chosen: int, epoch: int, what: str) -> None:
        self.chosen, self.epoch, self.what = chosen, epoch, what

    def _is_now(self, trainer: pl.Trainer) -> bool:
        seed = next(callback.seed for callback in trainer.callbacks if isinstance(callback, StepSeed))
        return (seed, trainer.current_epoch) == (self.chosen, self.epoch)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._is_now(trainer):
            return
        if self.what == "fail":
            raise RuntimeError("failed, as it was to")
        if self.what == "copy" and "copy" not in Path(trainer.default_root_dir).resolve().parts:
            folder = Path(trainer.default_root_dir).resolve().parent
            run = folder.parent if folder.name == "members" else folder
            shutil.copytree(run, run.with_name("copy"), dirs_exist_ok=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._is_now(trainer):
            return
        if self.what == "spoil":
            for parameter in pl_module.parameters():
                parameter.data.fill_(np.nan)
        if self.what == "stop":
            trainer.should_stop = True


class Snapshot(Checkpoint):
    """Copies the run's folder after every checkpoint: what a power cut at this moment would leave behind."""

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        folder = Path(self.dirpath).parent
        snapshot = folder.with_name("snapshots") / Path(filepath).stem
        if not snapshot.exists():
            shutil.copytree(folder, snapshot)


class FullDisk(pl.Callback):
    """The disk is full from the second epoch on."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *_) -> None:
        if trainer.current_epoch == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")


class Recorder(Logger):
    """A logger that leaves ``recorded.json`` in a folder: the names of metrics, and the hyperparameters."""

    name, version = "recorder", 0

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path, self.seen = Path(folder) / "recorded.json", {"metrics": {}, "hyperparameters": {}}

    def log_hyperparams(self, params: dict) -> None:
        self.seen["hyperparameters"] |= params

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self.seen["metrics"] |= dict.fromkeys(metrics)
        self.path.write_text(json.dumps(self.seen, default=str))
