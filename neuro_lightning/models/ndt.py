"""The Neural Data Transformer: steps of a trial attend to each other and fill in what was masked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import (
    EncoderLayer,
    LearnedPositions,
    SelfAttention,
    SinusoidalPositions,
    round_up_to_heads,
)
from neuro_lightning.nn.padding import attended
from neuro_lightning.nn.rate_readout import ReadoutSettings, small_weights
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.step_transformer import Attention, Dropouts, Layers, TransformerCore
from neuro_lightning.nn.stepping import State
from neuro_lightning.nn.steps import Steps

POSITIONS = {"learned": LearnedPositions, "sinusoidal": SinusoidalPositions}


class NDTCore(TransformerCore):
    """Channels of steps -> positions -> encoder layers.

    Args:
        channels: see :class:`TransformerCore`, as ``width``, ``steps``, ``attention`` and ``dropout``.
        width: see there.
        steps: see there.
        layers: the encoder layers.
        pre_norm: normalise before the blocks, or after.
        positions: ``learned`` or ``sinusoidal``.
        attention: see there.
        dropout: see there.

    Raises:
        ConfigError: there are no such positions, or see :class:`TransformerCore`.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        steps: Steps,
        layers: Layers,
        *,
        pre_norm: bool,
        positions: str,
        attention: Attention,
        dropout: Dropouts,
    ) -> None:
        super().__init__(channels, width, steps, attention, dropout)
        if positions not in POSITIONS:
            raise ConfigError(f"model.positions={positions}: there are {', '.join(POSITIONS)}")
        self.positions = POSITIONS[positions](steps.count, width)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                layers.heads,
                layers.feedforward,
                dropout.layers,
                pre_norm=pre_norm,
                init_scale=layers.init_scale,
                bias=attention.bias(layers.heads, steps.count, steps.ms),
                attention_dropout=dropout.attention,
            )
            for _ in range(layers.count)
        )
        if not pre_norm:
            self.norm = nn.Identity()

    def forward(self, steps: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, S, C), and the steps of each trial (B,) -> (B, S, width)."""
        x = self.dropout(self.positions(self.fill_up(steps) * math.sqrt(self.width)))
        allowed = None if self.allowed is None else self.allowed[: x.shape[1], : x.shape[1]]
        if lengths is not None:
            allowed = attended(lengths, x.shape[1], allowed)
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)

    @property
    def attentions(self) -> list[SelfAttention]:
        """Those over time, of each layer."""
        return [layer.attention for layer in self.layers]

    def initial_state(self, batch: int) -> State:
        """Before the first step."""
        return self.no_steps(batch)

    def step(self, steps: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, 1, C) and the state -> (B, 1, width), and the state after it; the attention is causal."""
        at, n = state["step"], len(self.positions.table)
        x = self.dropout(self.positions.step(self.fill_up(steps) * math.sqrt(self.width), at))
        here = (torch.arange(n, device=at.device) == at)[:, None]
        after = {"step": at + 1}
        for number, (layer, scores) in enumerate(zip(self.layers, self.scores_at(at), strict=True)):
            x, after[f"cache.{number}"] = layer.step(x, state[f"cache.{number}"], here, scores)
        return self.norm(x), after


class NDTNet(SequenceNet):
    """Encoder layers over steps, between read-in and readout.

    Args:
        spec: the description of the data.
        readin: what is read of a step.
        readout: how rates are read out.
        width: channels D; None is one for each neuron (with a count embedding, ``count_width``), rounded up to what
            the heads divide.
        layers: encoder layers.
        attention_heads: of the attention.
        feedforward: units of the layers' hidden dense layer.
        step_ms: width of a step; None is one bin.
        pre_norm: normalise before the blocks, or after.
        scaled_init: let encoder weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        positions: ``learned`` or ``sinusoidal``.
        attention: how far it looks.
        dropout: by place.
        fixed_lag_ms: of a causal network, how much later a bin is read, see :class:`Steps`.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: the width is too small or not divided by the heads.
    """

    causal_words = "model.attention.context_forward_ms=0"

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings,
        readout: ReadoutSettings,
        width: int | None,
        layers: int,
        attention_heads: int,
        feedforward: int,
        step_ms: int | None,
        pre_norm: bool,
        scaled_init: bool,
        positions: str,
        attention: Attention,
        dropout: Dropouts,
        fixed_lag_ms: float = 0,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        encoder = Layers(layers, attention_heads, feedforward, scaled_init)
        steps = Steps.of(spec, step_ms, causal=attention.causal, lag_ms=fixed_lag_ms)
        width = width or round_up_to_heads(spec.n_neurons * max(1, readin.count_width), attention_heads)
        # its weights are drawn first: a seed gives the same network as in earlier versions
        reads_out = readout.build(spec, steps, width, names, small_weights)
        reads_in = readin.build(spec, steps, width)
        core = NDTCore(
            reads_in.width,
            width,
            steps,
            encoder,
            pre_norm=pre_norm,
            positions=positions,
            attention=attention,
            dropout=dropout,
        )
        super().__init__(steps, reads_in, core, reads_out, fixed_length=True)


class NDT(SequenceModel):
    """A transformer encoder that is trained to fill in masked counts.

    The Neural Data Transformer (Ye & Pandarinath 2021, "Representation learning for neural population activity with
    Neural Data Transformers"; repository snel-repo/neural-data-transformers) with the switches of AE Studio's fork
    (agencyenterprise/neural-data-transformers), whose ensemble won the benchmark's first phase. Its masking masks whole
    steps. Its arguments are those of :class:`SequenceModel` and :class:`NDTNet`.
    """

    network_class = NDTNet
    masks_whole_steps = True
