"""What is printed in the terminal: the header of a run, tables, and scores beside those of baselines and the oracle."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.lines import MARGIN, WIDTH, say, wrapped
from neuro_lightning.artifacts.output import print_header_lines
from neuro_lightning.metrics.catalog import info, label, shown_metrics
from neuro_lightning.metrics.session_scores import session_metric, sessions_in

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from neuro_lightning.contracts import DataSpec
    from neuro_lightning.data.module import PopulationDataModule
    from neuro_lightning.data.recording import Recording

REFERENCES = {
    "mean rate": "each neuron's mean rate", "ceiling": "noise ceiling", "svca": "shared variance (SVCA)",
    "linear decoder": "linear decoder",
}  # fmt: skip
NAMES = {"model": "model", "oracle": "true rates (oracle)", **REFERENCES}  # others are baselines
TRIVIAL = {"mean rate", "mean", "constant", "zero"}  # predictors that ignore their input
MOST_SESSIONS = 8  # of which baselines are shown one by one
Scores = Mapping[str, Mapping[str, Mapping[str, float]] | None]


def print_header(
    data: PopulationDataModule, model: pl.LightningModule, trainer: pl.Trainer, folder: str | Path
) -> None:
    """Print what is about to run: the model and its size, the data, the device and the folder."""
    recording, sessions = data.recording, [*data.by_session().items()]
    shapes = [f"{shape_of(part.spec)}: {_trials(part)}" for _, part in sessions]
    if len(sessions) == 1:
        described = f"{recording.name} ({kind_of(recording)}): {shapes[0]}"
        if len(described) > WIDTH - MARGIN:
            described = described.replace("; ", "\n")
    else:
        width = max(len(name) for name, _ in sessions)
        lines = [f"{name:<{width}}  {shape}" for (name, _), shape in zip(sessions, shapes, strict=True)]
        described = "\n".join([f"{len(sessions)} sessions ({kind_of(recording)}):", *lines])
    device = str(trainer.strategy.root_device) + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    lines = {
        "model": f"{type(model).__name__} with {model.size:,} parameters",
        "data": described,
        "device": device,
        "folder": relative(folder),
    }
    print_header_lines(lines)


def _trials(data: PopulationDataModule) -> str:
    counts = {split: f"{len(trials)} {split}" for split, trials in data.recording.splits.items()}
    counts |= {split: f"{counts[split]} (their inputs train, too)" for split in data.train_on_inputs}
    return ", ".join(counts.values())


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
    """Print the scores of model, baselines, true rates and noise ceiling on each labelled split.

    A line below names the baseline that the model does not beat.

    Args:
        scores: by row (``model``, a baseline's name, ``oracle``, ``ceiling``), split and metric.
        recording: what was scored on.
        checkpoint: the checkpoint that scored so.
        folder: the run's folder.
        monitor: the score that chose the checkpoint.
        mode: ``max`` or ``min``, which of two such scores is better.
        names: the name of each row.
    """
    columns, rows = result_rows(scores, names=names)
    print_table(f"Scores on {recording.name} ({kind_of(recording)})", columns, rows, strong={names["model"]})
    print()
    if monitor is not None and (line := not_beaten(scores, monitor, mode)):
        say(line)
    if label("bps") in columns:
        say("Bits/spike are scored on the counts that the model gets as input: copying them scores well, too.")
    print(f"checkpoint  {relative(checkpoint) if checkpoint else 'none was kept'}\nfolder      {relative(folder)}")


def is_baseline(who: str) -> bool:
    """Whether a row of the table is a baseline."""
    return who not in NAMES or who == "mean rate"


def not_beaten(scores: Scores, monitor: str, mode: str) -> str | None:
    """A line that names the baseline that the model does not beat; None if it beats them all.

    Args:
        scores: see :func:`print_results`.
        monitor: the score to compare, such as ``val/co_bps``.
        mode: ``max`` or ``min``, which of two is better.
    """
    split, metric = monitor.split("/", 1)
    found = {who: (splits or {}).get(split, {}).get(metric) for who, splits in scores.items()}
    known = {who: value for who, value in found.items() if value is not None and math.isfinite(value)}
    lines = {who: value for who, value in known.items() if is_baseline(who)}
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


def by_split(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``{"val/loss": 1.0}`` as ``{"val": {"loss": 1.0}}``."""
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        split, _, name = key.partition("/")
        found.setdefault(split, {})[name] = value
    return found


def names_of_members(members: Iterable[int]) -> dict[str, str]:
    """What the rows of a table are called where the model is the mean of several networks."""
    return {**NAMES, "model": "mean of the networks", **{str(k): f"network {k}" for k in members}}


def result_rows(scores: Scores, *, names: Mapping[str, str] = NAMES) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table of scores, as text; each of several sessions has its rows, then their mean.

    The last column is the model's share of the oracle's first score, which is co-bps where there is one; it is left out
    where that score is an error. Of more than ``MOST_SESSIONS`` sessions only the model is shown beside the mean.
    """
    by_who = {who: splits for who, splits in scores.items() if splits}
    splits = list(dict.fromkeys(split for who in by_who.values() for split in who))
    found = list(dict.fromkeys(metric for who in by_who.values() for values in who.values() for metric in values))
    metrics = shown_metrics(found)
    sessions = sessions_in(found)
    columns = ["split", *(["session"] if sessions else []), "", *map(label, metrics)]
    share = bool(by_who.get("oracle")) and bool(metrics) and not info(metrics[0]).lower_is_better
    rows = []
    for split in splits:
        for session in [*sessions, ""]:
            scored = [session_metric(metric, session) for metric in metrics]
            head = [session or "mean"] if sessions else []
            best = (by_who.get("oracle", {}).get(split) or {}).get(scored[0]) if share else None
            for who, values in ((who, by_who[who].get(split)) for who in by_who):
                if values is None or (session and len(sessions) > MOST_SESSIONS and who != "model"):
                    continue
                shown = [values.get(name) for name in scored]
                part = percent(shown[0] if shown else None, best) if who not in REFERENCES else "-"
                row = [split, *head, names.get(who, f"{who} baseline"), *map(number, shown)]
                rows.append(row + ([part] if share else []))
    return columns + (["of oracle"] if share else []), rows


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    strong: set[str] = frozenset(),
    names: int | None = None,
) -> None:
    """Print a blank line and a table: in a terminal with a line below the header and bold rows, else in plain text.

    Columns that find no room in a line of 80 characters follow below, beside the same names of the rows.

    Args:
        title: above the table.
        columns: their names.
        rows: cells as text.
        strong: a row that holds one of these is bold.
        names: columns that name the rows; None for those before the first one of numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    rule = box.SIMPLE_HEAD if terminal else box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    # notebooks get the text too
    console = Console(width=WIDTH, force_jupyter=False, color_system="auto" if terminal else None)
    console.print()
    console.print(Text(wrapped(title), style="bold"), soft_wrap=True)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    gap = 1 if sum(widths) + len(widths) - 1 <= WIDTH < sum(widths) + 2 * (len(widths) - 1) else 2
    for block, shown in enumerate(column_blocks(columns, rows, names, gap)):
        table = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="dim")
        for i in shown:
            a_number = _is_number(rows, i)
            justify = "right" if a_number else "left"
            table.add_column(Text(columns[i]), justify=justify, no_wrap=a_number, overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[i]) for i in shown), style="bold" if strong.intersection(row) else None)
        console.print(*([""] if block else []), table, sep="\n")
    sys.stdout.flush()


