"""Where the eye looks moves what neurons see: from the pupil's position to a shift of all positions of a readout."""

from __future__ import annotations

from torch import Tensor, nn


class Shifter(nn.Module):
    """Pupil position (x, y) -> shift (x, y) of the readout's positions: three linear layers, each followed by a tanh.

    The ``MLPShifter`` of sinzlab/neuralpredictors, as in the Sensorium 2022 baseline with eye tracking (2-5-5-2).
    Unlike there it begins without a shift.

    Args:
        hidden: units of each hidden layer.
    """

    def __init__(self, hidden: int = 5) -> None:
        super().__init__()
        last = nn.Linear(hidden, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), last, nn.Tanh()
        )

    def forward(self, pupil: Tensor) -> Tensor:
        """(B, 2) pupil positions, z-scored -> (B, 2) shifts in the unit of the readout's positions."""
        return self.layers(pupil)
