"""``trial_scores.npz`` in a run's folder: what each evaluated trial contributes to bits per spike.

Runs are compared trial by trial from these files, without their networks: see
:func:`neuro_lightning.functional.paired_bootstrap.paired_bootstrap`. Of several sessions there is a file for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.atomic import atomic_path

if TYPE_CHECKING:
    import numpy as np

FILE = "trial_scores.npz"
FIELDS, LABELS = ("nll", "spikes", "bins"), ("row", "condition")


def trial_scores_file(folder: str | Path, session: str = "") -> Path:
    """Where the sums of a run's trials lie, of a session among several in a folder of its name."""
    return Path(folder) / "trial_scores" / f"{session}.npz" if session else Path(folder) / FILE


def write_trial_scores(path: Path, by_split: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write the (B, N) sums of each split's trials, see ``SpikeSums``: nats, spikes, bins.

    Args:
        path: see :func:`trial_scores_file`.
        by_split: arrays by split and by name: ``nll``, ``spikes`` and ``bins``; where they are known also ``row``, the
            trials' rows in the recording's table, and ``condition``, both (B,).
    """
    import numpy as np

    arrays: dict[str, Any] = {
        f"{split}/{name}": values for split, found in by_split.items() for name, values in found.items()
    }
    with atomic_path(path) as part:
        np.savez_compressed(part, **arrays)


def read_trial_scores(path: Path, split: str) -> dict[str, np.ndarray] | None:
    """The (B, N) sums of a split's trials by name, with row and condition (B,) if known; None without the file."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            names = [*FIELDS, *(name for name in LABELS if f"{split}/{name}" in file)]
            return {name: file[f"{split}/{name}"] for name in names}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None  # a run of an older version, of other data than spikes, or a file that was cut short
