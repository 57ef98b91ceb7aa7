"""Target PSTHs: the smoothed, trial-averaged response to each condition, as the benchmark makes them.

nlb_tools smooths every unit at 1 ms over the whole session and then cuts trials out of it. The same numbers come from
the spikes around each trial alone: smoothing and binning together are one matrix, and a trial's spikes are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuro_lightning.data.binning import first_bins, spikes_in_windows

SHORT_TRIAL = 0.8
"""A trial shorter than this share of its condition's mean length is left out."""


@dataclass(frozen=True)
class TrialWindows:
    """The bins of each trial that a PSTH is made of.

    Attributes:
        align: (B,) the times in s that bins of different trials are averaged by.
        first: (B,) first bin.
        n_bins: (B,) number of bins.
        from_end: whether trials of different length end together (dmfc_rsg) rather than start together.
    """

    align: np.ndarray
    first: np.ndarray
    n_bins: np.ndarray
    from_end: bool = False


def conditions(columns: dict[str, np.ndarray], usable: np.ndarray, n_bins: np.ndarray) -> np.ndarray:
    """Number the conditions, in the sorted order of their columns' values.

    Args:
        columns: the trial columns that define a condition, each (B,).
        usable: (B,) bool, the trials that may enter a PSTH.
        n_bins: (B,) the trials' lengths in bins.

    Returns:
        (B,) int64, -1 for trials that are unusable, without a condition, or much shorter than their condition's.
    """
    table = np.stack([np.asarray(c, np.float64) for c in columns.values()], axis=1)
    usable = usable & ~np.isnan(table).any(axis=1)
    condition = np.full(len(table), -1, np.int64)
    if usable.any():
        condition[usable] = np.unique(table[usable], axis=0, return_inverse=True)[1].reshape(-1)
    for c in range(condition.max(initial=-1) + 1):
        members = condition == c
        condition[members & (n_bins < SHORT_TRIAL * n_bins[members].mean())] = -1
    return condition


def condition_psths(
    samples: list[np.ndarray],
    observed: np.ndarray,
    windows: TrialWindows,
    condition: np.ndarray,
    n_rows: int,
    sd_ms: int,
    bin_ms: int,
) -> np.ndarray:
    """PSTHs of some units.

    Trials are averaged by the time of their bins relative to ``align`` rounded up to the grid, so two trials whose
    windows begin at different phases may be a row apart; a PSTH begins at its earliest row.

    Args:
        samples: U arrays of spike samples.
        observed: (S,) bool, the observed samples; smoothing does not cross a gap.
        windows: the trials' bins.
        condition: (B,) the trials' conditions, -1 for none.
        n_rows: rows of a PSTH.
        sd_ms: standard deviation of the Gaussian in ms.
        bin_ms: bin width in ms.

    Returns:
        (C, n_rows, U) spikes per bin; NaN before (``from_end``) or after the condition's shortest trial.
    """
    from scipy.sparse import csr_array

    n_conditions = int(condition.max(initial=-1)) + 1
    if not n_conditions:
        return np.zeros((0, n_rows, len(samples)))
    used = np.flatnonzero(condition >= 0)
    condition, n_bins = condition[used], windows.n_bins[used]
    width = int(n_bins.max())
    first = windows.first[used]
    start = first + n_bins - width if windows.from_end else first  # every trial gets `width` rows, some of no use
    offset = start - first_bins(windows.align[used], 0, bin_ms)
    earliest = np.array([offset[condition == c].min() for c in range(n_conditions)])
    row = offset - earliest[condition]
    shifts = np.unique(row)
    cells = [(row == s).astype(float) for s in shifts]
    members = [csr_array((c, (condition, np.arange(len(used))))) for c in cells]  # condition x trial
    total = np.zeros((n_conditions, width + int(shifts.max()), len(samples)))
    count = np.zeros(total.shape[:2])
    smooth = _Smoother(observed, first, n_bins, start, width, sd_ms, bin_ms)
    for unit, spikes in enumerate(samples):
        trials = smooth(spikes)
        for shift, member in zip(shifts, members, strict=True):
            total[:, shift : shift + width, unit] += member @ trials
    for shift, member in zip(shifts, members, strict=True):
        count[:, shift : shift + width] += member.sum(axis=1)[:, None]
    mean = total / np.where(count, count, np.nan)[:, :, None]
    return _pad(mean, condition, n_bins, width, n_rows, windows.from_end)


