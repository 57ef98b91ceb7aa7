"""Divergences of Gaussian posteriors from LFADS's priors."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from neuro_lightning.functional.divergence import (
    autoregressive_log_density,
    normal_kl,
    sampled_autoregressive_kl,
)
from neuro_lightning.nn.priors import AutoregressivePrior, NormalPrior

TAU, NOISE = torch.tensor([10.0, 1.5], dtype=torch.float64), torch.tensor([0.1, 0.7], dtype=torch.float64)


def process(steps: int, channel: int) -> MultivariateNormal:
    """The autoregressive process of a channel as one Gaussian over all steps."""
    decay = math.exp(-1 / TAU[channel])
    time = torch.arange(steps, dtype=torch.float64)
    covariance = decay ** (time[:, None] - time).abs() * NOISE[channel] / (1 - decay**2)
    return MultivariateNormal(torch.zeros(steps, dtype=torch.float64), covariance)


def test_the_divergence_from_a_gaussian_is_the_closed_form():
    torch.manual_seed(0)
    mean, std, prior_mean = torch.randn(5, 3), torch.rand(5, 3) + 0.1, torch.randn(3)
    prior = Independent(Normal(prior_mean.expand(5, 3), 0.1**0.5), 1)
    expected = kl_divergence(Independent(Normal(mean, std), 1), prior)
    torch.testing.assert_close(normal_kl(mean, std, prior_mean, 0.1), expected)
    module = NormalPrior(3)
    module.mean.data.copy_(prior_mean)
    torch.testing.assert_close(module.divergence(mean, std), expected.mean())


def test_the_divergence_from_the_same_gaussian_is_zero():
    mean = torch.randn(4, 3)
    assert normal_kl(mean, torch.full((4, 3), 0.1**0.5), mean, 0.1).abs().max() < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_processs_density_is_that_of_one_gaussian(steps):
    torch.manual_seed(0)
    values = torch.randn(6, steps, 2, dtype=torch.float64)
    expected = sum(process(steps, u).log_prob(values[..., u]) for u in range(2))
    torch.testing.assert_close(autoregressive_log_density(values, TAU, NOISE), expected)


def test_the_sampled_divergence_has_the_closed_form_as_its_mean():
    torch.manual_seed(0)
    steps, samples = 6, 40_000
    mean = torch.randn(steps, 2, dtype=torch.float64)
    std = torch.rand(steps, 2, dtype=torch.float64) + 0.2
    expected = sum(
        kl_divergence(MultivariateNormal(mean[:, u], torch.diag(std[:, u] ** 2)), process(steps, u)) for u in range(2)
    )
    values = mean + std * torch.randn(samples, steps, 2, dtype=torch.float64)
    found = sampled_autoregressive_kl(values, mean.expand_as(values), std.expand_as(values), TAU, NOISE)
    assert found.std() > 0.5, "single samples say little"
    assert abs(found.mean() - expected) < 4 * found.std() / samples**0.5 < 0.02 * expected


def test_priors_are_learnt():
    torch.manual_seed(0)
    mean, std = torch.randn(5, 6, 3), torch.rand(5, 6, 3) + 0.1
    prior = AutoregressivePrior(3, tau=10.0, noise_variance=0.1)
    torch.testing.assert_close(prior.log_tau.exp(), torch.full((3,), 10.0))
    torch.testing.assert_close(prior.log_noise.exp(), torch.full((3,), 0.1))
    initial = NormalPrior(3)
    (prior.divergence(mean, mean, std) + initial.divergence(mean[:, 0], std[:, 0])).backward()
    for parameter in (*prior.parameters(), *initial.parameters()):
        assert parameter.grad.isfinite().all() and (parameter.grad != 0).all()
