"""Which of the labelled images train and which validate: the winner's split, or k folds."""

from __future__ import annotations

import numpy as np

from neuro_lightning.data.checks.options import check_whole


def split_images(
    responses: np.ndarray,
    image: np.ndarray | None = None,
    *,
    folds: int | None = 5,
    fold: int = 0,
    eval_size: int = 20,
    min_responses: int = 1,
    split_seed: int = 130,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the labelled images.

    Args:
        responses: (B, N), NaN where an image was not shown to a neuron.
        image: (B,) the same number for images that are the same, which stay on one side: in the fold of the first of
            them, or, with the winner's split, out of the training images where one of them validates. None: all differ.
        folds: how many parts validate in turn, or None for the winner's split (:func:`winner_split`).
        fold: which of them validates now, from 0.
        eval_size: of the winner's split.
        min_responses: images with responses of fewer neurons are left out, 1 to N.
        split_seed: of the shuffling.

    Returns:
        ``(train, val)``, the rows of ``responses``, without a common one.

    Raises:
        ConfigError: an argument is impossible.
    """
    observed = np.isfinite(responses)
    check_whole("min_responses", min_responses, 1, observed.shape[1])
    check_whole("split_seed", split_seed, 0, 2**32 - 1)
    enough = observed.sum(1) >= min_responses
    image = np.arange(len(responses)) if image is None else image
    if folds is None:
        train, val = winner_split(observed, eval_size, split_seed)
        return train[enough[train] & ~np.isin(image[train], image[val])], val
    check_whole("folds", folds, 2, int(enough.sum()))
    check_whole("fold", fold, 0, folds - 1)
    rows = np.flatnonzero(enough)
    _, first, group = np.unique(image[rows], return_index=True, return_inverse=True)
    number = fold_numbers(observed[rows], folds, split_seed)[first][group]
    return rows[number != fold], rows[number == fold]


def winner_split(observed: np.ndarray, eval_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The split of the challenge's winner (repository apls777/kaggle-uw-neural-data-challenge).

    All rows are shuffled. The first ``eval_size`` complete ones, in shuffled order, validate; the other complete ones,
    followed by the incomplete ones, train. With 20 and the winner's seed 130 the published files give 531 and 20.

    Args:
        observed: (B, N) bool, where there is a response.
        eval_size: rows to validate with.
        seed: of the shuffling.

    Returns:
        ``(train, val)``, row numbers in this order.

    Raises:
        ConfigError: there are not so many complete rows.
    """
    order = np.random.RandomState(seed).permutation(len(observed))
    complete = observed[order].all(1)
    n_complete = int(complete.sum())
    check_whole("eval_size", eval_size, 1, n_complete, f" (so many of the {len(observed)} images were shown to all)")
    chosen, rest = order[complete][:eval_size], order[complete][eval_size:]
    return np.concatenate([rest, order[~complete]]), chosen


def fold_numbers(observed: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row: every row in one, and each pattern of missing responses in equal shares.

    Without this care a fold could have next to no image of the seven neurons that saw only the first 151.

    Args:
        observed: (B, N) bool, where there is a response.
        folds: how many.
        seed: of the shuffling.

    Returns:
        (B,) int64, from 0 to ``folds - 1``; the folds' sizes differ by one at most.
    """
    rng = np.random.default_rng(seed)
    _, pattern = np.unique(observed, axis=0, return_inverse=True)
    order = rng.permutation(len(observed))
    order = order[np.argsort(pattern.reshape(-1)[order], kind="stable")]  # shuffled within each pattern
    numbers = np.empty(len(observed), np.int64)
    numbers[order] = np.arange(len(observed)) % folds
    return numbers
