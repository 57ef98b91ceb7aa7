"""Ridge regression and its cross-validated search over penalties, from sums.

Least squares needs one matrix of its data: the Gram matrix of the rows ``[1, x, y]``. Gram matrices
of disjoint rows add up, so they can be accumulated over batches and processes, and the training rows of a
cross-validation fold are ``total - fold``. One eigendecomposition of the centered ``x`` block then gives the weights
for every penalty at once. The result is the one of scikit-learn's ``GridSearchCV(Ridge())``, about two orders of
magnitude faster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional.correlation import r2_from_sums

N_FOLDS = 5
ALPHAS = tuple(10 ** (k / 2 - 4) for k in range(9))
"""The penalties that the benchmark searches: 1e-4 to 1, two a decade."""


class Ridge(NamedTuple):
    """A fitted linear map ``y = x @ weight + bias``; leading axes (one per penalty, say) are allowed.

    Attributes:
        weight: (..., P, K).
        bias: (..., K).
    """

    weight: Tensor
    bias: Tensor


def gram(x: Tensor, y: Tensor) -> Tensor:
    """The Gram matrix of the rows ``[1, x, y]`` in float64.

    Subtract a constant near the mean from ``x`` and ``y`` beforehand to keep digits where the mean is large
    against the spread; predictions are then those of the shifted ``y``.

    Args:
        x: (n, P) predictors.
        y: (n, K) targets.

    Returns:
        (D, D) with D = 1 + P + K.
    """
    rows = torch.cat([x.new_ones(len(x), 1, dtype=torch.float64), x.double(), y.double()], dim=1)
    return rows.T @ rows


def fold_grams(x: Tensor, y: Tensor, fold: Tensor, n_folds: int = N_FOLDS) -> Tensor:
    """A Gram matrix for each cross-validation fold.

    Args:
        x: (n, P) predictors.
        y: (n, K) targets.
        fold: (n,) integer, the fold of each row; rows with -1 are left out, whatever they hold.
        n_folds: number of folds.

    Returns:
        (n_folds, D, D) with D = 1 + P + K.
    """
    size = 1 + x.shape[1] + y.shape[1]
    grams = x.new_zeros(n_folds, size, size, dtype=torch.float64)
    for k in fold[fold >= 0].unique().tolist():
        rows = fold == k
        grams[k] = gram(x[rows], y[rows])
    return grams


def contiguous_folds(used: Tensor, n_folds: int = N_FOLDS) -> Tensor:
    """Numbers the used rows 0 to ``n_folds - 1`` in contiguous blocks, as ``sklearn.model_selection.KFold``.

    Args:
        used: (...) bool, the rows that take part, in their order when flattened.
        n_folds: number of folds.

    Returns:
        (...) int8, -1 where not used.

    Example:
        >>> contiguous_folds(torch.tensor([True, True, False, True, True]), n_folds=2)
        tensor([ 0,  0, -1,  1,  1], dtype=torch.int8)
    """
    order = used.flatten().long().cumsum(0) - 1
    size, longer = divmod(int(used.sum()), n_folds)
    head = longer * (size + 1)  # the first folds take one row more
    fold = torch.where(order < head, order // (size + 1), longer + (order - head) // max(size, 1))
    return torch.where(used.flatten(), fold, -1).to(torch.int8).view(used.shape)


def decode_folds(behavior: Tensor, decode_mask: Tensor | None = None, n_folds: int = N_FOLDS) -> Tensor:
    """The cross-validation fold of each bin in the benchmark's velocity decoding, one column per group of trials.

    A bin takes part when its trial is in the group and all its behavior channels are known: the
    benchmark looks at the first, and its channels are unknown together.

    Args:
        behavior: (B, T, K), NaN where unknown.
        decode_mask: (B, M) bool, the groups of trials decoded apart; None means one group with every trial.
        n_folds: number of folds.

    Returns:
        (B, T, M) int8, -1 where the bin takes no part: what ``Batch`` calls ``decode_fold``.
    """
    known = behavior.isfinite().all(-1)
    if decode_mask is None:
        decode_mask = known.new_ones(len(behavior), 1)
    groups = [contiguous_folds(known & member[:, None], n_folds) for member in decode_mask.bool().T]
    return torch.stack(groups, dim=-1)


def ridge_fit(gram: Tensor, n_outputs: int, alphas: Tensor) -> Ridge:
    """Fits one ridge regression per penalty, with an intercept that is not penalized.

    Args:
        gram: (D, D) Gram matrix of the training rows, D = 1 + P + K.
        n_outputs: K.
        alphas: (A,) penalties.

    Returns:
        Weights (A, P, K) and biases (A, K).
    """
    xx, xy, _, x_mean, y_mean = _centered(gram, n_outputs)
    values, vectors = torch.linalg.eigh(xx)
    scaled = (vectors.T @ xy) / (values.clamp(min=0)[:, None] + alphas[:, None, None])
    weight = vectors @ scaled
    return Ridge(weight, y_mean - x_mean @ weight)


def ridge_r2(gram: Tensor, fit: Ridge) -> Tensor:
    """R2 of fitted ridge regressions on other rows, averaged over outputs with equal weight.

    Args:
        gram: (D, D) Gram matrix of the rows to predict.
        fit: weights (..., P, K) and biases (..., K).

    Returns:
        (...) R2; NaN for fewer than two rows.
    """
    n_outputs = fit.weight.shape[-1]
    xx, xy, yy, x_mean, y_mean = _centered(gram, n_outputs)
    offset = y_mean - x_mean @ fit.weight - fit.bias
    spread = yy - 2 * (fit.weight * xy).sum(-2) + (fit.weight * (xx @ fit.weight)).sum(-2)
    residual = (spread + gram[0, 0] * offset.square()).clamp(min=0)
    r2 = r2_from_sums(residual, yy.expand_as(residual), gram.diagonal()[-n_outputs:].expand_as(residual)).mean(-1)
    return torch.where(gram[0, 0] >= 2, r2, torch.nan)


def ridge_search(fold_grams: Tensor, n_outputs: int, alphas: tuple[float, ...] = ALPHAS) -> tuple[Ridge, Tensor]:
    """Chooses the penalty by cross-validated R2 and fits it on all rows, as ``GridSearchCV(Ridge(), ...)``.

    The mean of the folds' R2 decides; of equal scores the first penalty wins, and a score that is not a number loses.

    Args:
        fold_grams: (folds, D, D) Gram matrices, D = 1 + P + K.
        n_outputs: K.
        alphas: the penalties tried.

    Returns:
        The fit on all rows (weight (P, K), bias (K,)) and the mean score (A,) of each penalty. Weights are NaN where
        there are fewer rows than folds or the sums are not finite.
    """
    total = fold_grams.sum(0)
    grid = torch.tensor(alphas, dtype=total.dtype, device=total.device)
    if total[0, 0] < len(fold_grams) or not total.isfinite().all():
        width = total.shape[0] - 1 - n_outputs
        weight = total.new_full((width, n_outputs), torch.nan)
        return Ridge(weight, weight.new_full((n_outputs,), torch.nan)), torch.full_like(grid, torch.nan)
    scores = torch.stack([ridge_r2(fold, ridge_fit(total - fold, n_outputs, grid)) for fold in fold_grams]).mean(0)
    best = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argmax()
    fit = ridge_fit(total, n_outputs, grid[best, None])
    return Ridge(fit.weight[0], fit.bias[0]), scores


def _centered(gram: Tensor, n_outputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centered ``xx`` (P, P), ``xy`` (P, K), the diagonal of ``yy`` (K,), and the means of x (P,) and y (K,)."""
    mean = gram[0, 1:] / gram[0, 0].clamp(min=1)
    centered = gram[1:, 1:] - gram[0, 0] * mean.outer(mean)
    x, y = slice(None, -n_outputs), slice(-n_outputs, None)
    return centered[x, x], centered[x, y], centered[y, y].diagonal().clamp(min=0), mean[x], mean[y]
