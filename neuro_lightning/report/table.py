"""Tables in the terminal: what a run is before it starts, and how it scored against the baseline and the oracle."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.metrics.catalog import info, label, shown_metrics

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from neuro_lightning.contracts import DataSpec
    from neuro_lightning.data.recording import Recording

REFERENCES = {
    "mean rate": "each neuron's mean rate", "ceiling": "noise ceiling", "svca": "shared variance (SVCA)",
    "linear decoder": "linear decoder",
}  # fmt: skip
NAMES = {"model": "model", "oracle": "true rates (oracle)", **REFERENCES}  # others are baselines
TRIVIAL = {"mean rate", "mean", "constant", "zero"}  # what does not look at its input
Scores = Mapping[str, Mapping[str, Mapping[str, float]] | None]


def print_header(recording: Recording, model: pl.LightningModule, trainer: pl.Trainer, folder: str | Path) -> None:
    """Say what is about to run: the model and its size, the data, the device and the folder."""
    trials = ", ".join(f"{len(trials)} {split}" for split, trials in recording.splits.items())
    place = str(trainer.strategy.root_device) + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    lines = {
        "model": f"{type(model).__name__} with {model.size:,} parameters",
        "data": f"{recording.name} ({kind_of(recording)}): {shape_of(model.spec)}: {trials}",
        "device": place,
        "folder": relative(folder),
    }
    print("\n".join(f"{name:<7} {line}" for name, line in lines.items()), flush=True)


def shape_of(spec: DataSpec) -> str:
    """Neurons and bins, or neurons and pixels, as text."""
    if spec.kind == "images":
        channels, height, width = spec.image_shape
        colors = f" x {channels} channels" if channels > 1 else ""
        return f"{spec.n_out} neurons, images of {height} x {width} pixels{colors}"
    heldout = f" + {spec.n_out}" if spec.n_out or spec.kind == "spikes" else ""
    samples = "trials" if spec.kind == "spikes" else "sequences"
    return f"{spec.n_in}{heldout} neurons, {spec.n_bins} bins of {spec.bin_ms} ms; {samples}"


def print_results(
    scores: Scores,
    recording: Recording,
    checkpoint: str | Path | None,
    folder: str | Path,
    *,
    monitor: str | None = None,
    mode: str = "max",
    names: Mapping[str, str] = NAMES,
) -> None:
    """The closing table: model, baselines, true rates and noise ceiling on each labelled split.

    Below it is said what the model does not beat.

    Args:
        scores: by who (``model``, a baseline's name, ``oracle``, ``ceiling``), split and metric.
        recording: what was scored on.
        checkpoint: the checkpoint that scored so.
        folder: the run's folder.
        monitor: the score that chose the checkpoint.
        mode: ``max`` or ``min``, which of two such scores is better.
        names: how each who is called.
    """
    columns, rows = result_rows(scores, names=names)
    print_table(f"Scores on {recording.name} ({kind_of(recording)})", columns, rows, strong={names["model"]})
    if monitor is not None and (line := not_beaten(scores, monitor, mode)):
        print(line)
    if label("bps") in columns:
        print("Bits/spike are of the very counts that the model sees: a model that copies them scores well, too.")
    print(f"checkpoint  {relative(checkpoint) if checkpoint else 'none was kept'}\nfolder      {relative(folder)}")


def is_line_to_beat(who: str) -> bool:
    """Whether a row of the table is a baseline."""
    return who not in NAMES or who == "mean rate"


def not_beaten(scores: Scores, monitor: str, mode: str) -> str | None:
    """A line that says that the model learnt nothing, or which baseline is as good as it; None if it beats them all.

    Args:
        scores: see :func:`print_results`.
        monitor: the score to compare, such as ``val/co_bps``.
        mode: ``max`` or ``min``, which of two is better.
    """
    split, metric = monitor.split("/", 1)
    found = {who: (splits or {}).get(split, {}).get(metric) for who, splits in scores.items()}
    known = {who: value for who, value in found.items() if value is not None and math.isfinite(value)}
    lines = {who: value for who, value in known.items() if is_line_to_beat(who)}
    if "model" not in known or not lines:
        return None
    sign, model = 1 if mode == "max" else -1, known["model"]
    trivial = {who: value for who, value in lines.items() if who in TRIVIAL and sign * value >= sign * model}
    if trivial:
        who = max(trivial, key=lambda who: sign * trivial[who])
        name = NAMES.get(who, f"{who} baseline")
        return f"Nothing was learnt: {monitor} {number(model)} is not better than the {number(lines[who])} of {name}."
    best = max(lines, key=lambda who: sign * lines[who])
    if sign * lines[best] < sign * model:
        return None
    return f"The model does not beat the {best} baseline: {monitor} {number(model)} against {number(lines[best])}."


def result_rows(scores: Scores, *, names: Mapping[str, str] = NAMES) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the closing table, as text.

    The share of the oracle is that of its co-bps, the first metric where there is no co-bps; there is none of errors.
    """
    by_who = {who: splits for who, splits in scores.items() if splits}
    splits = list(dict.fromkeys(split for who in by_who.values() for split in who))
    metrics = shown_metrics(metric for who in by_who.values() for values in who.values() for metric in values)
    columns = ["split", "", *map(label, metrics)]
    share = bool(by_who.get("oracle")) and bool(metrics) and not info(metrics[0]).lower_is_better
    rows = []
    for split in splits:
        best = (by_who.get("oracle", {}).get(split) or {}).get(metrics[0]) if share else None
        for who, values in ((who, by_who[who].get(split)) for who in by_who):
            if values is None:
                continue
            row = [split, names.get(who, f"{who} baseline"), *(number(values.get(metric)) for metric in metrics)]
            part = percent(values.get(metrics[0]), best) if who not in REFERENCES else "-"
            rows.append(row + ([part] if share else []))
    return columns + (["of oracle"] if share else []), rows


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, strong: set[str] = frozenset()
) -> None:
    """Print a table: with rules and bold rows in a terminal, in plain aligned columns elsewhere.

    Args:
        title: above the table.
        columns: their names.
        rows: cells as text.
        strong: a row that holds one of these is bold.
    """
    text = plain_table(title, columns, rows)
    width = max(map(len, text.splitlines()))
    if not sys.stdout.isatty() or width > shutil.get_terminal_size().columns:
        print(f"\n{text}\n", flush=True)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"), title_justify="left", header_style="dim", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if _is_number(rows, i) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if strong.intersection(row) else None)
    console = Console()
    console.print()
    console.print(table)


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as lines of text, numbers flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    right = [_is_number(rows, i) for i in range(len(columns))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        for row in (columns, *rows)
    ]
    return "\n".join(line.rstrip() for line in (title, lines[0], "-" * len(lines[0]), *lines[1:]))


def number(value: float | None, digits: int = 4) -> str:
    """A score as text; ``-`` for one that is unknown."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.3g}"


def percent(value: float | None, whole: float | None) -> str:
    """``value`` as a share of ``whole``; ``-`` where that says nothing."""
    if value is None or whole is None or not math.isfinite(value) or not whole > 0:
        return "-"
    return f"{100 * value / whole:.1f} %"


def kind_of(recording: Recording) -> str:
    """Whether a score is of simulated or recorded data: said wherever one is shown."""
    return "simulated data" if recording.simulated else "recorded data"


def relative(path: str | Path) -> str:
    """A path as it can be typed here: relative below the working directory, else absolute."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _is_number(rows: Sequence[Sequence[Any]], column: int) -> bool:
    cells = [str(row[column]) for row in rows]
    return bool(cells) and all(
        cell == "-" or cell[:1].isdigit() or cell[:2].lstrip("-")[:1].isdigit() for cell in cells
    )
