"""One line for each job of a sweep when it ends, also for jobs that other machines run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro_lightning.artifacts.lines import WIDTH, shortened, wrapped
from neuro_lightning.artifacts.output import print_to_terminal
from neuro_lightning.artifacts.records import FILE_NAME, read_record_if_any
from neuro_lightning.artifacts.sweep_jobs import TRAINING, collect, job_overrides, varied_overrides
from neuro_lightning.artifacts.sweep_progress import progress_of
from neuro_lightning.display.table import number
from neuro_lightning.settings.quoting import settings_in_words
from neuro_lightning.sweeps.results.page import clock

EVERY = 1.0  # seconds between two looks at the jobs of other machines


def varied_in_words(folder: Path, overrides: list[str]) -> str:
    """What the sweep varies in a job, numbers to four digits; nothing where it varies nothing."""
    return settings_in_words(varied_overrides(folder, overrides))


def print_job(folder: Path, varied: str) -> None:
    """Print one line: which job, its score or how it ended, how that compares with others, how long it will go on.

    An error follows below, with the job's folder.

    Args:
        folder: the job's.
        varied: what the sweep varies in it.
    """
    jobs = {job["job"]: job for job in collect(folder.parent)}
    if (job := jobs.get(folder.name)) is None:
        return
    words = [] if job["status"] == "finished" else [str(job["status"])]
    if job["objective"] is not None:
        words.append(f"{job['objective_name']} {number(job['objective'])}")
        scores = [own["objective"] for own in jobs.values() if own["data"] == job["data"]]
        scores = [score for score in scores if score is not None]
        best = (max if job["mode"] == "max" else min)(scores)
        words[-1] += " (best)" if len(scores) > 1 and best == job["objective"] else ""
    progress = progress_of(folder.parent, jobs.values())
    words.append(str(progress) if progress else clock(job["seconds"]) if job["seconds"] is not None else "")
    end, begin = "  ".join(word for word in words if word), f"job {folder.name.partition('_')[0]}  "
    room = WIDTH - len(begin) - len(end) - 2
    line = begin + (f"{shortened(varied, room)}  " if varied and room > 0 else "") + end
    print_to_terminal(line)
    if job["error"]:
        print_to_terminal(wrapped(f"  {folder.name}: {job['error']}", 2))


@contextmanager
def lines_of_distant_jobs(folder: str | Path, every: float = EVERY) -> Iterator[None]:
    """Print the line of each job that ends inside, of jobs whose own lines do not reach this terminal.

    A job has ended when its ``run.json`` says so and has not changed since the last look.

    Args:
        folder: the sweep's.
        every: seconds between two looks.
    """
    folder, over = Path(folder), threading.Event()
    watch = threading.Thread(target=_watch, args=(folder, _changes(folder), over, every), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(folder: Path, printed: dict[str, int], over: threading.Event, every: float) -> None:
    seen = dict(printed)
    while True:
        last = over.wait(every)
        ended = {job["job"] for job in collect(folder) if job["status"] not in TRAINING} if folder.is_dir() else set()
        for name, change in (found := _changes(folder)).items():
            if name in ended and printed.get(name) != change and (last or seen.get(name) == change):
                printed[name] = change
                overrides = job_overrides(folder / name, read_record_if_any(folder / name)) or []
                print_job(folder / name, varied_in_words(folder / name, overrides))
        seen = found
        if last:
            return


def _changes(folder: Path) -> dict[str, int]:
    """When each job's ``run.json`` was written, by the name of the job's folder, in the order of those times."""
    times = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"*/{FILE_NAME}")}
    return dict(sorted(times.items(), key=lambda item: item[1]))
