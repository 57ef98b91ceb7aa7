"""Base class and settings of transformers over steps of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.attention import Positions, SelfAttention, context_mask, steps_of_context
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.relative_bias import RelativeBias, log_spaced, rows_at
from neuro_lightning.nn.stepping import State
from neuro_lightning.nn.steps import Steps


@dataclass(frozen=True)
class Attention:
    """How far attention over time looks.

    Attributes:
        context_forward_ms: how far ahead a step sees, rounded up to steps; None without limit, 0 is causal.
        context_backward_ms: how far back.
        reach_ms: how far the first and the last head reach before training, those between log-spaced: a learned bias
            of each head and distance begins there, see :class:`RelativeBias`. None has no such bias.

    Raises:
        ConfigError: the reach is not two numbers above 0, in order.
    """

    context_forward_ms: float | None = None
    context_backward_ms: float | None = None
    reach_ms: Sequence[float] | None = None

    def __post_init__(self) -> None:
        reach = self.reach_ms
        if reach is not None and (len(reach) != 2 or not 0 < reach[0] <= reach[1]):
            raise ConfigError(
                f"model.attention.reach_ms={list(reach)}: the nearest head's reach and the farthest's, above 0 and in "
                "order, such as [20,320]; null for none"
            )

    @property
    def causal(self) -> bool:
        """Whether a step sees no later one."""
        return self.context_forward_ms == 0

    def mask(self, steps: int, step_ms: float) -> Tensor | None:
        """(S, S) bool, which step sees which; None where nothing is hidden."""
        return context_mask(steps, *steps_of_context(self.context_forward_ms, self.context_backward_ms, step_ms))

    def bias(self, heads: int, steps: int, step_ms: float) -> RelativeBias | None:
        """A layer's bias; None without."""
        if self.reach_ms is None:
            return None
        nearest, farthest = self.reach_ms
        return RelativeBias(steps, log_spaced(nearest / step_ms, farthest / step_ms, heads))


@dataclass(frozen=True)
class Dropouts:
    """Rates of dropout, by place.

    Attributes:
        embedding: after the embedding.
        layers: in the encoder layers.
        attention: of attention weights over time; None is ``layers``, as published.
    """

    embedding: float = 0.0
    layers: float = 0.0
    attention: float | None = None


@dataclass(frozen=True)
class Layers:
    """The encoder layers.

    Attributes:
        count: how many.
        heads: of their attention.
        feedforward: units of their hidden dense layer.
        scaled_init: let weights begin at ``0.67 * count ** -1/4`` of Xavier's.

    Raises:
        ConfigError: there is no head or no layer.
    """

    count: int
    heads: int
    feedforward: int
    scaled_init: bool

    def __post_init__(self) -> None:
        if self.heads < 1 or self.count < 1:
            raise ConfigError(f"model.attention_heads={self.heads} and model.layers={self.count} must be 1 at least")

    @property
    def init_scale(self) -> float | None:
        """Share of Xavier's weights at which weights begin; None leaves torch's own."""
        return 0.67 * self.count**-0.25 if self.scaled_init else None


class TransformerCore(nn.Module):
    """Base class: channels of steps -> encoder layers, which subclasses build -> latents of the same width.

    Args:
        channels: C of the input; fewer than the width are filled up with zeros.
        width: channels D of the layers.
        steps: of the network.
        attention: how far it looks; 0 ms ahead makes the network causal: bin t depends on bins up to t only.
        dropout: after the embedding, and in the layers.

    Raises:
        ConfigError: the input has more channels than the layers.
    """

    allowed: Tensor | None
    positions: Positions

    def __init__(self, channels: int, width: int, steps: Steps, attention: Attention, dropout: Dropouts) -> None:
        super().__init__()
        if width < channels:
            raise ConfigError(f"model.width={width} holds no {channels} channels without model.readin.width=auto")
        self.width = width
        self.dropout = Dropout(dropout.embedding)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("allowed", attention.mask(steps.count, steps.ms), persistent=False)

    def fill_up(self, x: Tensor) -> Tensor:
        """(B, S, C) channels -> (B, S, width), zeros after the C channels."""
        return F.pad(x, (0, self.width - x.shape[2]))

    # ---- step by step

    def no_steps(self, batch: int) -> State:
        """The state before the first step: its number, and no keys and values of steps that the layers look back at."""
        table, attentions = self.positions.table, self.attentions
        nothing = table.new_zeros(2, batch, attentions[0].heads, len(table), self.width // attentions[0].heads)
        number = torch.zeros((), dtype=torch.long, device=table.device)
        return {"step": number, **{f"cache.{layer}": nothing for layer in range(len(attentions))}}

    def scores_at(self, at: Tensor) -> Tensor:
        """What is added to the attention's scores from one step, (layers, 1 or heads, 1, S); -inf at what is hidden."""
        n = len(self.positions.table)
        hidden = self.positions.table.new_zeros(len(self.attentions), 1, 1, n)
        if self.allowed is not None:
            hidden = hidden.masked_fill(~self.allowed.index_select(0, at[None]), -torch.inf)
        biases = [attention.bias for attention in self.attentions]
        found = [bias for bias in biases if bias is not None]
        return rows_at(found, at, n) + hidden if found else hidden

    @property
    def attentions(self) -> list[SelfAttention]:
        """Those over time, of each layer."""
        raise NotImplementedError