def column_blocks(
    columns: Sequence[str], rows: Sequence[Sequence[str]], named: int | None, gap: int = 2
) -> list[list[int]]:
    """The columns of a table, as numbers, in blocks of at most 80 characters.

    Each begins with the columns that name the rows; see :func:`print_table`. The gap is that between columns.
    """
    if named is None:
        named = next((i for i in range(len(columns)) if _is_number(rows, i)), 0)
    names = list(range(named))
    width = [gap + max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for i in range(len(names), len(columns)):
        if blocks[-1] and sum(width[j] for j in [*names, *blocks[-1], i]) > WIDTH + gap:
            blocks.append([])
        blocks[-1].append(i)
    return [[*names, *block] for block in blocks]


def fitting_columns(columns: Mapping[str, Sequence[str]], width: int) -> dict[str, Sequence[str]]:
    """As many of the columns, in their order, as fit into a table of a width in characters."""
    fitting: dict[str, Sequence[str]] = {}
    for name, cells in columns.items():
        if table_width({**fitting, name: cells}) <= width:
            fitting[name] = cells
    return fitting


def table_width(columns: Mapping[str, Sequence[str]]) -> int:
    """The characters that columns take in a table, with the space behind each."""
    return sum(2 + max(map(len, (name, *cells))) for name, cells in columns.items())


def print_official_scores(title: str, results: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Print the scores of the benchmark's evaluation, a line each, the name of a split beside its first.

    Args:
        title: above the table.
        results: from :func:`neuro_lightning.submission.score.score`.
    """
    rows = []
    for split, scores in (item for entry in results for item in entry.items()):
        names = [split] + [""] * len(scores)
        rows += [[first, name, number(value)] for first, (name, value) in zip(names, scores.items(), strict=False)]
    print_table(title, ["split", "score", "value"], rows)


def number(value: float | None, digits: int = 4) -> str:
    """A score as text; ``-`` for one that is unknown."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.3g}"


def percent(value: float | None, whole: float | None) -> str:
    """``value`` as a share of ``whole``; ``-`` where there is none or ``whole`` is not positive."""
    if value is None or whole is None or not math.isfinite(value) or not whole > 0:
        return "-"
    return f"{100 * value / whole:.1f} %"


def kind_of(recording: Recording) -> str:
    """``simulated data`` or ``recorded data``, for the title of whatever shows scores."""
    return "simulated data" if recording.simulated else "recorded data"


def relative(path: str | Path) -> str:
    """A path as text: relative where it is below the working directory, else absolute."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _is_number(rows: Sequence[Sequence[Any]], column: int) -> bool:
    cells = [str(row[column]) for row in rows]
    return bool(cells) and all(
        cell == "-" or cell[:1].isdigit() or cell[:2].lstrip("-")[:1].isdigit() for cell in cells
    )
