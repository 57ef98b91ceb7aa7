"""Gaussian-process factor analysis: smooth latents of single trials, and a regression from them to all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.functional import gpfa
from neuro_lightning.models.linear_latents import observed_rows, regress_linearly
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet
from neuro_lightning.nn.windows import in_windows


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
        double = torch.float64
        self.register_buffer("loadings", torch.zeros(n_in, n_latents, dtype=double))
        self.register_buffer("mean", torch.zeros(n_in, dtype=double))
        self.register_buffer("private", torch.ones(n_in, dtype=double))
        self.register_buffer("timescales", torch.ones(n_latents, dtype=double))

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> posterior means of the latents (B, S + ahead, D)."""
        return gpfa.extrapolate(self.activity(counts), self.model, ahead)

    def learn(self, counts: Tensor) -> None:
        """Fit loadings, private variances and timescales to counts in steps, (B, S, N_in)."""
        size = self.loadings.shape[1]
        model, _ = gpfa.fit(self.activity(counts), size, timescale=self.start, iterations=self.iterations)
        self.loadings, self.mean, self.private, self.timescales = model

    @property
    def model(self) -> gpfa.GPFA:
        """The parameters."""
        return gpfa.GPFA(self.loadings, self.mean, self.private, self.timescales)

    @staticmethod
    def activity(counts: Tensor) -> Tensor:
        """Square roots of the counts, whose noise has about the same variance at all rates."""
        return counts.sqrt()


class TracesGPFANet(GPFANet):
    """The same for calcium traces, which are modelled as Gaussian bin by bin and read out linearly.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_bins: bins of a training sequence; longer ones are described window by window.
        n_latents: D.
        timescale: of all latents before the fit, in bins.
        iterations: at most so many steps of expectation-maximization.
    """

    def __init__(
        self, n_in: int, n_neurons: int, n_bins: int, n_latents: int, *, timescale: float, iterations: int
    ) -> None:
        super().__init__(n_in, n_neurons, 0, n_latents, 1, timescale=timescale, iterations=iterations)
        self.n_bins = n_bins

    @staticmethod
    def activity(counts: Tensor) -> Tensor:
        """The traces themselves."""
        return counts

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) traces -> rates (B, T, N) and latents (B, T, D)."""
        if inputs.shape[1] > self.n_bins:
            return in_windows(self.forward, inputs, self.n_bins)
        latents = self.infer(inputs.double(), 0)
        rates = latents @ self.weight + self.bias
        return {"rates": rates.to(inputs.dtype), "latents": latents.to(inputs.dtype)}

    def choose(self, batch: Batch, alpha: Sequence[float]) -> tuple[float, float]:
        """The likelihood of the last fifth's shown traces: there may be no held-out ones to choose by. No penalty."""
        y = batch["inputs"].double()
        return float(gpfa.posterior(y[len(y) * 4 // 5 :], self.model).log_likelihood), 0.0

    @torch.no_grad()
    def regress(self, batch: Batch, alpha: float) -> None:
        """Shown neurons are read out by their loadings, held-out ones by ridge regression, its penalty chosen there."""
        spec = DataSpec("traces", n_in=self.loadings.shape[0])
        latents, heldout = observed_rows({**batch, "inputs": self.infer(batch["inputs"].double(), 0)}, spec)
        center = latents.mean(0)
        weight, bias = regress_linearly(latents - center, heldout)
        self.weight = torch.cat([self.loadings.T, weight], dim=1)
        self.bias = torch.cat([self.mean, bias - center @ weight])


class GPFA(RegressedLatents):
    """GPFA as the benchmark uses it: latents of the held-in neurons alone, then a Poisson regression on them.

    Yu, Cunningham et al. 2009; the readout of Pei, Ye et al. 2021 (arXiv:2109.04463).

    Args:
        spec: the description of the data.
        n_latents: latents D; several are tried from few to many, as long as the last fifth of the training trials is
            predicted better.
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
    ) -> None:
        self.timescale_ms, self.iterations = timescale_ms, iterations
        super().__init__(spec, n_latents=n_latents, step_ms=step_ms, alpha=alpha)

    def build(self, spec: DataSpec, n_latents: int, stride: int) -> GPFANet:
        """The network with so many latents."""
        bins = stride if spec.kind == "spikes" else 1
        options = {"timescale": max(1.0, self.timescale_ms / (spec.bin_ms * bins)), "iterations": self.iterations}
        if spec.kind == "traces":
            return TracesGPFANet(spec.n_in, spec.n_neurons, spec.n_bins, n_latents, **options)
        return GPFANet(spec.n_in, spec.n_neurons, spec.n_forward, n_latents, stride, **options)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Traces' forward bins are not predicted, spikes' are."""
        if spec.kind == "traces" and spec.n_forward:
            return f"it predicts none of the {spec.n_forward} forward bins of traces"
        return None
