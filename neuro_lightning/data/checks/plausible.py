"""Whether times and counts look like what they should be: seconds of one clock, spike counts, units of their own.

Plain numpy; what is contradictory raises a ``DataError``, what merely looks odd comes back as one line with a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neuro_lightning.errors import DataError

DISORDER_S = 0.05
"""Spike times may run back by so much (a sorter works in overlapping batches) and are sorted; more is another clock."""

LONGEST_S = 3 * 86400
"""A recording that seems to last longer has times that are no seconds."""

LOW_HZ, HIGH_HZ = 0.05, 1000.0
"""Mean rates of units beyond which their times are hardly seconds."""

TOLERANCE_S = 0.0005
"""Spikes of two units that lie no further apart coincide."""

NEARBY_S = 0.02
"""Lags from which the chance of coincidences is taken."""

SAME_SHARE, SAME_Z, SAME_SPIKES, SAME_BINS = 0.25, 6.0, 20, 0.7
"""Units are duplicates when they share so much of the smaller one's spikes beyond chance, so many standard deviations
above it, and the smaller one has so many spikes; of counts in bins, when they share so many of the bins with spikes."""

CROWD = 64
"""Spikes within the tolerance of each other that are compared."""


@contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Put a file's name before what is refused."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def sort_spike_times(times: np.ndarray, what: str) -> tuple[np.ndarray, str | None]:
    """Spike times of one unit in ascending order.

    Args:
        times: in s, in the file's order.
        what: the file and the unit, for the messages.

    Returns:
        The times, and a line where they had to be sorted.

    Raises:
        DataError: a time is not finite, or they run back so far that the clock must have begun anew.
    """
    if not np.isfinite(times).all():
        raise DataError(f"{what} has spike times that are not finite numbers")
    steps = np.diff(times)
    if not (steps < 0).any():
        return times, None
    worst = int(steps.argmin())
    if steps[worst] < -DISORDER_S:
        raise DataError(
            f"{what} has spike times that run back from {times[worst]:.6g} to {times[worst + 1]:.6g} s: its clock "
            "begins anew there (joined blocks, times within a trial) or spikes were appended. Which trial they belong "
            "to cannot be told: write them on one clock, in order"
        )
    return np.sort(times), f"{int((steps < 0).sum())} of {len(times)} spike times of one unit were out of order"


def check_units_of_time(
    spikes: Sequence[np.ndarray], start: np.ndarray, stop: np.ndarray, resolution: float | None = None
) -> list[str]:
    """Whether spike times and trials can be seconds of one clock.

    Args:
        spikes: sorted spike times of each unit.
        start: (B,) starts of the trials; empty where there are none.
        stop: (B,) their ends.
        resolution: of the spike times, where the file says it.

    Returns:
        Lines on what looks odd.

    Raises:
        DataError: they cannot be; without the file's name.
    """
    ends = [(t[0], t[-1]) for t in spikes if len(t)]
    if not ends:
        return []
    first, last = min(a for a, _ in ends), max(b for _, b in ends)
    n_spikes = sum(len(t) for t in spikes)
    if n_spikes >= 50 and all((t % 1 == 0).all() for t in spikes):
        hint = f"; with the file's resolution of {resolution:.3g} s they are sample numbers" if resolution else ""
        raise DataError(
            f"all {n_spikes} spike times are whole numbers ({first:.0f} to {last:.0f}): samples, frames or ms{hint}. "
            "Times must be seconds: divide them by the sampling rate"
        )
    start, stop = start[np.isfinite(start)], stop[np.isfinite(stop)]
    begin, end = (start.min(), max(stop.max(initial=-np.inf), start.max())) if len(start) else (first, last)
    said = f"spikes lie from {first:.6g} to {last:.6g} s, trials from {begin:.6g} to {end:.6g} s"
    if max(last, end) - min(first, begin) > LONGEST_S:
        days = (max(last, end) - min(first, begin)) / 86400
        raise DataError(
            f"the recording would last {days:.4g} days: {said}. Times must be seconds since the session's start; these "
            "are ms, samples or POSIX times, or of two clocks: convert them"
        )
    rate = n_spikes / len(spikes) / max(last - first, 1e-9)
    if len(start) and last > first:
        if rate < LOW_HZ and last - first > 20 * max(end - begin, 1e-9) and n_spikes >= 50:
            raise DataError(
                f"{said}, and units would fire {rate:.2g} spikes/s: spike times are no seconds (ms or samples), "
                "convert them"
            )
        if (beyond := np.mean((start > last) | (start < first))) > 0.5 and np.ptp(start) > 0:
            raise DataError(
                f"{beyond:.0%} of the trials start before the first or after the last spike: {said}. Trials and "
                "spikes are not on one clock in seconds: convert them"
            )
    lines = []
    if (rate < LOW_HZ and n_spikes >= 50) or rate > HIGH_HZ:
        lines.append(f"units fire {rate:.4g} spikes/s on average over {last - first:.6g} s: are the times seconds?")
    if first > 365 * 86400:
        lines.append(f"times begin at {first:.10g} s (POSIX?); they are taken as they are, since all fit together")
    return lines


def check_trials(start: np.ndarray, stop: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which trials have times that can be.

    Args:
        start: (B,) s.
        stop: (B,) s.
        ids: (B,) the trials' numbers.

    Returns:
        (B,) bool, False for the few that end before they start, and lines on them and on starts out of order.

    Raises:
        DataError: all trials start at one time, or many end before they start; without the file's name.
    """
    known = start[np.isfinite(start)]
    if len(known) > 1 and (known == known[0]).all():
        raise DataError(
            f"all {len(known)} trials start at {known[0]:.6g} s, so they are one and the same time: start_time must "
            "be seconds since the session's start, not since the trial's"
        )
    back, lines = np.flatnonzero(np.diff(known) < 0), []
    if len(back):
        lines.append(
            f"the trials' starts run back {len(back)} times in the table (from {known[back[0]]:.6g} to "
            f"{known[back[0] + 1]:.6g} s): sorted by something else, or joined from blocks whose clock begins anew?"
        )
    reversed_ = stop < start
    if not reversed_.any():
        return ~reversed_, lines
    some = ", ".join(str(i) for i in ids[reversed_][:5])
    if reversed_.sum() > max(1, 0.1 * len(start)):
        raise DataError(f"{int(reversed_.sum())} of {len(start)} trials end before they start (ids {some})")
    lines.append(f"{int(reversed_.sum())} of {len(start)} trials end before they start (ids {some}); left out")
    return ~reversed_, lines


