"""Simulated recordings in files of arrays, with the truth behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.synthetic.simulate import Sizes, simulate_lorenz
from neuro_lightning.data.twin_files import write_twin_files

VERSIONS = {"spikes": 1, "traces": 2, "images": 2}
"""Raised whenever a seed gives other content than before, so that older files are written anew."""


def write_twin(root: str | Path, kind: str, seed: int) -> Path:
    """The twin of one kind of file, written where it is not there yet.

    Args:
        root: the folder of data; twins lie in ``simulated/arrays`` below it.
        kind: ``spikes``, ``traces`` or ``images``.
        seed: of the simulation.
    """
    make = {"spikes": simulated_spikes, "traces": simulated_traces, "images": simulated_images}[kind]
    folder, name = Path(root) / "simulated" / "arrays" / f"{kind}_seed_{seed}", f"{kind}.npz"
    recipe = {"twin": VERSIONS[kind], "kind": kind, "seed": seed}

    def save(path: Path) -> None:
        with path.open("wb") as file:  # numpy would put .npz after another name
            np.savez_compressed(file, **make(seed))

    return write_twin_files(folder, recipe, lambda: ({name: save}, {})) / name


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
    """dF/F of neurons that follow four slow rhythms, with the calcium's decay, private noise, and a gain that drifts.

    dF/F is measured from the 20th percentile of the fluorescence, as is usual, so that much of it lies below zero.
    """
    rng = np.random.default_rng([seed, 4])
    time = np.arange(n_frames)[:, None] * bin_ms / 1000
    latents = np.sin(2 * np.pi * time * rng.uniform(0.02, 0.2, 4) + rng.uniform(0, 6, 4) + np.sin(time / 7))
    drive = np.logaddexp(0, 2 * latents @ rng.normal(0, 0.7, (4, n_neurons))).T
    drive *= np.exp(np.linspace(-1, 1, n_frames) * rng.normal(0, 0.25, (n_neurons, 1)))
    rates, decay = np.empty_like(drive), np.exp(-bin_ms / 500)
    level = drive.mean(1)
    for frame in range(n_frames):
        level = decay * level + (1 - decay) * drive[:, frame]
        rates[:, frame] = level
    rates -= np.quantile(rates, 0.2, axis=1, keepdims=True)
    traces = rates + 0.3 * rng.normal(size=rates.shape)
    return {
        "traces": traces.astype(np.float32),
        "behavior": latents[:, :2].astype(np.float32),
        "bin_ms": np.array(bin_ms),
        "rates": rates.astype(np.float32),
    }


def simulated_images(seed: int, n_images: int = 600, n_neurons: int = 20, side: int = 16) -> dict[str, np.ndarray]:
    """Smooth random images, each shown three times to neurons between simple and complex, divided by the contrast."""
    rng = np.random.default_rng([seed, 5])
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(rng.normal(size=(n_images, side, side))) / (frequency + 1 / side)
    images = np.fft.ifft2(spectrum).real
    images = (images - images.mean()) / images.std()
    y, x = np.mgrid[:side, :side]
    row, column, angle, phase = rng.uniform((0.3, 0.3, 0, 0), (0.7, 0.7, 3.1, 6.3), (n_neurons, 4)).T[..., None, None]
    row, column = side * row, side * column
    window = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * (side / 6) ** 2))
    along = 2 * np.pi * (np.cos(angle) * (x - column) + np.sin(angle) * (y - row)) / (side / 2) + phase
    even, odd = (np.einsum("bhw,nhw->bn", images, window * wave(along)) for wave in (np.cos, np.sin))
    share = rng.uniform(0, 1, n_neurons)
    drive = (1 - share) * np.maximum(even, 0) + share * np.hypot(even, odd)
    around = np.sqrt(np.einsum("bhw,nhw->bn", images**2, window))
    drive /= 0.5 * around.mean() + around
    rates = 2 * drive / drive.mean(0)
    responses = rng.poisson(rates[:, None], (n_images, 3, n_neurons))
    return {
        "images": images.astype(np.float32),
        "responses": responses.astype(np.float32),
        "rates": rates.astype(np.float32),
    }
