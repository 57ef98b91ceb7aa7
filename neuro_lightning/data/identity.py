"""Which data a model was trained on: files, options, and the trials of each split; kept in its checkpoint.

Two identities are compared to find which keys of models or files differ, and which trials of one were training trials
of the other.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from neuro_lightning.data.checks.overlap import Spans, overlaps
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.recording import Recording, Trials, padding
from neuro_lightning.errors import CheckpointError

Identity = dict[str, Any]

PLACES = ("path", "root", "cache_dir")
"""Keys of a data config that say where files lie."""

NOT_COMPARED = {
    *PLACES, "sha256", "download", "phase", "batch_size", "eval_batch_size", "shuffle_seed", "steps_at_once",
    "least_steps", "augment", "stride", "sampling", "leave_out_damaged", "sessions",
}  # fmt: skip
"""Keys of a data config that change nothing of what a trial holds; files are compared by their content."""

SPLITTING = {
    "seed", "split", "val_fraction", "test_fraction", "train_trials", "train_trials_seed", "split_seed",
    "folds", "fold", "eval_size",
}  # fmt: skip
"""Keys that say on which side trials of the same file stand: there the trials themselves are compared."""

ENOUGH = 8
"""Bins with spikes from which on two trials are not equal by chance."""


class Difference(NamedTuple):
    """A key in which two identities differ, and its value in both."""

    key: str
    one: Any
    other: Any


def identify(recording: Recording, config: Mapping[str, Any]) -> Identity:
    """What identifies a recording and its splits, in plain values and tensors.

    Args:
        recording: as it was read.
        config: of its data, plain values.

    Returns:
        ``name``, ``kind``, ``simulated``; ``sources``, the files with absolute path, size and SHA-256; ``places``, the
        config's paths as absolute ones; ``session``, where the file says of which it is; ``config``; and for each split
        of ``trials`` their ``rows``, their ``times`` in s, where known, and their ``keys``, see :func:`trial_keys`.
        ``length_s`` is that of a trial's window; where trials are of unequal length each split has ``lengths_s``.
    """
    places = {key: _absolute(config[key]) for key in PLACES if isinstance(config.get(key), str)}
    trials = {}
    for split, part in recording.splits.items():
        rows = None if part.row is None else torch.from_numpy(np.asarray(part.row, np.int64).copy())
        trials[split] = {"rows": rows, "times": _times(recording, split), "keys": torch.from_numpy(trial_keys(part))}
        if (observed := getattr(part, "observed", None)) is not None:
            lengths = (~padding(observed)).sum(1) * recording.bin_ms / 1000
            trials[split]["lengths_s"] = torch.from_numpy(lengths)
    cut = recording.info.get("cut") or {"window_ms": (0, 0), "forward_ms": 0}
    return {
        "name": recording.name,
        "kind": recording.kind,
        "simulated": recording.simulated,
        "sources": with_checksums(recording.sources),
        "places": places,
        "session": recording.info.get("session"),
        "length_s": (cut["window_ms"][1] - cut["window_ms"][0] + cut["forward_ms"]) / 1000,
        "config": dict(config),
        "trials": trials,
    }


def identify_sessions(recordings: Mapping[str, Recording], config: Mapping[str, Any]) -> Identity:
    """What identifies several recordings: ``sessions`` holds the identity of each by its name, see :func:`identify`.

    Args:
        recordings: of each session.
        config: of the data, whose ``sessions`` holds that of each.
    """
    sessions = {name: identify(recording, config_of_session(config, name)) for name, recording in recordings.items()}
    first = next(iter(sessions.values()))
    simulated = any(identity["simulated"] for identity in sessions.values())
    none = {"name": "sessions", "sources": [], "places": {}, "session": None, "length_s": 0.0, "trials": {}}
    return {**first, **none, "simulated": simulated, "config": dict(config), "sessions": sessions}


def config_of_session(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of one of several recordings, with what is said once for all of them.

    Args:
        config: of the data, see :class:`neuro_lightning.data.sessions.Sessions`.
        name: of the session.
    """
    said = {key: config[key] for key in ("batch_size", "eval_batch_size") if key in config}
    if config.get("train_trials") is not None:
        said |= {key: config[key] for key in ("train_trials", "train_trials_seed") if key in config}
    return {**config["sessions"][name], **said}


