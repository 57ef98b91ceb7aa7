"""The table of a sweep: every job in ``sweep.csv``, the settings by their rank in ``sweep.md`` and in the terminal.

Both files are written after every job, from whatever process it ran in; at the end come the importance of the keys,
a picture of all settings and the best one as an experiment config.

``python -m neuro_lightning.sweeps.results.table FOLDER`` makes all of it again, for a sweep that was killed, say.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.lines import WIDTH, say
from neuro_lightning.artifacts.locks import locked
from neuro_lightning.artifacts.sweep_jobs import FAILED, MOMENTS, Job, collect
from neuro_lightning.display.table import fitting_columns, number, print_table, relative, table_width
from neuro_lightning.errors import DataError, errors_in_one_line
from neuro_lightning.metrics.catalog import METRICS, label, shown_metrics
from neuro_lightning.settings.quoting import short
from neuro_lightning.sweeps.results.page import PAGE_FILE, clock, page
from neuro_lightning.sweeps.results.summary import (
    PERCENTS,
    counts,
    objective_name,
    score_cells,
    sources,
    summarize,
)

if TYPE_CHECKING:
    from neuro_lightning.sweeps.results.importance import Importance

TABLE_FILE = "sweep.csv"
LOCK_FILE = ".sweep.lock"
PATIENCE = 10.0  # seconds for which a process waits for another one that writes the table
MAX_ROWS = 10
FIRST_SCORES = {"source", "n", "failed", "mean", "score"}  # the first of them follows the settings
MAX_PROBLEMS = 5  # jobs without a score that the terminal names


@dataclass(frozen=True)
class SweepEnd:
    """What is written and computed once, at a sweep's end.

    Attributes:
        files: most important first; none while there are no jobs.
        clear: whether the best setting is better than the next, in words; None where it cannot be told.
        importance: of the keys; None where it cannot be told.
    """

    files: list[Path] = field(default_factory=list)
    clear: str | None = None
    importance: Importance | None = None


def write_table(folder: str | Path, **extras: Any) -> Path | None:
    """Write ``sweep.csv`` and ``sweep.md`` anew, each in one piece.

    ``sweep.csv`` has one row for each job, with its setting's number of seeds, mean, percentiles and so on.

    Args:
        folder: the sweep's folder.
        extras: what the page gets at the sweep's end, see :func:`~neuro_lightning.sweeps.results.page.page`.

    Returns:
        ``sweep.csv``; None while there are no jobs.

    Raises:
        DataError: no such folder.
    """
    folder = Path(folder)
    if not collect(folder):
        return None
    # else a process that read the jobs earlier may write them later; nobody waits for long
    with locked(folder / LOCK_FILE, PATIENCE):
        jobs = collect(folder)
        summary = summarize(jobs)
        texts = {TABLE_FILE: _csv(jobs, summary), PAGE_FILE: page(folder, jobs, summary, **extras)}
        for name, text in texts.items():
            with atomic_path(folder / name) as part:
                part.write_text(text)
    return folder / TABLE_FILE


def finish(folder: str | Path) -> SweepEnd:
    """Write all that a sweep leaves: table and page, with what mattered, the picture and the best setting's config.

    Args:
        folder: the sweep's folder.

    Raises:
        DataError: no such folder.
    """
    from neuro_lightning.sweeps.results.best import write_best
    from neuro_lightning.sweeps.results.clear import is_best_clear
    from neuro_lightning.sweeps.results.importance import importance
    from neuro_lightning.sweeps.results.picture import PICTURE_FILE, draw

    folder = Path(folder)
    if not (jobs := collect(folder)):
        return SweepEnd()
    mattered, pictures = None, []
    if len({job["data"] for job in jobs if job["data"]}) == 1:  # scores on two datasets do not compare
        mattered = _if_possible("the importance of keys", importance, jobs)
        pictures = _if_possible(PICTURE_FILE, draw, jobs, folder, mattered) or []
    best = _if_possible("best.yaml", write_best, folder, jobs) or []
    clear = _if_possible("the best two settings' difference", is_best_clear, folder, jobs)
    write_table(folder, importance=mattered, best=best, pictures=pictures, clear=clear)
    return SweepEnd([folder / TABLE_FILE, folder / PAGE_FILE, *best, *pictures], clear, mattered)


def _if_possible(what: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; an error is printed, so that a sweep has its table also when a picture cannot be drawn."""
    try:
        return make(*arguments)
    except Exception as error:
        print(f"{what} could not be made: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return None


def _csv(jobs: list[Job], summary: list[dict[str, Any]]) -> str:
    import pandas as pd

    setting = {job: row for row in summary for job in row["jobs"]}
    over_seeds = ["n", "mean", "sem", "best", *(f"p{percent}_{moment}" for moment in MOMENTS for percent in PERCENTS)]
    rows = []
    for job in jobs:
        row = {key: job[key] for key in ("job", "status", "attempts")} | job["overrides"]
        row |= {key: job[key] for key in ("simulated", "objective", *MOMENTS, "epochs", "seconds")}
        row |= {f"seeds_{key}": setting[job["job"]][key] for key in over_seeds} | job["metrics"]
        rows.append(row | {"checkpoint": job["checkpoint"], "error": job["error"]})
    last = ["checkpoint", "error"]
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in last]
    frame = pd.DataFrame(rows, columns=[*columns, *last], dtype=object)  # whole numbers stay whole beside gaps
    return frame.to_csv(index=False, lineterminator="\n")


