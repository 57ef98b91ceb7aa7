"""Whether one model predicts spikes better than another: the paired bootstrap over trials.

Trials differ more than models do: a trial that is easy for one is easy for the other. Their scores are therefore
compared on the same drawn trials, and the spread of the *difference* says how sure it is.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap" (percentile interval, paired samples).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional.likelihood import SpikeSums, bits_per_spike_from_sums

DRAWS = 4000
LEVEL = 0.95
BLOCK = 500  # draws at a time: memory stays small


class Difference(NamedTuple):
    """By how much the bits per spike of one model exceed those of another.

    Attributes:
        value: the difference on all trials.
        low: the lower end of its 95 % interval over trials.
        high: the upper end.
        error: its standard error.
        trials: how many trials like these make a difference of this size as large as two standard errors; infinite
            for no difference.
    """

    value: float
    low: float
    high: float
    error: float
    trials: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(one: SpikeSums, other: SpikeSums, *, draws: int = DRAWS, seed: int = 0) -> Difference:
    """By how much the first model's bits per spike exceed the second's, with an interval over trials.

    The null model's mean rates are those of the drawn trials, as in the score itself.

    Args:
        one: (B, N) sums of each trial, see :func:`~neuro_lightning.functional.likelihood.spike_sums_of_trials`. Bits
            per spike are linear in ``nll``: its mean over seeds gives the mean score over seeds.
        other: of the same trials, whose spikes and bins are therefore the same.
        draws: sets of B trials that are drawn with replacement.
        seed: of the draws.

    Raises:
        ValueError: they are of other trials.
    """
    if not (torch.equal(one.spikes, other.spikes) and torch.equal(one.bins, other.bins)):
        raise ValueError("the sums are of different trials")
    value = _difference(one, other, torch.ones(1, len(one.nll), dtype=torch.float64))[0]
    generator = torch.Generator().manual_seed(seed)
    blocks = (_draw(len(one.nll), min(BLOCK, draws - done), generator) for done in range(0, draws, BLOCK))
    drawn = torch.cat([_difference(one, other, counts) for counts in blocks])
    drawn = drawn[drawn.isfinite()]  # a draw without a spike has no score
    if not len(drawn):
        return Difference(float(value), *[math.nan] * 4)
    low, high = torch.quantile(drawn, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    error = float(drawn.std()) if len(drawn) > 1 else math.nan
    needed = math.ceil(len(one.nll) * (2 * error / float(value)) ** 2) if float(value) else math.inf
    return Difference(float(value), low, high, error, float(needed))


def _draw(n_trials: int, draws: int, generator: torch.Generator) -> Tensor:
    """(draws, n_trials) how often each trial is drawn."""
    index = torch.randint(n_trials, (draws, n_trials), generator=generator)
    counts = torch.zeros(draws, n_trials, dtype=torch.float64)
    return counts.scatter_add_(1, index, torch.ones((), dtype=torch.float64).expand(draws, n_trials))


def _difference(one: SpikeSums, other: SpikeSums, counts: Tensor) -> Tensor:
    """(draws,) the difference on drawn trials, ``counts`` (draws, B) times each."""
    spikes, bins = counts @ one.spikes.double(), counts @ one.bins.double()
    first, second = (
        bits_per_spike_from_sums(SpikeSums(counts @ sums.nll.double(), spikes, bins)) for sums in (one, other)
    )
    return first - second
