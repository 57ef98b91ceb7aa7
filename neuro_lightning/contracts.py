"""The types that data, models and metrics exchange.

Axes, the same letters everywhere:

==========  ==============================================================
``B``       trials in a batch (or in a split)
``T``       observed bins
``F``       forward bins, predicted beyond the observed window
``L``       ``T + F``
``N_in``    held-in neurons, the model's input
``N_out``   held-out neurons, predicted from the held-in ones (co-smoothing)
``N``       ``N_in + N_out``, held-in first
``K``       behavior channels
``M``       groups of trials that are decoded apart (area2_bump has two, others one)
``C H W``   image channels, height, width; ``C`` also counts conditions in PSTHs
``R``       repeats of one stimulus
==========  ==============================================================

Data are of one of three kinds: ``spikes`` (counts in bins), ``traces`` (calcium activity in bins, real-valued) and
``images`` (one response of each neuron to each image). Images have no held-in neurons and no bins: all N neurons are
predicted from the stimulus, and targets, masks and predictions are (B, N) where sequences have (B, L, N).

Times are in ms (``bin_ms``), rates in **spikes per bin** (``rates``, ``log_rates``; for traces and images in the
unit of the targets); Hz appears only in names that end in ``_hz``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from neuro_lightning.errors import DataError


class Batch(TypedDict):
    """What a data module hands to a model, one dictionary of tensors.

    Attributes:
        inputs: (B, T, N_in) spike counts or activity, or (B, C, H, W) images.
        targets: (B, L, N) spike counts or activity, or (B, N) responses, the mean over the repeats of an image; where
            ``mask`` is False the number means nothing.
        mask: bool like ``targets``, True where the value was observed and counts.
        observed: bool like ``inputs``, True where the neuron was recorded; there if ``DataSpec.partial``.
        index: (B,) the trial's number in its split.
        behavior: (B, T, K) behavior at the bins' times, NaN where unknown.
        decode_fold: (B, T, M) int8, the cross-validation fold of each bin in decoding, -1 where it is not used.
        condition: (B,) the trial's condition, -1 for none.
        jitter: (B,) bins by which the trial's window was shifted (dmfc_rsg).
        rates: the true rates, like ``targets``, simulated data only.
        repeats: (B, R, N) the single responses to images shown several times, NaN where there was none.
        angle: (B,) the stimulus's direction in radians.
        pupil: (B, 2) where the pupil was while an image was shown, z-scored over the training images, 0 where unknown.
        labels: (B, J) float, what is known of each trial, a column for each of ``DataSpec.labels``, NaN where unknown;
            text as its ``codes``.
        session: the number of the recording that all trials of the batch are from, in ``DataSpec.sessions``; there
            where several recordings are served, a plain number.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    index: Tensor
    observed: NotRequired[Tensor]
    behavior: NotRequired[Tensor]
    decode_fold: NotRequired[Tensor]
    condition: NotRequired[Tensor]
    jitter: NotRequired[Tensor]
    rates: NotRequired[Tensor]
    repeats: NotRequired[Tensor]
    angle: NotRequired[Tensor]
    pupil: NotRequired[Tensor]
    labels: NotRequired[Tensor]
    session: NotRequired[int]


class Output(TypedDict):
    """What a network returns: ``log_rates`` or ``rates``, shaped like the targets.

    Attributes:
        log_rates: natural log of the expected value of the targets, from networks with a log link.
        rates: the expected value itself, from all others.
        latents: (B, L, D) the network's low-dimensional state.
        inferred_inputs: (B, L, U) the external inputs to the network's dynamics, as it infers them.
        initial_condition: (B, D) what the network's dynamics begin with.
        log_shape: like the targets, log of a Gamma distribution's shape, for losses that need it.
        gate_logit: like the targets, log-odds that a value is not zero, likewise.
        log_variance: like the targets, log of a Gaussian distribution's variance, likewise.
        losses: extra loss terms by name (a KL divergence, a regularizer), scalars; in training only.
        heads: what heads decode from the latents, by name: behavior (B, T, K) or a number of each trial (B,) in the
            physical unit, or the logits of each trial's class (B, classes); see :mod:`neuro_lightning.nn.heads`.
    """

    log_rates: NotRequired[Tensor]
    rates: NotRequired[Tensor]
    latents: NotRequired[Tensor]
    inferred_inputs: NotRequired[Tensor]
    initial_condition: NotRequired[Tensor]
    log_shape: NotRequired[Tensor]
    gate_logit: NotRequired[Tensor]
    log_variance: NotRequired[Tensor]
    losses: NotRequired[dict[str, Tensor]]
    heads: NotRequired[dict[str, Tensor]]


def rates_of(output: Output) -> Tensor:
    """The expected value of the targets, whichever link the network has.

    Example:
        >>> rates_of({"log_rates": torch.zeros(1, 2)})
        tensor([[1., 1.]])
    """
    return output["rates"] if "rates" in output else output["log_rates"].exp()


