"""R2 and Pearson's correlation with the conventions of the field's tools (scikit-learn's, SciPy's)."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 1e-13
"""Sums of squares below this share of the raw second moment are rounding errors of a zero."""


def variation(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Sum of squares about the mean, from accumulated sums; exactly 0 where it is nothing but rounding.

    Args:
        count: how many values.
        total: their sum.
        squares: sum of their squares.
    """
    about_mean = squares - total.square() / count.clamp_min(1)
    return torch.where(about_mean <= ROUNDING * squares, 0.0, about_mean)


def r2_from_sums(residual: Tensor, total: Tensor, moment: Tensor | None = None) -> Tensor:
    """R2 of each output from sums of squares, with scikit-learn's rules for targets that do not vary.

    A perfect prediction scores 1 even where the target is constant; any other prediction of a constant target scores 0.

    Args:
        residual: (K,) sum of squared differences between target and prediction.
        total: (K,) sum of squared differences between target and its mean.
        moment: (K,) sum of squared targets, needed where the other two came from accumulated sums: it says how large
            their rounding errors may be. None means that a zero is exact.

    Returns:
        (K,) R2, NaN where a sum is not finite.
    """
    if moment is not None:
        residual = torch.where(residual <= ROUNDING * moment, 0.0, residual)
        total = torch.where(total <= ROUNDING * moment, 0.0, total)
    constant = torch.where(residual == 0, 1.0, 0.0).to(residual)
    r2 = torch.where(total == 0, constant, 1 - residual / total)
    return torch.where(residual.isfinite() & total.isfinite(), r2, torch.nan)


def r2_score(target: Tensor, prediction: Tensor) -> Tensor:
    """R2, averaged over outputs with equal weight, as ``sklearn.metrics.r2_score``.

    Args:
        target: (n, K) observations.
        prediction: (n, K) predictions.

    Returns:
        A float64 scalar; NaN for fewer than two observations.

    Example:
        >>> r2_score(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [2.0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    target, prediction = target.double(), prediction.double()
    if len(target) < 2:
        return target.new_tensor(torch.nan)
    residual = (target - prediction).square().sum(0)
    total = (target - target.mean(0)).square().sum(0)
    return r2_from_sums(residual, total).mean()


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two vectors, as ``scipy.stats.pearsonr``.

    Args:
        x: (n,) values.
        y: (n,) values.

    Returns:
        A float64 scalar in [-1, 1]; NaN where it is undefined: fewer than two values, or a vector that does not vary.

    Example:
        >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])).round(decimals=3)
        tensor(-1., dtype=torch.float64)
    """
    x, y = x.double(), y.double()
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return x.new_tensor(torch.nan)
    x, y = x - x.mean(), y - y.mean()
    return ((x / x.norm()) @ (y / y.norm())).clamp(-1, 1)
