"""What ``predict.py`` prints about the file that it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.artifacts.lines import say
from neuro_lightning.display.table import number, print_official_scores, print_table, relative
from neuro_lightning.metrics.catalog import label, shown_metrics
from neuro_lightning.metrics.session_scores import session_metric, sessions_in

Rows = list[list[str]]


def array_rows(arrays: Mapping[str, np.ndarray], summary: Callable[[np.ndarray], float] = np.mean) -> Rows:
    """Name, shape and one number of each array, as text."""
    return [[name, " x ".join(map(str, array.shape)), f"{summary(array):.4f}"] for name, array in arrays.items()]


def print_arrays(path: Path, title: str, rows: Mapping[str, Rows], source: str, unit: str) -> None:
    """Print what was written: the file, its arrays, and one number of each.

    Args:
        path: the file.
        title: what was predicted.
        rows: of each session, see :func:`array_rows`; of one recording under any name.
        source: what predicted them.
        unit: what the number is.
    """
    sessions = len(rows) > 1
    cells = [[session, *row] if sessions else row for session, found in rows.items() for row in found]
    columns = [*(["session"] if sessions else []), "array", "shape", unit]
    print_table(f"{relative(path)}, {title}, from {source}", columns, cells)


def print_scores(scores: Mapping[str, Mapping[str, float]], title: str, official: Sequence[Mapping] = ()) -> None:
    """Print the scores of what was written, by the benchmark's own evaluation where it applies.

    Args:
        scores: by split; those of a session as ``metric/session``, its rows come before the mean.
        title: what was predicted.
        official: of the benchmark's evaluation; of a single recording they stand in place of the scores.
    """
    found = list(dict.fromkeys(name for values in scores.values() for name in values))
    sessions = sessions_in(found)
    if official:
        print_official_scores(f"Scores by the official evaluation ({title.rpartition(' (')[2]}", official)
    if official and not sessions:
        return
    names, rows = shown_metrics(found), []
    for split, values in scores.items():
        for session in [*sessions, ""]:
            cells = [values.get(session_metric(name, session)) for name in names]
            if any(cell is not None for cell in cells):
                rows.append([split, *([session or "mean"] if sessions else []), *map(number, cells)])
    print_table(f"Scores on {title}", ["split", *(["session"] if sessions else []), *map(label, names)], rows)


def print_without_similar_trials(split: str, scores: Mapping[str, float]) -> None:
    """Print the main scores of the models alone, to which similar trials were added.

    Args:
        split: the split that was predicted.
        scores: of the models alone; of sessions their mean is printed.
    """
    found = ", ".join(f"{label(name)} {number(scores[name])}" for name in shown_metrics([*scores]) if name in scores)
    say(f"Without similar trials, {split}: {found}")


def print_hidden(split: str, kind: str, sessions: Sequence[str] = ()) -> None:
    """Print that there is nothing to score.

    Args:
        split: the split that was predicted.
        kind: of the data.
        sessions: those that it is true of, where there are several.
    """
    which = f"{', '.join(sessions)}: the" if sessions else "The"
    what = "images" if kind == "images" else "trials"
    say(f"{which} labels of these {split} {what} are hidden: there is nothing to score.")