def check_event(event: np.ndarray, start: np.ndarray, stop: np.ndarray, name: str) -> str | None:
    """Whether an event's times lie about their trials.

    Args:
        event: (B,) s, NaN where it did not happen.
        start: (B,) s.
        stop: (B,) s.
        name: the trial column.

    Returns:
        A line where some do not.

    Raises:
        DataError: most do not, so that they must be times within the trial; without the file's name.
    """
    known = np.isfinite(event) & np.isfinite(start) & np.isfinite(stop)
    if not known.any():
        return None
    event, start, stop = event[known], start[known], stop[known]
    margin = np.maximum(5.0, 2 * (stop - start))
    far = (event < start - margin) | (event > stop + margin)
    if not far.any():
        return None
    k = int(np.flatnonzero(far)[0])
    example = f"{event[k]:.6g} s for a trial from {start[k]:.6g} to {stop[k]:.6g} s"
    if len(event) > 1 and far.mean() > 0.5:
        raise DataError(
            f"{name} lies far outside its trial for {int(far.sum())} of {len(event)} trials ({example}): it must be "
            "seconds since the session's start, not since the trial's"
        )
    return f"{name} lies far outside its trial for {int(far.sum())} of {len(event)} trials ({example})"


def duplicate_units(spikes: Sequence[np.ndarray]) -> list[tuple[int, int, float]]:
    """Pairs of units with far more coincident spikes than chance, as one neuron sorted twice has.

    Chance is what the pair itself has at lags of up to :data:`NEARBY_S`, so that rates that rise together do not count.

    Args:
        spikes: sorted spike times of each unit in s.

    Returns:
        ``(unit, unit, share)``, the share of the smaller one's spikes that coincide beyond chance; the largest first.
    """
    sizes = np.array([len(t) for t in spikes], np.int64)
    shared, pairs = coincidences(spikes), []
    enough = np.minimum(sizes[:, None], sizes[None]) * SAME_SHARE
    for one, other in np.argwhere((shared >= enough) & (shared >= SAME_SHARE * SAME_SPIKES)).tolist():
        a, b = spikes[one], spikes[other]
        near = int((np.searchsorted(b, a + NEARBY_S, "right") - np.searchsorted(b, a - NEARBY_S)).sum())
        found, smaller = float(shared[one, other]), float(min(len(a), len(b)))
        chance = max(near - found, 0.0) * TOLERANCE_S / (NEARBY_S - TOLERANCE_S)
        share = (found - chance) / max(smaller - chance, 1.0)
        if smaller >= SAME_SPIKES and share >= SAME_SHARE and found - chance >= SAME_Z * np.sqrt(chance + 1):
            pairs.append((one, other, min(share, 1.0)))
    return sorted(pairs, key=lambda pair: -pair[2])


