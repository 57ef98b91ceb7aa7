"""Where the read-in and the readout of a session begin: by what it has in common with other sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, call_network, evaluation_mode
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.psth import condition_sums
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.functional.stitching import common_factors, regress, regress_log_rates
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.rate_readout import FLOOR
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.steps import to_steps

SMOOTHING_MS = 50.0  # standard deviation of the kernel that mean responses are smoothed with
READ_IN_RIDGE, READOUT_RIDGE = 0.1, 100.0  # see functional/stitching.py; tried on two of data=lorenz_sessions
ALL_TRIALS = "all trials"  # the one condition of windows that are aligned to the same event

Condition = Any  # a hashable value by which sessions know the same condition


class Session(NamedTuple):
    """A session's network and its data."""

    net: nn.Module
    module: PopulationDataModule

    @property
    def recording(self) -> Recording:
        """What its data module serves."""
        return self.module.recording


def start_in_common_space(model: PopulationModule, data: PopulationDataModule) -> None:
    """Let the read-ins of several sessions begin with the common factors of their conditions.

    Principal-component regression, as published for LFADS. Channels beyond the factors keep their random weights.
    The maps are scaled, all by one number, to be as large together as the random ones were.

    Args:
        model: new.
        data: of the model.

    Raises:
        ConfigError: the sessions share no conditions, or have no linear read-in.
    """
    sessions = [Session(*pair) for pair in zip(model.networks, data.by_session().values(), strict=True)]
    numbers = [_conditions(session.recording) for session in sessions]
    shared = sorted(set.intersection(*map(set, numbers)), key=repr)
    refusal = next(filter(None, map(_no_linear_map, sessions)), None)
    if len(sessions) < 2:
        refusal = "one session has no other to begin alike with"
    elif refusal is None and len(shared) < 2:
        refusal = "the sessions share no two conditions of which each has training trials"
    elif refusal is None:
        refusal = next(filter(None, (_other_window(session, sessions[0]) for session in sessions)), None)
    if refusal is not None:
        raise ConfigError(f"model.readin.start=conditions: {refusal}; give model.readin.start=random")
    means = [_Means(session, of_session, shared) for session, of_session in zip(sessions, numbers, strict=True)]
    maps = [session.net.readin.linear for session in sessions]
    factors = common_factors([_in_steps(each) for each in means], sessions[0].net.readin.width)
    fits = [regress(each.channels, factors, each.channel_noise, READ_IN_RIDGE) for each in means]
    n_factors = factors.shape[2]
    random, fitted = (
        sum(weight.double().square().sum() for weight in weights)
        for weights in ((linear.weight[:n_factors] for linear in maps), (fit.weight for fit in fits))
    )
    scale = (random / fitted).sqrt()
    for linear, fit in zip(maps, fits, strict=True):
        _set(linear, slice(0, n_factors), Ridge(fit.weight * scale, fit.bias * scale))


def start_as_others(new: Session, others: Sequence[Session], *, average: bool, read_in: bool = True) -> str | None:
    """Let a new session begin with the read-in and the readout that come next to those of trained sessions.

    In the mean over the trials of a condition, its read-in gives what theirs give, and its readout makes its own
    neurons' rates of their latents. Nothing changes where the reason for it is returned.

    Args:
        new: the session.
        others: sessions of a trained model with the same core.
        average: take all trials for one condition, for windows that are aligned to the same event.
        read_in: False leaves the read-in as it is and sets the readout alone.

    Returns:
        Why it is not possible, or None.
    """
    reasons = [_no_linear_map(new), *(_no_linear_map(other) or _other_window(other, new) for other in others)]
    usable = [other for other, reason in zip(others, reasons[1:], strict=True) if reason is None]
    if reasons[0] is not None or not usable:
        return next(filter(None, reasons), "there is no other session")
    number = _all_trials if average else _conditions
    own = number(new.recording)
    theirs = [number(other.recording) for other in usable]
    shared = sorted(set(own) & set.union(*map(set, theirs)), key=repr)
    if len(shared) < (1 if average else 2):
        return "no two conditions of its training trials are among those of the trained sessions"
    mine = _Means(new, own, shared)
    known = [_Means(other, of_other, shared) for other, of_other in zip(usable, theirs, strict=True)]
    mapped = _mean_over(known, lambda each: each.mapped)
    if read_in:
        fit = regress(mine.channels, mapped, mine.channel_noise, READ_IN_RIDGE)
        _set(new.net.readin.linear, slice(None), fit)
    noise = torch.stack([each.latent_noise for each in known]).mean(0)
    _read_out(new, mine, _mean_over(known, lambda each: each.latents), noise)
    return None


