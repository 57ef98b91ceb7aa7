"""A sweep's jobs as settings, each over its seeds.

Seeds are a distribution. Beside mean and standard error stand its 10th, 50th and 90th percentile, of the monitored
metric at the *end* of training (the last validation) and at its *peak* (the best validation on the way), as the
msc-neuro thesis reports them: between the two lies what is lost by overfitting. They are percentiles of the values as
they are, linearly interpolated (numpy's default); where less is better, the 10th is the good end. The mean is that of
the saved checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from neuro_lightning.sweeps.results.collect import FAILED, MOMENTS, Job, varied

REPEATS = ("seed",)  # overrides that repeat an experiment, over which the summary averages
PERCENTS = (10, 50, 90)
SOURCES = {True: "simulated", False: "recorded"}


def summarize(jobs: list[Job]) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds: the best settings of each dataset first.

    Settings are the overrides that differ between jobs, but for the seed.

    Args:
        jobs: from :func:`~neuro_lightning.sweeps.results.collect.collect`.

    Returns:
        For each setting ``setting`` (the overrides), ``jobs``, ``n`` (finished with a finite objective), ``failed``
        (or diverged), ``mean``, ``sem`` (None below two), ``best``, ``p10_end``, ``p50_end``, ``p90_end``,
        ``p10_peak`` and so on (None without such values), ``seconds`` (their mean), ``metrics``, their means, and
        ``checkpoint``, that of the best job.
    """
    keys = setting_keys(jobs)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple(word(job["overrides"].get(key, "")) for key in keys), []).append(job)
    rows = [_summary(dict(zip(keys, setting, strict=True)), members) for setting, members in groups.items()]
    datasets = list(dict.fromkeys(row["data"] for row in rows if row["data"]))

    def place(row: dict[str, Any]) -> tuple[int, float]:
        dataset = datasets.index(row["data"]) if row["data"] else len(datasets)  # failed before it had data: last
        score = math.inf if row["mean"] is None else row["mean"]
        return dataset, -score if row["mode"] == "max" and row["mean"] is not None else score

    return sorted(rows, key=place)


def setting_keys(jobs: list[Job]) -> list[str]:
    """The overrides that make a setting: they differ between jobs, and are not the seed."""
    return [key for key in varied(jobs) if key not in REPEATS]


def _summary(setting: dict[str, str], members: list[Job]) -> dict[str, Any]:
    finished = [job for job in members if job["status"] == "finished" and job["objective"] is not None]
    values = [job["objective"] for job in finished]
    mode = next((job["mode"] for job in members if job["objective"] is not None), "max")
    names = list(dict.fromkeys(name for job in members for name in job["metrics"]))
    better = max if mode == "max" else min
    best = better(finished, key=lambda job: job["objective"], default=None)
    return {
        "setting": setting,
        "jobs": [job["job"] for job in members],
        "data": next((job["data"] for job in members if job["data"]), ""),
        "simulated": next((job["simulated"] for job in members if job["simulated"] is not None), None),
        "mode": mode,
        "n": len(values),
        "failed": sum(job["status"] in FAILED for job in members),
        "mean": mean(values),
        "sem": sem(values),
        "best": best["objective"] if best else None,
        "checkpoint": best["checkpoint"] if best else None,
        "job": best["job"] if best else "",
        **{
            f"p{percent}_{moment}": percentile([job[moment] for job in finished if job[moment] is not None], percent)
            for moment in MOMENTS
            for percent in PERCENTS
        },
        "seconds": mean(job["seconds"] for job in finished),
        "metrics": {name: mean(job["metrics"].get(name) for job in members) for name in names},
    }


def sources(jobs: list[Job]) -> list[str]:
    """``simulated``, ``recorded``, both or nothing: what the jobs' data are."""
    return sorted({SOURCES[job["simulated"]] for job in jobs if job["simulated"] is not None})


def objective_name(jobs: list[Job]) -> str:
    """What the sweep optimizes, such as ``val/co_bps``."""
    scored = [job for job in jobs if job["objective"] is not None] or jobs
    return next((job["objective_name"] for job in scored), "objective")


def counts(jobs: list[Job]) -> str:
    """How many jobs there are of each status, ``18 of 20 jobs finished, 1 failed, 1 running``."""
    kinds = [job["status"] for job in jobs]
    others = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds) - {"finished"}, key=str)]
    return ", ".join([f"{kinds.count('finished')} of {len(jobs)} jobs finished", *others])


def word(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def short(text: str) -> str:
    """A value for a table: of a number four digits, which are more than a search can tell apart."""
    try:
        return f"{float(text):.4g}" if not text.lstrip("+-").isdigit() else text
    except ValueError:
        return text


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def sem(values: list[float]) -> float | None:
    """The standard error of the mean, from the sample's standard deviation; None below two values."""
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1) / len(values))


def percentile(values: list[float], percent: float) -> float | None:
    """The value below which so many percent lie, linearly interpolated as in numpy; None without any."""
    if not values:
        return None
    ranked, place = sorted(values), percent / 100 * (len(values) - 1)
    low = int(place)
    return ranked[low] + (place - low) * (ranked[min(low + 1, len(values) - 1)] - ranked[low])
