"""The Makin lab's Neural RoBERTa: a bidirectional GRU whose states attend to each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import EncoderLayer
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps


class NeuralRobertaNet(nn.Module):
    """Counts of the held-in neurons -> GRU -> linear -> encoder layers of RoBERTa -> linear -> log-rates.

    Of traces the readout gives the expected values themselves. The forward bins enter as zeros. The layers have no
    positions: the GRU's states know where they are. Steps may be coarser than bins, as in the GRU by itself.

    Args:
        spec: the description of the data.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        encoder_layers: RoBERTa's layers, normalised after each block; their hidden dense layer has 2 D units.
        heads: of the attention; they divide the width.
        width: channels D of the encoder layers; None takes one for each neuron, rounded up to what the heads divide.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        dropout: on the input, between GRU layers, after the GRU, and before the readout.
        encoder_dropout: inside the encoder layers.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: there is no head, or the heads do not divide the width.
    """

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
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ConfigError(f"model.heads={heads}: there must be at least one")
        width = width or -(-spec.n_neurons // heads) * heads
        self.n_forward, self.stride, self.names = spec.n_forward, bins_in_step(step_ms, spec.bin_ms), tuple(names)
        between = dropout if layers > 1 else 0.0
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(spec.n_in, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.transform = nn.Linear(2 * hidden, width)
        self.encoder = nn.Sequential(
            *(
                EncoderLayer(width, heads, 2 * width, encoder_dropout, pre_norm=False, activation="gelu")
                for _ in range(encoder_layers)
            )
        )
        self.readout = nn.Linear(width, spec.n_neurons * len(self.names))
        start_at_mean_rates(self.readout, spec.mean_rates, log=names[0] == "log_rates", shrink=0.1)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, width)."""
        n_total = inputs.shape[1] + self.n_forward
        states, _ = self.gru(to_steps(self.dropout(inputs), n_total, self.stride))
        latents = self.encoder(self.transform(self.dropout(states)))
        values = F.linear(self.dropout(latents), self.readout.weight)
        output = split_readout(to_bins(values, n_total, self.stride) + self.readout.bias, self.names)
        return output if self.training else {**output, "latents": to_bins(latents, n_total, self.stride)}


class NeuralRoberta(SequenceModel):
    """Recurrence first, attention second.

    The second half of the Makin lab's benchmark entry (repository bryanjw01/makin_lab_nlb_2022): the mean of its
    rates and the GRU's won mc_rtt. As published it is a GRU of 40 units and one layer of RoBERTa as wide as there are
    neurons. RoBERTa's position embeddings were left out there too. Our layers also drop hidden units, as most
    transformers do. Its arguments are those of :class:`SequenceModel` and :class:`NeuralRobertaNet`.
    """

    network_class = NeuralRobertaNet
