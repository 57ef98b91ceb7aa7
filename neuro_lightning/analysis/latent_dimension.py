"""How many latents does a recording need? The answer of a sweep over ``model.latent_dim`` and seeds.

``python -m neuro_lightning.analysis.latent_dimension FOLDER`` reads the runs of a sweep, prints a table, and
leaves ``latent_dimension.png`` and ``latent_dimension.csv`` in the folder. The model's curve stands beside those of the
baselines that grow with it (principal components, factor analysis), the trivial predictors, the variance that neurons
share (SVCA) and, on simulated data, the true signal.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pandas as pd

from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.artifacts.sweep_jobs import collect, varied
from neuro_lightning.errors import DataError
from neuro_lightning.metrics.catalog import info, label
from neuro_lightning.report.style import BASELINE, MODEL, QUIET, TRUE, new_figure, style
from neuro_lightning.report.table import NAMES, kind_of, number, print_table, relative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("mse", "variance", "co_r2", "rates_r2")  # shown where they are known
OWN = {"model.latent_dim", "model.n_components", "seed"}  # what the sweep may vary
BEYOND = {"ceiling", "svca", "oracle"}  # not predictors of one's own
COLORS = (BASELINE, "#5b8c5a", "#8e6c8a", "#b08d57")


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of no values."""
    known = list(values)
    return fmean(known) if known else None


