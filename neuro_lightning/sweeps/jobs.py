"""Decides what is left to do of a sweep's job, from the ``run.json`` of an earlier attempt in its folder.

This holds for every launcher: a job that is done is not done twice, one that was interrupted is resumed from its last
checkpoint, one that failed is tried once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuro_lightning.artifacts.checkpoint_files import LAST, resumable
from neuro_lightning.artifacts.records import read_record_if_any
from neuro_lightning.artifacts.sweep_jobs import job_settings
from neuro_lightning.errors import ConfigError

DONE = ("finished", "pruned", "diverged")  # such jobs are not trained further
RETRIES = 1


@dataclass(frozen=True)
class Job:
    """What is to be done with a job.

    Attributes:
        kind: ``new``, ``done``, ``resume`` (it was interrupted) or ``retry`` (it failed).
        checkpoint: from which it is resumed; None begins anew.
        objective: of a job that is done; None where it has none.
        message: one line for the terminal; empty for a new job.
    """

    kind: str
    checkpoint: Path | None = None
    objective: float | None = None
    message: str = ""


def decide(
    folder: str | Path, overrides: Sequence[str], start: str | Path | None = None, retries: int = RETRIES
) -> Job:
    """Decide what is to be done with the job of a folder.

    Args:
        folder: the job's.
        overrides: the job's, as Hydra composed it.
        start: the checkpoint that the sweeper chose for the job; without one it is resumed from its own.
        retries: how often a job that failed is tried again, in all.

    Raises:
        ConfigError: the folder holds another job.
    """
    folder = Path(folder)
    record = read_record_if_any(folder)  # a damaged one is written anew
    given = Path(start) if start else None
    if not record:
        return Job("new", given)
    same = list(overrides) == record.get("overrides")
    if given is None:
        check_same_job(folder, record, overrides)
    status, attempts = record.get("status"), record.get("attempts") or 1
    over = status in DONE or (status == "failed" and attempts > retries)
    if (over and (same or given is None)) or (status == "paused" and same):
        objective = (record.get("objective") or {}).get("value")
        why = "failed twice" if status == "failed" else f"{status} already"
        return Job("done", objective=objective, message=f"{folder.name}: {why}, left as it is")
    if given is not None:
        return Job("resume", given)
    kind = "retry" if status == "failed" else "resume"
    last = resumable(folder)
    # which of the two can be read is seen before the training
    unreadable = (record.get("error") or "").startswith("CheckpointError")
    checkpoint = (last if last == folder else folder / "checkpoints" / LAST) if last and not unreadable else None
    begun = "is resumed from its last checkpoint" if checkpoint else "begins anew"
    message = f"{folder.name}: {'failed, is tried once more and ' * (kind == 'retry')}{begun}"
    return Job(kind, checkpoint, message=message)


def check_same_job(folder: Path, record: dict, overrides: Sequence[str]) -> None:
    """Check that a folder holds the job that is to run there.

    Raises:
        ConfigError: naming what differs.
    """
    before, now = set(job_settings(record.get("overrides") or ())), set(job_settings(overrides))
    if before != now:
        raise ConfigError(
            f"{folder} holds another job, with {' '.join(sorted(before - now)) or 'fewer overrides'} instead of "
            f"{' '.join(sorted(now - before)) or 'none'}: give the sweep a folder of its own (hydra.sweep.dir=...)"
        )
