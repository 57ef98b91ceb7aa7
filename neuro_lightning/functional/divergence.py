"""Kullback-Leibler divergences of Gaussian posteriors from the priors of sequential variational autoencoders.

Posteriors are diagonal Gaussians given by mean and standard deviation; all is in nats, one number for each trial.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def normal_kl(mean: Tensor, std: Tensor, prior_mean: Tensor, prior_variance: Tensor | float) -> Tensor:
    """The divergence of a diagonal Gaussian from another one, in closed form.

    Args:
        mean: (B, D) of the posterior.
        std: (B, D) of the posterior.
        prior_mean: (D,).
        prior_variance: a number, or (D,).

    Returns:
        (B,), summed over the dimensions.

    Example:
        >>> normal_kl(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(2), 1.0)
        tensor([1.])
    """
    prior_variance = torch.as_tensor(prior_variance, dtype=mean.dtype, device=mean.device)
    variance = std.square() / prior_variance
    distance = (mean - prior_mean).square() / prior_variance
    return 0.5 * (variance + distance - 1 - variance.log()).sum(-1)


def normal_log_density(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The log-density of a Gaussian, elementwise."""
    return -0.5 * (((values - mean) / std).square() + LOG_2PI) - std.log()


def autoregressive_log_density(
    values: Tensor, tau: Tensor, noise_variance: Tensor, inside: Tensor | None = None
) -> Tensor:
    """The log-density of a stationary autoregressive process of first order.

    ``x[t] = a x[t - 1] + noise`` with ``a = exp(-1 / tau)``; the first value has the process's own variance,
    ``noise_variance / (1 - a ** 2)``.

    Args:
        values: (B, S, U) over S steps.
        tau: (U,) time constants in steps.
        noise_variance: (U,) variance of what is new in each step.
        inside: (B, S) bool, the steps that count, the first ones of each; None is all.

    Returns:
        (B,), summed over steps and dimensions.
    """
    decay = torch.exp(-1 / tau)
    start = (noise_variance / -torch.expm1(-2 / tau)).sqrt()  # 1 - a^2, exact for slow processes too
    first = normal_log_density(values[:, 0], torch.zeros_like(decay), start)
    later = normal_log_density(values[:, 1:], decay * values[:, :-1], noise_variance.sqrt())
    if inside is not None:
        later = later * inside[:, 1:, None]
    return first.sum(-1) + later.sum((-1, -2))


def sampled_autoregressive_kl(
    values: Tensor, mean: Tensor, std: Tensor, tau: Tensor, noise_variance: Tensor, inside: Tensor | None = None
) -> Tensor:
    """The divergence of a posterior from an autoregressive process, estimated by one sample of the posterior.

    The posterior of a step may depend on the samples of the steps before it, as a controller's does: then there is no
    closed form, and ``log q(sample) - log p(sample)`` has the divergence as its mean.

    Args:
        values: (B, S, U) the sample.
        mean: (B, S, U) of the posterior of each step, given the sample's earlier steps.
        std: likewise.
        tau: (U,) of the process, in steps.
        noise_variance: (U,) of the process.
        inside: (B, S) bool, the steps that count, the first ones of each; None is all.

    Returns:
        (B,), summed over steps and dimensions.
    """
    posterior = normal_log_density(values, mean, std)
    if inside is not None:
        posterior = posterior * inside[..., None]
    return posterior.sum((-1, -2)) - autoregressive_log_density(values, tau, noise_variance, inside)
