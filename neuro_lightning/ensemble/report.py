"""What ``predict.py`` prints and writes about an ensemble: its members, their weights, and what it gains."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.artifacts.checkpoint_files import BEST, run_folder
from neuro_lightning.artifacts.lines import say
from neuro_lightning.artifacts.records import flat_overrides, read_record_if_any, versions, write_json
from neuro_lightning.artifacts.sweep_jobs import job_settings, varied_keys
from neuro_lightning.data.recording import Recording
from neuro_lightning.display.table import fitting_columns, kind_of, number, print_table, relative
from neuro_lightning.ensemble.combine import Ensemble

MAX_ROWS = 20
MAX_WIDTH = 50  # of the members' settings, in characters
METHODS = {
    "mean": "The mean of all members",
    "top": "The mean of the best members (top)",
    "greedy": "Forward selection with replacement (greedy)",
    "stack": "Weights that are not negative (stack)",
    "per_neuron": "Weights of each neuron (per_neuron)",
}


def describe_ensemble(ensemble: Ensemble | None, n_members: int) -> str:
    """A short description of an ensemble; None means the mean of ``n_members`` models that was not scored."""
    if ensemble is not None and ensemble.settings.method != "mean":
        method = ensemble.settings.method
        return f"an ensemble of {ensemble.n_used} of {len(ensemble.members)} checkpoints (ensemble={method})"
    space = "log-rates" if ensemble is not None and ensemble.settings.space == "log_rate" else "rates"
    return f"the mean {space} of {n_members if ensemble is None else len(ensemble.members)} checkpoints"


def progress(members: Sequence[Path]) -> Iterable[Path]:
    """The members one after another, with a progress bar in a terminal."""
    if not sys.stdout.isatty():
        return iter(members)
    from rich.progress import track

    return track(members, "Predicting", transient=True)


def print_members(members: Sequence[Path]) -> None:
    """Print which checkpoints are to be averaged."""
    print(f"{len(members)} checkpoints:")
    for member in members[:MAX_ROWS]:
        print(f"  {member_name(member)}")
    if len(members) > MAX_ROWS:
        print(f"  ... and {len(members) - MAX_ROWS} more")


def print_ensemble(path: Path, recording: Recording, ensemble: Ensemble, session: str = "") -> None:
    """Print the ensemble's scores on both halves of the validation trials, then its members by their weight.

    Args:
        path: the file that was written.
        recording: what was predicted.
        ensemble: what was averaged.
        session: the recording's name among several.
    """
    for line in ensemble.left_out:
        say(line)
    lower = " (lower is better)" if ensemble.metric == "MSE" else ""
    method = METHODS[ensemble.settings.method]
    title = f"{method} on {session or recording.name} ({kind_of(recording)}): {ensemble.metric}{lower}"
    halves = ["where selected", "on the others"]
    rows = []
    for who, name, count in (
        ("best", "best member", 1),
        ("mean", "mean of all", len(ensemble.members)),
        ("ensemble", "ensemble", ensemble.n_used),
    ):
        numbers = [*ensemble.scores[who], *ensemble.gain.get(who, (None, None))]
        rows.append([name, str(count), *map(number, numbers)])
    print_table(title, ["", "members", *halves, "ensemble's gain", "s.e."], rows, strong={"ensemble"})
    say(f"{ensemble.halves}, and so is the gain.")
    columns, rows = _members(ensemble)
    print_table("Members by their weight", [*columns, *halves], rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        say(f"... and {len(rows) - MAX_ROWS} more in {relative(members_file(path))}")
    print(f"members     {relative(members_file(path))}")


def _members(ensemble: Ensemble) -> tuple[list[str], list[list[str]]]:
    weights = ensemble.weights.reshape(len(ensemble.members), -1)
    differ = differing_settings(ensemble.members)
    spread = ["over neurons"] if ensemble.weights.ndim == 2 else []
    rows = []
    for i in np.argsort(-weights.mean(1), kind="stable"):
        own = weights[i]
        row = [member_name(ensemble.members[i]), *(values[i] for values in differ.values())]
        row += [f"{own.mean():.3f}" if own.any() else "-", *([f"{own.min():.3f} to {own.max():.3f}"] if spread else [])]
        rows.append([*row, *map(number, ensemble.member_scores[i])])
    return ["member", *differ, "weight", *spread], rows


def differing_settings(members: Sequence[Path]) -> dict[str, Sequence[str]]:
    """The overrides in which the members' runs differ, by key, as many as fit into a line."""
    records = [read_record_if_any(run_folder(member)) for member in members]  # empty for a checkpoint alone
    found = [flat_overrides(job_settings(record.get("overrides") or [])) for record in records]
    differ = {key: [str(own.get(key, "")) for own in found] for key in varied_keys(found)}
    return fitting_columns(differ, MAX_WIDTH)


def member_name(checkpoint: Path) -> str:
    """The run's folder; with the checkpoint's name where it is not the best one."""
    return relative(run_folder(checkpoint) if checkpoint.name == BEST else checkpoint)


def write_members(
    path: Path,
    ensembles: Mapping[str, tuple[Recording, Ensemble | None]],
    merge_into: str | Path | None = None,
) -> None:
    """Write which members predicted a dataset into ``FILE.json``, which has an entry for each dataset of the file.

    Args:
        path: the file.
        ensembles: by the name of the entry (the group in a submission, which differs by bin width, else the session or
            the dataset) what was predicted, and what predicted it; None for a single model, which removes the entry of
            an earlier ensemble.
        merge_into: the submission whose other datasets were kept, and with them their entries.
    """
    entries = read_record_if_any(members_file(merge_into)) if merge_into is not None else {}
    for group, (recording, ensemble) in ensembles.items():
        entries.pop(group, None)
        if ensemble is not None:
            entries[group] = _entry(recording, ensemble)
    if entries:
        write_json(members_file(path), entries)
    else:
        members_file(path).unlink(missing_ok=True)


def _entry(recording: Recording, ensemble: Ensemble) -> dict:
    """What ``FILE.json`` holds of one dataset; ``chose`` and ``reports`` are the two halves."""
    members = [
        {"run": str(run_folder(member).absolute()), "checkpoint": str(member.absolute()), "weight": weight}
        | dict(zip(("chose", "reports"), scores, strict=True))
        for member, weight, scores in zip(ensemble.members, ensemble.weights, ensemble.member_scores, strict=True)
    ]
    return {
        "ensemble": ensemble.settings.method,
        "space": ensemble.settings.space,
        "metric": ensemble.metric,
        "simulated": recording.simulated,
        "scores": {who: dict(zip(("chose", "reports"), pair, strict=True)) for who, pair in ensemble.scores.items()},
        "gain": {who: {"over": gain, "standard_error": error} for who, (gain, error) in ensemble.gain.items()},
        "members": members,
        "left_out": ensemble.left_out,
        "halves": {
            "seed": ensemble.settings.seed,
            "chose": np.flatnonzero(ensemble.selecting),
            "reports": np.flatnonzero(~ensemble.selecting),
        },
        "max_members": ensemble.settings.max_members,
        "shrinkage": ensemble.settings.shrinkage,
        "versions": versions(),
    }


def members_file(path: str | Path) -> Path:
    """The file beside a file of predictions that says which members made it: ``FILE.json``."""
    return Path(path).with_name(Path(path).name + ".json")
