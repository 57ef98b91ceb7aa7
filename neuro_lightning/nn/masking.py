"""Hiding a part of the input in training, so that a network cannot copy a spike to its own rate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.masked import zero_inside

MODES = ("timestep", "neuron", "full", "timestep_only")


class CoordinatedDropout(nn.Module):
    """Zeroes a random share of the input's elements and scores the network on just these.

    An element that is hidden from the input is scored, an element that is shown is not: the prediction of
    a spike count never has this count as an input. The share is exact in every batch, as in the Makin lab's network
    (Keshtkaran & Pandarinath, NeurIPS 2019; repository bryanjw01/makin_lab_nlb_2022). Elements that were not recorded
    are never chosen, and do not count in the share.

    Args:
        rate: the share of the elements that is hidden, 0 to 1.
        rescale: divide the shown elements by ``1 - rate``, so that the input keeps its mean.
    """

    def __init__(self, rate: float, rescale: bool = False) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"masking.rate must lie in [0, 1), not {rate}")
        self.rate, self.rescale = rate, rescale

    @property
    def share(self) -> float:
        """The share of the input that is hidden, and scored; 0 scores all of it."""
        return self.rate

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hide elements of (B, T, N_in) inputs; returns the masked inputs and which elements are hidden, bool.

        Args:
            inputs: the inputs.
            observed: bool like the inputs, True where they were recorded; None is everywhere.
        """
        if self.rate == 0:
            return inputs, torch.ones_like(inputs, dtype=torch.bool) if observed is None else observed
        n = inputs.numel() if observed is None else int(observed.sum())
        hidden = random_subset(inputs, round(self.rate * n), observed)
        shown = inputs / (1 - self.rate) if self.rescale else inputs
        return zero_inside(shown, hidden), hidden


class VariableDropout(nn.Module):
    """Coordinated dropout with a rate of its own for each trial.

    A network that meets nearly whole trials and nearly empty ones in training learns how far to trust what it sees; at
    one fixed rate it never meets trials as complete as those that it is evaluated on.

    Args:
        low: the smallest share of a trial's elements that is hidden, 0 to 1.
        high: the largest; rates are drawn evenly between the two.
        rescale: divide the shown elements by one minus the trial's rate, so that the input keeps its mean.

    Raises:
        ConfigError: the shares are not in order, or lie outside [0, 1).
    """

    def __init__(self, low: float, high: float, rescale: bool = True) -> None:
        super().__init__()
        if not 0 <= low <= high < 1 or high == 0:
            raise ConfigError(f"masking.low={low} and masking.high={high} must be in order, from 0 to less than 1")
        self.low, self.high, self.rescale = low, high, rescale

    @property
    def share(self) -> float:
        """The expected share of the input that is hidden, and scored."""
        return (self.low + self.high) / 2

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hide elements of (B, T, N_in) inputs; see :class:`CoordinatedDropout`."""
        rates = torch.empty(len(inputs), 1, 1, device=inputs.device).uniform_(self.low, self.high)
        hidden = _recorded(torch.rand(inputs.shape, device=inputs.device) < rates, observed)
        shown = inputs / (1 - rates).to(inputs) if self.rescale else inputs
        return zero_inside(shown, hidden), hidden


class NeuronMasking(nn.Module):
    """Hides whole neurons as if they had not been recorded, and scores the network on just these.

    That is what co-smoothing asks of a network that sees all neurons in training: at test some neurons are missing, and
    are predicted from the others. What is hidden is marked as not recorded, as it is at test; see
    ``neuro_lightning.nn.readin`` for what a network reads there. The data must say what was recorded
    (``DataSpec.partial``).

    Args:
        low: the smallest share of a trial's neurons that is hidden, 0 to 1; one neuron at least.
        high: the largest; each trial draws its own share between the two.

    Raises:
        ConfigError: the shares are not in order, or lie outside [0, 1).
    """

    marks_unrecorded = True

    def __init__(self, low: float = 0.05, high: float = 0.4) -> None:
        super().__init__()
        if not 0 <= low <= high < 1:
            raise ConfigError(f"masking.low={low} and masking.high={high} must be in order, from 0 to less than 1")
        self.low, self.high = low, high

    @property
    def share(self) -> float:
        """The expected share of the input that is hidden, and scored."""
        return (self.low + self.high) / 2

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hide neurons of (B, T, N_in) inputs; see :class:`CoordinatedDropout`."""
        keys = torch.rand(len(inputs), inputs.shape[2], device=inputs.device)
        recorded = torch.ones_like(keys, dtype=torch.bool) if observed is None else observed.any(1)
        rates = torch.empty(len(inputs), 1, device=inputs.device).uniform_(self.low, self.high)
        known = recorded.sum(1, keepdim=True)
        number = (rates * known).round().clamp(min=1).minimum((known - 1).clamp(min=0))
        place = keys.masked_fill(~recorded, 2.0).argsort(1).argsort(1)  # those that were not recorded come last
        hidden = _recorded((place < number)[:, None].expand_as(inputs), observed)
        return zero_inside(inputs, hidden), hidden


