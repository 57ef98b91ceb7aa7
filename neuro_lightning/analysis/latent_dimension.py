"""How many latents does a recording need? The answer of a sweep over ``model.latent_dim`` and seeds.

``python -m neuro_lightning.analysis.latent_dimension FOLDER`` reads the runs of a sweep, prints a table, and
leaves ``latent_dimension.png`` and ``latent_dimension.csv`` in the folder. The model's curve stands beside those of the
baselines that grow with it (principal components, factor analysis), the trivial predictors, the variance that neurons
share (SVCA) and, on simulated data, the true signal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.artifacts.sweep_jobs import collect, varied_keys
from neuro_lightning.display import style
from neuro_lightning.display.table import NAMES, kind_of, number, print_table, relative
from neuro_lightning.errors import DataError, errors_in_one_line
from neuro_lightning.metrics.catalog import info, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("mse", "variance", "co_r2", "rates_r2")  # shown where they are known
OWN = {"model.latent_dim", "model.n_components", "seed"}  # what the sweep may vary
BEYOND = {"ceiling", "svca", "oracle"}  # not predictors of one's own
COLORS = (style.BASELINE, "#5b8c5a", "#8e6c8a", "#b08d57")


@dataclass
class Answer:
    """Scores of one split by who, number of latents and metric.

    Attributes:
        dataset: the data's name.
        simulated: whether they are simulated.
        split: ``val`` or ``test``.
        model: the swept model's name, as in the column ``who``.
        scores: one row for each score, with the columns ``who``, ``latents``, ``metric`` and ``value``.
    """

    dataset: str
    simulated: bool
    split: str
    model: str
    scores: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The metrics that the model has, in the order in which they are shown."""
        known = set(self.scores.metric[self.scores.who == self.model])
        return [name for name in METRICS if name in known]

    @property
    def others(self) -> list[str]:
        """Who has scores besides the model."""
        return [who for who in self.scores.who.unique() if who != self.model]

    def seeds(self, who: str, metric: str) -> pd.DataFrame:
        """The rows of one predictor and metric."""
        return self.scores[(self.scores.who == who) & (self.scores.metric == metric)]

    def summary(self, who: str, metric: str) -> pd.DataFrame:
        """``count``, ``mean`` and ``sem`` over seeds by number of latents; the sem of one value is NaN."""
        return self.seeds(who, metric).groupby("latents").value.agg(["count", "mean", "sem"])

    def grows(self, who: str) -> bool:
        """Whether a predictor depends on the number of latents at all."""
        curves = [self.summary(who, metric)["mean"] for metric in self.metrics]
        return any(curve.max() - curve.min() > 1e-9 * curve.abs().max() for curve in curves)

    def enough(self, metric: str) -> int | None:
        """The fewest latents whose mean score is within one standard error of the best one's."""
        own = self.summary(self.model, metric)
        if own.empty:
            return None
        score = -own["mean"] if info(metric).lower_is_better else own["mean"]
        best = score.idxmax()
        return int(score.index[score >= score[best] - own["sem"].fillna(0.0)[best]].min())


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
    scores = [
        (model if who == "model" else who, _latents(record), metric, value)
        for record in records
        for who, values in _scores(record, split).items()
        for metric, value in values.items()
        if value is not None  # a score that was not finite
    ]
    table = pd.DataFrame(scores, columns=["who", "latents", "metric", "value"])
    if model not in set(table.who):
        raise DataError(f"{folder}: no scores of a {split} split; there may be no such split in {dataset}")
    return Answer(dataset, bool(records[0]["data"]["simulated"]), split, model, table)


def _records(folder: str | Path) -> list[dict[str, Any]]:
    jobs = collect(folder)
    if others := set(varied_keys([job["overrides"] for job in jobs])) - OWN:
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
    others = {who: answer.summary(who, metric)["mean"] for who in answer.others}
    others = {who: means for who, means in others.items() if len(means)}
    columns = ["latents", "seeds", answer.model, "s.e.m.", *(NAMES.get(who, who) for who in others)]
    rows = [
        [str(n), str(count), number(mean), number(sem), *(number(means.get(n)) for means in others.values())]
        for n, count, mean, sem in answer.summary(answer.model, metric).itertuples()
    ]
    return columns, rows


