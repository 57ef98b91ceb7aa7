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
    smooth = _Smoother(observed, start, width, sd_ms, bin_ms)
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
    """Smoothed and binned spikes of one unit after the other, (B, width) each; smoothing does not cross a gap."""

    def __init__(self, observed: np.ndarray, start: np.ndarray, width: int, sd_ms: int, bin_ms: int) -> None:
        self.shape, self.settings = (len(start), width), (sd_ms, width, bin_ms)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], observed.view(np.int8), [0]])))
        low, high = edges.reshape(-1, 2).T
        # the parts of each window that were observed without a gap, nearly always one
        begin, length = start * bin_ms, width * bin_ms
        first, last = np.searchsorted(high, begin, side="right"), np.searchsorted(low, begin + length)
        n_parts = np.maximum(last - first, 0)
        self.trial = np.repeat(np.arange(len(start)), n_parts)
        stretch = np.arange(len(self.trial)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts) + first[self.trial]
        self.begin, self.low, self.high = begin[self.trial], low[stretch], high[stretch]
        inside = np.clip(np.stack([self.low - self.begin, self.high - self.begin], axis=1), 0, length)
        self.kinds, self.kind = np.unique(inside, axis=0, return_inverse=True)

    def __call__(self, spikes: np.ndarray) -> np.ndarray:
        from scipy.sparse import csr_array

        smooth = np.zeros(self.shape)
        for kind, inside in enumerate(self.kinds):
            operator, lead, _ = smoothing_operator(*self.settings, tuple(inside))
            parts = np.flatnonzero(self.kind.reshape(-1) == kind)
            begin = self.begin[parts]
            end = begin + len(operator) - lead  # the window and the samples after it
            part, sample = spikes_in_windows(
                spikes, np.maximum(self.low[parts], begin - lead), np.minimum(self.high[parts], end)
            )
            shape = len(parts), len(operator)
            counts = csr_array((np.ones(len(part)), (part, sample - begin[part] + lead)), shape=shape)
            np.add.at(smooth, self.trial[parts], counts @ operator)
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
