"""How far a sweep is: how many of its jobs have ended, and how long the others will take."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.artifacts.sweep_jobs import FAILED, TRAINING, collect

PROGRESS_FILE = ".progress.json"  # in the sweep's folder: jobs may run on other machines


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        ended: jobs that are over, well or not.
        total: jobs in all.
        seconds_left: None before the first job has ended.
    """

    ended: int
    total: int
    seconds_left: float | None = None

    def __str__(self) -> str:
        """``3 of 12, about 4 min left``."""
        left = f", about {in_words(self.seconds_left)} left" if self.seconds_left else ""
        return f"{self.ended} of {self.total}{left}"


def begin_progress(folder: str | Path, total: int | None, now: float | None = None, ended: int | None = None) -> None:
    """Write when a sweep began, or is resumed, and with how many jobs.

    Args:
        folder: the sweep's.
        total: how many jobs there will be; None where that is not known: then nothing is told of them.
        now: the time in seconds, by default the clock's.
        ended: how many are over already; None counts them.
    """
    if total is not None:
        ended = _count_ended(collect(folder)) if ended is None else ended
        begun = {"total": total, "ended": ended, "time": time.time() if now is None else now}
        write_json(Path(folder) / PROGRESS_FILE, begun)


def begin_generation(folder: str | Path, done: int, until: int) -> None:
    """Write that jobs train on until an epoch, and count anew there: a population's jobs train many times.

    Args:
        folder: the sweep's, with what :func:`begin_progress` wrote.
        done: jobs of earlier generations.
        until: the epoch; a job that has come so far has ended for this generation.
    """
    path = Path(folder) / PROGRESS_FILE
    write_json(path, {**json.loads(path.read_text()), "done": done, "until": until})


def progress_of(folder: str | Path, jobs: Iterable[dict] | None = None, now: float | None = None) -> Progress | None:
    """How far a sweep is; None where that is not known.

    The time left is that of the jobs that have ended since it began or was resumed, one after another or side by side.

    Args:
        folder: the sweep's.
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`; None reads them.
        now: the time in seconds, by default the clock's.
    """
    try:
        begun = json.loads((Path(folder) / PROGRESS_FILE).read_text())
        total, before, start = int(begun["total"]), int(begun["ended"]), float(begun["time"])
        done, until = int(begun.get("done", 0)), begun.get("until")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ended = done + _count_ended(collect(folder) if jobs is None else jobs, until)
    new, left = ended - before, max(total - ended, 0)
    spent = (time.time() if now is None else now) - start
    return Progress(ended, max(total, ended), spent / new * left if new > 0 and left else None)


def in_words(seconds: float) -> str:
    """``40 s``, ``4 min`` or ``2.5 h``: a duration as it is estimated."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _count_ended(jobs: Iterable[dict], until: int | None = None) -> int:
    over = [job for job in jobs if job["status"] not in TRAINING]
    return sum(until is None or job["status"] in FAILED or (job["epochs"] or 0) >= until for job in over)
