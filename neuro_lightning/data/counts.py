"""Spike counts that a file holds as arrays: which neurons and trials are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.plausible import duplicate_columns, duplicates_warning, keep_one_of_each_pair
from neuro_lightning.data.recording import Trials
from neuro_lightning.data.splitting import LEAST
from neuro_lightning.errors import DataError

MOST = 1000
"""More spikes than a channel can have in a bin, whatever its width."""


def without_duplicates(path: Path, counts: np.ndarray, heldout: np.ndarray, drop: bool) -> tuple[np.ndarray, list[str]]:
    """The columns to keep, all of them unless ``drop``, and a line on those that look like one neuron.

    Held-out neurons that the file names stay rather than held-in ones, as they are what is scored.
    """
    n_neurons = counts.shape[2]
    counts = counts.reshape(-1, n_neurons)
    pairs = duplicate_columns(counts)
    if not pairs:
        return np.arange(n_neurons), []
    sizes = counts.sum(axis=0, dtype=np.float64)
    kept = keep_one_of_each_pair(pairs, sizes + heldout * (sizes.max() + 1)) if drop else np.ones(n_neurons, bool)
    return np.flatnonzero(kept), [
        f"{path}: {duplicates_warning(pairs, range(n_neurons), np.flatnonzero(~kept).tolist())}"
    ]


def without_shared_trials(
    path: Path, train: Trials, shared: np.ndarray, n_bins: int
) -> tuple[Trials, dict[str, Any], list[str]]:
    """The training trials without those that share bins with a validation trial, what is noted and what is said.

    Args:
        path: of the file, for what is said.
        train: the training trials.
        shared: (B,) of each training trial, how many bins it shares with a validation trial.
        n_bins: bins of a trial.

    Raises:
        DataError: too few trials would be left.
    """
    dropped, whole = int((shared > 0).sum()), int((shared == n_bins).sum())
    if not dropped:
        return train, {}, []
    if dropped > (1 - LEAST) * len(train):
        raise DataError(
            f"{path}: {dropped} of {len(train)} training trials share bins with validation trials ({whole} are equal "
            "in all bins), too few are left: write the file anew, with windows that do not overlap"
        )
    warning = (
        f"{path}: {dropped} of {len(train)} training trials are left out, since they share bins with validation trials "
        f"({whole} are the same in every bin)"
    )
    return train.take(np.flatnonzero(shared == 0)), {"overlap": {"dropped": dropped}}, [warning]
