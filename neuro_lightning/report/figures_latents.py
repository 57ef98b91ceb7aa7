"""Figures of how well latents tell labels apart, from numpy arrays: each function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.package_style()
def umap_figure(
    embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[np.ndarray, np.ndarray],
    *,
    title: str,
    label_name: str = "plane",
    captions: Mapping[str, str] | None = None,
    simulated: bool = False,
) -> Figure:
    """Embeddings as rows; training points, test points and both as columns, colored by label.

    Args:
        embeddings: by name (``supervised``, ``unsupervised``), training (n, 2) and test points (m, 2).
        labels: (n,) and (m,) integers.
        title: above the figure.
        label_name: what a label is called.
        captions: by name, a line to add to the title of the row's test panel, such as its accuracy.
        simulated: whether the data are simulated.
    """
    names = np.unique(np.concatenate(labels))
    palette = style.color_map("Spectral", np.linspace(0, 1, max(len(names), 2)))
    # the map's middle is too pale on white
    palette[:, :3] *= 1 - 0.22 * np.exp(-np.square(np.linspace(-1, 1, len(palette)) / 0.35))[:, None]
    colors = [palette[np.searchsorted(names, label)] for label in labels]
    rows = max(len(embeddings), 1)
    figure, axes = style.new_figure(8.4, 0.7 + 2.7 * rows, title, simulated=simulated, rows=rows, columns=3)
    for row, (name, (train, test)) in zip(axes, embeddings.items(), strict=False):
        size = 9 if len(train) < 1500 else 3
        row[0].scatter(*train.T, c=colors[0], s=size, lw=0)
        row[1].scatter(*test.T, c=colors[1], s=size, lw=0)
        row[2].scatter(*train.T, c=colors[0], s=size / 2, lw=0, alpha=0.25)
        row[2].scatter(*test.T, c=colors[1], s=1.3 * size, lw=0.3, edgecolors=style.TRUE)
        row[0].set_ylabel(name, fontsize=10)
        row[0].set_title(f"{len(train)} training points")
        row[1].set_title((captions or {}).get(name, f"{len(test)} test points"))
        row[2].set_title("both")
        both = np.concatenate([train, test])
        reach = 0.04 * np.ptp(both, axis=0) + 1e-6
        limits = np.stack([both.min(0) - reach, both.max(0) + reach], 1)
        for panel in row:
            panel.set(xticks=[], yticks=[], xlim=limits[0], ylim=limits[1])
    if not embeddings:
        style.note(axes[0, 0], "no embedding")
        return figure
    if len(names) <= 20:
        points = [axes[0, 0].scatter([], [], color=color, s=14) for color in palette[: len(names)]]
        figure.legend(points, [str(name) for name in names], title=label_name, loc="outside right center")
    return figure


@style.package_style()
def separability_figure(
    accuracies: Mapping[str, Mapping[str, float]],
    agreements: Mapping[str, Mapping[str, float]],
    *,
    label_name: str = "plane",
    simulated: bool = False,
) -> Figure:
    """Accuracies and clusterings beside their shuffled controls.

    Args:
        accuracies: by name, ``accuracy``, ``chance`` (the share of the most frequent label), and with shuffled labels
            the mean ``shuffled`` and its standard deviation ``shuffled_sd``.
        agreements: by name, the adjusted Rand index ``ari``, and with shuffled labels ``shuffled_ari``.
        label_name: what a label is called.
        simulated: whether the data are simulated.
    """
    height, title = 1.5 + 0.34 * max(len(accuracies), len(agreements), 2), f"How well latents tell the {label_name}"
    figure, [[left, right]] = style.new_figure(8.4, height, title, simulated=simulated, columns=2)
    _bars(left, accuracies, "accuracy", "shuffled", spread=[row["shuffled_sd"] for row in accuracies.values()])
    _bars(right, agreements, "ari", "shuffled_ari")
    place, levels = np.arange(len(accuracies)), [row["chance"] for row in accuracies.values()]
    left.vlines(levels, place - 0.4, place + 0.4, color=style.BASELINE, lw=1.4, label="chance")
    left.set(xlabel="accuracy, cross-validated", xlim=(0, 1))
    lowest = min([-0.05, *(row["ari"] for row in agreements.values())])
    right.set(xlabel="adjusted Rand index of clusters", xlim=(lowest, 1))
    left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    return figure


def _bars(
    panel: Axes, rows: Mapping[str, Mapping[str, float]], score: str, control: str, spread: list[float] | None = None
) -> None:
    """Draw each row's score, and below it that of the control."""
    place, values = np.arange(len(rows)), rows.values()
    panel.barh(place - 0.18, [row[score] for row in values], 0.36, color=style.MODEL, label="latents")
    shuffled = [row[control] for row in values]
    panel.barh(place + 0.18, shuffled, 0.36, xerr=spread, color=style.QUIET, label="shuffled labels")
    panel.set_yticks(place, list(rows))
    panel.invert_yaxis()
    panel.axvline(0, color="#555555", lw=0.8)
