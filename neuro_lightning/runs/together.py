"""Trains several runs in one process, their networks as one stack; each is otherwise a run as any other.

Every run has its own trainer, callbacks, loggers and folder, and runs in turns with the others (:mod:`.turns`): up to
its next training steps, which are taken for all of them at once (:mod:`neuro_lightning.models.stacked`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from neuro_lightning.artifacts.checkpoint_files import LAST, PREVIOUS
from neuro_lightning.artifacts.lines import say
from neuro_lightning.contracts import Batch
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.models.stacked import StackedSteps, WantedSteps, refuse_stack
from neuro_lightning.optim import SAM
from neuro_lightning.runs.resumed import took_several_steps_at_once
from neuro_lightning.runs.turns import NOT_YET, take_turns, this_turn
from neuro_lightning.settings.registry import find_target
from neuro_lightning.settings.settings import TrainSettings

STEPS_AT_ONCE = 32  # between two turns of the trainers: a trainer's own work around a step is paid once for so many
# what a trainer may have: with other values it must see every step itself, or has several processes
PLAIN_TRAINER: dict[str, tuple] = {
    "max_steps": (-1,), "accumulate_grad_batches": (1,), "overfit_batches": (0.0,), "limit_train_batches": (None, 1.0),
    "fast_dev_run": (False,), "val_check_interval": (None, 1.0), "devices": (1, "1"), "num_nodes": (1,),
    "precision": ("32-true", "64-true", "32", "64", 32, 64),
}  # fmt: skip


@dataclass(frozen=True)
class _Question:
    """What a run waits for.

    Attributes:
        fit: which training it is in: 0, or 1 for the refit.
        steps: to be taken; None once the training has ended.
    """

    fit: int
    steps: WantedSteps | None


class _Together:
    """Takes the steps that runs ask for.

    Args:
        strict: whether networks that cannot be stacked are an error; else they train one by one.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict, self.stacked = strict, StackedSteps()

    def __call__(self, questions: list[_Question]) -> list[Any]:
        """The answers: what became of the steps, see :meth:`_take`.

        Runs in a later training wait for the others, and so do those whose batches have other sizes at this moment.
        """
        kinds = [(question.fit, question.steps.sizes) for question in questions if question.steps is not None]
        now = min(kinds, key=lambda kind: (kind[0], -kinds.count(kind)), default=None)
        chosen = [q.steps is not None and (q.fit, q.steps.sizes) == now for q in questions]
        wanted = [q.steps for q, now in zip(questions, chosen, strict=True) if now]
        taken = iter(self._take(wanted) if wanted else ())
        return [
            next(taken) if now else None if question.steps is None else NOT_YET
            for question, now in zip(questions, chosen, strict=True)
        ]

    def _take(self, wanted: list[WantedSteps]) -> list[Any]:
        """Take the steps; for each whether its losses were finite, or why the run is to take its steps itself."""
        if len(wanted) == 1:
            return [""]
        try:
            return list(self.stacked.take(wanted))
        except ConfigError as error:
            return [ConfigError(f"model.members: {error}") if self.strict else str(error)] * len(wanted)
        except Exception as error:  # recorded in every run
            return [error] * len(wanted)


def train_together(jobs: Sequence[Callable[[], Any]], *, strict: bool) -> list[Any]:
    """Run jobs that train one model each, and take their steps as one; what each returned, or the error that it raised.

    Args:
        jobs: calls of ``train``, which calls :func:`join` and :func:`wait_for_others`.
        strict: whether networks that cannot be stacked are an error; else they train one by one.

    Raises:
        KeyboardInterrupt: the user stopped it; every run is recorded as interrupted.
    """
    return take_turns(jobs, _Together(strict=strict))


def join(settings: TrainSettings, model: PopulationModule, data: PopulationDataModule, fit: int = 0) -> None:
    """Let a model's steps be taken together with those of other runs, where some take turns with this one.

    A run that is resumed from a checkpoint of such a training takes several steps at once in any case.

    Args:
        settings: of the run.
        model: not trained yet.
        data: that it is trained on.
        fit: 0, or 1 for the refit, which begins when all others have been trained.

    Raises:
        ConfigError: the steps of such a model cannot be stacked.
    """
    turn, begun_so = this_turn(), took_several_steps_at_once(settings.resume) if not fit else None
    if begun_so:  # in a stack, maybe, and resumed alone
        data.take_at_once(STEPS_AT_ONCE)
    if turn is None:
        return
    reason = "it was begun alone" if begun_so is False else refuse_settings(settings)
    if reason := reason or refuse_stack(model, data.spec):
        if turn.answer.strict:
            raise ConfigError(f"model.members: {reason}; leave it out, or train a sweep over seeds")
        say(f"Trained alone: {reason}.")
        return
    data.take_at_once(STEPS_AT_ONCE)

    def take(batches: list[Batch], first: int) -> bool:
        taken = turn.ask(_Question(fit, WantedSteps(model, batches, first)))
        if isinstance(taken, str) and taken:
            say(f"Trained alone: {taken}.")
            model.take_together = None
        if taken is False:
            say(f"The loss is not finite: the training ends in epoch {model.current_epoch}.")
            model.trainer.should_stop = True
        return not isinstance(taken, str)

    model.take_together = take


def wait_for_others() -> None:
    """Wait until the runs that take turns with this one have come as far: they save their checkpoints first."""
    if (turn := this_turn()) is not None:
        turn.ask(_Question(0, None))


def rewind(folders: Sequence[Path]) -> None:
    """Let runs that were trained together resume at the same step: the last one of which each has a checkpoint.

    Only so is the outcome, bit for bit, that of a training without an interruption: products of fewer networks may be
    rounded otherwise. A run that had come further loses its last checkpoint; the one before takes its place. Where some
    have none yet and the others their first, all begin anew. Runs that are further apart stay as they are.

    Args:
        folders: of runs that have not ended.
    """
    saved: list[dict[int, Path]] = []
    for folder in folders:
        saved.append({0: folder})
        for path in (folder / "checkpoints" / name for name in (PREVIOUS, LAST)):
            with suppress(CheckpointError):
                saved[-1][read_checkpoint(path)["global_step"]] = path
    together = max(set.intersection(*map(set, saved)), default=0) if saved else 0
    if not together and any(len(steps) > 2 for steps in saved):
        return
    for steps in saved:
        if not together:
            for path in set(steps.values()) - {steps[0]}:
                path.unlink()
        elif steps[together].name == PREVIOUS:
            steps[together].replace(steps[together].with_name(LAST))


def refuse_settings(settings: TrainSettings | DictConfig) -> str | None:
    """The reason why a run with these settings cannot be trained in a stack, None if it can, as far as they tell.

    Args:
        settings: of the run, or its composed config.
    """
    name = settings.model._target_.rpartition(".")[2]
    optimizer = settings.model.get("optimizer")
    if optimizer is None:
        return f"{name} is not trained in steps of an optimizer and cannot be stacked"
    target = find_target(optimizer._target_, settings.trusted or ())
    if isinstance(target, type) and issubclass(target, SAM | torch.optim.LBFGS):
        return f"model.optimizer={target.__name__} sees each batch several times and cannot be stacked"
    for key, allowed in PLAIN_TRAINER.items():
        if key in settings.trainer and settings.trainer[key] not in allowed:
            return f"with trainer.{key}={settings.trainer[key]} networks cannot be stacked"
    return None
