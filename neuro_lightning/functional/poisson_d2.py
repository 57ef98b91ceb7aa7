"""Poisson D2, the share of a neuron's deviance that predicted rates explain: the score of IBL BrainWideBench.

Of each neuron it is ``1 - (L(rates) - L(counts)) / (L(mean rate) - L(counts))`` with the Poisson loss L; where bits per
spike weigh a neuron by its spikes, here all neurons count alike.

Source: Cohen's pseudo-R2 as in ``ibl_bwb_eval.metrics.PoissonD2Score`` 0.1.0 (IBL BrainWideBench, arXiv 2609.22064),
which sums in single precision: of a neuron whose counts are all alike it returns rounding errors, here it has no score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.likelihood import SpikeSums, spike_sums

SMALLEST = 1e-9
"""Neurons whose deviance is below it, in nats, and mean rates below it, have no score."""


def count_log_counts(counts: Tensor, mask: Tensor | None = None) -> Tensor:
    """(N,) the sum of ``count * ln(count)``, float64, by which the loss of the counts themselves is known.

    Args:
        counts: (..., N) spike counts; NaN is unobserved.
        mask: (..., N) bool, True where counts are observed; None means everywhere.
    """
    counts = counts.double()
    observed = ~counts.isnan() if mask is None else mask & ~counts.isnan()
    counts = torch.where(observed, counts, 0.0)
    return torch.xlogy(counts, counts).flatten(0, -2).sum(0)


def poisson_d2_per_neuron(sums: SpikeSums, count_log_count: Tensor) -> Tensor:
    """(N,) D2 of each neuron; NaN for one without spikes, or with the same count in every bin.

    Args:
        sums: what :func:`~neuro_lightning.functional.likelihood.spike_sums` returned, added up over all trials.
        count_log_count: what :func:`count_log_counts` returned, likewise.
    """
    mean = (sums.spikes / sums.bins.clamp(min=1)).clamp(min=SMALLEST)
    deviance = count_log_count - sums.spikes * mean.log()
    left = sums.nll - (sums.spikes - count_log_count)
    known = deviance.abs() >= SMALLEST  # without spikes it is 0
    return torch.where(known, 1 - left / torch.where(known, deviance, 1.0), torch.nan)


def poisson_d2(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean D2 of the neurons that have one, a float64 scalar: 0 is as good as the mean rates, 1 is perfect.

    Args:
        rates: (..., N) expected spikes per bin.
        counts: (..., N) spike counts; NaN is unobserved.
        mask: (..., N) bool, True where counts are observed; None means everywhere.

    Example:
        >>> counts = torch.tensor([[0.0], [0.0], [2.0]])
        >>> poisson_d2(torch.tensor([[0.5], [0.5], [1.0]]), counts)
        tensor(0.3691, dtype=torch.float64)
    """
    return poisson_d2_per_neuron(spike_sums(rates, counts, mask), count_log_counts(counts, mask)).nanmean()