def sem(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None below two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


@dataclass
class Answer:
    """Scores of one split by who, number of latents and metric.

    Attributes:
        dataset: the data's name.
        simulated: whether they are simulated.
        split: ``val`` or ``test``.
        model: the swept model's name, a key of ``scores``.
        scores: ``scores[who][latents][metric]`` is the list of the seeds' values.
    """

    dataset: str
    simulated: bool
    split: str
    model: str
    scores: dict[str, dict[int, dict[str, list[float]]]] = field(default_factory=dict)

    @property
    def latents(self) -> list[int]:
        """The numbers of latents that were tried."""
        return sorted(self.scores[self.model])

    @property
    def metrics(self) -> list[str]:
        """The metrics that the model has, in the order in which they are shown."""
        known = {name for values in self.scores[self.model].values() for name in values}
        return [name for name in METRICS if name in known]

    def values(self, who: str, metric: str) -> dict[int, list[float]]:
        """The seeds' values by number of latents."""
        found = {n: values[metric] for n, values in self.scores[who].items() if values.get(metric)}
        return dict(sorted(found.items()))

    def grows(self, who: str) -> bool:
        """Whether a predictor depends on the number of latents at all."""
        curves = [[mean(v) for v in self.values(who, metric).values()] for metric in self.metrics]
        return any(max(curve) - min(curve) > 1e-9 * max(map(abs, curve)) for curve in curves if curve)

    def enough(self, metric: str) -> int | None:
        """The fewest latents whose mean score is within one standard error of the best one's."""
        sign = -1 if info(metric).lower_is_better else 1
        curve = {n: sign * mean(values) for n, values in self.values(self.model, metric).items()}
        if not curve:
            return None
        best = max(curve, key=curve.__getitem__)
        slack = sem(self.values(self.model, metric)[best]) or 0.0
        return min(n for n, value in curve.items() if value >= curve[best] - slack)


def read_answer(folder: str | Path, split: str = "val") -> Answer:
    """The scores of a sweep's finished jobs.

    Args:
        folder: the sweep's folder.
        split: ``val`` or ``test``.

    Raises:
        DataError: there is no such sweep, it is not of one dataset and model, or it varied other things too.
    """
    records = _records(folder)
    names = {(record["data"]["name"], _model_name(record)) for record in records}
    if len(names) > 1:
        raise DataError(f"{folder}: give a sweep of one dataset and one model, not of {sorted(names)}")
    (dataset, model) = names.pop()
    answer = Answer(dataset, bool(records[0]["data"]["simulated"]), split, model)
    scores: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in records:
        for who, values in _scores(record, split).items():
            for metric, value in values.items():
                if value is not None:  # a score that was not finite
                    scores[model if who == "model" else who][_latents(record)][metric].append(value)
    if not scores[model]:
        raise DataError(f"{folder}: no scores of a {split} split; there may be no such split in {dataset}")
    answer.scores = {who: {n: dict(v) for n, v in by.items()} for who, by in scores.items()}
    return answer


def _records(folder: str | Path) -> list[dict[str, Any]]:
    jobs = collect(folder)
    if others := set(varied(jobs)) - OWN:
        raise DataError(
            f"{folder}: the sweep varies {', '.join(sorted(others))} too; sweep over model.latent_dim and seed alone"
        )
    done = [read_record(Path(folder) / job["job"] / FILE_NAME) for job in jobs if job["status"] == "finished"]
    done = [record for record in done if _latents(record) is not None]
    if not done:
        raise DataError(
            f"{folder}: no finished run with a number of latents; make some with "
            "`python train.py -m experiment=latent_dimension`"
        )
    return done


def _latents(record: dict[str, Any]) -> int | None:
    model = record["config"]["model"]
    return model.get("latent_dim", model.get("n_components"))


def _model_name(record: dict[str, Any]) -> str:
    return record["config"]["model"]["_target_"].rsplit(".", 1)[-1]


def _scores(record: dict[str, Any], split: str) -> dict[str, dict[str, float | None]]:
    own = {name.split("/")[1]: value for name, value in record["metrics"].items() if name.startswith(f"{split}/")}
    others = {**(record.get("baselines") or {}), "oracle": record.get("oracle"), **(record.get("references") or {})}
    return {"model": own} | {who: by[split] for who, by in others.items() if by and by.get(split)}


# ---- what is shown


def table_rows(answer: Answer, metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: one row for each number of latents, mean and standard error over seeds."""
    others = [who for who in answer.scores if who != answer.model and answer.values(who, metric)]
    columns = ["latents", "seeds", answer.model, "s.e.m.", *(NAMES.get(who, who) for who in others)]
    rows = []
    for n, values in answer.values(answer.model, metric).items():
        beside = (number(mean(answer.values(who, metric).get(n, []))) for who in others)
        rows.append([str(n), str(len(values)), number(mean(values)), number(sem(values)), *beside])
    return columns, rows


def write_csv(answer: Answer, path: Path) -> None:
    """Every score as a row: who, latents, metric, seeds, mean, s.e.m."""
    rows = [
        [who, n, answer.split, metric, len(values), mean(values), sem(values)]
        for who, by_latents in answer.scores.items()
        for n, metrics in sorted(by_latents.items())
        for metric, values in metrics.items()
    ]
    columns = ["who", "latents", "split", "metric", "seeds", "mean", "sem"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def figure(answer: Answer) -> Figure:
    """One panel for each metric: score against the number of latents."""
    metrics = answer.metrics
    with style():
        drawn, axes = new_figure(
            1.0 + 3.1 * len(metrics),
            3.4,
            f"{answer.dataset}: how many latents?",
            simulated=answer.simulated,
            columns=len(metrics),
        )
        for panel, metric in zip(axes[0], metrics, strict=True):
            _panel(panel, answer, metric)
        lines, labels = axes[0, 0].get_legend_handles_labels()
        for panel in axes[0, 1:]:
            more = zip(*panel.get_legend_handles_labels(), strict=True)
            for line, label in more:
                if label not in labels:
                    lines, labels = [*lines, line], [*labels, label]
        drawn.legend(lines, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return drawn


def _panel(panel: Axes, answer: Answer, metric: str) -> None:
    curves = [who for who in answer.scores if who not in BEYOND and who != answer.model and answer.grows(who)]
    for who, color in zip(curves, COLORS, strict=False):
        values = answer.values(who, metric)
        panel.plot(list(values), [mean(v) for v in values.values()], "o-", color=color, ms=3, label=who)
    values = answer.values(answer.model, metric)
    centers, spread = [mean(v) for v in values.values()], [sem(v) or 0.0 for v in values.values()]
    panel.errorbar(list(values), centers, spread, fmt="o-", color=MODEL, ms=4, capsize=2, label=answer.model, zorder=3)
    for n, seeds in values.items():
        panel.plot([n] * len(seeds), seeds, ".", color=MODEL, ms=3, alpha=0.5)
    drawn = [*centers, *(mean(v) for who in curves for v in answer.values(who, metric).values())]
    reach = max(drawn) - min(drawn) or 1.0
    for who, color, dashes in _lines(answer, curves):
        level = mean(v for values in answer.values(who, metric).values() for v in values)
        if level is not None and min(drawn) - 2 * reach < level < max(drawn) + 2 * reach:  # far ones would flatten all
            panel.axhline(level, color=color, lw=1, ls=dashes, label=NAMES.get(who, who))
    panel.set_xscale("log", base=2)
    panel.set_xticks(answer.latents, [str(n) for n in answer.latents])
    panel.minorticks_off()
    panel.set(xlabel="latents", ylabel=f"{answer.split} {label(metric)}")
    if (enough := answer.enough(metric)) is not None:
        panel.set_title(f"{enough} within one s.e.m. of the best", color="#555555")


def _lines(answer: Answer, curves: list[str]) -> Iterable[tuple[str, str, Any]]:
    """Scores that do not depend on the number of latents, with their look."""
    flat = [who for who in answer.scores if who not in curves and who != answer.model]
    styles = iter(((0, (1, 1)), (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (2, 3))))
    for who in flat:
        yield who, TRUE if who in BEYOND else QUIET, "-" if who in ("ceiling", "svca") else next(styles, (0, (1, 3)))


def write_report(folder: str | Path, *, split: str = "val", metric: str | None = None) -> Path:
    """Print the tables, write the figure and the numbers beside the sweep's runs.

    Args:
        folder: the sweep's folder.
        split: ``val`` or ``test``.
        metric: of the table; None prints one for each.

    Returns:
        The figure's path.

    Raises:
        DataError: as :func:`read_answer`; or nobody logged the metric.
    """
    answer = read_answer(folder, split)
    if metric is not None and metric not in answer.metrics:
        raise DataError(f"--metric {metric}: these runs have {', '.join(answer.metrics)}")
    for name in [metric] if metric else answer.metrics:
        title = f"{answer.split} {label(name)} on {answer.dataset} ({kind_of(answer)}) against the number of latents"
        print_table(title, *table_rows(answer, name))
        print(f"{answer.enough(name)} latents are the fewest within one standard error of the best.")
    path = Path(folder) / "latent_dimension.png"
    write_csv(answer, path.with_suffix(".csv"))
    figure(answer).savefig(path)
    print(f"figure      {relative(path)}")
    return path


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.analysis.latent_dimension", description="error against the number of latents"
    )
    parser.add_argument("folder", help="the sweep's folder, such as multirun/2026-01-31_12-00-00")
    parser.add_argument("--split", default="val", help="val or test")
    parser.add_argument("--metric", help=f"of the table: {', '.join(METRICS)}; all by default")
    given = parser.parse_args(arguments)
    try:
        write_report(given.folder, split=given.split, metric=given.metric)
    except (DataError, OSError) as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
