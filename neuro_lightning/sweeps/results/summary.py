"""A sweep's jobs as settings, each over its seeds.

Beside the mean and standard error over seeds stand their 10th, 50th and 90th percentile, of the monitored metric at the
*end* of training (the last validation) and at its *peak* (the best validation on the way), as the msc-neuro thesis
reports them: between the two lies what is lost by overfitting. Percentiles are of the values as they are, linearly
interpolated; where less is better, the 10th is the good end. The mean is that of the saved checkpoints.
"""

from __future__ import annotations

import math
from typing import Any

from neuro_lightning.artifacts.sweep_jobs import FAILED, MOMENTS, Job, varied_keys
from neuro_lightning.display.table import number
from neuro_lightning.settings.quoting import settings_in_words, to_override

REPEATS = ("seed",)  # overrides that repeat an experiment, over which the summary averages
PERCENTS = (10, 50, 90)
MIN_SEEDS = 3  # below, percentiles are not worth showing
SOURCES = {True: "simulated", False: "recorded"}


def summarize(jobs: list[Job]) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds: the best settings of each dataset first.

    Settings are the overrides that differ between jobs, without the seed.

    Args:
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.

    Returns:
        For each setting ``setting`` (the overrides by key, empty text for one without), ``jobs``, ``n`` (finished with
        a finite objective), ``failed`` (or diverged), ``mean``, ``sem`` (None below two), ``best``, ``p10_end``,
        ``p50_end``, ``p90_end``, ``p10_peak`` and so on (None without such values), ``seconds`` (their mean),
        ``metrics``, their means, and ``checkpoint``, that of the best job.
    """
    keys = setting_keys(jobs)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple(to_override(job["overrides"].get(key, "")) for key in keys), []).append(job)
    rows = []
    for members, numbers in zip(groups.values(), statistics(list(groups.values())), strict=True):
        finished = [job for job in members if is_scored(job)]
        mode = next((job["mode"] for job in members if job["objective"] is not None), "max")
        best = (max if mode == "max" else min)(finished, key=lambda job: job["objective"], default={})
        rows.append({
            "setting": {key: members[0]["overrides"].get(key, "") for key in keys},
            "jobs": [job["job"] for job in members],
            "data": next((job["data"] for job in members if job["data"]), ""),
            "simulated": next((job["simulated"] for job in members if job["simulated"] is not None), None),
            "mode": mode,
            "n": len(finished),
            "failed": sum(job["status"] in FAILED for job in members),
            "best": best.get("objective"),
            "checkpoint": best.get("checkpoint"),
            "job": best.get("job", ""),
            **numbers,
        })  # fmt: skip
    datasets = [*dict.fromkeys(row["data"] for row in rows if row["data"]), ""]  # failed before it had data: last

    def rank(row: dict[str, Any]) -> tuple[int, float]:
        sign = -1 if row["mode"] == "max" else 1
        return datasets.index(row["data"]), math.inf if row["mean"] is None else sign * row["mean"]

    return sorted(rows, key=rank)


def statistics(groups: list[list[Job]]) -> list[dict[str, Any]]:
    """Mean, standard error and percentiles of the jobs of each group; None for what is unknown."""
    import pandas as pd

    group = [i for i, members in enumerate(groups) for _ in members]
    jobs = [job for members in groups for job in members]
    scored = [job if is_scored(job) else {} for job in jobs]
    done = pd.DataFrame(scored, columns=["objective", *MOMENTS, "seconds"], dtype=float).groupby(group)
    found = pd.DataFrame({"mean": done["objective"].mean(), "sem": done["objective"].sem()})
    for moment in MOMENTS:
        for percent in PERCENTS:
            found[f"p{percent}_{moment}"] = done[moment].quantile(percent / 100)
    found["seconds"] = done["seconds"].mean()
    means = pd.DataFrame([job["metrics"] for job in jobs], dtype=float).groupby(group).mean()
    known, metrics = (table.astype(object).where(table.notna(), None) for table in (found, means))
    return [{**known.loc[i], "metrics": dict(metrics.loc[i])} for i in known.index]


def is_scored(job: Job) -> bool:
    """Whether a job has finished with a score."""
    return job["status"] == "finished" and job["objective"] is not None


def score_cells(rows: list[dict[str, Any]], *, mixed: bool) -> dict[str, list[str]]:
    """The columns of scores in the terminal and on the page: how many jobs, and what they scored.

    Percentiles are shown as ``10th/50th/90th`` where a setting has three seeds or more.

    Args:
        rows: from :func:`summarize`, with a score.
        mixed: whether some data of the sweep are simulated and some recorded; else its title says which.
    """
    cells = {}
    if mixed:
        cells["source"] = [SOURCES.get(row["simulated"], "") for row in rows]
    seeds = any(row["n"] > 1 for row in rows)
    if seeds:
        cells["n"] = [str(row["n"]) for row in rows]
    if any(row["failed"] for row in rows):
        cells["failed"] = [str(row["failed"]) for row in rows]
    for name, key in (("mean", "mean"), ("s.e.m.", "sem"), ("best", "best")) if seeds else (("score", "mean"),):
        cells[name] = [number(row[key]) for row in rows]
    for moment in MOMENTS if any(row["n"] >= MIN_SEEDS for row in rows) else ():
        if any(row[f"p50_{moment}"] is not None for row in rows):
            cells[f"{moment} p10/p50/p90"] = [_spread(row, moment) for row in rows]
    return cells


def _spread(row: dict[str, Any], moment: str) -> str:
    values = [row[f"p{percent}_{moment}"] for percent in PERCENTS]
    return "-" if row["n"] < MIN_SEEDS or None in values else "/".join(number(value, 3) for value in values)


def setting_keys(jobs: list[Job]) -> list[str]:
    """The overrides that make a setting: they differ between jobs, and are not the seed."""
    return [key for key in varied_keys([job["overrides"] for job in jobs]) if key not in REPEATS]


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


def setting_name(row: dict[str, Any]) -> str:
    """A setting's overrides in a line; ``the default`` where it has none."""
    return settings_in_words(row["setting"]) or "the default"
