"""The pictures of a sweep: the scores of its settings, their keys as parallel coordinates, the history of a search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.records import read_record_if_any
from neuro_lightning.artifacts.studies import quiet_optuna
from neuro_lightning.artifacts.sweep_jobs import Job
from neuro_lightning.display.table import NAMES, is_baseline
from neuro_lightning.metrics.catalog import axis_label
from neuro_lightning.sweeps.results.importance import Importance, scored_settings, study_of
from neuro_lightning.sweeps.results.summary import is_scored, objective_name, setting_name, summarize

PICTURE_FILE, COORDINATES_FILE, HISTORY_FILE = "sweep.png", "sweep_coordinates.png", "sweep_history.png"
TITLES = {
    PICTURE_FILE: "Scores of the settings",
    COORDINATES_FILE: "Parallel coordinates of the settings",
    HISTORY_FILE: "Scores by the number of settings",
}
MIN_SETTINGS = 3  # of parallel coordinates
MIN_HISTORY = 8
MAX_ROWS = 30  # settings in the picture of scores, the best ones
MAX_KEYS = 10


def draw(jobs: list[Job], folder: Path, importance: Importance | None) -> list[Path]:
    """Draw the settings of a sweep on one dataset.

    Scores always; parallel coordinates where two keys differ or more, the history from eight settings on.

    Args:
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.
        folder: of the sweep, where the pictures are written.
        importance: of the keys, where it is known; the most important ones are shown.

    Returns:
        The files; none where nothing but the seed differs or there are not two settings with a score.
    """
    keys, settings, scores = scored_settings(jobs)
    if len(settings) < 2 or not keys:
        return []
    written = [_draw_scores(jobs, folder)]
    if len(settings) < MIN_SETTINGS:
        return written
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna.visualization.matplotlib import plot_optimization_history, plot_parallel_coordinate

        mode = next(job["mode"] for job in jobs if is_scored(job))
        study, name = study_of(keys, settings, scores, mode), objective_name(jobs)
        title = _title(folder, len(settings), jobs)
        if len(keys) > 1:
            shown = list(dict.fromkeys([*(importance.shares if importance else ()), *keys]))[:MAX_KEYS]
            parallel = plot_parallel_coordinate(study, shown, target_name=name)
            for lines in parallel.collections:  # the worst settings would be white on white
                lines.set_cmap("viridis" if mode == "max" else "viridis_r")
            # Optuna sorts the keys, and cuts long names
            parallel.set_xticks(range(len(shown) + 1), [name, *sorted(shown)], rotation=25, ha="right")
            written.append(_save(parallel, folder / COORDINATES_FILE, title))
        if len(settings) >= MIN_HISTORY:
            history = plot_optimization_history(study, target_name=name)
            history.set_xlabel("setting")
            history.xaxis.get_major_locator().set_params(integer=True)
            written.append(_save(history, folder / HISTORY_FILE, title))
    return written


def _draw_scores(jobs: list[Job], folder: Path) -> Path:
    """The score of each setting, every seed a dot, beside the best baseline and the true rates."""
    from neuro_lightning.display.figures_sweep import settings_figure

    ranked = [row for row in summarize(jobs) if row["n"]][:MAX_ROWS]
    by_name = {job["job"]: job["objective"] for job in jobs if is_scored(job)}
    found = {setting_name(row): [by_name[job] for job in row["jobs"] if job in by_name] for row in ranked}
    split, _, metric = objective_name(jobs).partition("/")
    lower = ranked[0]["mode"] == "min"
    done = next(job for job in jobs if is_scored(job))
    lines, above = _lines(read_record_if_any(folder / done["job"]), split, metric, lower=lower)
    title = _title(folder, sum(row["n"] > 0 for row in summarize(jobs)), jobs, most=MAX_ROWS)
    simulated = any(job["simulated"] for job in jobs)
    look = {"title": title, "simulated": simulated, "lower_is_better": lower, "lines": lines, "above": above}
    figure = settings_figure(found, metric=f"{split} {axis_label(metric)}", **look)
    path = folder / PICTURE_FILE
    with atomic_path(path) as part:
        figure.savefig(part, format="png")
    return path


def _lines(record: dict[str, Any], split: str, metric: str, *, lower: bool) -> tuple[dict[str, float], list[str]]:
    """The best baseline, the true rates and the noise ceiling of the sweep's data; and the names of the latter two."""
    others = {**(record.get("baselines") or {}), **(record.get("references") or {}), "oracle": record.get("oracle")}
    scores = {who: ((by or {}).get(split) or {}).get(metric) for who, by in others.items()}
    known = {who: value for who, value in scores.items() if value is not None}
    baselines = {who: value for who, value in known.items() if is_baseline(who)}
    best = (min if lower else max)(baselines, key=lambda who: baselines[who], default=None)
    names = {who: NAMES.get(who, f"{who} baseline") for who in known if who == best or who not in baselines}
    return {name: known[who] for who, name in names.items()}, [name for who, name in names.items() if who != best]


def _title(folder: Path, n: int, jobs: list[Job], most: int | None = None) -> str:
    data = next((job["data"] for job in jobs if job["data"]), "")
    shown = f", the best {most} of" if most is not None and n > most else ","
    source = " (simulated data)" if most is None and any(job["simulated"] for job in jobs) else ""
    return f"Sweep {folder.resolve().name} on {data}{shown} {n} settings{source}"


def _save(axes: object, path: Path, title: str) -> Path:
    import matplotlib.pyplot as plt

    figure = (axes[0] if isinstance(axes, Sequence) else axes).figure
    figure.axes[0].set_title("")
    figure.suptitle(title)
    figure.set_size_inches(9, 5)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    return path
