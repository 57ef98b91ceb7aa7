"""Transformer blocks over time: attention with a window of context, encoder layers, positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.relative_bias import RelativeBias

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
EXACT = (torch.float32, torch.float64)  # types in which torch's attention computes as it is written


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, through the fused kernel where it has what is needed.

    Args:
        width: channels D of the sequence.
        heads: they share the channels evenly.
        dropout: of the attention weights, in training.
        bias: what is added to the scores, (L, ``allowed``) -> (heads, L, L); None adds nothing.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, bias: RelativeBias | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"model.attention_heads={heads} does not divide the width, {width}: set it or model.width"
            )
        self.heads, self.dropout = heads, Dropout(dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = bias
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); position i sees j where ``allowed`` (L, L) says True at [i, j], None sees all."""
        q, k, v = self._project(x)
        mask = allowed if self.bias is None else self.bias(x.shape[1], allowed).to(q)
        stacked = not isinstance(self.dropout, Dropout)  # a stack's members draw for themselves, each at its own rate
        if self.training and self.dropout.p and (stacked or x.device.type == "cpu"):
            mixed = attend(q, k, v, mask, self.dropout)
        elif mask is not None and mask.requires_grad and x.device.type == "cpu" and q.dtype in EXACT:
            mixed = attend_with_bias(q, k, v, mask)
        else:
            dropout = self.dropout.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, cache: Tensor, here: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` says at one position, and the cache with that position in it.

        Args:
            x: (B, 1, D) the position.
            cache: (2, B, heads, L, d) keys and values of the positions before; what stands at later ones is not seen.
            here: (L, 1) bool, True at the position.
            scores: what is added to those of looking from it, (1 or heads, 1, L); -inf where nothing is seen.

        Returns:
            (B, 1, D), and the cache.
        """
        now = self._project(x)
        cache = torch.where(here, now[1:], cache)
        mixed = attend(now[0], cache[0], cache[1], scores, self.dropout)
        return self.out(mixed.transpose(1, 2).flatten(2)), cache

    def _project(self, x: Tensor) -> Tensor:
        """(B, L, D) -> queries, keys and values, (3, B, heads, L, d)."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: nn.Module) -> Tensor:
    """Attention written out, for CPUs, whose fused kernel has no dropout of the weights.

    Args:
        q: (B, heads, L, d) queries.
        k: keys.
        v: values.
        mask: (L, L) bool, what is seen; or scores that are added, (heads, L, L); or None.
        dropout: of the weights.
    """
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    if mask is not None and mask.dtype == torch.bool:
        mask = scores.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
    if mask is not None:
        scores = scores + mask
    return dropout(scores.softmax(-1)) @ v


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention with a bias that is learned, for CPUs, whose fused kernel has no gradient of it.

    It is to the bit what torch computes there, without the search for rows in which nothing is seen: that takes longer
    than the softmax. Each position sees itself at least, see :func:`context_mask`.

    Args:
        q: (B, heads, L, d) queries.
        k: keys.
        v: values.
        bias: scores that are added, (heads, L, L).
    """
    scale = math.sqrt(1 / math.sqrt(q.shape[-1]))
    return (q * scale @ (k.mT * scale) + bias).softmax(-1) @ v


class EncoderLayer(nn.Module):
    """Attention, then two dense layers, each beside a residual connection.

    Args:
        width: channels D.
        heads: of the attention.
        feedforward: units of the hidden dense layer.
        dropout: of hidden units, of what joins the residual stream, and of attention weights.
        pre_norm: normalise what enters a block; False normalises what leaves it, as the first transformers did.
        activation: ``relu`` or ``gelu``.
        init_scale: weights of the dense layers and of the attention's output begin as Xavier's times this; None
            leaves torch's own. Small values stand in for a warm-up (Huang et al. 2020, "T-Fixup").
        bias: of the attention, see :class:`SelfAttention`.
        attention_dropout: of attention weights, where it is another.

    Raises:
        ConfigError: the heads do not divide the width, or there is no such activation.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.0,
        *,
        pre_norm: bool = True,
        activation: str = "relu",
        init_scale: float | None = None,
        bias: RelativeBias | None = None,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"model.activation={activation}: there are {', '.join(ACTIVATIONS)}")
        self.pre_norm = pre_norm
        self.attention = SelfAttention(width, heads, dropout if attention_dropout is None else attention_dropout, bias)
        self.dense = nn.Sequential(
            nn.Linear(width, feedforward), ACTIVATIONS[activation](), Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.attention_norm, self.dense_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        if init_scale is not None:
            for layer in (self.attention.out, *self.dense):
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, gain=init_scale)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); see :class:`SelfAttention`."""
        return self._join(x, self.attention(self.attention_norm(x) if self.pre_norm else x, allowed))

    def step(self, x: Tensor, cache: Tensor, here: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, D) -> (B, 1, D), and the cache; see :meth:`SelfAttention.step`."""
        shown = self.attention_norm(x) if self.pre_norm else x
        mixed, cache = self.attention.step(shown, cache, here, scores)
        return self._join(x, mixed), cache

    def _join(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output, from its input and what the attention has made of it."""
        x = x + self.dropout(mixed)
        if self.pre_norm:
            return x + self.dropout(self.dense(self.dense_norm(x)))
        x = self.attention_norm(x)
        return self.dense_norm(x + self.dropout(self.dense(x)))


def round_up_to_heads(channels: int, heads: int) -> int:
    """The smallest width of ``channels`` or more that the heads divide."""
    return -(-channels // max(1, heads)) * max(1, heads)


def context_mask(n: int, forward: int | None, backward: int | None) -> Tensor | None:
    """Which positions see which: i sees j where ``-backward <= j - i <= forward``.

    Args:
        n: positions L.
        forward: how far ahead a position sees; 0 is causal, None or -1 has no limit.
        backward: how far back.

    Returns:
        (L, L) bool, or None where nothing is hidden.
    """
    forward, backward = (n if reach is None or reach < 0 else reach for reach in (forward, backward))
    if min(forward, backward) >= n - 1:
        return None
    return torch.ones(n, n, dtype=torch.bool).tril(forward).triu(-backward)


def steps_of_context(
    forward_ms: float | None, backward_ms: float | None, step_ms: float
) -> tuple[int | None, int | None]:
    """A window of context in steps, rounded up; None stays without limit.

    Args:
        forward_ms: how far ahead.
        backward_ms: how far back.
        step_ms: width of a step.
    """
    forward, backward = (None if ms is None or ms < 0 else math.ceil(ms / step_ms) for ms in (forward_ms, backward_ms))
    return forward, backward


class Positions(nn.Module):
    """Base class: adds a vector for each position; shorter sequences take the first ones."""

    table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return x + self.table[: x.shape[1]]

    def step(self, x: Tensor, at: Tensor) -> Tensor:
        """(B, 1, D), of the position ``at`` () -> (B, 1, D)."""
        return x + self.table.index_select(0, at[None])


class LearnedPositions(Positions):
    """Adds a learned vector for each position.

    Args:
        n: positions.
        width: channels D.
    """

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n, width).uniform_(-0.1, 0.1))


class SinusoidalPositions(Positions):
    """Adds sines and cosines of the position, of wavelengths from 2 pi to 10,000 x 2 pi (Vaswani et al. 2017).

    Args:
        n: positions.
        width: channels D.
    """

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
        phase = torch.arange(n)[:, None] * frequency
        table = torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)[:, :width]
        self.register_buffer("table", table, persistent=False)
