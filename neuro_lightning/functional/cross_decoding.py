"""How well the latents of one model are read from those of another.

What several good models find in the same trials is likely to be in the data; what one of them alone has is likely its
own invention. Latents that the others decode badly hold such extraneous dynamics.

Source: Dabholkar and Barak 2025, PLoS Computational Biology, doi 10.1371/journal.pcbi.1013789 (cross-decoding).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.functional.ridge import contiguous_folds, fold_grams, ridge_search

ALPHAS = tuple(10.0**k for k in range(-4, 4))
"""Penalties that are searched, for latents of unit variance and a thousand rows or more."""


def cross_decoding(train: Sequence[Tensor], evaluated: Sequence[Tensor]) -> Tensor:
    """R2 with which each model's latents are decoded from each other's by ridge regression.

    The penalty is chosen by cross-validation within the training rows. R2 is over all latents of a model together, so
    that a latent counts by its variance.

    Args:
        train: (R, D_i) latents of each of M models in the same training bins.
        evaluated: (S, D_i) the same in the same evaluated bins.

    Returns:
        (M, M) float64: row i, column j has model j's latents decoded from model i's. A latent that is constant says
        nothing; a model with only such ones has NaN in its column.
    """
    scaled = [_scaled(one, other) for one, other in zip(train, evaluated, strict=True)]
    folds = contiguous_folds(torch.ones(len(train[0]), dtype=torch.bool))
    table = torch.full((len(train), len(train)), torch.nan, dtype=torch.float64)
    for i, (x, x_new) in enumerate(scaled):
        for j, (y, y_new) in enumerate(scaled):
            fit, _ = ridge_search(fold_grams(x, y, folds), y.shape[1], ALPHAS)
            residual = (y_new - x_new @ fit.weight - fit.bias).square().sum()
            spread = (y_new - y_new.mean(0)).square().sum()
            if spread > 0:
                table[i, j] = 1 - residual / spread
    return table


def _scaled(train: Tensor, evaluated: Tensor) -> tuple[Tensor, Tensor]:
    """Latents in float64, centered, and scaled by one number: their relative variances stay."""
    train, evaluated = train.double(), evaluated.double()
    center = train.mean(0)
    scale = (train - center).square().mean().sqrt().clamp_min(1e-12)
    return (train - center) / scale, (evaluated - center) / scale
