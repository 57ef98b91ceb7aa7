"""Recurrent blocks that read a sequence in both directions."""

from __future__ import annotations

from torch import Tensor, nn

CELLS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}


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

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, n_in) -> (B, T, hidden), the mean of the forward and the backward state."""
        states, _ = self.rnn(inputs)
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
