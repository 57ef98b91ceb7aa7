"""The figure of a sweep's settings: the score of each, every seed a dot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEYOND = 1.5  # lines that lie so many widths of the scores' range beyond it would flatten the dots


@style.package_style()
def settings_figure(
    scores: Mapping[str, Sequence[float]],
    *,
    metric: str,
    title: str,
    simulated: bool,
    lower_is_better: bool = False,
    lines: Mapping[str, float] | None = None,
    above: Collection[str] = (),
) -> Figure:
    """Scores by setting, the best at the top: seeds as dots, their mean and standard error, lines to compare with.

    Args:
        scores: of the seeds of each setting, by its name, the best first.
        metric: in words, with its unit.
        title: above the figure.
        simulated: whether the data are simulated.
        lower_is_better: whether smaller scores are better.
        lines: what scores are compared with, by name. One that lies far from all scores is named in the legend only.
        above: those of the lines that no model is expected to pass, such as the true rates.
    """
    names = list(scores)
    width = 5.2 + 0.065 * max(map(len, names), default=0)
    figure, axes = style.new_figure(width, 1.5 + 0.3 * len(names), title, simulated=simulated)
    panel = axes[0, 0]
    every = np.concatenate([np.asarray(found, float) for found in scores.values()])
    reach = float(np.ptp(every)) or abs(float(every.mean())) * 0.05 or 1.0
    for row, found in enumerate(scores.values()):
        values = np.asarray(found, float)
        panel.plot(values, np.full(len(values), row), "o", color=style.MODEL, ms=5, alpha=0.45, mec="none")
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        panel.errorbar(values.mean(), row, xerr=error, fmt="|", color=style.TRUE, ms=11, mew=1.6, capsize=3, lw=1.2)
    places = iter(((0, (4, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)), "-", (0, (2, 3))))
    for name, value in (lines or {}).items():
        near = every.min() - BEYOND * reach < value < every.max() + BEYOND * reach
        dashes = next(places, "-")
        if near:
            color = style.TRUE if name in above else style.BASELINE
            panel.axvline(value, color=color, lw=1, ls=dashes, label=name)
        else:
            panel.plot([], [], color=style.QUIET, lw=1, ls=dashes, label=f"{name}: {value:.3g}, not in view")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlabel(f"{metric}, {'lower' if lower_is_better else 'higher'} is better")
    panel.grid(axis="x")
    panel.set_axisbelow(True)
    several = any(len(found) > 1 for found in scores.values())
    panel.set_title("dots: seeds; bars: mean ± standard error" if several else "dots: one run a setting")
    if lines:
        figure.legend(loc="outside lower center", ncols=2)
    return figure
