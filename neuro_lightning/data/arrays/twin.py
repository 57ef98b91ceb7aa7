"""Simulated recordings in files of arrays, with the truth behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.arrays.files import save_arrays
from neuro_lightning.data.synthetic.simulate import Sizes, simulate_lorenz

VERSION = 1
"""Raised whenever a seed gives other content than before, so that older files are written anew."""


def write_twin(root: str | Path, kind: str, seed: int) -> Path:
    """The twin of one kind of file, written where it is not there yet.

    Args:
        root: the folder of data; twins lie in ``simulated/arrays`` below it.
        kind: ``spikes``, ``traces`` or ``images``.
        seed: of the simulation.
    """
    path = Path(root) / "simulated" / "arrays" / f"{kind}_seed_{seed}_v{VERSION}.npz"
    if not path.is_file():
        make = {"spikes": simulated_spikes, "traces": simulated_traces, "images": simulated_images}[kind]
        save_arrays(path, make(seed))
    return path


def simulated_spikes(seed: int, sizes: Sizes | None = None) -> dict[str, np.ndarray]:
    """Spike counts driven by the Lorenz attractor, with velocity, conditions, splits, start times and true rates."""
    sizes = sizes or Sizes(n_train=160, n_val=40, n_test=40, n_conditions=20, n_in=30, n_out=10, n_bins=40, bin_ms=20)
    recording = simulate_lorenz(sizes, step=0.06, seed=seed)
    parts = recording.splits
    split = np.repeat(list(parts), [len(part) for part in parts.values()])
    shuffled = np.random.default_rng([seed, 3]).permutation(len(split))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts.values()])[shuffled]

    counts = np.concatenate([joined("heldin"), joined("heldout")], axis=2)
    return {
        "counts": counts,
        "behavior": joined("behavior").astype(np.float32),
        "condition": joined("condition"),
        "split": split[shuffled],
        "times": np.arange(len(split)) * (sizes.n_bins * sizes.bin_ms / 1000 + 0.5),
        "bin_ms": np.array(sizes.bin_ms),
        "rates": joined("rates"),
    }


def simulated_traces(seed: int, n_neurons: int = 40, n_frames: int = 4000, bin_ms: int = 100) -> dict[str, np.ndarray]:
    """dF/F of neurons that follow four slow rhythms, with the calcium's decay and private noise."""
    rng = np.random.default_rng([seed, 4])
    time = np.arange(n_frames)[:, None] * bin_ms / 1000
    latents = np.sin(2 * np.pi * time * rng.uniform(0.02, 0.2, 4) + rng.uniform(0, 6, 4) + np.sin(time / 7))
    drive = np.exp(latents @ rng.normal(0, 0.5, (4, n_neurons))).T
    rates, decay = np.empty_like(drive), np.exp(-bin_ms / 500)
    level = drive.mean(1)
    for frame in range(n_frames):
        level = decay * level + (1 - decay) * drive[:, frame]
        rates[:, frame] = level
    traces = rates + 0.3 * rng.normal(size=rates.shape)
    return {
        "traces": traces.astype(np.float32),
        "behavior": latents[:, :2].astype(np.float32),
        "bin_ms": np.array(bin_ms),
        "rates": rates.astype(np.float32),
    }


def simulated_images(seed: int, n_images: int = 600, n_neurons: int = 20, side: int = 16) -> dict[str, np.ndarray]:
    """Smooth random images, each shown three times to neurons with a linear filter and a softplus."""
    rng = np.random.default_rng([seed, 5])
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(rng.normal(size=(n_images, side, side))) / (frequency + 1 / side)
    images = np.fft.ifft2(spectrum).real
    images = (images - images.mean()) / images.std()
    y, x = np.mgrid[:side, :side]
    center, width = rng.uniform(0.3 * side, 0.7 * side, (n_neurons, 2, 1, 1)), side / 8
    distance = (y - center[:, 0]) ** 2 + (x - center[:, 1]) ** 2
    filters = np.exp(-distance / (2 * width**2)) - 0.5 * np.exp(-distance / (4 * width**2))
    drive = np.einsum("bhw,nhw->bn", images, filters)
    rates = np.log1p(np.exp(2 * drive / drive.std(0)))
    responses = rng.poisson(rates[:, None], (n_images, 3, n_neurons))
    return {
        "images": images.astype(np.float32),
        "responses": responses.astype(np.float32),
        "rates": rates.astype(np.float32),
    }
