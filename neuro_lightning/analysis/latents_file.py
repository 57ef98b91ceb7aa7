"""Reads the latents that ``predict.py output=latents`` wrote, and joins their splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from neuro_lightning.data.checks.bounds import read_h5, reading
from neuro_lightning.errors import DataError

FILE = "latents.h5"
ORDER = ("train", "val", "test")


@dataclass
class Latents:
    """Latents of the splits of one recording.

    Attributes:
        values: (B, L, D), L = T + F where the model predicts forward bins.
        condition: (B,) the samples' labels (imaging planes, conditions of trials), or None.
        behavior: (B, T, K), or (B, K) of whole trials; NaN where unknown; None without.
        later: (B, L) bool, True for what behavior decoding is scored on: the later splits, or the last quarter.
        splits: the splits' names.
        continuous: whether samples are recorded side by side in one stretch of time (planes); else they are trials.
        dataset: what was recorded.
        bin_ms: bin width in ms.
        simulated: whether the recording is simulated.
        behavior_names: (K,) names of the channels of behavior; empty where the file has none.
    """

    values: np.ndarray
    condition: np.ndarray | None
    behavior: np.ndarray | None
    later: np.ndarray
    splits: tuple[str, ...]
    continuous: bool
    dataset: str
    bin_ms: float
    simulated: bool
    behavior_names: tuple[str, ...] = ()


def find_latents(path: str | Path) -> Path:
    """The latents' file, from itself or from a run's folder.

    Raises:
        DataError: there is none; the message says which command writes it.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        run = path if path.is_dir() else path.parent
        raise DataError(f"{file} is missing: write it with `python predict.py ckpt={run} output=latents`")
    return file


def read_latents(path: str | Path, splits: Sequence[str] | None = None, session: str | None = None) -> Latents:
    """Read latents and join their splits.

    Splits of the same samples (the planes of one recording) follow each other in time; splits of different samples
    (trials) are put side by side. A split that was cut into windows is joined first, see :func:`_join_windows`.

    Args:
        path: the file, or the run's folder.
        splits: which to read; None is all.
        session: which to read of a file of several sessions.

    Raises:
        DataError: no file, no latents in it, a session or split that is not there, or splits that cannot be joined.
    """
    file = find_latents(path)
    with reading(file, "write it again with predict.py"), h5py.File(file) as source:
        source = _of_session(source, session, file)
        found = [name for name in source if isinstance(source[name], h5py.Group) and "latents" in source[name]]
        if not found:
            raise DataError(f"{file} holds no latents: it has {', '.join(source) or 'nothing'}")
        if missing := set(splits or ()) - set(found):
            raise DataError(f"{file} has no split {min(missing)!r}; it has {', '.join(found)}")
        names = sorted(splits or found, key=lambda name: (ORDER.index(name) if name in ORDER else 9, name))
        parts = [{k: read_h5(v, f"{file}:/{name}/{k}") for k, v in source[name].items()} for name in names]
        attributes = dict(source.attrs)
    return _join_splits(parts, tuple(names), attributes, file)


def _of_session(source: h5py.File, session: str | None, file: Path) -> h5py.Group:
    """The part of a file that is about one session; of one recording the file."""
    sessions = [name for name in source if isinstance(source[name], h5py.Group) and "unit_ids" in source[name]]
    if not sessions and session is None:
        return source
    if session not in sessions:
        known = f"it has {', '.join(sessions)}" if sessions else "it is of one recording"
        wish = (
            f"holds no session {session}" if session is not None else "holds several sessions, choose one as --session"
        )
        raise DataError(f"{file} {wish}: {known}")
    return source[session]


def _join_splits(parts: list[dict[str, np.ndarray]], names: tuple[str, ...], attributes: dict, file: Path) -> Latents:
    for name, part in zip(names, parts, strict=True):
        if attributes.get("kind") == "spikes" and np.isnan(part["latents"]).any():
            raise DataError(
                f"{file}: the trials of {name} are of unequal length (NaN after their ends), and whole trials are "
                "compared here: train with windows that all of them fill (data.window_ms=[START,STOP])"
            )
        if part["latents"].ndim != 3 or not np.isfinite(part["latents"]).all():
            raise DataError(f"{file}: {name}/latents must be finite numbers (B, T, D), not {part['latents'].shape}")
    if attributes.get("kind") == "traces":
        parts = [_join_windows(part) for part in parts]
    first = parts[0]
    labels = [part.get("condition", np.zeros(len(part["latents"]))) for part in parts]
    alike = all(np.array_equal(label, labels[0]) for label in labels)
    # trials of spikes may each have a condition of their own: they are trials all the same
    continuous = attributes.get("kind") != "spikes" and alike and len(np.unique(labels[0])) == len(labels[0])
    axis = 1 if continuous else 0
    shapes = [np.delete(part["latents"].shape, axis).tolist() for part in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise DataError(f"{file}: the latents of {' and '.join(names)} differ in shape; choose one with --splits")
    join = {
        key: np.concatenate([part[key] for part in parts], axis)
        for key in ("latents", "behavior")
        if all(key in part for part in parts)
    }
    condition = None
    if all("condition" in part for part in parts):
        condition = first["condition"] if continuous else np.concatenate(labels)
    values = join["latents"]
    begin = first["latents"].shape[axis] if len(parts) > 1 else values.shape[axis] * 3 // 4
    later = np.zeros(values.shape[:2], bool)
    later[:, begin:] = continuous
    later[begin:] |= not continuous
    return Latents(
        values.astype(np.float64), condition, join.get("behavior"), later, names, continuous,
        str(attributes.get("dataset", file.parent.name)), float(attributes.get("bin_ms", 0)),
        bool(attributes.get("simulated", False)), tuple(map(str, attributes.get("behavior", ()))),
    )  # fmt: skip


def _join_windows(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Windows of sequences joined to whole sequences, one for each label; anything else unchanged.

    Where windows overlap, the first half of the overlap is taken from the earlier window and the rest from the later
    one: near its ends a window has little context on one side.
    """
    if not {"condition", "row"} <= set(part):
        return part
    labels, n_bins = np.unique(part["condition"]), part["latents"].shape[1]
    windows = [np.flatnonzero(part["condition"] == label) for label in labels]
    windows = [found[np.argsort(part["row"][found], kind="stable")] for found in windows]
    starts = part["row"][windows[0]]
    if len(starts) < 2 or any(not np.array_equal(part["row"][found], starts) for found in windows):
        return part
    shared = np.maximum(0, starts[:-1] + n_bins - starts[1:])  # bins that a window has in common with the next one
    first, last = np.append(0, shared - shared // 2), n_bins - np.append(shared // 2, 0)
    whole = {"condition": labels, "row": np.full(len(labels), starts[0])}
    for name in {"latents", "behavior"} & set(part):
        whole[name] = np.stack(
            [
                np.concatenate([part[name][k, a:b] for k, a, b in zip(found, first, last, strict=True)])
                for found in windows
            ]
        )
    return whole
