"""From the benchmark's NWB files to trials and bins, equal to nlb_tools 0.0.4 on the same file.

Each file is read by itself: its spike times are counted in the trials' windows only, so the 1 ms grid of the session
(24 GB for mc_maze) is never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.checks.options import check_choice
from neuro_lightning.data.checks.overlap import Spans, overlaps
from neuro_lightning.data.formats.columns import read_yes_no
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.nlb.params import FORWARD_MS, MAX_JITTER_MS, NLBParams, get_params
from neuro_lightning.data.nlb.psth import TrialWindows, condition_psths, conditions
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import ConfigError, DataError

PHASES = ("val", "test")
SUPPLIED = ("train", "val")


@dataclass
class _Session:
    """One file, ready to be cut: its units' spikes by sample, held-in (0) and held-out (1) units apart."""

    nwb: SpikeRecording
    params: NLBParams
    bin_ms: int
    unit_ids: tuple[np.ndarray, np.ndarray]
    observed: tuple[np.ndarray, np.ndarray]
    samples: tuple[list[np.ndarray], list[np.ndarray]]


@dataclass
class _Windows:
    """The windows of some trials.

    Attributes:
        row: (B,) rows of the trial table.
        jitter: (B,) shift in bins.
        first: (B,) first bin of the observed window.
    """

    row: np.ndarray
    jitter: np.ndarray
    first: np.ndarray


def load_nlb(
    dataset: str,
    train_path: str | Path,
    test_path: str | Path | None = None,
    *,
    phase: str = "val",
    bin_ms: int = 5,
    seed: int = 0,
) -> Recording:
    """Read one of the benchmark's datasets.

    Args:
        dataset: its name, one of the names in ``NLB_DATASETS``.
        train_path: the file with the trials of train and val.
        test_path: the file with the held-in spikes of the test trials; needed in phase ``test``.
        phase: ``val`` (train on train, predict val) or ``test`` (train on train and val, predict test). It changes
            dmfc_rsg's jitter: the benchmark draws it for all supplied trials at once.
        bin_ms: bin width in ms; the benchmark scores 5 and 20.
        seed: seed of dmfc_rsg's jitter; the benchmark's is 0.

    Returns:
        The recording with splits ``train`` and ``val``, and in phase ``test`` also ``test``. ``row`` is the trial's
        row in its file's trial table: the order in which the benchmark supplies train and val together.
        ``info["phase"]`` tells the phase, ``info["dropped"]`` the trials without an alignment time, which cannot be
        cut, ``info["window"]`` at how many ms from which event (``start_ms``, ``align``) windows start.

    Raises:
        ConfigError: the dataset or the phase is unknown, or the bin width does not divide the windows.
        DataError: a file is missing, damaged or of another dataset, or a window is not inside its recording.
    """
    params = get_params(dataset)
    _check_request(params, phase, bin_ms, test_path)
    train = _prepare(open_nwb(train_path), params, bin_ms, params.train_columns)
    test = _prepare(open_nwb(test_path), params, bin_ms, params.test_columns) if phase == "test" else None
    if not len(train.unit_ids[1]):
        raise DataError(f"{train_path} has no held-out units: give the train file of {dataset}, not its test file")
    if test is not None and not np.array_equal(train.unit_ids[0], test.unit_ids[0]):
        raise DataError(f"{test_path} does not belong to {train_path}: its units are not the train file's held-in ones")

    groups = [SUPPLIED] if phase == "test" else [("train",), ("val",)]
    windows = [_windows(train, group, seed) for group in groups]
    supplied = _Windows(*(np.concatenate([getattr(w, n) for w in windows]) for n in ("row", "jitter", "first")))
    trials, psth = _supplied_trials(train, supplied)
    split = train.nwb.column("split")
    dropped = int(np.isin(split, SUPPLIED).sum()) - len(trials)
    recording = Recording(
        name=dataset,
        bin_ms=bin_ms,
        splits={name: trials.take(split[supplied.row] == name) for name in SUPPLIED},
        unit_ids=np.concatenate(train.unit_ids),
        psth=psth,
        behavior_kind="velocity" if params.behavior else "interval",
        simulated=train.nwb.simulated,
        sources=[{"path": str(s.nwb.path), "size": s.nwb.path.stat().st_size} for s in (train, test) if s],
        info={
            "phase": phase,
            "seed": seed,
            "dropped": dropped,
            "window": {"start_ms": params.window[0], "align": params.align},
            **_overlap(train, supplied),
        },
    )
    of_files = [line for session in (train, test) if session for line in session.nwb.warnings]
    recording.info["warnings"] = [*of_files, *recording.info.get("warnings", ())]
    if test is not None:
        recording.splits["test"] = _test_trials(test)
    for name, part in recording.splits.items():
        if not len(part):
            path = test_path if name == "test" else train_path
            raise DataError(
                f"{path} has no usable trials of split {name}: it is not the file that {dataset} needs here"
            )
    return recording


