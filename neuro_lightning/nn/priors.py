"""Priors of sequential variational autoencoders: what a latent is expected to be before anything was observed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro_lightning.functional.divergence import normal_kl, sampled_autoregressive_kl


class NormalPrior(nn.Module):
    """Independent Gaussians with means that are learnt and one variance that is not.

    The prior of LFADS's initial conditions (repository arsedler9/lfads-torch).

    Args:
        dim: dimensions D.
        variance: of each.
    """

    def __init__(self, dim: int, variance: float = 0.1) -> None:
        super().__init__()
        self.mean, self.variance = nn.Parameter(torch.zeros(dim)), variance

    def divergence(self, mean: Tensor, std: Tensor) -> Tensor:
        """Of posteriors (B, D), in nats, the mean over trials."""
        return normal_kl(mean, std, self.mean, self.variance).mean()


class AutoregressivePrior(nn.Module):
    """Stationary autoregressive processes of first order whose time constants and noise are learnt.

    The prior of LFADS's inferred inputs (Pandarinath et al., Nature Methods 2018; repository arsedler9/lfads-torch).

    Args:
        dim: processes U.
        tau: their time constant to begin with, in steps.
        noise_variance: variance of what is new in each step, to begin with.
    """

    def __init__(self, dim: int, tau: float = 10.0, noise_variance: float = 0.1) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.full((dim,), math.log(tau)))
        self.log_noise = nn.Parameter(torch.full((dim,), math.log(noise_variance)))

    def divergence(self, values: Tensor, mean: Tensor, std: Tensor, inside: Tensor | None = None) -> Tensor:
        """Of a sample (B, S, U) of posteriors, estimated by it, in nats, the mean over trials.

        Args:
            values: the sample.
            mean: (B, S, U) of the posteriors.
            std: likewise.
            inside: (B, S) bool, the steps that count, the first ones of each trial; None is all.
        """
        return sampled_autoregressive_kl(values, mean, std, self.log_tau.exp(), self.log_noise.exp(), inside).mean()
