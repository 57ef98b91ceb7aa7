"""Writes ``metrics.csv``: everything that a run logs, one row for each step; the source of truth."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.metrics_csv import METRICS_FILE, read_lines, read_rows
from neuro_lightning.ranks import is_main_process, main_process_only


class MetricsCSV(Logger):
    """One row for each step at which something is logged, in ``metrics.csv``; always up to date on disk.

    Columns stay where they are: new ones are added at the right. A resumed run continues the same file,
    without the rows that its checkpoint does not know.

    Args:
        folder: the run's folder.
        resumed_step: the global step of the checkpoint from which the run resumes; None starts a new file.
    """

    def __init__(self, folder: str | Path, *, resumed_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS_FILE
        self._columns = ["step", "epoch"]
        self._row: dict[str, str] = {}  # the last row of the file
        self._start = 0  # and where it starts, in bytes
        if is_main_process():
            self._open(resumed_step)

    @property
    def name(self) -> str:
        """No name: the file lies in the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """No version: one run, one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @main_process_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config is in ``run.json``."""

    @main_process_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add the metrics to the row of ``step``."""
        step = int(self._row.get("step", 0)) if step is None else step
        values = {key: _text(value) for key, value in metrics.items()}
        if new := [key for key in values if key not in self._columns]:
            self._columns += new
            self._rewrite(list(read_rows(self.path)))
        if self._row.get("step") != str(step):
            self._row, self._start = {"step": str(step)}, self.path.stat().st_size
        self._row |= values
        with open(self.path, "r+", newline="") as file:
            file.seek(self._start)
            file.truncate()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._row)

    def _open(self, resumed_step: int | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[dict[str, str]] = []
        if resumed_step is not None and self.path.is_file():
            kept = [row for row in read_rows(self.path) if int(row["step"]) < resumed_step]
            self._columns = (read_lines(self.path) or [self._columns])[0]
        self._rewrite(kept)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with atomic_path(self.path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[:-1])
            file.flush()
            self._start, self._row = file.tell(), rows[-1] if rows else {}
            writer.writerows(rows[-1:])
            file.flush()


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return repr(value) if isinstance(value, float) else str(value)
