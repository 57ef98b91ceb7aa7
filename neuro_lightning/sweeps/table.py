"""The table of a sweep: every job's ``run.json`` in one ``sweep.csv``, and a summary over seeds.

Seeds are a distribution. Beside mean and standard error stand its 10th, 50th and 90th percentile, of the monitored
metric at the *end* of training (the last validation) and at its *peak* (the best validation on the way), as the
msc-neuro thesis reports them: between the two lies what is lost by overfitting. They are percentiles of the values as
they are, linearly interpolated (numpy's default); where less is better, the 10th is the good end. The mean is that of
the saved checkpoints.

``python -m neuro_lightning.sweeps.table FOLDER`` makes it again, for a sweep that was killed, say.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuro_lightning.errors import DataError
from neuro_lightning.records import FILE_NAME, flat_overrides, read_record
from neuro_lightning.report.table import LABELS, number, print_table, relative

TABLE_FILE = "sweep.csv"
MAX_ROWS = 40
MAX_WIDTH = 120  # of what is printed, in characters
REPEATS = ("seed",)  # overrides that repeat an experiment, over which the summary averages
MOMENTS = ("end", "peak")  # of training, at which the monitored metric is compared over seeds
PERCENTS = (10, 50, 90)
SOURCES = {True: "simulated", False: "recorded"}
MIN_SEEDS = 3  # below, percentiles are not worth showing


def collect(folder: str | Path) -> list[dict[str, Any]]:
    """The jobs of a sweep in the order of their numbers, whatever became of them.

    Args:
        folder: the sweep's folder, with one folder for each job.

    Returns:
        For each job ``job`` (its folder), ``status`` (finished, failed, running), ``error``, ``overrides`` by key,
        ``objective`` (None without), ``end`` and ``peak`` (None in records that do not tell), ``objective_name``,
        ``mode`` (min or max), ``data``, ``simulated``, ``metrics`` by name, ``seconds`` and ``checkpoint``.

    Raises:
        DataError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give that of a sweep, such as multirun/2026-01-31_12-00-00")
    jobs = {path.parent for path in folder.glob(f"*/{FILE_NAME}")}
    jobs |= {path.parents[1] for path in folder.glob("*/.hydra/overrides.yaml")}
    return [_job(path) for path in sorted(jobs, key=_job_number)]


def _job_number(path: Path) -> tuple[float, str]:
    number = path.name.split("_")[0]
    return (int(number) if number.isdigit() else math.inf, path.name)


def _job(folder: Path) -> dict[str, Any]:
    try:
        record = read_record(folder)
    except DataError as error:
        missing = not (folder / FILE_NAME).is_file()
        record = {"status": "running" if missing else "failed", "error": None if missing else str(error)}
    objective, data = record.get("objective") or {}, record.get("data") or {}
    error = record.get("error")
    return {
        "job": folder.name,
        "status": record.get("status"),
        "error": error.strip().splitlines()[0] if error else None,
        "overrides": flat_overrides(record.get("overrides") or []),
        "objective": objective.get("value"),
        **{moment: objective.get(moment) for moment in MOMENTS},
        "objective_name": objective.get("name", "objective"),
        "mode": objective.get("mode", "max"),
        "data": data.get("name", ""),
        "simulated": data.get("simulated"),
        "metrics": record.get("metrics") or {},
        "seconds": record.get("wall_s"),
        "checkpoint": (record.get("checkpoints") or {}).get("best"),
    }


