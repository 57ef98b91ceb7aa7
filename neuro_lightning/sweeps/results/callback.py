"""Updates a sweep's table while its jobs run, in any launcher. Nothing heavy is imported here."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from neuro_lightning.artifacts.lines import announce, say, shortened
from neuro_lightning.artifacts.output import OUTPUT_FILE, JobOutput
from neuro_lightning.artifacts.records import FILE_NAME, read_record_if_any, write_json
from neuro_lightning.artifacts.sweep_progress import progress_of
from neuro_lightning.private_names import LAUNCHER_LOGGERS
from neuro_lightning.sweeps.results.job_lines import print_job, varied_in_words
from neuro_lightning.sweeps.results.table import TABLE_FILE, collect, finish, print_summary, write_table

TITLE_WIDTH = 36  # beside it a bar has room


class SweepTable(Callback):
    """Writes ``sweep.csv`` and ``sweep.md`` when a job begins and ends, and at a sweep's end all that it leaves.

    A job that ended with an error before it could say so in its ``run.json`` gets one here: it is a row like others.
    A sweep of which no job finished ends with exit status 1.

    Args:
        verbose: print all that jobs print, not one line for each; it lies in their ``output.log`` otherwise.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        # by the folder of each job: several may be at work, in turns
        self._before: dict[Path, int | None] = {}
        self._output: dict[Path, JobOutput] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files out: a job that SLURM queues again is pickled while it writes."""
        return {**vars(self), "_before": {}, "_output": {}}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hide what launchers say of each job but warnings: its line is printed when it ends."""
        if not self.verbose:
            for name in LAUNCHER_LOGGERS:
                logging.getLogger(name).addFilter(is_warning)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Show that the job runs, and write its output to a file in its folder. Called in the job's process."""
        if not _in_sweep(config):
            return
        folder = Path(config.hydra.runtime.output_dir)
        self._before[folder] = _changed(folder)
        if not self.verbose:
            output = self._output[folder] = JobOutput(folder / OUTPUT_FILE, sys.stdout, _title(config, folder))
            sys.stdout = output
            output.show_status("starting")
        write_table(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Record an error that the job could not record itself, update the table, and print how the job ended."""
        if not _in_sweep(config):
            return
        folder = Path(config.hydra.runtime.output_dir)
        self._restore_stdout(folder)
        _note_error(folder, job_return)
        write_table(config.hydra.sweep.dir)
        before = self._before.pop(folder, None)
        untouched = before is not None and _changed(folder) == before  # done already, and said so
        if not self.verbose and not untouched:
            print_job(folder, _varied(config, folder))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write everything, and print the summary; also when a job ended the sweep with an error.

        After an interruption only the table is written, without pictures.
        """
        for job in list(self._output):
            self._restore_stdout(job)
        for name in LAUNCHER_LOGGERS:
            logging.getLogger(name).removeFilter(is_warning)
        folder, ending = Path(config.hydra.sweep.dir), sys.exc_info()[1]  # it ends the sweep after this
        if not folder.is_dir() or write_table(folder) is None:
            return
        stopped = isinstance(ending, KeyboardInterrupt | SystemExit)
        if not stopped:
            announce("writing", "the sweep's table and pictures")
        print_summary(folder, None if stopped else finish(folder))
        if not stopped:
            _log_table(folder, OmegaConf.select(config, "logger.wandb"))
        if ending is None and not any(job["status"] in ("finished", "pruned", "paused") for job in collect(folder)):
            sys.exit(1)

    def _restore_stdout(self, folder: Path) -> None:
        """Send the output of a job to the terminal again."""
        if (output := self._output.pop(folder, None)) is not None:
            output.clear_status()
            if sys.stdout is output:
                sys.stdout = output.terminal
            output.close()


def _in_sweep(config: DictConfig) -> bool:
    return str(config.hydra.mode).endswith("MULTIRUN")


def is_warning(record: logging.LogRecord) -> bool:
    """Whether a launcher says more than which jobs it starts, and where."""
    return record.levelno >= logging.WARNING


def _title(config: DictConfig, folder: Path) -> str:
    """What a terminal shows of a job that runs: ``3 of 12  model=gru seed=0``."""
    progress = progress_of(folder.parent)
    place = f"{progress.ended + 1} of {progress.total}" if progress else f"job {folder.name.partition('_')[0]}"
    return shortened(f"{place}  {_varied(config, folder)}", TITLE_WIDTH)


def _varied(config: DictConfig, folder: Path) -> str:
    return varied_in_words(folder, list(config.hydra.overrides.task))


def _changed(folder: Path) -> int | None:
    path = folder / FILE_NAME
    return path.stat().st_mtime_ns if path.is_file() else None


def _log_table(folder: Path, options: DictConfig | None) -> None:
    """Keep the sweep's table in W&B, where its jobs are logged there; an error costs nothing but the table."""
    if options is None:
        return
    import pandas as pd

    from neuro_lightning.loggers.sweep_run import log_sweep  # with torch

    try:
        table = pd.read_csv(folder / TABLE_FILE).astype(object)
        rows = table.where(table.notna(), None).to_numpy().tolist()
        log_sweep(folder, OmegaConf.to_container(options, resolve=True), list(table.columns), rows)
    except Exception as error:
        say(f"the sweep's table did not reach W&B: {' '.join(str(error).split())[:200]}")


def _note_error(folder: Path, job_return: Any) -> None:
    record = read_record_if_any(folder)
    said = record.get("status") not in (None, "running")  # by the job itself
    if said or job_return.status is JobStatus.COMPLETED:
        return
    raised = _error_of(job_return)
    stopped = isinstance(raised, KeyboardInterrupt)
    ending = (
        {"status": "interrupted"} if stopped else {"status": "failed", "error": f"{type(raised).__name__}: {raised}"}
    )
    overrides = record.get("overrides") or list(job_return.overrides or [])
    write_json(folder / FILE_NAME, record | ending | {"overrides": overrides})


def _error_of(job_return: Any) -> BaseException | None:
    """What a job raised. Hydra prints a line on it whenever it is asked for, which here would be a second one."""
    with redirect_stderr(StringIO()):
        try:
            _ = job_return.return_value
        except BaseException as raised:
            return raised
    return None
