"""What the heads of one or several models decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.ensemble.combine import Ensemble
from neuro_lightning.models.inference import predict_split
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.heads import Head, Heads


@dataclass(frozen=True)
class Decoded:
    """Behavior that heads have decoded.

    Attributes:
        values: by split and head: behavior (B, T, K) or a number of each trial (B,) in the physical unit, or the
            probability of each class (B, C).
        heads: of a model that has them all; None without any.
    """

    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    heads: Heads | None = None

    @property
    def classes(self) -> dict[str, list[float] | list[str]]:
        """The values of the classes of each head that decodes some."""
        return {head.name: list(head.classes) for head in self.heads or () if head.settings.kind == "class"}


def decode(
    members: Sequence[Path],
    data: PopulationDataModule,
    splits: Sequence[str],
    device: torch.device | str,
    *,
    session: str = "",
    trusted: Sequence[str] = (),
    ensemble: Ensemble | None = None,
) -> Decoded:
    """What the heads of a model decode; of several models the mean, with the weights that their rates have.

    Where each neuron has weights of its own, those of a head are their mean over neurons. Of classes the probabilities
    are averaged. A head that some members lack, or that decodes something else there, is left out.

    Args:
        members: checkpoints.
        data: what to decode.
        splits: which of its splits.
        device: where the networks run.
        session: the name of these data among the sessions that the members were trained on.
        trusted: packages of your own that the checkpoints may build from.
        ensemble: of the members; None for one.
    """
    shared: dict[str, Head] | None = None
    heads: Heads | None = None
    found: dict[str, dict[str, np.ndarray]] = {split: {} for split in splits}
    for path, weight in _weighted(members, ensemble):
        net = load_checkpoint(path, trusted=trusted).of_session(session).model.net
        heads = getattr(net, "heads", None)
        own = {head.name: head for head in heads or ()}
        shared = own if shared is None else {n: h for n, h in own.items() if n in shared and _same(h, shared[n])}
        if not shared:
            return Decoded()
        for split in splits:
            values, sums = decode_split(net, data, split, device), found[split]
            found[split] = {name: sums.get(name, 0.0) + weight * values[name] for name in shared}
    return Decoded(found, heads)


def decode_split(
    net: torch.nn.Module, data: PopulationDataModule, split: str, device: torch.device | str
) -> dict[str, np.ndarray]:
    """What the heads of a network decode of a split, by their names, float64; see :class:`Decoded`."""
    heads: dict[str, Head] = {head.name: head for head in getattr(net, "heads", None) or ()}
    if not heads:
        return {}
    found = predict_split(net, data, split, device, {f"heads/{name}" for name in heads})
    return {name: _readable(head, found[f"heads/{name}"]) for name, head in heads.items()}


def _weighted(members: Sequence[Path], ensemble: Ensemble | None) -> Iterator[tuple[Path, float]]:
    """The members that count, with weights that sum to one."""
    if ensemble is None:
        yield members[0], 1.0
        return
    weights = ensemble.weights.reshape(len(ensemble.members), -1).mean(1)
    yield from ((path, float(weight)) for path, weight in zip(ensemble.members, weights, strict=True) if weight)


def _readable(head: Head, values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    if head.settings.kind != "class":
        return values
    return torch.from_numpy(values).softmax(1).numpy()


def _same(head: Head, other: Head) -> bool:
    """Whether two heads decode the same."""
    one, two = (
        (each.settings.kind, each.settings.behavior, len(each.bias), getattr(each, "classes", None))
        for each in (head, other)
    )
    return one == two
