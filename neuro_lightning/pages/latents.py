"""Latents of single trials as lines in space, a drawing that turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from neuro_lightning.api.results import Run
from neuro_lightning.callbacks.drawings_spikes import movement_angles
from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import condition_looks
from neuro_lightning.errors import ConfigError, DataError

TRIALS = 60
BINS = 80
CONDITIONS = 12
DASHES = dict(zip(style.LINES, ("solid", "dash", "dot"), strict=True))
"""Plotly's names of the line styles of conditions."""


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
    names = np.unique(condition[shown])
    looks = condition_looks(names[names >= 0], _angles(condition, trials, run.data))
    figure = lines_in_space(points[shown, ::step], condition[shown], looks)
    words = f"{len(shown)} validation trials in the first principal components, {share:.0%} of the latents' variance"
    return words + (", colored by condition" if looks else "") + ". Drag to turn.", figure


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
    """Indices of the trials that are shown: as many of each condition as there is room for, of some conditions."""
    names = np.unique(condition)
    names = names[style.evenly_spaced(len(names), CONDITIONS)]
    each = max(1, TRIALS // len(names))
    return np.concatenate([np.flatnonzero(condition == name)[:each] for name in names])


def _angles(condition: np.ndarray, trials: Any, data: Any) -> dict[int, float] | None:
    """The direction of each condition's mean movement in radians; None where unknown."""
    if (behavior := getattr(trials, "behavior", None)) is None:
        return None
    return movement_angles({"condition": torch.as_tensor(condition), "behavior": torch.as_tensor(behavior)}, data)


def lines_in_space(points: np.ndarray, condition: np.ndarray, looks: Mapping[int, Mapping[str, Any]]) -> str:
    """A Plotly figure as JSON: a line for each trial (B, T, 3), those of a condition in one color and line style.

    Args:
        points: (B, T, 3).
        condition: (B,) the trials' conditions, -1 for none.
        looks: of each condition, see :func:`~neuro_lightning.display.figures_spikes.condition_looks`.

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
        look = looks.get(int(name), {"color": style.MODEL, "ls": "-"})
        line = {"color": _css(look["color"]), "dash": DASHES[look["ls"]], "width": 3}
        figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line=line, name=label, hoverinfo="name")
    starts = points[:, 0]
    figure.add_scatter3d(
        x=starts[:, 0].tolist(), y=starts[:, 1].tolist(), z=starts[:, 2].tolist(), mode="markers", name="first bin",
        marker={"size": 2.5, "color": "#2b2b2b"}, hoverinfo="skip",
    )  # fmt: skip
    axes = {f"{axis}axis": {"title": {"text": f"PC {k}"}, "showticklabels": False} for k, axis in enumerate("xyz", 1)}
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    figure.update_layout(scene=axes, margin=margin, showlegend=len(looks) <= CONDITIONS, template="none")
    return str(figure.to_json())


def _css(color: object) -> str:
    from matplotlib.colors import to_hex

    return to_hex(color)  # type: ignore[arg-type]
