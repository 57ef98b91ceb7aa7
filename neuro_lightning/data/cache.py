"""Prepared recordings on disk, so that a file is read and binned once.

One uncompressed zip a recording: ``header.json`` and an ``.npy`` member for each array, each with the CRC-32 that the
zip format keeps. Large arrays are not read but mapped, see :mod:`neuro_lightning.data.mapped`. The file's name is a
hash of the parameters and of the source files' identity, so that a changed file or option is another recording. The
folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.mapped import aligned_member, read_members
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import DataError

log = logging.getLogger(__name__)

FORMAT = 7
"""Raise it whenever a reader's results or this file's layout change: older caches are then left aside."""

SAMPLE = 1 << 16
"""Bytes at a source's head and tail that count for its identity."""

STALE = 24 * 3600
"""Seconds after which a temporary file can only be what a killed process left."""


def cached(
    folder: str | Path, params: dict[str, Any], sources: Sequence[str | Path], build: Callable[[], Recording]
) -> Recording:
    """The recording that ``build`` makes, from the cache if it is there.

    The first run takes it from the cache too, so that it sees what the second one will and what was built can go. A
    damaged cache is made anew. A cache that cannot be written (no space, no permission) costs one warning, not
    the run. Processes that build the same recording at once do not disturb each other.

    Args:
        folder: where caches lie (``paths.cache``); made if need be.
        params: everything, apart from the files, that decides the result; plain values.
        sources: the files that ``build`` reads.
        build: reads and bins them.

    Raises:
        DataError: a source does not exist, or ``build`` raises it.
    """
    key = cache_key(params, sources)
    path = Path(folder).expanduser() / f"recording-{key[:32]}.npz"
    if (recording := _load_or_none(path, key)) is not None:
        return recording
    recording = build()
    sources = [{**s, "path": str(Path(s["path"]).expanduser().absolute())} for s in recording.sources]
    recording.sources, recording.info = _plain(sources), _plain(recording.info)
    try:
        save_recording(path, recording, {"key": key, "params": params})
    except OSError as error:
        reason = error.strerror or error
        log.warning(
            f"the prepared data cannot be cached in {path.parent} ({reason}): the run continues without; "
            "set paths.cache=DIR to a folder with space that you may write to"
        )
        return recording
    return _load_or_none(path, key) or recording


def cache_key(params: dict[str, Any], sources: Sequence[str | Path]) -> str:
    """A hash of the format, the parameters and the sources' identity: path, size, time of change, head and tail.

    Raises:
        DataError: a source does not exist or cannot be read.
    """
    content = {"format": FORMAT, "params": params, "sources": [_identity(Path(source)) for source in sources]}
    return hashlib.sha256(_to_json(content).encode()).hexdigest()


def save_recording(path: Path, recording: Recording, extra: dict[str, Any]) -> None:
    """Write a recording; under its name it is there whole or not at all.

    Args:
        path: the file to write.
        recording: what to write.
        extra: plain values that the header shall hold too.

    Raises:
        OSError: there is no space or no permission. Nothing is left behind.
    """
    for stale in path.parent.glob(".recording-*.part.npz"):
        if time.time() - stale.stat().st_mtime > STALE:
            stale.unlink(missing_ok=True)
    arrays = recording.arrays()
    values = {f.name: getattr(recording, f.name) for f in fields(recording) if f.name not in ("splits", *arrays)}
    header = {**extra, "arrays": list(arrays), "splits": list(recording.splits), "values": values}
    with atomic_path(path) as part, part.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.json", _to_json(header))
        for member, array in arrays.items():
            info = aligned_member(f"{member}.npy", file.tell())
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def load_recording(path: Path) -> tuple[Recording, dict[str, Any]]:
    """What :func:`save_recording` wrote, every byte checked against its CRC-32, large arrays left in the file.

    Returns:
        The recording and the whole header.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            header = json.loads(archive.read("header.json"))
            arrays = read_members(archive, file, header["arrays"])
    except OSError:
        raise
    except Exception as error:  # a flipped bit may hit any field of the zip's own structure
        raise ValueError(f"damaged: {error or type(error).__name__}") from error
    kind = ImageTrials if header["values"].get("kind") == "images" else Trials
    splits: dict[str, dict[str, np.ndarray]] = {split: {} for split in header["splits"]}
    for name in [name for name in arrays if "/" in name]:
        _, split, field = name.split("/")
        splits[split][field] = arrays.pop(name)
    parts = {split: kind(**values) for split, values in splits.items()}
    return Recording(splits=parts, **arrays, **header["values"]), header


def _load_or_none(path: Path, key: str) -> Recording | None:
    try:
        recording, header = load_recording(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        log.warning(f"the cached data {path} cannot be used ({error}): they are prepared anew")
        return None
    return recording if header.get("key") == key else None


def _identity(source: Path) -> dict[str, Any]:
    try:
        path = source.expanduser().resolve()
        stat = path.stat()
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(SAMPLE))
            file.seek(max(0, stat.st_size - SAMPLE))
            digest.update(file.read(SAMPLE))
    except FileNotFoundError:
        raise DataError(f"{source} is not there: check data.path or data.root") from None
    except IsADirectoryError:
        raise DataError(f"{source} is a folder, not a file: name the recording's file") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error}): check data.path or data.root") from None
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ends": digest.hexdigest()}


def _to_json(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, np.generic | np.ndarray):
            return item.tolist()
        if isinstance(item, Path):
            return str(item)
        raise TypeError(f"{type(item).__name__} is not a plain value")

    return json.dumps(value, default=plain, sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(_to_json(value))
