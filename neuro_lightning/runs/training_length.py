"""How long a short recording trains: by steps of the optimizer, as epochs of few trials are few steps."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import OmegaConf

from neuro_lightning.artifacts.lines import say
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.settings.settings import TrainSettings


def epochs_of_short_training(settings: TrainSettings, data: PopulationDataModule) -> dict[str, Any]:
    """``epochs`` for a training of ``data.least_steps`` steps, where the settings have fewer; a line says so.

    A run that starts with a trained core (``init``) has ``adapt.least_steps`` in their place.

    A number of epochs or steps that was given (``trainer.max_epochs``, ``trainer.max_steps``) is kept, and so is that
    of a search's trials, which are compared epoch by epoch.

    Args:
        settings: of the run.
        data: of the run, with the number of its training trials.

    Returns:
        The key to change and its value; empty where nothing changes.
    """
    trainer = settings.trainer
    given = not OmegaConf.is_interpolation(settings.source.trainer, "max_epochs") or trainer.get("max_steps", -1) != -1
    in_steps = settings.model.get("optimizer") is not None  # other models are fitted at once
    if data.least_steps is None or given or not in_steps or settings.sweep.trial is not None:
        return {}
    trials = data.count_training()
    steps = math.ceil(data.count_batches() / trainer.get("accumulate_grad_batches", 1))
    key, least = "data.least_steps", data.least_steps
    if settings.init is not None:
        key, least = "adapt.least_steps", settings.adapt.least_steps
    epochs = math.ceil(least / steps)
    if epochs <= settings.epochs:
        return {}
    some = f"{steps} step" if steps == 1 else f"{steps} steps"
    say(f"{trials} training trials are {some} in an epoch: {epochs} epochs in place of {settings.epochs}, for "
        f"{key}={least} (trainer.max_epochs=N for another number)")  # fmt: skip
    return {"epochs": epochs}
