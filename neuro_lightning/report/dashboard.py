"""``python -m neuro_lightning.report.dashboard PROJECT``: a workspace and a report in Weights & Biases, from code.

Both show the runs of a project that ``logger=wandb`` has filled: scores beside baselines and the true rates, learning
curves, what mattered in sweeps, each neuron's score, and the system. ``--out FILE`` writes what would be sent as JSON,
and sends nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.lines import labelled
from neuro_lightning.artifacts.sweep_jobs import collect, varied_keys
from neuro_lightning.errors import ConfigError, errors_in_one_line
from neuro_lightning.loggers.sweep_run import TABLE
from neuro_lightning.loggers.wandb_run import STEP
from neuro_lightning.metrics.catalog import info
from neuro_lightning.private_names import wandb_spec

SECTIONS = ("Scores", "Learning curves", "Sweeps", "Neurons", "System")
SYSTEM = ("system.cpu", "system.proc.memory.rssMB", "system.gpu.0.gpu", "system.gpu.0.memoryAllocated")
GROUPS = ("model", "data", "trainer")  # overrides that choose a file of the config
COMMON_KEYS = ("model", "data", "seed")  # where nobody says what is swept


@dataclass(frozen=True)
class Shown:
    """What a dashboard shows.

    Attributes:
        project: in W&B.
        entity: of the project, a user or a team.
        metric: the score, such as ``val/co_bps``.
        references: who it is compared with, as runs log them: ``oracle``, ``baseline/smoothing``.
        keys: of overrides that a sweep varies, such as ``model.hidden``.
        group: the sweep whose runs are shown; None shows all runs.
    """

    project: str
    entity: str
    metric: str = "val/co_bps"
    references: Sequence[str] = ("baseline/smoothing", "oracle")
    keys: Sequence[str] = field(default=COMMON_KEYS)
    group: str | None = None

    @property
    def lines(self) -> list[str]:
        """The score and those it is compared with, as they are logged."""
        return [self.metric, *(f"{who}/{self.metric}" for who in self.references)]

    @property
    def columns(self) -> list[str]:
        """What a sweep varies, as keys of W&B's config."""
        return [config_key(key) for key in self.keys]

    @property
    def split(self) -> str:
        """The split that is scored."""
        return self.metric.split("/")[0]

    @property
    def test(self) -> str:
        """The same score on test trials."""
        return f"test/{self.metric.split('/', 1)[1]}"


def config_key(key: str) -> str:
    """Where W&B's config holds what an override chooses; of ``model`` and ``masking@model.masking`` it is the class."""
    _, at, path = key.rpartition("@")
    return f"{path}._target_" if at or path in GROUPS else path


def panels(shown: Shown) -> dict[str, list[Any]]:
    """The panels of each section, of a workspace or a report."""
    import wandb_workspaces.reports.v2 as wr

    name = shown.metric.split("/", 1)[1]
    summary = f"best/{shown.metric}" if shown.split == "val" else shown.metric
    lines = dict(x=STEP, title_x="step", title_y=name, groupby_rangefunc="stderr")
    axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in shown.columns]
    axes.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(summary), inverted=_lower(shown) or None))
    return {
        "Scores": [
            wr.LinePlot(title=f"{shown.metric}, baselines and true rates", y=list(shown.lines), **lines),
            wr.BarPlot(title=f"{shown.metric} of the saved checkpoints", metrics=[wr.SummaryMetric(summary)]),
            wr.BarPlot(title=f"{shown.test} of the saved checkpoints", metrics=[wr.SummaryMetric(shown.test)]),
        ],
        "Learning curves": [
            wr.LinePlot(title="training loss", x=STEP, y=["train/loss"], title_x="step"),
            wr.LinePlot(title="validation loss", x=STEP, y=["val/loss"], title_x="step"),
            wr.LinePlot(title="learning rate", x=STEP, y=["train/lr"], title_x="step", log_y=True),
        ],
        "Sweeps": [
            wr.ParallelCoordinatesPlot(title="all settings", columns=axes),
            wr.ParameterImportancePlot(with_respect_to=summary),
            wr.ScatterPlot(
                title="size and score", x=wr.Config("size/parameters"), y=wr.SummaryMetric(summary), log_x=True
            ),
            wr.WeavePanelSummaryTable(table_name=TABLE),
        ],
        "Neurons": [
            wr.WeavePanelSummaryTable(table_name=f"neurons/{shown.split}"),
            wr.MediaBrowser(media_keys=["figures/neurons", "figures/rates"]),
        ],
        "System": [wr.LinePlot(title=name, x="RelativeTime(Wall)", y=[name]) for name in SYSTEM],
    }