def write_csv(answer: Answer, path: Path) -> None:
    """Every score as a row: who, latents, split, metric, seeds, mean, s.e.m."""
    groups = answer.scores.assign(split=answer.split).groupby(["who", "latents", "split", "metric"], sort=False)
    groups.value.agg(seeds="count", mean="mean", sem="sem").reset_index().to_csv(path, index=False)


@style.package_style()
def figure(answer: Answer) -> Figure:
    """One panel for each metric: score against the number of latents."""
    metrics = answer.metrics
    width, title = 1.0 + 3.1 * len(metrics), f"{answer.dataset}: how many latents?"
    drawn, axes = style.new_figure(width, 3.4, title, simulated=answer.simulated, columns=len(metrics))
    for panel, metric in zip(axes[0], metrics, strict=True):
        _panel(panel, answer, metric)
    lines: dict[str, Any] = {}  # by name, each once
    for panel in axes[0]:
        found, names = panel.get_legend_handles_labels()
        lines = dict(zip(names, found, strict=True)) | lines
    drawn.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 6))
    return drawn


def _panel(panel: Axes, answer: Answer, metric: str) -> None:
    curves = [who for who in answer.others if who not in BEYOND and answer.grows(who)]
    means = {who: answer.summary(who, metric)["mean"] for who in curves}
    for (who, curve), color in zip(means.items(), COLORS, strict=False):
        panel.plot(curve.index, curve, "o-", color=color, ms=3, label=who)
    own, seeds = answer.summary(answer.model, metric), answer.seeds(answer.model, metric)
    look = {"fmt": "o-", "color": style.MODEL, "ms": 4, "capsize": 2, "zorder": 3}
    panel.errorbar(own.index, own["mean"], own["sem"].fillna(0.0), label=answer.model, **look)
    panel.plot(seeds.latents, seeds.value, ".", color=style.MODEL, ms=3, alpha=0.5)
    drawn = pd.concat([own["mean"], *means.values()])
    reach = drawn.max() - drawn.min() or 1.0
    for who, color, dashes in _lines(answer, curves):
        level = answer.seeds(who, metric).value.mean()
        if drawn.min() - 2 * reach < level < drawn.max() + 2 * reach:  # lines far away would flatten the curves
            panel.axhline(level, color=color, lw=1, ls=dashes, label=NAMES.get(who, who))
    panel.set_xscale("log", base=2)
    panel.set_xticks(own.index, own.index.astype(str))
    panel.minorticks_off()
    panel.set(xlabel="latents", ylabel=f"{answer.split} {label(metric)}")
    if (enough := answer.enough(metric)) is not None:
        panel.set_title(f"{enough} within one s.e.m. of the best", color="#555555")


def _lines(answer: Answer, curves: list[str]) -> Iterable[tuple[str, str, Any]]:
    """Scores that do not depend on the number of latents, with their look."""
    flat = [who for who in answer.others if who not in curves]
    styles = iter(((0, (1, 1)), (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (2, 3))))
    for who in flat:
        color = style.TRUE if who in BEYOND else style.QUIET
        yield who, color, "-" if who in ("ceiling", "svca") else next(styles, (0, (1, 3)))


def write_report(folder: str | Path, *, split: str = "val", metric: str | None = None) -> Path:
    """Print the tables, write the figure and the numbers beside the sweep's runs.

    Args:
        folder: the sweep's folder.
        split: ``val`` or ``test``.
        metric: of the table; None prints one for each.

    Returns:
        The figure's path.

    Raises:
        DataError: as :func:`read_answer`; or the runs have no such metric.
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


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.analysis.latent_dimension", description="error against the number of latents"
    )
    parser.add_argument("folder", help="the sweep's folder, such as multirun/2026-01-31_12-00-00")
    parser.add_argument("--split", default="val", help="val or test")
    parser.add_argument("--metric", help=f"of the table: {', '.join(METRICS)}; all by default")
    given = parser.parse_args(arguments)
    write_report(given.folder, split=given.split, metric=given.metric)


if __name__ == "__main__":
    sys.exit(main())
