"""Trials that share time or content: which they are, and splits that keep them on one side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuro_lightning.data.split_arrays import SplitArrays

BLOCK = 10
"""Validation blocks of a long chain hold so many times the trials that one border costs."""


@dataclass
class Spans(SplitArrays):
    """Where windows lie in time.

    Attributes:
        start: (B,) int64, in samples or ns.
        stop: (B,) int64, the first sample after each window; above ``start``.
    """

    start: np.ndarray
    stop: np.ndarray


def distinct_windows(spans: Spans) -> np.ndarray:
    """Ascending indices of the windows without those that are the same as an earlier one."""
    _, first = np.unique(np.stack([spans.start, spans.stop], axis=1), axis=0, return_index=True)
    return np.sort(first)


def overlaps(spans: Spans, others: Spans) -> np.ndarray:
    """(B,) bool, the windows that share time with any of ``others``."""
    if not len(others):
        return np.zeros(len(spans), bool)
    order = np.argsort(others.start, kind="stable")
    latest = np.maximum.accumulate(others.stop[order])  # of all that start no later
    before = np.searchsorted(others.start[order], spans.stop)  # so many start before the window ends
    return (before > 0) & (latest[np.maximum(before, 1) - 1] > spans.start)


def overlapping_groups(spans: Spans) -> np.ndarray:
    """(B,) the group of each window: windows that share time, and those that share time with them, are one group."""
    order = np.argsort(spans.start, kind="stable")
    latest = np.maximum.accumulate(spans.stop[order])
    begins = np.ones(len(spans), bool)
    begins[1:] = spans.start[order][1:] >= latest[:-1]
    groups = np.empty(len(spans), np.int64)
    groups[order] = np.cumsum(begins) - 1
    return groups


def count_overlapping(spans: Spans) -> int:
    """How many windows share time with another one; windows that are the same count once."""
    groups = overlapping_groups(spans.take(distinct_windows(spans)))
    sizes = np.bincount(groups)
    return int(sizes[sizes > 1].sum())


def drop_overlapping(spans: Spans, parts: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int, int]:
    """Leave out what is there twice, and what shares time with a later part.

    Args:
        spans: all windows.
        parts: indices of the windows of each part, ``train`` first and ``test`` last: what trains or chooses gives way
            to what is scored.

    Returns:
        ``(parts, duplicates, dropped)``: ascending indices, how many windows were the same as an earlier one of their
        part, and how many shared time with a later part.
    """
    kept: dict[str, np.ndarray] = {}
    duplicates = dropped = 0
    for name, index in reversed(parts.items()):
        once = np.sort(index)[distinct_windows(spans.take(np.sort(index)))]
        later = np.concatenate([*kept.values(), np.empty(0, np.int64)]).astype(np.int64)
        kept[name] = once[~overlaps(spans.take(once), spans.take(later))]
        duplicates += len(index) - len(once)
        dropped += len(once) - len(kept[name])
    return {name: kept[name] for name in parts}, duplicates, dropped


def draw_blocks(spans: Spans, n_val: int, seed: int) -> np.ndarray:
    """A random choice of windows to validate with: whole groups of overlapping windows.

    A group that is long (windows cut at a stride) is divided into blocks of successive windows first; training windows
    that share time with a validation block must then be left out (:func:`drop_overlapping`). Windows that do not
    overlap are drawn one by one.

    Args:
        spans: the windows.
        n_val: how many shall validate; met to within half a block.
        seed: of the draw.

    Returns:
        (B,) bool.
    """
    pieces = _drawable_blocks(spans, n_val)
    validates = np.zeros(len(spans), bool)
    drawn = 0
    for k in np.random.default_rng([seed, 1]).permutation(len(pieces))[::-1]:
        if drawn < n_val and drawn + len(pieces[k]) - n_val <= n_val - drawn:
            validates[pieces[k]] = True
            drawn += len(pieces[k])
    return validates


def _drawable_blocks(spans: Spans, n_val: int) -> list[np.ndarray]:
    """Windows that are drawn together, in the order of their first window in the table."""
    order = np.argsort(spans.start, kind="stable")
    groups = overlapping_groups(spans)
    chains = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    pieces = []
    for chain in chains:
        later = np.searchsorted(spans.start[chain], spans.stop[chain]) - np.arange(len(chain)) - 1
        largest = min(n_val, max(2, math.ceil(BLOCK * later.mean())))
        pieces += np.array_split(chain, math.ceil(len(chain) / largest))
    return sorted(pieces, key=lambda piece: piece.min())


def first_identical(images: np.ndarray) -> np.ndarray:
    """(B,) for each image the first one that is the same in every byte.

    Args:
        images: (B, ...).
    """
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(image.tobytes(), k) for k, image in enumerate(images)], np.int64)


def move_copies_together(parts: dict[str, np.ndarray], first: np.ndarray) -> dict[str, np.ndarray]:
    """Each image in the part of the first one that is the same.

    Args:
        parts: indices by name, every index in one of them.
        first: (B,) see :func:`first_identical`.

    Returns:
        Ascending indices by name.
    """
    number = np.empty(len(first), np.int64)
    for k, index in enumerate(parts.values()):
        number[index] = k
    return {name: np.flatnonzero(number[first] == k) for k, name in enumerate(parts)}


def shared_counts(train: np.ndarray, val: np.ndarray) -> np.ndarray:
    """Training trials that hold a validation trial's spikes: the same trial, or the end of one is the other's begin.

    A stretch of bins counts only if chance cannot explain it: less than one in a thousand files of neurons with these
    mean counts would have such a match. So silent trials are not taken for the same trial.

    Args:
        train: (B, L, N) spike counts.
        val: (B', L, N) likewise.

    Returns:
        (B,) int64, how many bins each training trial shares with a validation trial.
    """
    n_bins = train.shape[1]
    both = np.concatenate([train, val])
    limit = -math.log(1000.0 * len(train) * len(val) * 2 * n_bins)
    heads, tails = _prefix_and_suffix_hashes(_hash_bins(both))
    surprise = _log_chance(both, both.mean(axis=(0, 1), dtype=np.float64))
    head_chance = np.cumsum(surprise, axis=1)
    tail_chance = np.cumsum(surprise[:, ::-1], axis=1)
    shared = np.zeros(len(train), np.int64)
    for k in range(n_bins):  # stretches of k + 1 bins
        for ours, theirs, chance in ((tails, heads, tail_chance), (heads, tails, head_chance)):
            likely = chance[: len(train), k] < limit
            if likely.any():
                shared[likely & np.isin(ours[: len(train), k], theirs[len(train) :, k])] = k + 1
    return shared


def _hash_bins(counts: np.ndarray) -> np.ndarray:
    """(B, L) uint64, the same number for bins with the same counts."""
    weights = np.random.default_rng(0).integers(2**63, size=counts.shape[2], dtype=np.uint64) * np.uint64(2)
    keys = np.zeros(counts.shape[:2], np.uint64)
    for neuron, weight in enumerate(weights + np.uint64(1)):  # one at a time: all together are many times the file
        keys += counts[:, :, neuron].astype(np.uint64) * weight  # modulo 2^64
    return keys


def _prefix_and_suffix_hashes(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, L) uint64 each: a number of the first k + 1 bins, and of the last k + 1, equal where the bins are."""
    base = np.uint64(6364136223846793005)
    powers = np.full(keys.shape[1], base, np.uint64)
    powers[0] = 1
    heads = np.cumsum(keys * np.cumprod(powers, dtype=np.uint64), axis=1, dtype=np.uint64)
    tails = np.empty_like(keys)
    tails[:, 0] = keys[:, -1]
    for k in range(1, keys.shape[1]):
        tails[:, k] = keys[:, -1 - k] + base * tails[:, k - 1]
    return heads, tails


def _log_chance(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(B, L) log-probability of each bin's counts if every neuron were Poisson with its mean count."""
    from scipy.special import gammaln

    total = np.zeros(counts.shape[:2])
    for neuron, rate in enumerate(mean):
        n = counts[:, :, neuron].astype(np.float64)
        total += n * np.log(max(rate, 1e-12)) - rate - gammaln(n + 1)
    return total
