"""Two identities of data compared: which keys differ, and which trials of one were training trials of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from neuro_lightning.data.checks.overlap import Spans, overlaps
from neuro_lightning.data.identity import PLACES, Identity

NOT_COMPARED = {
    *PLACES, "sha256", "download", "phase", "batch_size", "eval_batch_size", "shuffle_seed", "steps_at_once",
    "least_steps", "augment", "stride", "sampling", "leave_out_damaged", "sessions", "train_on_inputs",
}  # fmt: skip
"""Keys of a data config that change nothing of what a trial holds; files are compared by their content."""

SPLITTING = {
    "seed", "split", "val_fraction", "test_fraction", "train_trials", "train_trials_seed", "split_seed",
    "folds", "fold", "eval_size",
}  # fmt: skip
"""Keys that say on which side trials of the same file stand: there the trials themselves are compared."""


class Difference(NamedTuple):
    """A key in which two identities differ, and its value in both."""

    key: str
    one: Any
    other: Any


def differences(one: Identity, other: Identity, *, splits: bool = True) -> list[Difference]:
    """What differs between the data of two models, or of a model and a file, by the name of the key.

    Keys that only one of them has are not compared: the other was written by another version.

    Args:
        one: an identity.
        other: another one.
        splits: whether to compare the trials of each split that both have; else only what decides which data they are.
    """
    sessions, others = one.get("sessions", {}), other.get("sessions", {})
    if set(sessions) != set(others):
        return [Difference("the sessions", *(", ".join(names) or "a single one" for names in (sessions, others)))]
    if sessions:
        return [
            Difference(f"session {name}: {key}", *values)
            for name in sessions
            for key, *values in differences(sessions[name], others[name], splits=splits)
        ]
    found = [Difference(name, one[name], other[name]) for name in ("name", "simulated") if one[name] != other[name]]
    if None not in (versions := (one.get("twin"), other.get("twin"))) and len(set(versions)) > 1:
        found.append(Difference("the version of the simulated twin", *versions))
    found += _file_differences(one, other)
    same_files = not found and bool(one["sources"])
    configs = one["config"], other["config"]
    for key in sorted((set(configs[0]) & set(configs[1])) - NOT_COMPARED):
        # of the same file the trials themselves are compared
        if configs[0][key] != configs[1][key] and (key not in SPLITTING or not same_files or splits):
            found.append(Difference(f"data.{key}", configs[0][key], configs[1][key]))
    if splits and not found:
        for split in (
            split for split in one["trials"] if split in other["trials"] and split_differs(one, other, split)
        ):
            counts = (f"{len(identity['trials'][split]['keys'])} trials" for identity in (one, other))
            found.append(Difference(f"the {split} split", *counts))
    return found


def split_differs(one: Identity, other: Identity, split: str) -> bool:
    """Whether a split that both have holds other trials, or the same in another order."""
    mine, theirs = (identity["trials"].get(split) for identity in (one, other))
    same_files = bool(one["sources"]) and not list(_file_differences(one, other))
    return mine is not None and theirs is not None and not _same_trials(mine, theirs, by_rows=same_files)


def rate_differences(one: Sequence[float], other: Sequence[float]) -> list[Difference]:
    """The neurons' mean rates in the training trials, where they differ: what an older checkpoint knows of its data."""
    if len(one) == len(other) and np.allclose(one, other, rtol=1e-5):
        return []
    return [Difference("the training trials' mean rate", *(f"{np.mean(rates):.6g}" for rates in (one, other)))]


def find_training_trials(trained: Identity, fitted_on: Sequence[str], others: Identity, split: str) -> np.ndarray:
    """Which trials of a split a model was trained on: by what they hold, and of one session by their rows and times.

    Args:
        trained: of the model.
        fitted_on: its splits that trained it.
        others: the data that are looked at.
        split: of these.

    Returns:
        (B,) bool.
    """
    part = others["trials"][split]
    same_files = not list(_file_differences(trained, others))
    by_rows = same_files and _rows_are_unique(trained) and _rows_are_unique(others)
    by_times = same_files or same_session(trained["session"], others["session"])
    found = np.zeros(len(part["keys"]), bool)
    for mine in (trained["trials"][name] for name in fitted_on if name in trained["trials"]):
        found |= np.isin(part["keys"], mine["keys"]) & (part["keys"].numpy() != 0)
        if by_rows:
            found |= np.isin(part["rows"], mine["rows"])
        if by_times and part["times"] is not None and mine["times"] is not None:
            found |= _overlap_in_time(part, mine, trained["length_s"])
    return found