def load_test_trials(dataset: str, test_path: str | Path, *, bin_ms: int = 5) -> Trials:
    """Read the test trials alone: held-in spikes, without jitter.

    Args:
        dataset: the dataset's name.
        test_path: the file with the held-in spikes of the test trials.
        bin_ms: bin width in ms.

    Raises:
        ConfigError: the dataset is unknown, or the bin width does not divide the windows.
        DataError: the file is missing, damaged or of another dataset, or a window is not inside its recording.
    """
    params = get_params(dataset)
    _check_request(params, "test", bin_ms, test_path)
    return _test_trials(_prepare(open_nwb(test_path), params, bin_ms, params.test_columns))


def _check_request(params: NLBParams, phase: str, bin_ms: int, test_path: str | Path | None) -> None:
    check_choice("phase", phase, PHASES)
    if bin_ms != int(bin_ms) or bin_ms < 1 or params.window_ms % bin_ms or FORWARD_MS % bin_ms:
        raise ConfigError(
            f"data.bin_ms={bin_ms} does not divide {params.name}'s windows of {params.window_ms} and {FORWARD_MS} ms: "
            "choose 5 or 20, which the benchmark scores, or another divisor of both"
        )
    if phase == "test" and test_path is None:
        raise DataError(f"phase=test needs {params.name}'s test file ({params.test.name}) beside its train file")


def _prepare(nwb: SpikeRecording, params: NLBParams, bin_ms: int, columns: tuple[str, ...]) -> _Session:
    """Check that the file is the dataset's, and turn spike times into samples."""
    missing = [name for name in columns if name not in nwb.trials]
    heldin, heldout = (np.flatnonzero(nwb.heldout == h) for h in (False, True))
    units = (len(heldin), len(heldout))
    expected = (params.n_in, params.n_out if columns == params.train_columns else 0)
    if missing:
        raise DataError(
            f"{nwb.path} is not a file of {params.name}: its trial table has no column {', '.join(missing)} "
            f"(it has {', '.join(nwb.trials)}); check data= and the path"
        )
    identifier = str(nwb.session["identifier"])
    if nwb.simulated and identifier.startswith("simulated-") and identifier != f"simulated-{params.name}":
        raise DataError(f"{nwb.path} is a {identifier} twin, not one of {params.name}: check data= and the path")
    if not nwb.simulated and units != expected:
        raise DataError(
            f"{nwb.path} has {units[0]} held-in and {units[1]} held-out units, but {params.name} "
            f"(DANDI {params.dandiset}/{params.version}) has {expected[0]} and {expected[1]}: check data= and the path"
        )
    if not len(heldin):
        raise DataError(f"{nwb.path} has no held-in units: the 'heldout' column is True for all of them")
    # the benchmark sorts units by number, and takes a group's observed times from its first unit in the file
    n_samples = round(nwb.end_time * 1000)
    parts = []
    for units in (heldin, heldout):
        first = nwb.obs_intervals[units[0]] if len(units) else np.zeros((0, 2))
        observed = binning.observed_samples(first, n_samples)
        units = units[np.argsort(nwb.unit_ids[units], kind="stable")]
        parts.append(
            (nwb.unit_ids[units], observed, binning.spike_samples([nwb.spike_times[u] for u in units], observed))
        )
    return _Session(nwb, params, bin_ms, *zip(*parts, strict=True))


