"""Error of the stimulus angle that is decoded with a model of the responses."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.orientation import median, template_errors
from neuro_lightning.metrics.base import SumMetric, finite_or_nan

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


class AngleError(SumMetric):
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
    predictions: Tensor
    responses: Tensor
    angles: Tensor
    seen: Tensor

    def __init__(self, n_eval: int, n_neurons: int, period: float = 180.0, max_neurons: int = MAX_NEURONS):
        super().__init__()
        self.period = period
        self.register_buffer("neurons", decoding_neurons(n_neurons, max_neurons), persistent=False)
        for name in ("predictions", "responses"):
            self.add_sum(name, n_eval, len(self.neurons))
        self.add_sum("angles", n_eval)
        self.add_sum("seen", n_eval)

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
        responses = responses[:, self.neurons].double()
        self.predictions = self.predictions.index_add(0, index, prediction[:, self.neurons].double())
        self.responses = self.responses.index_add(0, index, responses)
        self.angles = self.angles.index_add(0, index, torch.rad2deg(angle.double()))
        self.seen = self.seen.index_add(0, index, torch.ones_like(angle, dtype=torch.float64))

    def compute(self) -> Tensor:
        """The median error in degrees, a scalar; NaN without trials or where a prediction is not finite."""
        seen = self.seen > 0
        if not seen.any():
            return self.seen.new_tensor(torch.nan)
        times = self.seen[seen]
        templates, responses = self.predictions[seen] / times[:, None], self.responses[seen] / times[:, None]
        angle = self.angles[seen] / times
        return finite_or_nan(median(template_errors(responses, angle, templates, angle, self.period)))
