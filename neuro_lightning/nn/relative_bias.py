"""A learned bias of attention scores by distance, for each head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """Scores that are added to those of the attention, one for each head and distance.

    They begin as ``-|distance| / reach``: an untrained head, whose queries and keys are uninformative, is a smoother
    with exponential flanks, wide by its reach, and the heads together are a bank of smoothers, narrow to wide. From few
    trials a transformer with uniform attention would not learn this. The start is that of Press et al. 2022
    ("Train short, test long: attention with linear biases"), in both directions; that each distance then learns a score
    of its own is as in Raffel et al. 2020 (T5), without buckets.

    Args:
        n: positions L of the longest sequence.
        reaches: of each head, in steps, above 0.
    """

    def __init__(self, n: int, reaches: Sequence[float]) -> None:
        super().__init__()
        distance = torch.arange(1 - n, n).abs()
        self.table = nn.Parameter(-distance / torch.tensor(reaches, dtype=torch.float32)[:, None])

    def forward(self, n: int, allowed: Tensor | None = None) -> Tensor:
        """(heads, n, n) scores at [head, i, j] of looking from i to j, -inf where ``allowed`` (n, n) says False."""
        longest = (self.table.shape[1] + 1) // 2
        table = self.table[:, longest - n : longest + n - 1]
        scores = table.unfold(1, n, 1).flip(1)  # row i begins at the distance -i
        return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def rows_at(biases: Sequence[RelativeBias], at: Tensor, n: int) -> Tensor:
    """Scores of looking from the position ``at`` () alone in several layers, (layers, heads, 1, n)."""
    tables = torch.stack([bias.table for bias in biases])
    longest = (tables.shape[2] + 1) // 2
    return tables.index_select(2, torch.arange(longest - 1, longest - 1 + n, device=at.device) - at)[:, :, None]


def log_spaced(nearest: float, farthest: float, n: int) -> list[float]:
    """``n`` numbers from the nearest to the farthest, each the same factor above the one before it."""
    return [nearest * (farthest / nearest) ** (i / max(1, n - 1)) for i in range(n)]