def _recorded(hidden: Tensor, observed: Tensor | None) -> Tensor:
    """Those of the elements that were recorded."""
    return hidden if observed is None else hidden & observed


def random_subset(like: Tensor, n: int, among: Tensor | None = None) -> Tensor:
    """``n`` elements at random as True, shaped like ``like``; of those ``among``, bool, where it is given.

    They are those with the smallest of random keys. Keys have 63 bits, so that ties practically never occur. A GPU
    sorts them, as its selection is not deterministic.
    """
    if n == 0:
        return torch.zeros_like(like, dtype=torch.bool)
    keys = torch.empty(like.numel(), dtype=torch.int64, device=like.device).random_()
    if keys.device.type == "cpu":
        return _smallest(keys, n, None if among is None else among.flatten()).view(like.shape)
    if among is not None:
        keys.masked_fill_(~among.flatten(), torch.iinfo(torch.int64).max)
    return (keys <= keys.sort().values[n - 1]).view(like.shape)


def _smallest(keys: Tensor, n: int, among: Tensor | None) -> Tensor:
    """Which keys are the ``n`` smallest, bool; on a CPU, where to select one of so many takes longer than the network.

    Keys are spread evenly, so that it is known within a per mille where the n-th lies. Only those within eight standard
    deviations are ranked; should it lie elsewhere, all are. NumPy compares several times as fast as torch.

    Args:
        keys: (M,) even over [0, 2**63).
        n: 1 to M, or to the number of those ``among``.
        among: (M,) bool, the keys that count; None is all.
    """
    values = keys.numpy()
    counted = len(values) if among is None else int(among.sum())
    share = n / counted
    width = 8 * math.sqrt(share * (1 - share) / counted)
    first, last = (min(round(2.0**63 * place), 2**63 - 1) for place in (max(share - width, 0.0), share + width))
    chosen, candidates = values < first, values < last
    if among is not None:
        chosen, candidates = chosen & among.numpy(), candidates & among.numpy()
    near = (chosen ^ candidates).nonzero()[0]
    rank = n - int(np.count_nonzero(chosen))
    if not 0 < rank <= len(near):
        near = np.arange(len(values)) if among is None else among.numpy().nonzero()[0]
        rank = n
        chosen[:] = False
    found = values[near]
    chosen[near[found <= np.partition(found, rank - 1)[rank - 1]]] = True
    return torch.from_numpy(chosen)


