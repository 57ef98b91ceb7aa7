"""The Makin lab's Neural RoBERTa: a bidirectional GRU whose states attend to each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.attention import EncoderLayer, round_up_to_heads
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.padding import attended, run_recurrent
from neuro_lightning.nn.rate_readout import ReadoutSettings, shrink_weights
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.steps import Steps


class RecurrentAttentionCore(nn.Module):
    """Channels of steps -> bidirectional GRU -> linear map -> encoder layers of RoBERTa.

    The layers have no positions: the GRU's states know where they are.

    Args:
        channels: C of the input.
        width: channels D of the encoder layers.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        encoder_layers: RoBERTa's layers, normalised after each block; their hidden dense layer has 2 D units.
        heads: of the attention; they divide the width.
        dropout: between GRU layers, and after the GRU.
        encoder_dropout: inside the encoder layers.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        hidden: int,
        layers: int,
        encoder_layers: int,
        heads: int,
        dropout: float,
        encoder_dropout: float,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(channels, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.transform = nn.Linear(2 * hidden, width)
        self.encoder = nn.Sequential(
            *(
                EncoderLayer(width, heads, 2 * width, encoder_dropout, pre_norm=False, activation="gelu")
                for _ in range(encoder_layers)
            )
        )

    def forward(self, steps: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, S, C), and the steps of each trial (B,) -> (B, S, width)."""
        x = self.transform(self.dropout(run_recurrent(self.gru, steps, lengths)[0]))
        allowed = None if lengths is None else attended(lengths, x.shape[1])
        for layer in self.encoder:
            x = layer(x, allowed)
        return x


class NeuralRobertaNet(SequenceNet):
    """A GRU whose states attend to each other, between read-in and readout.

    Args:
        spec: the description of the data.
        readin: what is read of a step.
        readout: how rates are read out.
        width: channels D of the encoder layers; None takes one for each neuron, rounded up to what the heads divide.
        step_ms: width of a step, a multiple of the bin width; None for one step a bin, as published.
        hidden: GRU units per layer and direction.
        layers: stacked GRU layers.
        encoder_layers: of RoBERTa.
        attention_heads: of the attention.
        dropout: between GRU layers, and after the GRU.
        encoder_dropout: inside the encoder layers.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: there is no head, or the heads do not divide the width.
    """

    not_by_bins = "its GRU reads trials in both directions"

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings,
        readout: ReadoutSettings,
        width: int | None,
        step_ms: int | None,
        hidden: int,
        layers: int,
        encoder_layers: int,
        attention_heads: int,
        dropout: float,
        encoder_dropout: float,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        width = width or round_up_to_heads(spec.n_neurons, attention_heads)
        steps = Steps.of(spec, step_ms)
        reader = readin.build(spec, steps, hidden)
        core = RecurrentAttentionCore(
            reader.width,
            width,
            hidden=hidden,
            layers=layers,
            encoder_layers=encoder_layers,
            heads=attention_heads,
            dropout=dropout,
            encoder_dropout=encoder_dropout,
        )
        super().__init__(steps, reader, core, readout.build(spec, steps, width, names, shrink_weights))


class NeuralRoberta(SequenceModel):
    """Recurrence first, attention second.

    The second half of the Makin lab's benchmark entry (repository bryanjw01/makin_lab_nlb_2022): the mean of its
    rates and the GRU's won mc_rtt. As published it is a GRU of 40 units and one layer of RoBERTa as wide as there are
    neurons. RoBERTa's position embeddings were left out there too. Our layers also drop hidden units, as most
    transformers do. Its arguments are those of :class:`SequenceModel` and :class:`NeuralRobertaNet`.
    """

    network_class = NeuralRobertaNet
