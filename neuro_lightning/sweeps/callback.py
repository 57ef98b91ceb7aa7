"""Keeps a sweep's table current while its jobs run, in whatever launcher. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Writes ``sweep.csv`` after every job of a multirun, and prints the summary over seeds at its end.

    A job that ended with an error before it could say so in its ``run.json`` gets one here: it is a row like others.
    """

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note an error that the job could not, and write the table anew. Runs where the job ran."""
        if not str(config.hydra.mode).endswith("MULTIRUN"):
            return
        from neuro_lightning.sweeps.table import write_table

        _note_error(Path(config.hydra.runtime.output_dir), job_return)
        write_table(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the table, and print its summary; also when a job ended the sweep with an error."""
        from neuro_lightning.sweeps.table import print_summary, write_table

        folder = Path(config.hydra.sweep.dir)
        if folder.is_dir() and write_table(folder) is not None:
            print_summary(folder)


def _note_error(folder: Path, job_return: Any) -> None:
    from neuro_lightning.records import FILE_NAME, read_record, write_json

    try:
        _ = job_return.return_value  # raises what the job raised
        return
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
    record = read_record(folder) if (folder / FILE_NAME).is_file() else {}
    if record.get("status") in (None, "running"):
        overrides = record.get("overrides") or list(job_return.overrides or [])
        write_json(folder / FILE_NAME, record | {"status": "failed", "error": error, "overrides": overrides})