def summarize(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds: the best settings of each dataset first.

    Settings are the overrides that differ between jobs, but for the seed.

    Args:
        jobs: from :func:`collect`.

    Returns:
        For each setting ``setting`` (the overrides), ``jobs``, ``n`` (finished with a finite objective), ``failed``,
        ``mean``, ``sem`` (None below two), ``best``, ``p10_end``, ``p50_end``, ``p90_end``, ``p10_peak`` and so on
        (None without such values), and ``metrics``, their means.
    """
    keys = [key for key in varied(jobs) if key not in REPEATS]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(tuple(str(job["overrides"].get(key, "")) for key in keys), []).append(job)
    rows = [_summary(dict(zip(keys, setting, strict=True)), members) for setting, members in groups.items()]
    datasets = list(dict.fromkeys(row["data"] for row in rows if row["data"]))

    def place(row: dict[str, Any]) -> tuple[int, float]:
        dataset = datasets.index(row["data"]) if row["data"] else len(datasets)  # failed before it had data: last
        score = math.inf if row["mean"] is None else row["mean"]
        return dataset, -score if row["mode"] == "max" and row["mean"] is not None else score

    return sorted(rows, key=place)


def _summary(setting: dict[str, str], members: list[dict[str, Any]]) -> dict[str, Any]:
    finished = [job for job in members if job["status"] == "finished" and job["objective"] is not None]
    values = [job["objective"] for job in finished]
    mode = next((job["mode"] for job in members if job["objective"] is not None), "max")
    names = list(dict.fromkeys(name for job in members for name in job["metrics"]))
    return {
        "setting": setting,
        "jobs": [job["job"] for job in members],
        "data": next((job["data"] for job in members if job["data"]), ""),
        "simulated": next((job["simulated"] for job in members if job["simulated"] is not None), None),
        "mode": mode,
        "n": len(values),
        "failed": sum(job["status"] == "failed" for job in members),
        "mean": mean(values),
        "sem": sem(values),
        "best": (max if mode == "max" else min)(values, default=None),
        **{
            f"p{percent}_{moment}": percentile([job[moment] for job in finished if job[moment] is not None], percent)
            for moment in MOMENTS
            for percent in PERCENTS
        },
        "metrics": {name: mean(job["metrics"].get(name) for job in members) for name in names},
    }


def varied(jobs: list[dict[str, Any]]) -> list[str]:
    """The overrides that differ between jobs, in the order in which they were typed."""
    keys = list(dict.fromkeys(key for job in jobs for key in job["overrides"]))
    return [key for key in keys if len({str(job["overrides"].get(key)) for job in jobs}) > 1]


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


# ---- what is written and printed


def write_table(folder: str | Path) -> Path | None:
    """Write ``sweep.csv``: one row for each job, with its setting's number of seeds, mean, percentiles and so on.

    Args:
        folder: the sweep's folder.

    Returns:
        The file; None while there are no jobs.

    Raises:
        DataError: no such folder.
    """
    jobs = collect(folder)
    if not jobs:
        return None
    setting = {job: row for row in summarize(jobs) for job in row["jobs"]}
    over_seeds = ["n", "mean", "sem", "best", *(f"p{percent}_{moment}" for moment in MOMENTS for percent in PERCENTS)]
    rows = []
    for job in jobs:
        row = {"job": job["job"], "status": job["status"], **job["overrides"], "simulated": job["simulated"]}
        row |= {key: job[key] for key in ("objective", *MOMENTS, "seconds")}
        row |= {f"seeds_{key}": setting[job["job"]][key] for key in over_seeds}
        rows.append(row | job["metrics"] | {"checkpoint": job["checkpoint"], "error": job["error"]})
    last = ("checkpoint", "error")
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in last]
    path = Path(folder) / TABLE_FILE
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, [*columns, *last], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def print_summary(folder: str | Path) -> None:
    """Print the summary over seeds, the jobs that failed, and where the whole table lies.

    Raises:
        DataError: no such folder.
    """
    jobs = collect(folder)
    finished = sum(job["status"] == "finished" for job in jobs)
    name = next((job["objective_name"] for job in jobs if job["objective"] is not None), "objective")
    columns, rows = summary_rows(jobs, name)
    data = "".join(f" on {source} data" for source in sources(jobs)) if len(sources(jobs)) == 1 else ""
    title = f"Sweep: {finished} of {len(jobs)} jobs finished; {name}{data}, of the saved checkpoints over seeds"
    print_table(title, columns, rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        print(f"... and {len(rows) - MAX_ROWS} more settings in {TABLE_FILE}")
    for job in jobs:
        if job["status"] != "finished":
            print(f"{job['job']}: {job['status']}{': ' + job['error'] if job['error'] else ''}")
    print(f"table       {relative(Path(folder) / TABLE_FILE)}", flush=True)


def summary_rows(jobs: list[dict[str, Any]], objective: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the summary, as text, not wider than :data:`MAX_WIDTH` if that can be.

    Percentiles are shown as ``10th/50th/90th`` where a setting has three seeds or more. Other metrics of the
    objective's split follow as means, as many as there is room for; all of them are in ``sweep.csv``.
    """
    summary = summarize(jobs)
    settings = list(summary[0]["setting"]) if summary else []
    cells = {name: [row["setting"][name] for row in summary] for name in settings}
    if len(sources(jobs)) > 1:  # else the title says it
        cells["source"] = [SOURCES.get(row["simulated"], "") for row in summary]
    cells["n"] = [str(row["n"]) for row in summary]
    if any(row["failed"] for row in summary):
        cells["failed"] = [str(row["failed"]) for row in summary]
    for name, key in (("mean", "mean"), ("s.e.m.", "sem"), ("best", "best")):
        cells[name] = [number(row[key]) for row in summary]
    for moment in MOMENTS if any(row["n"] >= MIN_SEEDS for row in summary) else ():
        if any(row[f"p50_{moment}"] is not None for row in summary):
            cells[f"{moment} p10/p50/p90"] = [_spread(row, moment) for row in summary]
    split = objective.split("/")[0]
    known = {name for row in summary for name, value in row["metrics"].items() if value is not None}
    for metric, label in LABELS.items():
        key = f"{split}/{metric}"
        if key in known and key != objective:
            column = [number(row["metrics"].get(key)) for row in summary]
            if _width([*cells.items(), (label, column)]) <= MAX_WIDTH:
                cells[label] = column
    return list(cells), [list(row) for row in zip(*cells.values(), strict=True)]


def _spread(row: dict[str, Any], moment: str) -> str:
    values = [row[f"p{percent}_{moment}"] for percent in PERCENTS]
    return "-" if row["n"] < MIN_SEEDS or None in values else "/".join(number(value, 3) for value in values)


def sources(jobs: list[dict[str, Any]]) -> list[str]:
    """``simulated``, ``recorded``, both or nothing: what the jobs' data are."""
    return sorted({SOURCES[job["simulated"]] for job in jobs if job["simulated"] is not None})


def _width(columns: Iterable[tuple[str, list[str]]]) -> int:
    return sum(2 + max(map(len, (name, *cells))) for name, cells in columns) - 2


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m neuro_lightning.sweeps.table FOLDER")
    try:
        write_table(sys.argv[1])
        print_summary(sys.argv[1])
    except DataError as problem:
        sys.exit(f"error: {problem}")
