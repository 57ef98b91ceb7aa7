"""The Poisson linear dynamical system: latents with linear dynamics behind the spikes of single trials."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional import plds
from neuro_lightning.functional.kalman import Dynamics, laplace_filter, laplace_smoother, predict_ahead, predict_next
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet
from neuro_lightning.nn.stepping import State


class PLDSNet(RegressedLatentsNet):
    """The posterior's mode given the held-in counts; in forward bins the dynamics run on by themselves.

    Of latents that look back only it is the mode given the counts so far: the filter, where the other is the smoother.

    Args:
        spec: the description of the data.
        n_latents: D.
        stride: bins in a step.
        causal: the latents look back only.
        fit: ``timescale``, of the latents from which the fit starts, in steps; ``iterations``, steps of
            expectation-maximization.
    """

    causal_words = "model.causal=true"

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, *, causal: bool = False, **fit: float) -> None:
        super().__init__(spec, n_latents, stride, causal=causal, **fit)
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
        if self.causal:
            latents, state = [], self.first_step(len(counts))
            for step in counts.unbind(1):
                now, state = self.filter_step(step, None, state)
                latents.append(now)
            seen = torch.stack(latents, dim=1)
        else:
            seen = laplace_smoother(counts, self.loadings, self.heldin_bias, self.dynamics).mean
        return predict_ahead(seen, self.transition, ahead)

    @property
    def dynamics(self) -> Dynamics:
        """Of the latents."""
        return Dynamics(self.transition, self.noise, self.first_mean, self.first_cov)

    @property
    def start(self) -> Tensor:
        """(D,) the mean of the first latents."""
        return self.first_mean

    def first_step(self, batch: int) -> State:
        """Mean (B, D) and covariance (B, D, D) of the latents of the first step, before its counts are known."""
        return {"mean": self.first_mean.expand(batch, -1), "cov": self.first_cov.expand(batch, -1, -1)}

    def filter_step(self, counts: Tensor, share: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The latents (B, D) of the next step, and what the dynamics make of them."""
        latents, cov = laplace_filter(state["mean"], state["cov"], counts, self.loadings, self.heldin_bias, share)
        mean, cov = predict_next(latents, cov, self.dynamics)
        return latents, {"mean": mean, "cov": cov}

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
        return PLDSNet(
            self.spec, n_latents, self.stride, causal=self.causal, timescale=timescale, iterations=self.iterations
        )
