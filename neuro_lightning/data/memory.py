"""What the jobs of a sweep that share a process need not do again: read the same recording, score the same baseline.

A job gets arrays of its own, so that nothing it does to them reaches the next one; what is kept is read-only. What was
used longest ago is dropped when the rest is too large. A file that has changed since is read again.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from neuro_lightning.data.mapped import is_mapped
from neuro_lightning.data.recording import Recording

MOST_BYTES = 1 << 30
MOST_SCORES = 1024

Files = tuple[tuple[str, int, int], ...]  # path, size and time of change of each
Scores = dict[str, dict[str, float]]  # by split and metric
T = TypeVar("T")


def config_key(config: Any, *, without: frozenset[str] | set[str] = frozenset()) -> str:
    """A config as one line, with the files that it names.

    Args:
        config: plain values.
        without: keys of the top level that do not count.
    """
    counts = {key: value for key, value in config.items() if key not in without} if without else config
    return json.dumps([counts, _files(_texts(counts))], sort_keys=True, default=str)


class JobMemory:
    """What one process keeps for its later jobs."""

    def __init__(self) -> None:
        self._recordings: OrderedDict[str, tuple[Recording, Files]] = OrderedDict()
        self._scores: OrderedDict[str, Scores] = OrderedDict()

    def recording(self, key: str, load: Callable[[], Recording]) -> Recording:
        """A copy of the recording that was kept under a key, or else what ``load`` reads."""
        recording = self.find_recording(key)
        if recording is None:
            recording, repeatable = _made(load)
            if repeatable:
                self.keep_recording(key, recording)
        return recording

    def scores(self, key: str, make: Callable[[], T], score: Callable[[T], Scores]) -> Scores:
        """Scores that were kept under a key, or else those of what ``make`` makes."""
        if key not in self._scores:
            made, repeatable = _made(make)
            scores = score(made)
            if not repeatable:
                return scores
            self._scores[key] = copy.deepcopy(scores)
            while len(self._scores) > MOST_SCORES:
                self._scores.popitem(last=False)
        return copy.deepcopy(self._scores[key])

    def find_recording(self, key: str) -> Recording | None:
        """A copy of the recording that was kept under a key; None if there is none, or its files have changed."""
        if key not in self._recordings:
            return None
        recording, files = self._recordings[key]
        if _files(path for path, _, _ in files) != files:
            del self._recordings[key]
            return None
        self._recordings.move_to_end(key)
        return copy.deepcopy(recording)  # keeps the memory order of arrays, on which sums depend

    def keep_recording(self, key: str, recording: Recording) -> None:
        """Keep a copy of a recording, unless it is too large or lies in a file, from which each job maps it anew."""
        arrays = recording.arrays().values()
        if _size(recording) > MOST_BYTES or any(is_mapped(array) for array in arrays):
            return
        kept = copy.deepcopy(recording)
        for array in kept.arrays().values():
            array.flags.writeable = False
        self._recordings[key] = kept, _files(source["path"] for source in recording.sources if "path" in source)
        while sum(_size(other) for other, _ in self._recordings.values()) > MOST_BYTES:
            self._recordings.popitem(last=False)

    def clear(self) -> None:
        """Drop everything."""
        self._recordings.clear()
        self._scores.clear()


JOBS = JobMemory()
"""The memory of this process."""


def _made(make: Callable[[], T]) -> tuple[T, bool]:
    """What ``make`` makes, and whether every job would get the same.

    If it draws from the global random generators, it depends on the job's seed; and a job that took it over would draw
    other weights.
    """
    before = _random_state()
    return make(), _random_state() == before


def _random_state() -> tuple[Any, ...]:
    """The state of the global random generators."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), tuple(rest), torch.get_rng_state().numpy().tobytes()


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