def _read_out(session: Session, means: _Means, latents: Tensor, noise: Tensor) -> None:
    """Set the rates of a session's readout by the regression of mean rates on latents (C, T, D)."""
    readout, n_neurons = session.net.readout, means.rates.shape[2]
    if readout.names[0] == "log_rates":
        fit = regress_log_rates(latents, means.rates, noise, READOUT_RIDGE)
        fit = Ridge(fit.weight, fit.bias.clamp_min(torch.tensor(FLOOR).log().double()))
    else:
        fit = regress(latents, means.rates, noise, READOUT_RIDGE)
    _set(readout.linear, slice(0, n_neurons), fit)


@torch.no_grad()
def _set(linear: nn.Linear, rows: slice, fit: Ridge) -> None:
    linear.weight[rows] = fit.weight.T.to(linear.weight)
    linear.bias[rows] = fit.bias.to(linear.bias)


# ---- mean responses


class _Means:
    """Means over the training trials of each condition.

    Args:
        session: of the trials.
        numbers: the number of each condition in the session's arrays; None is all trials.
        conditions: (C,) the conditions wanted.

    Attributes:
        trials: (C,) trials of each, float64 as all others.
        channels: (C, S, P) what the read-in's map reads of each whole observed step.
        mapped: (C, S, D) what it makes of it.
        latents: (C, T, W) of the core.
        rates: (C, T, N) expected counts in observed bins, smoothed.
        channel_noise: (P, P) covariance of the channels of single trials around the means.
        latent_noise: (W, W) of the latents.
        stride: bins in a step.
    """

    def __init__(self, session: Session, numbers: dict[Condition, int | None], conditions: Sequence[Condition]) -> None:
        net, module = session
        dataset = module.dataset("train", evaluate=False)
        self.stride = net.steps.stride
        sums: dict[str, Tensor] = {}
        with evaluation_mode(net), torch.no_grad():
            for index in torch.arange(len(dataset)).split(module.eval_batch_size):
                batch = dataset[index.tolist()]
                place = _places(batch, numbers, conditions)
                values = _responses(net, batch)
                found: dict[str, Tensor] = {}
                for name, of_trials in values.items():
                    found[name], found["trials"] = condition_sums(of_trials, place, len(conditions))
                for name in ("channels", "latents"):
                    rows = values[name][place >= 0].flatten(0, 1).double()
                    found[f"{name} squared"] = rows.T @ rows
                sums = {name: value + sums.get(name, 0) for name, value in found.items()}
        self.trials = sums["trials"]
        each = self.trials.clamp_min(1)[:, None, None]
        self.channels, self.mapped, self.latents = (sums[name] / each for name in ("channels", "mapped", "latents"))
        self.channel_noise, self.latent_noise = (
            _noise(sums[f"{name} squared"], sums[name] / each, self.trials) for name in ("channels", "latents")
        )
        rates = sums["counts"] / sums["seen"].clamp_min(1)
        self.rates = gaussian_smooth(rates, SMOOTHING_MS / module.spec.bin_ms)


