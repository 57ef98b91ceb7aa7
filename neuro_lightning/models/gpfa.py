"""Gaussian-process factor analysis: smooth latents of single trials, and what they say of all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional import gpfa
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet


class GPFANet(RegressedLatentsNet):
    """Posterior means of Gaussian-process latents, given the square roots of the held-in counts.

    The square root makes the variance of Poisson counts alike at all rates, as the model's Gaussian noise is (Yu et
    al. 2009). In forward bins the latents are what their own past makes likely.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_forward: forward bins F.
        n_latents: D.
        stride: bins in a step.
        timescale: of all latents before the fit, in steps.
        iterations: at most so many steps of expectation-maximization.
        root: take the square root of the counts.
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
        root: bool = True,
    ) -> None:
        super().__init__(n_in, n_neurons, n_forward, n_latents, stride)
        self.start, self.iterations, self.root = timescale, iterations, root
        double = torch.float64
        self.register_buffer("loadings", torch.zeros(n_in, n_latents, dtype=double))
        self.register_buffer("mean", torch.zeros(n_in, dtype=double))
        self.register_buffer("private", torch.ones(n_in, dtype=double))
        self.register_buffer("timescales", torch.ones(n_latents, dtype=double))

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> posterior means of the latents (B, S + ahead, D)."""
        model = gpfa.GPFA(self.loadings, self.mean, self.private, self.timescales)
        return gpfa.extrapolate(counts.sqrt() if self.root else counts, model, ahead)

    def learn(self, counts: Tensor) -> None:
        """Fit loadings, private variances and timescales to counts in steps, (B, S, N_in)."""
        y = counts.sqrt() if self.root else counts
        model, _ = gpfa.fit(y, self.loadings.shape[1], timescale=self.start, iterations=self.iterations)
        self.loadings, self.mean, self.private, self.timescales = model


class GPFA(RegressedLatents):
    """GPFA as the benchmark uses it: latents of the held-in neurons alone, then a Poisson regression on them.

    Yu, Cunningham et al. 2009; the readout of Pei, Ye et al. 2021 (arXiv:2109.04463).

    Args:
        spec: what to know of the data.
        n_latents: latents D; of several, the number is chosen on the last fifth of the training trials.
        step_ms: width of a step, in which counts are summed, a multiple of the bin width; None is one bin.
        timescale_ms: of all latents before the fit.
        iterations: at most so many steps of expectation-maximization.
        alpha: ridge penalties of the readout to choose from.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_latents: int | Sequence[int],
        step_ms: int | None,
        timescale_ms: float,
        iterations: int,
        alpha: float | Sequence[float],
        root: bool = True,
    ) -> None:
        self.timescale_ms, self.iterations, self.root = timescale_ms, iterations, root
        super().__init__(spec, n_latents=n_latents, step_ms=step_ms, alpha=alpha)

    def build(self, spec: DataSpec, n_latents: int, stride: int) -> GPFANet:
        """The network with so many latents."""
        timescale = self.timescale_ms / (spec.bin_ms * stride)
        sizes = (spec.n_in, spec.n_neurons, spec.n_forward, n_latents, stride)
        return GPFANet(*sizes, timescale=timescale, iterations=self.iterations, root=self.root)
