"""What simulated neurons of mouse V1 make of images: mixtures of simple and complex cells with divisive normalisation.

Two stages, each linear, nonlinear and divided by the activity around it (LNLN). The first one holds, for each neuron,
a simple cell (a rectified Gabor filter) and a complex cell (the energy of a quadrature pair, averaged over three
neighbouring places, so that neither phase nor exact position counts), both divided by the local contrast. In the
second one a neuron mixes its own pair with a few others' and is divided by the whole population's activity. None of
the models is of this kind.
"""

from __future__ import annotations

import numpy as np

from neuro_lightning.data.antolik.files import SIDE

CELLS = ("row", "column", "orientation", "wavelength", "width", "phase", "complexity")
"""Columns of the table of the first stage's cells: pixels, radians, and the share of the complex cell."""


def draw_cells(rng: np.random.Generator, n_neurons: int) -> np.ndarray:
    """(N, 7) receptive fields and complexity, see :data:`CELLS`: wide and of low frequency, as in mice."""
    return np.column_stack([
        np.clip(rng.normal(15, 3, (n_neurons, 2)), 6, 24),
        rng.uniform(0, np.pi, n_neurons),
        rng.uniform(9, 18, n_neurons),
        rng.uniform(3, 5, n_neurons),
        rng.uniform(0, 2 * np.pi, n_neurons),
        rng.beta(1.2, 0.8, n_neurons),
    ])  # fmt: skip


def drives(rng: np.random.Generator, images: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How strongly each image drives each neuron, before noise; not scaled.

    Args:
        rng: draws who is mixed with whom.
        images: (B, 961), z-scored.
        cells: (N, 7) see :data:`CELLS`.

    Returns:
        (B, N), never negative; most images drive a neuron little.
    """
    simple, complex_ = first_stage(images, cells)
    share = cells[:, 6]
    own = (1 - share) * simple / simple.mean(0) + share * complex_ / complex_.mean(0)
    n = len(cells)
    weights = np.eye(n) + rng.normal(0, 0.35, (n, n)) * (rng.random((n, n)) < min(1.0, 4 / n))
    mixed = np.maximum(own @ weights, 0) ** 1.5
    mixed /= mixed.mean(0)
    pooled = mixed.mean(1, keepdims=True)
    divided = mixed / (1 + pooled)
    divided /= divided.std(0)
    return np.logaddexp(0, 3 * (divided - np.quantile(divided, 0.6, axis=0)))


def first_stage(images: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Simple and complex cells' activity, (B, N) each, divided by the contrast around them."""
    simple = np.maximum(images @ gabors(cells, 0.0).T, 0)
    energy = 0.0
    for shift in (-3.0, 0.0, 3.0):  # pixels across the stripes
        moved = cells.copy()
        moved[:, 0] += shift * np.sin(cells[:, 2])
        moved[:, 1] += shift * np.cos(cells[:, 2])
        energy = energy + np.hypot(images @ gabors(moved, 0.0).T, images @ gabors(moved, np.pi / 2).T) / 3
    around = np.sqrt(images**2 @ windows(cells, 2.0).T)
    return simple / (0.3 + around), energy / (0.3 + around)


def gabors(cells: np.ndarray, shift: float) -> np.ndarray:
    """(N, 961) Gabor filters of unit norm, their phase moved by ``shift`` radians."""
    y, x = np.mgrid[:SIDE, :SIDE].reshape(2, 1, -1)
    row, column, angle, wavelength, _, phase, _ = cells.T[..., None]
    along = np.cos(angle) * (x - column) + np.sin(angle) * (y - row)
    filters = windows(cells) * np.cos(2 * np.pi * along / wavelength + phase + shift)
    filters -= windows(cells) * filters.sum(1, keepdims=True)  # grey drives nobody
    return filters / np.linalg.norm(filters, axis=1, keepdims=True)


def windows(cells: np.ndarray, wider: float = 1.0) -> np.ndarray:
    """(N, 961) Gaussian windows on the receptive fields, which sum to 1."""
    y, x = np.mgrid[:SIDE, :SIDE].reshape(2, 1, -1)
    row, column, width = cells[:, 0, None], cells[:, 1, None], wider * cells[:, 4, None]
    window = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))
    return window / window.sum(1, keepdims=True)
