"""Which trials train and validate, which neurons are held out: the file's own marks, or seeded draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.nwb import NWBRecording
from neuro_lightning.errors import DataError

SPLITS = ("auto", "random", "chronological", "column")
"""Ways to split trials, see :func:`split_trials`."""


def split_trials(
    nwb: NWBRecording, row: np.ndarray, time: np.ndarray, split: str, val_fraction: float, seed: int
) -> dict[str, np.ndarray]:
    """Which trials train, validate and test, each in the table's order and none twice.

    Args:
        nwb: the file.
        row: (B,) the usable trials' rows in its trial table.
        time: (B,) their times in s.
        split: ``random``, ``chronological``, ``column`` or ``auto``, see ``load_nwb_trials``.
        val_fraction: share of trials to validate with.
        seed: of the random split.

    Returns:
        Indices into ``row`` by split.

    Raises:
        DataError: there is no ``split`` column though it is asked for, or a split would be empty.
    """
    n_trials = len(row)
    has_column = "split" in nwb.trials and {"train", "val"} <= set(nwb.trials["split"].tolist())
    if split == "column" or (split == "auto" and has_column):
        column = nwb.column("split")[row]
        parts = {part: np.flatnonzero(column == part) for part in ("train", "val", "test")}
        if not len(parts["train"]) or not len(parts["val"]):
            found = ", ".join(sorted(set(column.tolist())))
            raise DataError(
                f"{nwb.path}: the usable trials' split column needs train and val, but has {found}; "
                "set data.split=random"
            )
        return {part: index for part, index in parts.items() if len(index)}
    n_val = max(1, round(val_fraction * n_trials))
    if n_val >= n_trials:
        raise DataError(
            f"{nwb.path} has {n_trials} usable trials, too few to train and to validate with "
            f"data.val_fraction={val_fraction}"
        )
    if split == "chronological":
        order = np.argsort(time, kind="stable")
    else:
        order = np.random.default_rng([seed, 1]).permutation(n_trials)
    return {"train": np.sort(order[:-n_val]), "val": np.sort(order[-n_val:])}


def hold_out(marked: np.ndarray, active: np.ndarray, fraction: float, seed: int, path: Path) -> np.ndarray:
    """Which units are held out.

    Args:
        marked: (U,) bool, the units that the file marks.
        active: (U,) bool, the units that may be drawn.
        fraction: share of all units to draw where none is marked.
        seed: of the draw.
        path: the file, for the error.

    Returns:
        (U,) bool.

    Raises:
        DataError: there are too few units.
    """
    n_units = len(marked)
    if marked.any():
        if marked.all():
            raise DataError(f"{path}: all {n_units} units are marked as held out, so no model input is left")
        return marked.copy()
    heldout = np.zeros(n_units, bool)
    if fraction > 0:
        n_out, candidates = max(1, round(fraction * n_units)), np.flatnonzero(active)
        if n_out >= n_units or n_out > len(candidates):
            raise DataError(
                f"{path} has {n_units} units, {len(candidates)} of them active in the training trials: too few to hold "
                f"out {n_out} (data.heldout_fraction={fraction}) and keep others as input"
            )
        heldout[np.random.default_rng([seed, 0]).choice(candidates, n_out, replace=False)] = True
    return heldout
