"""From a config to the model and the trainer of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import DeviceStatsMonitor, LearningRateMonitor, ModelSummary, ProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from neuro_lightning.callbacks.checkpoint import AtomicCheckpoints
from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.callbacks.progress import FitProgress
from neuro_lightning.callbacks.signals import StopOnSignal
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import identify
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.loggers.guard import guarded
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.private_names import count_epochs
from neuro_lightning.ranks import started_together
from neuro_lightning.runs.distributed import JobDDPStrategy
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.registry import find

ONLY_WATCH = (DeviceStatsMonitor, Figures, FitProgress, LearningRateMonitor, ModelSummary, ProgressBar, StepClock)
HOOKS = ("setup", "teardown", "draw", "draw_learning_curve", *(n for n in dir(pl.Callback) if n.startswith("on_")))


def build_model(cfg: DictConfig, config: dict[str, Any], data: PopulationDataModule) -> PopulationModule:
    """The model of the config, for these data, with the recipe that its checkpoints carry.

    Raises:
        ConfigError: the model cannot run on these data.
    """
    check_match(find(cfg.model._target_, cfg.trusted or ()), data.spec)
    model = instantiate(cfg.model, trusted=cfg.trusted, spec=data.spec)
    model.recipe = {
        "model": config["model"],
        "data": config["data"],
        "info": data.recording.info,
        "identity": identify(data.recording, config["data"]),
    }
    return model


def check_match(model: type[PopulationModule], spec: DataSpec) -> None:
    """A model that is made for other data is refused in one line.

    Args:
        model: the model's class.
        spec: the data's description.

    Raises:
        ConfigError: saying why, and which models take such data.
    """
    reason = model.refuse(spec) if spec.kind in model.kinds else f"it takes {' or '.join(model.kinds)}"
    if reason is not None:
        raise ConfigError(f"{model.__name__} cannot run on {spec.dataset} ({spec.kind}): {reason}")


def build_trainer(cfg: DictConfig, loggers: list[Any], output: Path) -> pl.Trainer:
    """Lightning's trainer with the config's callbacks.

    Raises:
        ConfigError: the trainer cannot be had on this machine.
    """
    return make_trainer(cfg, callbacks=build_callbacks(cfg), logger=loggers or False, default_root_dir=str(output))


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """The config's callbacks, in its order; those that only watch warn where they would raise."""
    callbacks = [instantiate(node, trusted=cfg.trusted) for node in (cfg.callbacks or {}).values() if node]
    return [guarded(callback, HOOKS) if isinstance(callback, ONLY_WATCH) else callback for callback in callbacks]


def make_trainer(cfg: DictConfig, **given: Any) -> pl.Trainer:
    """The config's trainer, with what is given in place of what it says.

    Raises:
        ConfigError: the trainer cannot be had on this machine.
    """
    try:
        trainer = instantiate(cfg.trainer, trusted=cfg.trusted, **given)
    except (MisconfigurationException, ModuleNotFoundError) as error:  # the second without the library of a TPU, say
        said = str(error).splitlines()[0]
        raise ConfigError(f"trainer: {said} On this machine, try trainer=cpu") from error
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpoints()
    # with max_steps Lightning takes a resumed training to be in the middle of an epoch, wherever it is: it would count
    # its epochs and batches anew, and see other trials and other dropout masks than the training that went through
    count_epochs(trainer)
    ours = isinstance(trainer.strategy, JobDDPStrategy)
    if trainer.world_size > 1 and not ours and started_together() == 1:  # Lightning would repeat the command line
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: several processes are asked for by trainer=ddp on GPUs, or "
            "trainer=ddp_cpu"
        )
    if ours or "SLURM_JOB_ID" in os.environ:
        trainer.callbacks.append(StopOnSignal())
    return trainer
