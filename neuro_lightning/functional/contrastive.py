"""Contrastive loss: two views of a trial should be more similar than views of different trials."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """The InfoNCE loss of two views of each trial, in nats.

    Each of the 2 B views is a classification with 2 B - 1 classes, the other views; the logits are cosine similarities
    over the temperature, the right class is the view of the same trial (Chen et al. 2020, "SimCLR"). A batch of one
    trial has the loss 0.

    Args:
        first: (B, ...) features of one view of each trial; all axes after the first are one vector.
        second: the same of the other view.
        temperature: small values weight the most similar views most.

    Returns:
        The mean cross-entropy over the 2 B views, a scalar.
    """
    n = len(first)
    views = F.normalize(torch.cat([first.flatten(1), second.flatten(1)]), dim=1)
    itself = torch.eye(2 * n, dtype=torch.bool, device=views.device)
    logits = (views @ views.mT / temperature).masked_fill(itself, -torch.inf)
    twin = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(logits, twin)
