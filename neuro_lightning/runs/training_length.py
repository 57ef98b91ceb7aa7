"""How long a short recording trains: by steps of the optimizer, as epochs of few trials are few steps."""

from __future__ import annotations

import math

from omegaconf import DictConfig, OmegaConf

from neuro_lightning.data.module import PopulationDataModule


def lengthen_short_training(cfg: DictConfig, data: PopulationDataModule) -> bool:
    """Raise ``epochs`` until the training has ``data.least_steps`` steps, and say so in a line.

    A number of epochs or steps that was given (``trainer.max_epochs``, ``trainer.max_steps``) is kept, and so is that
    of a search's trials, which are compared epoch by epoch.

    Args:
        cfg: the run's config, which is changed.
        data: of the run, with the number of its training trials.

    Returns:
        Whether the config was changed.
    """
    given = not OmegaConf.is_interpolation(cfg.trainer, "max_epochs") or cfg.trainer.get("max_steps", -1) != -1
    in_steps = cfg.model.get("optimizer") is not None  # other models are fitted at once
    if data.least_steps is None or given or not in_steps or cfg.sweep.trial is not None:
        return False
    trials = len(data.recording.splits["train"])
    batches = math.ceil(trials / data.batch_size)
    steps = math.ceil(batches / cfg.trainer.get("accumulate_grad_batches", 1))
    epochs = math.ceil(data.least_steps / steps)
    if epochs <= cfg.epochs:
        return False
    print(f"{trials} training trials are {steps} steps in an epoch: {epochs} epochs in place of {cfg.epochs}, for "
          f"data.least_steps={data.least_steps} (trainer.max_epochs=N for another number)")  # fmt: skip
    cfg.epochs = epochs
    return True
