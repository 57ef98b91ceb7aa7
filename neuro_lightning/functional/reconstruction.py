"""How well real-valued activity is reconstructed: squared error, R2 of each neuron, share of variance.

Everything is computed from sums over bins, kept apart for each neuron of each group of trials: the trials of another
group (an imaging plane) show *other* neurons in the same columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional.correlation import variation


class ErrorSums(NamedTuple):
    """Sums over the observed entries of each neuron; all (M, N) float64, for M groups of N neurons.

    Attributes:
        count: observed entries.
        total: sum of the targets, less the shift.
        squares: sum of squares of the same.
        residual: sum of squared differences of prediction and target.
    """

    count: Tensor  # type: ignore[assignment]  # hides the tuple's count(), which nobody needs
    total: Tensor
    squares: Tensor
    residual: Tensor

    @property
    def variation(self) -> Tensor:
        """(M, N) sum of squares of the targets about their mean, 0 for a neuron that does not vary."""
        return variation(self.count, self.total, self.squares)


def error_sums(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    group: Tensor | None = None,
    *,
    n_groups: int = 1,
    shift: Tensor | None = None,
) -> ErrorSums:
    """The sums of a batch; those of several batches add up.

    Args:
        prediction: (B, T, N) expected values.
        target: (B, T, N) what was measured, anything where ``mask`` is False.
        mask: (B, T, N) bool, True where an entry counts; None means everywhere.
        group: (B,) int64, the group of each trial, 0 to M - 1; None means one group.
        n_groups: M.
        shift: (N,) about the neurons' means: subtracted for the sake of precision, it changes no score.

    Returns:
        Sums of shape (M, N).
    """
    target = target.double()
    difference = prediction - target  # float64, as the target is
    if shift is not None:
        target = target - shift
    if mask is None or mask.all():
        count = torch.full_like(target[:, 0], target.shape[1])
    else:
        count = mask.sum(1).double()
        # where, not a product: what is not observed may be NaN
        target, difference = torch.where(mask, target, 0.0), torch.where(mask, difference, 0.0)
    parts = (count, target.sum(1), target.square().sum(1), difference.square().sum(1))
    if group is None:
        group = torch.zeros(len(target), dtype=torch.int64, device=target.device)
    empty = target.new_zeros(n_groups, target.shape[2])
    return ErrorSums(*(empty.index_add(0, group, part) for part in parts))


def mean_squared_error(sums: ErrorSums) -> Tensor:
    """Squared error, mean over all observed entries; a scalar, NaN without any."""
    return sums.residual.sum() / sums.count.sum()


def mean_r2(sums: ErrorSums) -> Tensor:
    """R2 of each neuron about its own mean in the evaluated bins, mean over the neurons that vary.

    Equals ``sklearn.metrics.r2_score(..., multioutput="uniform_average")`` where every neuron varies. Neurons that do
    not vary have no R2 and are left out (scikit-learn would count them as 0 or 1).

    Returns:
        A scalar; NaN where no neuron varies or a prediction is not finite.
    """
    varies = sums.variation > 0
    return (1 - sums.residual / sums.variation)[varies].mean()


def variance_explained(sums: ErrorSums) -> Tensor:
    """Share of variance explained, pooled: ``1 - SSE / SST`` with SST about the neurons' own means.

    Equals ``sklearn.metrics.r2_score(..., multioutput="variance_weighted")``: neurons that do not vary are left out.

    Returns:
        A scalar; NaN where no neuron varies or a prediction is not finite.
    """
    varies = sums.variation > 0
    return 1 - sums.residual[varies].sum() / sums.variation[varies].sum()