def _windows(session: _Session, splits: tuple[str, ...], seed: int) -> _Windows:
    """The windows of all trials of ``splits`` that can be aligned."""
    nwb, params, bin_ms = session.nwb, session.params, session.bin_ms
    row = np.flatnonzero(np.isin(nwb.column("split"), splits))
    align = nwb.column(params.align)[row].astype(np.float64)
    jitter = np.zeros(len(row))
    if params.scored_from and splits != ("test",):
        jitter = draw_jitter(nwb.column("tp")[row], params.window_ms, bin_ms, seed)
        align = np.where(np.isnan(nwb.column(params.scored_from)[row]), np.nan, align)
    usable = np.isfinite(align) & np.isfinite(jitter)
    row, jitter = row[usable], jitter[usable].astype(np.int64)
    return _Windows(row, jitter, binning.first_bins(align[usable], params.window[0], bin_ms) + jitter)


def draw_jitter(tp: np.ndarray, window_ms: int, bin_ms: int, seed: int) -> np.ndarray:
    """How far dmfc_rsg's windows are shifted to later times, so that a model cannot count on the movement's time.

    Args:
        tp: (B,) the produced intervals in ms.
        window_ms: length of the window; the interval stays inside.
        bin_ms: bin width in ms.
        seed: seed of numpy's legacy generator, as the benchmark uses it.

    Returns:
        (B,) float, whole bins; NaN where ``tp`` is.
    """
    limit = np.floor((np.clip(window_ms - np.asarray(tp, np.float64), 0.0, MAX_JITTER_MS) / bin_ms).round(4))
    return (np.random.RandomState(seed).random_sample(len(limit)) * limit).round()


def _overlap(session: _Session, windows: _Windows) -> dict[str, Any]:
    """How many training trials share time with validation trials, observed and with their forward bins.

    The split is the benchmark's and stays, so that scores compare: trials of mc_rtt follow each other, and the forward
    bins of one are the begin of the next.
    """
    split, start = session.nwb.column("split")[windows.row], windows.first * session.bin_ms
    counts = {}
    for name, ahead in (("observed", 0), ("with_forward", FORWARD_MS)):
        spans = Spans(start, start + session.params.window_ms + ahead)
        counts[name] = int(overlaps(spans.take(split == "train"), spans.take(split == "val")).sum())
    said = (
        f"{session.nwb.path}: {counts['observed']} training trials share time with validation trials; the benchmark's "
        "split is kept, so that scores compare with those of others"
    )
    return {"overlap": counts, "warnings": [said] if counts["observed"] else []}


def _counts(session: _Session, group: int, windows: _Windows, first: np.ndarray, length_ms: int) -> np.ndarray:
    """Spike counts of held-in (0) or held-out (1) units in windows that must all be observed."""
    n_bins = length_ms // session.bin_ms
    observed = binning.observed_bins(session.observed[group], first, n_bins, session.bin_ms).all(axis=1)
    if not observed.all():
        bad = int(np.flatnonzero(~observed)[0])
        start = first[bad] * session.bin_ms / 1000
        raise DataError(
            f"{session.nwb.path}: the window of trial {session.nwb.trials['id'][windows.row[bad]]} "
            f"({start:.3f} to {start + length_ms / 1000:.3f} s, aligned to {session.params.align}) is not inside the "
            f"observed recording, which ends at {session.nwb.end_time:.3f} s; {int((~observed).sum())} of "
            f"{len(observed)} windows are outside. The file is damaged or not of {session.params.name}"
        )
    return binning.count_spikes(session.samples[group], first, n_bins, session.bin_ms)


def _supplied_trials(session: _Session, windows: _Windows) -> tuple[Trials, np.ndarray | None]:
    """All trials of the train file with all that the benchmark supplies, and the PSTHs."""
    nwb, params = session.nwb, session.params
    forward = windows.first + params.window_ms // session.bin_ms
    scored = _scored_windows(session, windows)
    condition, psth = _psths(session, windows, scored)
    decode_mask = None
    if params.decode_column:
        flag = _flag(nwb, windows, params.decode_column)
        decode_mask = np.stack([~flag, flag], axis=1)
    trials = Trials(
        heldin=_counts(session, 0, windows, windows.first, params.window_ms),
        heldout=_counts(session, 1, windows, windows.first, params.window_ms),
        heldin_forward=_counts(session, 0, windows, forward, FORWARD_MS),
        heldout_forward=_counts(session, 1, windows, forward, FORWARD_MS),
        behavior=_velocity(session, windows) if params.behavior else _interval(session, windows),
        decode_mask=decode_mask,
        scored=_scored_bins(session, windows, scored) if params.scored_from else None,
        condition=condition,
        jitter=windows.jitter if params.scored_from else None,
        row=windows.row,
    )
    return trials, psth


