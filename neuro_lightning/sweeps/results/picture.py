"""The picture of a sweep: its settings as parallel coordinates, ``sweep.png``."""

from __future__ import annotations

from pathlib import Path

from neuro_lightning.sweeps.results.collect import Job
from neuro_lightning.sweeps.results.importance import Importance, scored_settings
from neuro_lightning.sweeps.results.summary import objective_name

MIN_SETTINGS = 3


def draw(jobs: list[Job], path: Path, importance: Importance | None) -> Path | None:
    """Draw the settings of a sweep on one dataset.

    The keys that matter most stand next to the objective.

    Args:
        jobs: from :func:`~neuro_lightning.sweeps.results.collect.collect`.
        path: the file.
        importance: of the keys, where it is known.

    Returns:
        The file; None where fewer than three settings have a score, or nothing but the seed differs.
    """
    keys, settings, scores, _ = scored_settings(jobs)
    if len(settings) < MIN_SETTINGS or not keys:
        return None
    from neuro_lightning.report.figures_sweep import MAX_KEYS, parallel_coordinates

    stopped = [job["overrides"] for job in jobs if job["status"] in ("pruned", "paused")]
    scored = [job for job in jobs if job["status"] == "finished" and job["objective"] is not None]
    shares = importance.shares if importance else {}
    shown = [*shares, *(key for key in keys if key not in shares)][:MAX_KEYS]
    figure = parallel_coordinates(
        settings,
        scores,
        keys=shown[::-1] if shares else shown,
        objective=objective_name(jobs),
        mode=scored[0]["mode"],
        stopped=stopped,
        shares=shares,
        title=f"Sweep {path.parent.resolve().name}",
        simulated=any(job["simulated"] for job in jobs),
    )
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)
    return path
