"""The Neural Data Transformer: steps of a trial attend to each other and fill in what was masked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.attention import (
    EncoderLayer,
    LearnedPositions,
    SinusoidalPositions,
    context_mask,
    steps_of_context,
)
from neuro_lightning.nn.masking import configure_masking
from neuro_lightning.nn.smoothed import check_kernels, kernels_in_steps, smoothed_copies
from neuro_lightning.nn.step_transformer import StepTransformer, make_relative_bias, reach_in_steps
from neuro_lightning.nn.steps import bins_in_step, to_steps

POSITIONS = {"learned": LearnedPositions, "sinusoidal": SinusoidalPositions}


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

    The forward bins enter as zeros. A step may hold several bins, as in ``GRUNet``; see :class:`StepTransformer`.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_bins: observed bins T.
        n_forward: forward bins F.
        width: channels D; None is one for each neuron (with a count embedding, ``count_width``), rounded up to what
            the heads divide.
        layers: encoder layers.
        heads: of the attention.
        feedforward: units of the layers' hidden dense layer.
        context: steps that a step sees (ahead, back), None without limit; 0 ahead makes the network causal: bin t
            depends on bins up to t only.
        reach: steps over which the attention of the first and of the last head begins to fade, see
            :class:`RelativeBias`; None has no such bias.
        positions: ``learned`` or ``sinusoidal``.
        pre_norm: normalise before the blocks, or after.
        scaled_init: let encoder weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        smoothed: standard deviations, in steps, of Gaussian kernels whose smoothed counts enter beside the counts.
        raw_counts: False leaves the counts themselves out.
        count_width: width of an embedding of each count; 0 takes counts as they are.
        max_count: of that embedding.
        linear_embedder: a linear map to the width; without it channels are neurons, and those left over are zero.
        stride: bins in a step.
        dropout: after the embedding, in the encoder layers, before the readout.
        attention_dropout: of attention weights, where it is another than that of the layers.
        mean_rates: (N,) spikes per bin; the readout starts there.
        names: what the readout gives of each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: the width is too small or not divided by the heads; there are no such positions.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_bins: int,
        n_forward: int,
        *,
        width: int | None = None,
        layers: int = 4,
        heads: int = 2,
        feedforward: int = 128,
        context: tuple[int | None, int | None] = (None, None),
        reach: tuple[float, float] | None = None,
        positions: str = "learned",
        pre_norm: bool = True,
        scaled_init: bool = True,
        smoothed: Sequence[float] = (),
        raw_counts: bool = True,
        count_width: int = 0,
        max_count: int = 8,
        linear_embedder: bool = True,
        stride: int = 1,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
        attention_dropout: float | None = None,
        mean_rates: Sequence[float] = (),
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        if positions not in POSITIONS:
            raise ConfigError(f"model.positions={positions}: there are {', '.join(POSITIONS)}")
        per_neuron = max(1, count_width)
        check_kernels(raw_counts, smoothed)
        channels = n_in * (per_neuron * raw_counts + len(smoothed))
        width = width or -(-n_neurons * per_neuron // heads) * heads
        if not linear_embedder and width < channels:
            raise ConfigError(f"model.width={width} holds no {channels} channels without model.linear_embedder")
        at_embedding, inside, at_readout = dropout
        super().__init__(
            n_neurons,
            n_bins,
            n_forward,
            width=width,
            stride=stride,
            causal=context[0] == 0,
            dropout=(at_embedding, at_readout),
            mean_rates=mean_rates,
            names=names,
        )
        self.smoothed, self.raw_counts = tuple(smoothed), raw_counts
        self.embedding = CountEmbedding(max_count, count_width) if count_width else nn.Identity()
        self.embedder = nn.Linear(channels, width) if linear_embedder else nn.ZeroPad1d((0, width - channels))
        steps = -(-(n_bins + n_forward) // stride)
        self.positions = POSITIONS[positions](steps, width)
        self.register_buffer("allowed", context_mask(steps, *context), persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                heads,
                feedforward,
                inside,
                pre_norm=pre_norm,
                init_scale=0.67 * layers**-0.25 if scaled_init else None,
                bias=make_relative_bias(reach, heads, steps),
                attention_dropout=attention_dropout,
            )
            for _ in range(layers)
        )
        if not pre_norm:
            self.norm = nn.Identity()

    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) -> (B, S, width)."""
        steps = to_steps(inputs, inputs.shape[1] + self.n_forward, self.stride)
        observed = -(-inputs.shape[1] // self.stride)
        copies = smoothed_copies(steps, observed, self.smoothed, causal=self.causal)
        shown = [self.embedding(steps), *copies] if self.raw_counts else copies
        x = self.embedder(torch.cat(shown, dim=2)) * math.sqrt(self.width)
        x = self.embedding_dropout(self.positions(x))
        allowed = None if self.allowed is None else self.allowed[: x.shape[1], : x.shape[1]]
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)


