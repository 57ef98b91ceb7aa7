"""The pictures of a sweep, drawn by Optuna: its settings as parallel coordinates, and the history of its scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.studies import quiet_optuna
from neuro_lightning.artifacts.sweep_jobs import Job
from neuro_lightning.sweeps.results.importance import Importance, scored_settings, study_of
from neuro_lightning.sweeps.results.summary import objective_name

PICTURE_FILE, HISTORY_FILE = "sweep.png", "sweep_history.png"
MIN_SETTINGS = 3
MAX_KEYS = 10


def draw(jobs: list[Job], folder: Path, importance: Importance | None) -> list[Path]:
    """Draw the settings of a sweep on one dataset.

    Args:
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.
        folder: where the pictures are written.
        importance: of the keys, where it is known; the most important ones are shown.

    Returns:
        The files; none where fewer than three settings have a score, or nothing but the seed differs.
    """
    keys, settings, scores = scored_settings(jobs)
    if len(settings) < MIN_SETTINGS or not keys:
        return []
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna.visualization.matplotlib import plot_optimization_history, plot_parallel_coordinate

        mode = next(job["mode"] for job in jobs if job["status"] == "finished" and job["objective"] is not None)
        study, name = study_of(keys, settings, scores, mode), objective_name(jobs)
        shown = list(dict.fromkeys([*(importance.shares if importance else ()), *keys]))[:MAX_KEYS]
        parallel = plot_parallel_coordinate(study, shown, target_name=name)
        for lines in parallel.collections:  # the worst settings would be white on white
            lines.set_cmap("viridis" if mode == "max" else "viridis_r")
        # Optuna sorts the keys, and cuts long names
        parallel.set_xticks(range(len(shown) + 1), [name, *sorted(shown)], rotation=25, ha="right")
        history = plot_optimization_history(study, target_name=name)
        history.set_xlabel("setting")
        history.xaxis.get_major_locator().set_params(integer=True)
        source = " (simulated data)" if any(job["simulated"] for job in jobs) else ""
        title = f"Sweep {folder.resolve().name}: {len(settings)} settings{source}"
        return [_save(parallel, folder / PICTURE_FILE, title), _save(history, folder / HISTORY_FILE, title)]


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
