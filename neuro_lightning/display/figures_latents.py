"""Figures of latents of several sessions, and of how well latents tell labels apart, from numpy arrays.

Each function returns a matplotlib figure. Axes letters as in ``neuro_lightning.contracts``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import draw_paths, known_mean, mark_event, time_label

SINGLE_TRIALS = 6
MAX_CONDITIONS = 8

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


@style.package_style()
def sessions_figure(
    latents: Mapping[str, np.ndarray],
    *,
    bin_ms: float,
    conditions: Mapping[str, np.ndarray | None] | None = None,
    start_ms: float = 0,
    align: str = "",
    simulated: bool = False,
) -> Figure:
    """Latents of several sessions on the principal components of them all: in space, and over time.

    Every session has the same weight in the components. Thick lines are the means over a session's trials, dots their
    starts. Thin lines are the means of the conditions that all sessions have, or else single trials.

    Args:
        latents: (B, L, D) of each session by its name, NaN after the end of shorter trials.
        bin_ms: bin width in ms.
        conditions: (B,) of each session, -1 for none.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        simulated: whether the data are simulated.
    """
    title = f"Latents of {len(latents)} sessions in one space"
    figure, _ = style.new_figure(8, 4.1 + 0.14 * len(latents), title, simulated=simulated, rows=0, columns=0)
    center, axes, explained = joint_components([*latents.values()], 3)
    shared = shared_conditions([*(conditions or {}).values()])
    n_shown = len(axes)
    grid = figure.add_gridspec(max(n_shown, 1), 2, width_ratios=(1.15, 1))
    space = figure.add_subplot(grid[:, 0], projection="3d" if n_shown == 3 else None)
    if not n_shown:
        style.note(space, "no latents")
        return figure
    over_time = [figure.add_subplot(grid[k, 1]) for k in range(n_shown)]
    handles = []
    for (session, values), color in zip(latents.items(), style.session_colors(len(latents)), strict=True):
        paths = (values - center) @ axes.T
        time = start_ms + (np.arange(paths.shape[1]) + 0.5) * bin_ms
        if len(shared):
            thin = [known_mean(paths[conditions[session] == name]) for name in shared]
        else:
            thin = paths[style.evenly_spaced(len(paths), SINGLE_TRIALS)]
        curves = [(path, {"color": color}, False) for path in thin] + [(known_mean(paths), {"color": color}, True)]
        draw_paths(space, curves)
        for k, panel in enumerate(over_time):
            for path, _, is_mean in curves:
                look = {"lw": 1.8, "zorder": 3} if is_mean else {"lw": 0.6, "alpha": 0.4}
                handle = panel.plot(time, path[:, k], color=color, **look)[0]
        handles.append((handle, f"{session} ({len(paths)} trials)"))
    longest = max(values.shape[1] for values in latents.values())
    for k, panel in enumerate(over_time):
        mark_event(panel, (start_ms, start_ms + longest * bin_ms), align)
        panel.set_ylabel(f"PC{k + 1} ({100 * explained[k]:.0f} %)")
        panel.tick_params(labelbottom=k == n_shown - 1)
    over_time[-1].set_xlabel(time_label(align))
    thin = f"means of {len(shared)} conditions" if len(shared) else "single trials"
    space.set_title(f"thick: mean of all trials; thin: {thin}")
    columns = 2 if max(len(name) for _, name in handles) < 50 else 1
    figure.legend(*zip(*handles, strict=True), loc="outside lower left", ncols=columns)
    return figure


def joint_components(latents: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first principal components of several sessions' latents, in which every session has the same weight.

    Args:
        latents: (B, L, D) of each session, NaN after the end of shorter trials.
        n: components wanted; there are fewer where D is smaller.

    Returns:
        The center (D,), the axes (n, D) and the share of the variance along each (n,).
    """
    flat = [values.reshape(-1, values.shape[2]).astype(np.float64) for values in latents]
    flat = [values[known] for values in flat if (known := ~np.isnan(values).any(1)).any()]
    if not flat:
        return np.zeros(0), np.zeros((0, 0)), np.zeros(0)
    center = np.mean([values.mean(0) for values in flat], axis=0)
    covariance = np.mean([(values - center).T @ (values - center) / len(values) for values in flat], axis=0)
    variances, axes = np.linalg.eigh(covariance)
    axes = axes.T[::-1][:n]
    axes = axes * np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]  # a fixed sign
    return center, axes, variances[::-1][:n] / max(variances.sum(), np.finfo(float).tiny)


def shared_conditions(conditions: Sequence[np.ndarray | None]) -> np.ndarray:
    """The conditions of which every session has trials, at most ``MAX_CONDITIONS``; none where the conditions differ.

    Args:
        conditions: (B,) of each session, -1 for none. They match where all sessions have as many of them.
    """
    found = [np.unique(of_one[of_one >= 0]) if of_one is not None else np.zeros(0, int) for of_one in conditions]
    if not found or len({int(names.max(initial=-1)) for names in found}) > 1:
        return np.zeros(0, int)
    shared = functools.reduce(np.intersect1d, found)
    return shared[style.evenly_spaced(len(shared), MAX_CONDITIONS)] if len(shared) else shared


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


@style.package_style()
def consistency_figure(r2: np.ndarray, names: Sequence[str], *, simulated: bool = False) -> Figure:
    """R2 with which each run's latents are decoded from each other's, as a matrix with its numbers.

    Args:
        r2: (M, M) row i, column j: run j's latents decoded from run i's.
        names: of the runs.
        simulated: whether the data are simulated.
    """
    size = max(3.0, 0.55 * len(names))
    room = 0.07 * max(map(len, names), default=0)
    title = "Do runs find the same latents?"
    figure, axes = style.new_figure(size + room + 1.3, size + room + 0.6, title, simulated=simulated)
    panel = axes[0, 0]
    drawn = panel.imshow(r2, cmap="viridis", vmin=0, vmax=1)
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="latents decoded of", ylabel="latents decoded from")
    panel.grid(visible=False)
    if len(names) <= 12:
        for (i, j), value in np.ndenumerate(r2):
            color = "white" if value < 0.6 else "black"
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(drawn, ax=panel, label="R2 on validation trials", shrink=0.8)
    return figure
