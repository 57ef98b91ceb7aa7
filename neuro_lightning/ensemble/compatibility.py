"""Whether models may be averaged: trained on the same data, and none of them on trials that are scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.identity import identify, identity_of
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.same_data import (
    SPLITTING,
    Difference,
    differences,
    find_training_trials,
    rate_differences,
    split_differs,
)
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.base import CHECKPOINT_KEY
from neuro_lightning.models.loading import Saved, read_checkpoint, recipe_of_session

log = logging.getLogger(__name__)


def check_same_data(saved: Saved, spec: DataSpec, what: str) -> None:
    """Check that data have the neurons and bins that a model was trained on.

    Args:
        saved: the trained model.
        spec: the data it is to predict.
        what: where ``spec`` comes from, for the message.

    Raises:
        CheckpointError: naming what differs.
    """
    own = saved.spec
    for name in ("kind", "bin_ms", "n_bins", "n_forward", "n_in", "n_out", "image_shape"):
        if getattr(own, name) != getattr(spec, name):
            raise CheckpointError(
                f"{saved.path} was trained on {own.dataset} with {name}={getattr(own, name)}, but {what} has "
                f"{name}={getattr(spec, name)} ({spec.dataset}): predict the data it was trained on"
            )
    if own.unit_ids != spec.unit_ids:
        raise CheckpointError(
            f"{saved.path} was trained on other neurons of {own.dataset} than {what} has (their unit ids differ): "
            "check the file, data.seed and data.heldout_fraction"
        )


def check_members(members: Sequence[Path], data: PopulationDataModule, session: str = "") -> str | None:
    """Check that several models were trained on the same data, by what their checkpoints say of them.

    Members may have been trained on other parts of the same file, such as folds, as long as none was trained on the
    trials that are predicted.

    Args:
        members: their checkpoints.
        data: what is predicted.
        session: its name among the sessions that they were trained on.

    Returns:
        Why the validation trials cannot score the members, in a line; None if they can.

    Raises:
        CheckpointError: two members may not be averaged, named with what differs.
    """
    recipes = {path: recipe_of_session(read_checkpoint(path)[CHECKPOINT_KEY], session, path) for path in members}
    first, wanted = next(iter(recipes.items()))
    for path, recipe in recipes.items():
        for key, one, other in _differences(recipe, wanted):
            raise CheckpointError(
                f"{path} and {first} cannot be taken together, their data differ: {key} is {one!s:.160} and "
                f"{other!s:.160}; give models of the same data"
            )
    if old := [path for path, recipe in recipes.items() if "identity" not in recipe]:
        log.warning(
            f"{len(old)} of {len(members)} checkpoints are of an older version ({old[0]}): their configs and rates are "
            "compared, but not the content of their files"
        )
    target = evaluation_split(data.recording)
    if reason := _trained_on(recipes, data, target):
        raise CheckpointError(reason)
    return _trained_on(recipes, data, "val") if "val" in data.recording.splits else None


def _differences(recipe: dict[str, Any], wanted: dict[str, Any]) -> list[Difference]:
    one, other = identity_of(recipe), identity_of(wanted)
    found = differences(one, other, splits=False)
    same_trials = recipe.get("fitted_on") == wanted.get("fitted_on") and not split_differs(one, other, "train")
    if (one["older"] or other["older"]) and same_trials and not _split_keys(recipe, wanted):
        found += rate_differences(recipe["spec"]["mean_rates"], wanted["spec"]["mean_rates"])
    return found


def _split_keys(recipe: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return sorted(key for key in SPLITTING if recipe["data"].get(key) != wanted["data"].get(key))


def _trained_on(recipes: dict[Path, dict[str, Any]], data: PopulationDataModule, split: str) -> str | None:
    """A line about the first member that was trained on trials of a split, or whose split differs; else None."""
    first, wanted = next(iter(recipes.items()))
    now = identify(data.recording, wanted["data"])
    for path, recipe in recipes.items():
        fitted_on = recipe.get("fitted_on", ("train",))
        if split in fitted_on:
            return f"{path} was trained on the {split} trials, which are to score it: give checkpoint=best"
        identity = identity_of(recipe)
        if trained := find_training_trials(identity, fitted_on, now, split).sum():
            what = f"was trained on {trained} of the {len(data.recording.splits[split])} {split} trials of {first}"
        elif split_differs(identity, identity_of(wanted), split):
            what = f"has other {split} trials than {first}"
        else:
            continue
        keys = _split_keys(recipe, wanted)
        why = ", ".join(f"data.{key} is {recipe['data'].get(key)} and {wanted['data'].get(key)}" for key in keys)
        return f"{path} {what}" + (f" ({why})" if why else "") + ": leave it out, or train it with the same split"
    return None
