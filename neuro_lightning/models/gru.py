"""The Makin lab's benchmark winner: a small bidirectional GRU with coordinated dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.models.base import PopulationModule


class GRUNet(nn.Module):
    """Counts of the held-in neurons -> GRU -> linear readout -> log-rates of all neurons in all bins.

    The forward bins enter as zeros: a bidirectional network sees that they are empty, a causal one runs on by itself.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_forward: forward bins F.
        hidden: units per layer and direction.
        layers: stacked GRU layers.
        bidirectional: False makes the network causal: bin t depends on bins up to t only.
        dropout: on the input, between layers, and before the readout.
        mean_rates: (N,) spikes per bin; the readout starts there.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_forward: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        bidirectional: bool = True,
        dropout: Sequence[float] = (0.5, 0.5, 0.5),
        mean_rates: Sequence[float] = (),
    ) -> None:
        super().__init__()
        at_input, between, at_readout = dropout
        self.n_forward = n_forward
        self.input_dropout = nn.Dropout(at_input)
        self.gru = nn.GRU(
            n_in,
            hidden,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=between if layers > 1 else 0.0,
        )
        self.readout_dropout = nn.Dropout(at_readout)
        self.readout = nn.Linear(hidden * (2 if bidirectional else 1), n_neurons)
        if len(mean_rates):
            with torch.no_grad():
                self.readout.bias.copy_(torch.tensor(mean_rates).clamp_min(1e-4).log())

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and latents (B, L, hidden x directions)."""
        steps = F.pad(self.input_dropout(inputs), (0, 0, 0, self.n_forward))
        latents, _ = self.gru(steps)
        return {"log_rates": self.readout(self.readout_dropout(latents)), "latents": latents}


class GRU(PopulationModule):
    """A GRU trained to predict the spikes that it was not shown.

    The Makin lab's RNNf (repository bryanjw01/makin_lab_nlb_2022): two bidirectional layers of 64, three dropouts,
    coordinated dropout; winner of mc_rtt and area2_bump in the benchmark's second phase.

    Args:
        spec: what to know of the data.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        bidirectional: False for a causal model.
        input_dropout: dropout on the input.
        layer_dropout: dropout between layers.
        readout_dropout: dropout before the readout.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int,
        layers: int,
        bidirectional: bool,
        input_dropout: float,
        layer_dropout: float,
        readout_dropout: float,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        net = GRUNet(
            spec.n_in,
            spec.n_neurons,
            spec.n_forward,
            hidden=hidden,
            layers=layers,
            bidirectional=bidirectional,
            dropout=(input_dropout, layer_dropout, readout_dropout),
            mean_rates=spec.mean_rates,
        )
        super().__init__(net, spec, masking=masking, optimizer=optimizer, scheduler=scheduler)
