"""The losses of heads in training: of each a sum over what is known, its count, and its mean by its weight."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.nn.heads import Heads


def head_losses(heads: Heads | None, output: Output, batch: Batch, spec: DataSpec) -> dict[str, Tensor]:
    """The sum of each head's loss over what is known of a batch, and how many entries these are; empty without heads.

    Args:
        heads: of the network.
        output: of the network.
        batch: with the behavior.
        spec: the description of the data.
    """
    found: dict[str, Tensor] = {}
    for head in heads or ():
        total, count = head.loss(output["heads"][head.name], batch, spec.of_batch(batch))
        found |= {f"head_{head.name}_loss": total, f"head_{head.name}_count": count}
    return found


def weighted_heads(heads: Heads | None, losses: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> Tensor | float:
    """The mean losses of heads by their weights.

    Args:
        heads: of the network.
        losses: of :func:`head_losses`.
        means: the same, each the mean over all processes.
    """
    return sum(
        head.settings.weight * losses[f"head_{head.name}_loss"] / means[f"head_{head.name}_count"].clamp_min(1)
        for head in heads or ()
    )


def means_of_epoch(sums: Mapping[str, float], steps: int) -> dict[str, float]:
    """The losses of an epoch by the entries that they are sums over, and other terms by its steps.

    Args:
        sums: ``loss`` and ``count``, those of heads, and terms of the network's own.
        steps: of the epoch.

    Example:
        >>> means_of_epoch({"count": 10, "loss": 5.0, "kl": 4.0, "head_a_loss": 6.0, "head_a_count": 3}, steps=2)
        {'loss': 0.5, 'kl': 2.0, 'head_a_loss': 2.0}
    """
    counts = {"loss": "count", **{name: f"{name.removesuffix('_loss')}_count" for name in sums if _of_head(name)}}
    return {
        name: value / (max(sums[counts[name]], 1) if name in counts else steps)
        for name, value in sums.items()
        if name not in counts.values()
    }


def _of_head(name: str) -> bool:
    return name.startswith("head_") and name.endswith("_loss")
