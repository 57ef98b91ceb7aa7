"""Metrics of real-valued traces (calcium activity): error, R2, share of variance, held-out neurons, true signals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output, rates_of
from neuro_lightning.functional.reconstruction import (
    ErrorSums,
    error_sums,
    mean_r2,
    mean_squared_error,
    variance_explained,
)
from neuro_lightning.metrics.base import MetricDict, MetricGroup, SumMetric, finite_or_nan, register_constant

SCORES = (mean_squared_error, mean_r2, variance_explained)
R2_NAMES = {"heldout": "co_r2", "true": "rates_r2"}
"""What the R2 of a part of the data is called."""


class TraceErrors(SumMetric):
    """Sums of squared errors of each neuron of each group of trials, and the scores that follow from them.

    Args:
        n_groups: groups M whose columns are other neurons (imaging planes).
        n_neurons: N.
        mean_rates: (N,) about the mean of the targets; it is subtracted for the sake of precision and changes no
            score. Empty means zero.
    """

    mean_rates: Tensor

    def __init__(self, n_groups: int, n_neurons: int, mean_rates: Sequence[float] = ()) -> None:
        super().__init__()
        self.n_groups = n_groups
        register_constant(self, "mean_rates", mean_rates or [0.0] * n_neurons)
        for name in ErrorSums._fields:
            self.add_sum(name, n_groups, n_neurons)

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor | None, group: Tensor | None) -> None:
        """Adds trials.

        Args:
            prediction: (B, T, N) expected values.
            target: (B, T, N) what was measured.
            mask: (B, T, N) bool, True where an entry counts; None means everywhere.
            group: (B,) int64 the trials' groups; None for the only one.
        """
        self.accumulate(error_sums(prediction, target, mask, group, n_groups=self.n_groups, shift=self.mean_rates))

    def compute(self) -> Tensor:
        """(3,) ``mse``, ``r2`` and ``variance``; NaN where one is undefined or a prediction is not finite."""
        return torch.stack([finite_or_nan(score(self.collect(ErrorSums))) for score in SCORES])


class TraceMetrics(MetricGroup):
    """Every metric that traces allow.

    ==============  ==================================================================================================
    ``mse``         squared error, mean over all observed entries
    ``r2``          R2, mean over neurons
    ``variance``    share of variance explained, pooled over neurons
    ``co_r2``       R2 of the held-out neurons, mean over neurons; without any, it is not there
    ``rates_r2``    R2 against the true signal behind simulated activity, mean over neurons
    ==============  ==================================================================================================

    Means and variances are those of the evaluated trials. Neurons are kept apart by group (``spec.decode_groups``
    groups, a trial's group is its ``condition``): two planes' columns are different neurons. Values are exact however
    trials are cut into batches and shared among processes; under DDP call :meth:`compute` on every process.

    Args:
        spec: the description of the data.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.n_in, self.n_out, self.n_groups = spec.n_in, spec.n_out, spec.decode_groups
        parts = {"all": slice(None), "heldout": slice(self.n_in, None), "true": slice(None)}
        there = {"all": True, "heldout": spec.n_out > 0, "true": spec.true_rates}
        self.parts = {name: neurons for name, neurons in parts.items() if there[name]}
        self.metrics = MetricDict()
        for name, neurons in self.parts.items():
            mean = tuple(spec.mean_rates)[neurons]
            self.metrics[name] = TraceErrors(self.n_groups, self.n_out if name == "heldout" else spec.n_neurons, mean)

    @property
    def names(self) -> list[str]:
        """The keys of what :meth:`compute` returns."""
        return ["mse", "r2", "variance", *(R2_NAMES[part] for part in self.parts if part in R2_NAMES)]

    @torch.no_grad()
    def update(self, output: Output, batch: Batch) -> None:
        """Adds evaluation trials."""
        prediction = rates_of(output).float()
        group = batch["condition"] if self.n_groups > 1 else None
        for name, neurons in self.parts.items():
            if name == "true":
                seen = batch["observed"].any(2, keepdim=True).expand_as(prediction) if "observed" in batch else None
                self.metrics[name].update(prediction, batch["rates"], seen, group)
            else:
                target, mask = batch["targets"][..., neurons], batch["mask"][..., neurons]
                self.metrics[name].update(prediction[..., neurons], target, mask, group)

    def compute(self) -> dict[str, float]:
        """All scores by name, NaN where one is undefined."""
        mse, r2, variance = self.metrics["all"].compute().tolist()
        others = {name: float(self.metrics[part].compute()[1]) for part, name in R2_NAMES.items() if part in self.parts}
        return {"mse": mse, "r2": r2, "variance": variance, **others}
