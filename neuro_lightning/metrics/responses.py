"""Agreement of predicted with recorded responses to images: correlation, RMSE, and shares of what can be explained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output, rates_of
from neuro_lightning.functional.explainable import (
    RepeatSums,
    correlation,
    explainable_from_sums,
    feve_from_sums,
    mean_cc_norm,
    mean_correlation,
    mean_feve,
    moment_sums,
    oracle_fraction,
    repeat_sums,
    trial_moments,
)
from neuro_lightning.metrics.angle import AngleError
from neuro_lightning.metrics.base import MetricDict, MetricGroup, SumMetric, register_constant


class Agreement(SumMetric):
    """Correlation and squared error of predictions and observed values, as sums over images.

    Args:
        n_neurons: N.
        mean: (N,) about the mean value; it is subtracted for the sake of precision and changes no score. Empty means 0.
    """

    mean: Tensor
    moments: Tensor

    def __init__(self, n_neurons: int, mean: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.add_sum("moments", 7, n_neurons)
        register_constant(self, "mean", mean or [0.0] * n_neurons)

    def update(self, values: Tensor, predictions: Tensor, observed: Tensor) -> None:
        """Adds images: (B, N) each; what is not ``observed`` may be anything."""
        moments = moment_sums(values.double() - self.mean, predictions.double() - self.mean, observed)
        self.moments = self.moments + moments

    def compute(self) -> Tensor:
        """(7, N) the sums, see ``moment_sums``."""
        return self.moments


class RepeatedResponses(SumMetric):
    """What repeats tell of noise and of a prediction's share in the rest, as sums over images.

    Args:
        n_neurons: N.
        n_repeats: the largest number of repeats R.
        mean: (N,) about the mean response, as in :class:`Agreement`.
    """

    mean: Tensor
    predicted: Tensor

    def __init__(self, n_neurons: int, n_repeats: int, mean: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.n_repeats = n_repeats
        self.add_sum("predicted", 7, n_neurons)
        for name, shape in RepeatSums.shapes(n_repeats, n_neurons).items():
            self.add_sum(name, *shape)
        register_constant(self, "mean", mean or [0.0] * n_neurons)

    def update(self, repeats: Tensor, predictions: Tensor) -> None:
        """Adds images.

        Args:
            repeats: (B, R, N) single responses, NaN where there was none; fewer than ``n_repeats`` will do.
            predictions: (B, N) expected responses.

        Raises:
            ValueError: there are more repeats than announced.
        """
        missing = self.n_repeats - repeats.shape[1]
        if missing < 0:
            raise ValueError(f"the metrics were made for {self.n_repeats} repeats, the batch has {repeats.shape[1]}")
        repeats = repeats.double() - self.mean
        repeats = nn.functional.pad(repeats, (0, 0, 0, missing), value=math.nan)
        self.predicted = self.predicted + trial_moments(repeats, predictions.double() - self.mean)
        self.accumulate(repeat_sums(repeats))

    def compute(self) -> tuple[Tensor, RepeatSums]:
        """The sums, of the predictions (7, N) and of the repeats."""
        return self.predicted, self.collect(RepeatSums)


class ResponseMetrics(MetricGroup):
    """Metrics of image data by name, updated from batches.

    ====================  ==========================================================================================
    ``corr``              Pearson's correlation over images with the responses (means over repeats), mean over neurons
    ``rmse``              root of the mean squared error over all observed entries
    ``rmse_columns``      root of each neuron's mean squared error, mean over neurons
    ``trial_corr``        correlation with all single responses, mean over neurons
    ``feve``              fraction of the explainable variance explained, mean over neurons with FEV >= 0.15
    ``feve_neurons``      how many these are
    ``oracle_fraction``   slope of ``trial_corr`` on the leave-one-out oracle's over neurons
    ``cc_norm``           ``corr`` as a share of ``cc_max``, mean over neurons with FEV >= 0.15
    ``rates_corr``        correlation with the true mean responses, mean over neurons; simulated data
    ``angle_deg``         median error of the decoded direction in degrees
    ====================  ==========================================================================================

    From ``trial_corr`` to ``cc_norm`` they need repeats, and are NaN for a split without any. Entries outside the mask
    never count, whatever they hold. A neuron whose responses or predictions do not vary has the correlation 0 (the
    rule of msc-neuro); one with fewer than two observed images is left out. Predictions that are not finite make
    NaN scores. Values are exact however images are cut into batches and shared among processes, as long as no image is
    seen twice; under DDP call :meth:`compute` and :meth:`per_neuron` on every process.

    Args:
        spec: the description of the data.
        n_eval: images in all, over which ``batch["index"]`` runs; the decoded direction needs it.
        n_repeats: the split's largest number of repeats; by default that of any split. 0 leaves their metrics out.
    """

    def __init__(self, spec: DataSpec, n_eval: int | None = None, *, n_repeats: int | None = None) -> None:
        super().__init__()
        n, n_repeats = spec.n_neurons, spec.n_repeats if n_repeats is None else n_repeats
        metrics: dict[str, nn.Module] = {"responses": Agreement(n, spec.mean_rates)}
        if n_repeats:
            metrics["repeats"] = RepeatedResponses(n, n_repeats, spec.mean_rates)
        if spec.true_rates:
            metrics["rates"] = Agreement(n, spec.mean_rates)
        if spec.angle_period and n_eval is not None:
            metrics["angle"] = AngleError(n_eval, n, period=spec.angle_period)
        self.metrics = MetricDict(metrics)

    @property
    def names(self) -> list[str]:
        """The keys of what :meth:`compute` returns."""
        names = ["corr", "rmse", "rmse_columns"]
        names += ["trial_corr", "feve", "feve_neurons", "oracle_fraction", "cc_norm"] * ("repeats" in self.metrics)
        names += ["rates_corr"] * ("rates" in self.metrics)
        return names + ["angle_deg"] * ("angle" in self.metrics)

    @torch.no_grad()
    def update(self, output: Output, batch: Batch) -> None:
        """Adds evaluation images."""
        predictions, targets = rates_of(output).float(), batch["targets"]
        for name, metric in self.metrics.items():
            match name:
                case "responses":
                    metric.update(targets, predictions, batch["mask"])
                case "repeats" if "repeats" in batch:
                    metric.update(batch["repeats"], predictions)
                case "rates" if "rates" in batch:
                    metric.update(batch["rates"], predictions, batch["rates"].isfinite())
                case "angle":
                    metric.update(predictions, targets, batch["index"], batch["angle"], batch["mask"])

    def compute(self) -> dict[str, float]:
        """All scores by name, NaN where one is undefined."""
        _, scores = self._scores()
        return {name: value if math.isfinite(value := float(scores[name])) else math.nan for name in self.names}

    def per_neuron(self) -> dict[str, Tensor]:
        """Scores and ceilings of each neuron, (N,) float64 each, NaN where undefined.

        ``corr`` and ``rmse``; with repeats also ``trial_corr``, ``feve``, ``cc_norm`` and what there is to explain
        (``fev``, ``cc_max``, ``oracle``, ``conservative_oracle``); with true rates ``rates_corr``.
        """
        return self._scores()[0]

    def _scores(self) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
        """The scores of each neuron, and of the population."""
        moments = self.metrics["responses"].compute()
        count, error = moments[0], moments[6]
        each = {"corr": correlation(moments), "rmse": (error / count).sqrt()}
        scores: dict[str, Tensor | float] = {
            "corr": mean_correlation(moments),
            "rmse": (error.sum() / count.sum()).sqrt(),
            "rmse_columns": each["rmse"][count > 0].mean(),
        }
        if "repeats" in self.metrics:
            predicted, sums = self.metrics["repeats"].compute()
            found = explainable_from_sums(sums)
            each |= {"trial_corr": correlation(predicted), "feve": feve_from_sums(predicted, found)}
            each |= {"cc_norm": each["corr"] / found.cc_max}
            each |= {name: getattr(found, name) for name in ("fev", "cc_max", "oracle", "conservative_oracle")}
            feve, n_feve = mean_feve(each["feve"], found.fev)
            finite = predicted.isfinite().all() and moments.isfinite().all()
            scores |= {
                "trial_corr": mean_correlation(predicted),
                "feve": feve if finite else math.nan,
                "feve_neurons": n_feve if sums.noise[0].any() else math.nan,
                "oracle_fraction": oracle_fraction(each["trial_corr"], found.oracle) if finite else math.nan,
                "cc_norm": mean_cc_norm(each["corr"], found.cc_max, found.fev) if finite else math.nan,
            }
        if "rates" in self.metrics:
            moments = self.metrics["rates"].compute()
            each["rates_corr"], scores["rates_corr"] = correlation(moments), mean_correlation(moments)
        if "angle" in self.metrics:
            scores["angle_deg"] = self.metrics["angle"].compute()
        return each, scores
