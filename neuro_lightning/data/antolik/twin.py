"""Simulated twins of Antolik et al. 2016, in the layout of the files.

What drives the neurons is in :mod:`neuro_lightning.data.antolik.cells`, unless ``dogs`` asks for a planted
hierarchical structural model (HSM) instead, whose parameters a fit of that model can be held against: a few
difference-of-Gaussians units look at the image, a hidden layer with softplus combines them, and a second one makes
the neurons' drive.

Noise is normal with a standard deviation in proportion to the square root of the drive, as in msc-neuro's study of
simulated responses, in part shared by all neurons of a region, and responses are cut at zero as inferred spikes are:
about half are zero. Neurons adapt to the images before, unless they are an HSM's: training images are shown in the
order of their rows, the repeated ones in an order of each repeat's own. Mean, largest response, share of explainable
variance, noise correlations and the images' spectrum are about the recordings'. Beside the published files each folder
holds ``truth.npz``: what was planted, and the means of the responses after cutting, whatever was shown before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from neuro_lightning.data.antolik import cells
from neuro_lightning.data.antolik.files import GREY, SIDE
from neuro_lightning.data.twin_files import Save, write_twin_files
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.stimulus_adaptation import STRENGTH, adaptation, mean_over_histories

VERSION = 3
"""Raised whenever a seed gives other content than before, so that older files are written anew."""
REPEATS = {1: 10, 2: 8, 3: 12}
ANIMAL = {1: 0, 2: 0, 3: 1}  # regions of one animal were shown the same repeated images
SHARE = {1: (1.0, 1.0), 2: (0.7, 0.53), 3: (1.0, 0.99)}  # of training images and neurons, as recorded
N_TEST = 50
README = "Simulated twin of Antolik et al. 2016 (PLoS Comput Biol 12:e1004927): no animal was recorded.\n"


SPECTRUM = 1.25
"""Amplitude falls with spatial frequency to this power; the recordings' images have a slope of -2.5 in power."""
SHARED = (0.3, 0.1)
"""Mean and deviation over neurons of how much of a neuron's noise is the population's: the loading of one state."""

SIZES = {"train_images": 1800, "neurons": 40, "dogs": 0, "noise": 2.5}
"""What :func:`write_twin` takes by default."""


def twin_folder(seed: int, sizes: dict[str, float]) -> str:
    """A twin's folder: ``seed_0``, with the sizes that are not the default's, so that jobs beside each other differ.

    Raises:
        ConfigError: a key that is none of :data:`SIZES`.
    """
    if unknown := set(sizes) - set(SIZES):
        raise ConfigError(f"data.twin has the unknown keys {sorted(unknown)}; it takes {', '.join(SIZES)}")
    return "_".join([f"seed_{seed}", *(f"{k}-{sizes[k]:g}" for k in SIZES if sizes.get(k, SIZES[k]) != SIZES[k])])


def write_twin(root: str | Path, regions: Sequence[int], *, seed: int = 0, **sizes: float) -> Path:
    """Write simulated regions, or find the very ones that an earlier call has written.

    Args:
        root: the files go to ``<root>/antolik2016/region<k>/``.
        regions: which of 1, 2 and 3; each is the same whether written alone or with others.
        seed: the same seed and arguments give the same content.
        sizes: :data:`SIZES` and what differs from them. ``train_images`` and ``neurons`` of region 1, the others have
            the recordings' share of them; ``dogs``, planted difference-of-Gaussians units of each region, 0 for neurons
            that are no HSM; ``noise``, standard deviation of a response, before the cut at zero, in units of the square
            root of its drive. At 2.5 the fraction of explainable variance is about the recordings', 0.2; below 1 it is
            most of it.

    Returns:
        The folder ``<root>/antolik2016``.

    Raises:
        ConfigError: a size that no twin can have, or no such region.
        DataError: the folder cannot be written to.
    """
    size = SIZES | sizes
    possible = size["train_images"] >= 20 and size["neurons"] >= 2 and 0 <= size["dogs"] <= 9 and size["noise"] >= 0
    if not possible or not set(regions) <= set(REPEATS):
        raise ConfigError(
            "a twin of antolik_v1 has regions of 1, 2 and 3, data.twin.train_images >= 20, neurons >= 2, dogs from 0 "
            f"to 9 and noise >= 0, not {list(regions)} and {size}"
        )
    folder = Path(root).expanduser() / "antolik2016"
    for region in regions:
        recipe = {"twin": VERSION, "region": region, "seed": seed, **size, "noise": float(size["noise"])}
        write_twin_files(folder / f"region{region}", recipe, partial(simulate_region, recipe))
    return folder


