"""Initialise readouts at the mean rates, which training would otherwise have to learn first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

FLOOR = 1e-4  # expected value in a bin of a neuron that was never seen to fire


@torch.no_grad()
def start_at_mean_rates(readout: nn.Linear, mean_rates: Sequence[float], *, log: bool, shrink: float = 1.0) -> None:
    """Set a readout's biases to the mean rates, and shrink its weights.

    Args:
        readout: to N neurons first, and to whatever else is said of them.
        mean_rates: (N,) expected values in a bin; empty leaves the readout as it is.
        log: the readout gives log-rates.
        shrink: factor of the weights.
    """
    if len(mean_rates):
        rates = torch.tensor(mean_rates)
        readout.weight *= shrink
        readout.bias[: len(rates)] = rates.clamp_min(FLOOR).log() if log else rates
