"""Cheap models of IBL BrainWideBench: rates of missing neurons from the others, and of the next bins from the last.

They are fitted in closed form and stand beside the networks. Rates are floored at a hundredth of each neuron's mean, as
least squares knows no sign.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.functional.conditional_rates import (
    Moments,
    coupling_weights,
    moments,
    past_means,
    reduced_rank_weights,
    ridge_forecast,
)
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.fitted import FittedModule

FLOOR = 1e-2
SMALLEST = 1e-4  # spikes per bin


class ConditionalNet(nn.Module):
    """Each neuron that is missing from the others, those that are there by their smoothed counts.

    Args:
        spec: the description of the data.
        sd_bins: of the Gaussian that smooths counts, in bins.
        rank: of the regression; 0 reads from the summed activity alone.
        ridge: see :mod:`neuro_lightning.functional.conditional_rates`.
    """

    not_by_bins = "its smoothing looks ahead"
    mean: Tensor
    rates: Tensor
    covariance: Tensor
    features: Tensor

    def __init__(self, spec: DataSpec, *, sd_bins: float, rank: int, ridge: float) -> None:
        super().__init__()
        self.sd_bins, self.rank, self.ridge = sd_bins, rank, ridge
        n = spec.n_in
        for name, shape in (("mean", (n,)), ("rates", (n,)), ("covariance", (n, n)), ("features", (n, n))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        """(B, T, N) counts, and which were recorded -> log-rates (B, T, N)."""
        smooth = gaussian_smooth(inputs.float(), self.sd_bins).double()
        rates = smooth.clone()
        there = torch.ones_like(inputs, dtype=torch.bool) if observed is None else observed.bool()
        for pattern in there.any(1).unique(dim=0):  # neurons that are missing together
            trials = (there.any(1) == pattern).all(1)
            if bool(pattern.all()) or not bool(pattern.any()):
                continue
            found = Moments(self.mean, self.covariance, self.features)
            weights = (
                reduced_rank_weights(found, pattern, self.rank, self.ridge)
                if self.rank
                else coupling_weights(found, pattern, self.ridge)
            )
            part = (smooth[trials][..., pattern] - self.mean[pattern]) @ weights + self.rates[~pattern]
            own = rates[trials]
            own[..., ~pattern] = part
            rates[trials] = own
        return {"log_rates": rates.maximum(FLOOR * self.rates).clamp_min(SMALLEST).log().float()}


class Conditional(FittedModule):
    """Reduced-rank regression of missing neurons on the smoothed counts of the others.

    Args:
        spec: the description of the data.
        kernel_sd_ms: standard deviation of the smoothing Gaussian.
        rank: of the regression.
        ridge: share of the variance that is added to it.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes",)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """It predicts neurons that are missing from some inputs: neither such that are never seen nor bins ahead."""
        if spec.n_out or spec.n_forward:
            return "it predicts neurons that are missing from some inputs, as data=bwb has them"
        return None

    def __init__(self, spec: DataSpec, *, kernel_sd_ms: float = 60.0, rank: int = 8, ridge: float = 0.1) -> None:
        super().__init__(ConditionalNet(spec, sd_bins=kernel_sd_ms / spec.bin_ms, rank=rank, ridge=ridge), spec)

    @torch.no_grad()
    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Means and covariances of all neurons in the training trials."""
        batch: Batch = train[list(range(len(train)))]
        counts = batch["inputs"].float()
        smooth = gaussian_smooth(counts, self.net.sd_bins)
        found = moments(smooth.flatten(0, 1), counts.flatten(0, 1))
        for name, value in found._asdict().items():
            getattr(self.net, name).copy_(value)
        self.net.rates.copy_(counts.double().mean((0, 1)))


class ForecastNet(nn.Module):
    """The bins ahead from the means of the last bins.

    Args:
        spec: the description of the data, with forward bins.
        widths: of the last bins whose means are features, in bins.
        others: whether all neurons are features of each; else its own alone.
    """

    not_by_bins = "all that it says is about forward bins, which a stream does not predict"

    def __init__(self, spec: DataSpec, *, widths: tuple[int, ...], others: bool) -> None:
        super().__init__()
        self.n_neurons, self.n_forward, self.widths, self.others = spec.n_in, spec.n_forward, widths, others
        n, w = spec.n_in, len(widths)
        shape = (1, n * w, n) if others else (n, w, 1)
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape[:2], dtype=torch.float64))
        self.register_buffer("rates", torch.zeros(n, dtype=torch.float64))

    def parts(self, inputs: Tensor) -> Tensor:
        """(G, B, P) features of each group of neurons that are regressed together."""
        means = past_means(inputs.double(), self.widths)  # B, N, W
        return means.flatten(1)[None] if self.others else means.transpose(0, 1)

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        """(B, T, N) counts -> log-rates (B, L, N); those of observed bins are the mean rates."""
        ahead = (self.parts(inputs) - self.mean[:, None]) @ self.weight  # G, B, Q
        ahead = (ahead[0] if self.others else ahead[..., 0].T) + self.rates
        rates = self.rates.expand(*inputs.shape[:2], -1)
        both = torch.cat([rates, ahead[:, None].expand(-1, self.n_forward, -1)], dim=1)
        return {"log_rates": both.maximum(FLOOR * self.rates).clamp_min(SMALLEST).log().float()}


class Forecast(FittedModule):
    """Ridge regression of the mean of the bins ahead on means of the last bins.

    With ``others`` all neurons' last bins are features, an autoregression of the population. Without, each neuron's
    own: its trailing mean, drawn towards its mean rate as far as the training trials say.

    Args:
        spec: the description of the data.
        widths_ms: of the last bins whose means are features.
        others: see above.
        ridge: share of the features' variance that is added to it.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes",)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """It predicts bins ahead of the neurons that it sees."""
        if spec.n_out or not spec.n_forward:
            return "it predicts forward bins of neurons that it sees, as data=bwb data.task=forecasting has them"
        return None

    def __init__(
        self, spec: DataSpec, *, widths_ms: tuple[float, ...] = (100, 300, 900), others: bool = True, ridge: float = 1.0
    ) -> None:
        widths = tuple(max(1, min(spec.n_bins, round(width / spec.bin_ms))) for width in widths_ms)
        super().__init__(ForecastNet(spec, widths=widths, others=others), spec)
        self.ridge = ridge

    @torch.no_grad()
    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """One regression for all neurons, or one for each."""
        batch: Batch = train[list(range(len(train)))]
        n_bins = batch["inputs"].shape[1]
        ahead = batch["targets"][:, n_bins:].double().mean(1)  # B, N
        self.net.rates.copy_(ahead.mean(0))
        for k, features in enumerate(self.net.parts(batch["inputs"].float())):
            wanted = ahead if self.net.others else ahead[:, k : k + 1]
            weight, mean, _ = ridge_forecast(features, wanted, self.ridge)
            self.net.weight[k], self.net.mean[k] = weight, mean