def simulate_region(recipe: dict) -> tuple[dict[str, Save], dict[str, np.ndarray]]:
    """A region's files and its truth.

    Args:
        recipe: the arguments of :func:`write_twin` and ``region``.

    Returns:
        ``(files, truth)``, what writes each file by its name, and arrays by name; ``truth["cells"]`` is the table of
        the cells, or ``truth["dog"]`` (K, 6): [mx, my, s1, s2, a1, a2] of :func:`dog_filters`, for images that are
        z-scored by the training images' mean and standard deviation.
    """
    region, seed = recipe["region"], recipe["seed"]
    share_images, share_neurons = SHARE[region]
    n_train = max(20, round(share_images * recipe["train_images"]))
    rng = np.random.default_rng([seed, 10 + region])
    train = natural_images(rng, n_train)
    test = natural_images(np.random.default_rng([seed, ANIMAL[region]]), N_TEST)
    images = (np.concatenate([train, test]) - train.mean()) / train.std()
    n_neurons, noise = max(2, round(share_neurons * recipe["neurons"])), recipe["noise"]
    if recipe["dogs"]:
        model, drive = _plant(rng, images, n_train, n_neurons, recipe["dogs"])
    else:
        model = {"cells": cells.draw_cells(rng, n_neurons)}
        drive = cells.drives(rng, images, model["cells"])
    drive *= _gain(drive[:n_train], noise, rng.lognormal(np.log(0.57), 0.25, drive.shape[1]))
    shared = np.clip(rng.normal(*SHARED, n_neurons), 0, 0.9)
    strength = 0.0 if recipe["dogs"] else STRENGTH  # an HSM has no memory
    factors = adaptation(drive[:n_train], strength)  # the rows are the order in which the images were shown
    means = mean_over_histories(lambda history: rectified_mean(drive * history, noise), factors)
    trained = _respond(rng, drive[:n_train] * factors, noise, shared)
    raw = np.stack(
        [_respond(rng, _shuffled(rng, drive[n_train:], strength), noise, shared) for _ in range(REPEATS[region])]
    )
    files = {
        "training_inputs": train * GREY,
        "training_set": trained,
        "validation_inputs": test * GREY,
        "validation_set": raw.mean(0),
        "raw_validation_set": raw,
    }
    saves = {f"{name}.npy": partial(np.save, arr=values) for name, values in files.items()}
    saves["../README"] = lambda part: part.write_text(README)
    return saves, {**model, "training_means": means[:n_train], "validation_means": means[n_train:]}


def natural_images(rng: np.random.Generator, n: int) -> np.ndarray:
    """Patches of noise with the spectrum of natural images, of different brightness and contrast.

    Returns:
        (n, 961) whole grey levels 0 to 255, float64.
    """
    size = 2 * SIDE + 2  # a patch of a larger field does not wrap around
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    amplitude = np.maximum(frequency, 1 / size) ** -SPECTRUM
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(n, size, size))) * amplitude, s=(size, size))
    patch = field[:, :SIDE, :SIDE].reshape(n, -1)
    contrast = rng.uniform(0.6, 1.4, (n, 1))
    return np.clip(np.round(118 + 78 * contrast * patch / field.std()), 0, 255)


def dog_filters(dog: np.ndarray) -> np.ndarray:
    """Differences of Gaussians as Antolik et al. (2016) have them: shared centre, the surround's variance is s1 + s2.

    Args:
        dog: (K, 6) [mx, my, s1, s2, a1, a2]: centre (column, row) in pixels from 0 to 30, variances in pixels squared,
            amplitudes.

    Returns:
        (K, 961), row by row.
    """
    mx, my, s1, s2, a1, a2 = (column[:, None, None] for column in dog.T)
    y, x = np.mgrid[:SIDE, :SIDE][:, None]
    squared = (x - mx) ** 2 + (y - my) ** 2
    centre = a1 / (2 * np.pi * s1) * np.exp(-squared / (2 * s1))
    surround = a2 / (2 * np.pi * (s1 + s2)) * np.exp(-squared / (2 * (s1 + s2)))
    return (centre - surround).reshape(len(dog), -1)


