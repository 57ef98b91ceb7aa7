"""The metrics of several sessions: each session's own, and their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from neuro_lightning.contracts import Batch, Output


class SessionMetrics(nn.Module):
    """The metrics of each session, updated from batches of one session each.

    A session's score depends on its own trials alone. Means are of the sessions that have the metric, each with the
    same weight; a session whose score is undefined makes the mean undefined.

    Args:
        metrics: of each session by its name, see :func:`neuro_lightning.metrics.collection.build_metrics`.
    """

    sessions: Any  # a ModuleList of metrics, whose methods its type does not tell

    def __init__(self, metrics: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.session_names = list(metrics)
        self.sessions = nn.ModuleList(metrics.values())

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self.session_names, self.sessions, strict=True))

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
        self.sessions[batch["session"]].update(output, batch)

    def update_train(self, output: Output, batch: Batch) -> None:
        """Adds training trials; most metrics learn nothing from them."""
        self.sessions[batch["session"]].update_train(output, batch)

    def compute(self) -> dict[str, float]:
        """The means over sessions by metric, and each session's scores as ``metric/session``."""
        scores = {session: metrics.compute() for session, metrics in self}
        return with_means(scores)

    def reset(self) -> None:
        """Forgets all trials."""
        for metrics in self.sessions:
            metrics.reset()


def session_metric(name: str, session: str) -> str:
    """The name of a session's score.

    Example:
        >>> session_metric("co_bps", "monday")
        'co_bps/monday'
    """
    return f"{name}/{session}"


def with_means(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Scores of sessions as one dictionary: the mean of each metric over the sessions that have it, then all scores.

    Args:
        scores: by session and metric.

    Example:
        >>> with_means({"monday": {"bps": 0.2}, "tuesday": {"bps": 0.4, "vel_r2": 0.5}})["vel_r2/tuesday"]
        0.5
    """
    values: dict[str, list[float]] = {}
    for of_session in scores.values():
        for name, value in of_session.items():
            values.setdefault(name, []).append(value)
    means = {name: sum(found) / len(found) for name, found in values.items()}
    return means | {
        session_metric(name, session): value for session, found in scores.items() for name, value in found.items()
    }
