"""The penalties of NDN3 on a layer's weights, and group sparsity.

Weights are (U, F, H, W): U units, each reading F filters at H x W pixels. A penalty is a sum over units, not divided
by any size (repository NeuroTheoryUMD/NDN3; it is added unscaled to a loss of the order of the number of neurons).
NDN3 builds a matrix with a row and a column for every weight of a unit; these are the same numbers without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError


def l1(weight: Tensor) -> Tensor:
    """Sum of absolute weights."""
    return weight.abs().sum()


def l2(weight: Tensor) -> Tensor:
    """Half the sum of squares."""
    return 0.5 * weight.square().sum()


def laplacian(weight: Tensor) -> Tensor:
    """The five-point Laplacian of each filter, (U, F, H, W); beyond the edges weights count as zero, as in NDN3."""
    padded = F.pad(weight, (1, 1, 1, 1))
    around = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    return around - 4 * weight


def d2x(weight: Tensor) -> Tensor:
    """Sum of the squared Laplacian: weights that change smoothly from pixel to pixel cost little."""
    return laplacian(weight).square().sum()


def max_all(weight: Tensor) -> Tensor:
    """``w^2 . M w^2`` with M one everywhere but on the diagonal: any two weights of a unit compete."""
    return _pairwise_product(weight.square().flatten(1), 1)


def max_filt(weight: Tensor) -> Tensor:
    """The same between the filters at one pixel."""
    return _pairwise_product(weight.square(), 1)


def max_space(weight: Tensor) -> Tensor:
    """The same between the pixels of one filter."""
    return _pairwise_product(weight.square().flatten(2), 2)


def _pairwise_product(power: Tensor, dim: int) -> Tensor:
    """The sum over all ordered pairs of different entries along ``dim`` of their product."""
    return (power.sum(dim).square() - power.square().sum(dim)).sum()


def center(weight: Tensor) -> Tensor:
    """Squared weights times 0.01 of the squared distance (pixels) from the image's center."""
    y, x = (torch.arange(n, dtype=weight.dtype, device=weight.device) - (n - 1) / 2 for n in (weight.shape[2:]))
    return 0.01 * (weight.square() * (y.square()[:, None] + x.square())).sum()


def norm2(weight: Tensor) -> Tensor:
    """Squared difference between the sum of squares and the number of units: unit norm on average."""
    return (weight.square().sum() - len(weight)).square()


def group(weight: Tensor) -> Tensor:
    """Sum of the norms of each unit's filters: a unit should read few of them (Cadena et al. 2019)."""
    return (weight.square().sum((2, 3)) + 1e-12).sqrt().sum()


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": l1,
    "l2": l2,
    "d2x": d2x,
    "max": max_all,
    "max_filt": max_filt,
    "max_space": max_space,
    "center": center,
    "norm2": norm2,
    "group": group,
}
SPATIAL = ("d2x", "max_space", "center")


def nonzero_strengths(strengths: Mapping[str, float] | None) -> dict[str, float]:
    """The penalties that are not zero.

    Raises:
        ConfigError: an unknown name or a negative strength.
    """
    for name, strength in (strengths or {}).items():
        if name not in PENALTIES:
            raise ConfigError(f"reg.{name}: no such penalty; there are {', '.join(PENALTIES)}")
        if strength is not None and not strength >= 0:
            raise ConfigError(f"reg.{name}={strength} must not be negative")
    return {name: float(strength) for name, strength in (strengths or {}).items() if strength}


def penalties(weight: Tensor, strengths: Mapping[str, float]) -> dict[str, Tensor]:
    """Each penalty of a weight (U, F, H, W), times its strength."""
    return {name: strength * PENALTIES[name](weight) for name, strength in strengths.items()}
