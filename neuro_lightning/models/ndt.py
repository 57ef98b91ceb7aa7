"""The Neural Data Transformer: steps of a trial attend to each other and fill in what was masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import EncoderLayer, LearnedPositions, SinusoidalPositions
from neuro_lightning.nn.step_transformer import Attention, Dropouts, Inputs, StepTransformer
from neuro_lightning.nn.steps import to_steps

POSITIONS = {"learned": LearnedPositions, "sinusoidal": SinusoidalPositions}


@dataclass(frozen=True)
class CountInputs(Inputs):
    """Which inputs the network has at a step, and how they are embedded.

    Attributes:
        count_width: width of an embedding of each count; 0 takes counts as they are.
        max_count: larger counts share an embedding.
        linear_embedder: a linear map from the neurons to the width; without it channels are neurons, as published.
        positions: ``learned`` or ``sinusoidal``.

    Raises:
        ConfigError: there is no input, or there are no such positions.
    """

    count_width: int = 0
    max_count: int = 8
    linear_embedder: bool = True
    positions: str = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions not in POSITIONS:
            raise ConfigError(f"model.inputs.positions={self.positions}: there are {', '.join(POSITIONS)}")


class CountEmbedding(nn.Module):
    """Each neuron's count becomes a vector from one table, and a step the vectors of its neurons in a row.

    Args:
        max_count: larger counts share a row of the table.
        width: of a vector.
    """

    def __init__(self, max_count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_count + 2, width)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    def forward(self, counts: Tensor) -> Tensor:
        """(B, S, N) -> (B, S, N * width)."""
        return self.table(counts.long().clamp(0, self.table.num_embeddings - 1)).flatten(2)


class NDTNet(StepTransformer):
    """Counts of the held-in neurons in steps -> embedding, positions -> encoder layers -> log-rates of all neurons.

    The forward bins enter as zeros. See :class:`StepTransformer`.

    Args:
        spec: of the data.
        width: channels D; None is one for each neuron (with a count embedding, ``count_width``), rounded up to what
            the heads divide.
        layers: encoder layers.
        heads: of the attention.
        feedforward: units of the layers' hidden dense layer.
        step_ms: width of a step; None is one bin.
        pre_norm: normalise before the blocks, or after.
        scaled_init: let encoder weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        inputs: the inputs at a step, and their embedding.
        attention: how far it looks.
        dropout: by place.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: the width is too small or not divided by the heads.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int | None,
        layers: int,
        heads: int,
        feedforward: int,
        step_ms: int | None,
        pre_norm: bool,
        scaled_init: bool,
        inputs: CountInputs,
        attention: Attention,
        dropout: Dropouts,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        per_neuron = max(1, inputs.count_width)
        channels = spec.n_in * (per_neuron * inputs.raw_counts + len(inputs.smoothed_ms))
        width = width or -(-spec.n_neurons * per_neuron // max(1, heads)) * heads
        if not inputs.linear_embedder and width < channels:
            raise ConfigError(f"model.width={width} holds no {channels} channels without model.inputs.linear_embedder")
        super().__init__(
            spec,
            width=width,
            heads=heads,
            layers=layers,
            step_ms=step_ms,
            inputs=inputs,
            attention=attention,
            dropout=dropout,
            names=names,
        )
        counted = inputs.count_width > 0
        self.embedding = CountEmbedding(inputs.max_count, inputs.count_width) if counted else nn.Identity()
        self.embedder = nn.Linear(channels, width) if inputs.linear_embedder else nn.ZeroPad1d((0, width - channels))
        self.positions = POSITIONS[inputs.positions](self.n_steps, width)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                heads,
                feedforward,
                dropout.layers,
                pre_norm=pre_norm,
                init_scale=0.67 * layers**-0.25 if scaled_init else None,
                bias=attention.bias(heads, self.n_steps, self.step_ms),
                attention_dropout=dropout.attention,
            )
            for _ in range(layers)
        )
        if not pre_norm:
            self.norm = nn.Identity()

    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) -> (B, S, width)."""
        steps = to_steps(inputs, inputs.shape[1] + self.n_forward, self.stride)
        x = self.embedded_counts(inputs, steps, self.embedding(steps) if self.raw_counts else None)
        x = self.embedding_dropout(self.positions(x * math.sqrt(self.width)))
        allowed = None if self.allowed is None else self.allowed[: x.shape[1], : x.shape[1]]
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)


class NDT(SequenceModel):
    """A transformer encoder that is trained to fill in masked counts.

    The Neural Data Transformer (Ye & Pandarinath 2021, "Representation learning for neural population activity with
    Neural Data Transformers"; repository snel-repo/neural-data-transformers) with the switches of AE Studio's fork
    (agencyenterprise/neural-data-transformers), whose ensemble won the benchmark's first phase.

    Args:
        spec: the description of the data.
        inputs: the inputs at a step, see :class:`CountInputs`.
        masking: hides a part of the input in training; it masks whole steps.
        settings: see :class:`SequenceModel` and :class:`NDTNet`.

    Raises:
        ConfigError: an embedding of traces, of counts that are no input, or that the masking rescales.
    """

    network_class = NDTNet
    masks_whole_steps = True

    def __init__(
        self, spec: DataSpec, *, inputs: CountInputs, masking: nn.Module | None = None, **settings: Any
    ) -> None:
        key = f"model.inputs.count_width={inputs.count_width}"
        if inputs.count_width and spec.kind != "spikes":
            raise ConfigError(f"{key}: {spec.dataset} has {spec.kind}, not counts; set it to 0")
        if inputs.count_width and not inputs.raw_counts:
            raise ConfigError(f"{key} embeds counts: it needs model.inputs.raw_counts=true")
        if inputs.count_width and getattr(masking, "rescale", False):
            raise ConfigError(
                f"{key}: only whole counts have an embedding, and the masking rescales them; give "
                "model.masking.rescale=false or masking@model.masking=random"
            )
        super().__init__(spec, inputs=inputs, masking=masking, **settings)
