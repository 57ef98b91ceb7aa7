"""Gratings and the decoding of their angle from population responses.

All angles are in **degrees**. An angle lives on a circle of a given period: 180 degrees for static gratings, which look
the same when turned by half a circle, 360 for directions of motion.

Source: Stringer, Michaelos, Tsyboulski, Lindo & Pachitariu 2021 (Cell 184:2767), code MouseLand/stringer-et-al-2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuro_lightning.functional.ridge import Ridge

N_BUMPS = 48
"""Von Mises bumps that tile the circle."""

BUMP_WIDTH = 0.1
"""Width of a bump whose period is a full turn: exp((cos(x) - 1) / width)."""

BUMP_PENALTY = 1.0
"""Ridge penalty of the published decoder, a training trial."""

UPSAMPLE = 100
"""Points between two bumps among which the peak is looked for."""

FLAT = 1e-6
"""Predictions that vary by less than this share of their size between stimuli are rounding errors of a constant."""


def circular_difference(a: Tensor, b: Tensor, period: float) -> Tensor:
    """The shortest way from ``b`` to ``a`` on the circle.

    Args:
        a: angles in degrees.
        b: angles in degrees, broadcast with ``a``.
        period: of the circle in degrees.

    Returns:
        ``a - b`` in degrees, from ``-period / 2`` (included) to ``period / 2`` (excluded).

    Example:
        >>> circular_difference(torch.tensor(170.0), torch.tensor(10.0), period=180)
        tensor(-20.)
    """
    return torch.remainder(a - b + period / 2, period) - period / 2


def median_angle_error(decoded: Tensor, angle: Tensor, period: float) -> Tensor:
    """The median absolute circular error.

    Args:
        decoded: (B,) decoded angles in degrees.
        angle: (B,) true angles in degrees.
        period: of the circle in degrees.

    Returns:
        A scalar in degrees; a quarter of the period is chance. NaN without trials or where a decoded angle is NaN.
    """
    return median(circular_difference(decoded.double(), angle.double(), period).abs())


def median(values: Tensor) -> Tensor:
    """The median of (B,) values, of an even number the mean of the middle two; NaN for none or with a NaN."""
    return torch.quantile(values, 0.5) if len(values) else values.new_tensor(torch.nan)


def render_gratings(
    angle: Tensor,
    size: tuple[int, int],
    *,
    degrees_per_pixel: float,
    cycles_per_degree: float,
    phase: float = 0.0,
    period: float = 180.0,
) -> Tensor:
    """Static sinusoidal gratings as images.

    The luminance rises and falls along the direction ``angle``, counted counter-clockwise from rightwards, around a
    mean of 0 with the amplitude 1; ``phase`` is that of the cosine in the middle of the image.

    Args:
        angle: (B,) directions in degrees.
        size: ``(H, W)`` in pixels.
        degrees_per_pixel: of the visual field.
        cycles_per_degree: spatial frequency.
        phase: in degrees.
        period: 180 renders a direction and its opposite as the same image, whatever the phase; 360 renders them as
            they are (they differ where the phase is no multiple of 180).

    Returns:
        (B, 1, H, W) float32 between -1 and 1.
    """
    height, width = size
    y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2) * -degrees_per_pixel  # rows go down, y goes up
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * degrees_per_pixel
    theta = torch.deg2rad(torch.remainder(angle.double(), period))[:, None, None]
    along = theta.cos() * x[None, None, :] + theta.sin() * y[None, :, None]
    return (2 * math.pi * cycles_per_degree * along + math.radians(phase)).cos().float()[:, None]


# ---- linear decoders of recorded responses


def fit_ridge(x: Tensor, y: Tensor, penalty: float) -> Ridge:
    """Ridge regression with an intercept, whichever of trials and neurons are fewer.

    It minimizes ``mean over trials of |y - x W - b|^2 + penalty |W|^2``.

    Args:
        x: (B, N) responses.
        y: (B, K) targets.
        penalty: a trial.

    Returns:
        weight (N, K) and bias (K,), float64.
    """
    from sklearn import linear_model

    fit = linear_model.Ridge(penalty * len(x), solver="cholesky").fit(x.double().numpy(), y.double().numpy())
    return Ridge(torch.from_numpy(fit.coef_.T), torch.from_numpy(fit.intercept_))


def bumps(angle: Tensor, period: float, n_bumps: int = N_BUMPS) -> Tensor:
    """What the bump decoder learns to predict: von Mises bumps on a ring of preferred angles.

    Each trial's values are z-scored over the bumps, as published; the bumps of 180 degrees are twice as wide as those
    of 360 on their circle.

    Args:
        angle: (B,) degrees.
        period: of the circle in degrees.
        n_bumps: K.

    Returns:
        (B, K) float64.
    """
    centers = torch.arange(n_bumps, dtype=torch.float64, device=angle.device) * (period / n_bumps)
    turn = (angle.double()[:, None] - centers) * (2 * math.pi / period)
    values = ((turn.cos() - 1) / (BUMP_WIDTH * 360 / period)).exp()
    return (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True)


def fit_bumps(responses: Tensor, angle: Tensor, period: float, penalty: float = BUMP_PENALTY) -> Ridge:
    """The authors' linear decoder: ridge regression from responses to 48 bumps.

    Args:
        responses: (B, N) responses of about unit variance (z-scored).
        angle: (B,) degrees.
        period: of the circle in degrees.
        penalty: a trial.

    Returns:
        weight (N, 48) and bias (48,).
    """
    return fit_ridge(responses, bumps(angle, period), penalty)


def decode_bumps(fit: Ridge, responses: Tensor, period: float) -> Tensor:
    """The angle at which the predicted bumps peak, between bumps too.

    Args:
        fit: of :func:`fit_bumps`.
        responses: (B, N).
        period: of the circle in degrees.

    Returns:
        (B,) degrees from 0 to ``period``.
    """
    values = responses.double() @ fit.weight + fit.bias
    n_bumps = values.shape[1]
    spectrum = torch.fft.rfft(values)  # a periodic signal is interpolated by its Fourier series
    if n_bumps % 2 == 0:
        spectrum[:, -1] /= 2  # of the highest frequency, the longer series has both signs
    fine = torch.fft.irfft(spectrum, n_bumps * UPSAMPLE)
    peak = fine.argmax(1).double() * (period / fine.shape[1])
    return torch.where(values.isfinite().all(1), peak, torch.nan)


# ---- decoding with a model of the responses


def correlate_templates(responses: Tensor, templates: Tensor) -> Tensor:
    """Pearson's correlation, over neurons, of observed responses with predicted ones.

    Each neuron's responses are z-scored over trials; each neuron's predictions lose their mean over templates and are
    divided by the *responses'* spread, so that a neuron counts by how much of its own variability a model explains.

    Args:
        responses: (B, N), NaN where a neuron was not observed: there it takes no side.
        templates: (C, N) predicted responses.

    Returns:
        (B, C) float64; 0 where one of the two does not vary, NaN where a prediction is not finite.
    """
    responses, templates = responses.double(), templates.double()
    mean = responses.nanmean(0).nan_to_num()
    centered = (responses - mean).nan_to_num()
    observed = (~responses.isnan()).sum(0).clamp(min=1)
    spread = (centered.square().sum(0) / observed).sqrt()
    scale = torch.where(spread > 0, 1 / spread, 0.0)
    predicted = templates - templates.mean(0)
    flat = predicted.abs().amax(0) <= FLAT * templates.abs().amax(0)
    predicted = torch.where(flat, 0.0, predicted)  # NaN compares as not flat and stays
    return _unit_rows(centered * scale) @ _unit_rows(predicted * scale).T


def template_decode(responses: Tensor, templates: Tensor, template_angle: Tensor) -> Tensor:
    """The angle whose predicted response correlates best with the observed one.

    Args:
        responses: (B, N).
        templates: (C, N) predicted responses.
        template_angle: (C,) their angles in degrees.

    Returns:
        (B,) degrees, of equally good angles the first; NaN where a prediction is not finite.
    """
    correlation = correlate_templates(responses, templates)
    decoded = template_angle.double()[correlation.argmax(1)]
    return torch.where(correlation.isfinite().all(1), decoded, torch.nan)


def template_errors(
    responses: Tensor, angle: Tensor, templates: Tensor, template_angle: Tensor, period: float, *, rows: int = 512
) -> Tensor:
    """Absolute errors of :func:`template_decode`; of equally good angles, their mean error.

    A model that predicts the same response to every angle thus scores what guessing does.

    Args:
        responses: (B, N).
        angle: (B,) true angles in degrees.
        templates: (C, N) predicted responses.
        template_angle: (C,) their angles in degrees.
        period: of the circle in degrees.
        rows: trials at a time, which bounds memory.

    Returns:
        (B,) degrees; NaN where a prediction is not finite.
    """
    correlation = correlate_templates(responses, templates)
    errors = []
    for trial, row in zip(angle.double().split(rows), correlation.split(rows), strict=True):
        best = row == row.amax(1, keepdim=True)
        distance = circular_difference(trial[:, None], template_angle.double(), period).abs()
        error = torch.where(best, distance, 0.0).sum(1) / best.sum(1)
        errors.append(torch.where(row.isfinite().all(1), error, torch.nan))
    return torch.cat(errors)


def _unit_rows(values: Tensor) -> Tensor:
    """Rows without their mean and of length 1; rows that do not vary are 0."""
    moment = values.norm(dim=1, keepdim=True)
    values = values - values.mean(1, keepdim=True)
    norm = values.norm(dim=1, keepdim=True)
    return torch.where(norm <= 1e-12 * moment, 0.0, values / norm)
