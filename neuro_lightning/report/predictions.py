"""What ``predict.py`` prints about the file that it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.recording import Recording
from neuro_lightning.metrics.catalog import label, shown_metrics
from neuro_lightning.report.table import kind_of, number, print_official_scores, print_table, relative


def print_arrays(
    path: Path,
    recording: Recording,
    arrays: Mapping[str, np.ndarray],
    source: str,
    unit: str = "mean",
    summary: Callable[[np.ndarray], float] = np.mean,
) -> None:
    """Print what was written: the file, its arrays, and one number of each.

    Args:
        path: the file.
        recording: what was predicted.
        arrays: by name.
        source: what predicted them.
        unit: what ``summary`` is called.
        summary: array -> number.
    """
    rows = [[name, " x ".join(map(str, array.shape)), f"{summary(array):.4f}"] for name, array in arrays.items()]
    title = f"{relative(path)}, {recording.name} ({kind_of(recording)}), from {source}"
    print_table(title, ["array", "shape", unit], rows)


def print_scores(
    official: list[dict[str, dict[str, float]]] | None, scores: dict[str, float] | None, recording: Recording
) -> None:
    """Print the scores of what was written, by the benchmark's own evaluation where it applies."""
    split = evaluation_split(recording)
    if official is not None:
        print_official_scores(f"Scores by the official evaluation ({kind_of(recording)})", official)
    elif scores is not None:
        names = shown_metrics(scores)
        cells = [[split, *(number(scores[name]) for name in names)]]
        columns = ["split", *map(label, names)]
        print_table(f"Scores on {recording.name} ({kind_of(recording)})", columns, cells)
    else:
        what = "images" if recording.kind == "images" else "trials"
        print(f"The labels of these {split} {what} are hidden: there is nothing to score.")
