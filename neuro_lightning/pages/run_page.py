"""The page of a run: what was run, its scores beside others, its figures, neurons and latents."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.api.results import Run
from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file
from neuro_lightning.display.table import NAMES, by_split, names_of_members, number, result_rows
from neuro_lightning.errors import NeuroError
from neuro_lightning.functional.likelihood import SpikeSums, null_nll
from neuro_lightning.metrics.neuron_table import COLUMNS, neuron_rows
from neuro_lightning.metrics.trial_sums import as_sums
from neuro_lightning.pages.latents import latents_drawing
from neuro_lightning.pages.parts import Page, Picture, Section, Table
from neuro_lightning.pages.published import CAVEAT, published_table
from neuro_lightning.sweeps.results.page import clock

FIGURES = {
    "rates": "Spikes and predicted rates of single trials",
    "psth": "Rates averaged over the trials of a condition",
    "latents": "Latents",
    "latents_together": "Latents of all sessions in one space",
    "neurons": "Score of each neuron",
    "against_oracle": "Score of each neuron beside that of the true rates",
    "calibration": "Predicted rates and the counts that came",
    "decoding": "Decoded and true behavior",
    "dimensions": "Explained variance over dimensions",
    "discriminative_images": "Images that would excite one neuron and no other (in silico)",
    "exciting_images": "Images that the model would answer most (in silico)",
    "feve": "Share of the explainable variance that is explained",
    "flow": "Flow and fixed points of the recurrent network",
    "forward": "Forward prediction over time",
    "single_trials": "Predicted rates of single trials",
    "sorted_raster": "Spikes of a trial, neurons sorted by a latent",
    "triggered_averages": "Averages of images, weighted by recorded and predicted responses",
    "learning_curve": "Learning curve",
}
FIRST = ("learning_curve", "rates", "psth")
SIMULATED = "The data are simulated: scores say nothing about recordings."


def run_page(run: Run, *, latents: bool = True) -> Page:
    """The page of one run, also of one that failed or still runs.

    Args:
        run: the run.
        latents: whether to predict the validation trials for the drawing of the latents.
    """
    record = run.record
    drawn = next(iter(run.members.values()), run)  # of several networks, the first
    figures = Section("Figures", "figures", pictures=figure_files(drawn.folder / "figures"))
    if drawn is not run:
        figures.lines.append(f"Figures, latents and neurons are those of network {drawn.folder.name} alone.")
    sections = [
        scores_section(run),
        figures,
        latents_section(drawn) if latents else Section("Latents", "latents"),
        *(neurons_section(part, name) for name, part in (drawn.sessions or {"": drawn}).items()),
        settings_section(record),
    ]
    which = f"mean of {len(run.members)} networks" if run.members else f"seed {record.get('seed')}"
    title = f"{model_name(record)} on {data_name(record)}, {which}"
    return Page(title, facts(record, run.folder), sections, SIMULATED if is_simulated(record) else "")


def facts(record: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """What stands below the title: how the run ended, its score, its data and what it took."""
    objective, data = record.get("objective") or {}, record.get("data") or {}
    found = {"status": record.get("status"), "error": record.get("error")}
    if objective.get("value") is not None:
        found["score"] = f"{objective['name']} {number(objective['value'])}"
    if data:
        trials = ", ".join(f"{n} {split}" for split, n in (data.get("trials") or {}).items())
        found["data"] = f"{data_name(record)} ({'simulated' if data.get('simulated') else 'recorded'}): {trials}"
    if record.get("parameters") is not None:
        found["parameters"] = f"{record['parameters']:,}"
    found["started"] = _day(record.get("started"))
    if record.get("wall_s") is not None:
        memory = (record.get("peak_memory") or {}).get("rss_mb")
        steps = f", {record['steps']} steps" if record.get("steps") else ""
        peak = f", {memory / 1000:.1f} GB of memory at most" if memory else ""
        found["took"] = f"{clock(record['wall_s'])} on {record.get('device') or 'cpu'}{steps}{peak}"
    found["folder"] = str(folder)
    return [(name, str(value)) for name, value in found.items() if value]


def scores_section(run: Run) -> Section:
    """Scores of the model, baselines, true rates and ceilings, and what was published on these data."""
    record = run.record
    scores = {"model": by_split(record.get("metrics") or {})}
    scores |= {str(k): by_split(member.record["metrics"]) for k, member in run.members.items()}
    names = names_of_members(run.members) if run.members else NAMES
    scores |= {**(record.get("baselines") or {}), **(record.get("references") or {})}
    if record.get("oracle"):
        scores["oracle"] = record["oracle"]
    section = Section("Scores", "scores")
    if not scores["model"]:
        section.lines.append(f"There are no scores: the run is {record.get('status')}.")
        return section
    columns, rows = result_rows(scores, names=names)
    section.tables.append(Table(columns, [list(map(as_cell, row)) for row in rows], strong=frozenset({names["model"]})))
    if (published := published_table(str((record.get("data") or {}).get("name")))) is not None:
        section.tables.append(published)
        section.lines.append(CAVEAT)
    return section


def as_cell(text: str) -> Any:
    """A cell of a printed table as a number where it is one, None where it is empty."""
    try:
        return float(text)
    except ValueError:
        return None if text == "-" else text


def figure_files(folder: Path) -> list[Picture]:
    """The figures that a run has drawn, the learning curve first."""
    paths = sorted(folder.rglob("*.png"), key=lambda path: (path.stem not in FIRST, str(path)))
    found = []
    for path in paths:
        session = path.parent.relative_to(folder).as_posix()
        title = FIGURES.get(path.stem, path.stem.replace("_", " "))
        found.append(Picture.of_file(path, title if session == "." else f"{session}: {title}"))
    return found


def latents_section(run: Run) -> Section:
    """The latents of validation trials in their first three principal components; a line where they cannot be had.

    Sessions share one space: the first one shows it.
    """
    section = Section("Latents in three dimensions", "latents")
    if run.status != "finished":
        return section
    name, part = next(iter((run.sessions or {"": run}).items()))
    try:
        drawing = latents_drawing(part)
    except (NeuroError, OSError) as error:
        section.lines.append(f"Not drawn: {' '.join(str(error).split())[:300]}")
        return section
    if drawing is not None:
        section.spaces.append((f"{name}: {drawing[0]}" if name else drawing[0], drawing[1]))
    return section


def neurons_section(run: Run, name: str = "") -> Section:
    """Each neuron's spikes, rate and score, and each condition's, on the trials that were scored."""
    section = Section(f"Neurons{f' of {name}' if name else ''}", f"neurons{f'-{name}' if name else ''}")
    path = trial_scores_file(run.folder, run.session or "")
    found = ((split, read_trial_scores(path, split)) for split in ("val", "test"))
    split, kept = next(((split, kept) for split, kept in found if kept is not None), ("", None))
    if kept is None:
        return section
    sums = as_sums(kept)
    rows = neuron_rows(sums, unit_ids(run, sums.nll.shape[1]), (run.record.get("data") or {}).get("bin_ms"))
    section.lines.append(f"The neurons that are scored, on {len(sums.nll)} {split} trials. A click on a heading sorts.")
    section.tables.append(Table(list(COLUMNS), rows, digits=3))
    conditions = conditions_table(sums, kept.get("condition"))
    section.tables += [conditions] if conditions is not None else []
    return section


def conditions_table(sums: SpikeSums, condition: np.ndarray | None) -> Table | None:
    """Trials, spikes and bits per spike of each condition, above the neurons' mean rates in all of them."""
    names = [] if condition is None else [int(name) for name in np.unique(condition) if name >= 0]
    if len(names) < 2:
        return None
    mean_rates = sums.spikes.sum(0) / sums.bins.sum(0).clamp(min=1)
    rows: list[list[Any]] = []
    for name in names:
        chosen = SpikeSums(*(value[condition == name].sum(0) for value in sums))
        gain = null_nll(chosen, mean_rates) - chosen.nll
        spikes = float(chosen.spikes.sum())
        bits = float(gain.sum()) / spikes / math.log(2) if spikes else None
        rows.append([name, int((condition == name).sum()), int(spikes), bits])
    return Table(["condition", "trials", "spikes", "bits/spike"], rows, digits=3)


