"""Read-ins and readouts of several sessions that begin in one space, by the conditions that the sessions share.

Neurons of different sessions are never recorded together, but their mean responses to the same conditions are. Source:
Pandarinath et al. 2018, Nature Methods 15, "Inferring single-trial neural population dynamics using sequential
auto-encoders": principal-component regression; repository arsedler9/lfads-torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.functional.factors import principal_components
from neuro_lightning.functional.poisson_regression import poisson_regression
from neuro_lightning.functional.ridge import Ridge, gram, ridge_fit

FLOOR = 1e-2  # variance that the noise has in every direction, as a share of its mean


def common_factors(rates: Sequence[Tensor], n_factors: int) -> Tensor:
    """The principal components of all sessions' mean responses side by side, strongest first.

    Args:
        rates: (C, T, N_s) of each session, smoothed means over the trials of each of the same C conditions.
        n_factors: D; at most as many as there are neurons, or rows less one, count.

    Returns:
        (C, T, D) of mean zero, float64.
    """
    joint = torch.cat(list(rates), dim=2).double()
    rows = joint.flatten(0, 1)
    found = principal_components(rows, min(n_factors, len(rows) - 1))
    return ((rows - found.mean) @ found.encoder).unflatten(0, joint.shape[:2])


def regress(channels: Tensor, target: Tensor, noise: Tensor, ridge: float) -> Ridge:
    """The linear map from a session's mean responses to a target that other sessions share.

    Single trials differ from their mean. With the covariance of these differences as the metric of the penalty, and a
    share of 1, the map has the least expected squared error on single trials.

    Args:
        channels: (..., P) what the map reads, means over trials.
        target: (..., D).
        noise: (P, P) covariance of single trials around their mean.
        ridge: which share of it the penalty is.

    Returns:
        Weights (P, D) and biases (D,) in float64; the mean of the channels is mapped to that of the target.
    """
    x, y = channels.flatten(0, -2).double(), target.flatten(0, -2).double()
    center, middle, whiten = x.mean(0), y.mean(0), _whitening(noise)
    sums = gram((x - center) @ whiten, y - middle)
    weight = whiten @ ridge_fit(sums, y.shape[1], x.new_tensor([ridge * len(x)])).weight[0]
    return Ridge(weight, middle - center @ weight)


def regress_log_rates(latents: Tensor, rates: Tensor, noise: Tensor, ridge: float) -> Ridge:
    """The readout of log-rates from latents: Poisson regression of mean responses.

    Args:
        latents: (..., D) means over trials.
        rates: (..., N) expected counts in a bin.
        noise: (D, D) covariance of single trials around their mean, see :func:`regress`.
        ridge: which share of it the penalty is, in units of the mean count.

    Returns:
        Weights (D, N) and biases (N,) in float64.
    """
    x, y, whiten = latents.flatten(0, -2).double(), rates.flatten(0, -2).double(), _whitening(noise)
    weight, bias = poisson_regression(x @ whiten, y, ridge * float(y.mean()))
    return Ridge(whiten @ weight, bias)


def _whitening(noise: Tensor) -> Tensor:
    """(P, P) map to channels in which the noise has unit variance in every direction."""
    noise = noise.double()
    floor = FLOOR * noise.diagonal().mean() + torch.finfo(torch.float64).tiny
    return torch.linalg.inv(torch.linalg.cholesky(noise + floor * torch.eye(len(noise), dtype=noise.dtype))).T
