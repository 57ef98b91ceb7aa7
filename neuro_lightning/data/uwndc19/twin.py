"""A simulated twin of the UW Neural Data Challenge 2019, in the layout of its files.

601 natural-like images (colour noise with the spectrum of natural scenes, on it coloured shapes) and 18 neurons that
respond to what V4 neurons respond to: hue, oriented energy, curvature, texture, edges of a colour. The responses are
drawn as the recorded ones came about: square roots of spike counts, averaged over a few presentations, each of them in
an order of its own, to which neurons adapt. Which image was not shown to which neuron is as published. Beside the three
files lies ``truth.npz`` with the mean responses.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import fft

from neuro_lightning.data.twin_files import Save, write_twin_files
from neuro_lightning.data.uwndc19.cells import drives, mean_rates, recorded, root_rates
from neuro_lightning.data.uwndc19.reader import N_IMAGES, N_NEURONS, N_TEST, N_TRAIN, SIZE

VERSION = 4
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

COLUMNS = (
    "10_1_2018_0_0", "10_1_2018_0_1", "11_06_18_0_0", "11_06_18_0_1", "11_07_18_0_0", "11_07_18_1_0", "11_08_18_0_0",
    "11_08_18_0_1", "11_09_18_0_1", "9_17_2018_0_0", "9_17_2018_0_1", "9_20_2018_0_0", "9_21_2018_0_0",
    "9_21_2018_0_1", "9_26_2018_0_0", "9_26_2018_0_1", "9_28_2018_0_0", "9_28_2018_0_1",
)  # fmt: skip
"""The published names: date, session, unit; 0 at the end stands for multi-unit activity, 1 for a single unit."""

NEURONS = (  # mean root of its counts, that root's deviation over images as a share of it, presentations averaged
    (3.2, 0.20, 2), (2.4, 0.22, 2), (2.0, 0.24, 3), (0.5, 0.50, 4), (2.8, 0.22, 2), (4.2, 0.20, 2), (3.6, 0.22, 2),
    (0.9, 0.40, 4), (1.6, 0.30, 3), (1.7, 0.28, 3), (0.42, 0.50, 4), (8.1, 0.14, 2), (2.6, 0.22, 2), (1.8, 0.26, 3),
    (2.2, 0.22, 2), (1.4, 0.30, 3), (4.8, 0.18, 2), (1.1, 0.0, 3),
)  # fmt: skip
"""The last one has no signal: so it was in the challenge, where no model explained it."""


def write_uwndc19(folder: str | Path, *, seed: int = 0) -> Path:
    """Write a twin, or find the very one that an earlier call has written.

    Args:
        folder: where ``stim.npy``, ``train.csv``, ``sub.csv`` and ``truth.npz`` go.
        seed: the same seed gives the same content.

    Returns:
        The folder.

    Raises:
        DataError: the folder cannot be written to.
    """

    def make() -> tuple[dict[str, Save], dict[str, np.ndarray]]:
        images, rates, responses = simulate_challenge(seed)
        means = np.tile(np.nanmean(responses, axis=0), (N_TEST, 1))
        files = {
            "stim.npy": partial(np.save, arr=np.ascontiguousarray(images.transpose(0, 2, 3, 1))),
            "train.csv": partial(_write_table, ids=range(N_TEST, N_IMAGES), values=responses),
            "sub.csv": partial(_write_table, ids=range(N_TEST), values=means),
        }
        return files, {"rates": rates}

    return write_twin_files(folder, {"twin": VERSION, "dataset": "uwndc19", "seed": seed}, make)


def simulate_challenge(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, the mean responses to them, and what was recorded.

    Args:
        seed: of everything.

    Returns:
        ``(images, rates, responses)``: (601, 3, 80, 80) float32 in [0, 1], (601, 18) float32, and (551, 18) float64
        with NaN where an image was not shown.
    """
    rng = {part: np.random.default_rng([seed, number]) for number, part in enumerate(("images", "tuning", "counts"))}
    # some at a time: what lies in the processor's cache is computed twice as fast
    images = np.concatenate([natural_images(rng["images"], len(part)) for part in np.array_split(range(N_IMAGES), 8)])
    means, depths, presentations = (np.array(column) for column in zip(*NEURONS, strict=True))
    roots = root_rates(drives(rng["tuning"], images, N_NEURONS), means, depths)
    rates = mean_rates(roots)
    session = np.unique([name[: name.rindex("_")] for name in COLUMNS], return_inverse=True)[1]
    responses = recorded(rng["counts"], roots[N_TEST:], presentations, session)
    responses[not_shown()] = np.nan
    return images, rates.astype(np.float32), responses


def not_shown() -> np.ndarray:
    """(551, 18) bool, where the published table has no response."""
    hidden = np.zeros((N_TRAIN, N_NEURONS), bool)
    hidden[151:, 2:9] = True
    hidden[-1, 9:16] = True
    return hidden


# ---- images


def natural_images(rng: np.random.Generator, n: int) -> np.ndarray:
    """Colour noise whose amplitude falls as 1/f, as that of natural scenes, with three shapes on it.

    Returns:
        (n, 3, 80, 80) float32 in [0, 1].
    """
    frequency = np.hypot(fft.fftfreq(SIZE)[:, None], fft.rfftfreq(SIZE)[None]).astype(np.float32)
    frequency[0, 0] = np.inf  # the mean is set below
    spectrum = rng.standard_normal((2, n, 3, *frequency.shape), dtype=np.float32) / frequency
    noise = fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(SIZE, SIZE))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    # bright and dark vary together more than hue does
    images = 0.8 * noise.sum(1, keepdims=True) + 0.5 * noise
    images *= rng.uniform(0.06, 0.16, (n, 1, 1, 1))
    images += rng.uniform(0.3, 0.6, (n, 1, 1, 1)) + rng.normal(0, 0.06, (n, 3, 1, 1))
    for _ in range(3):
        shape = _shapes(rng, n)[:, None]
        colour = rng.uniform(0.05, 0.95, (n, 3, 1, 1)).astype(np.float32)
        images += shape * (colour - images)
    return np.clip(images, 0, 1, out=images)


def _shapes(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 80, 80) float32, the cover of one closed curve with up to four lobes in each image."""

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)

    grid = np.arange(SIZE, dtype=np.float32)
    y, x = grid[None, :, None] - draw(16, 64), grid[None, None] - draw(16, 64)
    lobes = rng.integers(1, 5, (n, 1, 1)).astype(np.float32)
    angle = np.arctan2(y, x)
    boundary = draw(5, 13) * (1 + draw(0, 0.6) * np.cos(lobes * angle + draw(-np.pi, np.pi)))
    inside = np.clip(boundary - np.hypot(x, y) + 0.5, 0, 1)  # an edge one pixel wide
    return inside * draw(0.5, 1)


# ---- files


def _write_table(path: Path, ids: range, values: np.ndarray) -> None:
    """A CSV as published: LF line ends, floats in full, empty cells for NaN."""
    lines = [",".join(("Id", *COLUMNS))]
    for image, row in zip(ids, values.tolist(), strict=True):
        lines.append(",".join((str(image), *("" if value != value else repr(value) for value in row))))
    path.write_bytes(("\n".join(lines) + "\n").encode())
