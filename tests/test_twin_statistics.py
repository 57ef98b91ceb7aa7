"""Simulated twins of images and traces look like the recordings, by numbers whose exact meaning is said here."""

import numpy as np
import pytest
import scipy.io
from test_antolik import real as real

from neuro_lightning.data.antolik.twin import write_twin
from neuro_lightning.data.arrays.twin import simulated_traces
from neuro_lightning.data.stringer.twin import simulate
from neuro_lightning.data.stringer_stimuli.twin import write_natimg
from neuro_lightning.data.uwndc19.cells import GAIN_VARIANCE, SHARED_GAIN, recorded
from neuro_lightning.data.uwndc19.twin import N_TEST, simulate_challenge
from neuro_lightning.functional.stimulus_adaptation import DECAY, STRENGTH, adaptation, mean_over_histories


def correlations(responses):
    """(N, N) Pearson correlations over the rows that both columns have."""
    return np.ma.corrcoef(np.ma.masked_invalid(responses), rowvar=False).filled(0)


def pairs(matrix):
    """The entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]


def first_two(matrix):
    """Share of the two largest eigenvalues of a correlation matrix."""
    values = np.linalg.eigvalsh(matrix)
    return values[-2:].sum() / values.sum()


def skewness(responses):
    """(N,) mean cube of z-scores over the observed rows, deviations with ddof 0."""
    z = (responses - np.nanmean(responses, 0)) / np.nanstd(responses, 0)
    return np.nanmean(z**3, 0)


def noise_correlation(repeats):
    """Mean over pairs of neurons of the correlation of (R, I, N) responses about each image's mean over repeats."""
    residual = (repeats - repeats.mean(0)).reshape(-1, repeats.shape[2])
    return pairs(np.corrcoef(residual.T)).mean()


def spectral_slope(images):
    """Slope of log power on log frequency of (I, S, S) images.

    Each less its mean, in a Hann window; power is averaged over images and over rings of frequency, one cycle an image
    wide, from 1.5 to 0.45 S cycles.
    """
    images = images - images.mean((1, 2), keepdims=True)
    size = images.shape[1]
    power = (np.abs(np.fft.fft2(images * np.hanning(size)[:, None] * np.hanning(size))) ** 2).mean(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    edges = np.arange(1.5, 0.45 * size)
    rings = [(frequency >= low) & (frequency < low + 1) for low in edges[:-1]]
    return np.polyfit(*(np.log([values[ring].mean() for ring in rings]) for values in (frequency, power)), 1)[0]


def drift(activity):
    """Standard deviation over neurons of log(mean of the last fifth / mean of the first fifth), (N, T) activity."""
    n = activity.shape[1] // 5
    return np.log(activity[:, -n:].mean(1) / activity[:, :n].mean(1)).std()


def test_uwndc19():
    """Of the 551 images with responses; per-neuron numbers are medians over the 18 neurons."""
    _, rates, responses = simulate_challenge(0)
    matrix = correlations(responses)
    seen = np.isfinite(responses)
    explainable = np.where(seen, rates[N_TEST:], np.nan)
    assert 0.25 < np.median(np.nanstd(responses, 0) / np.nanmean(responses, 0)) < 0.38  # recorded: .30
    assert 0.35 < np.median(skewness(responses)) < 0.8  # .56
    assert 0.1 < np.abs(pairs(matrix)).mean() < 0.16  # .125
    assert 0.25 < first_two(matrix) < 0.34  # .29
    share = np.nanvar(explainable, 0) / np.nanvar(responses, 0)
    assert 0.5 < share[:17].mean() < 0.75 and share[17] < 1e-9  # variance of the true means; nothing drives the last
    assert np.nanmax(responses) < 16 and 0.1 < np.nanmean(responses, 0).min() < 0.5 and np.nanmin(responses) == 0


def test_neurons_of_one_session_share_their_gain():
    sessions = np.array([0, 0, 1])
    roots = np.full((20_000, 3), 8.0)
    responses = recorded(np.random.default_rng(0), roots, np.ones(3, int), sessions)
    shared = np.corrcoef(responses.T)
    counts = 64 + GAIN_VARIANCE * 64**2  # variance of a count; the root keeps the correlation nearly
    assert shared[0, 1] == pytest.approx(SHARED_GAIN * GAIN_VARIANCE * 64**2 / counts, abs=0.03)
    assert abs(shared[0, 2]) < 0.03


def check_antolik(training, repeats, images):
    """Bounds that hold for the recordings' region 1 and for its twin."""
    matrix, total = correlations(training), repeats.reshape(-1, repeats.shape[2]).var(0, ddof=1)
    assert 0.45 < training.mean() < 0.75 and 0.4 < (training == 0).mean() < 0.55 and 10 < training.max() < 25
    assert 1.7 < (training.std(0) / training.mean(0)).mean() < 2.1 and 2.9 < skewness(training).mean() < 3.8
    assert 0.045 < np.abs(pairs(matrix)).mean() < 0.07 and 0.08 < first_two(matrix) < 0.14
    assert 0.19 < (1 - repeats.var(0, ddof=1).mean(0) / total).mean() < 0.28  # FEV
    assert 0.02 < noise_correlation(repeats) < 0.07
    assert -2.75 < spectral_slope(images.reshape(-1, 31, 31)) < -2.35


def test_antolik(tmp_path):
    folder = write_twin(tmp_path, [1], neurons=60) / "region1"
    names = "training_set", "raw_validation_set", "validation_inputs"
    check_antolik(*(np.load(folder / f"{name}.npy") for name in names))
    assert "dog" not in np.load(folder / "truth.npz").files


def test_the_bounds_hold_for_the_recording(real):
    names = "training_set", "raw_validation_set", "validation_inputs"
    check_antolik(*(np.load(real / "region1" / f"{name}.npy") for name in names))


def test_natural_images(tmp_path):
    """Mean over neurons of the correlation over images of the first presentation's response with the second's."""
    stim = scipy.io.loadmat(write_natimg(tmp_path, n_neurons=80)[0])["stim"][0, 0]
    responses, shown = stim["resp"], stim["istim"].ravel()
    rows = np.array([np.flatnonzero(shown == image) for image in range(1, 301)])
    z = [(r - r.mean(0)) / r.std(0) for r in (responses[rows[:, 0]], responses[rows[:, 1]])]
    assert 0.31 < (z[0] * z[1]).mean() < 0.39


def test_a_neuron_adapts_to_what_drove_it_before():
    drive = np.zeros((9, 3))
    drive[2, 0], drive[:, 1] = 9.0, 5.0  # one image, all alike, none
    factors = adaptation(drive)
    np.testing.assert_allclose(factors[:, 1:], 1)
    state = [1.0]  # in units of the mean drive, which is 1
    for driven in drive[:-1, 0]:
        state.append(DECAY * state[-1] + (1 - DECAY) * driven)
    wanted = 1 / (1 + STRENGTH * np.array(state))
    np.testing.assert_allclose(factors[:, 0], wanted / wanted.mean())
    assert factors[3, 0] < 0.7 < factors[2, 0]  # not by its own drive
    np.testing.assert_array_equal(adaptation(drive, 0.0), 1)
    np.testing.assert_allclose(mean_over_histories(lambda history: drive * history, factors), drive)


def preceded(responses, rates):
    """Mean over neurons of the correlation of the residuals (P, N), as a share of the rates, with the rates before."""
    residual, before = responses[1:] / rates[1:] - 1, rates[:-1]
    return np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(residual.T, before.T, strict=True)])


