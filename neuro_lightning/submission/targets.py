"""Reads what predictions are scored against, and checks that its arrays can be and fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuro_lightning.data.checks.bounds import check_array
from neuro_lightning.data.formats.subprocess_check import find_reading_problem
from neuro_lightning.errors import SubmissionError

TRIALS, BINS, NEURONS = AXES = ("trials", "bins", "neurons")
MOST = 1000
"""More spikes than a neuron can have in a bin."""
N_INTERVAL = 5
"""Columns of trial-level behavior: is_eye, theta, is_short, ts, tp."""
TRIAL = """
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
    found = {"eval_spikes_heldout": _counts(target, "eval_spikes_heldout", where)}
    n_trials, n_bins, n_out = found["eval_spikes_heldout"].shape
    found |= _behavior(target, where, n_trials, n_bins)
    if "eval_spikes_heldin_forward" in target and forward:
        for name, n in (("heldin", None), ("heldout", n_out)):
            key = f"eval_spikes_{name}_forward"
            found[key] = _counts(target, key, where)
            bins = found["eval_spikes_heldin_forward"].shape[1]
            _fits(found[key], f"{where}/{key}", (n_trials, bins, n))
    if "psth" in target:
        found |= _conditions(target, where, n_trials, n_bins)
        if found["psth"].shape[2] <= n_out:
            raise SubmissionError(f"{where}/psth has {found['psth'].shape[2]} neurons, {n_out} are held out; {EXPORT}")
    return found


def _behavior(target: Mapping[str, Any], where: str, n_trials: int, n_bins: int) -> dict[str, np.ndarray]:
    found = {}
    for part in ("train", "eval"):
        key, mask = f"{part}_behavior", f"{part}_decode_mask"
        values = _array(target, key, where)
        interval = values.ndim == 2
        axes = (TRIALS, "values") if interval else (TRIALS, BINS, "channels")
        check_array(values, f"{where}/{key}", axes=axes, may_be_nan=True, what="behavior", error=SubmissionError)
        like = found.get("train_behavior", values)
        if values.ndim != like.ndim or (interval and values.shape[1] != N_INTERVAL):
            raise SubmissionError(f"{where}/{key} has the shape {values.shape}, the training part {like.shape}")
        rows = n_trials if part == "eval" else None
        _fits(values, f"{where}/{key}", (rows, like.shape[1]) if interval else (rows, n_bins, like.shape[2]))
        found[key] = values.astype(np.float64)
        if mask in target:
            groups = _array(target, mask, where)
            check_array(groups, f"{where}/{mask}", axes=(TRIALS, "groups"), minimum=0, maximum=1, error=SubmissionError)
            _fits(groups, f"{where}/{mask}", (len(values), found.get("train_decode_mask", groups).shape[1]))
            found[mask] = groups.astype(bool)
    if ("train_decode_mask" in found) != ("eval_decode_mask" in found):
        raise SubmissionError(f"{where} has the decode mask of one part only; {EXPORT}")
    return found


def _conditions(target: Mapping[str, Any], where: str, n_trials: int, n_bins: int) -> dict[str, Any]:
    psth = _array(target, "psth", where)
    axes = ("conditions", BINS, NEURONS)
    bounds = {"minimum": -1e-3, "maximum": MOST}  # smoothed: it may lie a rounding error below zero
    check_array(psth, f"{where}/psth", axes=axes, may_be_nan=True, what="rates", error=SubmissionError, **bounds)
    _fits(psth, f"{where}/psth", (None, n_bins, None))
    found: dict[str, Any] = {"psth": psth.astype(np.float64)}
    members = []
    key = f"{where}/eval_cond_idx"
    for trials in _array(target, "eval_cond_idx", where):
        index = np.asarray(trials).ravel()
        if index.size:
            last = n_trials - 1
            check_array(index, key, maximum=last, minimum=0, whole=True, what="trial numbers", error=SubmissionError)
        members.append(index.astype(np.int64))
    if len(members) != len(psth):
        raise SubmissionError(f"{key} tells of {len(members)} conditions, but there are {len(psth)} PSTHs; {EXPORT}")
    found["eval_cond_idx"] = members
    if "eval_jitter" in target:
        jitter = _array(target, "eval_jitter", where)
        what = {"minimum": -n_bins, "maximum": n_bins, "whole": True, "what": "shifts in bins"}
        check_array(jitter, f"{where}/eval_jitter", axes=(TRIALS,), error=SubmissionError, **what)
        _fits(jitter, f"{where}/eval_jitter", (n_trials,))
        found["eval_jitter"] = jitter.astype(np.int64)
    return found


def _counts(target: Mapping[str, Any], name: str, where: str) -> np.ndarray:
    values, what = _array(target, name, where), {"whole": True, "what": "spike counts"}
    check_array(
        values, f"{where}/{name}", axes=AXES, minimum=0, maximum=MOST, may_be_nan=True, error=SubmissionError, **what
    )
    return values.astype(np.float64)


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
        if problem := find_reading_problem(TRIAL, str(path.resolve()), (values.name,), *version, seconds=20):
            raise SubmissionError(f"{where}: {name} cannot be read, the file is damaged ({problem}); {EXPORT}")
    return np.asarray(values[()])


def _fits(values: np.ndarray, where: str, shape: tuple[int | None, ...]) -> None:
    wanted = tuple(have if want is None else want for have, want in zip(values.shape, shape, strict=True))
    if values.shape != wanted:
        raise SubmissionError(f"{where} has the shape {values.shape}, but {wanted} fits the other arrays; {EXPORT}")
