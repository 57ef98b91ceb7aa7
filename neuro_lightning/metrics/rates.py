"""Agreement of predicted rates with known ones: true PSTHs, and the true rates of simulated data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuro_lightning.functional.correlation import r2_from_sums
from neuro_lightning.functional.psth import condition_sums, psth_r2
from neuro_lightning.metrics.base import SumMetric, finite_or_nan, register_constant


class PsthR2(SumMetric):
    """R2 of the conditions' mean predicted rates against true PSTHs, mean over neurons.

    Source: Neural Latents Benchmark '21 (psth R2).

    Args:
        psth: (C, T, N) true PSTHs in spikes per bin, NaN where undefined.
    """

    psth: Tensor
    rates: Tensor
    trials: Tensor

    def __init__(self, psth: Tensor):
        super().__init__()
        register_constant(self, "psth", psth)
        self.add_sum("rates", *psth.shape)
        self.add_sum("trials", *psth.shape[:2])

    def update(
        self, rates: Tensor, condition: Tensor, jitter: Tensor | None = None, recorded: Tensor | None = None
    ) -> None:
        """Adds evaluation trials.

        Args:
            rates: (B, T, N) predicted spikes per bin.
            condition: (B,) each trial's condition, -1 for none.
            jitter: (B,) bins by which each trial's window was shifted.
            recorded: (B, T) bool, the bins that count; None is all.
        """
        rates, trials = condition_sums(rates, condition, len(self.psth), jitter, recorded)
        self.rates, self.trials = self.rates + rates, self.trials + (trials[:, None] if trials.ndim == 1 else trials)

    def compute(self) -> Tensor:
        """The score, a scalar; NaN where a scored rate is not finite or nothing is scored."""
        return finite_or_nan(psth_r2(self.psth, self.rates, self.trials))


class RatesR2(SumMetric):
    """R2 of predicted against true rates over trials and bins, mean over neurons; for simulated data.

    Args:
        n_neurons: N.
        mean_rates: (N,) about the mean spikes per bin; it is subtracted for the sake of precision and changes no
            score. Empty means zero.
    """

    mean_rates: Tensor
    bins: Tensor
    true: Tensor
    squares: Tensor
    residual: Tensor

    def __init__(self, n_neurons: int, mean_rates: Sequence[float] = ()):
        super().__init__()
        register_constant(self, "mean_rates", mean_rates or [0.0] * n_neurons)
        self.add_sum("bins")
        for name in ("true", "squares", "residual"):
            self.add_sum(name, n_neurons)

    def update(self, rates: Tensor, true_rates: Tensor, recorded: Tensor | None = None) -> None:
        """Adds trials: (B, T, N) predicted and true spikes per bin, of (B, T) bool ``recorded`` bins; None is all."""
        true = (true_rates.double() - self.mean_rates).flatten(0, -2)
        predicted = (rates.double() - self.mean_rates).flatten(0, -2)
        if recorded is not None:
            true, predicted = true[recorded.flatten()], predicted[recorded.flatten()]
        self.bins = self.bins + len(true)
        self.true = self.true + true.sum(0)
        self.squares = self.squares + true.square().sum(0)
        self.residual = self.residual + (true - predicted).square().sum(0)

    def compute(self) -> Tensor:
        """The score, a scalar; NaN where a rate is not finite."""
        total = self.squares - self.true.square() / self.bins
        return finite_or_nan(r2_from_sums(self.residual, total, self.squares).mean())
