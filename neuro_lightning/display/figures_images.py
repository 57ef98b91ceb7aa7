"""Figures of models of images, from numpy arrays: each function returns a matplotlib figure.

Axes letters as in ``neuro_lightning.contracts``; positions in pixels, (x, y) = (column, row), the first pixel's center
at (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro_lightning.display import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXCITES, SUPPRESSES = "#b2182b", "#2166ac"
MAX_FILTERS = 64


def receptive_field_figure(
    fields: np.ndarray, *, neurons: Sequence[int], scores: Sequence[float] | None = None, simulated: bool = False
) -> Figure:
    """Receptive fields, each on a scale of its own: red excites, blue suppresses.

    Fields of images in color show by which color they are excited; grey is no effect.

    Args:
        fields: (n, C, H, W), see ``neuro_lightning.functional.receptive_fields``.
        neurons: (n,) the neurons' numbers.
        scores: (n,) each neuron's correlation of prediction and response, where known.
        simulated: whether the data are simulated.
    """
    titles = [f"neuron {neuron}" for neuron in neurons]
    if scores is not None:
        titles = [f"{title} · r {score:.2f}" for title, score in zip(titles, scores, strict=True)]
    return _tiles(fields, titles, "Receptive fields", "no neurons", side=1.35, simulated=simulated)


def exciting_figure(
    images: np.ndarray, *, neurons: Sequence[int], responses: Sequence[float], simulated: bool = False
) -> Figure:
    """The images that neurons are predicted to answer most: red is brighter than grey, blue darker.

    Args:
        images: (n, C, H, W) differences from grey, see ``neuro_lightning.functional.exciting_images``.
        neurons: (n,) the neurons' numbers.
        responses: (n,) predicted for them.
        simulated: whether the data are simulated.
    """
    titles = [f"neuron {neuron} · {response:.2g}" for neuron, response in zip(neurons, responses, strict=True)]
    return _tiles(images, titles, "Most exciting images, and responses", "no neurons", side=1.35, simulated=simulated)


def discriminative_figure(
    images: np.ndarray, *, neurons: Sequence[int], shares: Sequence[float], simulated: bool = False
) -> Figure:
    """The images that are predicted to excite one neuron and none of the others: red is brighter than grey.

    Args:
        images: (n, C, H, W) differences from grey, see ``neuro_lightning.functional.exciting_images``.
        neurons: (n,) the neurons' numbers.
        shares: (n,) of each neuron in the softmax over all.
        simulated: whether the data are simulated.
    """
    titles = [f"neuron {neuron} · {share:.0%}" for neuron, share in zip(neurons, shares, strict=True)]
    title = "Most discriminative images, and shares"
    return _tiles(images, titles, title, "no neurons", side=1.35, simulated=simulated)


def triggered_figure(
    recorded: np.ndarray, predicted: np.ndarray, *, neurons: Sequence[int], simulated: bool = False
) -> Figure:
    """Response-triggered averages of recorded and predicted responses side by side, and the correlation of the two.

    Args:
        recorded: (n, C, H, W), see ``neuro_lightning.functional.receptive_fields.triggered_averages``.
        predicted: (n, C, H, W), to the same images.
        neurons: (n,) the neurons' numbers.
        simulated: whether the data are simulated.
    """
    titles = []
    for neuron, one, other in zip(neurons, recorded, predicted, strict=True):
        scale = float(np.linalg.norm(one) * np.linalg.norm(other))
        alike = f"r {float(np.vdot(one, other)) / scale:.2f}" if scale else "none"
        titles += [f"neuron {neuron}", f"predicted · {alike}"]
    pairs = np.stack([recorded, predicted], axis=1).reshape(-1, *recorded.shape[1:])
    title = "Response-triggered averages, recorded and predicted"
    return _tiles(pairs, titles, title, "no neurons", side=1.3, simulated=simulated, group=2)


def filters_figure(filters: np.ndarray, *, simulated: bool = False) -> Figure:
    """The kernels of a network's first stage, those with most energy first, each on a scale of its own.

    Args:
        filters: (K, H, W) or (K, C, H, W) weights.
        simulated: whether the data are simulated.
    """
    filters = filters[:, None] if filters.ndim == 3 else filters
    order = np.argsort(-np.square(filters, dtype=float).sum((1, 2, 3)), kind="stable")[:MAX_FILTERS]
    title = "First-stage filters"
    if len(order) < len(filters):
        title += f" ({len(order)} of {len(filters)})"
    return _tiles(filters[order], [str(k) for k in order], title, "no filters", side=0.85, simulated=simulated)


@style.package_style()
def dog_figure(
    dogs: Mapping[str, np.ndarray],
    *,
    image_shape: Sequence[int],
    planted: Mapping[str, np.ndarray] | None = None,
    simulated: bool = False,
) -> Figure:
    """Differences of Gaussians on the image's frame: where each looks and how far center and surround reach.

    Solid circles are centers and dashed ones surrounds, at one standard deviation; red where the center excites and
    blue where it suppresses. Planted ones, of simulated data, are drawn in black beneath.

    Args:
        dogs: of K units, (K,) each: ``x``, ``y`` in pixels, the amplitudes ``a1``, ``a2`` of center and surround,
            and the variances in squared pixels, ``s1`` of the center and ``s1 + s2`` of the surround, see
            ``neuro_lightning.nn.dog.DoGFilters.table``.
        image_shape: (H, W) or (C, H, W).
        planted: the same of the units that the data were made with.
        simulated: whether the data are simulated.
    """
    from matplotlib.patches import Circle

    height, width = image_shape[-2:]
    figure, [[frame, profiles]] = style.new_figure(7.6, 3.9, "Differences of Gaussians", simulated=simulated, columns=2)
    strength = np.abs(_weight(dogs, 0.0))
    strength = strength / max(float(strength.max(initial=0)), 1e-30)
    for unit in _units(planted or {}):
        center = (unit["x"], unit["y"])
        frame.add_patch(Circle(center, unit["s1"] ** 0.5, facecolor="#00000010", edgecolor=style.TRUE, lw=0.8))
        frame.plot(*center, "+", color=style.TRUE, ms=6, mew=1)
    for k, (unit, share) in enumerate(zip(_units(dogs), strength, strict=True)):
        center, color = (unit["x"], unit["y"]), EXCITES if _weight(unit, 0.0) >= 0 else SUPPRESSES
        look = {"color": color, "alpha": 0.35 + 0.65 * share}
        frame.add_patch(Circle(center, unit["s1"] ** 0.5, fill=False, lw=1.5, **look))
        frame.add_patch(Circle(center, (unit["s1"] + unit["s2"]) ** 0.5, fill=False, lw=0.8, ls=style.DASHED, **look))
        frame.annotate(str(k), center, (2, 2), textcoords="offset points", color=color, fontsize=8)
        _profile(profiles, unit, **look)
    frame.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    frame.set(xlabel="x (pixels)", ylabel="y (pixels)")
    frame.spines[["top", "right"]].set_visible(True)
    known = "" if planted is None else f", {len(planted['x'])} planted (black)"
    frame.set_title(f"{len(dogs['x'])} units{known}")
    profiles.axhline(0, color=style.QUIET, lw=0.8)
    profiles.set(xlabel="distance from the center (pixels)", ylabel="weight, relative to its peak")
    profiles.set_title("cross sections")
    return figure


@style.package_style()
def responses_figure(
    predicted: np.ndarray,
    observed: np.ndarray,
    *,
    scores: np.ndarray,
    ceiling: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
    unit: str = "response",
    simulated: bool = False,
) -> Figure:
    """Predicted against observed responses of the best, the median and the worst neuron; below, every neuron's score.

    Args:
        predicted: (B, N).
        observed: (B, N), NaN where unobserved.
        scores: (N,) correlation over images of prediction and response, NaN where undefined.
        ceiling: (N,) the highest correlation that the responses' noise allows, NaN where unknown.
        repeats: (B, R, N) single responses, NaN where absent: their standard errors are drawn.
        unit: what a response is called.
        simulated: whether the data are simulated.
    """
    order = np.argsort(-np.nan_to_num(scores, nan=-2.0), kind="stable")
    order = order[np.isfinite(scores[order])]
    figure, _ = style.new_figure(7.6, 5.0, "Predicted and observed responses", simulated=simulated, rows=0, columns=0)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.35, 1))
    bars = figure.add_subplot(grid[1, :])
    if not len(order):
        style.note(bars, "no neuron has a score")
        return figure
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    for column, (name, neuron) in enumerate(chosen.items()):
        panel = figure.add_subplot(grid[0, column])
        single = None if repeats is None else repeats[:, :, neuron]
        _scatter(panel, predicted[:, neuron], observed[:, neuron], single)
        panel.set_title(f"{name}: neuron {neuron}, r = {scores[neuron]:.2f}")
        panel.set(xlabel=f"predicted {unit}", ylabel=f"observed {unit}" if column == 0 else "")
    _score_bars(bars, scores[order], None if ceiling is None else ceiling[order])
    return figure


@style.package_style()
def tuning_figure(
    angle: np.ndarray,
    observed: np.ndarray,
    predicted: np.ndarray | None = None,
    *,
    neurons: Sequence[int],
    period: float = 2 * np.pi,
    n_bins: int | None = None,
    simulated: bool = False,
) -> Figure:
    """Tuning to the stimulus's angle: mean observed response in bins of it, and what the model predicts.

    Args:
        angle: (B,) radians.
        observed: (B, N) responses, NaN where unobserved.
        predicted: (B, N), or None.
        neurons: (n,) the neurons to show.
        period: radians after which stimuli repeat: pi for static gratings.
        n_bins: of angle; None is 8 to 24, by the number of trials.
        simulated: whether the data are simulated.
    """
    n_bins = n_bins or int(np.clip(len(angle) // 8, 8, 24))
    name = "orientation" if period < 1.5 * np.pi else "direction"
    place = np.minimum((np.mod(angle, period) / period * n_bins).astype(int), n_bins - 1)
    degrees = (np.arange(n_bins) + 0.5) / n_bins * np.degrees(period)
    figure, axes = style.panel_grid(
        len(neurons), f"Tuning to the stimulus's {name}", columns=4, panel=(1.85, 1.5), margin=(0.8, 0.8),
        empty="no neurons", simulated=simulated, sharex=True,
    )  # fmt: skip
    if not len(neurons):
        return figure
    for panel, neuron in zip(axes.flat, neurons, strict=False):
        mean, error = _binned(observed[:, neuron], place, n_bins)
        panel.errorbar(degrees, mean, error, fmt="o", ms=2.5, color=style.TRUE, lw=0.8, label="observed, mean ± s.e.m.")
        if predicted is not None:
            curve, _ = _binned(predicted[:, neuron], place, n_bins)
            seen = np.isfinite(curve)
            panel.plot(degrees[seen], curve[seen], color=style.MODEL, label="predicted")
        panel.set_title(f"neuron {neuron}")
        panel.set_xticks(np.linspace(0, np.degrees(period), 5))
    style.label_outer(axes, x=f"{name} (degrees)", y="response")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@style.package_style()
def _tiles(
    values: np.ndarray, titles: Sequence[str], title: str, empty: str, *, side: float, simulated: bool, group: int = 1
) -> Figure:
    """(n, C, H, W) weights as small pictures, in rows of a page's width at most; a group stays in one row."""
    most = max(min(int(8 / side), len(values)) // group * group, group)
    # the widest grid that leaves fewest places empty
    columns = min(range(most, most // 2, -group), key=lambda columns: -len(values) % columns)
    shape = values.shape[2] / values.shape[3] if values.size else 1.0
    figure, axes = style.panel_grid(
        len(values), title, columns=columns, panel=(side, side * shape + 0.14), margin=(0.2, 0.45), empty=empty,
        simulated=simulated,
    )  # fmt: skip
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0.02, wspace=0.02)
    for panel, weights, name in zip(axes.flat, values, titles, strict=False):
        _picture(panel, weights)
        panel.set_title(name, fontsize=7.5, pad=2)
    return figure


def _picture(panel: Axes, weights: np.ndarray) -> None:
    reach = float(np.abs(weights).max(initial=0.0))
    if len(weights) == 3:
        panel.imshow(np.moveaxis(0.5 + 0.5 * weights / max(reach, 1e-30), 0, 2), interpolation="nearest")
    else:
        reach = float(np.abs(weights.mean(0)).max(initial=0.0)) or 1.0
        panel.imshow(weights.mean(0), cmap=style.SIGNED, vmin=-reach, vmax=reach, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(visible=True, color="#d0d0d0")


def _units(table: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    return [dict(zip(table, map(float, unit), strict=True)) for unit in zip(*table.values(), strict=True)]


def _weight(dog: Mapping[str, np.ndarray] | Mapping[str, float], distance: np.ndarray | float) -> np.ndarray:
    """Weight of a pixel at a distance in pixels."""
    center, surround = (
        amplitude * np.exp(-np.square(distance) / (2 * variance)) / (2 * np.pi * variance)
        for amplitude, variance in ((dog["a1"], dog["s1"]), (dog["a2"], dog["s1"] + dog["s2"]))
    )
    return center - surround


def _profile(panel: Axes, dog: Mapping[str, float], **look: Any) -> None:
    reach = 3 * (dog["s1"] + dog["s2"]) ** 0.5
    distance = np.linspace(-reach, reach, 121)
    weight = _weight(dog, distance)
    panel.plot(distance, weight / max(float(np.abs(weight).max()), 1e-30), lw=1, **look)


def _scatter(panel: Axes, predicted: np.ndarray, observed: np.ndarray, repeats: np.ndarray | None) -> None:
    seen = np.isfinite(observed) & np.isfinite(predicted)
    if not seen.any():
        style.note(panel, "no responses")
        return
    if repeats is not None:
        import pandas as pd

        error = pd.DataFrame(repeats).sem(axis=1).to_numpy()
        look = {"fmt": "none", "ecolor": style.QUIET, "elinewidth": 0.6, "alpha": 0.6}
        panel.errorbar(predicted[seen], observed[seen], error[seen], **look)
    look = {"ms": 2, "alpha": 0.35} if seen.sum() > 300 else {"ms": 3, "alpha": 0.7}
    panel.plot(predicted[seen], observed[seen], "o", color=style.MODEL, mew=0, **look)
    low, high = min(predicted[seen].min(), 0), max(predicted[seen].max(), np.percentile(observed[seen], 75))
    panel.plot([low, high], [low, high], color=style.QUIET, lw=0.8, ls=style.DASHED, zorder=0)


def _score_bars(panel: Axes, scores: np.ndarray, ceiling: np.ndarray | None) -> None:
    place = np.arange(len(scores))
    panel.bar(place, scores, width=0.85 if len(scores) < 200 else 1.0, color=style.MODEL, alpha=0.85)
    title = f"{len(scores)} neurons, mean r = {scores.mean():.3f}"
    if ceiling is not None and np.isfinite(ceiling).any():
        panel.hlines(ceiling, place - 0.45, place + 0.45, color=style.BASELINE, lw=1.2, label="ceiling of the noise")
        title += f", mean ceiling {np.nanmean(ceiling):.3f}"
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    panel.axhline(0, color=style.QUIET, lw=0.8)
    panel.set(xlabel="neurons, best first", ylabel="correlation", xlim=(-0.8, len(scores) - 0.2))
    panel.set_title(title)


def _binned(values: np.ndarray, place: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of the values in each bin, NaN for an empty one and the error of a single value."""
    import pandas as pd

    bins = pd.Series(values).groupby(place)
    return bins.mean().reindex(range(n_bins)).to_numpy(), bins.sem().reindex(range(n_bins)).to_numpy()
