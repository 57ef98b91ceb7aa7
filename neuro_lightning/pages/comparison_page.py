"""The page of several runs side by side: how they differ, and whether a difference is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from neuro_lightning.api.comparison import compare
from neuro_lightning.api.results import Run
from neuro_lightning.display.table import number
from neuro_lightning.pages.parts import Page, Section, Table
from neuro_lightning.pages.run_page import SIMULATED, data_name, figure_files, is_simulated, model_name


def comparison_page(runs: Sequence[Run]) -> Page:
    """The page of runs on the same trials; differences are from the first.

    Raises:
        ConfigError: they were scored on other trials.
    """
    names = run_names(runs)
    table = compare(dict(zip(names, runs, strict=True)))
    first, *others = names
    scores = Section("Scores", "scores", tables=[Table(["score", *names], _rows(table, names))])
    differences = Section(f"Differences from {first}", "differences")
    for name in others:
        columns = [c for c in ("difference", "low", "high", "trials") if f"{name} {c}" in table]
        rows = [row for row in _rows(table, [f"{name} {c}" for c in columns]) if row[1] is not None]
        differences.lines.append(sentence(name, first, table))
        differences.tables.append(Table([f"{name}, less {first}", *columns], rows))
    differences.lines.append(
        "low and high are the 95 % interval over trials by the paired bootstrap, of these networks; trials: how many "
        "such trials would make the difference as large as two standard errors."
    )
    figures = [
        Section(f"Figures of {name}", f"figures-{k}", pictures=figure_files(run.folder / "figures"))
        for k, (name, run) in enumerate(zip(names, runs, strict=True), start=1)
    ]
    facts = [(name, f"{model_name(run.record)}, {run.folder}") for name, run in zip(names, runs, strict=True)]
    simulated = any(is_simulated(run.record) for run in runs)
    title = f"{len(runs)} runs on {data_name(runs[0].record)}"
    return Page(title, facts, [differences, scores, *figures], SIMULATED if simulated else "")


def run_names(runs: Sequence[Run]) -> list[str]:
    """Short names: the model and the seed, with a number where two are alike."""
    plain = [f"{model_name(run.record)} {run.record.get('seed')}" for run in runs]
    return [f"{name} ({k})" if plain.count(name) > 1 else name for k, name in enumerate(plain, start=1)]


def sentence(name: str, first: str, table: pd.DataFrame) -> str:
    """Whether one run is better than the first, in words."""
    known = table[f"{name} low"].dropna() if f"{name} low" in table else pd.Series(dtype=float)
    for score in sorted(known.index, key=lambda score: not score.startswith("val/")):
        value, low, high = (float(table.loc[score, f"{name} {what}"]) for what in ("difference", "low", "high"))
        found = f"{number(value)} in {score} (95 % interval {number(low)} to {number(high)})"
        if low > 0 or high < 0:
            return f"{name} is {'better' if low > 0 else 'worse'} than {first} by {found}."
        return f"{name} and {first} do not differ clearly: {found}."
    return f"{name} beside {first}: no interval, as the runs keep no scores of single trials."


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> list[list[Any]]:
    """The scores' names with the cells of some columns; None for nothing, numbers of trials whole."""
    found = []
    for score, row in zip(table.index, table[list(columns)].to_numpy().tolist(), strict=True):
        cells = [None if value != value else value for value in row]
        whole = [
            int(value) if column.endswith(" trials") and value is not None and math.isfinite(value) else value
            for column, value in zip(columns, cells, strict=True)
        ]
        found.append([score, *whole])
    return found
