"""The final fit: a new model, trained on training and validation trials together as validation said."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, DeviceStatsMonitor, EarlyStopping, LearningRateMonitor

from neuro_lightning.artifacts.checkpoint_files import REFIT
from neuro_lightning.artifacts.lines import say
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.callbacks.pause import Pause
from neuro_lightning.callbacks.prune import Prune
from neuro_lightning.data.join_splits import check_joinable, join_train_and_val
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.sessions import Sessions
from neuro_lightning.display.table import relative
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.metrics.session_scores import with_means
from neuro_lightning.models.base import PopulationModule, plateau_scores
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.distributed import Job
from neuro_lightning.runs.evaluation import evaluate, network_predictor
from neuro_lightning.runs.factory import build_callbacks, build_model, identify_data, make_trainer
from neuro_lightning.runs.together import join, wait_for_others
from neuro_lightning.settings.registry import find_target
from neuro_lightning.settings.settings import TrainSettings

NOT_IN_REFIT = (Checkpoint, DeviceStatsMonitor, EarlyStopping, Figures, LearningRateMonitor, Pause, Prune)
REFIT_TRAINER = {
    "logger": False, "enable_checkpointing": False, "limit_val_batches": 0, "num_sanity_val_steps": 0,
    "min_epochs": None, "min_steps": None, "max_time": None,
}  # fmt: skip


def refit_best(
    settings: TrainSettings, job: Job, data: PopulationDataModule, best: Path | None
) -> dict[str, Any] | None:
    """The final fit on train and val, where it is asked for; one of an earlier training does not outlive this one.

    If it is interrupted, the training counts as finished: ``resume=`` repeats the whole refit.

    Raises:
        CheckpointError: ``refit=true``, and no best checkpoint tells the number of steps.
    """
    if best is not None and is_main_process():
        best.with_name(REFIT).unlink(missing_ok=True)
    if not settings.refit:
        return None
    if best is None:
        raise CheckpointError("refit=true: no best.ckpt was saved in this training that could tell the number of steps")
    refitted = refit(settings, job, data, best)
    say(f"refit       {relative(refitted['checkpoint'])} ({refitted['seconds']:.0f} s)")
    return refitted


def refit(settings: TrainSettings, job: Job, data: PopulationDataModule, best: Path) -> dict[str, Any]:
    """Train a new model on train and val together for as many steps as the best checkpoint had, into ``refit.ckpt``.

    The new model has the seed, and so the first weights, of the one that was validated, and takes its path again: the
    same schedule over the steps of the whole run, stopped after the chosen number of optimizer steps. Steps, not
    passes over the data, are what validation has chosen: schedules, warm-ups and averages count them. As ramps and
    maskings count epochs, an epoch keeps its number of steps as well: its batches grow by the validation trials' share,
    so that each trial is seen as often as before, too.

    Nothing is validated, and nothing is logged: the run's curves and its objective stay those of ``best.ckpt``.
    A plateau schedule gets the scores of the first training's validations again.

    Args:
        settings: of the run.
        job: the run's processes.
        data: the run's data; its tensors are freed.
        best: the best checkpoint, beside which the new one is saved.

    Returns:
        ``steps``, ``trials``, ``checkpoint``, ``seconds`` and ``metrics`` of labelled test trials, for ``run.json``.

    Raises:
        NeuroError: training and validation trials cannot be joined.
    """
    begin = time.perf_counter()
    chosen = read_checkpoint(best)
    steps, path = chosen["global_step"], best.with_name(REFIT)
    seen = plateau_scores(chosen)
    joint = joint_data(data)
    trials = joint.count_trials("train")
    say(f"\nRefit: a new model on {trials} trials, training and validation together, for {steps} steps")
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    model = build_model(settings.changed({"resume": None}), joint)  # a resumed run's new model begins as the first did
    model.recipe["fitted_on"] = ["train", "val"]
    model.recipe["identity"] = identify_data(data, settings.config["data"])  # with its splits as they were
    join(settings, model, joint, fit=1)
    callbacks = [callback for callback in build_callbacks(settings) if not isinstance(callback, NOT_IN_REFIT)]
    trainer = make_trainer(
        settings,
        job,
        callbacks=[*callbacks, RepeatChosenTraining(steps, seen)],
        default_root_dir=str(best.parent),
        **REFIT_TRAINER,
    )
    trainer.fit(model, datamodule=joint)
    wait_for_others()
    trainer.save_checkpoint(path, weights_only=True)
    scores = {}
    if is_main_process() and "test" in data.references():
        scores = {
            f"test/{name}": value for name, value in test_scores(model, data, trainer.strategy.root_device).items()
        }
    seconds = round(time.perf_counter() - begin, 3)
    return {
        "steps": trainer.global_step,
        "trials": trials,
        "checkpoint": str(path),
        "seconds": seconds,
        "metrics": scores,
    }


def test_scores(model: PopulationModule, data: PopulationDataModule, device: torch.device) -> dict[str, float]:
    """The scores of labelled test trials, also of several sessions."""
    found = {
        name: evaluate(network_predictor(net, device), part, "test")
        for (name, part), net in zip(data.by_session().items(), model.networks, strict=True)
        if "test" in part.references()
    }
    return with_means(found) if data.spec.sessions else found[""]


def check_refit(settings: TrainSettings, model: PopulationModule, data: PopulationDataModule) -> None:
    """What cannot be refitted is said before the training, not after it.

    Raises:
        ConfigError: nothing is chosen by validation, or more than the number of steps.
        DataError: training and validation trials cannot be joined.
    """
    named = [find_target(node._target_, settings.trusted) for node in (settings.callbacks or {}).values() if node]
    if not any(issubclass(callback, Checkpoint) for callback in named):
        raise ConfigError("refit=true takes the number of steps from best.ckpt: give callbacks=default or minimal")
    if settings.trainer.get("overfit_batches"):
        raise ConfigError("refit=true: trainer.overfit_batches sees a few trials only; leave out one of them")
    if getattr(model, "chooses_on_val", False):
        raise ConfigError(
            f"refit=true: {type(model).__name__} is stopped and chosen by its validation loss while it is fitted, and "
            "a refit has none; leave it out"
        )
    for part in data.by_session().values():
        check_joinable(part.recording)


def joint_data(data: PopulationDataModule) -> PopulationDataModule:
    """The same data with the validation trials among the training trials, in epochs of as many steps."""
    if isinstance(data, Sessions):
        return data.with_training_only({name: joint_data(part) for name, part in data.by_session().items()})
    n_batches = data.count_batches()
    data.release_tensors()
    joint = copy.copy(data)
    joint.train_on_inputs = [split for split in data.train_on_inputs if split != "val"]
    joint.serve_training_only(join_train_and_val(data.recording, data.stride), n_batches=n_batches)
    return joint


class RepeatChosenTraining(pl.Callback):
    """Ends the training after so many steps, and gives the schedules the scores of the first training.

    Args:
        steps: of the optimizer.
        seen: (step, score) of each validation after which a schedule stepped.
    """

    def __init__(self, steps: int, seen: Sequence[tuple[int, float]] = ()) -> None:
        self.steps, self.seen = steps, dict(seen)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Step the plateau schedules where validation did, and stop."""
        step = trainer.global_step
        for config in trainer.lr_scheduler_configs if step in self.seen else ():
            if config.reduce_on_plateau:
                config.scheduler.step(self.seen[step])
        if step >= self.steps and trainer.optimizers:
            trainer.should_stop = True
