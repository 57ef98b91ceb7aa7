"""Losses of predictions against targets of which some were not observed.

Each is ``loss(output, targets, mask, spec) -> (sum, count)``, two scalars in float32 at least. They are apart so that
the sum may be divided by the count over *all* processes: the mean is that of the whole batch however it was shared out.
Neither value nor gradient sees what lies outside the mask, NaN included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec, Output
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
    nll, mask = _poisson_terms(output, targets, mask)
    return nll.sum(), mask.sum().to(nll.dtype)


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
    nll, mask = _poisson_terms(output, targets, mask)
    mean = torch.tensor(spec.mean_rates, dtype=nll.dtype, device=nll.device).clamp_min(1e-8)
    return (nll / mean).sum(), mask.flatten(1).any(1).sum().to(nll.dtype)


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
    values = output["rates"] if "rates" in output else torch.where(mask, output["log_rates"], 0.0).exp()
    values, targets = _observed(values, mask), _observed(targets, mask)
    return (values - targets).square().sum(), mask.sum().to(values.dtype)


def default_loss(spec: DataSpec) -> Loss:
    """Poisson for spikes, squared error for everything else."""
    return poisson if spec.kind == "spikes" else mse


def _poisson_terms(output: Output, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood of each entry, 0 outside the mask; and the mask."""
    counts = _observed(targets, mask)
    if "rates" in output:
        rates = _observed(output["rates"], mask)
        nll = rates - counts * (rates + EPS).log()
    else:
        nll = log_rate_nll(_observed(output["log_rates"], mask), counts)
    return torch.where(mask, nll, 0.0), mask


def _observed(values: Tensor, mask: Tensor) -> Tensor:
    """The values with zeros outside the mask, float32 at least.

    They are masked before any function of them is taken: a NaN that is masked after it still reaches the gradient as
    0 * NaN.
    """
    return torch.where(mask, values.to(torch.promote_types(values.dtype, torch.float32)), 0.0)