# ---- what is printed


def print_summary(folder: str | Path, end: SweepEnd | None = None) -> None:
    """Print the best settings over their seeds, the jobs without a score, and where everything lies.

    Args:
        folder: the sweep's folder.
        end: from :func:`finish`; None of a sweep that was stopped.

    Raises:
        DataError: no such folder.
    """
    folder, jobs, end = Path(folder), collect(folder), end or SweepEnd()
    name = objective_name(jobs)
    columns, rows, left_out = summary_rows(jobs, name)
    data = "".join(f" on {source} data" for source in sources(jobs)) if len(sources(jobs)) == 1 else ""
    over = " over seeds" if "n" in columns else ""
    title = f"Sweep: {counts(jobs)}; {name}{data}, of the saved checkpoints{over}"
    if rows:
        print_table(title, columns, rows[:MAX_ROWS], names=min(map(columns.index, set(columns) & FIRST_SCORES)))
    else:
        say(f"\n{title}")
    if len(rows) > MAX_ROWS:
        print(f"... and {len(rows) - MAX_ROWS} more settings in {PAGE_FILE}")
    if left_out:
        print(f"{left_out} more keys that vary are in {PAGE_FILE}")
    if end.clear:
        say(end.clear)
    print()
    bad = [job for job in jobs if job["status"] in (*FAILED, "running", "interrupted")]
    for job in bad[:MAX_PROBLEMS]:
        say(f"{job['job']}: {job['status']}{': ' + job['error'] if job['error'] else ''}", 2)
    if len(bad) > MAX_PROBLEMS:
        print(f"... and {len(bad) - MAX_PROBLEMS} more such jobs in {PAGE_FILE}")
    best = [path for path in end.files if path.suffix == ".yaml"]
    for path in best:
        print(f"best        python train.py experiment={shlex.quote(relative(path))}")
    for name, file in (("picture", "sweep.png"), ("page", PAGE_FILE), ("table", TABLE_FILE)):
        if folder / file in end.files or (not end.files and file == TABLE_FILE):
            print(f"{name:<11} {relative(folder / file)}")
    sys.stdout.flush()


def summary_rows(jobs: list[Job], objective: str) -> tuple[list[str], list[list[str]], int]:
    """Columns and rows of the summary, as text, not wider than a line if that can be.

    Percentiles are shown as ``10th/50th/90th`` where a setting has three seeds or more, below the rest without
    room beside it. Time and other metrics of the objective's split follow as means, as many as there is room for; all
    of them are in ``sweep.csv``. Where there are more settings than room, the best job of each row is named.

    Returns:
        The columns, the rows, and how many settings found no room.
    """
    summary = [row for row in summarize(jobs) if row["n"]]
    if not summary:
        return [], [], 0
    settings = {key: [short(row["setting"][key]) for row in summary] for key in summary[0]["setting"]}
    scores = score_cells(summary, mixed=len(sources(jobs)) > 1)
    spreads = {name: scores.pop(name) for name in list(scores) if name.endswith("p90")}
    room = WIDTH + 2 - table_width(scores)
    shown = fitting_columns(settings, room)
    if len(shown) < len(settings):
        shown = fitting_columns({"job": [row["job"].split("_")[0] for row in summary], **settings}, room)
    left_out = len(settings.keys() - shown.keys())
    further = {"time": [clock(row["seconds"]) for row in summary]}
    for metric in shown_metrics(METRICS) if not left_out else ():
        key = f"{objective.split('/')[0]}/{metric}"
        if key != objective:
            further[label(metric)] = [number(row["metrics"].get(key)) for row in summary]
    known = {name: cells for name, cells in further.items() if set(cells) != {"-"}}
    cells = {**shown, **scores}
    if table_width({**cells, **spreads}) <= WIDTH + 2:
        cells |= spreads
    cells |= fitting_columns(known, WIDTH + 2 - table_width(cells))
    cells |= spreads  # without room they follow below the others
    return list(cells), [list(row) for row in zip(*cells.values(), strict=True)], left_out


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the head of this file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        sys.exit("usage: python -m neuro_lightning.sweeps.results.table FOLDER")
    end = finish(arguments[0])
    if not end.files:
        raise DataError(f"{arguments[0]}: no jobs there; give the folder of a sweep, such as multirun/...")
    print_summary(arguments[0], end)


if __name__ == "__main__":
    sys.exit(main())
