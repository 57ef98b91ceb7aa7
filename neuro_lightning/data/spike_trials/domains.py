"""Splits that a file names as intervals of its time, such as ``train_domain`` and ``test_domain``."""

from __future__ import annotations

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.checks.overlap import Spans
from neuro_lightning.data.formats.intervals import merge_intervals
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.errors import ConfigError, DataError

DOMAINS = "*_domain"
"""What the intervals are called, with ``*`` for the split."""

SPELLINGS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""What files call the splits."""


def mark_by_domain(source: SpikeRecording, pattern: str, spans: Spans, *, needed: bool) -> np.ndarray | None:
    """(B,) the split whose intervals contain each window from its first to its last bin, empty where none does.

    Intervals that overlap or touch are one. One line says how many windows lie in no split.

    Args:
        source: the recording.
        pattern: the intervals' names, with ``*`` in place of the split's.
        spans: (B,) the windows in samples of 1 ms.
        needed: without intervals of train and val raise an error, and do not return None.

    Raises:
        ConfigError: the pattern has no ``*``.
        DataError: intervals of train or val are needed but not there, or no window lies in them.
    """
    if pattern.count("*") != 1:
        raise ConfigError(f"data.domains={pattern}: give a name with one * in place of train, val and test")
    spelled = {split: [pattern.replace("*", word) for word in words] for split, words in SPELLINGS.items()}
    names = {split: next((n for n in words if n in source.interval_names), None) for split, words in spelled.items()}
    if missing := [" or ".join(spelled[split]) for split in ("train", "val") if names[split] is None]:
        said = f"has no {' and no '.join(missing)}"
        if needed:
            there = ", ".join(source.interval_names) or "none"
            raise DataError(
                f"{source.path} {said} (data.domains={pattern}), so that data.split=domain cannot be; its intervals "
                f"are: {there}"
            )
        if found := [name for name in names.values() if name]:
            source.warn(f"{said}, so that {', '.join(found)} are not used and trials are split by data.seed")
        return None
    marks = np.full(len(spans), "", "<U5")
    for split, name in ((split, name) for split, name in names.items() if name):
        inside = _contained(spans, merge_intervals(source.read_intervals(name)))
        if split != "test" and not inside.any():
            raise DataError(
                f"{source.path}: no trial's window lies inside {name}: take a shorter data.window_ms, another "
                "data.align, or data.split=random"
            )
        marks[inside] = split
    if outside := int((marks == "").sum()):
        source.warn(
            f"{outside} of {len(spans)} trials are left out, since their window lies in none of "
            f"{', '.join(filter(None, names.values()))}, or across an edge"
        )
    return marks


def _contained(spans: Spans, intervals: np.ndarray) -> np.ndarray:
    """(B,) bool, the windows that lie in one of some intervals (k, 2) in s, which are sorted and apart."""
    if not len(intervals):
        return np.zeros(len(spans), bool)
    start, stop = (binning.to_ns(intervals[:, side]) for side in (0, 1))
    before = np.searchsorted(start, spans.start * 10**6, "right")  # so many begin no later than the window
    return (before > 0) & (spans.stop * 10**6 <= stop[np.maximum(before, 1) - 1])
