"""Heads in a run: those that ``init`` brings along, and what is said of the trials that they cannot decode."""

from __future__ import annotations

import numpy as np

from neuro_lightning.artifacts.lines import say
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.sessions_net import first_difference


def carry_heads(own: PopulationModule, other: PopulationModule, name: str) -> list[str]:
    """Let heads begin as those of the same name in another model, with its mean and scale; returns their names.

    Args:
        own: gets the weights.
        other: has them.
        name: of the run that the other is of, for the message.

    Raises:
        CheckpointError: a head has another shape there, or other classes.
    """
    theirs = {head.name: head for head in other.heads or ()}
    known = [head for head in own.heads or () if head.name in theirs]
    for head in known:
        saved = theirs[head.name]
        different = first_difference(saved.state_dict(), head.state_dict())
        if different or getattr(saved, "classes", None) != getattr(head, "classes", None):
            raise CheckpointError(
                f"init={name}: its head {head.name} decodes other channels or classes than the data here have; give "
                "the new head another name, or leave heads out with model.heads=null"
            )
        head.load_state_dict(saved.state_dict())
    return [head.name for head in known]


def print_unseen_classes(model: PopulationModule, data: PopulationDataModule) -> None:
    """Print how many trials have a class that no training trial has: they are not scored."""
    for head in model.heads or ():
        if head.settings.kind != "class":
            continue
        for session, part in data.by_session().items():
            column, info = part.spec.label(head.settings.behavior)
            for split, trials in part.recording.splits.items():
                values = trials.labels[:, column]
                if count := int((np.isfinite(values) & ~np.isin(values, info.codes)).sum()):
                    say(
                        (f"{session}: " if session else "")
                        + f"head {head.name} is not scored on {count} of {len(trials)} {split} trials, whose "
                        f"{head.settings.behavior} no training trial has"
                    )
