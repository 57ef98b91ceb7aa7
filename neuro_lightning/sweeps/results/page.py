"""The page of a sweep, ``sweep.md``: settings by their rank, then jobs that run, were stopped or failed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.sweep_jobs import FAILED, Job
from neuro_lightning.display.table import number
from neuro_lightning.settings.quoting import short, to_override
from neuro_lightning.sweeps.results.picture import TITLES
from neuro_lightning.sweeps.results.summary import counts, objective_name, score_cells, setting_keys, sources

PAGE_FILE = "sweep.md"
# further tables of jobs: which statuses they have, and their columns
SECTIONS = {
    "Running": (("running",), ("best score", "epochs")),
    "Stopped before their end": (("pruned", "paused", "interrupted"), ("status", "best score", "epochs", "time")),
    "Failed": (FAILED, ("attempts", "error")),
}
BETTER = {"max": "higher is better", "min": "lower is better"}
BAR = 20  # characters of the longest bar


def page(
    folder: str | Path,
    jobs: list[Job],
    summary: list[dict[str, Any]],
    *,
    importance: Any = None,
    best: Sequence[Path] = (),
    pictures: Sequence[Path] = (),
    clear: str | None = None,
) -> str:
    """The page as Markdown.

    Args:
        folder: the sweep's folder; links are relative to it.
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.
        summary: from :func:`~neuro_lightning.sweeps.results.summary.summarize`.
        importance: of its keys, an :class:`~neuro_lightning.sweeps.results.importance.Importance`, at the sweep's end.
        best: the experiment configs that were written of it.
        pictures: files that :func:`~neuro_lightning.sweeps.results.picture.draw` made.
        clear: a line on whether the best setting is better than the next.
    """
    settings = setting_keys(jobs)
    parts = [*_head(jobs, settings, Path(folder), best), *_settings(Path(folder), jobs, summary)]
    parts += [f"{clear}."] if clear else []
    keys = [*settings, *(["seed"] if any("seed" in job["overrides"] for job in jobs) else [])]
    for title, (statuses, columns) in SECTIONS.items():
        rows = [
            [job["job"], *(short(job["overrides"].get(key, "")) for key in keys), *map(_job_cells(job).get, columns)]
            for job in sorted(jobs, key=_rank)
            if job["status"] in statuses
        ]
        if rows:
            parts += [f"## {title}", _table(["job", *(f"`{key}`" for key in keys), *columns], rows)]
    if pictures:
        parts += ["## Pictures", *(f"![{TITLES[picture.name]}]({picture.name})" for picture in pictures)]
    parts += importance_lines(importance)
    return "\n\n".join(parts) + "\n"


def importance_lines(importance: Any) -> list[str]:
    """The importance of keys, or why it is not shown; nothing before the sweep's end."""
    if importance is None:
        return []
    title = "## What mattered"
    if not importance.shares:
        return [title, f"Not shown: {importance.remark}."]
    top = max(importance.shares.values())
    rows = [
        [f"`{key}`", f"{share:.2f}", "█" * max(round(BAR * share / top), 0) or "·"]
        for key, share in importance.shares.items()
    ]
    return [title, _table(["key", "importance", ""], rows), importance.remark]


def _head(jobs: list[Job], settings: list[str], folder: Path, best: Sequence[Path]) -> list[str]:
    name, mode = objective_name(jobs), next((job["mode"] for job in jobs if job["objective"] is not None), "max")
    data = " and ".join(f"**{source}**" for source in sources(jobs)) or "unknown"
    lines = [
        f"# Sweep {folder.resolve().name}",
        f"{counts(jobs)}. The objective is `{name}` ({BETTER[mode]}) of the saved checkpoints, on {data} data. "
        f"Written {datetime.now():%Y-%m-%d %H:%M:%S}.",
    ]
    shared = {key: value for key, value in jobs[0]["overrides"].items() if key not in settings}
    shared = {key: value for key, value in shared.items() if all(key in job["overrides"] for job in jobs)}
    words = [f"{key}={to_override(value)}" for key, value in shared.items() if key != "seed" or len(jobs) == 1]
    if words:
        lines.append(f"Every job: `{' '.join(words)}`")
    best = [shlex.quote(os.path.relpath(path)) for path in best]
    lines += [f"The best setting runs with `python train.py experiment={path}`" for path in best]
    return lines


def _settings(folder: Path, jobs: list[Job], summary: list[dict[str, Any]]) -> list[str]:
    """A table for each dataset: scores on two datasets are no ranking."""
    ranked = [row for row in summary if row["n"]]
    datasets = list(dict.fromkeys(row["data"] for row in ranked))
    parts = []
    for dataset in datasets:
        rows = [row for row in ranked if row["data"] == dataset]
        parts.append("## Settings" + (f" on {dataset}" if len(datasets) > 1 else "") + ", best first")
        parts.append(_ranking(folder, rows, mixed=len(sources(jobs)) > 1))
    return parts or ["## Settings", "No job has finished yet."]


def _ranking(folder: Path, rows: list[dict[str, Any]], *, mixed: bool) -> str:
    cells = {"#": [str(place) for place, _ in enumerate(rows, start=1)]}
    cells |= {f"`{key}`": [short(row["setting"][key]) for row in rows] for key in rows[0]["setting"]}
    cells |= score_cells(rows, mixed=mixed)
    cells["time"] = [clock(row["seconds"]) for row in rows]
    cells["jobs"] = [", ".join(name.split("_")[0] for name in row["jobs"]) for row in rows]
    cells["best checkpoint"] = [_link(folder, row["checkpoint"]) for row in rows]
    return _table(list(cells), list(zip(*cells.values(), strict=True)))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _rank(job: Job) -> float:
    score = _score(job)
    return float("inf") if score is None else -score if job["mode"] == "max" else score


def _score(job: Job) -> float | None:
    return job["peak"] if job["objective"] is None else job["objective"]


def _job_cells(job: Job) -> dict[str, str]:
    return {
        "status": job["status"],
        "attempts": str(job["attempts"]),
        "best score": number(_score(job)),
        "epochs": "-" if job["epochs"] is None else str(job["epochs"]),
        "time": clock(job["seconds"]),
        "error": job["error"] or job["status"],
    }


def clock(seconds: float | None) -> str:
    """``3.2s``, ``4:05`` or ``2:00:00``; ``-`` for what is unknown."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _link(folder: Path, checkpoint: str | None) -> str:
    if not checkpoint:
        return "-"
    path = Path(os.path.relpath(checkpoint, folder) if Path(checkpoint).is_absolute() else checkpoint)
    return f"[{path.name}](<{path.as_posix()}>)"