def _pad(mean: np.ndarray, condition: np.ndarray, n_bins: np.ndarray, width: int, n_rows: int, from_end: bool):
    """Cut each PSTH to its shortest trial and fill it up to ``n_rows`` with NaN."""
    psth = np.full((len(mean), n_rows, mean.shape[2]), np.nan)
    for c in range(len(mean)):
        length = min(int(n_bins[condition == c].min()), n_rows)
        if from_end:
            psth[c, n_rows - length :] = mean[c, width - length : width]
        else:
            psth[c, :length] = mean[c, :length]
    return psth


class _Smoother:
    """Smoothed and binned spikes of one unit after the other, (B, width) each."""

    def __init__(self, observed, first, n_bins, start, width, sd_ms, bin_ms):
        self.operator, self.lead, tail = smoothing_operator(sd_ms, width, bin_ms)
        self.start, self.width, self.sd_ms, self.bin_ms = start * bin_ms, width, sd_ms, bin_ms
        edges = np.flatnonzero(np.diff(np.concatenate([[0], observed.view(np.int8), [0]])))
        self.segments = edges.reshape(-1, 2)
        inside = np.maximum(np.searchsorted(self.segments[:, 0], first * bin_ms, side="right") - 1, 0)
        low, high = self.segments[inside].T if len(self.segments) else (self.start, self.start)
        begin, end = first * bin_ms, (first + n_bins) * bin_ms
        self.whole = (low <= begin) & (end <= high)
        self.low = np.where(self.whole, np.maximum(low, self.start - self.lead), self.start)
        stop = np.minimum(high, self.start + width * bin_ms + tail)
        self.high = np.where(self.whole, stop, self.start)

    def __call__(self, spikes: np.ndarray) -> np.ndarray:
        from scipy.sparse import csr_array

        trial, sample = spikes_in_windows(spikes, self.low, self.high)
        place = sample - self.start[trial] + self.lead
        shape = len(self.start), len(self.operator)
        smooth = csr_array((np.ones(len(trial)), (trial, place)), shape=shape) @ self.operator
        for t in np.flatnonzero(~self.whole):
            smooth[t] = self._across_gaps(spikes, self.start[t])
        return smooth

    def _across_gaps(self, spikes: np.ndarray, start: int) -> np.ndarray:
        """One trial whose window holds unobserved samples: each observed stretch is smoothed by itself."""
        smooth = np.zeros(self.width)
        for low, high in self.segments - start:
            if low < self.width * self.bin_ms and high > 0:
                operator, lead, _ = smoothing_operator(self.sd_ms, self.width, self.bin_ms, (low, high))
                place = spikes[(spikes >= low + start) & (spikes < high + start)] - start + lead
                smooth += operator[place[(place >= 0) & (place < len(operator))]].sum(axis=0)
        return smooth


def smoothing_operator(
    sd_ms: float, n_bins: int, bin_ms: int, within: tuple[int, int] | None = None
) -> tuple[np.ndarray, int, int]:
    """The matrix that smooths 1 ms counts with a Gaussian and sums them into bins.

    The Gaussian has ``int(6 sd)`` samples and sums to one; an even number of samples makes it lean half a sample to
    the past, as scipy's ``convolve(mode="same")`` does.

    Args:
        sd_ms: standard deviation in ms.
        n_bins: bins of the window.
        bin_ms: bin width in ms.
        within: the samples of the window whose smoothed values are summed, all by default.

    Returns:
        (lead + n_bins * bin_ms + tail, n_bins) weights, and ``lead`` and ``tail``, the samples needed before and after
        the window.
    """
    length = int(6 * sd_ms)
    kernel = np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / sd_ms) ** 2)
    cumulative = np.concatenate([[0.0], np.cumsum(kernel / kernel.sum())])
    tail = (length - 1) // 2
    lead = length - 1 - tail
    edges = np.arange(n_bins + 1) * bin_ms
    if within is not None:
        edges = np.clip(edges, *within)
    sample = np.arange(-lead, n_bins * bin_ms + tail)
    reach = cumulative[np.clip(edges[None, :] + tail - sample[:, None], 0, length)]
    return np.diff(reach, axis=1), lead, tail
