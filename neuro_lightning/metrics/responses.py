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
        """The mean correlation, a scalar, see :func:`neuro_lightning.functional.explainable.mean_correlation`."""
        return mean_correlation(self.moments)

    def totals(self) -> Tensor:
        """(7, N) the sums over all processes, see ``moment_sums``; call it on all of them."""
        with self.sync_context():
            return self.moments.clone()


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

    def compute(self) -> Tensor:
        """Mean FEVE over reliable neurons, a scalar."""
        found = explainable_from_sums(self.collect(RepeatSums))
        return mean_feve(feve_from_sums(self.predicted, found), found.fev)[0]

    def totals(self) -> tuple[Tensor, RepeatSums]:
        """The sums over all processes, of the predictions (7, N) and of the repeats; call it on all of them."""
        with self.sync_context():
            return self.predicted.clone(), RepeatSums(*(values.clone() for values in self.collect(RepeatSums)))


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
        each, moments = self._each(), self.metrics["responses"].totals()
        count, error = moments[0], moments[6]
        shown = count > 0
        scores = {
            "corr": mean_correlation(moments),
            "rmse": (error.sum() / count.sum()).sqrt(),
            "rmse_columns": (error[shown] / count[shown]).sqrt().mean(),
        }
        if "repeats" in self.metrics:
            scores |= self._repeat_scores(each, moments)
        if "rates" in self.metrics:
            scores["rates_corr"] = mean_correlation(self.metrics["rates"].totals())
        if "angle" in self.metrics:
            scores["angle_deg"] = self.metrics["angle"].compute()
        return {name: value if math.isfinite(value := float(scores[name])) else math.nan for name in self.names}

    def per_neuron(self) -> dict[str, Tensor]:
        """Scores and ceilings of each neuron, (N,) float64 each, NaN where undefined.

        ``corr`` and ``rmse``; with repeats also ``trial_corr``, ``feve``, ``cc_norm`` and what there is to explain
        (``fev``, ``cc_max``, ``oracle``, ``conservative_oracle``); with true rates ``rates_corr``.
        """
        values = self._each()
        if "rates" in self.metrics:
            values["rates_corr"] = correlation(self.metrics["rates"].totals())
        return values

    def _each(self) -> dict[str, Tensor]:
        """Scores of each neuron, without those that need the true rates."""
        moments = self.metrics["responses"].totals()
        values = {"corr": correlation(moments), "rmse": (moments[6] / moments[0]).sqrt()}
        if "repeats" in self.metrics:
            predicted, sums = self.metrics["repeats"].totals()
            found = explainable_from_sums(sums)
            values |= {
                "trial_corr": correlation(predicted),
                "feve": feve_from_sums(predicted, found),
                "cc_norm": values["corr"] / found.cc_max,
                "fev": found.fev,
                "cc_max": found.cc_max,
                "oracle": found.oracle,
                "conservative_oracle": found.conservative_oracle,
            }
        return values

    def _repeat_scores(self, each: dict[str, Tensor], moments: Tensor) -> dict[str, Tensor | float]:
        predicted, sums = self.metrics["repeats"].totals()
        feve, n_feve = mean_feve(each["feve"], each["fev"])
        scores: dict[str, Tensor | float] = {
            "trial_corr": mean_correlation(predicted),
            "feve": feve,
            "oracle_fraction": oracle_fraction(each["trial_corr"], each["oracle"]),
            "cc_norm": mean_cc_norm(each["corr"], each["cc_max"], each["fev"]),
        }
        finite = predicted.isfinite().all() and moments.isfinite().all()
        scores = {name: value if finite else math.nan for name, value in scores.items()}
        return scores | {"feve_neurons": n_feve if sums.noise[0].any() else math.nan}
