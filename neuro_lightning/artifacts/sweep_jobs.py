"""Reads the jobs of a sweep from disk: every job's ``run.json``, and the logged scores of jobs that still run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.metrics_csv import METRICS_FILE, read_metrics
from neuro_lightning.artifacts.records import FILE_NAME, flat_overrides, read_record
from neuro_lightning.errors import DataError

MOMENTS = ("end", "peak")  # of training, at which the monitored metric is compared over seeds
TRAINING = ("running", "interrupted")  # jobs whose scores are not in their record yet, but in metrics.csv
FAILED = ("failed", "diverged")
# overrides about a job's place in its sweep and its trusted packages, not about what is trained
BOOKKEEPING = ("sweep.", "resume=", "callbacks.explore", "callbacks.prune.trial", "trusted=")
Job = dict[str, Any]

_finished_jobs: dict[Path, tuple[tuple[int, int], Job]] = {}  # with time and size of run.json


def collect(folder: str | Path) -> list[Job]:
    """The jobs of a sweep in the order of their numbers, also failed and running ones.

    A ``run.json`` is read again only when it has changed: a sweep writes its table after every job.

    Args:
        folder: the sweep's folder, with one folder for each job.

    Returns:
        For each job ``job`` (its folder), ``status`` (running, finished, failed, interrupted, pruned, paused or
        diverged), ``attempts``, ``error``, ``overrides`` by key (without those that only say where the job stands in
        its sweep), ``objective`` (None without), ``end`` and ``peak`` (None in records that do not tell; the best
        score so far of a job that runs is its peak), ``objective_name``, ``mode`` (min or max), ``data``,
        ``simulated``, ``metrics`` by name, ``epochs``, ``seconds`` and ``checkpoint``. They are not to be changed.

    Raises:
        DataError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give that of a sweep, such as multirun/2026-01-31_12-00-00")
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    jobs = (_read_job(folder / name) for name in sorted(names, key=_number))
    return [job for job in jobs if job is not None]


def job_settings(overrides: Sequence[str]) -> list[str]:
    """A job's overrides without those that only say where it stands in a sweep."""
    return [word for word in overrides if not word.lstrip("+").startswith(BOOKKEEPING)]


def varied_keys(overrides: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ between jobs, in the order in which they were typed.

    Args:
        overrides: of each job, by key.
    """
    keys = dict.fromkeys(key for own in overrides for key in own)
    return [key for key in keys if len({str(own.get(key)) for own in overrides}) > 1]


def varied_overrides(job: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What a job's sweep varies, by key: what was typed for all of its jobs alike is left out.

    Args:
        job: the job's folder, which lies in that of its sweep.
        overrides: the job's.
    """
    import yaml

    path = Path(job).parent / "multirun.yaml"
    try:
        typed = list(yaml.safe_load(path.read_text())["hydra"]["overrides"]["task"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        typed = []
    same = {normalize_override(str(word)) for word in typed}
    return flat_overrides([word for word in job_settings(overrides) if normalize_override(word) not in same])


def normalize_override(word: str) -> str:
    """An override without plus signs, in lower case: Hydra gives jobs ``False`` for ``false``."""
    return word.lstrip("+").lower()


def _number(name: str) -> tuple[float, str]:
    number = name.split("_")[0]
    return (int(number) if number.isdigit() else math.inf, name)


def _read_job(folder: Path) -> Job | None:
    """The job of a folder; None if it is not one."""
    path = folder / FILE_NAME
    try:
        stat = path.stat()
    except OSError:
        return _summarize(folder, {"status": "running"}) if (folder / ".hydra" / "overrides.yaml").is_file() else None
    now = (stat.st_mtime_ns, stat.st_size)
    if path in _finished_jobs and _finished_jobs[path][0] == now:
        return _finished_jobs[path][1]
    try:
        job = _summarize(folder, read_record(folder))
    except DataError as error:
        return _summarize(folder, {"status": "failed", "error": str(error)})
    if job["status"] not in TRAINING:
        _finished_jobs[path] = now, job
    return job


def _summarize(folder: Path, record: dict[str, Any]) -> Job:
    objective, data = record.get("objective") or {}, record.get("data") or {}
    config, checkpoints = record.get("config") or {}, record.get("checkpoints") or {}
    error, status = record.get("error"), record.get("status")
    name = objective.get("name") or config.get("monitor") or "objective"
    mode = objective.get("mode") or config.get("mode") or "max"
    moments = {moment: objective.get(moment) for moment in MOMENTS}
    epochs = checkpoints.get("epochs")
    if status in TRAINING:
        moments, epochs = _logged_scores(folder / METRICS_FILE, name, mode)
    return {
        "job": folder.name,
        "status": status,
        "attempts": record.get("attempts") or 1,
        "error": error.strip().splitlines()[0] if error and error.strip() else None,
        "overrides": flat_overrides(job_settings(job_overrides(folder, record) or ())),
        "objective": objective.get("value"),
        **moments,
        "objective_name": name,
        "mode": mode,
        "data": data.get("name", ""),
        "simulated": data.get("simulated"),
        "metrics": record.get("metrics") or {},
        "epochs": epochs,
        "seconds": record.get("wall_s"),
        "checkpoint": checkpoints.get("best"),
    }


def _logged_scores(path: Path, metric: str, mode: str) -> tuple[dict[str, float | None], int | None]:
    """The last and the best score in a ``metrics.csv`` that is being written, and the epochs that are done."""
    logged = read_metrics(path) if path.is_file() else {}
    values, epochs = ([v for v in logged.get(key, ()) if math.isfinite(v)] for key in (metric, "epoch"))
    best = (max if mode == "max" else min)(values, default=None)
    return {"end": values[-1] if values else None, "peak": best}, int(max(epochs)) + 1 if epochs else None


def job_overrides(folder: Path, record: Mapping[str, Any]) -> list[str] | None:
    """A job's overrides; None if it was killed, or the disk was full, before they were written.

    Args:
        folder: the job's, in which Hydra writes them.
        record: its ``run.json``, which is written in one piece and holds them too; it may be empty.
    """
    import yaml

    if (words := record.get("overrides")) is not None:
        return words
    try:
        words = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return [str(word) for word in words] if isinstance(words, list) else None
