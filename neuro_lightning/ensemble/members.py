"""Which trained models ``ckpt=...`` means: checkpoints, runs, sweeps, or a list of any of these."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.artifacts.checkpoint_files import MEMBERS, member_folders
from neuro_lightning.artifacts.records import FILE_NAME, newest_finished_run
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.display.table import relative
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.loading import find_checkpoint

SWEEP_FILES = ("multirun.yaml", "sweep.csv", "models.csv")  # of a sweep, or of benchmarks/models.py


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep, and not one in which runs happen to lie."""
    return any((folder / name).is_file() for name in SWEEP_FILES)


def find_members(wanted: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The checkpoints that are meant, each once, in the order given; the jobs of a sweep by their numbers.

    Args:
        wanted: checkpoints, folders of runs, or folders of sweeps, of which every job that finished counts.

    Returns:
        The checkpoints, and a line for each job or repetition that was left out.

    Raises:
        CheckpointError: nothing there, runs of no sweep, or no job of a sweep finished.
    """
    members: dict[Path, Path] = {}
    remarks = []
    for path in map(Path, wanted):
        found, left_out = _checkpoints(path)
        remarks += left_out
        for checkpoint in found:
            if checkpoint.resolve() in members:
                remarks.append(f"{relative(checkpoint)} is named twice: it counts once")
            members.setdefault(checkpoint.resolve(), checkpoint)
    return list(members.values()), remarks


def _checkpoints(path: Path) -> tuple[list[Path], list[str]]:
    try:
        return [find_checkpoint(path)], []
    except CheckpointError:
        if member_folders(path):
            return _of_jobs(path / MEMBERS)
        if (path / "checkpoints").is_dir() or (path / FILE_NAME).is_file():
            raise
    jobs = collect(path) if path.is_dir() else []
    newest = newest_finished_run(path) if path.is_dir() else None
    alone = f"; the newest run in it: python predict.py ckpt={shlex.quote(str(relative(newest)))}" if newest else ""
    if not jobs:
        raise CheckpointError(
            f"no checkpoint at {path}: give a .ckpt file, a run's folder that holds checkpoints/best.ckpt, or a "
            f"sweep's folder (multirun/...) whose jobs do{alone}"
        )
    if not is_sweep(path):
        raise CheckpointError(
            f"{path} is no sweep's folder (it has no {SWEEP_FILES[0]}), and its runs need not belong together: give a "
            f"list, ckpt=[{path / jobs[0]['job']},...]{alone}"
        )
    return _of_jobs(path)


def _of_jobs(path: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints of a sweep's jobs that have finished, or of a run's members."""
    jobs = collect(path)
    found: list[Path] = []
    remarks: list[str] = []
    for job in jobs:
        if job["status"] != "finished":
            remarks.append(f"{job['job']} is left out: {job['status']}{': ' + job['error'] if job['error'] else ''}")
            continue
        try:
            own, left_out = _checkpoints(path / job["job"])
            found, remarks = found + own, remarks + left_out
        except CheckpointError:
            remarks.append(f"{job['job']} is left out: it kept no checkpoint")
    if not found:
        raise CheckpointError(f"{path}: none of its {len(jobs)} jobs finished with a checkpoint ({'; '.join(remarks)})")
    return found, remarks
