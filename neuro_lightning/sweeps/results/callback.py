"""Updates a sweep's table while its jobs run, in any launcher. Nothing heavy is imported here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from neuro_lightning.artifacts.output import OUTPUT_FILE, JobOutput, terminal
from neuro_lightning.artifacts.records import FILE_NAME, read_record_if_any, write_json
from neuro_lightning.artifacts.sweep_jobs import job_settings, normalize_override
from neuro_lightning.display.table import number
from neuro_lightning.private_names import LAUNCHER_LOGGERS
from neuro_lightning.sweeps.results.page import clock
from neuro_lightning.sweeps.results.summary import short
from neuro_lightning.sweeps.results.table import collect, finish, print_summary, write_table


class SweepTable(Callback):
    """Writes ``sweep.csv`` and ``sweep.md`` when a job begins and ends, and at a sweep's end all that it leaves.

    A job that ended with an error before it could say so in its ``run.json`` gets one here: it is a row like others.
    A sweep of which no job finished ends with exit status 1.

    Args:
        verbose: print all that jobs print, not one line for each; it lies in their ``output.log`` otherwise.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._before: int | None = None
        self._output: JobOutput | None = None
        self._print_launch: Callable[[logging.LogRecord], bool] = bool

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files out: a job that SLURM queues again is pickled while it writes."""
        return {**vars(self), "_before": None, "_output": None}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Print what each job varies, in place of the launcher's lines."""
        if not self.verbose:
            same = {normalize_override(word) for word in config.hydra.overrides.task}
            self._print_launch = partial(_print_launch, same=same)
            for name in LAUNCHER_LOGGERS:
                logging.getLogger(name).addFilter(self._print_launch)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Show that the job runs, and write its output to a file in its folder. Called in the job's process."""
        if not _in_sweep(config):
            return
        folder = Path(config.hydra.runtime.output_dir)
        self._before = _changed(folder)
        if not self.verbose:
            self._output = JobOutput(folder / OUTPUT_FILE, sys.stdout)
            sys.stdout = self._output
        write_table(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Record an error that the job could not record itself, update the table, and print how the job ended."""
        if not _in_sweep(config):
            return
        self._restore_stdout()
        folder = Path(config.hydra.runtime.output_dir)
        _note_error(folder, job_return)
        write_table(config.hydra.sweep.dir)
        untouched = self._before is not None and _changed(folder) == self._before  # done already, and said so
        if not self.verbose and not untouched:
            _print_job(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write everything, and print the summary; also when a job ended the sweep with an error.

        After an interruption only the table is written, without pictures.
        """
        self._restore_stdout()
        for name in LAUNCHER_LOGGERS:
            logging.getLogger(name).removeFilter(self._print_launch)
        folder, ending = Path(config.hydra.sweep.dir), sys.exc_info()[1]  # it ends the sweep after this
        if not folder.is_dir() or write_table(folder) is None:
            return
        print_summary(folder, () if isinstance(ending, KeyboardInterrupt | SystemExit) else finish(folder))
        if ending is None and not any(job["status"] in ("finished", "pruned", "paused") for job in collect(folder)):
            sys.exit(1)

    def _restore_stdout(self) -> None:
        """Send output to the terminal again."""
        if self._output is not None:
            if sys.stdout is self._output:
                sys.stdout = self._output.terminal
            self._output.close()
            self._output = None


def _in_sweep(config: DictConfig) -> bool:
    return str(config.hydra.mode).endswith("MULTIRUN")


def _print_launch(record: logging.LogRecord, same: set[str]) -> bool:
    """Print what a job varies, numbers to four digits, in place of a launcher's line, which False hides."""
    number, _, words = record.getMessage().strip().partition(" : ")
    if number.startswith("#"):
        kept = [word.partition("=") for word in job_settings(words.split(" ")) if normalize_override(word) not in same]
        shown = " ".join(f"{key}{equals}{short(value)}" for key, equals, value in kept)
        print(f"job {number.removeprefix('#')}: {shown or words}", file=terminal(), flush=True)
    return not number.startswith(("#", "Launching"))


def _changed(folder: Path) -> int | None:
    path = folder / FILE_NAME
    return path.stat().st_mtime_ns if path.is_file() else None


def _print_job(folder: Path) -> None:
    """One line: the job, how it ended, its score, how that compares with the others, and its time."""
    jobs = {job["job"]: job for job in collect(folder.parent)}
    if (job := jobs.get(folder.name)) is None:
        return
    words = [job["job"], str(job["status"])]
    if job["objective"] is not None:
        words.append(f"{job['objective_name']} {number(job['objective'])}")
        scores = [own["objective"] for own in jobs.values() if own["data"] == job["data"]]
        scores = [score for score in scores if score is not None]
        best = (max if job["mode"] == "max" else min)(scores)
        words += ["(best so far)"] if len(scores) > 1 and best == job["objective"] else []
    words += [clock(job["seconds"])] if job["seconds"] is not None else []
    words += [job["error"]] if job["error"] else []
    print("  ".join(words), flush=True)


def _note_error(folder: Path, job_return: Any) -> None:
    try:
        _ = job_return.return_value  # raises what the job raised
        return
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
    record = read_record_if_any(folder)
    if record.get("status") in (None, "running"):
        overrides = record.get("overrides") or list(job_return.overrides or [])
        write_json(folder / FILE_NAME, record | {"status": "failed", "error": error, "overrides": overrides})
