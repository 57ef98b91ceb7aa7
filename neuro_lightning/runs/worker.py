"""The other processes of a job: they train the resolved settings that the first process wrote.

Started as ``python -m neuro_lightning.runs.worker FOLDER/.job.json``.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neuro_lightning.errors import Interrupted, NeuroError
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.distributed import JOB_FILE, read_job_file, slurm_attempt, write_job_file
from neuro_lightning.runs.train import train


def run_in_slurm_tasks(run: Callable[[], Any], folder: Path) -> Any:
    """Run a job in processes that SLURM has started, one for each of its tasks.

    Only the first of them asks what is left to do of the job (is it done, where is it resumed from): the others would
    look at another moment and might find something else. They wait for the settings that it trains, or for its end.

    Args:
        run: the job, which calls :func:`~neuro_lightning.runs.distributed.write_job_settings` before it trains.
        folder: the job's.

    Returns:
        What ``run`` returns; NaN in the other processes.
    """
    path = folder / JOB_FILE
    if is_main_process():
        try:
            return run()
        finally:
            if read_job_file(path).get("launch") != slurm_attempt():  # nothing was to be trained
                write_job_file(path, {"launch": slurm_attempt(), "over": True})
    while (job := read_job_file(path)).get("launch") != slurm_attempt():
        time.sleep(0.2)
    if "over" not in job:
        _train(job)
    return math.nan


def _train(job: dict[str, Any]) -> None:
    train(OmegaConf.create(job["config"]), job["overrides"])


def main(job: str) -> None:
    """Train a job's settings as one of its processes."""
    threading.Thread(target=_exit_with_parent, args=[os.getppid()], daemon=True).start()
    try:
        _train(read_job_file(Path(job)))
    except Interrupted:
        sys.exit(130)  # the main process says so
    except NeuroError as error:
        sys.exit(f"error in process {os.environ['LOCAL_RANK']}: {error}")


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent has ended: it would wait half an hour for it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
