"""What the benchmark lays down: files, splits, held-out units, window and bins.

Source: IBL BrainWideBench (arXiv 2609.22064, repository brainbench-org/ibl-bwb), task suite TS2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.errors import ConfigError, DataError

TASKS = ("co_smoothing", "forecasting")
BIN_MS, WINDOW_BINS, FORECAST_BINS = 20, 50, 5
HISTORY_MS = 20_000
"""How much a model may see before a window, at most."""

HELD_OUT_SHARE = 0.1
BUILD, VERSION = "selected_units", "0.1.0"
PARTS = ("eval", "pretrain")
BRAINSET = "ibl_brain_wide_bench_2026"
BUCKET = "s3://brain-wide-bench/brainsets"
SEEDS = (43, 44, 45, 46, 47)
"""Of reported numbers; the benchmark keeps 42 for searches, and takes three consecutive ones or more."""

WINDOWS, DOMAIN = "task_aligned_intervals.domain", "ts2_{}_domain"
HELD_OUT = "ts2_co_smoothing_is_held_out_{}"


def session_file(root: Path, session: str, part: str) -> Path:
    """Where a session's file lies below the data's root: as in the benchmark's bucket."""
    return root / "bwb" / BUILD / BRAINSET / part / f"{session}.h5"


def download_command(path: Path, session: str, part: str) -> str:
    """The command that fetches a session's file; it needs no account."""
    return f"aws s3 cp --no-sign-request {BUCKET}/{BUILD}/{BRAINSET}/{part}/{session}.h5 {path}"


def held_out_units(ids: Sequence[str], split: str) -> np.ndarray:
    """(N,) bool, the units that co-smoothing holds out on ``val`` or ``test``: two sets by a rule of their ids.

    Args:
        ids: of all units.
        split: ``val`` or ``test``.

    Example:
        >>> held_out_units([f"unit {k}" for k in range(20)], "test").sum()
        np.int64(2)
    """
    digests = [hashlib.sha256(f"ts2_co_smoothing_{split}:{unit}".encode()).hexdigest() for unit in ids]
    chosen = np.argsort(digests, kind="stable")[: max(1, round(HELD_OUT_SHARE * len(ids)))]
    found = np.zeros(len(ids), bool)
    found[chosen] = True
    return found


def check_build(attributes: dict[str, object], path: Path) -> None:
    """Refuse a file of another build or another version of the benchmark.

    Args:
        attributes: of the file's ``brainset``.
        path: the file, for the message.

    Raises:
        DataError: it is another one.
    """
    build, version = str(attributes.get("unit_filtering")), str(attributes.get("derived_version"))
    if build != BUILD:
        raise DataError(f"{path} is of the build {build}: TS2 takes {BUILD}, from {BUCKET}/{BUILD}")
    if version != VERSION:
        raise DataError(f"{path} is of version {version} of the benchmark's data, and this project knows {VERSION}")


def check_task(task: str) -> None:
    """Refuse a task that the suite does not have.

    Raises:
        ConfigError: there is no such task.
    """
    if task not in TASKS:
        raise ConfigError(f"data.task={task}: give {' or '.join(TASKS)}")
