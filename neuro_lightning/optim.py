"""Learning rate schedules, each a function of the optimizer and the number of steps of the whole run."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0) -> dict[str, Any]:
    """Linear warm-up, then half a cosine down to a share of the peak.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up.
        final: learning rate at the end, as a share of the peak.
    """
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def plateau(
    optimizer: Optimizer, total_steps: int, *, monitor: str, mode: str, factor: float = 0.5, patience: int = 10
) -> dict[str, Any]:
    """Lower the learning rate when a metric stops improving.

    Args:
        optimizer: the optimizer to steer.
        total_steps: not used; every schedule takes it.
        monitor: the metric's name, such as ``val/co_bps``.
        mode: ``max`` or ``min``.
        factor: what the learning rate is multiplied by.
        patience: validations without improvement before that.
    """
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
    return {"scheduler": scheduler, "monitor": monitor, "interval": "epoch", "strict": False}
