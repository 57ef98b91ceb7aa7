"""Any NWB file with units and trials as a recording: windows, held-out neurons and a trial split of your choice.

Bins are those of :mod:`neuro_lightning.data.binning`: they count from session time zero, so a window starts at the
first bin that does not begin before it. What was drawn at random is noted in the recording's ``info``, from which
:func:`apply_split` cuts another file of the same neurons in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuro_lightning.data.checks.options import check_choice, check_share, check_whole
from neuro_lightning.data.checks.plausible import duplicate_units, duplicates_warning, keep_one_of_each_pair
from neuro_lightning.data.formats.nwb import NWBRecording, open_nwb
from neuro_lightning.data.formats.nwb_tables import CONTINUOUS
from neuro_lightning.data.identity import with_checksums
from neuro_lightning.data.nwb.windows import WHOLE, Windows, WindowSettings, choose_window, cut_windows, window_spans
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.splitting import SPLITS, hold_out, split_trials
from neuro_lightning.errors import ConfigError, DataError


def load_nwb_trials(
    path: str | Path,
    *,
    name: str = "nwb",
    trials: str = "trials",
    align: str = "start_time",
    window_ms: Sequence[int] | Literal["trial"] | None = None,
    bin_ms: int = 5,
    forward_ms: int = 0,
    behavior: str | None = None,
    lag_ms: int = 0,
    conditions: Sequence[str] = (),
    units: Sequence[int] | None = None,
    partial_units: bool = False,
    drop_duplicates: bool = False,
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
        trials: the table of intervals whose rows are the trials; ``continuous`` cuts consecutive windows through the
            observed time instead, ``window_ms=[0, length]``.
        align: the trial column (s) that windows are aligned to.
        window_ms: start and stop around ``align``; None: from ``align`` to the end of the shortest trial, less
            ``forward_ms``. What is left over of a bin is cut off. ``trial``: each trial from ``align`` to its
            stop_time; shorter ones are padded with bins that are marked as not recorded.
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict after the observed one.
        behavior: a continuous series to decode.
        lag_ms: by how many ms the behavior comes after the spikes.
        conditions: trial columns whose combinations are the conditions.
        units: ids of the units to use; None for all.
        partial_units: keep trials in which some units were not recorded all the time (``obs_intervals``), and mark
            where; else such trials are left out. A unit that no training trial has is left out, and a line says so.
        drop_duplicates: of units with far more coincident spikes than chance, keep the one with the most spikes.
        min_spikes: fewer in the training trials, and a unit is not chosen to be held out.
        heldout_fraction: share of units that is held out where the file marks none; 0 for none.
        val_fraction: share of trials to validate with.
        split: ``random``, ``chronological`` (the last trials validate), ``column`` (the file's ``split`` column), or
            ``auto``: the column where it has train and val trials, else random.
        seed: of the drawn units and trials.

    Returns:
        The recording with splits ``train`` and ``val``, and ``test`` where the column has it; trials in the table's
        order. ``info`` notes the cut, when windows start (``window``: ``start_ms`` from the event ``align``), the ids
        of held-in and held-out units, and each split's rows.

    Raises:
        ConfigError: an option has no meaning.
        DataError: the file is missing or damaged, lacks a column, a series or a unit, or has too few trials or units.
    """
    _check_options(split, bin_ms, forward_ms, heldout_fraction, val_fraction)
    nwb = open_nwb(path, trials)
    chosen = _without_duplicates(nwb, _choose_units(nwb, units), drop_duplicates)
    window = choose_window(nwb, trials, align, window_ms, bin_ms, forward_ms)
    choice = {"to_stop": window_ms == WHOLE, "partial_units": partial_units}
    settings = WindowSettings(align, window, bin_ms, forward_ms, behavior, lag_ms, tuple(conditions), trials, **choice)
    windows = cut_windows(nwb, chosen, settings)
    marked = "split" in nwb.trials and {"train", "val"} <= set(nwb.trials["split"].tolist())
    column = nwb.column("split")[windows.row] if split == "column" or marked else None
    drawn = split_trials(nwb.path, column, window_spans(windows, settings), split, val_fraction, seed)
    splits = drawn.parts
    chosen, windows = _recorded_in_training(nwb, chosen, windows, splits["train"])
    spikes = windows.counts[splits["train"]].sum(axis=(0, 1), dtype=np.int64)
    heldout = hold_out(nwb.heldout[chosen], spikes >= min_spikes, heldout_fraction, seed, nwb.path)
    values = _condition_values(nwb, windows, settings)
    served = _trials(nwb, windows, settings, np.argsort(heldout, kind="stable"), int((~heldout).sum()), values)
    ids = nwb.unit_ids[chosen]
    info = {
        "cut": asdict(settings),
        "window": {} if trials == CONTINUOUS else {"start_ms": window[0], "align": align},
        "heldin_units": ids[~heldout].tolist(),
        "heldout_units": ids[heldout].tolist(),
        "rows": {part: windows.row[index].tolist() for part, index in splits.items()},
        "times": [windows.row.tolist(), windows.time.tolist()],
        "session": nwb.session,
        "condition_values": values,
        "dropped": windows.dropped,
        "overlap": drawn.overlap,
        "warnings": [*nwb.warnings, *([drawn.warning] if drawn.warning else [])],
        "seed": seed,
    }
    parts = {part: served.take(index) for part, index in splits.items()}
    return _recording(name, nwb, settings, parts, np.concatenate([ids[~heldout], ids[heldout]]), info)


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
    settings = WindowSettings(
        **{**saved, "window_ms": tuple(saved["window_ms"]), "conditions": tuple(saved["conditions"])}
    )
    nwb = open_nwb(path, settings.trials)
    position = {int(unit): k for k, unit in enumerate(nwb.unit_ids)}
    if missing := [unit for unit in info["heldin_units"] if unit not in position]:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(info['heldin_units'])} units that the model was trained on "
            f"({_listed(missing)}): give a recording of the same neurons as data.path"
        )
    _unique_ids(nwb)
    hidden = info["heldout_units"] if all(unit in position for unit in info["heldout_units"]) else []
    settings = _without_missing(settings, nwb)
    windows = cut_windows(nwb, np.array([position[unit] for unit in (*info["heldin_units"], *hidden)]), settings)
    n_in = len(info["heldin_units"])
    trials = _trials(nwb, windows, settings, np.arange(n_in + len(hidden)), n_in, info["condition_values"])
    ids = np.array([*info["heldin_units"], *info["heldout_units"]], np.int64)
    of_file = {"times": [windows.row.tolist(), windows.time.tolist()], "session": nwb.session, "warnings": nwb.warnings}
    noted = {**info, **of_file, "rows": {"test": windows.row.tolist()}, "dropped": windows.dropped}
    return _recording(name, nwb, settings, {"test": trials}, ids, noted)


