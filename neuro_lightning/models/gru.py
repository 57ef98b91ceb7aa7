"""The Makin lab's benchmark winner: a small bidirectional GRU with coordinated dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.smoothed import kernels_in_steps, smoothed_copies
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps


class GRUNet(nn.Module):
    """Counts of the held-in neurons -> GRU -> linear readout -> log-rates of all neurons in all bins.

    Of traces the readout gives the expected values themselves.

    The forward bins enter as zeros: a bidirectional network sees that they are empty, a causal one runs on by itself.
    The recurrent steps may be coarser than the bins: counts are summed over ``stride`` bins, and log-rates are
    interpolated between the steps' centers. Rates change slowly, and a network with a quarter of the steps trains
    three times as fast.

    Args:
        spec: the description of the data.
        hidden: units per layer and direction.
        layers: stacked GRU layers.
        bidirectional: False makes the network causal: bin t depends on bins up to t only. With coarser steps the bins
            of a step are then read from the step before.
        step_ms: width of a recurrent step, a multiple of the bin width; None for one step a bin, as published.
        input_dropout: dropout on the input.
        layer_dropout: dropout between layers.
        readout_dropout: dropout before the readout.
        smoothed_ms: standard deviations of Gaussian kernels; counts smoothed with each enter beside the counts.
        projection: units to which the input is reduced linearly before the first layer; None leaves it as it is.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int,
        layers: int,
        bidirectional: bool,
        step_ms: int | None,
        input_dropout: float,
        layer_dropout: float,
        readout_dropout: float,
        smoothed_ms: Sequence[float] = (),
        projection: int | None = None,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        super().__init__()
        self.names, self.stride = tuple(names), bins_in_step(step_ms, spec.bin_ms)
        self.n_forward, self.causal = spec.n_forward, not bidirectional
        self.smoothed = kernels_in_steps(smoothed_ms, self.stride * spec.bin_ms)
        self.input_dropout = Dropout(input_dropout)
        width = spec.n_in * (1 + len(self.smoothed))
        self.projection = nn.Linear(width, projection) if projection else nn.Identity()
        self.gru = nn.GRU(
            projection or width,
            hidden,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=layer_dropout if layers > 1 else 0.0,
        )
        self.readout_dropout = Dropout(readout_dropout)
        self.readout = nn.Linear(hidden * (2 if bidirectional else 1), spec.n_neurons * len(self.names))
        start_at_mean_rates(self.readout, spec.mean_rates, log=names[0] == "log_rates", shrink=0.1)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, hidden x directions)."""
        n_total = inputs.shape[1] + self.n_forward
        steps = self._with_smoothed(to_steps(self.input_dropout(inputs), n_total, self.stride), inputs.shape[1])
        latents, _ = self.gru(self.projection(steps))
        log_rates = F.linear(self.readout_dropout(latents), self.readout.weight)
        log_rates = to_bins(log_rates, n_total, self.stride, causal=self.causal)
        log_rates = log_rates + self.readout.bias  # also of the bins that no step precedes
        output = split_readout(log_rates, self.names)
        if self.training:
            return output
        return {**output, "latents": to_bins(latents, n_total, self.stride, causal=self.causal)}

    def _with_smoothed(self, steps: Tensor, n_bins: int) -> Tensor:
        """Steps (B, S, N_in) beside their smoothed copies, which lean on the observed bins alone."""
        observed = -(-n_bins // self.stride)
        return torch.cat([steps, *smoothed_copies(steps, observed, self.smoothed, causal=self.causal)], dim=2)


class GRU(SequenceModel):
    """A GRU trained to predict the spikes that it was not shown.

    The Makin lab's RNNf (repository bryanjw01/makin_lab_nlb_2022): two bidirectional layers of 64, three dropouts,
    coordinated dropout; winner of mc_rtt and area2_bump in the benchmark's second phase. Its arguments are those of
    :class:`SequenceModel` and :class:`GRUNet`.
    """

    network_class = GRUNet
