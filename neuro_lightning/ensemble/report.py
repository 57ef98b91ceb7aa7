"""What ``predict.py`` says of an ensemble: who is in it, and what it gains where it was not chosen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from neuro_lightning.artifacts.records import flat_overrides, plain, read_record, versions, write_json
from neuro_lightning.artifacts.sweep_jobs import job_settings, varied
from neuro_lightning.data.recording import Recording
from neuro_lightning.ensemble.combine import Choice
from neuro_lightning.errors import DataError
from neuro_lightning.models.loading import BEST, run_folder
from neuro_lightning.report.table import kind_of, number, print_table, relative

MAX_ROWS = 20
MAX_WIDTH = 50  # of the members' settings, in characters
METHODS = {
    "mean": "The mean of all members",
    "top": "The mean of the best members (top)",
    "greedy": "Forward selection with replacement (greedy)",
    "stack": "Weights that are not negative (stack)",
    "per_neuron": "Weights of each neuron (per_neuron)",
}


def described(choice: Choice | None, n_members: int) -> str:
    """An ensemble in a few words."""
    if choice is None or choice.recipe.method == "mean":
        space = "log-rates" if choice is not None and choice.recipe.space == "log_rate" else "rates"
        return f"the mean {space} of {n_members if choice is None else len(choice.members)} checkpoints"
    return f"an ensemble of {_n_used(choice)} of {len(choice.members)} checkpoints (ensemble={choice.recipe.method})"


def progress(members: Sequence[Path]) -> Iterable[Path]:
    """The members one after another, with a bar in a terminal while it takes."""
    if not sys.stdout.isatty():
        return iter(members)
    from rich.progress import track

    return track(members, "Predicting", transient=True)


def print_members(members: Sequence[Path]) -> None:
    """Who is in an ensemble, before anything is averaged."""
    print(f"{len(members)} checkpoints:")
    for member in members[:MAX_ROWS]:
        print(f"  {member_name(member)}")
    if len(members) > MAX_ROWS:
        print(f"  ... and {len(members) - MAX_ROWS} more")


def print_choice(path: Path, recording: Recording, choice: Choice) -> None:
    """The honest table: what chose and what reports, then the members.

    Args:
        path: the file that was written.
        recording: what was predicted.
        choice: what was chosen.
    """
    for line in choice.left_out:
        print(line)
    lower = " (lower is better)" if choice.metric == "MSE" else ""
    title = f"{METHODS[choice.recipe.method]} on {recording.name} ({kind_of(recording)}): {choice.metric}{lower}"
    columns = ["", "members", "where it was chosen", "on the others", "ensemble's gain", "s.e."]
    print_table(title, columns, _rows(choice), strong={"ensemble"})
    print(f"{choice.halves}, the gain too.", flush=True)
    columns, rows = _members(choice)
    print_table("Members by their weight", columns, rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        print(f"... and {len(rows) - MAX_ROWS} more in {relative(beside(path))}\n")
    print(f"members     {relative(beside(path))}")


def _rows(choice: Choice) -> list[list[str]]:
    number_of = {"best": 1, "mean": len(choice.members), "ensemble": _n_used(choice)}
    names = {"best": "best member", "mean": "mean of all", "ensemble": "ensemble"}
    rows = []
    for who, name in names.items():
        gain, error = choice.gain.get(who, (None, None))
        gains = [number(gain), number(error)]
        rows.append([name, str(number_of[who]), *map(number, choice.scores[who]), *gains])
    return rows


def _members(choice: Choice) -> tuple[list[str], list[list[str]]]:
    weights = choice.weights.reshape(len(choice.members), -1)
    differ = _settings(choice.members)
    spread = ["over neurons"] if choice.weights.ndim == 2 else []
    columns = ["member", *differ, "weight", *spread, "where it was chosen", "on the others"]
    rows = []
    for i in np.argsort(-weights.mean(1), kind="stable"):
        own, scores = weights[i], choice.member_scores[i]
        row = [member_name(choice.members[i]), *(values[i] for values in differ.values())]
        row += [f"{own.mean():.3f}" if own.any() else "-", *([f"{own.min():.3f} to {own.max():.3f}"] if spread else [])]
        rows.append([*row, *map(number, scores)])
    return columns, rows


def _settings(members: Sequence[Path]) -> dict[str, list[str]]:
    """The overrides in which the members differ, as far as a line has room for them."""
    found = []
    for member in members:
        try:
            found.append(flat_overrides(job_settings(read_record(run_folder(member)).get("overrides") or [])))
        except DataError:  # a checkpoint alone
            found.append({})
    differ = {key: [str(own.get(key, "")) for own in found] for key in varied([{"overrides": own} for own in found])}
    room = MAX_WIDTH
    return {key: values for key, values in differ.items() if (room := room - 2 - max(map(len, (key, *values)))) > 0}


def member_name(checkpoint: Path) -> str:
    """The run's folder; with the checkpoint's name where it is not the best one."""
    return relative(run_folder(checkpoint) if checkpoint.name == BEST else checkpoint)


def forget_choice(path: Path, name: str) -> None:
    """Strike out what is kept beside a file of an earlier ensemble of this dataset: one model has written it anew."""
    if beside(path).is_file():
        with suppress(DataError):
            others = {key: value for key, value in read_record(beside(path)).items() if key != name}
            write_json(beside(path), others) if others else beside(path).unlink()


def write_choice(path: Path, recording: Recording, choice: Choice, *, merge_into: str | Path | None = None) -> Path:
    """Keep beside a file, as ``FILE.json``, which members made it: by dataset, as the file itself.

    Args:
        path: the file.
        recording: what was predicted.
        choice: what was chosen.
        merge_into: the file whose other datasets were kept.

    Returns:
        The path written.
    """
    scores = {who: dict(zip(("chose", "reports"), pair, strict=True)) for who, pair in choice.scores.items()}
    members = [
        {
            "run": str(run_folder(member).absolute()), "checkpoint": str(member.absolute()), "weight": weight,
            "chose": chose, "reports": reports,
        }
        for member, weight, (chose, reports) in zip(choice.members, choice.weights, choice.member_scores, strict=True)
    ]  # fmt: skip
    entry = {
        "ensemble": choice.recipe.method,
        "space": choice.recipe.space,
        "metric": choice.metric,
        "simulated": recording.simulated,
        "scores": scores,
        "gain": {who: {"over": gain, "standard_error": error} for who, (gain, error) in choice.gain.items()},
        "members": members,
        "left_out": choice.left_out,
        "halves": {
            "seed": choice.recipe.seed,
            "chose": np.flatnonzero(choice.chose),
            "reports": np.flatnonzero(~choice.chose),
        },
        "max_members": choice.recipe.most,
        "shrinkage": choice.recipe.shrinkage,
        "versions": versions(),
    }
    others = {}
    if merge_into is not None and beside(Path(merge_into)).is_file():
        with suppress(DataError):  # what is not readable says nothing of the other datasets
            others = read_record(beside(Path(merge_into)))
    write_json(beside(path), plain({**others, recording.name: entry}))
    return beside(path)


def beside(path: str | Path) -> Path:
    """Where a file's members are kept: ``FILE.json``."""
    return Path(path).with_name(Path(path).name + ".json")


def _n_used(choice: Choice) -> int:
    return int(choice.weights.reshape(len(choice.members), -1).any(1).sum())
