"""Which data a model was trained on: files, options, and the trials of each split; kept in its checkpoint.

:mod:`neuro_lightning.data.same_data` compares two of them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuro_lightning.artifacts.old_names import DATASETS, update_identity
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.recording import Recording, Trials, padding
from neuro_lightning.data.twin_files import twin_version
from neuro_lightning.errors import CheckpointError

Identity = dict[str, Any]

PLACES = ("path", "root", "cache_dir")
"""Keys of a data config that say where files lie."""


ENOUGH = 8
"""Bins with spikes from which on two trials are not equal by chance."""


def identify(recording: Recording, config: Mapping[str, Any]) -> Identity:
    """What identifies a recording and its splits, in plain values and tensors.

    Args:
        recording: as it was read.
        config: of its data, plain values.

    Returns:
        ``name``, ``kind``, ``simulated``; ``sources``, the files with absolute path, size and SHA-256; ``places``, the
        config's paths as absolute ones; ``session``, where the file says of which it is; ``config``; and for each split
        of ``trials`` their ``rows``, their ``times`` in s, where known, and their ``keys``, see :func:`trial_keys`.
        ``twin`` is the version of simulated images and traces. ``length_s`` is that of a trial's window; where trials
        are of unequal length each split has ``lengths_s``.
    """
    places = {key: _absolute(config[key]) for key in PLACES if isinstance(config.get(key), str)}
    trials = {}
    for split, part in recording.splits.items():
        rows = None if part.row is None else torch.from_numpy(np.asarray(part.row, np.int64).copy())
        trials[split] = {"rows": rows, "times": _times(recording, split), "keys": torch.from_numpy(trial_keys(part))}
        if (observed := getattr(part, "observed", None)) is not None and "window_s" not in recording.info:
            lengths = (~padding(observed)).sum(1) * recording.bin_ms / 1000
            trials[split]["lengths_s"] = torch.from_numpy(lengths)
    cut = recording.info.get("cut") or {"window_ms": (0, 0), "forward_ms": 0}
    # trials of spikes are compared by what they hold, images and traces by their rows, which a new twin has too
    version = twin_version(recording.sources) if recording.simulated and recording.kind != "spikes" else None
    length_s = (cut["window_ms"][1] - cut["window_ms"][0] + cut["forward_ms"]) / 1000
    return {
        "name": recording.name,
        "kind": recording.kind,
        "simulated": recording.simulated,
        "sources": with_checksums(recording.sources),
        "places": places,
        "session": recording.info.get("session"),
        "length_s": recording.info.get("window_s", length_s),  # a reader says it where a history is no part of it
        "config": dict(config),
        "trials": trials,
        **({"twin": version} if version is not None else {}),
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
        return {**update_identity(recipe["identity"]), "older": False}
    spec, config, info = recipe["spec"], recipe["data"], recipe.get("info") or {}
    split = info.get("split")
    rows = info.get("rows") or ({k: split[k] for k in ("train", "val")} if isinstance(split, dict) else {})
    trials = {name: torch.tensor(of_split, dtype=torch.int64) for name, of_split in rows.items()}
    path = config.get("path")
    return {
        "older": True,
        "name": DATASETS.get(spec.get("dataset"), spec.get("dataset")),
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


def response_keys(trials: ImageTrials) -> np.ndarray:
    """As :func:`trial_keys`, of images together with the responses to them: other neurons may have seen the same."""
    pairs = zip(trials.images, trials.responses, strict=True)
    return np.array([_hash(image) ^ _hash(responses) for image, responses in pairs], np.int64)


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


def _times(recording: Recording, split: str) -> torch.Tensor | None:
    """The times in s to which a split's windows are aligned, where the recording notes them."""
    if "times" not in recording.info or recording.splits[split].row is None:
        return None
    of_row = dict(zip(*recording.info["times"], strict=True))  # of all trials of the file
    return torch.tensor([of_row[row] for row in recording.splits[split].row.tolist()], dtype=torch.float64)


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
