"""A simulated twin of the UW Neural Data Challenge 2019, in the layout of its files.

601 natural-like images (colour noise with the spectrum of natural scenes, on it coloured shapes) and 18 neurons that
respond to what V4 neurons respond to: hue, oriented energy, curvature, texture, edges of a colour. The responses are
drawn as the recorded ones came about: square roots of spike counts, averaged over a few presentations. Which image
was not shown to which neuron is as published. Beside the three files lies ``truth.npz`` with the mean responses.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import fft
from scipy.special import gammaln

from neuro_lightning.data.twin_files import Save, write_twin_files
from neuro_lightning.data.uwndc19.reader import N_IMAGES, N_NEURONS, N_TEST, N_TRAIN, SIZE

VERSION = 1
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

COLUMNS = (
    "10_1_2018_0_0", "10_1_2018_0_1", "11_06_18_0_0", "11_06_18_0_1", "11_07_18_0_0", "11_07_18_1_0", "11_08_18_0_0",
    "11_08_18_0_1", "11_09_18_0_1", "9_17_2018_0_0", "9_17_2018_0_1", "9_20_2018_0_0", "9_21_2018_0_0",
    "9_21_2018_0_1", "9_26_2018_0_0", "9_26_2018_0_1", "9_28_2018_0_0", "9_28_2018_0_1",
)  # fmt: skip
"""The published names: date, session, unit; 0 at the end stands for multi-unit activity, 1 for a single unit."""

NEURONS = (  # what drives it, its mean root rate, how strongly, over how many presentations it was averaged
    ("hue", 3.2, 0.8, 2), ("edge", 2.4, 0.8, 2), ("hue", 2.0, 1.0, 3), ("curve", 0.5, 1.0, 4), ("edge", 2.8, 0.7, 2),
    ("hue", 4.2, 0.6, 2), ("curve", 3.6, 0.6, 2), ("edge", 0.8, 1.2, 4), ("texture", 1.6, 0.9, 3),
    ("hue", 1.7, 1.1, 3), ("curve", 0.42, 1.0, 4), ("hue", 8.1, 0.3, 2), ("texture", 2.6, 0.7, 2),
    ("edge", 1.8, 1.0, 3), ("coloured edge", 2.2, 0.9, 2), ("hue", 1.4, 1.2, 3), ("edge", 4.8, 0.6, 2),
    ("nothing", 1.1, 0.0, 3),
)  # fmt: skip
"""The last one has no signal: so it was in the challenge, where no model explained it."""

WINDOW = 48
"""The centre that neurons see; receptive fields do not reach beyond it."""

GAIN_VARIANCE = 0.06
"""Of the excitability from one presentation to the next: counts vary more than Poisson counts do."""

ORIENTATIONS = 4


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
    roots = root_rates(drives(rng["tuning"], images))
    rates = mean_root_count(roots)
    responses = recorded(rng["counts"], roots[N_TEST:])
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


# ---- neurons


def drives(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """What each neuron makes of each image, before its output nonlinearity.

    Args:
        rng: draws places, orientations and hues.
        images: (B, 3, 80, 80).

    Returns:
        (B, 18) float64 with mean 0 and variance 1 over the images; zero for the neuron without signal.
    """
    start = (SIZE - WINDOW) // 2
    seen = images[:, :, start : start + WINDOW, start : start + WINDOW]
    red, green, blue = seen.transpose(1, 0, 2, 3)
    opponent = np.stack([red - green, blue - (red + green) / 2])
    energy = {scale: oriented_energy(seen.mean(1), scale) for scale in (6.0, 10.0)}
    values = np.zeros((len(images), N_NEURONS))
    for neuron, (kind, *_) in enumerate(NEURONS):
        place, orientation = rng.uniform(-6, 6, 2), rng.integers(ORIENTATIONS)
        hue, scale = rng.uniform(0, 2 * np.pi), rng.choice(list(energy))
        tinted = np.cos(hue) * opponent[0] + np.sin(hue) * opponent[1]
        if kind == "hue":
            values[:, neuron] = _pool(tinted, place, 7)
        elif kind == "edge":
            values[:, neuron] = _pool(energy[scale][orientation], place, 6)
        elif kind == "texture":
            values[:, neuron] = _pool(energy[scale].mean(0), place, 9)
        elif kind == "curve":  # two neighbouring stretches of a contour with a bend between them
            offset = rng.normal(size=2)
            offset *= 4 / np.linalg.norm(offset)
            flanks = [_pool(energy[scale][(orientation + k) % ORIENTATIONS], place + s * offset, 4)
                      for k, s in ((0, 1), (1, -1))]  # fmt: skip
            values[:, neuron] = np.sqrt(flanks[0] * flanks[1])
        elif kind == "coloured edge":
            values[:, neuron] = _pool(oriented_energy(tinted, scale)[orientation], place, 6)
    values -= values.mean(0)
    return values / np.maximum(values.std(0), 1e-12)


def oriented_energy(maps: np.ndarray, wavelength: float) -> np.ndarray:
    """The local energy of (B, H, W) maps at four orientations: the modulus of Gabor filters' quadrature pairs.

    Returns:
        (4, B, H, W) float32. The filters lie in the frequency domain, so the image is taken to repeat; receptive
        fields stay clear of its border.
    """
    fy, fx = fft.fftfreq(maps.shape[-2])[:, None], fft.fftfreq(maps.shape[-1])[None]
    spectrum = fft.fft2(maps.astype(np.float32))
    energy = np.empty((ORIENTATIONS, *maps.shape), np.float32)
    for i in range(ORIENTATIONS):
        angle = np.pi * i / ORIENTATIONS
        centre = np.cos(angle) / wavelength, np.sin(angle) / wavelength
        # one side of the spectrum only: real and imaginary part are then the pair; 1.4 octaves wide
        gabor = np.exp(-((fx - centre[0]) ** 2 + (fy - centre[1]) ** 2) * wavelength**2 / 0.18).astype(np.float32)
        gabor[0, 0] = 0
        energy[i] = np.abs(fft.ifft2(spectrum * gabor))
    return energy


def _pool(maps: np.ndarray, place: np.ndarray, sd: float) -> np.ndarray:
    """(B,) the mean of (B, H, W) maps in a Gaussian window at ``place`` (y, x) from the centre, in pixels."""
    grid = np.arange(WINDOW) - (WINDOW - 1) / 2
    y, x = (np.exp(-((grid - centre) ** 2) / (2 * sd**2)) for centre in place)
    return np.einsum("bhw,h,w->b", maps, y / y.sum(), x / x.sum(), optimize=True)


# ---- responses


def root_rates(drive: np.ndarray) -> np.ndarray:
    """Square roots of the expected spike counts: rectified drives (softplus), scaled to each neuron's mean.

    Args:
        drive: (B, 18) with mean 0 and variance 1.

    Returns:
        (B, 18).
    """
    means, depths = (np.array([neuron[i] for neuron in NEURONS]) for i in (1, 2))
    rectified = np.logaddexp(0, depths * drive)
    return np.clip(means * rectified / rectified.mean(0), 0, 12)


def mean_root_count(roots: np.ndarray) -> np.ndarray:
    """The expected square root of a spike count: of a Poisson count whose rate varies by a gamma-distributed gain.

    Args:
        roots: square roots of the expected counts, at most 12.

    Returns:
        Like ``roots``: the mean response, which is less than the root of the mean count.
    """
    grid = np.linspace(0, 12, 481)
    count = np.arange(1, 800)
    shape = 1 / GAIN_VARIANCE
    mean = np.maximum(grid[:, None] ** 2, 1e-12)
    # the negative binomial distribution
    log_p = gammaln(count + shape) - gammaln(shape) - gammaln(count + 1)
    log_p = log_p + shape * np.log(shape / (shape + mean)) + count * np.log(mean / (shape + mean))
    return np.interp(roots, grid, np.exp(log_p) @ np.sqrt(count))


def recorded(rng: np.random.Generator, roots: np.ndarray) -> np.ndarray:
    """Mean square roots of spike counts over each neuron's presentations.

    Args:
        rng: draws gains and counts.
        roots: (B, 18) square roots of the expected counts.

    Returns:
        (B, 18).
    """
    presentations = np.array([neuron[3] for neuron in NEURONS])
    most = presentations.max()
    gains = rng.gamma(1 / GAIN_VARIANCE, GAIN_VARIANCE, (most, *roots.shape))
    counts = rng.poisson(gains * roots**2)
    presented = np.arange(most)[:, None, None] < presentations
    return (np.sqrt(counts) * presented).sum(0) / presentations


# ---- files


def _write_table(path: Path, ids: range, values: np.ndarray) -> None:
    """A CSV as published: LF line ends, floats in full, empty cells for NaN."""
    lines = [",".join(("Id", *COLUMNS))]
    for image, row in zip(ids, values.tolist(), strict=True):
        lines.append(",".join((str(image), *("" if value != value else repr(value) for value in row))))
    path.write_bytes(("\n".join(lines) + "\n").encode())
