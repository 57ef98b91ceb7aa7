"""A file of spike times as a recording: windows, held-out neurons and a trial split of your choice.

Bins are those of :mod:`neuro_lightning.data.binning`: they count from session time zero, so a window starts at the
first bin that does not begin before it. What was drawn at random is noted in the recording's ``info``, from which
:func:`apply_split` cuts another file of the same neurons in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np

from neuro_lightning.data.checks.options import check_choice, check_share, check_whole
from neuro_lightning.data.checks.overlap import Spans
from neuro_lightning.data.checks.plausible import duplicate_units, duplicates_warning, keep_one_of_each_pair
from neuro_lightning.data.formats.intervals import CONTINUOUS
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.identity import with_checksums
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.spike_trials.domains import DOMAINS, mark_by_domain
from neuro_lightning.data.spike_trials.labels import label_texts, read_labels
from neuro_lightning.data.spike_trials.settings import WHOLE, WindowSettings
from neuro_lightning.data.spike_trials.windows import Windows, choose_window, cut_windows, window_spans
from neuro_lightning.data.splitting import SPLITS, hold_out, split_trials
from neuro_lightning.errors import ConfigError, DataError

OpenFile = Callable[[str | None], SpikeRecording]
"""Opens a file with the table that the trials are taken from; None for the usual one, or none where it has none."""

USUAL_MS = 1000
"""Windows of a recording that turns out to have no trials."""


def load_trials(
    open_file: OpenFile,
    *,
    name: str,
    trials: str | None = "trials",
    align: str | None = None,
    window_ms: Sequence[int] | Literal["trial"] | None = None,
    bin_ms: int = 5,
    forward_ms: int = 0,
    behavior: str | Sequence[str] | None = None,
    lag_ms: int = 0,
    conditions: Sequence[str] = (),
    labels: Sequence[str] = (),
    units: Sequence[int] | Sequence[str] | None = None,
    partial_units: bool = False,
    drop_duplicates: bool = False,
    min_spikes: int = 1,
    heldout_fraction: float = 0.25,
    val_fraction: float = 0.25,
    split: str = "auto",
    domains: str = DOMAINS,
    seed: int = 0,
) -> Recording:
    """Read a file, hold out neurons and split the trials.

    Held-out neurons are those that the file's ``heldout`` column marks, else a seeded share of those with at least
    ``min_spikes`` spikes in the training trials: the benchmark's score of a silent neuron says nothing. The others
    stay held in.

    Args:
        open_file: opens the file.
        name: the recording's name.
        trials: the table of intervals whose rows are the trials; ``continuous`` cuts consecutive windows through the
            observed time instead, ``window_ms=[0, length]``. None: ``trials``, or windows of a second where the file
            has none.
        align: the trial column (s) that windows are aligned to; None for the trials' starts.
        window_ms: start and stop around ``align``; None: from ``align`` to the end of the shortest trial, less
            ``forward_ms``. What is left over of a bin is cut off. ``trial``: each trial from ``align`` to its
            end; shorter ones are padded with bins that are marked as not recorded.
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict after the observed one.
        behavior: a continuous series to decode, or several.
        lag_ms: by how many ms the behavior comes after the spikes.
        conditions: trial columns whose combinations are the conditions.
        labels: trial columns that heads may decode, numbers or text.
        units: ids of the units to use; None for all.
        partial_units: keep trials in which some units were not recorded all the time (``obs_intervals``; ``domain`` of
            brainsets), and mark where; else such trials are left out. A unit that no training trial has is left out,
            and a line says so.
        drop_duplicates: of units with far more coincident spikes than chance, keep the one with the most spikes.
        min_spikes: fewer in the training trials, and a unit is not chosen to be held out.
        heldout_fraction: share of units that is held out where the file marks none; 0 for none.
        val_fraction: share of trials to validate with.
        split: ``random``, ``chronological`` (the last trials validate), ``column`` (the file's ``split`` column),
            ``domain`` (the intervals that ``domains`` names), or ``auto``: the domains where the file has those of
            train and val, else the column where it has train and val trials, else random.
        domains: the names of the intervals that train, validate and test, with ``*`` in place of ``train``, ``val`` or
            ``valid``, and ``test``.
        seed: of the drawn units and trials.

    Returns:
        The recording with splits ``train`` and ``val``, and ``test`` where the file says it; trials in the table's
        order. ``info`` notes the cut, when windows start (``window``: ``start_ms`` from the event ``align``), the ids
        of held-in and held-out units, and each split's rows.

    Raises:
        ConfigError: an option has no meaning.
        DataError: the file is missing or damaged, lacks a column, a series or a unit, or has too few trials or units.
    """
    _check_options(split, bin_ms, forward_ms, heldout_fraction, val_fraction)
    source = open_file(trials)
    align = source.start_column if align is None else align
    if trials is None and source.table == CONTINUOUS and window_ms is None:
        window_ms = (0, USUAL_MS - USUAL_MS % bin_ms)
        source.warn(f"it has no trials: windows of {window_ms[1]} ms (data.trials, data.window_ms)")
    chosen = _without_duplicates(source, _choose_units(source, units), drop_duplicates)
    window = choose_window(source, align, window_ms, bin_ms, forward_ms)
    choice = {"to_stop": window_ms == WHOLE, "partial_units": partial_units}
    behavior = behavior if isinstance(behavior, str | None) else tuple(behavior)
    conditions, table = tuple(conditions), source.table
    shown = {"conditions": conditions, "labels": tuple(labels)}
    settings = WindowSettings(align, window, bin_ms, forward_ms, behavior, lag_ms, trials=table, **shown, **choice)
    windows = cut_windows(source, chosen, settings)
    spans = window_spans(windows, settings)
    marks = _marked_splits(source, windows.row, spans, split, domains)
    drawn = split_trials(source.path, marks, spans, split, val_fraction, seed)
    splits = drawn.parts
    chosen, windows = _recorded_in_training(source, chosen, windows, splits["train"])
    spikes = windows.counts[splits["train"]].sum(axis=(0, 1), dtype=np.int64)
    heldout = hold_out(source.heldout[chosen], spikes >= min_spikes, heldout_fraction, seed, source.path)
    values = _condition_values(source, windows, settings)
    texts = label_texts(source, settings.labels, windows.row)
    of_trials = {"condition_values": values, "labels": texts}
    served = _trials(source, windows, settings, np.argsort(heldout, kind="stable"), int((~heldout).sum()), of_trials)
    ids = source.unit_ids[chosen]
    info = {
        "cut": asdict(settings),
        "window": {} if table == CONTINUOUS else {"start_ms": window[0], "align": align},
        "heldin_units": ids[~heldout].tolist(),
        "heldout_units": ids[heldout].tolist(),
        "rows": {part: windows.row[index].tolist() for part, index in splits.items()},
        **_of_file(source, windows),
        **of_trials,
        "dropped": windows.dropped,
        "overlap": drawn.overlap,
        "warnings": [*source.warnings, *([drawn.warning] if drawn.warning else [])],
        "seed": seed,
    }
    parts = {part: served.take(index) for part, index in splits.items()}
    return _recording(name, source, settings, parts, np.concatenate([ids[~heldout], ids[heldout]]), info)


def _of_file(source: SpikeRecording, windows: Windows) -> dict[str, Any]:
    """What is noted of a file: each row's time in the session, and which session it is."""
    times = (windows.time + source.absolute_start).tolist()
    return {"times": [windows.row.tolist(), times], "session": source.session}


def apply_split(open_file: OpenFile, info: dict[str, Any], *, name: str) -> Recording:
    """Cut another file of the same neurons as a trained model expects it.

    Args:
        open_file: opens the other file.
        info: what :func:`load_trials` noted for the file that the model was trained on.
        name: the recording's name.

    Returns:
        A recording whose split ``test`` has all of the file's trials, held-in units in the trained order; held-out
        counts and behavior are there where the file holds them, else None.

    Raises:
        DataError: a held-in unit or a column is missing, or no trial can be cut.
    """
    saved = {key: tuple(value) if isinstance(value, list) else value for key, value in info["cut"].items()}
    settings = WindowSettings(**saved)
    source = open_file(settings.trials)
    position = {unit: k for k, unit in enumerate(source.unit_ids.tolist())}
    if missing := [unit for unit in info["heldin_units"] if unit not in position]:
        raise DataError(
            f"{source.path} lacks {len(missing)} of the {len(info['heldin_units'])} units that the model was trained "
            f"on ({_listed(missing)}): give a recording of the same neurons as data.path"
        )
    _unique_ids(source)
    hidden = info["heldout_units"] if all(unit in position for unit in info["heldout_units"]) else []
    settings = _without_missing(settings, source)
    windows = cut_windows(source, np.array([position[unit] for unit in (*info["heldin_units"], *hidden)]), settings)
    n_in = len(info["heldin_units"])
    trials = _trials(source, windows, settings, np.arange(n_in + len(hidden)), n_in, info)
    ids = np.array([*info["heldin_units"], *info["heldout_units"]])
    of_file = {**_of_file(source, windows), "warnings": source.warnings}
    noted = {**info, **of_file, "rows": {"test": windows.row.tolist()}, "dropped": windows.dropped}
    return _recording(name, source, settings, {"test": trials}, ids, noted)


def _check_options(split: str, bin_ms: int, forward_ms: int, heldout_fraction: float, val_fraction: float) -> None:
    check_choice("split", split, SPLITS)
    check_whole("bin_ms", bin_ms, 1)
    if forward_ms < 0 or forward_ms % bin_ms:
        raise ConfigError(f"data.forward_ms={forward_ms}: give a multiple of data.bin_ms={bin_ms}, or 0")
    check_share("heldout_fraction", heldout_fraction, zero=True)
    check_share("val_fraction", val_fraction)


def _marked_splits(
    source: SpikeRecording, row: np.ndarray, spans: Spans, split: str, domains: str
) -> np.ndarray | None:
    """(B,) the split that the file names for each window, of the trial ``row``; None where it names none."""
    if split in ("domain", "auto"):
        marks = mark_by_domain(source, domains, spans, needed=split == "domain")
        if marks is not None:
            return marks
    marked = "split" in source.trials and {"train", "val"} <= set(source.trials["split"].tolist())
    return source.column("split")[row] if split == "column" or marked else None


def _unique_ids(source: SpikeRecording) -> None:
    ids, count = np.unique(source.unit_ids, return_counts=True)
    if (count > 1).any():
        raise DataError(
            f"{source.path}: more than one unit has the id {_listed(ids[count > 1].tolist())}; ids must differ"
        )


def _choose_units(source: SpikeRecording, units: Sequence[int] | Sequence[str] | None) -> np.ndarray:
    """Indices of the chosen units, in the file's order."""
    _unique_ids(source)
    if units is None:
        return np.arange(len(source.unit_ids))
    if missing := sorted(set(units) - set(source.unit_ids.tolist())):
        raise DataError(
            f"{source.path} has no units {_listed(missing)} (data.units); it has {_listed(source.unit_ids.tolist())}"
        )
    if not len(units):
        raise DataError(f"data.units names no unit of {source.path}; leave it at null for all")
    return np.flatnonzero(np.isin(source.unit_ids, list(units)))


def _without_duplicates(source: SpikeRecording, units: np.ndarray, drop: bool) -> np.ndarray:
    """The units, without all but one of those that are one neuron if ``drop``; duplicates are said in any case."""
    spikes = [source.spike_times[unit] for unit in units]
    pairs = duplicate_units(spikes)
    if not pairs:
        return units
    keep = keep_one_of_each_pair(pairs, np.array([len(t) for t in spikes])) if drop else np.ones(len(units), bool)
    ids = source.unit_ids[units]
    source.warn(duplicates_warning(pairs, ids.tolist(), ids[~keep].tolist()))
    return units[keep]


def _recorded_in_training(
    source: SpikeRecording, units: np.ndarray, windows: Windows, train: np.ndarray
) -> tuple[np.ndarray, Windows]:
    """The units that some training trial has, and their windows."""
    if windows.observed is None:
        return units, windows
    kept = windows.observed[train].any(axis=(0, 1))
    if not kept.all():
        gone = _listed(source.unit_ids[units[~kept]].tolist())
        source.warn(f"the units {gone} were recorded in no training trial and are left out")
    return units[kept], replace(windows, counts=windows.counts[:, :, kept], observed=windows.observed[:, :, kept])


def _condition_values(source: SpikeRecording, windows: Windows, settings: WindowSettings) -> list[list[Any]]:
    """The distinct combinations of the condition columns, sorted; a combination's place is its number."""
    keys = {tuple(key) for key in _condition_keys(source, windows, settings) if key is not None}
    return [list(key) for key in sorted(keys)]


def _condition_keys(source: SpikeRecording, windows: Windows, settings: WindowSettings) -> list[tuple | None]:
    """Each trial's combination, None where a value is unknown."""
    columns = [source.column(name)[windows.row].tolist() for name in settings.conditions]
    return [None if any(v != v for v in key) else key for key in zip(*columns, strict=True)]


def _without_missing(settings: WindowSettings, source: SpikeRecording) -> WindowSettings:
    """Behavior and conditions are no input: a file to predict may lack them."""
    behavior = settings.behavior if all(map(source.find_series, settings.behaviors)) else None
    conditions = settings.conditions if set(settings.conditions) <= set(source.trials) else ()
    return replace(settings, behavior=behavior, conditions=conditions)


def _trials(
    source: SpikeRecording,
    windows: Windows,
    settings: WindowSettings,
    units: np.ndarray,
    n_in: int,
    info: dict[str, Any],
) -> Trials:
    """All trials of some of the windows' units, the first ``n_in`` of them held in; ``info`` numbers their columns."""
    condition = None
    if settings.conditions:
        number = {tuple(value): k for k, value in enumerate(info["condition_values"])}
        condition = np.array([number.get(key, -1) for key in _condition_keys(source, windows, settings)], np.int64)
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
        labels=read_labels(source, info.get("labels", []), windows.row),
        row=windows.row,
    )


def _recording(
    name: str,
    source: SpikeRecording,
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
        simulated=source.simulated,
        sources=with_checksums([{"path": source.path}]),
        info=info,
    )


def _listed(values: Sequence[Any]) -> str:
    """The first few of many."""
    text = ", ".join(str(value) for value in values[:10])
    return text if len(values) <= 10 else f"{text} and {len(values) - 10} more"
