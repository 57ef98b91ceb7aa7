"""Simulated twins of Stringer's recordings of responses to gratings and to natural images, with known truth.

Neurons share ongoing fluctuations: spontaneous activity is ``base * g`` and a response ``rate * g``, where the gain
``g`` of each neuron is a log-normal mix of a few population-wide states with the mean 1; to both comes gamma noise. The
expected response to a stimulus is thus its rate exactly. Files lie as the authors laid theirs; beside them the truth.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import scipy.io

from neuro_lightning.data.twin_files import TRUTH, Save, write_twin_files
from neuro_lightning.functional.stimulus_adaptation import adaptation

VERSIONS = {"orientations": 1, "natimg": 3}
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

SESSION = "M000000_SIM_2000-01-01"
RECORDING, IMAGES = f"natimg2800_{SESSION}.mat", "images_natimg2800_all.mat"
N_STATES = 8


def write_orientations(
    folder: str | Path, *, seed: int = 0, n_neurons: int = 300, n_trials: int = 600
) -> tuple[Path, Path]:
    """Write ``stringer_orientations.npy`` of von Mises tuned neurons, or find the one of an earlier call.

    Args:
        folder: where to.
        seed: the same seed and sizes give the same content.
        n_neurons: N.
        n_trials: T static gratings of random direction.

    Returns:
        The file and the file of truth: ``rates`` (N, T) and the neurons' ``preferred`` orientations in radians.

    Raises:
        DataError: the folder cannot be written to.
    """
    sizes = {"seed": seed, "n_neurons": n_neurons, "n_trials": n_trials}
    folder = write_twin_files(
        folder, {"twin": VERSIONS["orientations"], **sizes}, partial(_simulate_orientations, **sizes)
    )
    return folder / "stringer_orientations.npy", folder / TRUTH


def _simulate_orientations(seed: int, n_neurons: int, n_trials: int) -> tuple[dict[str, Save], dict[str, np.ndarray]]:
    rng = np.random.default_rng([seed, 11])
    base = rng.gamma(2.0, 1.0, n_neurons)
    istim = rng.uniform(0, 2 * np.pi, n_trials)
    preferred = rng.uniform(0, np.pi, n_neurons)
    sharpness, height = rng.uniform(1, 6, n_neurons), base * rng.gamma(1.5, 1.0, n_neurons)
    tuning = np.exp(sharpness[:, None] * (np.cos(2 * (istim - preferred[:, None])) - 1))
    rates = base[:, None] + height[:, None] * tuning
    loadings = rng.normal(0, 0.15, (n_neurons, N_STATES))
    spont = _noisy(base[:, None] * _gains(loadings, 400, rng), rng)
    mean, std = spont.mean(1), spont.std(1)
    u, s, vt = np.linalg.svd((spont - mean[:, None]) / std[:, None], full_matrices=False)
    keep = min(128, len(s))
    stimtimes = 900 + 3 * np.arange(n_trials)
    content = {
        "sresp": _noisy(rates * _gains(loadings, n_trials, rng), rng),
        "istim": istim,
        "stat": _cells(n_neurons, rng),
        "u_spont": u[:, :keep],
        "v_spont": s[:keep, None] * vt[:keep],
        "mean_spont": mean,
        "std_spont": std,
        "stimtimes": stimtimes,
        "frametimes": np.arange(stimtimes[-1] + 10),
        "camtimes": np.arange(17 * n_trials),
        "xyz": rng.uniform(0, 1000, (3, n_neurons)),
        "run": rng.gamma(0.5, 8.0, n_trials).astype(np.float32),
        "info": f"simulated responses of {n_neurons} neurons to {n_trials} static gratings",
    }
    files = {"stringer_orientations.npy": partial(np.save, arr=content, allow_pickle=True)}
    return files, {"rates": rates, "preferred": preferred}


def write_natimg(
    folder: str | Path, *, seed: int = 0, n_neurons: int = 200, n_images: int = 300, n_repeats: int = 2
) -> tuple[Path, Path, Path]:
    """Write ``natimg2800_<mouse>_<date>.mat`` and ``images_natimg2800_all.mat``, or find those of an earlier call.

    Each neuron mixes a simple cell (a rectified Gabor filter) and a complex one (the energy of a quadrature pair),
    divided by the contrast around it, with a few others', and is divided by the population's activity: none of the
    models is of this kind. What was presented before makes it respond less (adaptation). Two presentations of the
    images correlate by 0.35 in the mean neuron, as recorded.

    Args:
        folder: where to.
        seed: the same seed and sizes give the same content.
        n_neurons: N; with far fewer, the 32 components that are usually taken out hold much of the responses.
        n_images: images of 68 x 270 pixels.
        n_repeats: presentations of each.

    Returns:
        The recording, the images, and the file of truth: ``rates`` (N, n_images), whatever came before, and the
        receptive fields' ``centers`` (N, 2), row and column.

    Raises:
        DataError: the folder cannot be written to.
    """
    sizes = {"seed": seed, "n_neurons": n_neurons, "n_images": n_images, "n_repeats": n_repeats}
    folder = write_twin_files(folder, {"twin": VERSIONS["natimg"], **sizes}, partial(_simulate_natimg, **sizes))
    return folder / RECORDING, folder / IMAGES, folder / TRUTH


def _simulate_natimg(
    seed: int, n_neurons: int, n_images: int, n_repeats: int
) -> tuple[dict[str, Save], dict[str, np.ndarray]]:
    rng = np.random.default_rng([seed, 12])
    images = natural_images(n_images, (68, 270), rng)
    base = rng.gamma(2.0, 1.0, n_neurons)
    drive, centers = _drive(images, n_neurons, rng)
    rates = base[:, None] * (1 + 0.85 * drive)
    grey = np.arange(n_images * n_repeats // 20)  # now and then the grey screen
    order = rng.permutation(np.concatenate([np.tile(np.arange(n_images), n_repeats), np.full(len(grey), n_images)]))
    expected = np.concatenate([rates, base[:, None]], axis=1)[:, order]
    expected *= adaptation(expected.T).T
    loadings = rng.normal(0, 0.15, (n_neurons, N_STATES))
    spont = _noisy(base[:, None] * _gains(loadings, 200, rng), rng)
    stim = {
        "resp": _noisy(expected * _gains(loadings, len(order), rng), rng).T.astype(np.float32),
        "istim": (order + 1).astype(np.float64)[:, None],
        "spont": spont.T.astype(np.float32),
    }
    cells = _cells(n_neurons, rng)
    stat = np.zeros((n_neurons, 1), [("redcell", object), ("npix", object), ("iplane", object)])
    for i, cell in enumerate(cells):
        stat[i, 0] = (0.0, float(cell["npix"]), float(cell["iplane"]))
    content = {"stim": stim, "med": rng.uniform(0, 1000, (n_neurons, 3)), "stat": stat}
    files = {
        RECORDING: partial(scipy.io.savemat, mdict=content, do_compression=True),
        IMAGES: partial(scipy.io.savemat, mdict={"imgs": images.transpose(1, 2, 0)}),
    }
    return files, {"rates": rates, "centers": centers}


def natural_images(n: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(n, H, W) uint8 noise whose amplitude falls with spatial frequency f as 1/f, as natural images' does."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    spectrum = np.fft.rfft2(rng.normal(size=(n, *size))) / np.maximum(frequency, 1 / max(size))
    images = np.fft.irfft2(spectrum, size)
    images = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
    return np.clip(128 + 45 * images, 0, 255).astype(np.uint8)


def _drive(images: np.ndarray, n_neurons: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How strongly each image drives each neuron, (N, n) with the mean 1 over images, and where the neurons look."""
    height, width = images.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    centers = np.stack([rng.uniform(15, height - 15, n_neurons), rng.uniform(20, width / 2, n_neurons)], axis=1)
    contrast = (images.reshape(len(images), -1).astype(np.float32) - 128) / 45
    own = np.empty((n_neurons, len(images)))
    for i, (row, column) in enumerate(centers):
        angle, width_px, phase = rng.uniform(0, np.pi), rng.uniform(6, 10), rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * (columns - column) + np.sin(angle) * (rows - row)
        squared = (columns - column) ** 2 + (rows - row) ** 2
        window, wide = (np.exp(-squared / (2 * sd**2)).astype(np.float32) for sd in (width_px, 2 * width_px))
        pair = [window * np.cos(2 * np.pi * along / (4 * width_px) + phase + shift) for shift in (0, np.pi / 2)]
        first, second = (contrast @ filter_.reshape(-1).astype(np.float32) for filter_ in pair)
        around = np.sqrt(contrast**2 @ wide.reshape(-1))
        simple, energy, share = np.maximum(first, 0), np.hypot(first, second), rng.beta(0.8, 1.2)
        own[i] = (1 - share) * simple / simple.mean() + share * energy / energy.mean()
        own[i] /= 0.3 + around / around.mean()
    others = rng.normal(0, 0.35, (n_neurons, n_neurons)) * (rng.random((n_neurons, n_neurons)) < 4 / n_neurons)
    mixed = np.maximum(own + others @ own, 0) ** 1.5
    mixed /= mixed.mean(1, keepdims=True)
    drive = mixed / (1 + mixed.mean(0))
    return drive / drive.mean(1, keepdims=True), centers


def _gains(loadings: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(N, n) shared fluctuations, log-normal with the mean 1."""
    states = rng.normal(size=(loadings.shape[1], n))
    return np.exp(loadings @ states - (loadings**2).sum(1, keepdims=True) / 2)


def _noisy(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma noise whose variance equals the mean: never negative and real-valued, as deconvolved activity is."""
    return rng.gamma(rates)


def _cells(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) dictionaries, a few of the entries that suite2p makes."""
    cells = np.empty(n, object)
    for i, (npix, plane) in enumerate(zip(rng.integers(30, 200, n), rng.integers(1, 11, n), strict=True)):
        cells[i] = {"npix": int(npix), "iplane": int(plane), "med": rng.integers(0, 512, 2), "radius": float(npix**0.5)}
    return cells
