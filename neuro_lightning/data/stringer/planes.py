"""From neurons scattered in a volume to populations of equal size, normalised, in bins, cut in time.

A population is an imaging plane (two-photon planes, not cortical layers) or a square block of the field of view.
Source of the published choices: the NMAs project (repository sazio/NMAs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuro_lightning.data.checks.options import check_choice, check_share
from neuro_lightning.errors import ConfigError, DataError

MAX_PLANES = 64
NORMALISATIONS = ("layer_pop_mean", "zscore", "divide_by_mean", "none")


def plane_labels(z: np.ndarray, path: object = "the recording") -> np.ndarray:
    """(N,) the plane of each neuron: the rank of its depth among the distinct ones, from 0.

    Args:
        z: (N,) depth, um.
        path: the file, for the message.

    Raises:
        DataError: there are too many distinct depths for planes.
    """
    depths, labels = np.unique(z, return_inverse=True)
    if len(depths) > MAX_PLANES:
        raise DataError(
            f"{path}: the neurons lie at {len(depths)} different depths, which are no imaging planes; "
            "group them by position with data.blocks=3"
        )
    return labels.reshape(-1).astype(np.int64)


def block_labels(x: np.ndarray, y: np.ndarray, n_blocks: int) -> np.ndarray:
    """(N,) the x-y block of each neuron, ``n_blocks * column + row``, from edges of equal width.

    Args:
        x: (N,) position, um.
        y: (N,) position, um.
        n_blocks: blocks in each direction.
    """
    return n_blocks * _bands(x, n_blocks) + _bands(y, n_blocks)


def draw_neurons(
    labels: np.ndarray, *, n: int | None = None, heldout_fraction: float = 0.0, seed: int = 0
) -> tuple[dict[int, np.ndarray], int]:
    """Draw the same number of neurons from every group, without replacement.

    A group's neurons do not depend on the other groups, and fewer of them are a part of more. The last ones drawn are
    held out; held-in and held-out ones are then put in the file's order.

    Args:
        labels: (N,) group of each neuron, 0 to G - 1.
        n: neurons of a group; None means as many as the least populated group has.
        heldout_fraction: share of them to hold out.
        seed: of the draw.

    Returns:
        ``(neurons, n_in)``: (n,) indices of each group's neurons, held-in first, and how many are held in.

    Raises:
        ConfigError: a group has fewer neurons, or too few would be left to look at.
    """
    counts = np.bincount(labels)
    least = int(counts.min())
    if least < 2:
        raise ConfigError(
            f"the smallest of the {len(counts)} groups has {least} of the recording's {len(labels)} neurons, too few "
            "to use; choose fewer data.blocks"
        )
    n = least if n is None else n
    if not 2 <= n <= least:
        raise ConfigError(
            f"data.neurons_per_plane={n}: the least populated of the {len(counts)} groups has {least} neurons; use 2 "
            f"to {least}, or null for {least}"
        )
    n_out = round(heldout_fraction * n)
    if not 0 <= heldout_fraction < 1 or n_out > n - 2:
        raise ConfigError(
            f"data.heldout_fraction={heldout_fraction} of {n} neurons leaves too few to look at; use 0 to 0.9"
        )
    neurons = {}
    for label in range(len(counts)):
        drawn = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))[:n]
        neurons[label] = np.concatenate([np.sort(drawn[: n - n_out]), np.sort(drawn[n - n_out :])])
    return neurons, n - n_out


def downsample(values: np.ndarray, factor: int) -> np.ndarray:
    """Means of ``factor`` consecutive bins; bins that are left over at the end are dropped.

    Args:
        values: (..., T).
        factor: bins to one.

    Returns:
        (..., T // factor).
    """
    if factor == 1:
        return values
    bins = values.shape[-1] // factor
    return values[..., : bins * factor].reshape(*values.shape[:-1], bins, factor).mean(-1)


def split_bins(n_bins: int, val_fraction: float, test_fraction: float) -> dict[str, slice]:
    """Consecutive parts of a recording: ``train``, ``val`` and, where its share is above 0, ``test``.

    Args:
        n_bins: T.
        val_fraction: share of the bins.
        test_fraction: share of the bins, the last ones.

    Raises:
        ConfigError: a part would have fewer than two bins.
    """
    check_share("val_fraction", val_fraction, zero=True)
    check_share("test_fraction", test_fraction, zero=True)
    # 0.7 * 10 is 7.000000000000001 or 6.999999999999999: shares that mean whole bins shall give them
    first = math.floor(n_bins * (1 - val_fraction - test_fraction) + 1e-6)
    second = math.floor(n_bins * (1 - test_fraction) + 1e-6)
    parts = {"train": slice(0, first), "val": slice(first, second)}
    if test_fraction:
        parts["test"] = slice(second, n_bins)
    if any(part.stop - part.start < 2 for part in parts.values()):
        raise ConfigError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} of {n_bins} bins leave a part "
            "with fewer than two; 0.15 each is the default"
        )
    return parts


def windows(n_bins: int, size: int | None, stride: int | None) -> list[slice]:
    """Windows of a sequence from its start on; bins that fill no window are left out.

    Args:
        n_bins: T.
        size: bins of a window; None means the whole sequence.
        stride: bins from one start to the next; None means ``size``.

    Raises:
        ConfigError: no window fits.
    """
    if size is None:
        return [slice(0, n_bins)]
    stride = size if stride is None else stride
    if not 2 <= size <= n_bins or stride < 1:
        raise ConfigError(
            f"data.window={size}, data.stride={stride}: the training part has {n_bins} bins; use a window of 2 to "
            f"{n_bins} bins and a stride of at least 1, or data.window=null for the whole sequence"
        )
    return [slice(start, start + size) for start in range(0, n_bins - size + 1, stride)]


@dataclass
class Scaling:
    """A normalisation that can be undone: ``(values - offset) / scale``.

    Attributes:
        offset: (n, 1) or (1, 1).
        scale: (n, 1), (1, T) or (1, 1).
    """

    offset: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(n, T) normalised values."""
        return (values - self.offset) / self.scale

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """(n, T) values in the file's unit."""
        return values * self.scale + self.offset


def fit_scaling(activity: np.ndarray, kind: str, *, n_in: int, n_train: int) -> Scaling:
    """The normalisation of a population.

    ``layer_pop_mean`` divides every bin by the population's mean in that bin, as published: afterwards the mean over
    neurons is 1 at all times. The other kinds scale each neuron by what it did in the training part.

    Args:
        activity: (n, T), held-in neurons first.
        kind: ``layer_pop_mean``, ``zscore``, ``divide_by_mean`` or ``none``.
        n_in: held-in neurons; the population's mean is theirs, so that nothing of the others reaches a model's input.
        n_train: bins of the training part, the first ones: nothing of the others is used but for the population's
            mean, which is that of its own bin.

    Raises:
        ConfigError: the kind is unknown.
    """
    check_choice("normalisation", kind, NORMALISATIONS)
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    train = activity[:, :n_train]
    match kind:
        case "layer_pop_mean":
            return Scaling(zero, _replace_zeros(activity[:n_in].mean(0, keepdims=True, dtype=np.float64)))
        case "zscore":
            mean = train.mean(1, keepdims=True, dtype=np.float64)
            return Scaling(mean, _replace_zeros(train.std(1, keepdims=True, dtype=np.float64)))
        case "divide_by_mean":
            return Scaling(zero, _replace_zeros(train.mean(1, keepdims=True, dtype=np.float64)))
    return Scaling(zero, one)


def _bands(position: np.ndarray, n: int) -> np.ndarray:
    edges = np.linspace(position.min(), position.max(), n + 1)[1:-1]
    return np.searchsorted(edges, position, side="right").astype(np.int64)


def _replace_zeros(scale: np.ndarray) -> np.ndarray:
    """What cannot be divided by (a silent neuron, a bin without activity) is left as it is."""
    return np.where(scale > 0, scale, 1.0)