def test_twins_adapt(tmp_path):
    """Responses are below the rates after images that drove the neuron, and as large as the rates in the mean."""
    path, _, truth = write_natimg(tmp_path / "natimg", n_neurons=80)
    stim = scipy.io.loadmat(path)["stim"][0, 0]
    shown = stim["istim"].ravel().astype(int)
    seen = shown <= 300
    rates = np.load(truth)["rates"].T[shown[seen] - 1]
    assert -0.11 < preceded(stim["resp"][seen], rates) < -0.04
    np.testing.assert_allclose((stim["resp"][seen] / rates).mean(), 1, atol=0.02)
    folder = write_twin(tmp_path, [1], neurons=60) / "region1"
    rates = np.load(folder / "truth.npz")["training_means"]
    assert -0.11 < preceded(np.load(folder / "training_set.npy"), rates) < -0.02
    hsm = write_twin(tmp_path / "hsm", [1], neurons=60, dogs=5) / "region1"
    rates = np.load(hsm / "truth.npz")["training_means"]
    assert abs(preceded(np.load(hsm / "training_set.npy"), rates)) < 0.01


def test_traces_drift_and_go_below_zero():
    spontaneous, _ = simulate(seed=0, neurons=(80,) * 3)
    steady, _ = simulate(seed=0, neurons=(80,) * 3, drift=0, state=0)
    assert spontaneous["sresp"].min() == 0  # deconvolved, as published
    assert 0.3 < drift(spontaneous["sresp"]) < 0.6 and drift(spontaneous["sresp"]) > drift(steady["sresp"]) + 0.05
    dff = simulated_traces(0)
    assert 0.1 < (dff["traces"] < 0).mean() < 0.4 and drift(dff["traces"]) > 0.3
    np.testing.assert_allclose(np.quantile(dff["rates"], 0.2, axis=1), 0, atol=1e-5)