def unit_ids(run: Run, n: int) -> Sequence[Any]:
    """The ids of the neurons that are scored; their numbers where the checkpoint cannot be opened."""
    try:
        return [value.item() if hasattr(value, "item") else value for value in run.unit_ids[-n:]]
    except (NeuroError, OSError):
        return list(range(n))


def settings_section(record: Mapping[str, Any]) -> Section:
    """The command, the data's files, versions, and the whole config."""
    import yaml

    section = Section("What was run", "settings")
    words = " ".join(shlex.quote(str(word)) for word in record.get("overrides") or ())
    section.code.append(("The command", f"python train.py {words}".rstrip()))
    data = record.get("data") or {}
    files = [[str(f.get("path")), f.get("size"), str(f.get("sha256") or "-")] for f in data.get("sources") or ()]
    if files:
        section.tables.append(Table(["file", "bytes", "SHA-256"], files))
    section.lines += [str(line) for line in (data.get("split") or {}).get("warnings") or ()]
    git = record.get("git") or {}
    versions = {**(record.get("versions") or {}), "host": record.get("host")}
    if git.get("commit"):
        versions["commit"] = git["commit"] + (" with changes" if git.get("dirty") else "")
    section.tables.append(Table(["", "version"], [[name, str(value)] for name, value in versions.items() if value]))
    section.code.append(("The whole config", yaml.safe_dump(record.get("config") or {}, sort_keys=False, width=100)))
    return section


def model_name(record: Mapping[str, Any]) -> str:
    """The class of the model."""
    return str(((record.get("config") or {}).get("model") or {}).get("_target_", "model")).rpartition(".")[2]


def data_name(record: Mapping[str, Any]) -> str:
    """The data's name; of several sessions how many."""
    data = record.get("data") or {}
    several = len(data.get("sessions") or ())
    return f"{several} sessions" if several else str(data.get("name") or "data")


def is_simulated(record: Mapping[str, Any]) -> bool:
    """Whether the record says that its data are simulated."""
    return bool((record.get("data") or {}).get("simulated"))


def _day(text: str | None) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}" if text else ""
