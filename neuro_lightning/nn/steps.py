"""Coarser time inside a network than in the data: steps of several bins.

Rates change slowly. A network with a step for every 20 ms has a quarter of the steps of one with a step for every
5 ms bin: counts are summed over a step's bins, and what is read out of the steps is interpolated between their centers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError


@dataclass(frozen=True)
class Steps:
    """How the steps of a network lie in the bins of a trial.

    Attributes:
        stride: bins in a step.
        ms: width of a step.
        n_bins: observed bins T.
        n_forward: forward bins F.
        causal: a bin is read from steps that ended at it or before.
        lag: of a causal network, bins after which a bin is read: it has then seen as many later ones.
    """

    stride: int
    ms: float
    n_bins: int
    n_forward: int
    causal: bool = False
    lag: int = 0

    @classmethod
    def of(cls, spec: DataSpec, step_ms: int | None, *, causal: bool = False, lag_ms: float = 0) -> Steps:
        """The steps of a network for these data.

        Args:
            spec: the description of the data.
            step_ms: width of a step; None is one bin.
            causal: see the class.
            lag_ms: likewise, rounded up to bins.

        Raises:
            ConfigError: a step is not a whole number of bins; or a lag that is negative, as long as a trial, or of a
                network that is not causal.
        """
        stride = bins_in_step(step_ms, spec.bin_ms)
        lag = math.ceil(lag_ms / spec.bin_ms) if lag_ms else 0
        if lag_ms and not causal:
            raise ConfigError(f"model.fixed_lag_ms={lag_ms}: this network sees the whole trial already; set it to 0")
        if not 0 <= lag < max(1, spec.n_bins):
            raise ConfigError(f"model.fixed_lag_ms={lag_ms} must be 0 at least, and shorter than a trial")
        return cls(stride, stride * spec.bin_ms, spec.n_bins, spec.n_forward, causal, lag)

    @property
    def count(self) -> int:
        """Steps of a whole trial."""
        return self.cover(self.n_bins + self.n_forward)

    def cover(self, n_bins: int) -> int:
        """The number of steps that cover so many bins."""
        return -(-n_bins // self.stride)

    def interpolate(self, values: Tensor, n_total: int) -> Tensor:
        """Values of steps (B, S, N) in the first L bins, (B, L, N)."""
        if self.lag:
            return self._interpolate_later(values, n_total)
        return to_bins(values, n_total, self.stride, causal=self.causal)[:, :n_total]

    def _interpolate_later(self, values: Tensor, n_total: int) -> Tensor:
        """The same with a lag; the last bins are read from the last step that is whole."""
        bins = torch.arange(self.lag, self.lag + n_total, device=values.device).clamp_max(n_total - 1)
        ended = (bins + 1) // self.stride - 1
        return torch.where((ended >= 0)[:, None], values.index_select(1, ended.clamp_min(0)), 0.0)


def bins_in_step(step_ms: int | None, bin_ms: int) -> int:
    """Bins in a step; a step is never shorter than a bin.

    Args:
        step_ms: width of a step; None is one bin.
        bin_ms: width of a bin.

    Raises:
        ConfigError: a step is not a whole number of bins.
    """
    if step_ms is None or step_ms <= bin_ms:
        return 1
    if step_ms % bin_ms:
        raise ConfigError(f"model.step_ms={step_ms} is not a multiple of the bin width, {bin_ms} ms; null is one bin")
    return step_ms // bin_ms


def to_steps(inputs: Tensor, n_total: int, stride: int) -> Tensor:
    """Inputs summed over the bins of each step, zeros after the observed bins.

    Args:
        inputs: (B, T, N).
        n_total: bins L to cover, T or more.
        stride: bins in a step.

    Returns:
        (B, ceil(L / stride), N).
    """
    steps = -(-n_total // stride)
    padded = F.pad(inputs, (0, 0, 0, steps * stride - inputs.shape[1]))
    return padded.unflatten(1, (steps, stride)).sum(2) if stride > 1 else padded


def to_bins(values: Tensor, n_total: int, stride: int, *, causal: bool = False) -> Tensor:
    """Values of steps (B, S, N) interpolated to bins (B, L, N); see :func:`step_weights`."""
    if stride == 1:
        return values
    return step_weights(n_total, values.shape[1], stride, causal).to(values) @ values


def step_weights(n_bins: int, steps: int, stride: int, causal: bool) -> Tensor:
    """The weight of each step in each bin.

    Args:
        n_bins: bins L.
        steps: steps, each of ``stride`` bins.
        stride: bins in a step.
        causal: a bin takes the last step that ended at it or before; else it lies between the two nearest centers.

    Returns:
        (L, steps). Rows sum to one, but for the first bins of a causal network, which no step precedes.
    """
    bins = torch.arange(n_bins)
    weights = torch.zeros(n_bins, steps)
    if causal:
        ended = (bins + 1) // stride - 1
        weights[bins[ended >= 0], ended[ended >= 0]] = 1.0
        return weights
    place = ((bins + 0.5) / stride - 0.5).clamp(0, steps - 1)
    left = place.long().clamp(max=max(0, steps - 2))
    weights[bins, left] = 1 - (place - left)
    weights[bins, (left + 1).clamp(max=steps - 1)] += place - left
    return weights
