"""Runs a trained network bin by bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.contracts import DataSpec, Output, rates_of
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.drift import Drift
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.nn.stepping import State, Stepwise

LONGEST_GAP = 100
"""Bins that may be missing one after the other; a stream that has lost more has to begin anew."""
INSTEAD = "model=gru model.bidirectional=false and model=ndt model.attention.context_forward_ms=0"


class Bin(NamedTuple):
    """What a model says of a bin; of a batch, arrays have an axis of trials first.

    Attributes:
        rates: (N,) expected spikes of all neurons in the bin, held-in ones first.
        latents: (D,) the model's latents; None of a model without.
        behavior: (K,) by the decoder, or by a head of the network; None without both.
    """

    rates: np.ndarray
    latents: np.ndarray | None
    behavior: np.ndarray | None


def check_streams(net: torch.nn.Module, spec: DataSpec) -> Stepwise:
    """A network as one that runs bin by bin.

    Args:
        net: the network.
        spec: the description of its data.

    Raises:
        ConfigError: it does not, with the words that make it.
    """
    name = type(net).__name__
    if spec.sessions:
        raise ConfigError(f"several sessions: name one as session=NAME, {', '.join(p.session for p in spec.sessions)}")
    if spec.kind != "spikes":
        raise ConfigError(f"{name} of {spec.dataset} cannot run bin by bin: a stream takes spikes, not {spec.kind}")
    if isinstance(net, Stepwise) and not net.looks_ahead:
        return net
    words = getattr(net, "causal_words", "")
    mend = f"train it with {words}" if words else f"those that look back only are {INSTEAD}"
    raise ConfigError(f"{name} cannot run bin by bin: {getattr(net, 'not_by_bins', 'it looks ahead')}; {mend}")


def behavior_of(output: Output, decoder: Ridge | None) -> Tensor | None:
    """(B, K) behavior by a decoder of the rates, or else by the network's head that decodes bins; None without both."""
    if decoder is not None:
        return rates_of(output).to(decoder.weight.dtype) @ decoder.weight + decoder.bias
    return next(iter(output.get("heads", {}).values()), None)


