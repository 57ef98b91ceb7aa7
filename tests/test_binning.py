"""Binning: the global grid, observed times, resampled behavior and smoothed PSTHs, against plain slow versions."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import signal

from neuro_lightning.data import binning
from neuro_lightning.data.formats.spike_recording import Series
from neuro_lightning.data.nlb.psth import TrialWindows, condition_psths, conditions, smoothing_operator
from neuro_lightning.data.spike_trials.windows import observed_time


def test_windows_start_at_the_first_whole_bin():
    align = np.array([1.0, 1.001, 1.0005, 1.0049995, 0.3 - 0.1 + 0.8])
    assert binning.first_bins(align, 0, 5).tolist() == [200, 201, 201, 201, 200]
    assert binning.first_bins(align, -250, 20).tolist() == [38, 38, 38, 38, 38]
    assert binning.first_bins(np.array([1.0105]), -10, 1).tolist() == [1001]
    assert binning.first_bins(np.array([0.1]), -250, 5).tolist() == [-30]


def test_a_spike_on_a_sample_s_edge_belongs_to_that_sample():
    times = np.array([0.0, 0.0009999, 0.001, 0.2, 0.29, 0.5799999999, 2.999, 3.0])
    [samples] = binning.spike_samples([times], np.ones(3000, bool))
    assert samples.tolist() == [0, 0, 1, 200, 290, 580, 2999]


def test_spikes_outside_the_observed_times_do_not_count():
    observed = binning.observed_samples(np.array([[0.0, 0.0105], [0.0195, 0.03]]), 40)
    assert np.flatnonzero(observed).tolist() == [*range(10), *range(20, 30)]
    [samples] = binning.spike_samples([np.array([0.0095, 0.0102, 0.0199, 0.02, 0.0301])], observed)
    assert samples.tolist() == [9, 20]
    bins = binning.observed_bins(observed, np.array([0, 1, -1, 7]), 3, 5)
    assert bins.tolist() == [[True, True, False], [True, False, False], [False, True, True], [False, False, False]]


def test_counts_equal_a_histogram():
    rng = np.random.default_rng(0)
    samples = [np.sort(rng.integers(0, 5000, n)) for n in (0, 1, 40, 3000)]
    first = rng.integers(0, 800, 30)  # overlapping, unsorted
    for bin_ms in (1, 5):
        counts = binning.count_spikes(samples, first, 40, bin_ms)
        assert counts.dtype == np.uint8 and counts.shape == (30, 40, 4)
        for unit, spikes in enumerate(samples):
            grid = np.bincount(spikes // bin_ms, minlength=6000)
            assert np.array_equal(counts[:, :, unit], grid[first[:, None] + np.arange(40)])


def test_counts_beyond_a_byte_are_kept():
    counts = binning.count_spikes([np.array([3]), np.repeat(7, 300)], np.array([0]), 2, 5)
    assert counts.tolist() == [[[1, 0], [0, 300]]]
    assert binning.count_spikes([np.repeat(7, 256)], np.array([0]), 2, 5).tolist() == [[[0], [256]]]


def test_resampling_is_scipy_s_and_keeps_the_gaps():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(4003, 2)), axis=0)
    expected = signal.decimate(smooth, 5, n=500, ftype="fir", axis=0)
    assert np.allclose(binning.resample(smooth, 5), expected, atol=1e-12)
    gappy = smooth.copy()
    gappy[1000:1101, 0] = np.nan
    gappy[:3] = np.nan
    out = binning.resample(gappy, 5)
    assert np.flatnonzero(np.isnan(out[:, 0])).tolist() == [0, *range(200, 221)]
    assert np.flatnonzero(np.isnan(out[:, 1])).tolist() == [0]
    filled = gappy[:, 0].copy()
    filled[:3] = filled[3]
    filled[1000:1101] = np.interp(np.arange(1000, 1101), [999, 1101], filled[[999, 1101]])
    known = ~np.isnan(out[:, 0])
    assert np.allclose(out[known, 0], signal.decimate(filled, 5, n=500, ftype="fir")[known], atol=1e-12)
    assert binning.resample(gappy, 1) is gappy
    assert np.isnan(binning.resample(np.full((10, 1), np.nan), 5)).all()


def test_a_series_at_1_khz_keeps_its_samples():
    times = np.array([2, 3, 4, 5, 6, 9, 10]) / 1000
    grid = binning.series_on_samples(Series(times, np.arange(7.0)[:, None], ("x",)), 10)
    assert np.array_equal(grid[:, 0], [np.nan, np.nan, 0, 1, 2, 3, 4, np.nan, np.nan, 5], equal_nan=True)


def test_a_series_at_another_rate_is_interpolated_but_not_across_gaps():
    times = np.concatenate([np.arange(0, 0.2, 0.004), np.arange(0.4, 0.6, 0.004)])
    grid = binning.series_on_samples(Series(times, 3.0 * times[:, None], ("x",)), 700)[:, 0]
    known = np.flatnonzero(~np.isnan(grid))
    assert known.tolist() == [*range(197), *range(400, 597)]
    assert np.allclose(grid[known], 3.0 * known / 1000)
    one_missing = np.delete(np.arange(0, 0.2, 0.004), 20)  # a gap of two intervals is filled, one of three is not
    assert not np.isnan(binning.series_on_samples(Series(one_missing, one_missing[:, None], ("x",)), 197)).any()
    two_missing = np.delete(one_missing, 20)
    grid = binning.series_on_samples(Series(two_missing, two_missing[:, None], ("x",)), 197)[:, 0]
    assert np.flatnonzero(np.isnan(grid)).tolist() == list(range(77, 88))


def test_a_millisecond_that_is_invalid_in_part_is_not_observed():
    source = SimpleNamespace(
        obs_intervals=[np.array([[0.0, 0.02]])], end_time=0.02, invalid_times=np.array([[0.0034, 0.0052]])
    )
    observed, origin = observed_time(source, [0], 5)
    assert origin == 0 and np.flatnonzero(~observed).tolist() == [3, 4, 5]


def test_take_windows_marks_bins_outside_the_recording():
    windows = binning.take_windows(np.arange(4.0)[:, None], np.array([-1, 2]), 3)[:, :, 0]
    assert np.array_equal(windows, [[np.nan, 0, 1], [2, 3, np.nan]], equal_nan=True)


@pytest.mark.parametrize("sd", [40, 7.5])
def test_smoothing_operator_is_a_convolution(sd):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.05, 2000).astype(float)
    kernel = signal.windows.gaussian(int(6 * sd), sd)
    expected = signal.convolve(counts, kernel / kernel.sum(), "same")[600:900].reshape(60, 5).sum(axis=1)
    operator, lead, tail = smoothing_operator(sd, 60, 5)
    assert np.allclose(counts[600 - lead : 900 + tail] @ operator, expected, atol=1e-14)


def test_smoothing_does_not_cross_gaps():
    """Windows with unobserved samples inside equal the session smoothed stretch by stretch."""
    rng = np.random.default_rng(1)
    observed = np.ones(3000, bool)
    observed[[*range(0, 30), *range(512, 517), *range(940, 1200), *range(2500, 3000)]] = False
    counts = rng.poisson(0.05, 3000) * observed
    kernel = signal.windows.gaussian(300, 50)
    smooth, edges = np.zeros(3000), np.flatnonzero(np.diff(np.r_[0, observed, 0]))
    for low, high in edges.reshape(-1, 2):
        smooth[low:high] = signal.convolve(counts[low:high].astype(float), kernel / kernel.sum(), "same")
    binned = smooth.reshape(-1, 5).sum(axis=1)
    first = np.array([90, 6, 245, 300, 95, 450])
    windows = TrialWindows(first * 0.005, first, np.full(6, 40))
    condition = np.array([0, 1, 2, 2, -1, 0])
    psth = condition_psths([np.repeat(np.arange(3000), counts)], observed, windows, condition, 40, 50, 5)
    for c, members in enumerate([[0, 5], [1], [2, 3]]):
        expected = np.mean([binned[first[m] : first[m] + 40] for m in members], axis=0)
        assert np.allclose(psth[c, :, 0], expected, atol=1e-13)
    assert condition_psths([np.arange(9)], observed, windows, np.full(6, -1), 40, 50, 5).shape == (0, 40, 1)


def test_conditions_are_numbered_in_order_and_leave_out_the_unusable():
    columns = {"theta": np.array([180.0, 0, 180, np.nan, 0, 180]), "flag": np.array([True, 0, 0, 0, 0, True])}
    usable = np.array([True, True, False, True, True, True])
    assert conditions(columns, usable, np.full(6, 10)).tolist() == [1, 0, -1, -1, 0, 1]
    assert conditions(columns, usable, np.array([10, 10, 10, 10, 10, 5])).tolist() == [1, 0, -1, -1, 0, -1]
    assert conditions(columns, np.zeros(6, bool), np.full(6, 10)).tolist() == [-1] * 6