def full_mask(shape: Sequence[int]) -> Tensor:
    """A mask where everything was observed, a single expanded True, which :func:`is_full` recognises by its strides.

    Example:
        >>> is_full(full_mask((2, 3))), is_full(torch.ones(2, 3, dtype=torch.bool))
        (True, False)
    """
    return torch.ones((), dtype=torch.bool).expand(tuple(shape))


def is_full(mask: Tensor) -> bool:
    """Whether a mask was made by :func:`full_mask`; the entries of others are not looked at.

    Small networks train a tenth faster where nothing has to be masked.
    """
    return mask.ndim > 0 and not any(mask.stride())


def call_network(net: Any, batch: Batch, inputs: Tensor | None = None) -> Output:
    """The output of a network for a batch, by its inputs alone or by its inputs and each trial's condition.

    Of the networks of several sessions, ``net.sessions``, that of the batch is called. A network with the attribute
    ``by_condition = True`` is given the condition. That is for traces, whose condition is the imaging plane: planes
    have neurons of their own. One with ``by_pupil = True`` is given where the pupil was, as ``pupil``. Where some
    inputs were not recorded it is also given which were, as ``observed``.

    Args:
        net: inputs, or inputs and condition (B,) -> output.
        batch: with what it needs.
        inputs: in place of the batch's, on another device, say, or masked.
    """
    inputs = batch["inputs"] if inputs is None else inputs
    if "session" in batch:
        net = net.sessions[batch["session"]]
    recorded = {"observed": batch["observed"].to(inputs.device)} if "observed" in batch else {}
    given = (batch["condition"].to(inputs.device),) if getattr(net, "by_condition", False) else ()
    seen = {"pupil": batch["pupil"].to(inputs)} if "pupil" in batch and getattr(net, "by_pupil", False) else {}
    output = net(inputs, *given, **recorded, **seen)
    if getattr(net, "heads", None) is not None:
        output = {**output, "heads": net.heads(output["latents"], inputs.shape[1], **recorded)}
    return output


