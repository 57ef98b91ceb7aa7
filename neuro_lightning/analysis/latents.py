"""``python -m neuro_lightning.analysis.latents RUN``: how well latents tell planes or conditions, and behavior.

Two views of the latents of a recording from several imaging planes: each (plane, latent) trace is a point, as NMAs
(repository sazio/NMAs) drew them, and each (plane, time bin) is a point. In both: UMAP with and without the labels,
clusters against planes, and the plane decoded; behavior is decoded from all latents. Every number stands beside chance
and beside a control with shuffled labels, since a supervised UMAP alone separates anything.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.analysis.embedding import umap_embedding
from neuro_lightning.analysis.latents_file import Latents, find_latents, read_latents
from neuro_lightning.artifacts.records import write_json
from neuro_lightning.display.figures_latents import separability_figure, umap_figure
from neuro_lightning.display.figures_traces import latents_figure
from neuro_lightning.display.table import kind_of, number, print_table, relative
from neuro_lightning.errors import errors_in_one_line
from neuro_lightning.functional.separability import (
    CLASSIFIERS,
    CLUSTERINGS,
    cluster_agreement,
    decode_behavior,
    decode_labels,
    reduce,
)

MAX_POINTS = 3000  # bins are thinned out to as many
MAX_CHANNELS = 5  # of behavior in the table; latents.json has all
UMAP = {"traces": {"n_neighbors": 60, "min_dist": 0.1}, "bins": {"n_neighbors": 45, "min_dist": 0.3}}  # as published
METHODS = {"knn": "kNN", "logistic": "logistic regression", "kmeans": "k-means", "hdbscan": "HDBSCAN"}


@dataclass
class Points:
    """Latents as points with labels.

    Attributes:
        values: (n, F).
        labels: (n,) integers.
        groups: (n,) integers of what is never on both sides of a cross-validation, or None.
        test: (n,) bool, the quarter that UMAP is not fitted on.
    """

    values: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    test: np.ndarray


def as_points(latents: Latents, seed: int = 0) -> dict[str, Points]:
    """The views of latents that have labels: ``traces`` (of planes only) and ``bins``; none without two labels.

    In ``bins`` the test points are the last quarter of the time, or a random quarter of the trials.
    """
    if latents.condition is None:
        return {}
    values, labels = latents.values[latents.condition >= 0], latents.condition[latents.condition >= 0].astype(int)
    if len(np.unique(labels)) < 2:
        return {}
    rng, views = np.random.default_rng(seed), {}
    n_samples, n_bins, n_latents = values.shape
    if latents.continuous:
        test = np.stack([rng.permutation(n_latents) < n_latents / 4 for _ in range(n_samples)])
        traces = values.transpose(0, 2, 1).reshape(-1, n_bins)
        views["traces"] = Points(traces, labels.repeat(n_latents), None, test.ravel())
    bins = np.arange(0, n_bins, max(1, math.ceil(n_samples * n_bins / MAX_POINTS)))
    if latents.continuous:
        groups, late = np.tile(bins, n_samples), np.tile(bins >= 0.75 * n_bins, n_samples)
    else:
        order = rng.permutation(n_samples)
        groups, late = order.repeat(len(bins)), (order >= 0.75 * n_samples).repeat(len(bins))
    views["bins"] = Points(values[:, bins].reshape(-1, n_latents), labels.repeat(len(bins)), groups, late)
    return views


def analyse_labels(view: str, points: Points, *, shuffles: int, seed: int, umap: bool) -> dict[str, Any]:
    """Decoding, clusters and embeddings of one view.

    Returns:
        ``knn`` and ``logistic``, see ``decode_labels``; ``kmeans``, ``hdbscan`` and, with UMAP, ``kmeans_umap``,
        ``hdbscan_umap`` (clusters in the unsupervised embedding), see ``cluster_agreement``; with UMAP ``umap``:
        accuracy of the nearest neighbours for the test points of both embeddings, and the ``embeddings`` themselves.
    """
    options = {"shuffles": shuffles, "seed": seed}
    results: dict[str, Any] = {
        name: decode_labels(points.values, points.labels, points.groups, classifier=name, **options)
        for name in CLASSIFIERS
    }
    reduced, _ = reduce(points.values, points.values[:0])
    results |= {name: cluster_agreement(reduced, points.labels, method=name, **options) for name in CLUSTERINGS}
    if not umap:
        return results
    train, test = ~points.test, points.test
    embeddings = {
        name: umap_embedding(points.values[train], points.values[test], labels, seed=seed, **UMAP[view])
        for name, labels in (("supervised", points.labels[train]), ("unsupervised", None))
    }
    results["umap"] = {
        name: _test_accuracy(pair, points.labels[train], points.labels[test]) for name, pair in embeddings.items()
    }
    embedded = np.concatenate(embeddings["unsupervised"])
    labels = np.concatenate([points.labels[train], points.labels[test]])
    for name in CLUSTERINGS:
        results[f"{name}_umap"] = cluster_agreement(embedded, labels, method=name, **options)
    results["embeddings"] = embeddings
    return results


def analyse_behavior(latents: Latents, *, shuffles: int, seed: int) -> dict[str, Any] | None:
    """R2 of behavior from latents on later time (or later trials), None without behavior.

    Where all planes share one behavior, it is decoded from the latents of all planes at once.
    """
    if latents.behavior is None:
        return None
    values, behavior, later = latents.values, latents.behavior.astype(np.float64), latents.later
    if behavior.ndim == 2:  # one row a trial
        return decode_behavior(values.mean(1), behavior, later[:, 0], shifts=shuffles, seed=seed)
    values, later = values[:, : behavior.shape[1]], later[:, : behavior.shape[1]]  # forward bins have no behavior
    shared = latents.continuous and all(np.array_equal(behavior[0], other, equal_nan=True) for other in behavior)
    if shared:
        predictors, behavior, test = np.concatenate(list(values), axis=1), behavior[0], later[0]
    else:
        predictors, behavior, test = (a.reshape(-1, *a.shape[2:]) for a in (values, behavior, later))
    return decode_behavior(predictors, behavior, test, shifts=shuffles, seed=seed)


def analyse(
    latents: Latents, *, shuffles: int = 10, seed: int = 0, umap: bool = True
) -> tuple[dict[str, Any], dict[str, Points]]:
    """Every analysis that the latents allow.

    Args:
        latents: what was read.
        shuffles: of each control.
        seed: of folds, shuffles, k-means and UMAP.
        umap: whether to draw and score UMAP embeddings.

    Returns:
        The results, and the points of each view.
    """
    views = as_points(latents, seed)
    results: dict[str, Any] = {
        "dataset": latents.dataset,
        "simulated": latents.simulated,
        "splits": list(latents.splits),
        "shape": list(latents.values.shape),
        "label": "plane" if latents.continuous else "condition",
        "n_labels": n_labels(latents),
        "seed": seed,
        "shuffles": shuffles,
    }
    for view, points in views.items():
        results[view] = analyse_labels(view, points, shuffles=shuffles, seed=seed, umap=umap)
    if (behavior := analyse_behavior(latents, shuffles=shuffles, seed=seed)) is not None:
        results["behavior"] = {**behavior, "names": list(latents.behavior_names)}
    return results, views


def n_labels(latents: Latents) -> int:
    """How many planes or conditions there are; a trial may be of none."""
    return 0 if latents.condition is None else len(np.unique(latents.condition[latents.condition >= 0]))


def table_rows(results: dict[str, Any]) -> list[list[str]]:
    """Rows of the printed table: question, points, score, value, chance, control."""
    rows = []
    label = results["label"]
    for view in ("traces", "bins"):
        for name, value in _scores(results.get(view, {})):
            points = f"{value['n_points']} {view}"
            if "accuracy" in value:
                spread = f" ± {value['shuffled_sd']:.3f}" if "shuffled_sd" in value else ""
                control = number(value.get("shuffled"), 3) + spread
                rows.append([f"{label}: {name}", points, "accuracy", *_3(value["accuracy"], value["chance"]), control])
                continue
            noise = f", {value['noise']:.0%} noise" if value["noise"] else ""
            found = f"{label}: {name}, {value['n_clusters']} clusters{noise}"
            for key, chance in (("ari", "0"), ("nmi", "-")):
                rows.append([found, points, key.upper(), *_3(value[key]), chance, *_3(value[f"shuffled_{key}"])])
    if behavior := results.get("behavior"):
        points = f"{behavior['n_train']} + {behavior['n_test']} bins"
        pairs = list(zip(behavior["r2"], behavior["shifted"], strict=True))
        names = behavior["names"] or [f"behavior {k}" for k in range(len(pairs))]
        named = [(names[k], *pair) for k, pair in enumerate(pairs[:MAX_CHANNELS])]
        if len(known := [pair for pair in pairs if np.isfinite(pair[0])]) > 1:
            named.append((f"mean of {len(known)} channels", *np.mean(known, axis=0)))
        rows += [[f"{k}: ridge", points, "R2", *_3(r2, 0.0), number(control, 3)] for k, r2, control in named]
    return rows


def write_results(results: dict[str, Any], views: dict[str, Points], latents: Latents, folder: Path) -> list[Path]:
    """Write ``latents.json`` and the figures into a folder; returns the files."""
    label, written = results["label"], [folder / "latents.json"]
    plain = {key: {k: v for k, v in value.items() if k != "embeddings"} if isinstance(value, dict) else value
             for key, value in results.items()}  # fmt: skip
    write_json(written[0], plain)
    pictures = {}
    if latents.bin_ms and latents.continuous:
        behavior = None if latents.behavior is None else latents.behavior[0]
        pictures["time"] = latents_figure(
            latents.values[0], bin_ms=latents.bin_ms, behavior=behavior, behavior_names=latents.behavior_names,
            simulated=latents.simulated,
        )  # fmt: skip
    for view, points in views.items():
        found = results[view]
        if "embeddings" not in found:
            continue
        captions = {
            name: f"{int(points.test.sum())} test: kNN {value['accuracy']:.2f}, chance {value['chance']:.2f}"
            for name, value in found["umap"].items()
        }
        name = f"{label}s and latents" if view == "traces" else "time bins"
        pictures[f"umap_{view}"] = umap_figure(
            found["embeddings"], (points.labels[~points.test], points.labels[points.test]),
            title=f"UMAP of {name}", label_name=label, captions=captions, simulated=latents.simulated,
        )  # fmt: skip
    if views:
        rows = [(f"{view}: {name}", value) for view in views for name, value in _scores(results[view])]
        pictures["separability"] = separability_figure(
            {name: value for name, value in rows if "shuffled" in value},
            {name: value for name, value in rows if "ari" in value}, label_name=label, simulated=latents.simulated,
        )  # fmt: skip
    for name, figure in pictures.items():
        path = folder / "figures" / f"latents_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        written.append(path)
    return written


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, analyse, print one table, write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.analysis.latents", description=__doc__.split("\n")[0]
    )
    parser.add_argument("path", type=Path, help="the run's folder, or the file that predict.py output=latents wrote")
    parser.add_argument("--splits", nargs="+", help="train, val, ...; all of the file's when left out")
    parser.add_argument("--session", help="which, where the file is of several sessions")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write to; where the latents are when left out, of a session in a folder of its name",
    )
    parser.add_argument("--shuffles", type=int, default=10, help="of each control")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-umap", dest="umap", action="store_false", help="neither UMAP pictures nor their scores")
    args = parser.parse_args(arguments)
    latents = read_latents(args.path, args.splits, args.session)
    results, views = analyse(latents, shuffles=args.shuffles, seed=args.seed, umap=args.umap)
    folder = args.out or find_latents(args.path).parent / (args.session or "")
    folder.mkdir(parents=True, exist_ok=True)
    written = write_results(results, views, latents, folder)
    samples, bins, dimensions = latents.values.shape
    title = (
        f"Latents of {args.session or latents.dataset} ({kind_of(latents)}), {' + '.join(latents.splits)}: "
        f"{samples} {'planes' if latents.continuous else 'trials'} x {bins} bins x {dimensions} latents"
    )
    if not latents.continuous:
        count = results["n_labels"]
        title += f", {count or 'no'} condition{'s' * (count != 1)}"
    print_table(title, ["question", "points", "score", "value", "chance", "control"], table_rows(results))
    print("control: labels shuffled, behavior shifted in time; accuracies are cross-validated")
    for path in written:
        print(f"written     {relative(path)}")


def _scores(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and values of each score that was found in one view."""
    for key, value in found.items():
        method, _, place = key.partition("_")
        if method in METHODS:
            yield METHODS[method] + (" in UMAP" if place else ""), value
    for name, value in found.get("umap", {}).items():
        yield f"kNN in {name} UMAP", value


def _test_accuracy(embedding: tuple[np.ndarray, np.ndarray], train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Nearest neighbours' accuracy for the test points, which were placed without their labels."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(15, len(train)), weights="distance").fit(embedding[0], train)
    chance = np.bincount(test).max() / len(test)
    return {"accuracy": float(model.score(embedding[1], test)), "chance": float(chance), "n_points": len(test)}


def _3(*values: float) -> list[str]:
    return [number(float(value), 3) for value in values]


if __name__ == "__main__":
    sys.exit(main())
