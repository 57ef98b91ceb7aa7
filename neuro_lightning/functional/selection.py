"""Which members of an ensemble, and how much of each: the mathematics of choosing.

Every way minimizes the same loss of a mixture of the members' predictions, in nats, over the entries (a neuron in a
bin of a trial) that are allowed to choose:

    L(w) = linear . w + sum_k f(w . x_k)        w: weights that sum to one, x_k: what the members predict at entry k

=============  =============  =====================================================  =======================
family         mixture        f                                                      linear
=============  =============  =====================================================  =======================
``poisson``    of rates       ``-y ln(w.x)``, needed only where there was a spike    sums of the rates
``log``        of log-rates   ``exp(w.x)``                                           ``-sum of y x``
``squared``    of rates       ``(w.x - y)^2``                                        0
=============  =============  =====================================================  =======================

All three are convex in the weights. Predictions are read in blocks, so memory does not grow with entries or members.

Sources: top: Ye et al. (AE Studio), first in the Neural Latents Benchmark '21; greedy: Caruana et al. 2004, "Ensemble
selection from libraries of models"; stacking: Wolpert 1992, Breiman 1996 (non-negative weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from neuro_lightning.functional.likelihood import ZERO_RATE

BLOCK = 2**20
"""Predictions (members times entries) that are in memory at a time."""
GAP = 1e-6
"""How far from the optimum, in nats of the whole selection, weights may be."""
MAX_STEPS = 100


@dataclass(frozen=True)
class Candidates:
    """What M members predict at the K entries that choose, neuron by neuron.

    Attributes:
        read: ``(start, stop) -> (M, stop - start)`` float64 predictions at these entries.
        targets: (K,) float64, what was observed there.
        starts: (N + 1,) the entries of neuron n are ``starts[n]`` to ``starts[n + 1]``.
        linear: (M, N) float64, the part of each neuron's loss that is linear in the weights.
        family: ``poisson``, ``log`` or ``squared``.
    """

    read: Callable[[int, int], ndarray]
    targets: ndarray
    starts: ndarray
    linear: ndarray
    family: str

    @property
    def n_members(self) -> int:
        """M."""
        return len(self.linear)

    def neuron(self, n: int) -> Candidates:
        """The same of one neuron alone."""
        first, last = int(self.starts[n]), int(self.starts[n + 1])
        return replace(
            self,
            read=lambda start, stop: self.read(first + start, first + stop),
            targets=self.targets[first:last],
            starts=np.array([0, last - first]),
            linear=self.linear[:, n : n + 1],
        )

    def blocks(self) -> Iterator[tuple[ndarray, ndarray]]:
        """Predictions (M, k) and targets (k,), :data:`BLOCK` predictions at a time."""
        step = max(1, BLOCK // self.n_members)
        for start in range(0, len(self.targets), step):
            stop = min(start + step, len(self.targets))
            yield self.read(start, stop), self.targets[start:stop]

    def loss(self, mixed: ndarray, targets: ndarray) -> ndarray:
        """The function f of mixed predictions, elementwise."""
        if self.family == "poisson":
            return -targets * np.log(np.where(mixed == 0, ZERO_RATE, mixed))
        return np.exp(mixed) if self.family == "log" else np.square(mixed - targets)

    def slopes(self, mixed: ndarray, targets: ndarray) -> tuple[ndarray, ndarray]:
        """The first and second derivative of f."""
        if self.family == "poisson":
            mixed = np.where(mixed == 0, ZERO_RATE, mixed)
            return -targets / mixed, targets / mixed**2
        if self.family == "log":
            return (value := np.exp(mixed)), value
        return 2 * (mixed - targets), np.full_like(mixed, 2.0)


def mixture_losses(candidates: Candidates, weights: ndarray) -> ndarray:
    """The losses L of several mixtures, in one pass.

    Args:
        candidates: M members.
        weights: (V, M), each row a mixture.

    Returns:
        (V,) float64.
    """
    total = weights @ candidates.linear.sum(1)
    for values, targets in candidates.blocks():
        total += candidates.loss(weights @ values, targets).sum(1)
    return total


def member_losses(candidates: Candidates) -> ndarray:
    """(M,) the loss of each member alone."""
    total = candidates.linear.sum(1)
    for values, targets in candidates.blocks():
        total += candidates.loss(values, targets).sum(1)
    return total


def top(candidates: Candidates, most: int) -> ndarray:
    """The mean of the best members, as many as make the best mean; of equal means, that of fewer members.

    Args:
        candidates: M members.
        most: members to take at most.

    Returns:
        (M,) how often each member counts, 0 or 1.
    """
    order = np.argsort(member_losses(candidates), kind="stable")[:most]
    share = 1 / np.arange(1, len(order) + 1)[:, None]
    total = np.cumsum(candidates.linear.sum(1)[order]) * share[:, 0]
    for values, targets in candidates.blocks():
        total += candidates.loss(np.cumsum(values[order], axis=0) * share, targets).sum(1)
    counts = np.zeros(candidates.n_members)
    counts[order[: np.argmin(total) + 1]] = 1
    return counts


def greedy(candidates: Candidates, most: int) -> ndarray:
    """Forward selection with replacement: begin with the best member, add what helps most, stop when nothing helps.

    Args:
        candidates: M members.
        most: members to take at most, repetitions counted.

    Returns:
        (M,) how often each member counts.
    """
    losses = member_losses(candidates)
    counts = np.zeros(candidates.n_members)
    counts[np.argmin(losses)] = 1
    best = losses.min()
    for size in range(2, most + 1):
        tried = counts @ candidates.linear.sum(1) + candidates.linear.sum(1)
        tried /= size
        for values, targets in candidates.blocks():
            tried += candidates.loss((counts @ values + values) / size, targets).sum(1)
        if not tried.min() < best - GAP:
            break
        counts[np.argmin(tried)] += 1
        best = tried.min()
    return counts


def stack(candidates: Candidates, shrinkage: float, center: ndarray | None = None) -> ndarray:
    """Weights that minimize ``L(w) + shrinkage (M |w - center|^2)``, not negative and of sum one.

    With the center at equal weights, the bracket is ``M / M_eff - 1``, M_eff the effective number of members. Squared
    errors become nats by the variance that the best member leaves.

    Args:
        candidates: M members.
        shrinkage: in nats; infinite keeps the center.
        center: (M,) weights that are right unless the data say otherwise; None for equal ones.

    Returns:
        (M,) weights, within :data:`GAP` nats of the optimum.
    """
    n_members = candidates.n_members
    center = np.full(n_members, 1 / n_members) if center is None else center
    if n_members == 1 or math.isinf(shrinkage) or not len(candidates.targets):
        return center
    unit = 1.0
    if candidates.family == "squared":
        unit = 2 * member_losses(candidates).min() / len(candidates.targets) or 1.0
    pull = shrinkage * n_members

    def value(weights: ndarray) -> float:
        return mixture_losses(candidates, weights[None])[0] / unit + pull * np.square(weights - center).sum()

    weights, now = center, value(center)
    for _ in range(MAX_STEPS):
        slope, curvature = _derivatives(candidates, weights)
        slope = slope / unit + 2 * pull * (weights - center)
        curvature = curvature / unit + 2 * pull * np.eye(n_members)
        if slope @ weights - slope.min() <= GAP:  # a convex loss lies above its tangents: no weights are better by more
            break
        step = simplex_minimum(curvature, slope - curvature @ weights) - weights
        length = 1.0
        while not (after := value(weights + length * step)) <= now + 1e-4 * length * (slope @ step):
            length /= 2
            if length < 1e-6:  # the last digits
                return weights
        weights, now = weights + length * step, after
    return weights


def per_neuron(candidates: Candidates, shrinkage: float, center: ndarray) -> ndarray:
    """Weights of each neuron by itself, drawn towards those of all neurons, for one neuron alone has few spikes.

    Args:
        candidates: M members.
        shrinkage: in nats, see :func:`stack`; infinite keeps the center.
        center: (M,) weights for all neurons.

    Returns:
        (M, N) weights.
    """
    columns = [stack(candidates.neuron(n), shrinkage, center) for n in range(len(candidates.starts) - 1)]
    return np.stack(columns, axis=1)


def simplex_minimum(curvature: ndarray, slope: ndarray) -> ndarray:
    """The weights, not negative and of sum one, that minimize ``w.H.w / 2 + g.w``.

    With ``H = L L'`` and ``L v = g`` they make the least ``|L'w + v|``, which for weights of sum one is ``|A w|`` with
    ``A = L' + v 1'``. The u that make ``|A u|^2 + (1.u - 1)^2`` least without being negative have the direction of w:
    for any direction the best length leaves ``q / (q + 1)``, which rises with ``q = |A w|^2``.

    Args:
        curvature: (M, M) H, symmetric and not negative.
        slope: (M,) g.

    Example:
        >>> simplex_minimum(np.eye(2), np.zeros(2))
        array([0.5, 0.5])
    """
    size = len(slope)
    scale = np.trace(curvature) / size
    root = np.linalg.cholesky(curvature + 1e-12 * scale * np.eye(size))  # members that say the same leave it singular
    ones, offset = solve_triangular(root, np.column_stack([np.ones(size), slope]), lower=True).T
    offset -= (ones @ offset) / (ones @ ones) * ones  # a constant added to g changes nothing but the precision
    rows = np.vstack([(root.T + offset[:, None]) / np.sqrt(scale), np.ones(size)])
    found = nnls(rows, np.append(np.zeros(size), 1.0), maxiter=30 * size)[0]
    return found / found.sum()


def _derivatives(candidates: Candidates, weights: ndarray) -> tuple[ndarray, ndarray]:
    """The slope (M,) and the curvature (M, M) of L."""
    slope = candidates.linear.sum(1)
    curvature = np.zeros((len(weights), len(weights)))
    for values, targets in candidates.blocks():
        first, second = candidates.slopes(weights @ values, targets)
        slope = slope + values @ first
        curvature += (values * second) @ values.T
    return slope, curvature
