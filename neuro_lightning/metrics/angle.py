"""Error of the stimulus angle that is decoded with a model of the responses."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.orientation import median, template_errors
from neuro_lightning.metrics.base import TrialMetric, finite_or_nan

MAX_NEURONS = 512
"""Neurons that decode, at most: they bound the metric's memory."""


def decoding_neurons(n_neurons: int, max_neurons: int = MAX_NEURONS) -> Tensor:
    """(M,) the neurons that decode: all of them, or a random choice that is the same in every run.

    Example:
        >>> len(decoding_neurons(1000, max_neurons=100))
        100
    """
    if n_neurons <= max_neurons:
        return torch.arange(n_neurons)
    order = torch.randperm(n_neurons, generator=torch.Generator().manual_seed(0))
    return order[:max_neurons].sort().values


class AngleError(TrialMetric):
    """Median absolute error, in degrees, of angles decoded from observed responses with a model's predictions.

    The predicted responses to all stimuli of the split are the templates; a trial's angle is that of the template with
    which its observed response correlates best, z-scored, over neurons. The model sees stimuli only, so its prediction
    for a trial's own stimulus is a template like any other. Lower is better; a quarter of the period is chance.

    A median needs every trial: predictions and responses of up to ``max_neurons`` neurons are kept by the trial's
    number, so the value does not depend on how trials are cut into batches or shared among processes.

    Args:
        n_eval: evaluation trials in all, over which ``index`` runs.
        n_neurons: N.
        period: 180 degrees for static gratings, 360 for directions.
        max_neurons: neurons that decode, at most, see :func:`decoding_neurons`.
    """

    neurons: Tensor

    def __init__(self, n_eval: int, n_neurons: int, period: float = 180.0, max_neurons: int = MAX_NEURONS):
        neurons = decoding_neurons(n_neurons, max_neurons)
        super().__init__(n_eval, predictions=len(neurons), responses=len(neurons), angles=1)
        self.period = period
        self.register_buffer("neurons", neurons, persistent=False)

    def update(
        self, prediction: Tensor, target: Tensor, index: Tensor, angle: Tensor, mask: Tensor | None = None
    ) -> None:
        """Adds evaluation trials.

        Args:
            prediction: (B, N) predicted responses.
            target: (B, N) observed responses.
            index: (B,) the trials' numbers in the split.
            angle: (B,) the stimuli's directions in **radians**.
            mask: (B, N) bool, True where a response was observed; None means everywhere.
        """
        responses = target if mask is None else torch.where(mask, target, torch.nan)
        self.add_trials(
            index,
            predictions=prediction[:, self.neurons],
            responses=responses[:, self.neurons],
            angles=torch.rad2deg(angle.double())[:, None],
        )

    def compute(self) -> Tensor:
        """The median error in degrees, a scalar; NaN without trials or where a prediction is not finite."""
        templates, responses, angles = (self.trial_values(name) for name in ("predictions", "responses", "angles"))
        if not len(angles):
            return angles.new_tensor(torch.nan)
        errors = template_errors(responses, angles[:, 0], templates, angles[:, 0], self.period)
        return finite_or_nan(median(errors))