def _check_options(split: str, bin_ms: int, forward_ms: int, heldout_fraction: float, val_fraction: float) -> None:
    check_choice("split", split, SPLITS)
    check_whole("bin_ms", bin_ms, 1)
    if forward_ms < 0 or forward_ms % bin_ms:
        raise ConfigError(f"data.forward_ms={forward_ms}: give a multiple of data.bin_ms={bin_ms}, or 0")
    check_share("heldout_fraction", heldout_fraction, zero=True)
    check_share("val_fraction", val_fraction)


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


def _without_duplicates(nwb: NWBRecording, units: np.ndarray, drop: bool) -> np.ndarray:
    """The units, without all but one of those that are one neuron if ``drop``; duplicates are said in any case."""
    spikes = [nwb.spike_times[unit] for unit in units]
    pairs = duplicate_units(spikes)
    if not pairs:
        return units
    keep = keep_one_of_each_pair(pairs, np.array([len(t) for t in spikes])) if drop else np.ones(len(units), bool)
    ids = nwb.unit_ids[units]
    nwb.warn(duplicates_warning(pairs, ids.tolist(), ids[~keep].tolist()))
    return units[keep]


def _recorded_in_training(
    nwb: NWBRecording, units: np.ndarray, windows: Windows, train: np.ndarray
) -> tuple[np.ndarray, Windows]:
    """The units that some training trial has, and their windows."""
    if windows.observed is None:
        return units, windows
    kept = windows.observed[train].any(axis=(0, 1))
    if not kept.all():
        gone = _listed(nwb.unit_ids[units[~kept]].tolist())
        nwb.warn(f"the units {gone} were recorded in no training trial and are left out")
    return units[kept], replace(windows, counts=windows.counts[:, :, kept], observed=windows.observed[:, :, kept])


def _condition_values(nwb: NWBRecording, windows: Windows, settings: WindowSettings) -> list[list[Any]]:
    """The distinct combinations of the condition columns, sorted; a combination's place is its number."""
    keys = {tuple(key) for key in _condition_keys(nwb, windows, settings) if key is not None}
    return [list(key) for key in sorted(keys)]


def _condition_keys(nwb: NWBRecording, windows: Windows, settings: WindowSettings) -> list[tuple | None]:
    """Each trial's combination, None where a value is unknown."""
    columns = [nwb.column(name)[windows.row].tolist() for name in settings.conditions]
    return [None if any(v != v for v in key) else key for key in zip(*columns, strict=True)]


def _without_missing(settings: WindowSettings, nwb: NWBRecording) -> WindowSettings:
    """Behavior and conditions are no input: a file to predict may lack them."""
    ends = {name for full in nwb.series_names for name in (full, full.rsplit("/", 1)[-1])}
    behavior = settings.behavior if settings.behavior in ends else None
    conditions = settings.conditions if set(settings.conditions) <= set(nwb.trials) else ()
    return replace(settings, behavior=behavior, conditions=conditions)


def _trials(
    nwb: NWBRecording, windows: Windows, settings: WindowSettings, units: np.ndarray, n_in: int, values: list[list[Any]]
) -> Trials:
    """All trials of some of the windows' units, the first ``n_in`` of them held in."""
    condition = None
    if settings.conditions:
        number = {tuple(value): k for k, value in enumerate(values)}
        condition = np.array([number.get(key, -1) for key in _condition_keys(nwb, windows, settings)], np.int64)
    counts, observed = windows.counts[:, :, units], windows.observed
    if observed is not None:
        observed = observed[:, :, units]
        if not observed[:, settings.n_bins :].all():  # forward counts that are NaN are not scored
            counts = np.where(observed, counts, np.float32(np.nan))
        observed = observed[:, : settings.n_bins]
    return Trials.from_counts(
        counts,
        settings.n_bins,
        n_in,
        behavior=windows.behavior,
        observed=None if observed is None or observed.all() else observed,
        condition=condition,
        row=windows.row,
    )


def _recording(
    name: str,
    nwb: NWBRecording,
    settings: WindowSettings,
    splits: dict[str, Trials],
    unit_ids: np.ndarray,
    info: dict[str, Any],
) -> Recording:
    return Recording(
        name=name,
        bin_ms=settings.bin_ms,
        splits=splits,
        unit_ids=unit_ids,
        behavior_kind="velocity" if settings.behavior else "none",
        simulated=nwb.simulated,
        sources=with_checksums([{"path": nwb.path}]),
        info=info,
    )


def _listed(values: Sequence[Any]) -> str:
    """The first few of many."""
    text = ", ".join(str(value) for value in values[:10])
    return text if len(values) <= 10 else f"{text} and {len(values) - 10} more"
