"""The Poisson linear dynamical system: latents with linear dynamics behind the spikes of single trials."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional import plds
from neuro_lightning.functional.kalman import Dynamics, laplace_smoother, predict_ahead
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet


class PLDSNet(RegressedLatentsNet):
    """The posterior's mode given the held-in counts; in forward bins the dynamics run on by themselves.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_forward: forward bins F.
        n_latents: D.
        stride: bins in a step.
        timescale: of the latents from which the fit starts, in steps.
        iterations: steps of expectation-maximization.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_forward: int,
        n_latents: int,
        stride: int,
        *,
        timescale: float,
        iterations: int,
    ) -> None:
        super().__init__(n_in, n_neurons, n_forward, n_latents, stride)
        self.start, self.iterations = timescale, iterations
        eye = torch.eye(n_latents, dtype=torch.float64)
        self.register_buffer("loadings", torch.zeros(n_in, n_latents, dtype=torch.float64))
        self.register_buffer("heldin_bias", torch.zeros(n_in, dtype=torch.float64))
        self.register_buffer("transition", eye.clone())
        self.register_buffer("noise", eye.clone())
        self.register_buffer("first_mean", torch.zeros(n_latents, dtype=torch.float64))
        self.register_buffer("first_cov", eye.clone())

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> latents (B, S + ahead, D)."""
        dynamics = Dynamics(self.transition, self.noise, self.first_mean, self.first_cov)
        return predict_ahead(
            laplace_smoother(counts, self.loadings, self.heldin_bias, dynamics).mean, self.transition, ahead
        )

    def learn(self, counts: Tensor) -> None:
        """Fit loadings and dynamics to counts in steps, (B, S, N_in)."""
        size = self.loadings.shape[1]
        model, _ = plds.fit(counts, size, timescale=self.start, iterations=self.iterations)
        self.loadings, self.heldin_bias = model.loadings, model.bias
        self.transition, self.noise, self.first_mean, self.first_cov = model.dynamics


class PLDS(RegressedLatents):
    """A Poisson linear dynamical system of the held-in neurons, and a Poisson regression from its latents.

    Macke, Buesing et al. 2011; the benchmark's SLDS (Pei, Ye et al. 2021, arXiv:2109.04463) with a single state.

    Args:
        spec: the description of the data.
        n_latents: latents D; several are tried from few to many, as long as the last fifth of the training trials is
            predicted better.
        step_ms: width of a step, in which counts are summed, a multiple of the bin width; None is one bin.
        timescale_ms: of the latents from which the fit starts.
        iterations: steps of expectation-maximization.
        alpha: ridge penalties of the readout to choose from.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_latents: int | Sequence[int],
        step_ms: int | None,
        timescale_ms: float,
        iterations: int,
        alpha: float | Sequence[float],
    ) -> None:
        self.timescale_ms, self.iterations = timescale_ms, iterations
        super().__init__(spec, n_latents=n_latents, step_ms=step_ms, alpha=alpha)

    def build(self, spec: DataSpec, n_latents: int, stride: int) -> PLDSNet:
        """The network with so many latents."""
        sizes = (spec.n_in, spec.n_neurons, spec.n_forward, n_latents, stride)
        return PLDSNet(*sizes, timescale=self.timescale_ms / (spec.bin_ms * stride), iterations=self.iterations)
