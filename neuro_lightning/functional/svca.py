"""Shared variance component analysis: how much of a population's activity is predictable from other neurons.

Two halves of the neurons see the same state of the brain with noise of their own. Directions along which they covary
in some bins are tested in others: what both halves still agree on there is reliable, the rest is private to a half.

Source: Stringer, Pachitariu et al. 2019, Science 364:255 (repository MouseLand/stringer-pachitariu-et-al-2018a,
``SVCA.m``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SharedVariance(NamedTuple):
    """Variance along the shared components, strongest training covariance first.

    Attributes:
        reliable: (D,) covariance of the halves' projections; negative by chance where nothing is shared.
        total: (D,) mean variance of the halves' projections.
        variance: scalar, mean over the halves of the whole variance of all their neurons.
    """

    reliable: Tensor
    total: Tensor
    variance: Tensor

    @property
    def ratio(self) -> Tensor:
        """(D,) share of each component's variance that is reliable, about 0 beyond the shared dimensions."""
        return self.reliable / self.total

    @property
    def cumulative(self) -> Tensor:
        """(D,) the same of the first 1, 2, ... D components together."""
        return self.reliable.cumsum(0) / self.total.cumsum(0)

    @property
    def share(self) -> Tensor:
        """Scalar, share of the population's whole variance that is reliable."""
        return self.reliable.sum() / self.variance


def svca(
    activity: Tensor, half: Tensor, train: Tensor | None = None, *, n_components: int | None = None
) -> SharedVariance:
    """Shared variance components of one recording.

    Args:
        activity: (N, T).
        half: (N,) bool, True for the first half of the neurons, see :func:`checkerboard` and :func:`random_half`.
        train: (T,) bool, True for the bins from which the components are taken; the others test them. None means
            blocks of 30 bins in turn, see :func:`interleaved`.
        n_components: D; None means all.

    Returns:
        Variances in float64, per bin.
    """
    if train is None:
        train = interleaved(activity.shape[1])
    return shared_variance(activity[:, train], activity[:, ~train], half, n_components=n_components)


def shared_variance(train: Tensor, test: Tensor, half: Tensor, *, n_components: int | None = None) -> SharedVariance:
    """The same with components from one recording and their test on another one of the same neurons.

    Args:
        train: (N, T) activity from which the components are taken.
        test: (N, T') activity on which they are tested.
        half: (N,) bool, True for the first half of the neurons.
        n_components: D, at most the smaller half and T; None means all.

    Raises:
        ValueError: a half has no neuron, or there are fewer than two bins to train or to test.
    """
    if half.all() or not half.any():
        raise ValueError("both halves need neurons")
    if min(train.shape[1], test.shape[1]) < 2:
        raise ValueError("components need at least two bins to be found and two to be tested")
    train, test = _centred(train), _centred(test)
    left, right = _directions(train[half], train[~half])
    if n_components is not None:
        left, right = left[:, :n_components], right[:, :n_components]
    first, second = left.T @ test[half], right.T @ test[~half]
    bins = test.shape[1]
    reliable = (first * second).double().sum(1) / bins
    total = (first.double().square() + second.double().square()).sum(1) / (2 * bins)
    return SharedVariance(reliable, total, test.double().square().sum() / (2 * bins))


def pooled_share(parts: list[SharedVariance]) -> Tensor:
    """Share of reliable variance of several populations together, such as the planes of a recording; a scalar."""
    zero = parts[0].variance.new_zeros(())
    return sum((part.reliable.sum() for part in parts), zero) / sum((part.variance for part in parts), zero)


def interleaved(n_bins: int, block: int = 30) -> Tensor:
    """(T,) bool, True for every other block of ``block`` bins, shorter ones where there are few bins.

    Example:
        >>> interleaved(8, block=2)
        tensor([ True,  True, False, False,  True,  True, False, False])
    """
    block = max(1, min(block, n_bins // 4))
    return torch.arange(n_bins) // block % 2 == 0


def checkerboard(xy: Tensor, width: float = 60.0) -> Tensor:
    """(N,) bool, the neurons on the white squares: halves without neighbours that share light.

    Neurons above each other fall into the same half, as light spreads in depth most of all.

    Args:
        xy: (N, 2) positions, um.
        width: of a square, um.

    Example:
        >>> checkerboard(torch.tensor([[0.0, 0.0], [60.0, 0.0], [60.0, 60.0]]))
        tensor([ True, False,  True])
    """
    return torch.floor(xy / width).sum(1) % 2 == 0


def random_half(n_neurons: int, seed: int = 0) -> Tensor:
    """(N,) bool, a seeded half of the neurons."""
    half = torch.zeros(n_neurons, dtype=torch.bool)
    half[torch.randperm(n_neurons, generator=torch.Generator().manual_seed(seed))[: n_neurons // 2]] = True
    return half


def _centred(activity: Tensor) -> Tensor:
    return activity - activity.mean(1, keepdim=True)


def _directions(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal directions (N1, D) and (N2, D) of largest covariance of two halves, (N1, T) and (N2, T).

    Both halves lie in the span of their bins: with fewer bins than neurons the covariance is taken apart there.
    """
    bases = []
    if first.shape[1] < min(len(first), len(second)):
        (basis, first), (other, second) = torch.linalg.qr(first), torch.linalg.qr(second)
        bases = [basis, other]
    left, _, right = torch.linalg.svd(first @ second.T, full_matrices=False)
    return (bases[0] @ left, bases[1] @ right.T) if bases else (left, right.T)
