"""Base class and settings of transformers over steps of time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.attention import context_mask, steps_of_context
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.relative_bias import RelativeBias, log_spaced
from neuro_lightning.nn.smoothed import kernels_in_steps, smoothed_copies
from neuro_lightning.nn.steps import bins_in_step, to_bins
from neuro_lightning.nn.windows import in_windows


@dataclass(frozen=True)
class Inputs:
    """Which inputs the network has at a step.

    Attributes:
        smoothed_ms: standard deviations of Gaussian kernels; counts smoothed with each enter beside the counts.
        raw_counts: False leaves the counts themselves out: what each layer passes on is then smooth from the start.

    Raises:
        ConfigError: there is no input.
    """

    smoothed_ms: Sequence[float] = ()
    raw_counts: bool = True

    def __post_init__(self) -> None:
        if not self.raw_counts and not self.smoothed_ms:
            raise ConfigError(
                "model.inputs.raw_counts=false leaves no input without model.inputs.smoothed_ms, such as [20,50,120]"
            )


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
        readout: before the readout.
    """

    embedding: float = 0.0
    layers: float = 0.0
    attention: float | None = None
    readout: float = 0.0


class StepTransformer(nn.Module, ABC):
    """Counts of the held-in neurons -> latents of steps, which subclasses compute -> log-rates of all neurons in bins.

    Of traces the readout gives the expected values themselves, and sequences longer than T are read window by window.

    Args:
        spec: of the data: neurons, bins and bin width, and mean rates, at which the readout starts.
        width: channels D of the latents.
        heads: of the attention.
        layers: encoder layers.
        step_ms: width of a step, a multiple of the bin width; None is one bin.
        inputs: the inputs at a step.
        attention: how far the attention looks; 0 ms ahead makes the network causal: bin t depends on bins up to t only.
        dropout: after the embedding, in the layers, before the readout.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: there is no head or no layer, or a step is not a whole number of bins.
    """

    embedder: nn.Module  # of the subclass: channels of a step -> its width

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int,
        heads: int,
        layers: int,
        step_ms: int | None,
        inputs: Inputs,
        attention: Attention,
        dropout: Dropouts,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        if heads < 1 or layers < 1:
            raise ConfigError(f"model.heads={heads} and model.layers={layers} must be 1 at least")
        self.n_bins, self.n_forward, self.names = spec.n_bins, spec.n_forward, tuple(names)
        self.stride, self.width = bins_in_step(step_ms, spec.bin_ms), width
        self.step_ms, self.n_steps = self.stride * spec.bin_ms, -(-spec.n_total // self.stride)
        self.causal = attention.context_forward_ms == 0
        self.smoothed, self.raw_counts = kernels_in_steps(inputs.smoothed_ms, self.step_ms), inputs.raw_counts
        self.embedding_dropout, self.readout_dropout = Dropout(dropout.embedding), Dropout(dropout.readout)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, spec.n_neurons * len(self.names))
        nn.init.uniform_(self.readout.weight, -0.01, 0.01)
        nn.init.zeros_(self.readout.bias)
        start_at_mean_rates(self.readout, spec.mean_rates, log=names[0] == "log_rates")
        self.register_buffer("allowed", attention.mask(self.n_steps, self.step_ms), persistent=False)

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) counts -> latents (B, S, width) of all steps, and maybe of some after them."""

    def extra_losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """Terms of the training loss beside that of the rates, by name."""
        return {}

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, width)."""
        if inputs.shape[1] > self.n_bins and not self.n_forward:
            return in_windows(self, inputs, self.n_bins)
        n_total = inputs.shape[1] + self.n_forward
        latents = self.encode(inputs)
        values = self._in_bins(F.linear(self.readout_dropout(latents), self.readout.weight), n_total)
        output = split_readout(values + self.readout.bias, self.names)  # also of the bins that no step precedes
        if not self.training:
            return {**output, "latents": self._in_bins(latents, n_total)}
        losses = self.extra_losses(inputs)
        return {**output, "losses": losses} if losses else output

    def embedded_counts(self, inputs: Tensor, steps: Tensor, counts: Tensor | None = None) -> Tensor:
        """The embedded inputs of each step, before it is scaled by the root of the width.

        Args:
            inputs: (B, T, N_in) the observed bins.
            steps: (B, S, N_in) their sums in steps, see :func:`~neuro_lightning.nn.steps.to_steps`.
            counts: (B, S, C) in place of the steps' own counts.

        Returns:
            (B, S, width).
        """
        copies = smoothed_copies(steps, -(-inputs.shape[1] // self.stride), self.smoothed, causal=self.causal)
        shown = [steps if counts is None else counts, *copies] if self.raw_counts else copies
        return self.embedder(torch.cat(shown, dim=2))

    def _in_bins(self, steps: Tensor, n_total: int) -> Tensor:
        return to_bins(steps, n_total, self.stride, causal=self.causal)[:, :n_total]
