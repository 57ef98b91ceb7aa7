"""From the units that a network's responses are in to those of the recording."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec


class ResponseUnit(nn.Module):
    """Multiplies what a network gives by each neuron's ``response_unit``; without one it is passed through.

    The units are saved with the description of the data, and not with the weights.

    Args:
        spec: the description of the data.
    """

    unit: Tensor | None

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        unit = torch.tensor(spec.response_unit) if spec.response_unit else None
        self.register_buffer("unit", unit, persistent=False)

    def forward(self, rates: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        return rates if self.unit is None else rates * self.unit
