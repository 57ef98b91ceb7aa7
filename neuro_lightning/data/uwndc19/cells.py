"""Simulated neurons of V4: what they make of images, and the spike counts that come of it.

A cascade of two stages, each linear, nonlinear and divided by the activity around it (LNLN with divisive
normalisation). The first one holds, at sixteen places, the energy of Gabor filters' quadrature pairs at four
orientations and two scales, which does not depend on phase, divided by the energy around it; their mean; and how
strong opponent colors are, of whatever sign. The second one holds parts of scenes: one of these on one side of the
window together with another on the other side, rectified and divided by all parts. Each neuron mixes some parts and,
little of it, a patch of color. None of the models is of this kind: receptive fields of one place each do not hold it,
nor do differences of Gaussians or one linear filter.
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.special import gammaln

from neuro_lightning.functional.stimulus_adaptation import adaptation, mean_over_histories

WINDOW = 48
"""The centre that neurons see; receptive fields do not reach beyond it."""

ORIENTATIONS = 4
SCALES = (6.0, 10.0)
PLACES = np.array([(y, x) for y in (-15, -5, 5, 15) for x in (-15, -5, 5, 15)])
POOL_SD = 4.0
PARTS = 11
"""Units of the second stage, which the neurons share."""
MIXED = 3
"""Units of the second stage that a neuron mixes."""
COLOR = (0.03, 0.2)
"""Share of the patch of color in a neuron's drive, from neuron to neuron: what is linear in the pixels."""

GAIN_VARIANCE = 0.06
"""Of the excitability from one presentation to the next: counts vary more than Poisson counts do."""
SHARED_GAIN = 0.4
"""Share of that variance that neurons of one session have in common."""


def drives(rng: np.random.Generator, images: np.ndarray, n_neurons: int) -> np.ndarray:
    """What each neuron makes of each image, before its output nonlinearity.

    Args:
        rng: draws what drives whom.
        images: (B, 3, H, W) in [0, 1]; the centre is seen.
        n_neurons: N.

    Returns:
        (B, N) float64 with mean 0 and variance 1 over the images.
    """
    start = (images.shape[-1] - WINDOW) // 2
    colors, rectified = first_stage(images[:, :, start : start + WINDOW, start : start + WINDOW])
    parts = second_stage(rng, rectified)
    values = np.empty((len(images), n_neurons))
    for neuron in range(n_neurons):
        chosen = rng.choice(PARTS, MIXED, replace=False)
        of_parts = parts[:, chosen] @ rng.normal(0, 1, MIXED)
        tint, centre, width = rng.normal(0, 1, 3), rng.uniform(-15, 15, 2), rng.uniform(6, 14)
        of_color = np.einsum("bcp,c,p->b", colors, tint, patch(centre, width), optimize=True)
        share = rng.uniform(*COLOR)
        values[:, neuron] = np.sqrt(1 - share) * zscored(of_parts) + np.sqrt(share) * zscored(of_color)
    return zscored(values)