class Stream:
    """A network that is given one bin after the other.

    What :meth:`step` says of a bin is what the network says of it when it is given the whole trial, to rounding.

    Args:
        net: the network; it is put into evaluation mode, in which it stays on its device.
        spec: the description of its data.
        decoder: of behavior from rates, ``behavior = rates @ weight + bias``; None decodes nothing.
        drift: compares counts with rates; None does not.

    Attributes:
        network: see above.
        spec: likewise.
        decoder: likewise.
        drift: likewise. It is not part of the state, and goes on over trials.
        bins: bins since the last :meth:`reset`.
        missing: bins that never came, or came too late, in all trials.
        dropped: bins that came twice or too late.

    Raises:
        ConfigError: the network looks ahead, with the words that make it causal.
    """

    def __init__(
        self, net: torch.nn.Module, spec: DataSpec, decoder: Ridge | None = None, drift: Drift | None = None
    ) -> None:
        self.network = check_streams(net, spec).eval()
        self.spec, self.decoder, self.drift, self.bins = spec, decoder, drift, 0
        self.missing = self.dropped = 0
        self._last: Bin | None = None
        own = [value for value in (*net.parameters(), *net.buffers()) if value.is_floating_point()]
        like = own[0] if own else torch.zeros(())
        self._device, self._dtype = like.device, np.dtype(str(like.dtype).removeprefix("torch."))
        self._state: State | None = None
        self._shape: tuple[int, ...] | None = None
        self._said: Tensor | None = None  # rates of the held-in neurons in the bin before

    @property
    def unit_ids(self) -> np.ndarray:
        """(N,) the neurons of the rates; :meth:`step` takes the counts of the first N_in of them, in this order."""
        return np.array(self.spec.unit_ids)

    @property
    def longest(self) -> int | None:
        """Bins after which the network needs a :meth:`reset`: it knows no later time in a trial. None runs on."""
        return self.network.longest

    @property
    def lag(self) -> int:
        """Bins by which the answer is late: that of bin t is about bin t - lag, and NaN where there is none."""
        return self.network.lag

    def reset(self) -> None:
        """Begin a trial: the next bin is its first."""
        self._state, self._shape, self._said, self._last, self.bins = None, None, None, None, 0

    def step(
        self, counts: np.ndarray | Tensor, present: np.ndarray | Tensor | None = None, number: int | None = None
    ) -> Bin:
        """What the network says of the next bin.

        Bins may come late, twice or not at all, where ``number`` says which they are. Those that a later one has
        overtaken are missing: they enter as bins in which no neuron was recorded, and the network runs on through them.
        A bin that comes again, or after it was given up, changes nothing: the answer is that of the bin before.

        Args:
            counts: (N_in,), or (B, N_in) for several trials side by side; NaN where a count is missing.
            present: bool, (N_in,) or like the counts, False for neurons that are not there; None has all. They enter
                as neurons that were not recorded do, never as silent ones.
            number: of the bin in the trial, from 0; None is the next one.

        Raises:
            DataError: another number of neurons, negative counts, another batch than in the bin before, a trial that is
                longer than the network knows, or more than ``LONGEST_GAP`` bins that are missing.
        """
        given = np.array(counts, dtype=self._dtype)
        self._check_shape(given.shape)
        gap = 0 if number is None else number - self.bins
        if gap > LONGEST_GAP:
            raise DataError(f"bin {number} comes after bin {self.bins - 1}: a stream with such a gap has to begin anew")
        if gap < 0 and self._last is not None:
            self.dropped += 1
            return self._last
        known = ~np.isnan(given)
        if present is not None:
            known = known & self._mask(present)
        if given.min(initial=0, where=known) < 0:
            raise DataError(f"bin {self.bins + gap} has negative counts; NaN stands for a count that is missing")
        with torch.inference_mode():
            if gap > 0:
                for _ in range(gap):
                    self._run(np.zeros_like(given), np.zeros_like(known))
                self.missing += gap
            output = self._run(given, None) if known.all() else self._run(np.where(known, given, 0), known)
            self._shape = given.shape
            rates = rates_of(output)
            behavior = behavior_of(output, self.decoder)
            values = [rates, output.get("latents"), behavior]
            if self.bins <= self.lag:  # it is about a bin before the trial
                values = [None if value is None else torch.full_like(value, torch.nan) for value in values]
            self._last = Bin(*(None if value is None else self._array(value) for value in values))
        return self._last

    def _run(self, counts: np.ndarray, known: np.ndarray | None) -> Output:
        """The network's output for the next bin, whose counts are known where it is said; the state goes on.

        Raises:
            DataError: the trial is longer than the network knows.
        """
        if self.longest is not None and self.bins >= self.longest:
            raise DataError(
                f"the trial has more than the {self.longest} bins that the model was trained on, and it knows no later "
                "time: reset() at each trial's start, or take model=gru, which runs on"
            )
        inputs = self._batch(counts)
        observed = None if known is None else self._batch(known)
        before = self.network.initial_state(len(inputs)) if self._state is None else self._state
        output, self._state = self.network.step(inputs, before, observed)
        self.bins += 1
        if self.drift is not None:
            if self._said is not None:
                self.drift.add(inputs, self._said, observed)
            self._said = rates_of(output)[:, : self.spec.n_in] if self.bins > self.lag else None
        return output

    def _batch(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values if values.ndim == 2 else values[None]).to(self._device)

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the stream remembers, empty before a trial's first bin; ``torch.save`` keeps it in a file.

        It does not change when the stream goes on.
        """
        if self._state is None or self._shape is None:
            return {}
        return {**self._state, "stream.shape": torch.tensor(self._shape), "stream.bins": torch.tensor(self.bins)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state: the next bin is the one after it.

        Args:
            state: of a stream of the same model.

        Raises:
            DataError: it is that of another model.
        """
        if not state:
            self.reset()
            return
        found = dict(state)
        try:
            shape, bins = tuple(found.pop("stream.shape").tolist()), int(found.pop("stream.bins"))
            wanted = self.network.initial_state(shape[0] if len(shape) == 2 else 1)
        except (KeyError, RuntimeError, AttributeError) as error:
            raise DataError(f"this is no state of a stream: {error}") from None
        shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise DataError("the state is that of a stream of another model: its tensors have other names or shapes")
        self._state, self._shape, self._said, self._last, self.bins = found, shape, None, None, bins

    def _mask(self, present: np.ndarray | Tensor) -> np.ndarray:
        mask = np.asarray(present)
        if mask.dtype != bool or mask.shape[-1:] != (self.spec.n_in,):
            raise DataError(f"present must be bool, True for each of the {self.spec.n_in} neurons that is there")
        return mask

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a DataError for counts of a shape that the network cannot take now."""
        n_in = self.spec.n_in
        if len(shape) not in (1, 2) or shape[-1] != n_in:
            raise DataError(f"bin {self.bins} has counts of shape {shape}; the model takes ({n_in},) or (B, {n_in})")
        if self._shape is not None and shape != self._shape:
            raise DataError(f"bin {self.bins} has counts of shape {shape} after {self._shape}: reset() begins anew")

    def _array(self, values: Tensor) -> np.ndarray:
        array = values.cpu().numpy()
        return array if self._shape is None or len(self._shape) == 2 else array[0]
