"""Recurrent blocks: networks that read a sequence in both directions, and single steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.nn.padding import run_recurrent

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}


class TwoWay(nn.Module):
    """A recurrent network of both directions whose states are averaged, not stacked: as wide as one direction.

    Args:
        n_in: input channels.
        hidden: units per direction, the width of the output.
        cell: ``lstm``, ``gru`` or ``rnn`` (tanh).
        layers: stacked layers; the lower ones hand on both directions.
        dropout: between layers.

    Raises:
        ValueError: no such cell.
    """

    def __init__(self, n_in: int, hidden: int, *, cell: str = "lstm", layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell={cell}: there are {', '.join(CELLS)}")
        self.rnn = CELLS[cell](
            n_in, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, n_in) -> (B, T, hidden), the mean of the forward and the backward state.

        Args:
            inputs: of all trials.
            lengths: (B,) bins of each trial; None where all have T.
        """
        states, _ = run_recurrent(self.rnn, inputs, lengths)
        return states.unflatten(2, (2, -1)).mean(2)


def mish_mlp(n_in: int, hidden: int, n_out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Three linear maps, each followed by Mish; dropout before the last.

    Args:
        n_in: input channels.
        hidden: width of the two layers in between.
        n_out: output channels.
        dropout: share of the second layer's units that are dropped.
    """
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.Mish(),
        nn.Linear(hidden, hidden),
        nn.Mish(),
        nn.Dropout(dropout),
        nn.Linear(hidden, n_out),
        nn.Mish(),
    )


def gru_step(cell: nn.GRUCell, drive: Tensor, state: Tensor) -> Tensor:
    """One step of a GRU whose input has been projected already: ``cell(x, state)`` with ``drive = W x + b``.

    What enters all steps can so be projected for all of them at once, and the step takes few kernels.

    Args:
        cell: with H units.
        drive: (B, 3H), ``x @ cell.weight_ih.T + cell.bias_ih``; or (3H,) for an input that is always zero.
        state: (B, H).

    Returns:
        (B, H) the next state.
    """
    size = cell.hidden_size
    # in mixed precision the products alone are in half of it
    recurrent = torch.addmm(cell.bias_hh, state, cell.weight_hh.t()).to(state.dtype)
    drive_gates, drive_new = drive.to(state.dtype).split((2 * size, size), -1)
    gates, new = recurrent.split((2 * size, size), -1)
    reset, keep = (drive_gates + gates).sigmoid().chunk(2, -1)
    return torch.lerp(torch.addcmul(drive_new, reset, new).tanh(), state, keep)


def lstm_step(cell: nn.LSTMCell, drive: Tensor, state: Tensor) -> Tensor:
    """One step of an LSTM whose input has been projected already, see :func:`gru_step`.

    Args:
        cell: with H units.
        drive: (B, 4H).
        state: (B, 2H), the output and behind it the cell's own state.

    Returns:
        (B, 2H) the next state.
    """
    output, memory = state.chunk(2, -1)
    add, keep, new, show = (drive + F.linear(output, cell.weight_hh, cell.bias_hh)).chunk(4, -1)
    memory = keep.sigmoid() * memory + add.sigmoid() * new.tanh()
    return torch.cat([show.sigmoid() * memory.tanh(), memory], dim=-1)


def rnn_step(cell: nn.RNNCell, drive: Tensor, state: Tensor) -> Tensor:
    """One step of a network of tanh units whose input has been projected already, (B, H); see :func:`gru_step`."""
    return (drive + F.linear(state, cell.weight_hh, cell.bias_hh)).tanh()


def init_gru(rnn: nn.RNNBase | nn.RNNCellBase) -> None:
    """LFADS's start: weights of standard deviation ``1 / sqrt(inputs)``, gates that are open, all else zero.

    Args:
        rnn: an ``nn.GRU`` or ``nn.GRUCell``.
    """
    with torch.no_grad():
        for name, weight in rnn.named_parameters():
            if name.startswith("weight"):
                weight.normal_(std=weight.shape[1] ** -0.5)
            else:
                weight.zero_()
                if name.startswith("bias_ih"):
                    weight[: 2 * rnn.hidden_size] = 1.0