def rectified_mean(drive: np.ndarray, noise: float) -> np.ndarray:
    """Mean of a normal variable with mean ``drive`` and deviation ``noise * sqrt(drive)`` that is cut at zero."""
    from scipy.special import ndtr

    sd = np.maximum(noise * np.sqrt(drive), 1e-12)
    z = drive / sd
    return drive * ndtr(z) + sd * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _plant(
    rng: np.random.Generator, images: np.ndarray, n_train: int, n_neurons: int, n_dogs: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw the model and let it see all images: ``(parameters, drive)``, the drive (B, N) not yet scaled."""
    dog = _draw_dogs(rng, n_dogs)
    gain = 1 / (images[:n_train] @ dog_filters(dog).T).std(0)  # each unit's output has variance 1
    dog[:, 4:] *= gain[:, None]
    lgn = images @ dog_filters(dog).T
    n_hidden = 2 * n_dogs
    # of every unit one hidden neuron sees the increments and one the decrements, beside a little of the others
    w1 = rng.normal(0, 0.3, (n_dogs, n_hidden))
    w1[np.arange(n_hidden) // 2, np.arange(n_hidden)] = np.where(np.arange(n_hidden) % 2, -1.5, 1.5)
    t1 = rng.uniform(0.5, 1.5, n_hidden)
    hidden = np.logaddexp(0, lgn @ w1 - t1)
    w2 = rng.gamma(2, 1, (n_hidden, n_neurons)) * (rng.random((n_hidden, n_neurons)) < 2 / n_hidden)
    w2[rng.permutation(np.arange(n_neurons) % n_hidden), np.arange(n_neurons)] += 2.5
    summed = hidden @ w2
    w2 *= 2.5 * rng.lognormal(0, 0.35, n_neurons) / summed[:n_train].std(0)  # how selective a neuron is
    summed = hidden @ w2
    t2 = np.quantile(summed[:n_train], 0.6, axis=0)  # most images drive a neuron little
    model = {"dog": dog, "w1": w1, "t1": t1, "w2": w2, "t2": t2}
    return model, np.logaddexp(0, summed - t2)


def _draw_dogs(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 6) units with centres on a jittered 3 x 3 grid, so that none hides behind another."""
    cells = rng.permutation(9)[:n]
    centre = 15 + 7.5 * np.column_stack([cells % 3 - 1, cells // 3 - 1]) + rng.uniform(-1.5, 1.5, (n, 2))
    variances = np.column_stack([rng.uniform(2, 5, n), rng.uniform(6, 14, n)])
    amplitudes = np.column_stack([np.ones(n), rng.uniform(0.75, 1.0, n)])
    return np.column_stack([centre, variances, amplitudes])


def _gain(drive: np.ndarray, noise: float, target: np.ndarray) -> np.ndarray:
    """(N,) factors of the drive (B, N) that make the mean responses ``target``, by bisection."""
    low, high = np.full(len(target), -12.0), np.full(len(target), 12.0)
    for _ in range(40):
        middle = (low + high) / 2
        above = rectified_mean(drive * np.exp(middle), noise).mean(0) > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.exp(low)


def _shuffled(rng: np.random.Generator, drive: np.ndarray, strength: float) -> np.ndarray:
    """(B, N) drives of images that are shown once each in an order that is drawn, after adaptation."""
    order, adapted = rng.permutation(len(drive)), drive.copy()
    adapted[order] *= adaptation(drive[order], strength)
    return adapted


def _respond(rng: np.random.Generator, drive: np.ndarray, noise: float, shared: np.ndarray) -> np.ndarray:
    """(B, N) responses; ``shared`` (N,) is how much of each neuron's noise is one state of the population."""
    own = rng.normal(size=drive.shape)
    common = rng.normal(size=(len(drive), 1))
    return np.maximum(0, drive + noise * np.sqrt(drive) * (np.sqrt(1 - shared**2) * own + shared * common))