class RandomMasking(nn.Module):
    """Masks steps, neurons or single elements at random and scores the network on just these.

    As in the Neural Data Transformer (Ye & Pandarinath 2021; repository snel-repo/neural-data-transformers) and in BERT
    before it: of what is masked most is shown as zeros, some as random values, and some as it is. The network cannot
    tell those from the elements that are not masked, and so must predict them all.

    Masked steps may be joined to spans, which are harder to fill in. Their probability rises from epoch
    ``ramp_start`` to ``ramp_end``; where a batch has spans, their width is drawn from 1 to ``max_span``, and as many
    seeds as leave the expected share at ``ratio``: each step is masked with the same probability, the first and the
    last included, because spans may begin before the trial does.

    Args:
        mode: ``timestep`` (all neurons of a trial's step), ``timestep_only`` (the same steps in all trials of a
            batch), ``neuron`` (a trial's neuron in all of its bins), or ``full`` (single elements).
        ratio: the expected share that is masked, 0 to 1.
        token_ratio: share of the masked elements that is shown as zeros.
        random_ratio: share of the other masked elements that is shown as random values: of counts from 0 to below
            the batch's largest, of traces the same neuron's elsewhere in the batch. The rest is shown as it is.
        max_span: the largest width of a span, in steps; 1 has no spans, nor has the mode ``neuron``.
        ramp_start: epoch from which on there are spans.
        ramp_end: epoch from which on all batches have spans.
        block: bins in a step; what is masked is masked in whole steps. Models set it, see :func:`configure_masking`.
        kind: of the data, ``spikes`` or ``traces``; set likewise.

    Raises:
        ConfigError: no such mode, a share outside [0, 1], spans shorter than a step, or a ramp that ends before it
            begins.
    """

    def __init__(
        self,
        mode: str = "timestep",
        *,
        ratio: float = 0.25,
        token_ratio: float = 1.0,
        random_ratio: float = 0.5,
        max_span: int = 1,
        ramp_start: int = 0,
        ramp_end: int = 0,
        block: int = 1,
        kind: str = "spikes",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ConfigError(f"masking.mode={mode}: there are {', '.join(MODES)}")
        for name, share in (("ratio", ratio), ("token_ratio", token_ratio), ("random_ratio", random_ratio)):
            if not 0 <= share <= 1:
                raise ConfigError(f"masking.{name} must lie in [0, 1], not {share}")
        if max_span < 1 or block < 1:
            raise ConfigError(f"masking.max_span={max_span} and masking.block={block} must be 1 at least")
        if ramp_end < ramp_start:
            raise ConfigError(f"masking.ramp_end={ramp_end} must not lie before masking.ramp_start={ramp_start}")
        self.mode, self.ratio, self.token_ratio, self.random_ratio = mode, ratio, token_ratio, random_ratio
        self.max_span, self.ramp_start, self.ramp_end = max_span, ramp_start, ramp_end
        self.block, self.kind = block, kind
        self.at_epoch(0)

    @property
    def share(self) -> float:
        """The expected share of the input that is masked, and scored."""
        return self.ratio

    def at_epoch(self, epoch: int) -> None:
        """Set the probability of spans to that of an epoch, counted from 0."""
        if epoch >= self.ramp_end:
            self.span_probability = 1.0
        else:
            self.span_probability = max(0.0, (epoch - self.ramp_start) / (self.ramp_end - self.ramp_start))

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mask (B, T, N_in) inputs; returns what is shown and which elements are masked, bool, both of that shape.

        Args:
            inputs: the inputs.
            observed: bool like the inputs, True where they were recorded, which alone are masked; None is everywhere.
        """
        hidden = _recorded(self._in_bins(self._draw(inputs), inputs).expand_as(inputs), observed)
        if self.token_ratio == 1:
            return zero_inside(inputs, hidden), hidden
        steps = -(-inputs.shape[1] // self.block)
        draw = self._in_bins(torch.rand(len(inputs), steps, inputs.shape[2], device=inputs.device), inputs)
        shown = zero_inside(inputs, hidden & (draw < self.token_ratio))
        if self.random_ratio:
            at_random = self.token_ratio + (1 - self.token_ratio) * self.random_ratio
            replaced = hidden & (draw >= self.token_ratio) & (draw < at_random)
            shown = torch.where(replaced, self._random_values(inputs), shown)
        return shown, hidden

    def _draw(self, inputs: Tensor) -> Tensor:
        """Which (trial, step, neuron) are masked; an axis has length 1 where all its entries are masked alike."""
        trials, bins, neurons = inputs.shape
        steps = -(-bins // self.block)
        if self.mode == "neuron":
            return torch.rand(trials, 1, neurons, device=inputs.device) < self.ratio
        trials, neurons = {"timestep": (trials, 1), "timestep_only": (1, 1), "full": (trials, neurons)}[self.mode]
        width = self._draw_width()
        seeds = torch.rand(trials, steps + width - 1, neurons, device=inputs.device) < seed_ratio(self.ratio, width)
        if width == 1:
            return seeds
        return F.max_pool1d(seeds.mT.float(), width, stride=1).mT.bool()

    def _draw_width(self) -> int:
        if self.max_span == 1 or torch.rand(()).item() >= self.span_probability:
            return 1
        return int(torch.randint(1, self.max_span + 1, ()).item())

    def _in_bins(self, steps: Tensor, inputs: Tensor) -> Tensor:
        """Each step's value in all of its bins."""
        if self.block == 1 or steps.shape[1] == 1:
            return steps
        return steps.repeat_interleave(self.block, dim=1)[:, : inputs.shape[1]]

    def _random_values(self, inputs: Tensor) -> Tensor:
        if self.kind == "spikes":
            return (torch.rand_like(inputs) * inputs.max()).floor()
        values = inputs.flatten(0, 1)
        return values.gather(0, torch.randint_like(values, len(values), dtype=torch.long)).view_as(inputs)


def seed_ratio(ratio: float, width: int) -> float:
    """With what probability a span of ``width`` begins at each step, if the share ``ratio`` is to be masked.

    A step is shown if no span began at it or at the ``width - 1`` steps before: ``(1 - p) ** width = 1 - ratio``. The
    simpler ``ratio / width`` forgets that spans overlap.
    """
    return 1 - (1 - ratio) ** (1 / width)


def configure_masking(masking: nn.Module | None, *, block: int, kind: str) -> None:
    """Set the step width and the kind of data of a :class:`RandomMasking`; other maskings need neither.

    Args:
        masking: of a model, or None.
        block: bins in a step of the network.
        kind: ``spikes`` or ``traces``.
    """
    if isinstance(masking, RandomMasking):
        masking.block, masking.kind = block, kind
