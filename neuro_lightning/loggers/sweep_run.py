"""The table of a sweep in Weights & Biases: a run of its own in the sweep's group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.records import stable_id
from neuro_lightning.loggers.building import build_loggers, closed_in_the_end, log_table

TABLE = "sweep/jobs"


def log_sweep(
    folder: str | Path, options: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Keep a sweep's table in W&B: a run of job type ``sweep`` in the group of its jobs; again, it is replaced.

    Args:
        folder: the sweep's; the run's folder ``wandb`` is written there.
        options: of W&B, as in ``conf/logger/wandb.yaml``.
        columns: of the table.
        rows: one for each job.
    """
    folder = Path(folder).resolve()
    loggers = build_loggers(
        {"wandb": {**options, "checkpoint": False}},
        output_dir=folder,
        config={},
        name=f"{folder.name} table",
        run_id=stable_id(folder),
        group=folder.name,
        job_type="sweep",
    )
    with closed_in_the_end(loggers):
        log_table(loggers, TABLE, columns, rows)
