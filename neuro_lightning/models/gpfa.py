"""Gaussian-process factor analysis: smooth latents of single trials, and a regression from them to all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional import gpfa
from neuro_lightning.models.linear_latents import observed_rows, regress_linearly
from neuro_lightning.models.regressed_latents import RegressedLatents, RegressedLatentsNet
from neuro_lightning.nn.stepping import State
from neuro_lightning.nn.windows import in_windows


class GPFANet(RegressedLatentsNet):
    """Posterior means of Gaussian-process latents, given the square roots of the held-in counts.

    The square root makes the variance of Poisson counts alike at all rates, as the model's Gaussian noise is (Yu et
    al. 2009). In forward bins the latents are what their own past makes likely.

    Of latents that look back only they are the means given the counts so far, of as many steps as a trial of the
    training has: in a longer one, of the last so many.

    Args:
        spec: the description of the data.
        n_latents: D.
        stride: bins in a step.
        causal: the latents look back only.
        fit: ``timescale``, of all latents before the fit, in steps; ``iterations``, at most so many steps of
            expectation-maximization.
    """

    causal_words = "model.causal=true"

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, *, causal: bool = False, **fit: float) -> None:
        super().__init__(spec, n_latents, stride, causal=causal, **fit)
        self.n_steps = max(1, spec.n_bins // stride)
        self.register(
            loadings=torch.zeros(spec.n_in, n_latents),
            mean=torch.zeros(spec.n_in),
            private=torch.ones(spec.n_in),
            timescales=torch.ones(n_latents),
        )
        self.forget_weights()
        self.register_load_state_dict_post_hook(GPFANet.forget_weights)

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> posterior means of the latents (B, S + ahead, D)."""
        if not self.causal:
            return gpfa.extrapolate(self.activity(counts), self.model, ahead)
        latents, state = [counts.new_zeros(len(counts), 0, self.loadings.shape[1])], self.first_step(len(counts))
        for step in counts.unbind(1):
            now, state = self.filter_step(step, None, state)
            latents.append(now[:, None])
        last = self.activity(counts[:, -self.n_steps :])
        return torch.cat([*latents, gpfa.extrapolate(last, self.model, ahead)[:, last.shape[1] :]], dim=1)

    def learn(self, counts: Tensor) -> None:
        """Fit loadings, private variances and timescales to counts in steps, (B, S, N_in)."""
        model, _ = gpfa.fit(self.activity(counts), self.loadings.shape[1], **self.fit_options)
        self.loadings, self.mean, self.private, self.timescales = model
        self.forget_weights()

    # ---- looking back

    def forget_weights(self, *_: Any) -> None:
        """The parameters have changed: what follows from them is computed anew when it is needed."""
        for name in ("given_all", "given_past"):
            self.register_buffer(name, self.loadings.new_empty(0), persistent=False)

    @property
    def start(self) -> Tensor:
        """(D,) the latents of which nothing is known: zero."""
        return torch.zeros_like(self.timescales)

    def first_step(self, batch: int) -> State:
        """The evidence of the last steps, none of which has been, and how many of them count."""
        if not self.given_all.numel():
            self.given_all, self.given_past = gpfa.looking_back(self.model, self.n_steps)
        past = self.loadings.new_zeros(batch, self.n_steps, self.loadings.shape[1])
        return {"past": past, "steps": torch.zeros((), dtype=torch.long, device=past.device)}

    def filter_step(self, counts: Tensor, share: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The latents (B, D) of the next step; what was not recorded enters as what the steps before it expect."""
        number, past = state["steps"], state["past"]
        if share is None:
            y = self.activity(counts)
        else:
            expected = _weighted(self.given_past, number, past) @ self.loadings.T + self.mean
            y = torch.where(share > 0, self.activity(counts / share.clamp_min(1e-9)), expected)
        past = torch.cat([past[:, 1:], gpfa.evidence(y, self.model)[:, None]], dim=1)
        latents = _weighted(self.given_all, number, past)
        return latents, {"past": past, "steps": (number + 1).clamp(max=self.n_steps - 1)}

    @property
    def model(self) -> gpfa.GPFA:
        """The parameters."""
        return gpfa.GPFA(self.loadings, self.mean, self.private, self.timescales)

    @staticmethod
    def activity(counts: Tensor) -> Tensor:
        """Square roots of the counts, whose noise has about the same variance at all rates."""
        return counts.sqrt()


def _weighted(weights: Tensor, number: Tensor, past: Tensor) -> Tensor:
    """(B, D) of a row of weights (T, D, T, D) and of (B, T, D)."""
    return past.flatten(1) @ weights.index_select(0, number[None])[0].flatten(1).T


class TracesGPFANet(GPFANet):
    """The same for calcium traces, which are modelled as Gaussian bin by bin and read out linearly.

    Sequences that are longer than those of the training are described window by window.

    Args:
        spec: the description of the data.
        n_latents: D.
        stride: 1, as traces are not summed.
        fit: as of :class:`GPFANet`, in bins.
    """

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, **fit: Any) -> None:
        super().__init__(spec, n_latents, stride, **fit)
        self.n_bins = spec.n_bins

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
        settings: see :class:`RegressedLatents`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")

    def build(self, n_latents: int) -> GPFANet:
        """The network with so many latents."""
        network, stride = (GPFANet, self.stride) if self.spec.kind == "spikes" else (TracesGPFANet, 1)
        if self.causal and network is TracesGPFANet:
            raise ConfigError("model.causal=true: GPFA looks back only in spikes; leave it out of traces")
        timescale = max(1.0, self.timescale_ms / (self.spec.bin_ms * stride))
        fit = {"timescale": timescale, "iterations": self.iterations}
        return network(self.spec, n_latents, stride, causal=self.causal, **fit)

    @property
    def size(self) -> int:
        """How many numbers are fitted: those that a checkpoint holds."""
        return sum(value.numel() for value in self.net.state_dict().values() if value.is_floating_point())

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Traces' forward bins are not predicted, spikes' are."""
        if spec.kind == "traces" and spec.n_forward:
            return f"it predicts none of the {spec.n_forward} forward bins of traces"
        return super().refuse(spec)
