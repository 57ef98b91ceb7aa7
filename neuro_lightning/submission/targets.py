"""Reads what predictions are scored against, and checks that its arrays can be and fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuro_lightning.data.checks.bounds import check_array, check_sizes
from neuro_lightning.data.formats.subprocess_check import find_reading_problem
from neuro_lightning.errors import SubmissionError

MOST = 1000
"""More spikes than a neuron can have in a bin."""
AXES = {"B": "evaluation trials", "A": "training trials", "T": "bins", "F": "forward bins", "C": "conditions"}
SHAPES = {
    "eval_spikes_heldout": "BTN",
    "train_behavior": "ATK",
    "eval_behavior": "BTK",
    "train_decode_mask": "AG",
    "eval_decode_mask": "BG",
    "eval_spikes_heldin_forward": "BFI",
    "eval_spikes_heldout_forward": "BFN",
    "psth": "CTP",
    "eval_jitter": "B",
}
"""The axes of each array: a letter is the same size in all of them (N held-out, I held-in, P all neurons)."""
INTERVAL_SHAPES = SHAPES | {"train_behavior": "A5", "eval_behavior": "B5"}
"""Where behavior is one row of is_eye, theta, is_short, ts, tp a trial."""
COUNTS = {"minimum": 0, "maximum": MOST, "may_be_nan": True, "whole": True, "what": "spike counts"}
VALUES = {
    "train_behavior": {"may_be_nan": True, "what": "behavior"},
    "eval_behavior": {"may_be_nan": True, "what": "behavior"},
    "train_decode_mask": {"minimum": 0, "maximum": 1},
    "eval_decode_mask": {"minimum": 0, "maximum": 1},
    # smoothed: it may lie a rounding error below zero
    "psth": {"minimum": -1e-3, "maximum": MOST, "may_be_nan": True, "what": "rates"},
    "eval_jitter": {"whole": True, "what": "shifts in bins"},
}
"""What the values of an array may be, as options of ``check_array``; the others are counts."""
DECODE_MASKS = ("train_decode_mask", "eval_decode_mask")
FORWARD_SPIKES = ("eval_spikes_heldin_forward", "eval_spikes_heldout_forward")
READ_LISTS = """
    import h5py
    with h5py.File(path, "r") as file:
        for name in names:
            file[name][()]
"""
"""Lists of different length: HDF5 can go in circles for ever where their heap is damaged."""
EXPORT = "export the targets again"


def read_targets(target: Mapping[str, Any], where: str, *, forward: bool) -> dict[str, np.ndarray | list[np.ndarray]]:
    """The arrays of a target group that scores are made of.

    Args:
        target: arrays or HDF5 datasets by name.
        where: file and group, for the message.
        forward: whether forward bins are scored, so that their counts are read too.

    Returns:
        Floats in float64, decode masks (B, M) bool, ``eval_jitter`` (B,) int64, and ``eval_cond_idx``, the trials of
        each condition.

    Raises:
        SubmissionError: an array is missing, is not what it should be, or does not fit the others.
    """
    names = ["eval_spikes_heldout", "train_behavior", "eval_behavior"]
    for pair in (DECODE_MASKS, FORWARD_SPIKES) if forward else (DECODE_MASKS,):
        names += pair if target.keys() & set(pair) else ()
    if "psth" in target:
        names += ["psth", *(["eval_jitter"] if "eval_jitter" in target else [])]
    found: dict[str, Any] = {name: _array(target, name, where) for name in names}
    shapes = INTERVAL_SHAPES if found["eval_behavior"].ndim == 2 else SHAPES
    for name, values in found.items():
        axes = tuple(AXES.get(letter, "values") for letter in shapes[name])
        check_array(values, f"{where}/{name}", axes=axes, error=SubmissionError, **VALUES.get(name, COUNTS))
        kind = np.int64 if name == "eval_jitter" else bool if name in DECODE_MASKS else np.float64
        found[name] = values.astype(kind)
    check_sizes(f"{where}/", found, shapes, SubmissionError)
    n_trials, n_bins, n_out = found["eval_spikes_heldout"].shape
    if np.abs(found.get("eval_jitter", 0)).max() > n_bins:
        raise SubmissionError(f"{where}/eval_jitter holds shifts by more than the {n_bins} bins of a trial; {EXPORT}")
    if "psth" in target:
        if found["psth"].shape[2] <= n_out:
            raise SubmissionError(f"{where}/psth has {found['psth'].shape[2]} neurons, {n_out} are held out; {EXPORT}")
        found["eval_cond_idx"] = _trials_of_conditions(target, where, n_trials, len(found["psth"]))
    return found


def _trials_of_conditions(target: Mapping[str, Any], where: str, n_trials: int, n_conditions: int) -> list[np.ndarray]:
    key, members = f"{where}/eval_cond_idx", []
    for trials in _array(target, "eval_cond_idx", where):
        index = np.asarray(trials).ravel()
        if index.size:
            last = n_trials - 1
            check_array(index, key, maximum=last, minimum=0, whole=True, what="trial numbers", error=SubmissionError)
        members.append(index.astype(np.int64))
    if len(members) != n_conditions:
        raise SubmissionError(f"{key} has {len(members)} conditions, but there are {n_conditions} PSTHs; {EXPORT}")
    return members


def _array(target: Mapping[str, Any], name: str, where: str) -> np.ndarray:
    if name not in target:
        raise SubmissionError(f"{where}: {name} is missing; {EXPORT}")
    values = target[name]
    if isinstance(values, list):  # of arrays of different length
        rows, values = values, np.empty(len(values), object)
        values[:] = rows
    if isinstance(values, h5py.Dataset) and values.dtype.kind == "O":
        path = Path(values.file.filename)
        stat = path.stat()
        version = (stat.st_size, stat.st_mtime_ns)
        if problem := find_reading_problem(READ_LISTS, str(path.resolve()), (values.name,), *version, seconds=20):
            raise SubmissionError(f"{where}: {name} cannot be read, the file is damaged ({problem}); {EXPORT}")
    return np.asarray(values[()])
