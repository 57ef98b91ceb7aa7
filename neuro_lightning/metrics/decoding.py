"""Decoding of behavior from predicted rates: velocity by ridge regression, timing by neural speed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.functional.ridge import N_FOLDS, Ridge, fold_grams, gram, ridge_r2, ridge_search
from neuro_lightning.functional.timing import grouped_correlation, neural_speed
from neuro_lightning.metrics.base import SumMetric, TrialMetric, finite_or_nan, register_constant


class VelocityR2(SumMetric):
    """R2 of velocity decoded from rates by ridge regression with a cross-validated penalty, mean over groups.

    The decoder is fitted on training trials (:meth:`update_train`) and scored on evaluation trials (:meth:`update`).
    Only Gram matrices are kept, so the score costs milliseconds and needs no rates in memory.

    Source: Neural Latents Benchmark '21 (vel R2).

    Args:
        n_neurons: N.
        n_channels: behavior channels K.
        n_groups: groups of trials M that are decoded apart.
        mean_rates: (N,) about the mean spikes per bin; it is subtracted from rates for the sake of precision and
            changes no score. Empty means zero.
    """

    train_grams: Tensor
    eval_grams: Tensor
    mean_rates: Tensor

    def __init__(self, n_neurons: int, n_channels: int, n_groups: int = 1, mean_rates: Sequence[float] = ()):
        super().__init__()
        self.n_channels = n_channels
        size = 1 + n_neurons + n_channels
        self.add_sum("train_grams", n_groups, N_FOLDS, size, size)
        self.add_sum("eval_grams", n_groups, size, size)
        register_constant(self, "mean_rates", mean_rates or [0.0] * n_neurons)

    def update(self, rates: Tensor, behavior: Tensor, decode_fold: Tensor) -> None:
        """Adds evaluation trials.

        Args:
            rates: (B, T, N) predicted spikes per bin.
            behavior: (B, T, K).
            decode_fold: (B, T, M) int8, -1 where a bin is not decoded.
        """
        x, y, fold = self._rows(rates, behavior, decode_fold)
        used = (fold >= 0).unbind(1)
        self.eval_grams = self.eval_grams + torch.stack([gram(x[rows], y[rows]) for rows in used])

    @torch.no_grad()
    def update_train(self, rates: Tensor, behavior: Tensor, decode_fold: Tensor) -> None:
        """Adds training trials of the decoder; arguments as in :meth:`update`, with the fold of each bin."""
        x, y, fold = self._rows(rates, behavior, decode_fold)
        self.train_grams = self.train_grams + torch.stack([fold_grams(x, y, group) for group in fold.unbind(1)])

    def compute(self) -> Tensor:
        """The score, a scalar; NaN where a group has too few bins or a decoded rate is not finite."""
        groups = zip(self.train_grams, self.eval_grams, strict=True)
        scores = [ridge_r2(evaluation, ridge_search(train, self.n_channels)[0]) for train, evaluation in groups]
        return finite_or_nan(torch.stack(scores).mean())

    def decoders(self) -> list[Ridge]:
        """Each group's decoder of rates in spikes per bin, float64: ``behavior = rates @ weight + bias``."""
        fits = [ridge_search(train, self.n_channels)[0] for train in self.train_grams]
        return [Ridge(fit.weight, fit.bias - self.mean_rates @ fit.weight) for fit in fits]

    def _rows(self, rates: Tensor, behavior: Tensor, decode_fold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (rates.double() - self.mean_rates).flatten(0, 1), behavior.flatten(0, 1), decode_fold.flatten(0, 1)


class TpCorrelation(TrialMetric):
    """Correlation of neural speed with the interval that the animal produced, mean over conditions (dmfc_rsg).

    Lower is better: faster dynamics go with shorter intervals.

    Source: Neural Latents Benchmark '21 (tp corr).

    Args:
        n_trials: evaluation trials in all, over which ``index`` runs.
    """

    columns = (0, 1, 2, 4)  # is_eye, theta, is_short and tp of [is_eye, theta, is_short, ts, tp]

    def __init__(self, n_trials: int):
        super().__init__(n_trials, values=1 + len(self.columns))

    def update(self, rates: Tensor, scored: Tensor, behavior: Tensor, index: Tensor) -> None:
        """Adds evaluation trials.

        Args:
            rates: (B, T, N) predicted spikes per bin.
            scored: (B, T) bool, the bins between set and go.
            behavior: (B, 5) [is_eye, theta, is_short, ts, tp], NaN for outliers.
            index: (B,) the trials' numbers in the split.
        """
        speed = neural_speed(rates, scored)[:, None]
        self.add_trials(index, values=torch.cat([speed, behavior[:, self.columns].double()], dim=1))

    def compute(self) -> Tensor:
        """The mean correlation, a scalar; NaN where it is undefined or a rate is not finite."""
        speed, *groups, tp = self.trial_values("values").unbind(1)
        return finite_or_nan(grouped_correlation(speed, tp, torch.stack(groups, dim=1)))