def identity_of(recipe: Mapping[str, Any]) -> Identity:
    """The identity that a checkpoint's description holds; of an older one what its config and notes tell.

    Args:
        recipe: ``spec``, ``data`` and ``info`` of a checkpoint, and ``identity`` where it is not ``older``.

    Raises:
        CheckpointError: the identity is not what :func:`identify` wrote.
    """
    if "identity" in recipe:
        if not _is_complete(recipe["identity"]):
            raise CheckpointError("a checkpoint's description of its data is damaged: restore it from a copy")
        return {**recipe["identity"], "older": False}
    spec, config, info = recipe["spec"], recipe["data"], recipe.get("info") or {}
    split = info.get("split")
    rows = info.get("rows") or ({k: split[k] for k in ("train", "val")} if isinstance(split, dict) else {})
    trials = {name: torch.tensor(of_split, dtype=torch.int64) for name, of_split in rows.items()}
    path = config.get("path")
    return {
        "older": True,
        "name": spec.get("dataset"),
        "kind": spec.get("kind", "spikes"),
        "simulated": spec.get("simulated", False),
        "sources": [{"path": _absolute(path)}] if path else [],
        "places": {},
        "session": None,
        "length_s": 0.0,
        "config": config,
        "trials": {k: {"rows": v, "times": None, "keys": torch.zeros_like(v)} for k, v in trials.items()},
    }


def trial_keys(trials: Trials | ImageTrials) -> np.ndarray:
    """A number for what each trial holds.

    Args:
        trials: of one split.

    Returns:
        (B,) int64, a hash of the held-in activity or of the image; 0 for trials with so few spikes that another one may
        be the same by chance.
    """
    if isinstance(trials, ImageTrials):
        return np.array([_hash(image) for image in trials.images], np.int64)
    counts = trials.heldin
    if trials.observed is None:
        keys = np.array([_hash(trial) for trial in counts], np.int64)
    else:  # how many bins of padding there are depends on the other trials
        keys = np.array([_hash(c[~p]) for c, p in zip(counts, padding(trials.observed), strict=True)], np.int64)
    if counts.dtype == np.uint8:
        keys[np.count_nonzero(counts, axis=tuple(range(1, counts.ndim))) < ENOUGH] = 0
    return keys


def content_keys(trials: Trials | ImageTrials) -> np.ndarray:
    """As :func:`trial_keys`, of images together with the responses to them: other neurons may have seen the same."""
    if isinstance(trials, ImageTrials):
        pairs = zip(trials.images, trials.responses, strict=True)
        return np.array([_hash(image) ^ _hash(responses) for image, responses in pairs], np.int64)
    return trial_keys(trials)


def with_checksums(sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files with absolute path, size and SHA-256, as they are now."""
    found = []
    for source in sources:
        path, source = Path(source["path"]), {**source, "path": _absolute(source["path"])}
        if not source.get("sha256") and path.is_file():
            source |= {"size": path.stat().st_size, "sha256": checksum(path)}
        found.append(source)
    return found


def checksum(path: str | Path) -> str:
    """The SHA-256 of a file, computed once as long as it does not change."""
    path = Path(path).expanduser()
    stat = path.stat()
    return _checksum(path, stat.st_size, stat.st_mtime_ns)


def data_record(recording: Recording, **params: Any) -> dict[str, Any]:
    """Which data these are, for ``run.json``: name, simulated or real, parameters, and the files with their SHA-256."""
    return {
        "name": recording.name,
        "simulated": recording.simulated,
        "bin_ms": recording.bin_ms,
        "trials": {split: len(trials) for split, trials in recording.splits.items()},
        "split": {key: recording.info[key] for key in ("overlap", "train_trials", "warnings") if key in recording.info},
        "params": params,
        "sources": with_checksums(recording.sources),
    }


# ---- two of them


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


def _times(recording: Recording, split: str) -> torch.Tensor | None:
    """The times in s to which a split's windows are aligned, where the recording notes them."""
    if "times" not in recording.info or recording.splits[split].row is None:
        return None
    of_row = dict(zip(*recording.info["times"], strict=True))  # of all trials of the file
    return torch.tensor([of_row[row] for row in recording.splits[split].row.tolist()], dtype=torch.float64)


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


def _is_complete(identity: Any) -> bool:
    kinds = {"name": str, "kind": str, "simulated": bool, "sources": list, "places": dict, "config": dict,
             "trials": dict, "length_s": float, "session": dict | None}  # fmt: skip
    return (
        isinstance(identity, dict)
        and isinstance(identity.get("sessions", {}), dict)
        and all(map(_is_complete, identity.get("sessions", {}).values()))
        and all(name in identity and isinstance(identity[name], kind) for name, kind in kinds.items())
        and all(isinstance(source, dict) and isinstance(source.get("path"), str) for source in identity["sources"])
        and all(
            isinstance(part, dict) and isinstance(part.get("keys"), torch.Tensor)
            and all(part.get(name) is None or len(part[name]) == len(part["keys"]) for name in ("rows", "times"))
            for part in identity["trials"].values()
        )
    )  # fmt: skip


def _hash(values: np.ndarray) -> int:
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@functools.lru_cache(maxsize=64)  # the jobs of a sweep share their files
def _checksum(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _absolute(path: str | Path) -> str:
    return str(Path(path).expanduser().absolute())


def _name(source: Mapping[str, Any]) -> tuple[str, ...]:
    return Path(source["path"]).parts[-2:]  # some datasets have files of the same names in several folders
