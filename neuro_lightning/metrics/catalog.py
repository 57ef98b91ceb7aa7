"""The metrics that the package reports: names in tables and figures, units, and which of two values is better."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown.

    Attributes:
        label: the head of a table's column.
        title: the name in words, where a figure or a sentence has room for it; the label without it.
        unit: of the values, empty for a number without one.
        lower_is_better: whether the smaller of two values is better.
        shown: whether tables show it; a score that has its own row or column there is not shown again.
    """

    label: str
    title: str = ""
    unit: str = ""
    lower_is_better: bool = False
    shown: bool = True


BITS = "bits/spike"
METRICS = {
    "poisson_d2": MetricInfo("D2", "explained share of the deviance (D2)"),
    "co_bps": MetricInfo("co-bps", "co-smoothing", BITS),
    "bps": MetricInfo("bits/spike", "bits per spike"),
    "fp_bps": MetricInfo("fp-bps", "forward prediction", BITS),
    "vel_r2": MetricInfo("vel R2"),
    "psth_r2": MetricInfo("psth R2"),
    "tp_corr": MetricInfo("tp corr", lower_is_better=True),
    "corr": MetricInfo("corr"),
    "rmse": MetricInfo("RMSE", lower_is_better=True),
    "rmse_columns": MetricInfo("RMSE cols", lower_is_better=True),
    "trial_corr": MetricInfo("trial corr"),
    "feve": MetricInfo("FEVE"),
    "feve_neurons": MetricInfo("FEVE neurons", shown=False),
    "cc_norm": MetricInfo("CC norm"),
    "oracle_fraction": MetricInfo("frac. oracle"),
    "angle_deg": MetricInfo("angle err (deg)", "angle error", "deg", lower_is_better=True),
    "mse": MetricInfo("MSE", lower_is_better=True),
    "variance": MetricInfo("variance"),
    "r2": MetricInfo("R2"),
    "co_r2": MetricInfo("co-R2"),
    "rates_corr": MetricInfo("rates corr"),
    "rates_r2": MetricInfo("rates R2"),
    "oracle_co_bps": MetricInfo("true rates' co-bps", unit=BITS, shown=False),
    "oracle_bps": MetricInfo("true rates' bits/spike", shown=False),
    "oracle_share": MetricInfo("of oracle", shown=False),
    "loss": MetricInfo("loss", lower_is_better=True, shown=False),
}
"""By name, in the order of the tables' columns."""


def info(name: str) -> MetricInfo:
    """What is known of a metric, also of a session's, ``co_bps/monday``.

    One that this package does not know is shown by its name, and more is better.
    """
    metric = name.partition("/")[0]
    if shots := re.fullmatch(r"k(\d+)_co_bps", metric):  # of any number of trials
        return MetricInfo(f"{shots[1]}-shot", f"co-smoothing from latents with {shots[1]} trials", BITS)
    if of_head := re.fullmatch(r"head_(.+)_(r2|accuracy|chance)", metric):  # of any name
        score = {"r2": "R2"}.get(of_head[2], of_head[2])
        return MetricInfo(f"{of_head[1]} {score}", f"{of_head[1]} decoded by a head, {score}")
    return METRICS.get(metric, MetricInfo(name))


def label(name: str) -> str:
    """The head of a metric's column in tables."""
    return info(name).label


def axis_label(name: str) -> str:
    """A metric's name in words with its unit, for the axis of a figure.

    Example:
        >>> axis_label("co_bps")
        'co-smoothing (bits/spike)'
    """
    found = info(name)
    return (found.title or found.label) + (f" ({found.unit})" if found.unit else "")


def shown_metrics(names: Iterable[str]) -> list[str]:
    """The metrics that tables show, in the order of their columns; unknown ones come last, by name.

    Of several sessions the means are shown; a session's own score has the row of the session.

    Example:
        >>> shown_metrics(["vel_r2", "loss", "co_bps", "mine"])
        ['co_bps', 'vel_r2', 'mine']
    """
    shown = {name for name in names if info(name).shown and "/" not in name}
    return [name for name in METRICS if name in shown] + sorted(shown - set(METRICS), key=_natural)


def _natural(name: str) -> list[Any]:
    """A key by which ``k64`` comes before ``k256``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
