"""Factor analysis of smoothed spikes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec
from neuro_lightning.functional.factors import factor_analysis
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.regressed_latents import RegressedLatentsNet


class SpikeFactorsNet(RegressedLatentsNet):
    """Square roots of counts, smoothed, then factors of every step by itself; forward bins see the last step's.

    The two-stage method that GPFA was compared with (Yu et al. 2009, J Neurophysiol 102:614-635).

    Args:
        spec: the description of the data.
        n_latents: D, at most N_in.
        stride: bins in a step.
        fit: ``max_iterations`` of the maximum-likelihood fit.
    """

    not_by_bins = "its smoothing looks ahead"

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, **fit: float) -> None:
        super().__init__(spec, n_latents, stride, **fit)
        self.register(
            kernel_sd=torch.tensor(3.0),  # steps
            mean=torch.zeros(spec.n_in),
            encoder=torch.zeros(spec.n_in, n_latents),
        )

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts in steps (B, S, N_in) -> latents (B, S + ahead, D)."""
        latents = (gaussian_smooth(counts.sqrt(), self.kernel_sd) - self.mean) @ self.encoder
        return torch.cat([latents, latents[:, -1:].expand(-1, ahead, -1)], dim=1)

    def learn(self, counts: Tensor) -> None:
        """Fit the factors to counts in steps (B, S, N_in), smoothed by the present kernel."""
        smooth = gaussian_smooth(counts.sqrt(), self.kernel_sd).flatten(0, 1)
        found, _ = factor_analysis(smooth, self.encoder.shape[1], **self.fit_options)
        self.mean, self.encoder = found.mean, found.encoder

    @torch.no_grad()
    def fit(self, batch: Batch, kernel_sd: Sequence[float], alpha: Sequence[float]) -> None:
        """Fit all to the training trials, with the kernel and the penalty that predict their last fifth best.

        Args:
            batch: the training trials.
            kernel_sd: standard deviations to choose from, in steps.
            alpha: ridge penalties to choose from.
        """
        counts = self.in_steps(batch["inputs"])
        tried = []
        for sd in kernel_sd if len(kernel_sd) > 1 else ():
            self.kernel_sd.fill_(sd)
            self.learn(counts)
            tried.append((self.choose(batch, alpha)[0], sd))
        self.kernel_sd.fill_(max(tried)[1] if tried else kernel_sd[0])
        self.learn(counts)
        self.regress(batch, self.choose(batch, alpha)[1])
