"""Attention between neurons, by the time courses of their activity."""

from __future__ import annotations

from torch import Tensor, nn

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
        """(B, D, S) time courses -> (B, D, D) weights, each row of which sums to one."""
        query, key = self.query_key(courses).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return (query / key.shape[-1] ** 0.5 @ key.mT).softmax(3).mean(1)


class SpatiotemporalLayer(nn.Module):
    """Attention over time, then a mixing of channels by the similarity of their time courses.

    A pre-norm encoder layer, after it a second one whose attention is that between channels. As published, channels
    attend by what entered the layer, and the mixed ones are those of the sequence itself: there are no value weights.

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
            courses: (B, D, S), the time courses by which channels attend to each other.
            allowed: (S, S) bool, which steps see which; None is all.

        Returns:
            (B, S, D).
        """
        x = self.temporal(x, allowed)
        weights = self.spatial(self.course_norm(courses))
        x = x + self.dropout(self.mix_norm(x) @ weights.mT)
        return x + self.dropout(self.dense(self.dense_norm(x)))
