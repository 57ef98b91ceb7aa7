"""Whether neurons still fire as a model expects them to: a running comparison with trials it was not trained on.

The counts of a bin are compared with the rates that were given for the bin before, which have not seen them. What is
compared is the log-likelihood of the counts, averaged over neurons, and each neuron's counts minus its rate. The
likelihood falls where spikes come at other times or of other neurons than the model says, and rises where there are
fewer spikes: silence is easy to predict. A neuron's counts fall when it vanishes and rise when another one takes its
place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro_lightning.functional.likelihood import ZERO_RATE


@dataclass(frozen=True)
class Usual:
    """How counts compare with rates in the trials of a reference, float64.

    Attributes:
        trials: that were compared, R.
        bins: of each of them.
        log_likelihood: (N,) mean of each neuron's counts, in nats a bin.
        spread: standard deviation over trials of the mean over neurons and bins.
        excess: (N,) mean of each neuron's counts minus its rates.
        excess_spread: (N,) standard deviation over trials of a trial's mean, no smaller than that of Poisson counts.
    """

    trials: int
    bins: int
    log_likelihood: Tensor
    spread: float
    excess: Tensor
    excess_spread: Tensor


def compare(counts: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihood in nats, and counts minus rates, elementwise in float64; of counts and rates per bin."""
    counts, rates = counts.double(), rates.double().clamp_min(ZERO_RATE)
    return counts * rates.log() - rates - torch.lgamma(counts + 1), counts - rates


def usual(counts: Tensor, rates: Tensor, observed: Tensor | None = None) -> Usual:
    """How the counts of trials compare with their rates.

    Args:
        counts: (B, T, N) of trials that the rates were not fitted to.
        rates: (B, T, N) that were given for the bin before each.
        observed: (B, T, N) bool, where counts were recorded; None is everywhere.

    Returns:
        The comparison, over the B trials.
    """
    there = torch.ones_like(counts, dtype=torch.bool) if observed is None else observed
    logs, excess = (torch.where(there, part, 0.0) for part in compare(torch.where(there, counts, 0.0), rates))
    number = there.sum((0, 1)).clamp_min(1)
    mean, mean_excess = logs.sum((0, 1)) / number, excess.sum((0, 1)) / number
    away = torch.where(there, logs - mean, 0.0).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
    per_trial = excess.sum(1) / there.sum(1).clamp_min(1)
    poisson = (torch.where(there, rates.double(), 0.0).sum((0, 1)) / number + 1 / number) / counts.shape[1]
    spread = _spread(per_trial).maximum(poisson.sqrt())
    return Usual(len(counts), counts.shape[1], mean, float(_spread(away).clamp_min(1e-12)), mean_excess, spread)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation over the first axis; 0 of a single value."""
    return values.std(0) if len(values) > 1 else torch.zeros_like(values[0])


class Drift:
    """The comparison over the last bins of a stream, in units of what is usual.

    Args:
        usual: of the reference.
        bins: over how many of the last bins; fewer follow faster and are noisier.

    Attributes:
        compared: bins that the scores are about, at most ``bins``.
    """

    def __init__(self, usual: Usual, bins: int) -> None:
        self.usual, self.size, self.compared = usual, bins, 0
        n = len(usual.excess)
        self._logs, self._trials = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)
        self._excess, self._there = (torch.zeros(bins, n, dtype=torch.float64) for _ in range(2))
        self._next = 0

    def add(self, counts: Tensor, rates: Tensor, observed: Tensor | None = None) -> None:
        """Add a bin.

        Args:
            counts: (B, N).
            rates: (B, N) that were given for the bin before.
            observed: (B, N) bool, where counts were recorded; None is everywhere.
        """
        there = torch.ones_like(counts, dtype=torch.bool) if observed is None else observed
        logs, excess = compare(torch.where(there, counts, 0.0), rates)
        away = torch.where(there, logs - self.usual.log_likelihood, 0.0).sum(1) / there.sum(1).clamp_min(1)
        at, recorded = self._next, there.any(1)
        self._logs[at], self._trials[at] = away.sum(), recorded.sum()
        self._excess[at] = torch.where(there, excess - self.usual.excess, 0.0).sum(0)
        self._there[at] = there.sum(0)
        self._next, self.compared = (at + 1) % self.size, min(self.compared + 1, self.size)

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood per bin and neuron of the last bins minus the usual one, in nats; NaN before any."""
        number = float(self._trials.sum())
        return float(self._logs.sum()) / number if number else math.nan

    @property
    def score(self) -> float:
        """The same in standard deviations of what is usual over as many bins; beyond about 4 the model is wrong now."""
        return self.log_likelihood / self.usual.spread * float(self._precision(self._trials.sum()))

    @property
    def neurons(self) -> Tensor:
        """(N,) each neuron's counts minus rates in standard deviations, NaN where it was not recorded.

        Far below 0 it has vanished or fires less than it did, far above it fires more.
        """
        number = self._there.sum(0)
        return self._excess.sum(0) / number / self.usual.excess_spread * self._precision(number)

    def _precision(self, number: Tensor) -> Tensor:
        """One over the standard deviation of the mean of so many bins minus the usual one, in those of a trial."""
        return (self.usual.bins / number + 1 / self.usual.trials).rsqrt()
