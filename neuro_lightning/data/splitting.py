"""Which trials train and validate, which neurons are held out: the file's own marks, or seeded draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.options import check_share, check_whole
from neuro_lightning.data.checks.overlap import (
    Spans,
    count_overlapping,
    distinct_windows,
    draw_blocks,
    drop_overlapping,
)
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import ConfigError, DataError

SPLITS = ("auto", "random", "chronological", "column", "domain")
"""Ways to split trials, see :func:`split_trials`."""

LEAST = 1 / 3
"""Share of the training trials that must be left when those that share time with validation trials are taken out."""


@dataclass
class TrialSplit:
    """Which trials train, validate and test.

    Attributes:
        parts: indices of the trials by split, each in the table's order and none twice; no training trial shares time
            with a validation or test trial, and no validation trial with a test trial.
        overlap: ``duplicates`` (trials with the same window as an earlier one), ``overlapping`` (trials whose window
            shares time with another's) and ``dropped`` (trials left out since they share time with another split's).
        warning: what a user must know of it; None where no windows overlap.
    """

    parts: dict[str, np.ndarray]
    overlap: dict[str, int]
    warning: str | None = None


def split_trials(
    path: Path, column: np.ndarray | None, spans: Spans, split: str, val_fraction: float, seed: int
) -> TrialSplit:
    """Which trials train, validate and test, so that no time that trains is validated on.

    Args:
        path: the file, for the messages.
        column: (B,) the split of each usable trial as the file says it, in a column or by its domains; None where it
            names no train and val.
        spans: (B,) their windows with all bins that are read, forward bins too.
        split: ``random``, ``chronological``, ``column``, ``domain`` or ``auto``, see ``load_trials``.
        val_fraction: share of trials to validate with.
        seed: of the random split.

    Raises:
        DataError: there is no ``split`` column though it is asked for, a split would be empty, or too few training
            trials are apart from the validation trials.
    """
    if split in ("column", "domain") and column is None:
        raise DataError(f"{path} does not say which trials train and validate; set data.split=random")
    if column is not None and split in ("column", "domain", "auto"):
        asked = _by_column(path, column)
        parts, duplicates, dropped = drop_overlapping(spans, asked)
    else:
        distinct = distinct_windows(spans)
        duplicates = len(spans) - len(distinct)
        asked = _drawn(path, spans.take(distinct), duplicates, split, val_fraction, seed)
        asked = {part: distinct[index] for part, index in asked.items()}
        parts, _, dropped = drop_overlapping(spans, asked)
    for part in ("train", "val"):
        if len(parts[part]) < LEAST * len(asked[part]):
            raise DataError(
                f"{path}: only {len(parts[part])} of {len(asked[part])} {part} trials would be left without those "
                "that are listed twice or share time with trials of another split: check that data.align holds times "
                "of the session, not of the trial, take a shorter data.window_ms or data.forward_ms, or another "
                "data.split"
            )
    overlap = {"duplicates": duplicates, "overlapping": count_overlapping(spans), "dropped": dropped}
    drawn = split == "random" or (split == "auto" and column is None)
    warning = _warning(path, len(spans), overlap, drawn)
    return TrialSplit({part: index for part, index in parts.items() if len(index)}, overlap, warning)


def _by_column(path: Path, column: np.ndarray) -> dict[str, np.ndarray]:
    parts = {part: np.flatnonzero(column == part) for part in ("train", "val", "test")}
    if not len(parts["train"]) or not len(parts["val"]):
        found = ", ".join(sorted(set(column.tolist())))
        raise DataError(
            f"{path}: the usable trials' split column needs train and val, but has {found}; set data.split=random"
        )
    return parts


def _drawn(
    path: Path, spans: Spans, duplicates: int, split: str, val_fraction: float, seed: int
) -> dict[str, np.ndarray]:
    """Training and validation windows, those to be left out still among them; arguments as above."""
    n_val = max(1, round(val_fraction * len(spans)))
    if n_val >= len(spans):
        same = f" with a window of their own ({duplicates} have another one's: check data.align)" if duplicates else ""
        raise DataError(
            f"{path} has {len(spans)} usable trials{same}, too few to train and to validate with "
            f"data.val_fraction={val_fraction}"
        )
    if split == "chronological":
        order = np.argsort(spans.start, kind="stable")
        return {"train": order[:-n_val], "val": order[-n_val:]}
    validates = draw_blocks(spans, n_val, seed)
    return {"train": np.flatnonzero(~validates), "val": np.flatnonzero(validates)}


def _warning(path: Path, n_trials: int, overlap: dict[str, int], drawn: bool) -> str | None:
    said = []
    if overlap["duplicates"]:
        said.append(f"{overlap['duplicates']} of {n_trials} trials are left out, since they are listed twice")
    if overlap["overlapping"] and drawn:
        said.append(
            f"the windows of {overlap['overlapping']} of {n_trials} trials overlap in time: those that overlap are "
            "drawn together, in blocks where the chain is long"
        )
    if overlap["dropped"]:
        said.append(f"{overlap['dropped']} trials are left out, since they share time with trials of another split")
    return f"{path}: {'; '.join(said)}" if said else None


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
    check_share("heldout_fraction", fraction, zero=True)
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


def draw_splits(n: int, fractions: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """Disjoint seeded draws from ``range(n)``: a share for each name, at least one, and the rest as ``train``.

    Args:
        n: how many there are.
        fractions: share of each named part.
        seed: of the draw.

    Returns:
        Ascending indices by name.

    Raises:
        ConfigError: a fraction is not between 0 and 1, or nothing would be left to train on.
    """
    for name, fraction in fractions.items():
        check_share(f"{name}_fraction", fraction)
    check_whole("seed", seed)
    order, parts, start = np.random.default_rng([seed, 1]).permutation(n), {}, 0
    for name, fraction in fractions.items():
        size = max(1, round(fraction * n))
        parts[name] = np.sort(order[start : start + size])
        start += size
    if start >= n:
        asked = ", ".join(f"data.{name}_fraction={fraction}" for name, fraction in fractions.items())
        raise ConfigError(f"{asked} of {n} leaves nothing to train on: lower it")
    return {"train": np.sort(order[start:]), **parts}


def limit_training(recording: Recording, n_trials: int | None, seed: int) -> Recording:
    """The recording with ``n_trials`` of its training trials; validation and test trials stay, and so do the neurons.

    The draw is nested: with one seed, 25 trials are among the 50. What was estimated from all training trials when the
    file was read (the scale of images, say, and who is held out) stays, so that sizes differ in nothing else.

    Args:
        recording: not changed.
        n_trials: how many train, all if there are not so many; None for all.
        seed: of the draw.

    Returns:
        The recording; ``info["train_trials"]`` notes the draw, with the trials' rows where they are known.

    Raises:
        ConfigError: a number cannot be, or the training part is no trials but windows of a sequence.
    """
    if n_trials is None or "train" not in recording.splits:
        return recording
    check_whole("train_trials", n_trials, 1)
    check_whole("train_trials_seed", seed)
    if recording.kind == "traces":
        raise ConfigError(
            f"data.train_trials={n_trials}: {recording.name} has no trials, its training part is one sequence; shorten "
            "it by data.val_fraction and data.test_fraction"
        )
    train, info = recording.splits["train"], dict(recording.info)
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(train))[:n_trials])
    used = train.take(chosen)
    info["train_trials"] = {"asked": n_trials, "used": len(used), "of": len(train), "seed": seed}
    if used.row is not None:
        info["train_trials"]["rows"] = used.row.tolist()
        if "rows" in info:
            info["rows"] = {**info["rows"], "train": used.row.tolist()}
    if len(used) < n_trials:
        few = f"data.train_trials={n_trials}: {recording.name} has {len(used)} training trials, and all are used"
        info["warnings"] = [*info.get("warnings", ()), few]
    return replace(recording, splits={**recording.splits, "train": used}, info=info)
