"""The page of a sweep: settings by rank, pictures, jobs, and what failed and why."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.sweep_jobs import FAILED, Job, collect
from neuro_lightning.errors import DataError
from neuro_lightning.metrics.catalog import METRICS, label
from neuro_lightning.pages.parts import Page, Picture, Section, Table
from neuro_lightning.pages.run_page import SIMULATED
from neuro_lightning.settings.quoting import short
from neuro_lightning.sweeps.results.importance import Importance
from neuro_lightning.sweeps.results.picture import TITLES
from neuro_lightning.sweeps.results.summary import counts, objective_name, setting_keys, setting_name, summarize
from neuro_lightning.sweeps.results.table import finish


def sweep_page(folder: Path) -> Page:
    """The page of a sweep, also of one that still runs.

    Raises:
        DataError: no jobs there.
    """
    jobs = collect(folder)
    if not jobs:
        raise DataError(f"{folder}: no jobs there; give the folder of a sweep, such as multirun/...")
    end = finish(folder)  # of what is there by now
    drawn = {path.name for path in end.files}
    simulated = any(job["simulated"] for job in jobs)
    data = ", ".join(dict.fromkeys(job["data"] for job in jobs if job["data"]))
    facts = [("jobs", counts(jobs)), ("data", data), ("objective", objective_name(jobs)), ("folder", str(folder))]
    best = [path for path in sorted(folder.glob("best*.yaml"))]
    facts += [("best setting", f"python train.py experiment={shlex.quote(str(path))}") for path in best]
    pictures = [Picture.of_file(folder / name, title) for name, title in TITLES.items() if name in drawn]
    sections = [
        settings_section(jobs, end.clear),
        Section("Pictures", "pictures", pictures=pictures),
        importance_section(end.importance),
        jobs_section("Jobs", "jobs", [job for job in jobs if job["status"] not in FAILED]),
        jobs_section("Failed", "failed", [job for job in jobs if job["status"] in FAILED]),
    ]
    title, known = f"Sweep {folder.resolve().name}", [fact for fact in facts if fact[1]]
    return Page(title, known, sections, SIMULATED if simulated else "")


def settings_section(jobs: list[Job], clear: str | None) -> Section:
    """Settings by rank, over their seeds, and a line on whether the best is better than the next."""
    section, rows = Section("Settings, best first", "settings"), [row for row in summarize(jobs) if row["n"]]
    if not rows:
        section.lines.append("No job has finished yet.")
        return section
    section.lines += [f"{clear}."] if clear else []
    split = objective_name(jobs).partition("/")[0]
    further = [name for name in METRICS if any(f"{split}/{name}" in row["metrics"] for row in rows)]
    further = [name for name in further if f"{split}/{name}" != objective_name(jobs) and METRICS[name].shown]
    columns = ["setting", "runs", "mean", "s.e.m.", "best", "time (s)", *map(label, further)]
    table = [
        [setting_name(row), row["n"], row["mean"], row["sem"], row["best"], _whole(row["seconds"]),
         *(row["metrics"].get(f"{split}/{name}") for name in further)]
        for row in rows
    ]  # fmt: skip
    section.tables.append(Table(columns, table))
    return section


def importance_section(found: Importance | None) -> Section:
    """Which keys mattered, where that can be told."""
    section = Section("What mattered", "importance")
    if found is None:
        return section
    section.lines.append(found.remark if found.shares else f"Not shown: {found.remark}.")
    if found.shares:
        section.tables.append(Table(["key", "importance"], [list(pair) for pair in found.shares.items()], digits=2))
    return section


def jobs_section(title: str, name: str, jobs: list[Job]) -> Section:
    """Every job with its settings, how it ended and its score."""
    section = Section(title, name)
    if not jobs:
        return section
    keys = [*setting_keys(jobs), *(["seed"] if any("seed" in job["overrides"] for job in jobs) else [])]
    rows: list[list[Any]] = []
    for job in jobs:
        settings = [short(job["overrides"].get(key, "")) for key in keys]
        score = job["objective"] if job["objective"] is not None else job["peak"]
        rows.append([job["job"], *settings, job["status"], score, _whole(job["seconds"]), job["error"] or ""])
    columns = ["job", *keys, "status", "score", "time (s)", "error"]
    if not any(job["error"] for job in jobs):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    section.tables.append(Table(columns, rows))
    return section


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