def workspace(shown: Shown) -> Any:
    """A W&B workspace with a section for each of :data:`SECTIONS`; ``save()`` sends it."""
    import wandb_workspaces.workspaces as ws

    found = panels(shown)
    return ws.Workspace(
        entity=shown.entity,
        project=shown.project,
        name=f"neuro_lightning: {shown.group or shown.metric}",
        sections=[ws.Section(name=name, panels=found[name], is_open=name != "System") for name in SECTIONS],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters=_filters(shown), order=[ws.Ordering(ws.Summary("objective"), ascending=_lower(shown))]
        ),
    )


def report(shown: Shown) -> Any:
    """A W&B report with the same sections and a sentence on each; ``save()`` sends it."""
    import wandb_workspaces.reports.v2 as wr

    said = {
        "Scores": "The saved checkpoint of each run. The line to beat is the baseline, the line to reach the oracle.",
        "Learning curves": "Loss per scored bin, and the learning rate of each step.",
        "Sweeps": "What was varied, what mattered, and every job.",
        "Neurons": f"Each neuron's score on the {shown.split} trials.",
        "System": "Load and memory while the runs trained.",
    }
    found, blocks = panels(shown), []
    for name in SECTIONS:
        runs = wr.Runset(name=name, filters=_filters(shown))  # of the report's project; a named one is looked up
        blocks += [wr.H2(name), wr.P(said[name]), wr.PanelGrid(runsets=[runs], panels=found[name])]
    title = f"{shown.project}: {shown.group or shown.metric}"
    return wr.Report(project=shown.project, entity=shown.entity, title=title[:128], blocks=blocks, width="fluid")


def spec(shown: Shown) -> dict[str, Any]:
    """What would be sent: the specifications of workspace and report as W&B's JSON."""
    made = {"workspace": workspace(shown), "report": report(shown)}
    return {name: json.loads(json.dumps(wandb_spec(one)["spec"], default=str)) for name, one in made.items()}


def _lower(shown: Shown) -> bool:
    return info(shown.metric.split("/", 1)[1]).lower_is_better


def _filters(shown: Shown) -> str:
    return f"Group = {shown.group!r}" if shown.group else ""


def shown_of_sweep(folder: str | Path, project: str, entity: str) -> Shown:
    """What to show of a sweep: its score, and what it varies.

    Raises:
        ConfigError: the folder holds no jobs.
    """
    jobs = collect(folder)
    if not jobs:
        raise ConfigError(f"--sweep={folder}: no jobs there; give the folder of a sweep, such as multirun/...")
    keys = varied_keys([job["overrides"] for job in jobs])
    return Shown(project, entity, jobs[0]["objective_name"], keys=keys, group=Path(folder).resolve().name)


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m neuro_lightning.report.dashboard", description=__doc__)
    parser.add_argument("project", help="the project in W&B")
    parser.add_argument("--entity", help="its user or team; by default your own")
    parser.add_argument("--metric", default="val/co_bps", help="the score (default: %(default)s)")
    parser.add_argument("--sweep", help="a sweep's folder: its score, what it varies, and its runs alone")
    parser.add_argument("--out", help="write what would be sent into this JSON file, and send nothing")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ConfigError("dashboards need a package: pip install 'neuro_lightning[dashboard]'")
    entity = args.entity or ("entity" if args.out else _own_entity())
    shown = Shown(args.project, entity, args.metric)
    if args.sweep:
        shown = shown_of_sweep(args.sweep, args.project, entity)
    if args.out:
        Path(args.out).write_text(json.dumps(spec(shown), indent=2))
        print(labelled("written", args.out))
        return
    for name, made in (("workspace", workspace(shown)), ("report", report(shown))):
        made.save()
        print(labelled(name, f"at\n{made.url}"))


def _own_entity() -> str:
    import wandb

    try:
        return wandb.Api().default_entity
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"W&B: {reason}; wandb login stores a key, --out=FILE sends nothing") from None


if __name__ == "__main__":
    sys.exit(main())
