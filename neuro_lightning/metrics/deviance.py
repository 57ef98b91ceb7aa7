"""Poisson D2 as a metric."""

from __future__ import annotations

from torch import Tensor

from neuro_lightning.functional.likelihood import SpikeSums, spike_sums
from neuro_lightning.functional.poisson_d2 import count_log_counts, poisson_d2_per_neuron
from neuro_lightning.metrics.base import SumMetric, finite_or_nan


class PoissonD2(SumMetric):
    """The mean over neurons of the explained share of the deviance, over all trials seen.

    Mean rates of the null model are those of the same trials, and neurons without spikes there have no score. See
    :mod:`neuro_lightning.functional.poisson_d2`.

    Args:
        n_neurons: N.
    """

    nll: Tensor
    count_log_count: Tensor

    def __init__(self, n_neurons: int) -> None:
        super().__init__()
        for name in (*SpikeSums._fields, "count_log_count"):
            self.add_sum(name, n_neurons)

    def update(self, rates: Tensor, counts: Tensor, mask: Tensor) -> None:
        """Adds trials.

        Args:
            rates: (B, L, N) predicted spikes per bin.
            counts: (B, L, N) spike counts.
            mask: (B, L, N) bool, True where a count counts.
        """
        self.accumulate(spike_sums(rates, counts, mask))
        self.count_log_count = self.count_log_count + count_log_counts(counts, mask)

    def compute(self) -> Tensor:
        """The score, a scalar; NaN without spikes or for rates that are not finite."""
        found = poisson_d2_per_neuron(self.collect(SpikeSums), self.count_log_count).nanmean()
        # a mean leaves NaN out, those of rates that are not finite among them
        return finite_or_nan(found + 0 * self.nll.sum())
