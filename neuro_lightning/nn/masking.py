"""Hiding a part of the input in training, so that a network cannot copy a spike to its own rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinatedDropout(nn.Module):
    """Zeroes a random share of the input's elements and scores the network on just these.

    An element that is hidden from the input is scored, an element that is shown is not: what the network says of a
    spike never saw this spike. The share is exact in every batch, as in the Makin lab's network
    (Keshtkaran & Pandarinath, NeurIPS 2019; repository bryanjw01/makin_lab_nlb_2022).

    Args:
        rate: the share of the elements that is hidden, 0 to 1.
        rescale: divide the shown elements by ``1 - rate``, so that the input keeps its mean.
    """

    def __init__(self, rate: float, rescale: bool = False) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"masking.rate must lie in [0, 1), not {rate}")
        self.rate, self.rescale = rate, rescale

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Hide elements of (B, T, N_in) inputs; returns the masked inputs and which elements are hidden, bool."""
        if self.rate == 0:
            return inputs, torch.ones_like(inputs, dtype=torch.bool)
        hide = round(self.rate * inputs.numel())
        order = torch.rand(inputs.numel(), device=inputs.device).argsort()
        hidden = torch.zeros(inputs.numel(), dtype=torch.bool, device=inputs.device)
        hidden[order[:hide]] = True
        hidden = hidden.view_as(inputs)
        shown = inputs / (1 - self.rate) if self.rescale else inputs
        return shown.masked_fill(hidden, 0.0), hidden
