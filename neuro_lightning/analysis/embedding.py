"""UMAP of points that carry labels, with and without being shown the labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from neuro_lightning.errors import ConfigError


def umap_embedding(
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    n_neighbors: int = 60,
    min_dist: float = 0.1,
    seed: int = 0,
    n_epochs: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Two-dimensional UMAP fitted on some points; the others are placed afterwards, unlabelled.

    Args:
        train: (n, F).
        test: (m, F).
        labels: (n,) of the training points for a supervised embedding, which draws points of one label together
            whether or not they resemble each other: only the test points say anything. None leaves them out.
        n_neighbors: UMAP's; at most n - 1.
        min_dist: UMAP's.
        seed: UMAP's.
        n_epochs: of UMAP's optimization; None is its own choice.

    Returns:
        (n, 2) and (m, 2).

    Raises:
        ConfigError: umap-learn is not installed.
    """
    umap = _umap()
    with warnings.catch_warnings(), _threads_kept():
        warnings.simplefilter("ignore")  # of fewer jobs with a seed, of spectral starts
        model = umap.UMAP(
            n_neighbors=max(2, min(n_neighbors, len(train) - 1)), min_dist=min_dist, random_state=seed, n_jobs=1,
            n_epochs=n_epochs, init="spectral" if len(train) > 10 else "random",
        )  # fmt: skip
        placed = model.fit_transform(train, labels)
        return np.asarray(placed), np.asarray(model.transform(test)) if len(test) else np.zeros((0, 2))


@contextmanager
def _threads_kept() -> Iterator[None]:
    """The number of torch's threads stays: UMAP sets that of the whole process, and with it the last bit of sums."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _umap() -> Any:
    try:
        import umap
    except ImportError:
        raise ConfigError(
            "UMAP needs umap-learn: `pip install 'neuro_lightning[analysis]'`, or leave the pictures out with --no-umap"
        ) from None
    return umap
