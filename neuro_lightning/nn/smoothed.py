"""Smoothed counts as further inputs, so that a network need not learn first that rates change slowly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.smoothing import gaussian_weights, smooth_observed


def kernels_in_steps(smoothed_ms: Sequence[float], step_ms: float) -> tuple[float, ...]:
    """Standard deviations of kernels in steps.

    Args:
        smoothed_ms: the same in ms.
        step_ms: width of a step.

    Raises:
        ConfigError: one is not above 0.
    """
    if not all(sd > 0 for sd in smoothed_ms):
        raise ConfigError(f"model.readin.smoothed_ms={list(smoothed_ms)}: kernels have a standard deviation above 0 ms")
    return tuple(sd / step_ms for sd in smoothed_ms)


def smoothed_copies(steps: Tensor, observed: int, kernels: Sequence[float], *, causal: bool) -> list[Tensor]:
    """Copies of steps (B, S, N), each smoothed by a Gaussian.

    Args:
        steps: (B, S, N).
        observed: how many of the steps hold something, the first ones; the copies use them alone.
        kernels: standard deviations in steps.
        causal: kernels look back only.

    Returns:
        One (B, S, N) for each kernel.
    """
    total, seen = steps.shape[1], steps[:, :observed]
    return [gaussian_weights(total, observed, sd, causal=causal).to(steps) @ seen for sd in kernels]


def smoothed_shares(
    steps: Tensor, share: Tensor, observed: int, kernels: Sequence[float], fill: Tensor, *, causal: bool
) -> list[Tensor]:
    """Copies of steps of which some were not observed, each smoothed by a Gaussian over those that were.

    Args:
        steps: (B, S, N).
        share: (B, S, N) observed share of each step, 0 to 1.
        observed: see :func:`smoothed_copies`.
        kernels: likewise.
        fill: (N,) the value where a kernel sees nothing.
        causal: kernels look back only.

    Returns:
        One (B, S, N) for each kernel.
    """
    total, seen, share = steps.shape[1], steps[:, :observed], share[:, :observed]
    weights = [gaussian_weights(total, observed, sd, causal=causal).to(steps) for sd in kernels]
    return [smooth_observed(one, seen, share, fill) for one in weights]
