"""Simulated twin of Stringer's spontaneous activity, in the layout of the published files, with a planted dimension.

A few latent variables drive all neurons, as brain-wide states do, from fast ones to one that changes over the whole
session. A state of bouts and pauses scales how much the others drive, so that the population is not linear in them,
and each neuron's gain drifts: what holds in the beginning does not hold in the end. Each neuron adds events of its
own. So the number of dimensions that the population shares is known, as is every neuron's true expected activity.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neuro_lightning.data.stringer.files import NAME
from neuro_lightning.data.twin_files import TRUTH, Save, write_twin_files

VERSION = 3
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

NEURONS = (82, 85, 83, 87, 83, 78, 72, 70, 67)
"""Neurons of the nine planes: a seventeenth of the real ones (1386, 1440, ... 1131)."""

SLOWEST = 10
"""Time scale of the slowest latent variable in units of the fastest one's."""
PLANE_STEP_UM = 35.0
FIELD_UM = (4.0, 1012.0)
FACE_COMPONENTS = 1000
FACE_PIXELS = (24, 32)  # 240 x 320 in the real file
KEYS = ("sresp", "run", "beh_svd_time", "beh_svd_mask", "stat", "pupilArea", "pupilCOM", "xyz")


def simulate(
    *,
    seed: int = 0,
    neurons: tuple[int, ...] = NEURONS,
    n_bins: int = 1200,
    n_latents: int = 8,
    timescale: float = 3.0,
    depth: float = 0.7,
    events: float = 2.0,
    drift: float = 0.12,
    state: float = 0.3,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Simulate a recording.

    Args:
        seed: the same seed and arguments give the same recording.
        neurons: of each plane, from the uppermost one down.
        n_bins: T.
        n_latents: dimensions D that the population shares.
        timescale: of the fastest latent variables, bins; the last one is ``SLOWEST`` times as slow.
        depth: standard deviation of a neuron's expected activity over time, as a share of its mean.
        events: mean number of events in a bin; the fewer, the more private noise.
        drift: standard deviation over the session of the logarithm of each neuron's own gain.
        state: how much the first latent variable, bouts and pauses, scales the drive by the others; 0: not at all.

    Returns:
        ``(content, truth)``: the published file's arrays by its keys, in their order, such as ``sresp`` (N, T) sparse
        and not negative, ``xyz`` (3, N) in um, ``beh_svd_time`` (T, 1000) components of the face's motion, of falling
        variance, with their pictures ``beh_svd_mask``; and ``rates`` (N, T), the expected activity, and ``latents``
        (T, D), standardised.
    """
    rng = np.random.default_rng(seed)
    latents = draw_latents(rng, n_bins, n_latents, timescale)
    n = sum(neurons)
    weights = rng.standard_normal((n, n_latents))
    weights *= depth / np.linalg.norm(weights, axis=1, keepdims=True)
    scale = np.exp(state * latents[:, 0])
    modulation = np.maximum(1 + (weights @ latents.T) * scale / np.sqrt((scale**2).mean()), 0.0)
    gain = np.exp(drift * smooth(rng.standard_normal((n_bins, n)), n_bins / 8).T)
    expected = events * rng.lognormal(-0.08, 0.4, (n, 1)) * modulation * gain / gain.mean(1, keepdims=True)
    counts = rng.poisson(expected)
    size = rng.lognormal(0.0, 0.3, (n, 1)) * 10  # the unit of deconvolved activity is arbitrary
    shape = 8.0  # events of one neuron differ by a third
    sresp = rng.gamma(np.maximum(counts, 1) * shape, size / shape) * (counts > 0)
    plane = np.repeat(np.arange(len(neurons)), neurons)
    order = rng.permutation(n)  # the real file's neurons are not guaranteed to be sorted by plane
    xyz = np.stack([*rng.uniform(*FIELD_UM, (2, n)).round(1), -PLANE_STEP_UM * (len(neurons) - plane)])
    found = _behavior(rng, latents)
    found |= {"sresp": sresp[order].astype(np.float32), "xyz": xyz[:, order], "stat": _stat(plane, xyz, order)}
    truth = {"rates": (expected * size)[order].astype(np.float32), "latents": latents.astype(np.float32)}
    return {key: found[key] for key in KEYS}, truth


def draw_latents(rng: np.random.Generator, n_bins: int, n_latents: int, timescale: float) -> np.ndarray:
    """(T, D) latent variables, uncorrelated, with mean 0 and variance 1.

    The first one is a state of bouts and pauses, the others are Gaussian processes from fast to slow.
    """
    bouts = smooth(rng.standard_normal((n_bins, 1)), 4 * timescale) > 0.3
    columns = [smooth(bouts.astype(float), timescale)]
    for scale in np.geomspace(timescale, SLOWEST * timescale, n_latents)[1:]:
        columns.append(smooth(rng.standard_normal((n_bins, 1)), scale))
    latents = np.concatenate(columns, axis=1)
    latents -= latents.mean(0)
    basis, mixing = np.linalg.qr(latents)
    return basis * np.sqrt(n_bins) * np.sign(np.diag(mixing))


def smooth(values: np.ndarray, timescale: float) -> np.ndarray:
    """(T, K) series after a Gaussian filter over time, in units of its own deviation."""
    filtered = gaussian_filter1d(values, timescale, axis=0, mode="nearest")
    return (filtered - filtered.mean(0)) / filtered.std(0)


def write_twin(folder: str | Path, *, seed: int = 0, **sizes: Any) -> tuple[Path, Path]:
    """Write ``stringer_spontaneous.npy`` with Neuromatch Academy's keys in their order, and ``truth.npz`` beside it.

    What an earlier call with the same arguments has written is left as it is.

    Args:
        folder: where the files go; made if need be.
        seed: of the simulation.
        sizes: see :func:`simulate`.

    Returns:
        The dictionary's path and that of the truth: ``rates`` (N, T) and ``latents`` (T, D).

    Raises:
        DataError: the folder cannot be written.
    """

    def make() -> tuple[dict[str, Save], dict[str, np.ndarray]]:
        content, planted = simulate(seed=seed, **sizes)
        return {NAME: partial(np.save, arr=content, allow_pickle=True)}, planted

    folder = write_twin_files(folder, {"twin": VERSION, "seed": seed, **sizes}, make)
    return folder / NAME, folder / TRUTH


def _behavior(rng: np.random.Generator, latents: np.ndarray) -> dict[str, np.ndarray]:
    """Running, pupil and face that follow the first latent variables, each with noise of its own."""
    n_bins, n_latents = latents.shape

    def follow(k: int, noise: float) -> np.ndarray:
        return latents[:, k % n_latents] + noise * rng.standard_normal(n_bins)

    rank = np.arange(1, FACE_COMPONENTS + 1)
    mixing = rng.standard_normal((n_latents, FACE_COMPONENTS)) / np.sqrt(n_latents)
    face = (latents @ mixing + rng.standard_normal((n_bins, FACE_COMPONENTS))) * 1e3 / rank
    mask = rng.standard_normal((*FACE_PIXELS, FACE_COMPONENTS)) / np.sqrt(np.prod(FACE_PIXELS))
    return {
        "run": 5 * np.maximum(follow(0, 0.2), 0.0)[:, None],
        "pupilArea": (300 * np.exp(0.3 * follow(1, 0.2)))[:, None],
        "pupilCOM": 80 + 3 * np.stack([follow(2, 0.5), follow(3, 0.5)], axis=1),
        "beh_svd_time": face.astype(np.float32),
        "beh_svd_mask": mask.astype(np.float32),
    }


def _stat(plane: np.ndarray, xyz: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) dictionaries in the manner of suite2p, of neurons in this order."""
    stat, pixels = np.empty(len(order), object), np.arange(-1, 2)
    for i, neuron in enumerate(order):
        x, y = xyz[:2, neuron]
        stat[i] = {
            "med": [float(y), float(x)],
            "npix": 9,
            "iplane": int(plane[neuron]),
            "ypix": np.repeat(int(y) + pixels, 3),
            "xpix": np.tile(int(x) + pixels, 3),
            "lam": np.full(9, 1 / 9, np.float32),
        }
    return stat
