"""The Spatiotemporal Neural Data Transformer: steps attend to each other, and so do neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.contrastive import info_nce
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import SelfAttention, SinusoidalPositions, round_up_to_heads
from neuro_lightning.nn.masking import RandomMasking, configure_masking
from neuro_lightning.nn.padding import attended, inside
from neuro_lightning.nn.rate_readout import ReadoutSettings, small_weights
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.spatial_attention import SpatiotemporalLayer, courses_so_far
from neuro_lightning.nn.step_transformer import Attention, Dropouts, Layers, TransformerCore
from neuro_lightning.nn.stepping import State, of_part, under
from neuro_lightning.nn.steps import Steps


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


class STNDTCore(TransformerCore):
    """Channels of steps and their time courses -> spatiotemporal layers.

    In the first layer channels attend to each other by the embedded time courses, in later ones by their own. Time
    courses have a fixed length. Where the attention over time is causal, the channels of each step attend by their time
    courses up to it, with zeros after it.

    Args:
        channels: see :class:`TransformerCore`, as ``width``, ``steps``, ``attention`` and ``dropout``.
        width: see there.
        steps: see there.
        layers: the spatiotemporal layers.
        attention: over time, see there.
        dropout: see there.
    """

    def __init__(
        self, channels: int, width: int, steps: Steps, layers: Layers, *, attention: Attention, dropout: Dropouts
    ) -> None:
        super().__init__(channels, width, steps, attention, dropout)
        count, self.causal = steps.count, attention.causal
        self.course_embedder = nn.Linear(count, count)
        self.positions, self.course_positions = SinusoidalPositions(count, width), SinusoidalPositions(width, count)
        self.layers = nn.ModuleList(
            SpatiotemporalLayer(
                width,
                count,
                layers.heads,
                layers.feedforward,
                dropout.layers,
                init_scale=layers.init_scale,
                bias=attention.bias(layers.heads, count, steps.ms),
                attention_dropout=dropout.attention,
            )
            for _ in range(layers.count)
        )

    def embed_courses(self, courses: Tensor) -> Tensor:
        """(B, S, width) channels -> their embedded time courses (B, width, S), without positions."""
        return self._embed(courses.mT)

    def _embed(self, courses: Tensor) -> Tensor:
        """The same of (..., width, S) time courses."""
        return self.course_embedder(courses) * math.sqrt(courses.shape[-1])

    def forward(self, x: Tensor, courses: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, S, width) scaled channels, and those whose time courses channels attend by -> (B, S, width).

        Args:
            x: the channels.
            courses: (B, S, width).
            lengths: (B,) steps of each trial; None where all have S.
        """
        x = self.dropout(self.positions(x))
        courses = self._embed(self._courses(courses))
        courses = self.dropout(courses + self.course_positions.table)
        allowed = self.allowed if lengths is None else attended(lengths, x.shape[1], self.allowed)
        for layer in self.layers:
            x = layer(x, courses, allowed)
            courses = self._courses(until_end(x, lengths))
        return self.norm(x)

    def _courses(self, x: Tensor) -> Tensor:
        """The time courses of (B, S, D), (B, D, S); those up to each step, (B, S, D, S), where they are causal."""
        return courses_so_far(x) if self.causal else x.mT

    # ---- step by step

    @property
    def attentions(self) -> list[SelfAttention]:
        """Those over time, of each layer."""
        return [layer.temporal.attention for layer in self.layers]

    def initial_state(self, batch: int) -> State:
        """Before the first step: the time courses are zero."""
        nothing = self.positions.table.new_zeros(batch, self.width, len(self.positions.table))
        return {**self.no_steps(batch), **{f"course.{layer}": nothing for layer in range(len(self.layers))}}

    def step(self, x: Tensor, courses: Tensor, state: State) -> tuple[Tensor, State]:
        """What :meth:`forward` says of the next step, (B, 1, width) both, and the state after it."""
        at = state["step"]
        x = self.dropout(self.positions.step(x, at))
        here = torch.arange(len(self.positions.table), device=at.device) == at
        after = {"step": at + 1}
        for number, (layer, scores) in enumerate(zip(self.layers, self.scores_at(at), strict=True)):
            seen = torch.where(here, courses.mT, state[f"course.{number}"])
            after[f"course.{number}"] = seen
            shown = seen if number else self.dropout(self._embed(seen) + self.course_positions.table)
            x, after[f"cache.{number}"] = layer.step(x, shown, state[f"cache.{number}"], here[:, None], scores)
            courses = x
        return self.norm(x), after


