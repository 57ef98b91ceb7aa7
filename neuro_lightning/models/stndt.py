"""The Spatiotemporal Neural Data Transformer: steps attend to each other, and so do neurons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.contrastive import info_nce
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.attention import SinusoidalPositions, context_mask, steps_of_context
from neuro_lightning.nn.masking import RandomMasking, configure_masking
from neuro_lightning.nn.smoothed import check_kernels, kernels_in_steps, smoothed_copies
from neuro_lightning.nn.spatial_attention import SpatiotemporalLayer
from neuro_lightning.nn.step_transformer import StepTransformer, make_relative_bias, reach_in_steps
from neuro_lightning.nn.steps import bins_in_step, to_steps


class STNDTNet(StepTransformer):
    """Counts of the held-in neurons in steps -> spatiotemporal layers -> log-rates of all neurons.

    There are as many channels as neurons, and a few more where the heads do not divide them, unless ``width`` says
    another number: held-out neurons enter as zeros, as the forward bins do. In the first layer channels attend to each
    other by the embedded time courses of their neurons (of the embedding's channels, where there is a width), in later
    ones by their own. See :class:`StepTransformer`.

    Time courses have a fixed length. Shorter sequences are filled up with zeros; longer ones, of traces, are read
    window by window.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_bins: observed bins T.
        n_forward: forward bins F.
        width: channels D; None is one for each neuron.
        layers: spatiotemporal layers.
        heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        context: steps that a step sees (ahead, back), None without limit; neurons attend by whole trials.
        reach: steps over which the attention over time of the first and of the last head begins to fade, see
            :class:`RelativeBias`; None has no such bias.
        scaled_init: let the temporal blocks' weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        smoothed: standard deviations, in steps, of Gaussian kernels whose smoothed counts enter beside the counts.
        raw_counts: False leaves the counts themselves out.
        stride: bins in a step.
        dropout: after the embedding, in the layers, before the readout.
        attention_dropout: of attention weights over time, where it is another than that of the layers.
        views: draws views of a batch in training, (B, T, N_in) -> (view, mask); None leaves the contrastive term out.
        temperature: of that term.
        mean_rates: (N,) spikes per bin; the readout starts there.
        names: what the readout gives of each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: the heads do not divide the width.
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
        scaled_init: bool = True,
        smoothed: Sequence[float] = (),
        raw_counts: bool = True,
        stride: int = 1,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
        attention_dropout: float | None = None,
        views: nn.Module | None = None,
        temperature: float = 0.07,
        mean_rates: Sequence[float] = (),
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        check_kernels(raw_counts, smoothed)
        at_embedding, inside, at_readout = dropout
        super().__init__(
            n_neurons,
            n_bins,
            n_forward,
            width=width or -(-n_neurons // heads) * heads,
            stride=stride,
            causal=False,
            dropout=(at_embedding, at_readout),
            mean_rates=mean_rates,
            names=names,
        )
        steps = -(-(n_bins + n_forward) // stride)
        self.channels_are_neurons, self.views, self.temperature = width is None, views, temperature
        self.smoothed, self.raw_counts = tuple(smoothed), raw_counts
        self.embedder = nn.Linear(n_in * (raw_counts + len(smoothed)), self.width)
        self.course_embedder = nn.Linear(steps, steps)
        self.positions = SinusoidalPositions(steps, self.width)
        self.course_positions = SinusoidalPositions(self.width, steps)
        self.register_buffer("allowed", context_mask(steps, *context), persistent=False)
        self.layers = nn.ModuleList(
            SpatiotemporalLayer(
                self.width,
                steps,
                heads,
                feedforward,
                inside,
                init_scale=0.67 * layers**-0.25 if scaled_init else None,
                bias=make_relative_bias(reach, heads, steps),
                attention_dropout=attention_dropout,
            )
            for _ in range(layers)
        )

    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) -> (B, S, width) with S for all T + F bins, however short the inputs are."""
        x, courses = self._embed(inputs)
        x, courses = (
            self.embedding_dropout(at(y)) for at, y in ((self.positions, x), (self.course_positions, courses))
        )
        for layer in self.layers:
            x = layer(x, courses, self.allowed)
            courses = x.mT
        return self.norm(x)

    def _embed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N_in) -> steps (B, S, width) and time courses (B, width, S), without positions."""
        steps = to_steps(inputs, self.n_bins + self.n_forward, self.stride)
        copies = smoothed_copies(steps, -(-inputs.shape[1] // self.stride), self.smoothed, causal=False)
        x = self.embedder(torch.cat([steps, *copies] if self.raw_counts else copies, dim=2))
        courses = F.pad(steps, (0, self.width - steps.shape[2])) if self.channels_are_neurons else x
        return x * math.sqrt(self.width), self.course_embedder(courses.mT) * math.sqrt(steps.shape[1])

    def extra_losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """How hard two views of the same trial are to match, by their embedded steps and by their time courses."""
        if self.views is None:
            return {}
        first, second = (self._embed(self.views(inputs)[0]) for _ in range(2))
        pairs = zip(first, second, strict=True)
        return {"contrast": sum(info_nce(one, other, self.temperature) for one, other in pairs)}


class STNDT(PopulationModule):
    """A transformer over time whose channels also attend to each other.

    Le & Shlizerman 2022, "STNDT: Modeling neural population activity with spatiotemporal transformers" (repository
    trungle93/STNDT): the best single model of the Neural Latents Benchmark on mc_maze. Its contrastive term, of
    little use by the paper's own ablation, is off unless ``contrast`` is set; its views are drawn from what the
    network is shown, the paper's from the unmasked counts.

    Args:
        spec: what to know of the data.
        width: channels; None is one for each neuron, as published, rounded up to what the heads divide.
        layers: spatiotemporal layers.
        heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        context_forward_ms: how far ahead a step sees, rounded up to steps; None without limit.
        context_backward_ms: how far back.
        reach_ms: how far the attention over time of the first and of the last head reaches before training, those
            between log-spaced: a learned bias of each head and distance begins there. None has no such bias, as
            published.
        smoothed_ms: standard deviations of Gaussian kernels; counts smoothed with each enter beside the counts.
        raw_counts: False leaves the counts themselves out: what each layer passes on is then smooth from the start.
        scaled_init: let encoder weights begin small, by the number of layers.
        embedding_dropout: dropout after the embedding.
        layer_dropout: dropout in the layers.
        readout_dropout: dropout before the readout.
        attention_dropout: dropout of attention weights over time; None is ``layer_dropout``, as published.
        contrast: weight of the contrastive term; 0 leaves it out.
        contrast_ratio: share of the counts that a view hides or replaces.
        temperature: of the contrastive term.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for traces.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: a causal context, no head, a negative weight, or a temperature of 0.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")

    def __init__(
        self,
        spec: DataSpec,
        *,
        layers: int,
        heads: int,
        feedforward: int,
        step_ms: int | None,
        context_forward_ms: float | None,
        context_backward_ms: float | None,
        scaled_init: bool,
        embedding_dropout: float,
        layer_dropout: float,
        readout_dropout: float,
        width: int | None = None,
        reach_ms: Sequence[float] | None = None,
        smoothed_ms: Sequence[float] = (),
        raw_counts: bool = True,
        attention_dropout: float | None = None,
        contrast: float = 0.0,
        contrast_ratio: float = 0.1,
        temperature: float = 0.07,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if context_forward_ms == 0:
            raise ConfigError(
                "model.context_forward_ms=0: STNDT cannot be causal, its neurons attend to each other by whole trials; "
                "model=gru model.bidirectional=false is"
            )
        if heads < 1 or layers < 1 or contrast < 0 or temperature <= 0:
            raise ConfigError(
                f"model.heads={heads} and model.layers={layers} must be 1 at least, model.contrast={contrast} 0 "
                f"at least, and model.temperature={temperature} above 0"
            )
        stride = bins_in_step(step_ms, spec.bin_ms)
        step = stride * spec.bin_ms
        views = RandomMasking("full", ratio=contrast_ratio, token_ratio=0.5, random_ratio=0.5) if contrast else None
        for mask in (masking, views):
            configure_masking(mask, block=stride, kind=spec.kind)
        net = STNDTNet(
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
            scaled_init=scaled_init,
            stride=stride,
            dropout=(embedding_dropout, layer_dropout, readout_dropout),
            attention_dropout=attention_dropout,
            views=views,
            temperature=temperature,
            mean_rates=spec.mean_rates,
            names=readout_names(loss, spec),
        )
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)
        self.contrast = contrast

    def weight_loss_terms(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The contrastive term by its weight."""
        return self.contrast * sum(terms.values())
