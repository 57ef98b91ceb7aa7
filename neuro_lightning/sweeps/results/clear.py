"""Whether the best setting of a sweep is really better than the next: a line by the paired bootstrap over trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.sweep_jobs import Job
from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file
from neuro_lightning.display.table import number
from neuro_lightning.metrics.catalog import label
from neuro_lightning.sweeps.results.summary import is_scored, objective_name, setting_name, summarize

if TYPE_CHECKING:
    from neuro_lightning.functional.likelihood import SpikeSums

BITS = ("co_bps", "bps")
LONGEST = 40
"""Characters of a setting that are still read in a sentence."""


def is_best_clear(folder: str | Path, jobs: list[Job]) -> str | None:
    """A line on the difference of the best two settings; None where it cannot be told.

    It can be told of bits per spike on trials that are the same in all jobs of both. Scores of a setting are means over
    its seeds; the interval is over trials, not over seeds.

    Args:
        folder: the sweep's folder.
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.
    """
    split, _, metric = objective_name(jobs).partition("/")
    ranked = [row for row in summarize(jobs) if row["n"]]
    if metric not in BITS or len(ranked) < 2 or ranked[0]["data"] != ranked[1]["data"]:
        return None
    done = {job["job"] for job in jobs if is_scored(job)}
    try:
        sums = [_sums(Path(folder), [job for job in row["jobs"] if job in done], split) for row in ranked[:2]]
        if None in sums:
            return None
        from neuro_lightning.functional.paired_bootstrap import paired_bootstrap

        found = paired_bootstrap(*sums)
    except ValueError:  # of other trials
        return None
    best, second = map(_short_name, ranked[:2])
    seeds = " of these seeds" if max(row["n"] for row in ranked[:2]) > 1 else ""
    interval = f"95 % interval over trials{seeds} {number(found.low)} to {number(found.high)}"
    if found.is_clear:
        return f"{best} is better than {second} by {number(found.value)} {label(metric)} ({interval})"
    enough = f"; about {found.trials:.0f} such trials would tell" if found.trials < 1e6 else ""
    return f"{best} and {second} do not differ clearly: {number(found.value)} {label(metric)} ({interval}){enough}"


def _short_name(row: dict[str, Any]) -> str:
    """The setting in words; by its jobs' numbers, which stand in the table, where those are too many to read."""
    name, numbers = setting_name(row), ", ".join(job.partition("_")[0] for job in row["jobs"])
    if len(name) <= LONGEST:
        return name
    return f"the setting of jobs {numbers}" if len(row["jobs"]) > 1 else f"job {numbers}"


def _sums(folder: Path, jobs: list[str], split: str) -> SpikeSums | None:
    """The mean sums of a setting's jobs; None where a job kept none."""
    kept = [read_trial_scores(trial_scores_file(folder / job), split) for job in jobs]
    if None in kept:
        return None
    from neuro_lightning.metrics.trial_sums import as_sums, mean_of

    return mean_of([as_sums(arrays) for arrays in kept])