def until_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Steps (B, S, D) with zeros after the end of each trial, whose steps are ``lengths`` (B,); None is S."""
    return x if lengths is None else x * inside(lengths, x.shape[1])[..., None]


class STNDTNet(SequenceNet):
    """Spatiotemporal layers between read-in and readout.

    There are as many channels as neurons, and a few more where the heads do not divide them, unless ``width`` says
    another number: held-out neurons enter as zeros, as the forward bins do. Channels attend by the time courses of
    their neurons' counts, or by those of the read-in's channels, where there is a width. Shorter sequences are filled
    up with zeros; longer ones, of traces, are read window by window.

    With an attention that sees nothing later (``context_forward_ms=0``) the channels of a step attend by their time
    courses up to it: the network then looks back only, and takes as many times the memory as a trial has steps.

    Args:
        spec: the description of the data.
        readin: what is read of a step.
        readout: how rates are read out.
        width: channels D; None is one for each neuron.
        layers: spatiotemporal layers.
        attention_heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        step_ms: width of a step; None is one bin.
        scaled_init: let the temporal blocks' weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        attention: how far the attention over time looks.
        dropout: by place.
        contrast: the contrastive term; its views of a batch are drawn in training.
        fixed_lag_ms: of a causal network, how much later a bin is read, see :class:`Steps`.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: heads that do not divide the width.
    """

    causal_words = "model.attention.context_forward_ms=0"
    not_by_bins = "its channels attend to each other by the time courses of whole trials"

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
        scaled_init: bool,
        attention: Attention,
        dropout: Dropouts,
        contrast: Contrast,
        fixed_lag_ms: float = 0,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        encoder = Layers(layers, attention_heads, feedforward, scaled_init)
        steps = Steps.of(spec, step_ms, causal=attention.causal, lag_ms=fixed_lag_ms)
        size = width or round_up_to_heads(spec.n_neurons, attention_heads)
        # its weights are drawn first: a seed gives the same network as in earlier versions
        reads_out = readout.build(spec, steps, size, names, small_weights)
        reads_in = readin.build(spec, steps, size)
        core = STNDTCore(reads_in.width, size, steps, encoder, attention=attention, dropout=dropout)
        super().__init__(steps, reads_in, core, reads_out, fixed_length=True)
        self.channels_are_neurons, self.temperature = width is None, contrast.temperature
        views = RandomMasking("full", ratio=contrast.ratio, token_ratio=0.5, random_ratio=0.5)
        self.views = views if contrast.weight else None

    def encode(self, inputs: Tensor, observed: Tensor | None = None) -> Tensor:
        """(B, T, N_in) -> (B, S, width) with S for all T + F bins, however short the inputs are."""
        return self.core(*self.read(inputs, observed), self.lengths(observed))

    def embed(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, N_in) -> steps (B, S, width) and time courses (B, width, S), without positions."""
        x, courses = self.read(inputs, observed)
        return x, self.core.embed_courses(courses)

    def read(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, N_in) -> steps, and those whose time courses channels attend by, (B, S, width) both."""
        steps = self.readin.in_steps(inputs, self.steps.n_bins + self.steps.n_forward, observed)
        x = self.core.fill_up(self.readin.embed(steps, inputs.shape[1], observed))
        courses = self.core.fill_up(steps) if self.channels_are_neurons else x
        return x * math.sqrt(self.core.width), until_end(courses, self.lengths(observed))

    def _run_step(self, sums: Tensor, share: Tensor, state: State) -> State:
        channels, readin = self.readin.step(sums, share, of_part(state, "readin"))
        x = self.core.fill_up(channels)
        courses = self.core.fill_up(self.readin.in_step(sums, share)) if self.channels_are_neurons else x
        latents, core = self.core.step(x * math.sqrt(self.core.width), courses, of_part(state, "core"))
        return {"latents": latents[:, 0], **under("readin", readin), **under("core", core)}

    def extra_losses(self, inputs: Tensor, observed: Tensor | None = None) -> dict[str, Tensor]:
        """The contrastive losses of two views of each trial: of their embedded steps, and of their time courses."""
        if self.views is None:
            return {}
        first, second = (self.embed(self.views(inputs)[0], observed) for _ in range(2))
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
        for net in self.networks:
            configure_masking(net.views, block=net.steps.stride, kind=spec.kind)
        self.contrast = contrast

    def weight_loss_terms(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The contrastive term by its weight."""
        return self.contrast.weight * sum(terms.values())
