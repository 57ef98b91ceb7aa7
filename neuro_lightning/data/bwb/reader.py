"""A session of the benchmark as a recording: windows of training, validation and test.

All units are held in: training sees and predicts them all. In validation and test the units that co-smoothing holds
out are withheld from the input (``Trials.withheld``) and scored alone; forecasting has forward bins, scored alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.bwb.rules import (
    BIN_MS,
    DOMAIN,
    FORECAST_BINS,
    HELD_OUT,
    HISTORY_MS,
    WINDOW_BINS,
    WINDOWS,
    check_build,
    check_task,
    held_out_units,
)
from neuro_lightning.data.bwb.windows import Stretch, cut
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.formats.brainset import open_brainset, read_attributes
from neuro_lightning.data.formats.intervals import CONTINUOUS, intersect_intervals
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.identity import with_checksums
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class BenchSession:
    """A session's file, checked against the benchmark's rules.

    Attributes:
        source: units and spike times.
        intervals: (k, 2) of each split, s: where its windows lie.
        domains: (k, 2) of each split, s: all that belongs to it.
        withheld: (N,) bool of ``val`` and ``test``, the units that co-smoothing holds out.
        session: its id.
    """

    source: SpikeRecording
    intervals: dict[str, np.ndarray]
    domains: dict[str, np.ndarray]
    withheld: dict[str, np.ndarray]
    session: str

    def cut(self, split: str, step: int, history: int = 0) -> Iterator[tuple[np.ndarray, Stretch, np.ndarray]]:
        """The windows of a split, see :func:`~neuro_lightning.data.bwb.windows.cut`; no history shows another split.

        Args:
            split: ``train``, ``val`` or ``test``.
            step: bins between the starts of windows.
            history: bins before a window.
        """
        others = np.concatenate([self.domains[other] for other in SPLITS if other != split])
        recorded = self.source.obs_intervals[0]
        times, intervals = self.source.spike_times, self.intervals[split]
        return cut(times, intervals, step, WINDOW_BINS, history=history, recorded=recorded, closed=others)


def open_session(path: str | Path) -> BenchSession:
    """Open a session and check its build, its domains and its held-out units.

    Raises:
        DataError: the file cannot be read, is of another build or version, or lacks what the benchmark gives it.
    """
    path = Path(path).expanduser()
    source = open_brainset(path, CONTINUOUS)
    check_build(read_attributes(path, "brainset"), path)
    needed = [WINDOWS, *(DOMAIN.format(split) for split in SPLITS)]
    if missing := [name for name in needed if name not in source.interval_names]:
        raise DataError(f"{path} has no intervals {', '.join(missing)}: is it a file of the benchmark?")
    inside = source.read_intervals(WINDOWS)
    domains = {split: source.read_intervals(DOMAIN.format(split)) for split in SPLITS}
    intervals = {split: intersect_intervals(inside, domains[split]) for split in SPLITS}
    ids, withheld = source.unit_ids.tolist(), {}
    for split in ("val", "test"):
        withheld[split] = held_out_units(ids, split)
        marked = source.units.get(HELD_OUT.format(split))  # files of evaluation have them, those of pretraining do not
        if marked is not None and not np.array_equal(marked.astype(bool), withheld[split]):
            raise DataError(f"{path}: its held-out units of {split} are not those of the benchmark's rule")
    session = str(read_attributes(path, "session").get("id") or path.stem)
    return BenchSession(source, intervals, domains, withheld, session)


def load_session(
    path: str | Path,
    *,
    task: str = "co_smoothing",
    train_stride_ms: int = 500,
    val_stride_ms: int = 1000,
    test_stride_ms: int = 1000,
    history_ms: int = 0,
) -> Recording:
    """Read a session of the benchmark.

    Args:
        path: the file.
        task: ``co_smoothing`` or ``forecasting``.
        train_stride_ms: between the starts of training windows of one second, which may overlap.
        val_stride_ms: the same of validation windows; non-overlapping by default.
        test_stride_ms: the same of the test windows that are scored here. A submission takes one at every bin.
        history_ms: how much of the time before each window a model sees, 20 s at most. What lies in another split or
            before the recording is not recorded. Training predicts it as well, and nothing of it is scored.

    Raises:
        ConfigError: an option has no meaning.
        DataError: see :func:`open_session`; or a split has no window.
    """
    check_task(task)
    strides = dict(zip(SPLITS, (train_stride_ms, val_stride_ms, test_stride_ms), strict=True))
    for split, stride in strides.items():
        check_whole(f"{split}_stride_ms", stride, BIN_MS)
        if stride % BIN_MS:
            raise ConfigError(f"data.{split}_stride_ms={stride}: give a multiple of the bins' {BIN_MS} ms")
    check_whole("history_ms", history_ms, 0)
    if history_ms % BIN_MS or history_ms > HISTORY_MS:
        raise ConfigError(f"data.history_ms={history_ms}: give a multiple of {BIN_MS} ms, {HISTORY_MS} at most")
    bench = open_session(path)
    splits, times = {}, []
    for split in SPLITS:
        starts, counts, known = _windows(bench, split, strides[split] // BIN_MS, history_ms // BIN_MS)
        splits[split] = window_trials(counts, known, task, None if split == "train" else bench.withheld[split])
        splits[split].row = np.arange(len(starts)) + sum(len(found) for found in times)
        times.append(starts + bench.source.absolute_start)
    rows = {split: trials.row.tolist() for split, trials in splits.items()}
    info: dict[str, Any] = {
        "deviance": True, "task": task, "bwb_session": bench.session, "rows": rows,
        "window_s": WINDOW_BINS * BIN_MS / 1000,
        "times": [np.concatenate(list(rows.values())).tolist(), np.concatenate(times).tolist()],
        "session": {**bench.source.session, "session_id": bench.session}, "warnings": bench.source.warnings,
    }  # fmt: skip
    source = bench.source
    return Recording(
        "bwb", BIN_MS, splits, source.unit_ids, simulated=source.simulated,
        sources=with_checksums([{"path": str(source.path), "size": source.path.stat().st_size}]), info=info,
    )  # fmt: skip


def _windows(bench: BenchSession, split: str, step: int, history: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B,) starts in s, (B, H + 50, N) counts of a split's windows and their history, (B, H + 50) known bins."""
    found = list(bench.cut(split, step, history))
    if not found:
        raise DataError(
            f"{bench.source.path}: no window of a second lies in {WINDOWS} and {DOMAIN.format(split)}; is it whole?"
        )
    starts = np.concatenate([part for part, _, _ in found])
    order = np.argsort(starts, kind="stable")
    length = history + WINDOW_BINS
    counts = np.concatenate([stretch.windows(first, length) for _, stretch, first in found])
    known = np.concatenate([stretch.known_in(first, length) for _, stretch, first in found])
    return starts[order], counts[order], known[order]