def of_one_recording(one: Identity, other: Identity) -> bool:
    """Whether two sets of trials are of the same files, or say that they are of one session."""
    files = [{source.get("sha256") for source in identity["sources"]} for identity in (one, other)]
    return (files[0] == files[1] and files[0] not in (set(), {None})) or same_session(one["session"], other["session"])


def same_session(one: Mapping[str, str | None] | None, other: Mapping[str, str | None] | None) -> bool:
    """Whether two files say that they are of one session, whose units have one numbering.

    By the identifier, or else by start, subject and the session's name together; what is not said is no evidence.
    """
    if not one or not other:
        return False
    known = [name for name in one if one[name] is not None and other.get(name) is not None]
    equal = {name for name in known if one[name] == other[name]}
    if "identifier" in equal:
        return equal == set(known)
    return {"session_start_time", "session_id", "subject_id"} <= equal


def _file_differences(one: Identity, other: Identity) -> Iterator[Difference]:
    """Files of the one, by their name, that have another content in the other; none where the trials are the same."""
    mine, theirs = ({_name(source): source for source in identity["sources"]} for identity in (one, other))
    shared = mine.keys() & theirs.keys()
    if not shared and mine and theirs:  # renamed, or another one
        hashes = [{source.get("sha256") for source in files.values()} - {None} for files in (mine, theirs)]
        pairs = [] if hashes[0] & hashes[1] else [(next(iter(mine.values())), next(iter(theirs.values())))]
    else:
        pairs = [(mine[name], theirs[name]) for name in sorted(shared)]
    unknown = [pair for pair in pairs if None in [source.get("sha256") for source in pair]]
    for pair in unknown:
        if len({source["path"] for source in pair}) > 1:  # of an older checkpoint the path alone is known
            yield Difference("data.path", *(source["path"] for source in pair))
    pairs = [pair for pair in pairs if pair not in unknown and len({source["sha256"] for source in pair}) > 1]
    if pairs and one["simulated"] and other["simulated"]:  # a file that is simulated anew has other bytes
        splits = one["trials"].keys() & other["trials"].keys()
        by_rows = one["kind"] != "spikes"
        if all(_same_trials(one["trials"][s], other["trials"][s], by_rows=by_rows) for s in splits):
            return
    for pair in pairs:
        yield Difference("the file", *(f"{s['path']} (SHA-256 {s['sha256'][:12]}...)" for s in pair))


def _same_trials(one: Mapping[str, Any], other: Mapping[str, Any], *, by_rows: bool) -> bool:
    """Whether two splits hold the same trials in the same order.

    Args:
        one: rows and keys.
        other: likewise.
        by_rows: whether the same rows are the same trials: those of the same file are, and what a reader makes of
            them may change with its version.
    """
    if len(one["keys"]) != len(other["keys"]):
        return False
    rows = one["rows"], other["rows"]
    if by_rows and rows[0] is not None and rows[1] is not None:
        return torch.equal(*rows)
    return torch.equal(one["keys"], other["keys"])


def _rows_are_unique(identity: Identity) -> bool:
    """Whether a row means one trial in all splits: some formats count them anew in each."""
    rows = [part["rows"] for part in identity["trials"].values()]
    if not rows or any(row is None for row in rows):
        return False
    joint = torch.cat(rows)
    return len(joint.unique()) == len(joint)


def _overlap_in_time(part: Mapping[str, Any], others: Mapping[str, Any], length_s: float) -> np.ndarray:
    """Which windows of a split overlap with one of another."""
    if "lengths_s" in part and "lengths_s" in others:
        return overlaps(*(_spans_us(split) for split in (part, others)))
    times, others = part["times"].numpy(), np.sort(others["times"].numpy())
    padded = np.concatenate([[-np.inf], others, [np.inf]])
    after = np.searchsorted(others, times)
    return np.minimum(padded[after + 1] - times, times - padded[after]) < length_s - 1e-6


def _spans_us(split: Mapping[str, Any]) -> Spans:
    start, stop = split["times"], split["times"] + split["lengths_s"]
    return Spans(*(np.rint(times.numpy() * 1e6).astype(np.int64) for times in (start, stop)))


def _name(source: Mapping[str, Any]) -> tuple[str, ...]:
    return Path(source["path"]).parts[-2:]  # some datasets have files of the same names in several folders
