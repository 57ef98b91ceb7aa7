"""Poisson D2 as a metric."""

from __future__ import annotations

from torch import Tensor

from neuro_lightning.functional.likelihood import SpikeSums
from neuro_lightning.functional.poisson_d2 import count_log_counts, poisson_d2_per_neuron
from neuro_lightning.metrics.base import finite_or_nan
from neuro_lightning.metrics.bits import BitsPerSpike


class PoissonD2(BitsPerSpike):
    """The mean over neurons of the explained share of the deviance, from the sums of bits per spike and one more.

    Mean rates of the null model are those of the same trials, and neurons without spikes there have no score. See
    :mod:`neuro_lightning.functional.poisson_d2`.

    Args:
        n_neurons: N.
    """

    count_log_count: Tensor

    def __init__(self, n_neurons: int) -> None:
        super().__init__(n_neurons)
        self.add_sum("count_log_count", n_neurons)

    def update(self, rates: Tensor, counts: Tensor, mask: Tensor) -> None:
        """Adds trials; arguments as in :meth:`neuro_lightning.metrics.bits.BitsPerSpike.update`."""
        super().update(rates, counts, mask)
        self.count_log_count = self.count_log_count + count_log_counts(counts, mask)

    def compute(self) -> Tensor:
        """The score, a scalar; NaN without spikes or for rates that are not finite."""
        sums = self.collect(SpikeSums)
        # a mean leaves NaN out, those of rates that are not finite among them
        return finite_or_nan(poisson_d2_per_neuron(sums, self.count_log_count).nanmean() + 0 * sums.nll.sum())
