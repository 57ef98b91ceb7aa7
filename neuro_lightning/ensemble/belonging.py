"""Whether models may be averaged: trained on the same data, and none of them on the trials that are judged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.checkpoint import read_checkpoint
from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.identity import (
    NOT_COMPARED,
    SPLITTING,
    Difference,
    differences,
    identify,
    other_split,
    trained_among,
)
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.base import CHECKPOINT_KEY

log = logging.getLogger(__name__)


def check_members(members: Sequence[Path], data: PopulationDataModule) -> str | None:
    """Whether several models belong together, by what their checkpoints say of their data.

    Members may have been trained on other parts of the same file, such as folds, as long as none was trained on the
    trials that are predicted.

    Args:
        members: their checkpoints.
        data: what is predicted.

    Returns:
        Why the validation trials cannot judge the members, in a line; None if they can.

    Raises:
        CheckpointError: two members do not belong together, named with what differs.
    """
    recipes = {path: read_checkpoint(path)[CHECKPOINT_KEY] for path in members}
    first, wanted = next(iter(recipes.items()))
    for path, recipe in recipes.items():
        for key, one, other in _differences(recipe, wanted):
            raise CheckpointError(
                f"{path} and {first} do not belong together: {key} is {one!s:.160} of the one and {other!s:.160} of "
                "the other; average models of the same data only"
            )
    if old := [path for path, recipe in recipes.items() if "identity" not in recipe]:
        log.warning(
            f"{len(old)} of {len(members)} checkpoints are of an older version ({old[0]}): their configs are compared, "
            "but not their files and trials"
        )
    target = evaluation_split(data.recording)
    if reason := _seen(recipes, data, target):
        raise CheckpointError(reason)
    if target != "val" and "val" in data.recording.splits:
        return _seen(recipes, data, "val")
    return None


def _differences(recipe: dict[str, Any], wanted: dict[str, Any]) -> list[Difference]:
    if "identity" in recipe and "identity" in wanted:
        return differences(recipe["identity"], wanted["identity"], splits=False)
    configs = [{k: v for k, v in each["data"].items() if k not in NOT_COMPARED} for each in (recipe, wanted)]
    found = [
        Difference(f"data.{key}", configs[0][key], configs[1][key])
        for key in sorted(configs[0].keys() & configs[1].keys())
        if configs[0][key] != configs[1][key]
    ]
    paths = [Path(str(each["data"].get("path"))).resolve() for each in (recipe, wanted)]
    if paths[0] != paths[1]:
        found.append(Difference("data.path", *paths))
    if recipe.get("fitted_on") == wanted.get("fitted_on"):
        rates = [np.asarray(each["spec"]["mean_rates"]) for each in (recipe, wanted)]
        if rates[0].shape == rates[1].shape and not np.allclose(*rates, rtol=1e-5):
            found.append(Difference("the training trials' mean rate", *(f"{rate.mean():.6g}" for rate in rates)))
    return found


def _seen(recipes: dict[Path, dict[str, Any]], data: PopulationDataModule, split: str) -> str | None:
    """The first member that was trained on trials of a split, or has another one, in a line."""
    first, wanted = next(iter(recipes.items()))
    now = identify(data.recording, wanted["data"])
    for path, recipe in recipes.items():
        fitted_on = recipe.get("fitted_on", ("train",))
        if split in fitted_on:
            return f"{path} was trained on the {split} trials, which judge it: give checkpoint=best"
        if "identity" not in recipe:
            continue
        identity = recipe["identity"]
        if trained := trained_among(identity, fitted_on, now, split).sum():
            what = f"was trained on {trained} of the {len(data.recording.splits[split])} {split} trials of {first}"
        elif "identity" in wanted and other_split(identity, wanted["identity"], split):
            what = f"has other {split} trials than {first}"
        else:
            continue
        configs = recipe["data"], wanted["data"]
        keys = sorted(key for key in SPLITTING if configs[0].get(key) != configs[1].get(key))
        why = ", ".join(f"data.{key} is {configs[0].get(key)} and {configs[1].get(key)}" for key in keys)
        return f"{path} {what}" + (f" ({why})" if why else "") + ": leave it out, or train it with the same split"
    return None
