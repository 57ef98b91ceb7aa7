"""The Makin lab's benchmark winner: a small bidirectional GRU with coordinated dropout."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.padding import run_recurrent
from neuro_lightning.nn.rate_readout import ReadoutSettings, shrink_weights
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.stepping import State
from neuro_lightning.nn.steps import Steps


class GRUCore(nn.Module):
    """Channels of steps -> stacked GRU layers -> their states.

    Args:
        channels: C of the input.
        hidden: units per layer and direction.
        layers: stacked layers.
        bidirectional: whether states also depend on later steps.
        dropout: between layers.
    """

    def __init__(self, channels: int, hidden: int, layers: int, *, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(channels, hidden, layers, batch_first=True, bidirectional=bidirectional, dropout=between)
        self.width = hidden * (1 + bidirectional)

    def forward(self, steps: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, S, C), and the steps of each trial (B,) -> states (B, S, hidden x directions)."""
        return run_recurrent(self.gru, steps, lengths)[0]

    def initial_state(self, batch: int) -> State:
        """The states of all layers before the first step, of a network that looks back only."""
        return {"hidden": self.gru.weight_hh_l0.new_zeros(self.gru.num_layers, batch, self.gru.hidden_size)}

    def step(self, steps: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, 1, C) and the state -> states (B, 1, hidden) of the last layer, and the state after it."""
        states, hidden = self.gru(steps, state["hidden"])
        return states, {"hidden": hidden}


class GRUNet(SequenceNet):
    """A GRU between read-in and readout.

    A bidirectional network sees that the forward bins are empty, a causal one runs on by itself. The recurrent steps
    may be coarser than the bins: rates change slowly, and a network with a quarter of the steps trains three times as
    fast.

    Args:
        spec: the description of the data.
        readin: what is read of a step.
        readout: how rates are read out.
        hidden: units per layer and direction.
        layers: stacked GRU layers.
        bidirectional: False makes the network causal: bin t depends on bins up to t only. With coarser steps the bins
            of a step are then read from the step before.
        step_ms: width of a recurrent step, a multiple of the bin width; None for one step a bin, as published.
        layer_dropout: dropout between layers.
        fixed_lag_ms: of a causal network, how much later a bin is read, see :class:`Steps`.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    causal_words = "model.bidirectional=false"

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings,
        readout: ReadoutSettings,
        hidden: int,
        layers: int,
        bidirectional: bool,
        step_ms: int | None,
        layer_dropout: float,
        fixed_lag_ms: float = 0,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        steps = Steps.of(spec, step_ms, causal=not bidirectional, lag_ms=fixed_lag_ms)
        reader = readin.build(spec, steps, hidden)
        core = GRUCore(reader.width, hidden, layers, bidirectional=bidirectional, dropout=layer_dropout)
        super().__init__(steps, reader, core, readout.build(spec, steps, core.width, names, shrink_weights))


class GRU(SequenceModel):
    """A GRU trained to predict the spikes that it was not shown.

    The Makin lab's RNNf (repository bryanjw01/makin_lab_nlb_2022): two bidirectional layers of 64, three dropouts,
    coordinated dropout; winner of mc_rtt and area2_bump in the benchmark's second phase. Its arguments are those of
    :class:`SequenceModel` and :class:`GRUNet`.
    """

    network_class = GRUNet