def first_stage(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colors (B, 3, P) and what rectification makes of them (B, 11, P) at the places, z-scored over images.

    The latter are the energies at each orientation and scale, normalised, their mean, and the strength of both colors.
    """
    red, green, blue = seen.transpose(1, 0, 2, 3)
    light = seen.mean(1)
    colors = np.stack([pool(maps) for maps in (light, red - green, blue - (red + green) / 2)], axis=1)
    energy = np.concatenate([[pool(maps) for maps in oriented_energy(light, scale)] for scale in SCALES])
    energy = energy.transpose(1, 0, 2).astype(np.float64)
    around = 0.5 * energy.mean((1, 2), keepdims=True) + 0.5 * energy.mean(1, keepdims=True)
    strength = np.stack([pool(np.abs(maps)) for maps in (red - green, blue - (red + green) / 2)], axis=1)
    rectified = [energy / (0.3 * around.mean() + around), energy.mean(1, keepdims=True), strength]
    return zscored(colors), zscored(np.concatenate(rectified, axis=1))


def second_stage(rng: np.random.Generator, rectified: np.ndarray) -> np.ndarray:
    """(B, PARTS) units that see one thing here and, or less so, another there; rectified and divided by all."""
    n_oriented = ORIENTATIONS * len(SCALES)
    drive = np.empty((len(rectified), PARTS))
    for part in range(PARTS):
        angle = rng.uniform(0, 2 * np.pi)
        here = rng.uniform(12, 18) * np.array([np.sin(angle), np.cos(angle)])
        there = -here + rng.uniform(-4, 4, 2)  # on the other side of the window
        oriented, other = rng.integers(n_oriented), rng.integers(n_oriented, rectified.shape[1])
        first = zscored(rectified[:, oriented] @ patch(here, 6.0))
        drive[:, part] = first + rng.choice([1, -1]) * zscored(rectified[:, other] @ patch(there, 6.0))
    activity = np.logaddexp(0, 2 * zscored(drive))
    return zscored(activity / (activity.mean() + activity.mean(1, keepdims=True)))


def patch(centre: np.ndarray, width: float) -> np.ndarray:
    """(P,) Gaussian weights of the places about a centre (y, x), in pixels from the middle."""
    return np.exp(-((PLACES - centre) ** 2).sum(1) / (2 * width**2))


def oriented_energy(maps: np.ndarray, wavelength: float) -> np.ndarray:
    """The local energy of (B, H, W) maps at four orientations: the modulus of Gabor filters' quadrature pairs.

    Returns:
        (4, B, H, W) float32. The filters lie in the frequency domain, so the image is taken to repeat.
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


def pool(maps: np.ndarray) -> np.ndarray:
    """(B, P) means of (B, H, W) maps in a Gaussian window at each of the places."""
    grid = np.arange(WINDOW) - (WINDOW - 1) / 2
    y, x = (np.exp(-((grid - PLACES[:, axis, None]) ** 2) / (2 * POOL_SD**2)) for axis in (0, 1))
    y, x = (windows / windows.sum(1, keepdims=True) for windows in (y, x))
    return np.einsum("bhw,ph,pw->bp", maps, y, x, optimize=True)


def zscored(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and variance 1 over the first axis."""
    return (values - values.mean(0)) / values.std(0)


# ---- responses


def root_rates(drive: np.ndarray, means: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Square roots of the expected spike counts: rectified drives (softplus) about each neuron's mean.

    Args:
        drive: (B, N) with mean 0 and variance 1.
        means: (N,) of the root over images.
        depths: (N,) its standard deviation over images as a share of the mean.

    Returns:
        (B, N), from 0 to 12.
    """
    return np.clip(means * (1 + depths * zscored(np.logaddexp(0, 0.6 * drive))), 0, 12)


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


def mean_rates(roots: np.ndarray) -> np.ndarray:
    """The expected responses (B, N) whatever was presented before, see :func:`mean_root_count`."""
    factors = adaptation(roots**2)
    return mean_over_histories(lambda history: mean_root_count(roots * np.sqrt(history)), factors)


def recorded(
    rng: np.random.Generator, roots: np.ndarray, presentations: np.ndarray, sessions: np.ndarray
) -> np.ndarray:
    """Mean square roots of spike counts over each neuron's presentations, of which each has an order to adapt to.

    Args:
        rng: draws orders, gains and counts.
        roots: (B, N) square roots of the expected counts.
        presentations: (N,) how many were averaged.
        sessions: (N,) number of each neuron's session; neurons of one share a part of their gain.

    Returns:
        (B, N).
    """
    most, shape = presentations.max(), 1 / GAIN_VARIANCE
    common = rng.gamma(SHARED_GAIN * shape, GAIN_VARIANCE, (most, len(roots), sessions.max() + 1))
    own = rng.gamma((1 - SHARED_GAIN) * shape, GAIN_VARIANCE, (most, *roots.shape))
    gains = common[..., sessions] + own
    for gain in gains:
        order = rng.permutation(len(roots))
        gain[order] *= adaptation(roots[order] ** 2)
    counts = rng.poisson(gains * roots**2)  # sums of gamma variables of one scale are gamma
    presented = np.arange(most)[:, None, None] < presentations
    return (np.sqrt(counts) * presented).sum(0) / presentations
