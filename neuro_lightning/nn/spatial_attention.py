"""Attention between neurons, by the time courses of their activity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.nn.attention import ACTIVATIONS, EncoderLayer
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.relative_bias import RelativeBias


class SpatialAttention(nn.Module):
    """How much each channel attends to each other one, the mean over heads.

    It is multi-head attention without values: only the weights are computed.

    Args:
        n_steps: steps S of a channel's time course.
        heads: of the attention; where they do not divide the steps, queries and keys are a little longer.
    """

    def __init__(self, n_steps: int, heads: int) -> None:
        super().__init__()
        self.heads, width = heads, -(-n_steps // heads) * heads
        self.query_key = nn.Linear(n_steps, 2 * width)
        nn.init.xavier_uniform_(self.query_key.weight)
        nn.init.zeros_(self.query_key.bias)

    def forward(self, courses: Tensor) -> Tensor:
        """(..., D, S) time courses -> (..., D, D) weights, each row of which sums to one."""
        query, key = self._project(courses)
        return (query / key.shape[-1] ** 0.5 @ key.mT).softmax(-1).mean(-3)

    def mix(self, courses: Tensor, values: Tensor) -> Tensor:
        """Values (B, S, D) mixed by the weights of each step, of the time courses (B, S, D, S) that it has.

        There are many such weights, which the fused kernel does not write down; it wants values as wide as keys.
        """
        query, key = self._project(courses.flatten(0, 1))
        shown = F.pad(values.flatten(0, 1)[:, None, :, None], (0, key.shape[-1] - 1)).expand_as(key)
        mixed = F.scaled_dot_product_attention(query, key, shown)[..., 0].mean(1)
        return mixed.unflatten(0, values.shape[:2])

    def _project(self, courses: Tensor) -> Tensor:
        """(..., D, S) -> queries and keys, (2, ..., heads, D, d)."""
        return self.query_key(courses).unflatten(-1, (2, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)


def courses_so_far(x: Tensor) -> Tensor:
    """(B, S, D) -> (B, S, D, S) the time courses up to each step, with zeros after it."""
    steps = torch.arange(x.shape[1], device=x.device)
    return torch.where(steps <= steps[:, None, None], x.mT[:, None], 0.0)


class SpatiotemporalLayer(nn.Module):
    """Attention over time, then a mixing of channels by the similarity of their time courses.

    A pre-norm encoder layer, after it a second one whose attention is that between channels. As published, channels
    attend by what entered the layer, and the mixed ones are those of the sequence itself: there are no value weights.

    Where each step has time courses of its own, those up to it, the channels of a step attend by these.

    Args:
        width: channels D.
        n_steps: steps S.
        heads: of both attentions.
        feedforward: hidden units of each of the two dense blocks.
        dropout: see :class:`EncoderLayer`; the weights between channels are not dropped.
        activation: ``relu`` or ``gelu``.
        init_scale: see :class:`EncoderLayer`; of its weights alone, as published.
        bias: of the attention over time, see :class:`EncoderLayer`.
        attention_dropout: of the weights over time, where it is another.
    """

    def __init__(
        self,
        width: int,
        n_steps: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.0,
        *,
        activation: str = "relu",
        init_scale: float | None = None,
        bias: RelativeBias | None = None,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.temporal = EncoderLayer(
            width,
            heads,
            feedforward,
            dropout,
            activation=activation,
            init_scale=init_scale,
            bias=bias,
            attention_dropout=attention_dropout,
        )
        self.spatial = SpatialAttention(n_steps, heads)
        self.dense = nn.Sequential(
            nn.Linear(width, feedforward), ACTIVATIONS[activation](), Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.course_norm, self.mix_norm = nn.LayerNorm(n_steps), nn.LayerNorm(width)
        self.dense_norm, self.dropout = nn.LayerNorm(width), Dropout(dropout)

    def forward(self, x: Tensor, courses: Tensor, allowed: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            x: (B, S, D).
            courses: (B, D, S), the time courses by which channels attend to each other; or (B, S, D, S), those of each
                step.
            allowed: (S, S) bool, which steps see which; None is all.

        Returns:
            (B, S, D).
        """
        return self._mix(self.temporal(x, allowed), courses)

    def step(self, x: Tensor, courses: Tensor, cache: Tensor, here: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, D) and the time courses up to this step (B, D, S) -> (B, 1, D), and the cache of the attention."""
        x, cache = self.temporal.step(x, cache, here, scores)
        return self._mix(x, courses), cache

    def _mix(self, x: Tensor, courses: Tensor) -> Tensor:
        """The second half of the layer."""
        if courses.ndim == 3:
            mixed = self.mix_norm(x) @ self.spatial(self.course_norm(courses)).mT
        else:
            mixed = self.spatial.mix(self.course_norm(courses), self.mix_norm(x))
        x = x + self.dropout(mixed)
        return x + self.dropout(self.dense(self.dense_norm(x)))
