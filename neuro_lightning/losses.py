"""Losses of predictions against targets of which some were not observed.

Each is ``loss(output, targets, mask, spec) -> (sum, count)``, two scalars in float32 at least. They are apart so that
the sum may be divided by the count over *all* processes: the mean is that of the whole batch however it was shared out.
Neither value nor gradient sees what lies outside the mask, NaN included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec, Output, is_full
from neuro_lightning.functional.likelihood import log_rate_nll

Loss = Callable[[Output, Tensor, Tensor, DataSpec], tuple[Tensor, Tensor]]
EPS = 1e-6  # added to rates before the logarithm, as NDN3 does: a network may predict zero


def poisson(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Poisson negative log-likelihood (without ``ln(target!)``), mean over observed entries.

    Args:
        output: of the network; with ``rates`` they must not be negative.
        targets: counts or non-negative responses of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``, True where a value was observed and counts.
        spec: what to know of the data; not used.

    Returns:
        The sum over the mask in nats, and the number of entries in it.
    """
    nll = _poisson_terms(output, targets, mask)
    return nll.sum(), _entries(mask, nll)


def poisson_normalised(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Each neuron's Poisson loss divided by its mean rate, summed over neurons, mean over samples.

    Source: NDN3 (repository NeuroTheoryUMD/NDN3): without it the few active neurons decide what is learnt. The value
    is of the order of the number of neurons, which is what the strengths of published regularizers relate to.

    Args:
        output: as in :func:`poisson`.
        targets: likewise.
        mask: likewise.
        spec: with the neurons' ``mean_rates`` over the training split.

    Returns:
        The sum over the mask, and the number of samples (trials or images) with anything observed.
    """
    nll = _poisson_terms(output, targets, mask)
    return (nll / _scales(spec.mean_rates, nll.dtype, nll.device)).sum(), _samples(mask, nll)


def mse(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Squared error, mean over observed entries.

    Args:
        output: of the network.
        targets: of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: what to know of the data; not used.

    Returns:
        The sum over the mask, and the number of entries in it.
    """
    values = output["rates"] if "rates" in output else _observed(output["log_rates"], mask).exp()
    values, targets = _observed(values, mask), _observed(targets, mask)
    return (values - targets).square().sum(), _entries(mask, values)


def gaussian(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Squared error summed over neurons, mean over samples: NDN3's Gaussian loss.

    Its value is of the order of the number of neurons, as that of :func:`poisson_normalised`.

    Args:
        output: of the network.
        targets: of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: what to know of the data; not used.

    Returns:
        The sum over the mask, and the number of samples (trials or images) with anything observed.
    """
    total, _ = mse(output, targets, mask, spec)
    return total, _samples(mask, total)


def auto(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """:func:`poisson`, or :func:`mse` where targets may be negative, as z-scored responses are."""
    return (poisson if spec.nonnegative else mse)(output, targets, mask, spec)


def auto_normalised(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """:func:`poisson_normalised`, or :func:`gaussian` where targets may be negative."""
    return (poisson_normalised if spec.nonnegative else gaussian)(output, targets, mask, spec)


def needs_positive(loss: Loss | None, spec: DataSpec) -> bool:
    """Whether a loss has no meaning for rates below zero; ``loss`` may be a partial of one."""
    function = getattr(loss, "func", loss)
    return function in (poisson, poisson_normalised) or (function in (auto, auto_normalised) and spec.nonnegative)


def default_loss(spec: DataSpec) -> Loss:
    """Poisson for spikes, squared error for everything else."""
    return poisson if spec.kind == "spikes" else mse


@functools.lru_cache(maxsize=16)
def _scales(mean_rates: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made in a validation, it must still serve in training
        return torch.tensor(mean_rates, dtype=dtype, device=device).clamp_min(1e-8)


def _poisson_terms(output: Output, targets: Tensor, mask: Tensor) -> Tensor:
    """The negative log-likelihood of each entry, 0 outside the mask."""
    counts = _observed(targets, mask)
    if "rates" in output:
        rates = _observed(output["rates"], mask)
        nll = rates - counts * (rates + EPS).log()
    else:
        nll = log_rate_nll(_observed(output["log_rates"], mask), counts)
    return nll if is_full(mask) else torch.where(mask, nll, 0.0)


def _entries(mask: Tensor, like: Tensor) -> Tensor:
    return like.new_full((), mask.numel()) if is_full(mask) else mask.sum().to(like.dtype)


def _samples(mask: Tensor, like: Tensor) -> Tensor:
    return like.new_full((), len(mask)) if is_full(mask) else mask.flatten(1).any(1).sum().to(like.dtype)


def _observed(values: Tensor, mask: Tensor) -> Tensor:
    """The values with zeros outside the mask, float32 at least.

    They are masked before any function of them is taken: a NaN that is masked after it still reaches the gradient as
    0 * NaN.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values if is_full(mask) else torch.where(mask, values, 0.0)
