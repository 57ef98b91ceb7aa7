"""Likelihoods, and bits per spike, the benchmark's measure of predicted firing rates.

Bits per spike compares a prediction with the null model in which every neuron fires at its mean rate:

    bps = (NLL(mean rates) - NLL(rates)) / (spikes * ln 2)

Everything here works on rates in spikes per bin and can be accumulated: :func:`spike_sums` of two sets of trials add
up to those of their union, so the score of a whole split never depends on how it was cut into batches.

Source: Pei, Ye et al. 2021, "Neural Latents Benchmark '21", arXiv:2109.04463 (section 3); neurallatents/nlb_tools.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

ZERO_RATE = 1e-9
"""What a rate of exactly zero is replaced by (spikes per bin), so that its logarithm exists."""


class SpikeSums(NamedTuple):
    """The sums over trials from which bits per spike are computed; sums of two sets of trials add up field by field.

    Attributes:
        nll: (N,) sum of ``rate - count * ln(rate)``: the NLL without ``ln(count!)``, which cancels in bits per spike.
        spikes: (N,) spikes.
        bins: (N,) bins observed.
    """

    nll: Tensor
    spikes: Tensor
    bins: Tensor


def poisson_nll(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> Tensor:
    """The Poisson negative log-likelihood of counts, in nats and with its ``ln(count!)``.

    Args:
        rates: (..., N) expected spikes per bin; exact zeros count as :data:`ZERO_RATE`.
        counts: (..., N) spike counts; NaN is unobserved.
        mask: (..., N) bool, True where counts are observed; None means everywhere.

    Returns:
        The sum over all observed bins, a float64 scalar; NaN where a rate is NaN or negative.

    Example:
        >>> poisson_nll(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]), torch.tensor([True, False]))
        tensor(1., dtype=torch.float64)
    """
    rates, counts, observed = _mask_out(rates, counts, mask)
    nll = rates - counts * rates.log()
    several = ((counts != 0) & (counts != 1)).nonzero(as_tuple=True)  # few; 0! and 1! add nothing, and take as long
    nll[several] += torch.lgamma(counts[several] + 1)
    return torch.where(observed, nll, 0.0).sum()


def log_rate_nll(log_rates: Tensor, counts: Tensor) -> Tensor:
    """The Poisson negative log-likelihood in the form that is trained: ``exp(x) - count * x``, elementwise.

    It leaves out ``ln(count!)``, which no parameter changes, and never takes the logarithm of a rate.

    Args:
        log_rates: (...) natural log of the expected spikes per bin.
        counts: (...) spike counts.
    """
    return log_rates.exp() - counts * log_rates


def gamma_nll(values: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """The negative log-likelihood of positive values under Gamma distributions, in nats, elementwise.

    Deconvolved calcium traces are so: positive, with a deviation that grows with the mean. The distribution is given
    by its mean and its shape k: its rate is ``k / mean``, its variance ``mean ** 2 / k``.

    Args:
        values: (...) above zero.
        log_mean: (...) natural log of the expected value.
        log_shape: (...) natural log of the shape.
    """
    shape = log_shape.exp()
    log_rate = log_shape - log_mean
    return torch.lgamma(shape) - shape * log_rate - (shape - 1) * values.log() + values * log_rate.exp()


def zero_inflated_gamma_nll(values: Tensor, log_mean: Tensor, log_shape: Tensor, gate_logit: Tensor) -> Tensor:
    """The negative log-likelihood of values of which many are exactly zero, in nats, elementwise.

    A value is above zero with the probability ``sigmoid(gate_logit)``; what is above zero follows a Gamma
    distribution. Source: Wei et al. 2020, "A zero-inflated gamma model for post-deconvolved calcium imaging traces".

    Args:
        values: (...) zero or above.
        log_mean: (...) natural log of the expected value of *all* values, zeros among them.
        log_shape: (...) natural log of the shape of those above zero.
        gate_logit: (...) log-odds of a value above zero.
    """
    positive = values > 0
    log_gate = nn.functional.logsigmoid(gate_logit)
    above = gamma_nll(torch.where(positive, values, 1.0), log_mean - log_gate, log_shape) - log_gate
    return torch.where(positive, above, -nn.functional.logsigmoid(-gate_logit))


def normal_nll(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The negative log-likelihood under Gaussian distributions, in nats, elementwise.

    Args:
        values: (...).
        mean: (...).
        log_variance: (...) natural log of the variance.
    """
    return 0.5 * ((values - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def spike_sums(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> SpikeSums:
    """The sums from which bits per spike are computed, in float64.

    Args:
        rates: (..., N) expected spikes per bin; exact zeros count as :data:`ZERO_RATE`.
        counts: (..., N) spike counts; NaN is unobserved.
        mask: (..., N) bool, True where counts are observed; None means everywhere.
    """
    return SpikeSums(*(value.flatten(0, -2).sum(0) for value in _terms(rates, counts, mask)))


def spike_sums_of_trials(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> SpikeSums:
    """As :func:`spike_sums`, of each trial by itself: fields (B, N) of arguments (B, T, N)."""
    return SpikeSums(*(value.sum(1) for value in _terms(rates, counts, mask)))


def bits_per_spike_from_sums(sums: SpikeSums, per_neuron: bool = False) -> Tensor:
    """Bits per spike from accumulated sums; the null model's mean rates are those of the same trials.

    Args:
        sums: what :func:`spike_sums` returned, added up over all trials; several sets of trials have leading axes.
        per_neuron: score each neuron by its own spikes.

    Returns:
        (...), or (..., N) per neuron: NaN for a neuron without spikes, whose score is undefined.
    """
    mean_rates = _no_zeros(sums.spikes / sums.bins.clamp(min=1))
    gain, spikes = null_nll(sums, mean_rates) - sums.nll, sums.spikes
    if per_neuron:
        return torch.where(spikes > 0, gain / spikes, torch.nan) / math.log(2)
    return gain.sum(-1) / spikes.sum(-1) / math.log(2)


def bits_over_bins(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bits per spike of each bin (L,); their mean, weighted with the bins' spikes, is that of all bins together.

    The null model's mean rates are those of all bins.

    Args:
        rates: (B, L, N) expected spikes per bin.
        counts: (B, L, N) spike counts; NaN is unobserved.
        mask: (B, L, N) bool, True where counts are observed; None means everywhere.

    Returns:
        float64, NaN for a bin without spikes.
    """
    sums = SpikeSums(*(value.sum(0) for value in _terms(rates, counts, mask)))
    mean_rates = sums.spikes.sum(0) / sums.bins.sum(0).clamp(min=1)
    gain, spikes = (null_nll(sums, mean_rates) - sums.nll).sum(-1), sums.spikes.sum(-1)
    return torch.where(spikes > 0, gain / spikes, torch.nan) / math.log(2)


def null_nll(sums: SpikeSums, mean_rates: Tensor) -> Tensor:
    """(..., N) what ``sums.nll`` is if each neuron fires at its mean rate (N,), in spikes per bin."""
    mean_rates = _no_zeros(mean_rates)
    return sums.bins * mean_rates - sums.spikes * mean_rates.log()


def bits_per_spike(rates: Tensor, counts: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bits per spike of predicted rates: 0 is as good as each neuron's mean rate, higher is better.

    Args:
        rates: (..., N) expected spikes per bin; exact zeros count as :data:`ZERO_RATE`.
        counts: (..., N) spike counts; NaN is unobserved.
        mask: (..., N) bool, True where counts are observed; None means everywhere.

    Returns:
        A float64 scalar.

    Example:
        >>> counts = torch.tensor([[0.0], [0.0], [2.0]])
        >>> bits_per_spike(torch.tensor([[0.5], [0.5], [1.0]]), counts)
        tensor(0.5850, dtype=torch.float64)
    """
    return bits_per_spike_from_sums(spike_sums(rates, counts, mask))


def _mask_out(rates: Tensor, counts: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rates and counts in float64, harmless (rate 1, count 0) where nothing was observed, and where it was."""
    counts = counts.double()
    observed = ~counts.isnan() if mask is None else mask & ~counts.isnan()
    rates = torch.where(observed, _no_zeros(rates.double()), 1.0)
    return rates, torch.where(observed, counts, 0.0), observed


def _no_zeros(rates: Tensor) -> Tensor:
    return torch.where(rates == 0, ZERO_RATE, rates)


def _terms(rates: Tensor, counts: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What the fields of :class:`SpikeSums` are sums of, elementwise."""
    rates, counts, observed = _mask_out(rates, counts, mask)
    return torch.where(observed, rates - counts * rates.log(), 0.0), counts, observed.double()