def window_trials(counts: np.ndarray, known: np.ndarray, task: str, withheld: np.ndarray | None) -> Trials:
    """Trials of windows; what a task withholds from the input and scores is marked.

    Args:
        counts: (B, H + 50, N), the window's history first.
        known: (B, H + 50) bool, bins that were recorded and may be seen.
        task: ``co_smoothing`` or ``forecasting``.
        withheld: (N,) bool, the units that co-smoothing holds out where the split is evaluated; None for training.
    """
    n_trials, n_bins, n_units = counts.shape
    if task == "forecasting":
        nothing = None if withheld is None else np.zeros((n_trials, n_units), bool)
        seen, ahead = counts[:, :-FORECAST_BINS], counts[:, -FORECAST_BINS:]
        observed = _observed(known[:, :-FORECAST_BINS], n_units)
        return Trials(heldin=seen, heldin_forward=ahead, withheld=nothing, observed=observed)
    hidden = scored = None
    if withheld is not None:
        hidden = np.repeat(withheld[None], n_trials, axis=0)
        scored = np.zeros((n_trials, n_bins), bool)
        scored[:, -WINDOW_BINS:] = True
    return Trials(heldin=counts, withheld=hidden, scored=scored, observed=_observed(known, n_units))


def _observed(known: np.ndarray, n_units: int) -> np.ndarray | None:
    """(B, T, N) of (B, T) known bins; None where all are."""
    return None if known.all() else np.repeat(known[:, :, None], n_units, axis=2)
