"""The Poisson linear dynamical system: latents with linear dynamics behind the spikes of single trials."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional import plds
from neuro_lightning.functional.kalman import Dynamics, laplace_smoother, predict_ahead
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet


class PLDSNet(RegressedLatentsNet):
    """The posterior's mode given the held-in counts; in forward bins the dynamics run on by themselves.

    Args:
        spec: the description of the data.
        n_latents: D.
        stride: bins in a step.
        fit: ``timescale``, of the latents from which the fit starts, in steps; ``iterations``, steps of
            expectation-maximization.
    """

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, **fit: float) -> None:
        super().__init__(spec, n_latents, stride, **fit)
        self.register(
            loadings=torch.zeros(spec.n_in, n_latents),
            heldin_bias=torch.zeros(spec.n_in),
            transition=torch.eye(n_latents),
            noise=torch.eye(n_latents),
            first_mean=torch.zeros(n_latents),
            first_cov=torch.eye(n_latents),
        )

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> latents (B, S + ahead, D)."""
        dynamics = Dynamics(self.transition, self.noise, self.first_mean, self.first_cov)
        seen = laplace_smoother(counts, self.loadings, self.heldin_bias, dynamics).mean
        return predict_ahead(seen, self.transition, ahead)

    def learn(self, counts: Tensor) -> None:
        """Fit loadings and dynamics to counts in steps, (B, S, N_in)."""
        model, _ = plds.fit(counts, self.loadings.shape[1], **self.fit_options)
        self.loadings, self.heldin_bias = model.loadings, model.bias
        self.transition, self.noise, self.first_mean, self.first_cov = model.dynamics


class PLDS(RegressedLatents):
    """A Poisson linear dynamical system of the held-in neurons, and a Poisson regression from its latents.

    Macke, Buesing et al. 2011; the benchmark's SLDS (Pei, Ye et al. 2021, arXiv:2109.04463) with a single state.

    Args:
        spec: the description of the data.
        settings: see :class:`RegressedLatents`.
    """

    def build(self, n_latents: int) -> PLDSNet:
        """The network with so many latents."""
        timescale = self.timescale_ms / (self.spec.bin_ms * self.stride)
        return PLDSNet(self.spec, n_latents, self.stride, timescale=timescale, iterations=self.iterations)
