"""The Spatiotemporal Neural Data Transformer: steps attend to each other, and so do neurons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, with_link
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.contrastive import info_nce
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.attention import SinusoidalPositions, context_mask, steps_of_context
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.masking import RandomMasking, suit
from neuro_lightning.nn.mean_rates import begin_at
from neuro_lightning.nn.spatial_attention import SpatiotemporalLayer
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps
from neuro_lightning.nn.windows import in_windows


class STNDTNet(nn.Module):
    """Counts of the held-in neurons in steps -> spatiotemporal layers -> log-rates of all neurons.

    There are as many channels as neurons, and a few more where the heads do not divide them: held-out ones enter as
    zeros, as the forward bins do. In the first layer channels attend to each other by the embedded time courses of
    their neurons, in later ones by their own. Of traces the readout gives the expected values themselves.

    Time courses have a fixed length. Shorter sequences are filled up with zeros; longer ones, of traces, are read
    window by window.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_bins: observed bins T.
        n_forward: forward bins F.
        layers: spatiotemporal layers.
        heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        context: steps that a step sees (ahead, back), None without limit; neurons attend by whole trials.
        scaled_init: let the temporal blocks' weights begin at ``0.67 * layers ** -1/4`` of Xavier's.
        stride: bins in a step.
        dropout: after the embedding, in the layers, before the readout.
        views: draws views of a batch in training, (B, T, N_in) -> (view, mask); None leaves the contrastive term out.
        temperature: of that term.
        mean_rates: (N,) spikes per bin; the readout starts there.
        kind: ``spikes`` or ``traces``.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_bins: int,
        n_forward: int,
        *,
        layers: int = 4,
        heads: int = 2,
        feedforward: int = 128,
        context: tuple[int | None, int | None] = (None, None),
        scaled_init: bool = True,
        stride: int = 1,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
        views: nn.Module | None = None,
        temperature: float = 0.07,
        mean_rates: Sequence[float] = (),
        kind: str = "spikes",
    ) -> None:
        super().__init__()
        width, steps = -(-n_neurons // heads) * heads, -(-(n_bins + n_forward) // stride)
        self.n_bins, self.n_forward, self.stride, self.kind = n_bins, n_forward, stride, kind
        self.width, self.views, self.temperature = width, views, temperature
        self.embedder, self.course_embedder = nn.Linear(n_in, width), nn.Linear(steps, steps)
        self.positions, self.course_positions = SinusoidalPositions(steps, width), SinusoidalPositions(width, steps)
        self.register_buffer("allowed", context_mask(steps, *context), persistent=False)
        at_embedding, inside, at_readout = dropout
        scale = 0.67 * layers**-0.25 if scaled_init else None
        self.layers = nn.ModuleList(
            SpatiotemporalLayer(width, steps, heads, feedforward, inside, init_scale=scale) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.embedding_dropout, self.readout_dropout = Dropout(at_embedding), Dropout(at_readout)
        self.readout = nn.Linear(width, n_neurons)
        nn.init.uniform_(self.readout.weight, -0.01, 0.01)
        nn.init.zeros_(self.readout.bias)
        begin_at(self.readout, mean_rates, log=kind == "spikes")

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, width)."""
        if inputs.shape[1] > self.n_bins and not self.n_forward:
            return in_windows(self, inputs, self.n_bins)
        n_total = inputs.shape[1] + self.n_forward
        latents = self._encode(*self._embed(inputs))
        values = F.linear(self.readout_dropout(latents), self.readout.weight)
        values, latents = (to_bins(x, self._n_total, self.stride)[:, :n_total] for x in (values, latents))
        output = with_link(values + self.readout.bias, self.kind)
        if not self.training:
            return {**output, "latents": latents}
        return output if self.views is None else {**output, "losses": {"contrast": self._contrast(inputs)}}

    @property
    def _n_total(self) -> int:
        return self.n_bins + self.n_forward

    def _embed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N_in) -> steps (B, S, width) and time courses (B, width, S), without positions."""
        steps = to_steps(inputs, self._n_total, self.stride)
        courses = F.pad(steps, (0, self.width - steps.shape[2])).mT
        return (
            self.embedder(steps) * math.sqrt(self.width),
            self.course_embedder(courses) * math.sqrt(courses.shape[2]),
        )

    def _encode(self, x: Tensor, courses: Tensor) -> Tensor:
        x, courses = (
            self.embedding_dropout(at(y)) for at, y in ((self.positions, x), (self.course_positions, courses))
        )
        for layer in self.layers:
            x = layer(x, courses, self.allowed)
            courses = x.mT
        return self.norm(x)

    def _contrast(self, inputs: Tensor) -> Tensor:
        """How hard two views of the same trial are to match, by their embedded steps and by their time courses."""
        first, second = (self._embed(self.views(inputs)[0]) for _ in range(2))
        return sum(info_nce(one, other, self.temperature) for one, other in zip(first, second, strict=True))


class STNDT(PopulationModule):
    """A transformer over time whose channels also attend to each other.

    Le & Shlizerman 2022, "STNDT: Modeling neural population activity with spatiotemporal transformers" (repository
    trungle93/STNDT): the best single model of the Neural Latents Benchmark on mc_maze. Its contrastive term, of
    little use by the paper's own ablation, is off unless ``contrast`` is set; its views are drawn from what the
    network is shown, the paper's from the unmasked counts.

    Args:
        spec: what to know of the data.
        layers: spatiotemporal layers.
        heads: of both attentions.
        feedforward: units of the layers' hidden dense layers.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        context_forward_ms: how far ahead a step sees, rounded up to steps; None without limit.
        context_backward_ms: how far back.
        scaled_init: let encoder weights begin small, by the number of layers.
        embedding_dropout: dropout after the embedding.
        layer_dropout: dropout in the layers.
        readout_dropout: dropout before the readout.
        contrast: weight of the contrastive term; 0 leaves it out.
        contrast_ratio: share of the counts that a view hides or replaces.
        temperature: of the contrastive term.
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
        contrast: float = 0.0,
        contrast_ratio: float = 0.1,
        temperature: float = 0.07,
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
            suit(mask, block=stride, kind=spec.kind)
        net = STNDTNet(
            spec.n_in,
            spec.n_neurons,
            spec.n_bins,
            spec.n_forward,
            layers=layers,
            heads=heads,
            feedforward=feedforward,
            context=steps_of_context(context_forward_ms, context_backward_ms, step),
            scaled_init=scaled_init,
            stride=stride,
            dropout=(embedding_dropout, layer_dropout, readout_dropout),
            views=views,
            temperature=temperature,
            mean_rates=spec.mean_rates,
            kind=spec.kind,
        )
        super().__init__(net, spec, masking=masking, optimizer=optimizer, scheduler=scheduler)
        self.contrast = contrast

    def weigh(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The contrastive term by its weight."""
        return self.contrast * sum(terms.values())
