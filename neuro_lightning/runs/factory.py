"""From a config to the model and the trainer of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    LambdaCallback,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from neuro_lightning.callbacks.checkpoint import AtomicCheckpoints
from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.callbacks.progress import FitProgress
from neuro_lightning.callbacks.signals import StopOnSignal
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import Identity, identify, identify_sessions
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.loggers.guard import warn_on_errors
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.private_names import count_epochs
from neuro_lightning.ranks import count_launched_processes
from neuro_lightning.runs.adapt import adapt
from neuro_lightning.runs.distributed import Job, JobDDPStrategy
from neuro_lightning.runs.stitching import start_in_common_space
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.registry import find_target
from neuro_lightning.settings.settings import TrainSettings

OBSERVERS = (DeviceStatsMonitor, Figures, FitProgress, LearningRateMonitor, ModelSummary, ProgressBar, StepClock)
OBSERVER_HOOKS = (
    "setup",
    "teardown",
    "draw",
    "draw_learning_curve",
    *(n for n in dir(pl.Callback) if n.startswith("on_")),
)


def build_data(settings: TrainSettings) -> PopulationDataModule:
    """The data module of the settings, its recording read; jobs of a sweep in one process share what they read.

    Raises:
        DataError: the data are missing, damaged, or not what the settings say.
    """
    data = instantiate(settings.data, trusted=settings.trusted)
    if settings.group is not None:
        data.share_recording(settings.config["data"])
    data.prepare_data()
    return data


def build_model(settings: TrainSettings, data: PopulationDataModule) -> PopulationModule:
    """The model of the settings, for these data, with the recipe that its checkpoints carry.

    Raises:
        ConfigError: the model cannot run on these data.
    """
    check_match(find_target(settings.model._target_, settings.trusted), data.spec)
    model = instantiate(settings.model, trusted=settings.trusted, spec=data.spec)
    if settings.init is not None:
        adapt(model, data, settings)
    elif settings.resume is None and getattr(model, "readin_start", "random") == "conditions":
        start_in_common_space(model, data)
    config = {key: settings.config[key] for key in ("model", "data")}
    model.recipe = {**config, "info": data.recording.info, "identity": identify_data(data, config["data"])}
    return model


def identify_data(data: PopulationDataModule, config: dict[str, Any]) -> Identity:
    """What identifies the recording of a data module, or each of several."""
    if data.spec.sessions:
        return identify_sessions({name: part.recording for name, part in data.by_session().items()}, config)
    return identify(data.recording, config)


SUITED = {
    "spikes": "model=gru or model=ndt",
    "traces": "model=ndt or model=gru",
    "images": "model=core_readout or model=cnn",
}
"""Models to begin with, by the kind of the data."""


def check_match(model: type[PopulationModule], spec: DataSpec) -> None:
    """A model that is made for other data is refused in one line.

    Args:
        model: the model's class.
        spec: the data's description.

    Raises:
        ConfigError: saying why, and which models take such data.
    """
    reason = f"it takes {' or '.join(model.kinds)}"
    if spec.kind in model.kinds:
        reasons = [model.refuse(part) for part in spec.parts]
        if spec.sessions and not model.takes_sessions:
            reasons = ["it is fitted to one recording, and has no core that several could share"]
        reason = next((reason for reason in reasons if reason), None)
    if reason is not None:
        others = f"; take such as {SUITED[spec.kind]}" if spec.kind not in model.kinds else ""
        raise ConfigError(f"{model.__name__} cannot run on {spec.dataset} ({spec.kind}): {reason}{others}")


def build_trainer(
    settings: TrainSettings, job: Job, loggers: list[Any], on_train_start: Callable[..., None]
) -> pl.Trainer:
    """Lightning's trainer with the callbacks of the settings.

    Args:
        settings: of the run.
        job: the run's processes.
        loggers: of the run.
        on_train_start: is called when the training begins.

    Raises:
        ConfigError: the trainer cannot be had on this machine.
    """
    callbacks = [*build_callbacks(settings), LambdaCallback(on_train_start=on_train_start)]
    given = {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": str(settings.folder)}
    return make_trainer(settings, job, **given)


def build_callbacks(settings: TrainSettings) -> list[pl.Callback]:
    """The callbacks of the settings, in their order; what only watches warns when it fails."""
    nodes = [node for node in (settings.callbacks or {}).values() if node]
    callbacks = [instantiate(node, trusted=settings.trusted) for node in nodes]
    return [
        warn_on_errors(callback, OBSERVER_HOOKS) if isinstance(callback, OBSERVERS) else callback
        for callback in callbacks
    ]


def make_trainer(settings: TrainSettings, job: Job, **given: Any) -> pl.Trainer:
    """The trainer of the settings, with what is given in place of what they say.

    Raises:
        ConfigError: the trainer cannot be had on this machine.
    """
    try:
        trainer = instantiate(settings.trainer, trusted=settings.trusted, **given)
    except (MisconfigurationException, ModuleNotFoundError) as error:  # the second without the library of a TPU, say
        said = str(error).splitlines()[0]
        mend = "give trainer.devices=1 or more" if "devices=" in said else "On this machine, try trainer=cpu"
        raise ConfigError(f"trainer: {said} {mend}") from error
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpoints()
    # with max_steps Lightning takes a resumed training to be in the middle of an epoch, wherever it is: it would count
    # its epochs and batches from 0, and see other trials and dropout masks than an uninterrupted training
    count_epochs(trainer)
    if ours := isinstance(trainer.strategy, JobDDPStrategy):
        trainer.strategy.launcher.job = job
    # Lightning itself would start the others by repeating the command line
    if trainer.world_size > 1 and not ours and count_launched_processes() == 1:
        raise ConfigError(
            f"trainer.devices={settings.trainer.devices}: several processes are asked for by trainer=ddp on GPUs, or "
            "trainer=ddp_cpu"
        )
    if ours or "SLURM_JOB_ID" in os.environ:
        trainer.callbacks.append(StopOnSignal())
    return trainer
