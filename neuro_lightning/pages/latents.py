"""Latents of single trials as lines in space, a drawing that turns."""

from __future__ import annotations

import numpy as np

from neuro_lightning.api.results import Run
from neuro_lightning.display.style import condition_colors
from neuro_lightning.errors import ConfigError, DataError

TRIALS = 60
BINS = 80
CONDITIONS = 12


def latents_drawing(run: Run) -> tuple[str, str] | None:
    """What is drawn, in words, and the drawing as Plotly's JSON; None of a model without latents or of images.

    Validation trials, a few of each condition, in the first three principal components of all of them.
    """
    if (run.record.get("data") or {}).get("bin_ms") in (None, 0):
        return None
    try:
        latents = run.latents("val")
    except ConfigError:
        return None
    trials = run.data.recording.splits["val"]
    condition = trials.condition if getattr(trials, "condition", None) is not None else np.full(len(latents), -1)
    points, share = principal_components(latents)
    shown = trials_of_each(condition)
    step = max(1, -(-points.shape[1] // BINS))
    names = [k for k in np.unique(condition[shown]) if k >= 0]
    colors = {k: _css(color) for k, color in zip(names, condition_colors(max(len(names), 1)), strict=False)}
    figure = lines_in_space(points[shown, ::step], condition[shown], colors)
    words = f"{len(shown)} validation trials in the first principal components, {share:.0%} of the latents' variance"
    return words + (", colored by condition" if names else "") + ". Drag to turn.", figure


def principal_components(latents: np.ndarray) -> tuple[np.ndarray, float]:
    """(B, T, 3) latents in their first three components, zeros where there are fewer, and the share of the variance.

    Bins with NaN, after a trial's end, stay NaN.
    """
    flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    known = np.isfinite(flat).all(1)
    center = flat[known].mean(0)
    _, values, axes = np.linalg.svd(flat[known] - center, full_matrices=False)
    points = (flat - center) @ axes[:3].T
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    total = np.square(values).sum()
    return points.reshape(*latents.shape[:2], 3), float(np.square(values[:3]).sum() / total) if total else 0.0


def trials_of_each(condition: np.ndarray) -> np.ndarray:
    """Which trials are shown: as many of each condition as there is room for, of the first conditions."""
    names = np.unique(condition)[:CONDITIONS]
    each = max(1, TRIALS // len(names))
    return np.concatenate([np.flatnonzero(condition == name)[:each] for name in names])


def lines_in_space(points: np.ndarray, condition: np.ndarray, colors: dict[int, str]) -> str:
    """A Plotly figure as JSON: a line for each trial (B, T, 3), those of a condition in one color.

    Raises:
        DataError: Plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise DataError("plotly draws it, which is not installed: pip install 'neuro_lightning[report]'") from None
    figure = go.Figure()
    for name in np.unique(condition):
        chosen = points[condition == name]
        broken = np.concatenate([chosen, np.full((len(chosen), 1, 3), np.nan)], axis=1).reshape(-1, 3).round(4)
        x, y, z = ([None if value != value else value for value in axis] for axis in broken.T.tolist())
        label = f"condition {name}" if name >= 0 else "trials"
        line = {"color": colors.get(int(name), "#1b6ca8"), "width": 3}
        figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line=line, name=label, hoverinfo="name")
    starts = points[:, 0]
    figure.add_scatter3d(
        x=starts[:, 0].tolist(), y=starts[:, 1].tolist(), z=starts[:, 2].tolist(), mode="markers", name="first bin",
        marker={"size": 2.5, "color": "#2b2b2b"}, hoverinfo="skip",
    )  # fmt: skip
    axes = {f"{axis}axis": {"title": {"text": f"PC {k}"}, "showticklabels": False} for k, axis in enumerate("xyz", 1)}
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    figure.update_layout(scene=axes, margin=margin, showlegend=len(colors) <= CONDITIONS, template="none")
    return str(figure.to_json())


def _css(color: object) -> str:
    from matplotlib.colors import to_hex

    return to_hex(color)  # type: ignore[arg-type]
