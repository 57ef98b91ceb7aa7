"""Any NWB file with units and trials as a recording: windows, held-out neurons and a trial split of your choice.

Bins are those of :mod:`neuro_lightning.data.binning`: they count from session time zero, so a window starts at the
first bin that does not begin before it. What was drawn at random is noted in the recording's ``info``, from which
:func:`apply_split` cuts another file of the same neurons in the same way.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.nwb import NWBRecording, open_nwb
from neuro_lightning.data.overlap import Spans
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.splitting import SPLITS, hold_out, split_trials
from neuro_lightning.errors import ConfigError, DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """How trials are cut out of a recording.

    Attributes:
        align: the trial column (s) that windows are aligned to.
        window_ms: start and stop of the observed window around ``align``, in ms, [start, stop).
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict right after the observed one, in ms.
        behavior: the continuous series that is decoded, or None.
        lag_ms: by how many ms the behavior window comes after the spike window.
        conditions: the trial columns whose combinations are the conditions.
    """

    align: str
    window_ms: tuple[int, int]
    bin_ms: int
    forward_ms: int = 0
    behavior: str | None = None
    lag_ms: int = 0
    conditions: tuple[str, ...] = ()

    @property
    def n_bins(self) -> int:
        """Observed bins T."""
        return (self.window_ms[1] - self.window_ms[0]) // self.bin_ms

    @property
    def n_forward(self) -> int:
        """Forward bins F."""
        return self.forward_ms // self.bin_ms


@dataclass
class Windows:
    """Trials cut out of a file, all chosen units together.

    Attributes:
        row: (B,) rows of the trial table.
        time: (B,) alignment times in s.
        counts: (B, L, U) spike counts.
        behavior: (B, T, K), or None.
        dropped: trials that could not be cut.
    """

    row: np.ndarray
    time: np.ndarray
    counts: np.ndarray
    behavior: np.ndarray | None
    dropped: int


def load_nwb_trials(
    path: str | Path,
    *,
    name: str = "nwb",
    align: str = "start_time",
    window_ms: Sequence[int] | None = None,
    bin_ms: int = 5,
    forward_ms: int = 0,
    behavior: str | None = None,
    lag_ms: int = 0,
    conditions: Sequence[str] = (),
    units: Sequence[int] | None = None,
    min_spikes: int = 1,
    heldout_fraction: float = 0.25,
    val_fraction: float = 0.25,
    split: str = "auto",
    seed: int = 0,
) -> Recording:
    """Read an NWB file, hold out neurons and split the trials.

    Held-out neurons are those that the file's ``heldout`` column marks, else a seeded share of those with at least
    ``min_spikes`` spikes in the training trials: the benchmark's score of a silent neuron says nothing. The others
    stay held in.

    Args:
        path: the file.
        name: the recording's name.
        align: the trial column (s) that windows are aligned to.
        window_ms: start and stop around ``align``; None: from ``align`` to the end of the shortest trial, less
            ``forward_ms``. What is left over of a bin is cut off.
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict after the observed one.
        behavior: a continuous series to decode.
        lag_ms: by how many ms the behavior comes after the spikes.
        conditions: trial columns whose combinations are the conditions.
        units: ids of the units to use; None for all.
        min_spikes: fewer in the training trials, and a unit is not chosen to be held out.
        heldout_fraction: share of units that is held out where the file marks none; 0 for none.
        val_fraction: share of trials to validate with.
        split: ``random``, ``chronological`` (the last trials validate), ``column`` (the file's ``split`` column), or
            ``auto``: the column where it has train and val trials, else random.
        seed: of the drawn units and trials.

    Returns:
        The recording with splits ``train`` and ``val``, and ``test`` where the column has it; trials in the table's
        order. ``info`` notes the cut, the ids of held-in and held-out units, and each split's rows.

    Raises:
        ConfigError: an option has no meaning.
        DataError: the file is missing or damaged, lacks a column, a series or a unit, or has too few trials or units.
    """
    _check_options(split, bin_ms, forward_ms, heldout_fraction, val_fraction)
    nwb = open_nwb(path)
    chosen = _choose_units(nwb, units)
    window = _window(nwb, align, window_ms, bin_ms, forward_ms)
    cut = Cut(align, window, bin_ms, forward_ms, behavior, lag_ms, tuple(conditions))
    windows = cut_windows(nwb, chosen, cut)
    drawn = split_trials(nwb, windows.row, window_spans(windows.time, cut), split, val_fraction, seed)
    splits = drawn.parts
    spikes = windows.counts[splits["train"]].sum(axis=(0, 1), dtype=np.int64)
    heldout = hold_out(nwb.heldout[chosen], spikes >= min_spikes, heldout_fraction, seed, nwb.path)
    values = _condition_values(nwb, windows, cut)
    trials = _trials(nwb, windows, cut, np.flatnonzero(~heldout), np.flatnonzero(heldout), values)
    ids = nwb.unit_ids[chosen]
    info = {
        "cut": asdict(cut),
        "heldin_units": ids[~heldout].tolist(),
        "heldout_units": ids[heldout].tolist(),
        "rows": {part: windows.row[index].tolist() for part, index in splits.items()},
        "times": [windows.row.tolist(), windows.time.tolist()],
        "session": nwb.session,
        "condition_values": values,
        "dropped": windows.dropped,
        "overlap": drawn.overlap,
        "warnings": [drawn.warning] if drawn.warning else [],
        "seed": seed,
    }
    parts = {part: trials.take(index) for part, index in splits.items()}
    return _recording(name, nwb, cut, parts, np.concatenate([ids[~heldout], ids[heldout]]), info)


def apply_split(path: str | Path, info: dict[str, Any], *, name: str = "nwb") -> Recording:
    """Cut another file of the same neurons as a trained model expects it.

    Args:
        path: the other file.
        info: what :func:`load_nwb_trials` noted for the file that the model was trained on.
        name: the recording's name.

    Returns:
        A recording whose split ``test`` has all of the file's trials, held-in units in the trained order; held-out
        counts and behavior are there where the file holds them, else None.

    Raises:
        DataError: a held-in unit or a column is missing, or no trial can be cut.
    """
    saved = info["cut"]
    cut = Cut(**{**saved, "window_ms": tuple(saved["window_ms"]), "conditions": tuple(saved["conditions"])})
    nwb = open_nwb(path)
    position = {int(unit): k for k, unit in enumerate(nwb.unit_ids)}
    if missing := [unit for unit in info["heldin_units"] if unit not in position]:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(info['heldin_units'])} units that the model was trained on "
            f"({_listed(missing)}): give a recording of the same neurons as data.path"
        )
    _unique_ids(nwb)
    hidden = info["heldout_units"] if all(unit in position for unit in info["heldout_units"]) else []
    cut = _without_missing(cut, nwb)
    windows = cut_windows(nwb, np.array([position[unit] for unit in (*info["heldin_units"], *hidden)]), cut)
    n_in = len(info["heldin_units"])
    trials = _trials(nwb, windows, cut, np.arange(n_in), n_in + np.arange(len(hidden)), info["condition_values"])
    ids = np.array([*info["heldin_units"], *info["heldout_units"]], np.int64)
    of_file = {"times": [windows.row.tolist(), windows.time.tolist()], "session": nwb.session}
    noted = {**info, **of_file, "rows": {"test": windows.row.tolist()}, "dropped": windows.dropped, "warnings": []}
    return _recording(name, nwb, cut, {"test": trials}, ids, noted)


def cut_windows(nwb: NWBRecording, units: np.ndarray, cut: Cut) -> Windows:
    """Count spikes in every trial's window. Trials that leave the observed time are dropped with one warning.

    Args:
        nwb: the file.
        units: indices of the units to count.
        cut: where to cut.

    Raises:
        DataError: a column or series is missing, or no trial is left.
    """
    align = _times(nwb, cut.align)
    observed = _observed(nwb, units)
    finite = np.flatnonzero(np.isfinite(align))
    first = binning.first_bins(align[finite], cut.window_ms[0], cut.bin_ms)
    length = cut.n_bins + cut.n_forward
    # every millisecond of the window must be observed, not only each bin's first one
    inside = binning.observed_bins(observed, first * cut.bin_ms, length * cut.bin_ms, 1).all(axis=1)
    row, first = finite[inside], first[inside]
    dropped = nwb.n_trials - len(row)
    extent = f"{cut.window_ms[0]} to {cut.window_ms[0] + length * cut.bin_ms} ms around {cut.align}"
    if not len(row):
        raise DataError(
            f"{nwb.path}: no trial's window ({extent}) lies inside the times in which all units were recorded; "
            "change data.align or data.window_ms, or leave units out with data.units"
        )
    if dropped:
        log.warning(
            f"{nwb.path}: {dropped} of {nwb.n_trials} trials are left out, since their window ({extent}) is not "
            f"inside the recorded times or their {cut.align} is not known"
        )
    samples = binning.spike_samples([nwb.spike_times[unit] for unit in units], observed)
    counts = binning.count_spikes(samples, first, length, cut.bin_ms)
    behavior = _behavior(nwb, cut, align[row], len(observed))
    return Windows(row, align[row], counts, behavior, dropped)


def window_spans(time: np.ndarray, cut: Cut) -> Spans:
    """The samples that windows aligned to ``time`` (B,) in s are counted in, observed and forward bins.

    Behavior is cut the same way, later by one lag for all: where these windows do not overlap, it does not either.
    """
    start = binning.first_bins(time, cut.window_ms[0], cut.bin_ms) * cut.bin_ms
    return Spans(start, start + (cut.n_bins + cut.n_forward) * cut.bin_ms)


def _check_options(split: str, bin_ms: int, forward_ms: int, heldout_fraction: float, val_fraction: float) -> None:
    if split not in SPLITS:
        raise ConfigError(f"data.split={split}: choose one of {', '.join(SPLITS)}")
    if bin_ms < 1 or bin_ms != int(bin_ms):
        raise ConfigError(f"data.bin_ms={bin_ms}: give whole milliseconds, at least 1")
    if forward_ms < 0 or forward_ms % bin_ms:
        raise ConfigError(f"data.forward_ms={forward_ms}: give a multiple of data.bin_ms={bin_ms}, or 0")
    if not 0 <= heldout_fraction < 1:
        raise ConfigError(f"data.heldout_fraction={heldout_fraction}: give a share from 0 to less than 1")
    if not 0 < val_fraction < 1:
        raise ConfigError(f"data.val_fraction={val_fraction}: give a share between 0 and 1")


def _unique_ids(nwb: NWBRecording) -> None:
    ids, count = np.unique(nwb.unit_ids, return_counts=True)
    if (count > 1).any():
        raise DataError(
            f"{nwb.path}: more than one unit has the id {_listed(ids[count > 1].tolist())}; ids must differ"
        )


def _choose_units(nwb: NWBRecording, units: Sequence[int] | None) -> np.ndarray:
    """Indices of the chosen units, in the file's order."""
    _unique_ids(nwb)
    if units is None:
        return np.arange(len(nwb.unit_ids))
    if missing := sorted(set(units) - set(nwb.unit_ids.tolist())):
        raise DataError(
            f"{nwb.path} has no units {_listed(missing)} (data.units); it has {_listed(nwb.unit_ids.tolist())}"
        )
    if not len(units):
        raise DataError(f"data.units names no unit of {nwb.path}; leave it at null for all")
    return np.flatnonzero(np.isin(nwb.unit_ids, list(units)))


def _window(
    nwb: NWBRecording, align: str, window_ms: Sequence[int] | None, bin_ms: int, forward_ms: int
) -> tuple[int, int]:
    """The observed window in whole bins."""
    if window_ms is None:
        start, stop = _times(nwb, align), _times(nwb, "stop_time")
        known = np.isfinite(start) & np.isfinite(stop)
        if not known.any():
            raise DataError(f"{nwb.path}: no trial has both {align} and stop_time; set data.window_ms=[START,STOP]")
        shortest = (binning.to_ns(stop[known]) - binning.to_ns(start[known])).min() // 10**6
        window_ms = (0, int(shortest) - forward_ms)
        reason = f"the shortest trial has {shortest} ms after {align}; set data.window_ms=[START,STOP]"
    else:
        reason = "give [START,STOP] in ms"
        if len(window_ms) != 2:
            raise ConfigError(f"data.window_ms={list(window_ms)}: {reason}")
    start, stop = (int(value) for value in window_ms)
    n_bins = (stop - start) // bin_ms
    if n_bins < 1:
        raise DataError(
            f"{nwb.path}: the window from {start} to {stop} ms is shorter than a bin of {bin_ms} ms; {reason}"
        )
    return start, start + n_bins * bin_ms


def _times(nwb: NWBRecording, name: str) -> np.ndarray:
    """A trial column of times in s."""
    values = nwb.column(name)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{nwb.path}: the trial column {name!r} holds no times, so windows cannot be aligned to it")
    return values.astype(np.float64)


def _observed(nwb: NWBRecording, units: np.ndarray) -> np.ndarray:
    """(S,) bool, the samples in which all of the units were recorded."""
    n_samples = int(np.ceil(round(nwb.end_time * 1000, 6)))
    observed = np.ones(n_samples, bool)
    distinct = {nwb.obs_intervals[unit].tobytes(): nwb.obs_intervals[unit] for unit in units}
    for intervals in distinct.values():
        observed &= binning.observed_samples(intervals, n_samples)
    return observed


def _behavior(nwb: NWBRecording, cut: Cut, align: np.ndarray, n_samples: int) -> np.ndarray | None:
    """(B, T, K) the series in the windows, ``lag_ms`` later; NaN where it has no values."""
    if cut.behavior is None:
        return None
    binned = binning.resample(binning.on_samples(nwb.read_series(cut.behavior), n_samples), cut.bin_ms)
    first = binning.first_bins(align, cut.window_ms[0] + cut.lag_ms, cut.bin_ms)
    windows = binning.cut(binned, first, cut.n_bins)
    if np.isnan(windows).all():
        raise DataError(f"{nwb.path}: series {cut.behavior!r} has no values in the trials' windows; see data.lag_ms")
    return windows


def _condition_values(nwb: NWBRecording, windows: Windows, cut: Cut) -> list[list[Any]]:
    """The distinct combinations of the condition columns, sorted; a combination's place is its number."""
    keys = {tuple(key) for key in _condition_keys(nwb, windows, cut) if key is not None}
    return [list(key) for key in sorted(keys)]


def _condition_keys(nwb: NWBRecording, windows: Windows, cut: Cut) -> list[tuple | None]:
    """Each trial's combination, None where a value is unknown."""
    columns = [nwb.column(name)[windows.row].tolist() for name in cut.conditions]
    return [None if any(v != v for v in key) else key for key in zip(*columns, strict=True)]


def _without_missing(cut: Cut, nwb: NWBRecording) -> Cut:
    """Behavior and conditions are no input: a file to predict may lack them."""
    ends = {name for full in nwb.series_names for name in (full, full.rsplit("/", 1)[-1])}
    behavior = cut.behavior if cut.behavior in ends else None
    conditions = cut.conditions if set(cut.conditions) <= set(nwb.trials) else ()
    return Cut(cut.align, cut.window_ms, cut.bin_ms, cut.forward_ms, behavior, cut.lag_ms, conditions)


def _trials(
    nwb: NWBRecording, windows: Windows, cut: Cut, heldin: np.ndarray, heldout: np.ndarray, values: list[list[Any]]
) -> Trials:
    """All trials, held-in and held-out units apart."""
    seen, ahead = windows.counts[:, : cut.n_bins], windows.counts[:, cut.n_bins :]
    condition = None
    if cut.conditions:
        number = {tuple(value): k for k, value in enumerate(values)}
        condition = np.array([number.get(key, -1) for key in _condition_keys(nwb, windows, cut)], np.int64)
    return Trials(
        heldin=seen[:, :, heldin],
        heldout=seen[:, :, heldout] if len(heldout) else None,
        heldin_forward=ahead[:, :, heldin] if cut.n_forward else None,
        heldout_forward=ahead[:, :, heldout] if cut.n_forward and len(heldout) else None,
        behavior=windows.behavior,
        condition=condition,
        row=windows.row,
    )


def _recording(
    name: str, nwb: NWBRecording, cut: Cut, splits: dict[str, Trials], unit_ids: np.ndarray, info: dict[str, Any]
) -> Recording:
    with nwb.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Recording(
        name=name,
        bin_ms=cut.bin_ms,
        splits=splits,
        unit_ids=unit_ids,
        behavior_kind="velocity" if cut.behavior else "none",
        simulated=nwb.simulated,
        sources=[{"path": str(nwb.path), "size": nwb.path.stat().st_size, "sha256": digest}],
        info=info,
    )


def _listed(values: Sequence[Any]) -> str:
    """The first few of many."""
    text = ", ".join(str(value) for value in values[:10])
    return text if len(values) <= 10 else f"{text} and {len(values) - 10} more"
