"""The metrics of several sessions: each session's own, and their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from neuro_lightning.contracts import Batch, Output
from neuro_lightning.metrics.session_scores import session_metric, with_means


class SessionMetrics(nn.Module):
    """The metrics of each session, updated from batches of one session each.

    A session's score depends on its own trials alone. Means are of the sessions that have the metric, each with the
    same weight; a session whose score is undefined makes the mean undefined.

    Args:
        metrics: of each session by its name, see :func:`neuro_lightning.metrics.collection.build_metrics`; None for one
            that is not scored.
    """

    sessions: Any  # a ModuleList of metrics, whose methods its type does not tell

    def __init__(self, metrics: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        scored = {number: name for number, (name, each) in enumerate(metrics.items()) if each is not None}
        self.numbers = {number: place for place, number in enumerate(scored)}  # of a batch's session -> its metrics
        self.session_names = list(scored.values())
        self.sessions = nn.ModuleList(each for each in metrics.values() if each is not None)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self.session_names, self.sessions, strict=True))

    def _of(self, batch: Batch) -> list[Any]:
        """The metrics of a batch's session, none where it is not scored."""
        place = self.numbers.get(batch["session"])
        return [] if place is None else [self.sessions[place]]

    @property
    def names(self) -> list[str]:
        """The keys of what :meth:`compute` returns: the means, then ``metric/session``."""
        names = [(name, session) for session, metrics in self for name in metrics.names]
        means = dict.fromkeys(name for name, _ in names)
        return [*means, *(session_metric(name, session) for name, session in names)]

    @property
    def needs_train(self) -> bool:
        """Whether any session's metrics learn from training trials."""
        return any(metrics.needs_train for metrics in self.sessions)

    def update(self, output: Output, batch: Batch) -> None:
        """Adds evaluation trials."""
        for metrics in self._of(batch):
            metrics.update(output, batch)

    def update_train(self, output: Output, batch: Batch) -> None:
        """Adds training trials; most metrics learn nothing from them."""
        for metrics in self._of(batch):
            metrics.update_train(output, batch)

    def compute(self) -> dict[str, float]:
        """The means over sessions by metric, and each session's scores as ``metric/session``."""
        scores = {session: metrics.compute() for session, metrics in self}
        return with_means(scores)

    def reset(self) -> None:
        """Forgets all trials."""
        for metrics in self.sessions:
            metrics.reset()