def _noise(squared: Tensor, means: Tensor, trials: Tensor) -> Tensor:
    """Covariance (P, P) of single trials around the mean of their condition.

    Where no condition has two trials, it is that around the mean of all.

    Args:
        squared: (P, P) sums of products over trials and steps.
        means: (C, S, P) of each condition.
        trials: (C,) of each.
    """
    freedom = (trials - 1).clamp_min(0).sum()
    if freedom == 0:
        middle = means[trials > 0].mean((0, 1), keepdim=True)
        means, freedom = middle.expand_as(means), trials.sum()
    explained = torch.einsum("c,csp,csq->pq", trials, means, means)
    return (squared - explained) / (freedom * means.shape[1])


def _responses(net: SequenceNet, batch: Batch) -> dict[str, Tensor]:
    """The trials' values (B, ., .) that means are made of, by name."""
    linear, n_bins = net.readin.linear, batch["inputs"].shape[1]
    inputs, observed = batch["inputs"].to(linear.weight.dtype), batch.get("observed")
    steps = net.readin.in_steps(inputs, n_bins + net.steps.n_forward, observed)
    channels = net.readin.channels(steps, n_bins, observed)[:, : n_bins // net.steps.stride]
    seen = batch["mask"][:, :n_bins]
    return {
        "channels": channels,
        "mapped": linear(channels),
        "latents": call_network(net, batch, inputs)["latents"][:, :n_bins],
        "counts": torch.where(seen, batch["targets"][:, :n_bins], 0),
        "seen": seen,
    }


def _in_steps(means: _Means) -> Tensor:
    """Mean counts (C, S, N) in whole observed steps."""
    n_steps = means.channels.shape[1]
    return to_steps(means.rates, means.rates.shape[1], means.stride)[:, :n_steps]


def _mean_over(means: Sequence[_Means], part: Callable[[_Means], Tensor]) -> Tensor:
    """The mean over sessions, of each condition over those that have trials of it."""
    weights = torch.stack([each.trials > 0 for each in means]).double()[..., None, None]
    return (weights * torch.stack([part(each) for each in means])).sum(0) / weights.sum(0)


def _places(batch: Batch, numbers: dict[Condition, int | None], conditions: Sequence[Condition]) -> Tensor:
    """(B,) each trial's place among the conditions, -1 for none."""
    if numbers == _all_trials(None):
        return torch.zeros(len(batch["index"]), dtype=torch.int64)
    place = torch.full((len(batch["index"]),), -1)
    for k, condition in enumerate(conditions):
        if condition in numbers:
            place[batch["condition"] == numbers[condition]] = k
    return place


# ---- what sessions share


def _conditions(recording: Recording) -> dict[Condition, int | None]:
    """The number of each condition that has training trials, by a value that other sessions share."""
    numbers = recording.splits["train"].condition
    if numbers is None:
        return {}
    present = sorted({int(number) for number in numbers if number >= 0})
    values = recording.info.get("condition_values")
    if values:
        return {
            tuple(value) if isinstance(value, list) else (value,): n for n, value in enumerate(values) if n in present
        }
    total = max(present, default=-1) + 1 if recording.psth is None else len(recording.psth)
    return {(f"one of {total}", number): number for number in present}


def _all_trials(recording: Recording | None) -> dict[Condition, int | None]:
    return {ALL_TRIALS: None}


def _no_linear_map(session: Session) -> str | None:
    """Why a network's read-in cannot be set; None if it can."""
    if isinstance(session.net, SequenceNet) and isinstance(session.net.readin.linear, nn.Linear):
        return None
    return f"{type(session.net).__name__} has no linear read-in (readin@model.readin=linear)"


def _other_window(session: Session, other: Session) -> str | None:
    """Why the bins of two sessions do not belong together; None if they do."""
    for what, one, two in (
        ("bins of a trial", session.module.spec.n_bins, other.module.spec.n_bins),
        ("bin width", session.module.spec.bin_ms, other.module.spec.bin_ms),
        ("window", session.recording.info.get("window"), other.recording.info.get("window")),
    ):
        if one != two:
            return f"the sessions differ in their {what}: {one} and {two}"
    return None
