"""How well labels and behavior can be decoded from points, with chance level and shuffled controls.

Points are (n, F) arrays, labels (n,) integers, groups (n,) integers: points of one group (a stretch of time, a trial)
are never on both sides of a cross-validation, because neighbours in time resemble each other whatever their labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neuro_lightning.functional.ridge import contiguous_folds, fold_grams, ridge_search

MAX_DIMENSIONS = 50  # principal components that classifiers and clusterings see
ALPHAS = tuple(10.0**k for k in range(-1, 6))  # ridge penalties, of z-scored predictors
CLASSIFIERS = ("knn", "logistic")
CLUSTERINGS = ("kmeans", "hdbscan")


def reduce(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets z-scored and projected on at most 50 principal components, all estimated from the first alone.

    Args:
        train: (n, F).
        test: (m, F).

    Returns:
        (n, D) and (m, D).
    """
    from sklearn.decomposition import PCA

    mean, spread = train.mean(0), train.std(0)
    spread = np.where(
        spread > 1e-12 * np.abs(train).max(initial=1e-300), spread, np.inf
    )  # constant columns are dropped
    train, test = (train - mean) / spread, (test - mean) / spread
    if train.shape[1] <= MAX_DIMENSIONS:
        return train, test
    axes = PCA(min(MAX_DIMENSIONS, max(len(train) - 1, 1)), svd_solver="full").fit(train).components_.T
    return train @ axes, test @ axes