@contextmanager
def evaluation_mode(net: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part of the network is in the mode that it was in."""
    modes = {part: part.training for part in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@torch.no_grad()
def run_network(net: torch.nn.Module, batch: Batch, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The output of a trained network for a batch, computed in the precision of its weights, on the CPU.

    Half precisions become single precision, which arrays and metrics know; extra loss terms are left out.

    Args:
        net: on ``device``, in evaluation mode.
        batch: on the CPU.
        device: where the network is.
    """
    own = (value.dtype for value in (*net.parameters(), *net.buffers()) if value.is_floating_point())
    output = call_network(net, batch, batch["inputs"].to(device, next(own, torch.float32)))
    found: dict[str, Any] = {name: _readable(value) for name, value in output.items() if isinstance(value, Tensor)}
    if "heads" in output:
        found["heads"] = {name: _readable(value) for name, value in output["heads"].items()}
    return found


def _readable(value: Tensor) -> Tensor:
    """A tensor on the CPU, in single precision at least."""
    value = value.cpu()
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def split_readout(values: Tensor, names: Sequence[str]) -> Output:
    """A linear readout's values (..., N x names) by name, such as ``log_rates``, each (..., N).

    Example:
        >>> values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        >>> split_readout(values, ["log_rates", "log_shape"])
        {'log_rates': tensor([[1., 2.]]), 'log_shape': tensor([[3., 4.]])}
    """
    parts = values.chunk(len(names), dim=-1) if len(names) > 1 else [values]
    return cast(Output, dict(zip(names, parts, strict=True)))


IN_BINS = "behavior"
"""The name of the behavior that is known bin by bin, among those of :class:`DataSpec`."""


@dataclass(frozen=True)
class BehaviorInfo:
    """A behavior that can be decoded, as the training split has it; unknown entries do not count.

    Attributes:
        name: ``IN_BINS``, or that of a trial column.
        mean: (K,) over bins and trials, of each channel; a number of each trial has one channel, text has none.
        std: (K,) likewise; 1 of a channel that never changes.
        classes: the different values of a trial column, numbers or text, sorted; empty for behavior in bins.
        codes: how ``Batch.labels`` writes each of the classes; numbers are written as they are.
    """

    name: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[float, ...] | tuple[str, ...] = ()
    codes: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BehaviorInfo:
        """From plain values, as :meth:`DataSpec.to_dict` writes them."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class DataSpec:
    """The description of the data that a model is built for: plain values, saved in the checkpoint.

    Of several sessions, each has a description of its own in ``sessions``; neurons are then counted over all of them,
    bins are those of the longest, and what is of single neurons is empty.

    Attributes:
        dataset: the dataset's name, as in ``data=...``.
        kind: ``spikes``, ``traces`` or ``images``.
        n_in: held-in neurons; 0 for images.
        n_out: held-out neurons; all of them for images.
        n_bins: observed bins T of a training sample; traces may be longer in other splits.
        n_forward: forward bins F.
        bin_ms: bin width in ms.
        mean_rates: (N,) mean of the observed targets in the training split.
        response_unit: (N,) what networks and losses measure responses in, see :meth:`in_response_units`; empty is 1.
        unit_ids: (N,) the neurons' numbers or names in the recording, held-in first.
        unit_positions: (2 N,) x and y in the cortex of each neuron in turn, in any unit; empty where unknown.
        behavior_dim: behavior channels K, 0 without behavior.
        behavior_kind: ``velocity`` (decoded bin by bin), ``interval`` (dmfc_rsg's trial columns) or ``none``.
        decode_groups: groups of trials M that are decoded apart.
        n_conditions: conditions with a target PSTH, 0 without.
        nonnegative: whether no target of the training split is below zero: rates are, z-scores are not.
        image_shape: (C, H, W) of images.
        image_mean: mean of the training images' pixels.
        image_std: their standard deviation.
        pupil: whether it is known where the pupil was.
        n_repeats: the largest number of repeats R of an image in any split, 0 without repeats.
        angle_period: degrees after which a stimulus's direction repeats, 180 or 360; 0 for stimuli without one.
        true_rates: whether the rates behind the targets are known.
        simulated: whether the recording is simulated.
        partial: whether some inputs were not recorded: trials are of unequal length, or neurons come and go.
        deviance: whether the data are scored by Poisson D2, beside bits per spike.
        session: the name of the recording among several.
        sessions: the descriptions of several recordings, empty for one.
        behaviors: what heads can decode: behavior in bins, then the labels of trials in the order of ``Batch.labels``.

    Example:
        >>> spec = DataSpec("mine", n_in=30, n_out=10, n_bins=50, n_forward=10, bin_ms=20)
        >>> spec.n_neurons, spec.n_total
        (40, 60)
        >>> DataSpec.from_dict(spec.to_dict()) == spec
        True
    """

    dataset: str
    kind: str = "spikes"
    n_in: int = 0
    n_out: int = 0
    n_bins: int = 0
    n_forward: int = 0
    bin_ms: int = 0
    mean_rates: tuple[float, ...] = ()
    response_unit: tuple[float, ...] = ()
    unit_ids: tuple[int, ...] | tuple[str, ...] = ()
    unit_positions: tuple[float, ...] = ()
    behavior_dim: int = 0
    behavior_kind: str = "none"
    decode_groups: int = 1
    n_conditions: int = 0
    nonnegative: bool = True
    image_shape: tuple[int, ...] = ()
    image_mean: float = 0.0
    image_std: float = 1.0
    pupil: bool = False
    n_repeats: int = 0
    angle_period: int = 0
    true_rates: bool = False
    simulated: bool = False
    partial: bool = False
    deviance: bool = False
    session: str = ""
    sessions: tuple[DataSpec, ...] = ()
    behaviors: tuple[BehaviorInfo, ...] = ()

    @property
    def parts(self) -> tuple[DataSpec, ...]:
        """The descriptions of the sessions; of one recording its own."""
        return self.sessions or (self,)

    def in_response_units(self) -> DataSpec:
        """The description as networks and losses see it: targets are divided by ``response_unit``.

        Batches, predictions and scores stay in the data's own unit.
        """
        if not self.response_unit:
            return self
        means = tuple(m / unit for m, unit in zip(self.mean_rates, self.response_unit, strict=True))
        return replace(self, mean_rates=means, response_unit=())

    def of_batch(self, batch: Batch) -> DataSpec:
        """The description of the recording that a batch is from."""
        return self.sessions[batch["session"]] if self.sessions else self

    def behavior_of(self, name: str) -> BehaviorInfo | None:
        """What is known of the behavior of a name; None without it."""
        return next((info for info in self.behaviors if info.name == name), None)

    def label(self, name: str) -> tuple[int, BehaviorInfo]:
        """The column of a label in ``Batch.labels``, and what is known of it."""
        labels = [info for info in self.behaviors if info.name != IN_BINS]
        return next((column, info) for column, info in enumerate(labels) if info.name == name)

    @property
    def n_neurons(self) -> int:
        """All neurons, N."""
        return self.n_in + self.n_out

    @property
    def n_total(self) -> int:
        """All bins, L = T + F."""
        return self.n_bins + self.n_forward

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, so that a checkpoint opens with ``weights_only=True``."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        behaviors = [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(b).items()} for b in self.behaviors]
        return {**plain, "sessions": [part.to_dict() for part in self.sessions], "behaviors": behaviors}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """The inverse of :meth:`to_dict`; unknown keys are refused.

        Raises:
            DataError: a key is unknown or a needed one is missing.
        """
        known = {f.name for f in fields(cls)}
        if extra := set(values) - known:
            raise DataError(
                f"the checkpoint's data description has unknown keys {sorted(extra)}: "
                "it was written by a newer version; upgrade neuro_lightning"
            )
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        plain["sessions"] = tuple(cls.from_dict(part) for part in values.get("sessions", ()))
        try:
            plain["behaviors"] = tuple(BehaviorInfo.from_dict(info) for info in values.get("behaviors", ()))
            return cls(**plain)
        except TypeError as error:
            raise DataError(f"the checkpoint's data description is incomplete: {error}") from None
