"""The Spatiotemporal Neural Data Transformer: steps attend to each other, and so do neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.contrastive import info_nce
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import SinusoidalPositions
from neuro_lightning.nn.masking import RandomMasking, configure_masking
from neuro_lightning.nn.spatial_attention import SpatiotemporalLayer
from neuro_lightning.nn.step_transformer import Attention, Dropouts, Inputs, StepTransformer
from neuro_lightning.nn.steps import to_steps


@dataclass(frozen=True)
class Contrast:
    """The contrastive term: two views of a trial are to be alike.

    Attributes:
        weight: of the term in the loss; 0 leaves it out.
        ratio: share of the counts that a view hides or replaces.
        temperature: of the term, see :func:`~neuro_lightning.functional.contrastive.info_nce`.

    Raises:
        ConfigError: a negative weight, or a temperature of 0.
    """

    weight: float = 0.0
    ratio: float = 0.1
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.weight < 0 or self.temperature <= 0:
            raise ConfigError(
                f"model.contrast.weight={self.weight} must be 0 at least, and model.contrast.temperature="
                f"{self.temperature} above 0"
            )


class STNDTNet(StepTransformer):
    """Counts of the held-in neurons in steps -> spatiotemporal layers -> log-rates of all neurons.

    There are as many channels as neurons, and a few more where the heads do not divide them, unless ``width`` says
    another number: held-out neurons enter as zeros, as the forward bins do. In the first layer channels attend to each
    other by the embedded time courses of their neurons (of the embedding's channels, where there is a width), in later
    ones by their own. See :class:`StepTransformer`.

    Time courses have a fixed length. Shorter sequences are filled up with zeros; longer ones, of traces, are read
    window by window.

    Args:
        spec: of the data.
        width: channels D; None is one for each neuron.
        layers: spatiotemporal layers.
        heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        step_ms: width of a step; None is one bin.
        scaled_init: let the temporal blocks' weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        inputs: the inputs at a step.
        attention: how far the attention over time looks; neurons attend by whole trials.
        dropout: by place.
        contrast: the contrastive term; its views of a batch are drawn in training.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: a causal context, or heads that do not divide the width.
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
        scaled_init: bool,
        inputs: Inputs,
        attention: Attention,
        dropout: Dropouts,
        contrast: Contrast,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        if attention.context_forward_ms == 0:
            raise ConfigError(
                "model.attention.context_forward_ms=0: STNDT cannot be causal, its neurons attend to each other by "
                "whole trials; model=gru model.bidirectional=false is"
            )
        super().__init__(
            spec,
            width=width or -(-spec.n_neurons // max(1, heads)) * heads,
            heads=heads,
            layers=layers,
            step_ms=step_ms,
            inputs=inputs,
            attention=attention,
            dropout=dropout,
            names=names,
        )
        steps = self.n_steps
        self.channels_are_neurons, self.temperature = width is None, contrast.temperature
        views = RandomMasking("full", ratio=contrast.ratio, token_ratio=0.5, random_ratio=0.5)
        self.views = views if contrast.weight else None
        self.embedder = nn.Linear(spec.n_in * (inputs.raw_counts + len(inputs.smoothed_ms)), self.width)
        self.course_embedder = nn.Linear(steps, steps)
        self.positions = SinusoidalPositions(steps, self.width)
        self.course_positions = SinusoidalPositions(self.width, steps)
        self.layers = nn.ModuleList(
            SpatiotemporalLayer(
                self.width,
                steps,
                heads,
                feedforward,
                dropout.layers,
                init_scale=0.67 * layers**-0.25 if scaled_init else None,
                bias=attention.bias(heads, steps, self.step_ms),
                attention_dropout=dropout.attention,
            )
            for _ in range(layers)
        )

    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) -> (B, S, width) with S for all T + F bins, however short the inputs are."""
        x, courses = self._embed(inputs)
        x = self.embedding_dropout(self.positions(x))
        courses = self.embedding_dropout(self.course_positions(courses))
        for layer in self.layers:
            x = layer(x, courses, self.allowed)
            courses = x.mT
        return self.norm(x)

    def _embed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N_in) -> steps (B, S, width) and time courses (B, width, S), without positions."""
        steps = to_steps(inputs, self.n_bins + self.n_forward, self.stride)
        x = self.embedded_counts(inputs, steps)
        courses = F.pad(steps, (0, self.width - steps.shape[2])) if self.channels_are_neurons else x
        return x * math.sqrt(self.width), self.course_embedder(courses.mT) * math.sqrt(steps.shape[1])

    def extra_losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """The contrastive losses of two views of each trial: of their embedded steps, and of their time courses."""
        if self.views is None:
            return {}
        first, second = (self._embed(self.views(inputs)[0]) for _ in range(2))
        pairs = zip(first, second, strict=True)
        return {"contrast": sum(info_nce(one, other, self.temperature) for one, other in pairs)}


class STNDT(SequenceModel):
    """A transformer over time whose channels also attend to each other.

    Le & Shlizerman 2022, "STNDT: Modeling neural population activity with spatiotemporal transformers" (repository
    trungle93/STNDT): the best single model of the Neural Latents Benchmark on mc_maze. Its contrastive term, of
    little use by the paper's own ablation, is off unless ``contrast.weight`` is set; its views are drawn from what the
    network is shown, the paper's from the unmasked counts.

    Args:
        spec: the description of the data.
        contrast: the contrastive term, see :class:`Contrast`.
        settings: see :class:`SequenceModel` and :class:`STNDTNet`.

    Raises:
        ConfigError: see :class:`STNDTNet`.
    """

    network_class = STNDTNet
    masks_whole_steps = True

    def __init__(self, spec: DataSpec, *, contrast: Contrast, **settings: Any) -> None:
        super().__init__(spec, contrast=contrast, **settings)
        configure_masking(self.net.views, block=self.net.stride, kind=spec.kind)
        self.contrast = contrast

    def weight_loss_terms(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The contrastive term by its weight."""
        return self.contrast.weight * sum(terms.values())
