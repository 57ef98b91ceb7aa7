"""The checkpoint that a run is resumed from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.checkpoint_files import LAST, PREVIOUS
from neuro_lightning.artifacts.lines import say
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.settings.settings import TrainSettings


def readable_checkpoint(checkpoint: str | None, *, start_again: bool) -> str | None:
    """The checkpoint that a run is resumed from: where ``last.ckpt`` is damaged, the one before it.

    Args:
        checkpoint: the one asked for; None of a new run.
        start_again: give None, a new run, where neither can be read.

    Raises:
        CheckpointError: it cannot be read.
    """
    if checkpoint is None or Path(checkpoint).name not in (LAST, PREVIOUS):
        return checkpoint
    path = Path(checkpoint).with_name(LAST)
    try:
        read_checkpoint(path)
        return str(path)
    except CheckpointError as error:
        damaged = error
    previous = path.with_name(PREVIOUS)
    if previous.is_file():
        with suppress(CheckpointError):
            read_checkpoint(previous)
            say(f"{damaged}: resuming from {PREVIOUS}, the checkpoint before it")
            return str(previous)
    if not start_again:
        raise damaged
    say(f"{damaged}: starting again from the beginning")
    return None


def loops_of(checkpoint: str) -> dict[str, Any]:
    """How far Lightning's loops had come.

    Raises:
        CheckpointError: it holds weights alone, as with ``save_weights_only``.
    """
    content = read_checkpoint(checkpoint)
    if "loops" not in content or "optimizer_states" not in content:
        raise CheckpointError(
            f"{checkpoint} holds weights alone and cannot be resumed: begin a new run from them with init={checkpoint}"
        )
    return content["loops"]


def took_several_steps_at_once(checkpoint: str | None) -> bool | None:
    """Whether the trainer handed the model several steps at once, in which way its steps are counted from then on.

    Args:
        checkpoint: from which a run is resumed; None of a new run, of which nothing can be said.
    """
    if checkpoint is None:
        return None
    steps = loops_of(checkpoint)["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]
    return steps["total"]["completed"] > 0


def check_training_left(settings: TrainSettings) -> None:
    """Refuse to resume a run that has trained more than it is to train.

    Raises:
        CheckpointError: saying which key to raise.
    """
    if settings.resume is None:
        return
    content = read_checkpoint(settings.resume)
    progress = loops_of(settings.resume)["fit_loop"]["epoch_progress"]["current"]
    # a checkpoint that is written after the training counts one epoch too many as finished
    trained = {"max_epochs": max(progress["processed"], progress["started"]), "max_steps": content["global_step"]}
    for key, number in trained.items():
        limit = settings.trainer.get(key)
        if limit is not None and 0 <= limit < number:
            raise CheckpointError(
                f"{settings.resume} has trained {number} {key.removeprefix('max_')} already: give trainer.{key}="
                f"{number} or more, not {limit}"
            )
