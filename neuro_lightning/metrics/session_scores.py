"""Scores of several sessions by name: ``co_bps/monday`` is a session's, ``co_bps`` the mean over sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def session_metric(name: str, session: str) -> str:
    """The name of a session's score; without a session that of the mean.

    Example:
        >>> session_metric("co_bps", "monday"), session_metric("co_bps", "")
        ('co_bps/monday', 'co_bps')
    """
    return f"{name}/{session}" if session else name


def sessions_in(names: Iterable[str]) -> list[str]:
    """The sessions whose scores are among these, in their order.

    Example:
        >>> sessions_in(["co_bps", "co_bps/monday", "vel_r2/monday", "co_bps/tuesday"])
        ['monday', 'tuesday']
    """
    return list(dict.fromkeys(name.partition("/")[2] for name in names if "/" in name))


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
