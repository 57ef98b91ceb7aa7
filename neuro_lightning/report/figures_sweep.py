"""A sweep at a glance: every setting as a line through the values of its keys, colored by its objective."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from neuro_lightning.report.style import BASELINE, QUIET, TRUE, new_figure, style

SCORES = "viridis"  # color map of objectives, the best at its bright end
MAX_KEYS = 10
BAND = 0.5  # of the room of a category, over which its lines spread
MAX_GRID = 6  # different numbers that are drawn as a grid's: evenly spaced, as categories are
MAX_WORDS = 12  # categories that are named


@dataclass(frozen=True)
class Scale:
    """Where the values of one key lie on its axis.

    Attributes:
        places: (settings,) between 0 and 1.
        ticks: places and texts of the axis' ticks.
        band: half of the height over which lines spread around a tick, 0 for numbers.
    """

    places: np.ndarray
    ticks: list[tuple[float, str]]
    band: float = 0.0


def parallel_coordinates(
    settings: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    *,
    keys: Sequence[str],
    objective: str,
    mode: str = "max",
    stopped: Sequence[Mapping[str, Any]] = (),
    shares: Mapping[str, float] | None = None,
    title: str = "Every setting of the sweep",
    simulated: bool = False,
) -> Figure:
    """Parallel coordinates: one axis for each key, and the objective as the last.

    Numbers that are positive and span a decade have a logarithmic axis; other values are categories. The best setting
    is drawn above all others, its values named.

    Args:
        settings: values by key.
        scores: (settings,) objectives.
        keys: the axes from left to right; more than :data:`MAX_KEYS` are cut.
        objective: its name.
        mode: ``max`` or ``min``, which score is better.
        stopped: settings that were stopped early, drawn as thin gray lines that end before the objective.
        shares: importance by key, named below it.
        title: of the figure.
        simulated: whether the data are simulated.
    """
    keys = list(keys)[:MAX_KEYS]
    scores = np.asarray(scores, float)
    order = np.argsort(scores if mode == "max" else -scores, kind="stable")  # the best comes last, on top
    everyone = [*settings, *stopped]
    scales = [scale_of([setting.get(key) for setting in everyone]) for key in keys]
    scales = [_spread(scale, scores, mode, len(settings)) for scale in scales]
    low, high = _ends(scores, mode)
    heights = np.clip((scores - low) / (high - low), 0, 1)
    lines = [[*(scale.places[i] for scale in scales), heights[i]] for i in range(len(settings))]
    best = order[-1]
    with style():
        n = len(keys)
        figure, [[axes]] = new_figure(max(6.5, 1.5 * n + 3.0), 4.5, title, simulated=simulated)
        for i in range(len(settings), len(everyone)):
            _line(axes, [scale.places[i] for scale in scales], color="#bcc2c8", linewidth=0.9, zorder=1)
        colors = matplotlib.colormaps[SCORES](0.95 * (heights if mode == "max" else 1 - heights))
        alpha = float(np.clip(12 / len(settings), 0.35, 0.9))
        for place, i in enumerate(order[:-1]):
            _line(axes, lines[i], color=colors[i], alpha=alpha, linewidth=1.3, zorder=2 + place / len(settings))
        _best_line(axes, lines[best])
        for x, (key, scale) in enumerate(zip(keys, scales, strict=True)):
            _axis(axes, x, scale.ticks)
            axes.text(x, -0.075, _short(key), ha="center", va="top", fontsize=8.5, color=TRUE)
            if shares and key in shares:
                axes.text(x, -0.14, f"importance {shares[key]:.2f}", ha="center", va="top", fontsize=7.5, color=QUIET)
            if not scale.band:
                _name(axes, x, lines[best][x], _number(settings[best][key]))
        _objective_axis(axes, n, low, high, mode, clear_of=heights[best])
        axes.text(n, -0.075, objective, ha="center", va="top", fontsize=8.5, color=TRUE, weight="bold")
        _name(axes, n, heights[best], f"{scores[best]:.4g}")
        axes.text(-0.3, 1.13, _caption(len(settings), len(stopped), mode), fontsize=8, color=QUIET, va="bottom")
        axes.set(xlim=(-0.4, n + 0.5), ylim=(-0.2, 1.17))
        axes.axis("off")
    return figure


def _best_line(axes: Axes, heights: Sequence[float]) -> None:
    """Above all others, on a white rim."""
    _line(axes, heights, color="white", linewidth=5, zorder=4)
    _line(axes, heights, color=BASELINE, linewidth=2.6, zorder=5)
    axes.scatter(range(len(heights)), heights, s=34, color=BASELINE, edgecolor="white", linewidth=1.2, zorder=6)


def _caption(n: int, stopped: int, mode: str) -> str:
    text = f"{n} settings; {'higher' if mode == 'max' else 'lower'} is better; the best in red"
    return text + (f"; {stopped} stopped early in gray" if stopped else "")


def scale_of(values: Sequence[Any]) -> Scale:
    """Where the values of one key lie: numbers on a linear or logarithmic axis, all else in categories.

    A grid's few numbers, and numbers beside words (``null,0.1,0.3``), are categories as well, in their order.
    """
    from neuro_lightning.sweeps.results.importance import is_logarithmic, is_number

    if all(is_number(value) for value in values) and len(set(values)) > MAX_GRID:
        numbers = np.asarray(values, float)
        logarithmic = is_logarithmic(list(numbers))
        scaled = np.log10(numbers) if logarithmic else numbers
        low, high = float(scaled.min()), float(scaled.max())
        ticks = _decades(low, high) if logarithmic else _linear(low, high)
        places = [((math.log10(value) if logarithmic else value) - low) / (high - low) for value, _ in ticks]
        return Scale((scaled - low) / (high - low), list(zip(places, [text for _, text in ticks], strict=True)))
    words = sorted({_word(value) for value in values}, key=_word_order)
    room = 1 / len(words)
    centers = {word: (i + 0.5) * room for i, word in enumerate(words)}
    named = [(centers[word], _short(word)) for word in words] if len(words) <= MAX_WORDS else []
    return Scale(np.array([centers[_word(value)] for value in values]), named, band=BAND * room / 2)


def _spread(scale: Scale, scores: np.ndarray, mode: str, n: int) -> Scale:
    """Lines of one category lie beside each other, the best on top."""
    if not scale.band:
        return scale
    places = scale.places.copy()
    for center in np.unique(scale.places):
        members = np.flatnonzero(scale.places[:n] == center)
        members = members[np.argsort(scores[members] if mode == "max" else -scores[members], kind="stable")]
        if len(members) > 1:
            places[members] += np.linspace(-scale.band, scale.band, len(members))
    return Scale(places, scale.ticks, scale.band)


def _ends(scores: np.ndarray, mode: str) -> tuple[float, float]:
    """The ends of the objective's axis: settings that broke down do not squeeze the others together."""
    low, high = float(scores.min()), float(scores.max())
    q1, q3 = np.percentile(scores, [25, 75])
    if q3 > q1:
        low, high = (max(low, q1 - 3 * (q3 - q1)), high) if mode == "max" else (low, min(high, q3 + 3 * (q3 - q1)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(axes: Axes, heights: Sequence[float], **look: Any) -> None:
    """One setting: smooth from axis to axis, so that lines that meet can be told apart."""
    points, codes = [(0.0, heights[0])], [Path.MOVETO]
    for x, (a, b) in enumerate(itertools.pairwise(heights)):
        points += [(x + 0.45, a), (x + 0.55, b), (x + 1.0, b)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(
        PathPatch(Path(points, codes), fill=False, capstyle="round", **{"edgecolor": look.pop("color")}, **look)
    )


def _axis(axes: Axes, x: float, ticks: Sequence[tuple[float, str]], *, right: bool = False) -> None:
    if not right:
        axes.plot([x, x], [0, 1], color="#8a8f94", linewidth=0.9, zorder=3)
    side, shift = ("left", 0.05) if right else ("right", -0.05)
    for place, text in ticks:
        axes.plot([x, x + shift / 2], [place, place], color="#8a8f94", linewidth=0.9, zorder=3)
        box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(x + shift, place, text, ha=side, va="center", fontsize=7.5, color="#444444", bbox=box, zorder=5.5)


def _objective_axis(axes: Axes, x: float, low: float, high: float, mode: str, *, clear_of: float) -> None:
    """The colors' key as well; no tick is written where the best score will be."""
    ramp = np.linspace(0, 1, 256)[:, None]
    name = SCORES if mode == "max" else f"{SCORES}_r"
    axes.imshow(
        ramp if mode == "max" else ramp * 0.95 + 0.05, extent=(x - 0.025, x + 0.025, 0, 1), origin="lower",
        aspect="auto", cmap=name, vmin=0, vmax=1 / 0.95 if mode == "max" else 1, zorder=3,
    )  # fmt: skip
    ticks = [((value - low) / (high - low), text) for value, text in _linear(low, high)]
    _axis(axes, x, [tick for tick in ticks if abs(tick[0] - clear_of) > 0.05], right=True)


def _name(axes: Axes, x: float, height: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(x + 0.07, height, text, fontsize=8.5, weight="bold", color=BASELINE, va="center", bbox=box, zorder=7)


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    exponents = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [(10.0**e, _number(10.0**e)) for e in exponents]
    ends = [10**low, 10**high]
    taken = [math.log10(value) for value, _ in ticks]
    ticks += [(end, _number(end)) for end in ends if all(abs(math.log10(end) - t) > 0.08 * (high - low) for t in taken)]
    return ticks


def _linear(low: float, high: float) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [(float(tick), _number(tick)) for tick in ticks if low - 1e-12 <= tick <= high + 1e-12]


def _number(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return _number(value) if isinstance(value, int | float) else str(value)


def _word_order(word: str) -> tuple[int, float, str]:
    try:
        return 1, float(word), ""
    except ValueError:
        return (0, 0.0, "") if word in ("null", "false") else (2, 0.0, word)


def _short(text: str, room: int = 22) -> str:
    """A key or a word that fits: of a long key its last parts, of a long word its beginning."""
    text = str(text)
    if len(text) <= room:
        return text
    parts = text.split(".")
    while len(parts) > 1 and len(".".join(parts)) > room - 1:
        parts = parts[1:]
    shorter = ".".join(parts)
    return "…" + shorter if len(shorter) < room else shorter[: room - 1] + "…"
