"""The Makin lab's Neural RoBERTa: a bidirectional GRU whose states attend to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.attention import EncoderLayer
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps


class NeuralRobertaNet(nn.Module):
    """Counts of the held-in neurons -> GRU -> linear -> encoder layers of RoBERTa -> linear -> log-rates.

    Of traces the readout gives the expected values themselves. The forward bins enter as zeros. The layers have no
    positions: the GRU's states know where they are. Steps may be coarser than bins, as in the GRU by itself.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_forward: forward bins F.
        width: channels D of the encoder layers.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        encoder_layers: RoBERTa's layers, normalised after each block; their hidden dense layer has 2 D units.
        heads: of the attention; they divide the width.
        stride: bins in a step.
        dropout: on the input, between GRU layers, after the GRU, and before the readout.
        encoder_dropout: inside the encoder layers.
        mean_rates: (N,) spikes per bin; the readout starts there.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_forward: int,
        *,
        width: int,
        hidden: int = 40,
        layers: int = 2,
        encoder_layers: int = 1,
        heads: int = 2,
        stride: int = 1,
        dropout: float = 0.47,
        encoder_dropout: float = 0.1,
        mean_rates: Sequence[float] = (),
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        super().__init__()
        self.n_forward, self.stride, self.names = n_forward, stride, tuple(names)
        between = dropout if layers > 1 else 0.0
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(n_in, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.transform = nn.Linear(2 * hidden, width)
        self.encoder = nn.Sequential(
            *(
                EncoderLayer(width, heads, 2 * width, encoder_dropout, pre_norm=False, activation="gelu")
                for _ in range(encoder_layers)
            )
        )
        self.readout = nn.Linear(width, n_neurons * len(self.names))
        start_at_mean_rates(self.readout, mean_rates, log=names[0] == "log_rates", shrink=0.1)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, width)."""
        n_total = inputs.shape[1] + self.n_forward
        states, _ = self.gru(to_steps(self.dropout(inputs), n_total, self.stride))
        latents = self.encoder(self.transform(self.dropout(states)))
        values = F.linear(self.dropout(latents), self.readout.weight)
        output = split_readout(to_bins(values, n_total, self.stride) + self.readout.bias, self.names)
        return output if self.training else {**output, "latents": to_bins(latents, n_total, self.stride)}


class NeuralRoberta(PopulationModule):
    """Recurrence first, attention second.

    The second half of the Makin lab's benchmark entry (repository bryanjw01/makin_lab_nlb_2022): the mean of its
    rates and the GRU's won mc_rtt. As published it is a GRU of 40 units and one layer of RoBERTa as wide as there are
    neurons. RoBERTa's position embeddings were left out there too. Our layers also drop hidden units, as most
    transformers do.

    Args:
        spec: the description of the data.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        encoder_layers: layers of attention after the GRU.
        heads: of the attention.
        width: channels of the attention; None takes one for each neuron, and a few more where heads do not divide it.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        dropout: on the input, between GRU layers, after the GRU, and before the readout.
        encoder_dropout: inside the encoder layers.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for traces.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: there is no head, or the heads do not divide the width.
    """

    kinds = ("spikes", "traces")

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int,
        layers: int,
        encoder_layers: int,
        heads: int,
        width: int | None,
        step_ms: int | None,
        dropout: float,
        encoder_dropout: float,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if heads < 1:
            raise ConfigError(f"model.heads={heads}: there must be at least one")
        net = NeuralRobertaNet(
            spec.n_in,
            spec.n_neurons,
            spec.n_forward,
            width=width or -(-spec.n_neurons // heads) * heads,
            hidden=hidden,
            layers=layers,
            encoder_layers=encoder_layers,
            heads=heads,
            stride=bins_in_step(step_ms, spec.bin_ms),
            dropout=dropout,
            encoder_dropout=encoder_dropout,
            mean_rates=spec.mean_rates,
            names=readout_names(loss, spec),
        )
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)