class NDT(PopulationModule):
    """A transformer encoder that is trained to fill in masked counts.

    The Neural Data Transformer (Ye & Pandarinath 2021, "Representation learning for neural population activity with
    Neural Data Transformers"; repository snel-repo/neural-data-transformers) with the switches of AE Studio's fork
    (agencyenterprise/neural-data-transformers), whose ensemble won the benchmark's first phase.

    Args:
        spec: what to know of the data.
        width: channels; None is one for each neuron, as published, rounded up to what the heads divide.
        layers: encoder layers.
        heads: of the attention.
        feedforward: units of the layers' hidden dense layer.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        context_forward_ms: how far ahead a step sees, rounded up to steps; None without limit, 0 is causal.
        context_backward_ms: how far back.
        reach_ms: how far the attention of the first and of the last head reaches before training, those between
            log-spaced: a learned bias of each head and distance begins there. None has no such bias, as published.
        smoothed_ms: standard deviations of Gaussian kernels; counts smoothed with each enter beside the counts.
        raw_counts: False leaves the counts themselves out: what each layer passes on is then smooth from the start.
        positions: ``learned`` or ``sinusoidal``.
        pre_norm: normalise before the blocks, or after.
        scaled_init: let encoder weights begin small, by the number of layers.
        count_width: width of an embedding of each count; 0 takes counts as they are.
        max_count: larger counts share an embedding.
        linear_embedder: a linear map from the neurons to the width; without it channels are neurons, as published.
        embedding_dropout: dropout after the embedding.
        layer_dropout: dropout in the encoder layers.
        readout_dropout: dropout before the readout.
        attention_dropout: dropout of attention weights; None is ``layer_dropout``, as published.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for traces.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``; it masks whole steps.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: traces with an embedding of counts; see :class:`NDTNet`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int | None,
        layers: int,
        heads: int,
        feedforward: int,
        step_ms: int | None,
        context_forward_ms: float | None,
        context_backward_ms: float | None,
        positions: str,
        pre_norm: bool,
        scaled_init: bool,
        count_width: int,
        max_count: int,
        linear_embedder: bool,
        embedding_dropout: float,
        layer_dropout: float,
        readout_dropout: float,
        reach_ms: Sequence[float] | None = None,
        smoothed_ms: Sequence[float] = (),
        raw_counts: bool = True,
        attention_dropout: float | None = None,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if count_width and spec.kind != "spikes":
            raise ConfigError(
                f"model.count_width={count_width}: {spec.dataset} has {spec.kind}, not counts; set it to 0"
            )
        if count_width and not raw_counts:
            raise ConfigError(f"model.count_width={count_width} embeds counts: it needs model.raw_counts=true")
        if count_width and getattr(masking, "rescale", False):
            raise ConfigError(
                f"model.count_width={count_width}: only whole counts have an embedding, and the masking rescales them; "
                "give model.masking.rescale=false or masking@model.masking=random"
            )
        if heads < 1 or layers < 1:
            raise ConfigError(f"model.heads={heads} and model.layers={layers} must be 1 at least")
        stride = bins_in_step(step_ms, spec.bin_ms)
        step = stride * spec.bin_ms
        configure_masking(masking, block=stride, kind=spec.kind)
        net = NDTNet(
            spec.n_in,
            spec.n_neurons,
            spec.n_bins,
            spec.n_forward,
            width=width,
            layers=layers,
            heads=heads,
            feedforward=feedforward,
            context=steps_of_context(context_forward_ms, context_backward_ms, step),
            reach=reach_in_steps(reach_ms, step),
            smoothed=kernels_in_steps(smoothed_ms, step),
            raw_counts=raw_counts,
            positions=positions,
            pre_norm=pre_norm,
            scaled_init=scaled_init,
            count_width=count_width,
            max_count=max_count,
            linear_embedder=linear_embedder,
            stride=stride,
            dropout=(embedding_dropout, layer_dropout, readout_dropout),
            attention_dropout=attention_dropout,
            mean_rates=spec.mean_rates,
            names=readout_names(loss, spec),
        )
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)
