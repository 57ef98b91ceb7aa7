"""How many dimensions the variance of activity or latents fills."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ROWS = 2000


def variance_shares(values: Tensor, most_rows: int = MOST_ROWS) -> Tensor:
    """(D,) share of the variance on each principal component, largest first; it adds up to 1.

    Args:
        values: (..., D); rows with a NaN take no part.
        most_rows: of more rows so many are used, evenly spaced: the time that this takes stays small.

    Returns:
        float64; empty where nothing varies. With fewer rows than D there are as many shares as rows.
    """
    rows = values.flatten(0, -2)
    rows = rows[rows.isfinite().all(1)]
    if len(rows) > most_rows:
        rows = rows[torch.linspace(0, len(rows) - 1, most_rows).round().long()]
    if len(rows) < 2:
        return rows.new_zeros(0, dtype=torch.float64)
    rows = rows.double() - rows.double().mean(0)
    squares = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    variances = torch.linalg.eigvalsh(squares).flip(0).clamp_min(0)
    total = variances.sum()
    return variances / total if float(total) > 0 else variances[:0]
