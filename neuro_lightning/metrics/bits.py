"""Bits per spike as a metric: co-smoothing, forward prediction, reconstruction, and the true rates' own score."""

from __future__ import annotations

from torch import Tensor

from neuro_lightning.functional.likelihood import SpikeSums, bits_per_spike_from_sums, spike_sums
from neuro_lightning.metrics.base import SumMetric, finite_or_nan


class BitsPerSpike(SumMetric):
    """Bits per spike over all trials seen, with the null model's mean rates taken from the same trials.

    Source: Neural Latents Benchmark '21 (co-bps on held-out neurons, fp-bps on forward bins).

    Args:
        n_neurons: N.

    Example:
        >>> import torch
        >>> metric = BitsPerSpike(n_neurons=1)
        >>> counts = torch.tensor([[[0.0], [0.0], [2.0]]])
        >>> metric.update(torch.tensor([[[0.5], [0.5], [1.0]]]), counts, torch.ones(1, 3, 1, dtype=torch.bool))
        >>> metric.compute().round(decimals=3)
        tensor(0.5850, dtype=torch.float64)
    """

    def __init__(self, n_neurons: int):
        super().__init__()
        for name in SpikeSums._fields:
            self.add_sum(name, n_neurons)

    def update(self, rates: Tensor, counts: Tensor, mask: Tensor) -> None:
        """Adds trials.

        Args:
            rates: (B, T, N) predicted spikes per bin.
            counts: (B, T, N) spike counts.
            mask: (B, T, N) bool, True where a count counts.
        """
        self.accumulate(spike_sums(rates, counts, mask))

    def compute(self) -> Tensor:
        """The score, a scalar; NaN without spikes or for rates that are not finite."""
        return finite_or_nan(bits_per_spike_from_sums(self.collect(SpikeSums)))