def decode_labels(
    points: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    classifier: str = "knn",
    n_folds: int = 5,
    shuffles: int = 10,
    seed: int = 0,
) -> dict[str, float]:
    """Cross-validated accuracy of reading the labels off the points.

    Args:
        points: (n, F).
        labels: (n,) integers.
        groups: (n,) integers, kept together; None deals points to the folds at random, in equal shares of each label.
        classifier: ``knn`` (15 nearest neighbours) or ``logistic`` (multinomial regression).
        n_folds: of the cross-validation; fewer where a label or the groups are.
        shuffles: times that the labels of the training points are shuffled, for the control.
        seed: of folds and shuffles.

    Returns:
        ``accuracy``; ``chance``, the share of the most frequent label; ``shuffled`` and ``shuffled_sd``, mean and
        standard deviation over shuffles; ``n_points`` and ``n_folds``. Accuracies are NaN where no fold can be made.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(seed)
    _, labels = np.unique(labels, return_inverse=True)
    folds = _folds(labels, groups, n_folds, rng)
    several = folds.min() < folds.max()
    hits = np.zeros(shuffles + 1) if several else np.full(shuffles + 1, np.nan)
    for fold in np.unique(folds) if several else ():
        train, test = folds != fold, folds == fold
        x, y = reduce(points[train], points[test])
        for k in range(shuffles + 1):
            known = labels[train] if k == 0 else rng.permutation(labels[train])
            if len(np.unique(known)) < 2:
                hits[k] = np.nan
                continue
            if classifier == "knn":
                model = KNeighborsClassifier(min(15, max(1, len(known) // 3)), weights="distance")
            else:
                model = LogisticRegression(C=0.1, max_iter=300)
            hits[k] += (model.fit(x, known).predict(y) == labels[test]).sum()
    accuracy = hits / len(labels)
    return {
        "accuracy": float(accuracy[0]),
        "chance": float(np.bincount(labels).max() / len(labels)),
        "shuffled": float(accuracy[1:].mean()) if shuffles else float("nan"),
        "shuffled_sd": float(accuracy[1:].std()) if shuffles else float("nan"),
        "n_points": len(labels),
        "n_folds": len(np.unique(folds)),
    }


def cluster_agreement(
    points: np.ndarray, labels: np.ndarray, *, method: str = "kmeans", shuffles: int = 10, seed: int = 0
) -> dict[str, float]:
    """Whether clusters that were found without the labels are the labels.

    Args:
        points: (n, F), clustered as they are.
        labels: (n,) integers; k-means looks for as many clusters as there are labels.
        method: ``kmeans`` or ``hdbscan``.
        shuffles: times that the labels are shuffled, for the control.
        seed: of k-means and shuffles.

    Returns:
        ``ari``, the adjusted Rand index (0 by chance, 1 for the same partition), and ``nmi``, normalised mutual
        information, which is above 0 by chance; ``shuffled_ari`` and ``shuffled_nmi``; ``n_clusters``; ``noise``, the
        share of points that HDBSCAN leaves without a cluster. Those count as one more cluster.
    """
    from sklearn.cluster import HDBSCAN, KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(seed)
    n_labels = len(np.unique(labels))
    if method == "kmeans":
        found = KMeans(n_labels, n_init=10, random_state=seed).fit_predict(points)
    else:
        size = max(5, len(points) // (10 * n_labels))
        found = HDBSCAN(min_cluster_size=size, min_samples=min(5, size), copy=True).fit_predict(points)
    controls = [rng.permutation(labels) for _ in range(shuffles)]
    return {
        "ari": float(adjusted_rand_score(labels, found)),
        "nmi": float(normalized_mutual_info_score(labels, found)),
        "shuffled_ari": float(np.mean([adjusted_rand_score(control, found) for control in controls])),
        "shuffled_nmi": float(np.mean([normalized_mutual_info_score(control, found) for control in controls])),
        "n_clusters": len(set(found.tolist()) - {-1}),
        "noise": float((found == -1).mean()),
        "n_points": len(points),
    }


def decode_behavior(
    predictors: np.ndarray, behavior: np.ndarray, test: np.ndarray, *, shifts: int = 10, seed: int = 0
) -> dict[str, Any]:
    """R2 of ridge regression from latents to behavior, on rows later than those it was fitted on.

    The penalty is chosen by cross-validation within the training rows, in contiguous folds. The control shifts the
    behavior in a circle, which keeps that it is smooth: two slow signals correlate by chance.

    Args:
        predictors: (n, P), rows in the order of time.
        behavior: (n, K), NaN where unknown.
        test: (n,) bool, the rows to score on.
        shifts: of the control, each by at least a tenth of the rows.
        seed: of the shifts.

    Returns:
        ``r2`` (K,) and ``shifted`` (K,), the control's mean; ``n_train`` and ``n_test``. NaN for a channel that does
        not vary or is unknown.
    """
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.ascontiguousarray(predictors, np.float64))
    x = (x - x[~test].mean(0)) / x[~test].std(0).clamp_min(1e-12)
    known = ~np.isnan(behavior).any(1)
    rows = len(behavior)
    offsets = rng.integers(rows // 10, rows - rows // 10, shifts).tolist() if rows >= 10 else []
    scores = [_ridge_r2(x, behavior, known, test)]
    for offset in offsets:
        scores.append(_ridge_r2(x, np.roll(behavior, offset, axis=0), np.roll(known, offset), test))
    control = np.mean(scores[1:], axis=0) if shifts else np.full(behavior.shape[1], np.nan)
    counts = {"n_train": int((known & ~test).sum()), "n_test": int((known & test).sum())}
    return {"r2": scores[0], "shifted": control, **counts}


def _ridge_r2(x: torch.Tensor, behavior: np.ndarray, known: np.ndarray, test: np.ndarray) -> np.ndarray:
    train, later = torch.from_numpy(known & ~test), torch.from_numpy(known & test)
    y = torch.from_numpy(np.nan_to_num(behavior).astype(np.float64))
    if train.sum() < 10 or later.sum() < 2:
        return np.full(y.shape[1], np.nan)
    mean, spread = y[train].mean(0), y[train].std(0)
    y = (y - mean) / torch.where(spread > 0, spread, torch.nan)  # each channel of equal weight in the search
    moving = torch.where(spread > 0)[0]
    result = torch.full((len(spread),), torch.nan, dtype=torch.float64)
    if len(moving):
        fit, _ = ridge_search(fold_grams(x, y[:, moving], contiguous_folds(train)), len(moving), ALPHAS)
        left = (y[:, moving] - x @ fit.weight - fit.bias)[later].square().sum(0)
        result[moving] = 1 - left / (y[:, moving][later] - y[:, moving][later].mean(0)).square().sum(0)
    return torch.where(result.isfinite(), result, torch.nan).numpy()


def _folds(labels: np.ndarray, groups: np.ndarray | None, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) the fold of each point."""
    if groups is not None:
        names, place = np.unique(groups, return_inverse=True)
        return (np.arange(len(names)) * min(n_folds, len(names)) // len(names))[place]
    folds = np.zeros(len(labels), int)
    n_folds = max(min(n_folds, int(np.bincount(labels).min())), 1)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        folds[members] = np.arange(len(members)) % n_folds
    return folds
