"""What the jobs of a sweep that share a process need not do again: read the same recording, score the same baseline.

A job gets arrays of its own, so that nothing it does to them reaches the next one; what is kept is read-only. What was
used longest ago is let go when it gets too much. A file that has changed since is read again.
"""

from __future__ import annotations

import copy
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from neuro_lightning.data.recording import Recording

MOST_BYTES = 1 << 30
MOST_SCORES = 1024

Files = tuple[tuple[str, int, int], ...]  # path, size and time of change of each
Scores = dict[str, dict[str, float]]  # by split and metric

# of this process
_recordings: OrderedDict[str, tuple[Recording, Files]] = OrderedDict()
_scores: OrderedDict[str, Scores] = OrderedDict()


def config_key(config: Any, *, without: frozenset[str] | set[str] = frozenset()) -> str:
    """A config as one line, with the files that it names.

    Args:
        config: plain values.
        without: keys of the top level that do not count.
    """
    counts = {key: value for key, value in config.items() if key not in without} if without else config
    return json.dumps([counts, _files(_texts(counts))], sort_keys=True, default=str)


def find_recording(key: str) -> Recording | None:
    """A copy of the recording that was kept under a key; None if there is none, or its files have changed."""
    if key not in _recordings:
        return None
    recording, files = _recordings[key]
    if _files(path for path, _, _ in files) != files:
        del _recordings[key]
        return None
    _recordings.move_to_end(key)
    return copy.deepcopy(recording)  # keeps the memory order of arrays, on which sums depend


def store_recording(key: str, recording: Recording) -> None:
    """Keep a copy of a recording, unless it is too large."""
    if _size(recording) > MOST_BYTES:
        return
    kept = copy.deepcopy(recording)
    for array in kept.arrays().values():
        array.flags.writeable = False
    _recordings[key] = kept, _files(source["path"] for source in recording.sources if "path" in source)
    while sum(_size(other) for other, _ in _recordings.values()) > MOST_BYTES:
        _recordings.popitem(last=False)


def find_scores(key: str) -> Scores | None:
    """Scores that were kept under a key."""
    return copy.deepcopy(_scores.get(key))


def store_scores(key: str, scores: Scores) -> None:
    """Keep scores."""
    _scores[key] = copy.deepcopy(scores)
    while len(_scores) > MOST_SCORES:
        _scores.popitem(last=False)


def clear() -> None:
    """Let go of everything."""
    _recordings.clear()
    _scores.clear()


def _size(recording: Recording) -> int:
    return sum(array.nbytes for array in recording.arrays().values())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _files(paths: Any) -> Files:
    """Those of the paths that are files, as they are now."""
    found = {}
    for path in paths:
        path = os.path.expanduser(path)
        if os.path.isfile(path):
            stat = os.stat(path)
            found[path] = (path, stat.st_size, stat.st_mtime_ns)
    return tuple(found[path] for path in sorted(found))
