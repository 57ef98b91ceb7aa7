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
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.likelihood import gamma_nll, log_rate_nll, normal_nll, zero_inflated_gamma_nll
from neuro_lightning.functional.masked import by_bits, masked_log_rate_nll, zero_outside

Loss = Callable[[Output, Tensor, Tensor, DataSpec], tuple[Tensor, Tensor]]
EPS = 1e-6  # added to rates before the logarithm, as NDN3 does: a network may predict zero


def loss_in_response_units(
    loss: Loss, output: Output, targets: Tensor, mask: Tensor, spec: DataSpec
) -> tuple[Tensor, Tensor]:
    """A loss of ``rates`` and targets that are divided by each neuron's ``response_unit``, where there is one.

    Args:
        loss: see above.
        output: in the unit of the targets.
        targets: see ``loss``.
        mask: likewise.
        spec: the description of the data.
    """
    if not spec.response_unit:
        return loss(output, targets, mask, spec)
    unit = _scales(spec.response_unit, output["rates"].dtype, output["rates"].device)
    scaled: Output = {**output, "rates": output["rates"] / unit}
    return loss(scaled, targets / unit, mask, spec.in_response_units())


def poisson(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Poisson negative log-likelihood (without ``ln(target!)``), mean over observed entries.

    Args:
        output: of the network; with ``rates`` they must not be negative.
        targets: counts or non-negative responses of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``, True where a value was observed and counts.
        spec: the description of the data; not used.

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
        spec: the description of the data; not used.

    Returns:
        The sum over the mask, and the number of entries in it.
    """
    values, targets = _expected(output, mask), _mask_out(targets, mask)
    return (values - targets).square().sum(), _entries(mask, values)


def gaussian(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Squared error summed over neurons, mean over samples: NDN3's Gaussian loss.

    Its value is of the order of the number of neurons, as that of :func:`poisson_normalised`.

    Args:
        output: of the network.
        targets: of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: the description of the data; not used.

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


def gamma(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Gamma negative log-likelihood of positive traces, mean over observed entries; a target of zero counts as EPS.

    Args:
        output: with ``log_rates``, the log of the expected value, and ``log_shape``.
        targets: not negative, of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: the description of the data; not used.

    Returns:
        The sum over the mask in nats, and the number of entries in it.

    Raises:
        ConfigError: the network gives no ``log_shape``.
    """
    values = _mask_out(targets, mask).clamp_min(EPS)
    nll = gamma_nll(values, *(_mask_out(part, mask) for part in _parts(output, gamma)))
    return _total(nll, mask)


def zero_inflated_gamma(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """:func:`gamma` of traces with many exact zeros, which have a probability of their own.

    Args:
        output: with ``log_rates``, the log of the expected value of all targets, ``log_shape`` and ``gate_logit``.
        targets: not negative, of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: the description of the data; not used.

    Returns:
        The sum over the mask in nats, and the number of entries in it.

    Raises:
        ConfigError: the network does not give all of them.
    """
    parts = (_mask_out(part, mask) for part in _parts(output, zero_inflated_gamma))
    return _total(zero_inflated_gamma_nll(_mask_out(targets, mask), *parts), mask)


def gaussian_variance(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Gaussian negative log-likelihood with a variance that is predicted too, mean over observed entries.

    Args:
        output: with ``rates`` or ``log_rates`` of the expected value, and ``log_variance``.
        targets: of any dtype, anything where ``mask`` is False.
        mask: bool like ``targets``.
        spec: the description of the data; not used.

    Returns:
        The sum over the mask in nats, and the number of entries in it.

    Raises:
        ConfigError: the network gives no ``log_variance``.
    """
    (log_variance,) = (_mask_out(part, mask) for part in _parts(output, gaussian_variance))
    return _total(normal_nll(_mask_out(targets, mask), _expected(output, mask), log_variance), mask)


def none(output: Output, targets: Tensor, mask: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Nothing of the targets: heads alone are trained, to decode behavior. The readout of rates stays where it begins.

    Args:
        output: as in :func:`mse`.
        targets: not used.
        mask: likewise.
        spec: likewise.

    Returns:
        Zero without a gradient, and the number of entries in the mask.
    """
    found = output["rates"] if "rates" in output else output["log_rates"]
    return found.new_zeros(()), _entries(mask, found)


def readout_names(loss: Loss | None, spec: DataSpec) -> tuple[str, ...]:
    """What a network should give of each entry for a loss, the expected value first: ``log_rates`` or ``rates``.

    Expected values of spikes are above zero, and so are those that a likelihood of non-negative values is asked of.

    Args:
        loss: may be a partial of one; None is the default.
        spec: of the data.

    Raises:
        ConfigError: the loss has no meaning for these data.
    """
    check_loss(loss, spec)
    link = "log_rates" if spec.kind == "spikes" or needs_positive(loss, spec) else "rates"
    return (link, *PARAMETERS.get(getattr(loss, "func", loss), ()))


def check_loss(loss: Loss | None, spec: DataSpec) -> None:
    """Refuse likelihoods of non-negative values for others, and those of positive traces for anything else.

    Raises:
        ConfigError: the targets are counts, or some are below zero.
    """
    function = getattr(loss, "func", loss)
    counts = spec.kind == "spikes" and function in POSITIVE
    if counts or (needs_positive(loss, spec) and not spec.nonnegative):
        what = spec.kind if counts else "z-scored or otherwise negative"
        data = "responses" if spec.kind == "images" else "traces"
        raise ConfigError(
            f"loss={function.__name__} is for {data} without negative values, and those of {spec.dataset} are {what}: "
            "leave it out, or choose another " + ("loss" if counts else "data.normalisation")
        )


def needs_positive(loss: Loss | None, spec: DataSpec) -> bool:
    """Whether a loss has no meaning for rates below zero; ``loss`` may be a partial of one."""
    function = getattr(loss, "func", loss)
    return function in (poisson, poisson_normalised, *POSITIVE) or (
        function in (auto, auto_normalised) and spec.nonnegative
    )


def default_loss(spec: DataSpec) -> Loss:
    """Poisson for spikes, squared error for everything else."""
    return poisson if spec.kind == "spikes" else mse


POSITIVE = (gamma, zero_inflated_gamma)
PARAMETERS: dict[Loss, tuple[str, ...]] = {
    gamma: ("log_shape",),
    zero_inflated_gamma: ("log_shape", "gate_logit"),
    gaussian_variance: ("log_variance",),
}
"""What losses of several parameters an entry read of an output besides the expected value."""


def _parts(output: Output, loss: Loss) -> list[Tensor]:
    """What a likelihood of several parameters reads of an output; those of positive traces by the log of the mean."""
    names = (*(("log_rates",) if loss in POSITIVE else ()), *PARAMETERS[loss])
    if missing := [name for name in names if name not in output]:
        raise ConfigError(
            f"loss={loss.__name__} needs {missing[0]} of the network; of our models those of sequences give it"
        )
    return [output[name] for name in names]


@functools.lru_cache(maxsize=16)
def _scales(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made in a validation, it must still serve in training
        return torch.tensor(values, dtype=dtype, device=device).clamp_min(1e-8)


def _poisson_terms(output: Output, targets: Tensor, mask: Tensor) -> Tensor:
    """The negative log-likelihood of each entry, 0 outside the mask."""
    if "rates" in output:
        rates, counts = _mask_out(output["rates"], mask), _mask_out(targets, mask)
        nll = rates - counts * (rates + EPS).log()
        return nll if is_full(mask) else zero_outside(nll, mask)
    log_rates = _in_full(output["log_rates"])
    if not is_full(mask) and by_bits(log_rates, mask):
        return masked_log_rate_nll(log_rates, targets.to(log_rates.dtype), mask)
    nll = log_rate_nll(_mask_out(log_rates, mask), _mask_out(targets, mask))
    return nll if is_full(mask) else zero_outside(nll, mask)


def _total(nll: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the mask and its number of entries."""
    return (nll if is_full(mask) else zero_outside(nll, mask)).sum(), _entries(mask, nll)


def _entries(mask: Tensor, like: Tensor) -> Tensor:
    return like.new_full((), mask.numel()) if is_full(mask) else mask.sum().to(like.dtype)


def _samples(mask: Tensor, like: Tensor) -> Tensor:
    return like.new_full((), len(mask)) if is_full(mask) else mask.flatten(1).any(1).sum().to(like.dtype)


def _expected(output: Output, mask: Tensor) -> Tensor:
    """The expected values with zeros outside the mask."""
    values = output["rates"] if "rates" in output else _mask_out(output["log_rates"], mask).exp()
    return _mask_out(values, mask)


def _mask_out(values: Tensor, mask: Tensor) -> Tensor:
    """The values with zeros outside the mask, float32 at least.

    They are masked before any function of them is taken: a NaN that is masked after it still reaches the gradient as
    0 * NaN.
    """
    values = _in_full(values)
    return values if is_full(mask) else zero_outside(values, mask)


def _in_full(values: Tensor) -> Tensor:
    """The values in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