def _test_trials(session: _Session) -> Trials:
    windows = _windows(session, ("test",), seed=0)
    return Trials(
        heldin=_counts(session, 0, windows, windows.first, session.params.window_ms),
        jitter=windows.jitter if session.params.scored_from else None,
        row=windows.row,
    )


def _velocity(session: _Session, windows: _Windows) -> np.ndarray:
    """(B, T, K) the behavior series, ``lag`` ms after the spikes; channels in the order of their names."""
    params, bin_ms = session.params, session.bin_ms
    series = session.nwb.read_series(params.behavior)
    binned = binning.resample(binning.series_on_samples(series, len(session.observed[0])), bin_ms)
    align = session.nwb.column(params.align)[windows.row]
    first = binning.first_bins(align, params.window[0] + params.lag, bin_ms)
    return binning.take_windows(binned[:, np.argsort(series.columns, kind="stable")], first, params.window_ms // bin_ms)


def _interval(session: _Session, windows: _Windows) -> np.ndarray:
    """(B, K) the trial columns that are the behavior, NaN for outlier trials."""
    nwb, names = session.nwb, session.params.behavior_columns
    columns = [_flag(nwb, windows, c) if c.startswith("is_") else nwb.column(c)[windows.row] for c in names]
    behavior = np.stack(columns, axis=1).astype(np.float64)
    behavior[_flag(nwb, windows, "is_outlier")] = np.nan
    return behavior


def _flag(nwb: SpikeRecording, windows: _Windows, name: str) -> np.ndarray:
    """(B,) bool, a trial column of yes and no."""
    where = f"{nwb.path}: the trials' column {name!r}"
    return read_yes_no(nwb.column(name)[windows.row], nwb.trials["id"][windows.row], where, "trial")


def _scored_windows(session: _Session, windows: _Windows) -> TrialWindows:
    """The bins that targets are made of: set to go in dmfc_rsg, the window elsewhere; without jitter."""
    params, bin_ms = session.params, session.bin_ms
    align = session.nwb.column(params.align)[windows.row]
    if params.scored_from is None:
        return TrialWindows(align, windows.first, np.full(len(align), params.window_ms // bin_ms))
    first = binning.first_bins(session.nwb.column(params.scored_from)[windows.row], 0, bin_ms)
    return TrialWindows(align, first, binning.first_bins(align, 0, bin_ms) - first, from_end=True)


def _scored_bins(session: _Session, windows: _Windows, scored: TrialWindows) -> np.ndarray:
    """(B, T) bool, the bins of the jittered windows that are scored."""
    bins = windows.first[:, None] + np.arange(session.params.window_ms // session.bin_ms)
    return (bins >= scored.first[:, None]) & (bins < (scored.first + scored.n_bins)[:, None])


def _psths(session: _Session, windows: _Windows, scored: TrialWindows) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The trials' conditions (B,) and the target PSTHs (C, T, N) of train and val together, as in both phases."""
    nwb, params, bin_ms = session.nwb, session.params, session.bin_ms
    if not params.conditions:
        return None, None
    usable = np.ones(len(windows.row), bool)
    if params.scored_from:
        usable = ~_flag(nwb, windows, "is_outlier")
    condition = conditions({c: nwb.column(c)[windows.row] for c in params.conditions}, usable, scored.n_bins)
    n_rows = params.window_ms // bin_ms
    parts = [
        condition_psths(session.samples[g], session.observed[g], scored, condition, n_rows, params.psth_sd, bin_ms)
        for g in (0, 1)
    ]
    return condition, np.concatenate(parts, axis=2)