def coincidences(spikes: Sequence[np.ndarray], tolerance: float = TOLERANCE_S) -> np.ndarray:
    """(U, U) int64, above the diagonal: pairs of spikes of two units that lie within ``tolerance`` s.

    Args:
        spikes: sorted spike times of each unit in s.
        tolerance: s.
    """
    n_units = len(spikes)
    counts = np.zeros(n_units * n_units, np.int64)
    times = np.concatenate([*spikes, np.empty(0)])
    unit = np.repeat(np.arange(n_units), [len(t) for t in spikes])
    order = np.argsort(times, kind="stable")
    times, unit = times[order], unit[order]
    for apart in range(1, min(len(times), CROWD)):
        near = np.flatnonzero(times[apart:] - times[:-apart] <= tolerance)
        if not len(near):
            break
        one, other = unit[near], unit[near + apart]
        pair = np.minimum(one, other) * n_units + np.maximum(one, other)
        counts += np.bincount(pair[one != other], minlength=n_units * n_units)
    return counts.reshape(n_units, n_units)


def duplicate_columns(counts: np.ndarray) -> list[tuple[int, int, float]]:
    """The same for spike counts in bins, whose coincidences are bins with spikes of both; more of them must be shared.

    Args:
        counts: (n, U) spike counts.
    """
    spiked = (np.asarray(counts) > 0).astype(np.float32)
    shared, sizes = spiked.T @ spiked, spiked.sum(axis=0)
    smaller, chance = np.minimum(sizes[:, None], sizes[None]), sizes[:, None] * sizes[None] / max(len(spiked), 1)
    share = (shared - chance) / np.maximum(smaller - chance, 1.0)
    same = np.triu((smaller >= SAME_SPIKES) & (share >= SAME_BINS), 1)
    return sorted(((i, j, float(share[i, j])) for i, j in np.argwhere(same).tolist()), key=lambda pair: -pair[2])


def keep_one_of_each_pair(pairs: list[tuple[int, int, float]], sizes: np.ndarray) -> np.ndarray:
    """(U,) bool, the units to keep so that no pair is left; of a pair the one with more spikes stays."""
    partners: dict[int, set[int]] = {}
    for one, other, _ in pairs:
        partners.setdefault(one, set()).add(other)
        partners.setdefault(other, set()).add(one)
    keep = np.ones(len(sizes), bool)
    for unit in sorted(partners, key=lambda u: (-sizes[u], u)):
        keep[unit] = not any(keep[other] for other in partners[unit] if (-sizes[other], other) < (-sizes[unit], unit))
    return keep


def duplicates_warning(pairs: list[tuple[int, int, float]], ids: Sequence[int], dropped: Sequence[int]) -> str:
    """What is said of duplicate units."""
    some = ", ".join(f"{ids[i]} and {ids[j]}: {share:.0%}" for i, j, share in pairs[:5])
    more = f", and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    said = f"{len(pairs)} pairs of units share far more spikes than chance ({some}{more}), as one neuron sorted twice"
    if len(dropped):
        return f"{said}: {len(dropped)} units are left out ({', '.join(str(u) for u in dropped[:10])})"
    return f"{said}: a held-out neuron may be in the input; data.drop_duplicates=true keeps one of each pair"


def multiples_warning(counts: Sequence[np.ndarray]) -> str | None:
    """A line where values are all multiples of one number, as rates in Hz or doubled spikes are.

    Args:
        counts: arrays of counts; whole numbers or not.
    """
    values = np.unique(np.concatenate([np.unique(c) for c in counts] or [np.empty(0)])).astype(np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values) or values[0] == 1:
        return None
    whole = (values % 1 == 0).all() and values[-1] < 2**53
    step = float(np.gcd.reduce(values.astype(np.int64))) if whole else float(values[0])
    multiples = values / step
    if step == 1 or np.abs(multiples - np.rint(multiples)).max() > 1e-3:
        return None
    return (
        f"all counts are multiples of {step:.6g} (0, {values[0]:.6g}, ..., {values[-1]:.6g}): are they rates in Hz, or "
        "is every spike there more than once? Scores in bits per spike need counts"
    )
