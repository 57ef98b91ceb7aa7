"""The recurrent part of a trained network by itself: its step under a constant input, and the states of trials."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from neuro_lightning.contracts import Batch, run_network
from neuro_lightning.functional.fixed_points import Step
from neuro_lightning.models.gru import GRUCore
from neuro_lightning.models.lfads import LFADSCore
from neuro_lightning.models.lstm_autoencoder import AutoencoderCore, FeedbackCore
from neuro_lightning.nn.generator import MAX_STATE
from neuro_lightning.nn.padding import inside, run_recurrent
from neuro_lightning.nn.recurrent import gru_step, lstm_step, rnn_step

MOST_TRIALS = 64
MOST_DIMENSIONS = 256  # of a state: fixed points take the cube of it in time

CELLS: dict[type[nn.Module], tuple[type[nn.RNNCellBase], Callable[..., Tensor], str]] = {
    nn.GRU: (nn.GRUCell, gru_step, "GRU"),
    nn.LSTM: (nn.LSTMCell, lstm_step, "LSTM"),
    nn.RNN: (nn.RNNCell, rnn_step, "RNN"),
}


class Dynamics(NamedTuple):
    """A recurrent layer by itself.

    Attributes:
        step: states (B, D) -> the next states, under the layer's mean input; in float64.
        visited: (B, S, D) its states in trials, NaN after a trial's end. Of an LSTM both its parts, output and cell.
        name: what the layer is called.
    """

    step: Step
    visited: Tensor
    name: str


class _Unrolled(NamedTuple):
    """A cell, its advance, what enters it at each step (B, S, G), its first state (B, D), and the trials' lengths."""

    cell: nn.RNNCellBase
    advance: Callable[..., Tensor]
    drives: Tensor
    start: Tensor
    lengths: Tensor | None
    name: str


def has_dynamics(net: Any) -> bool:
    """Whether the core of a network is recurrent, with a state of 2 to ``MOST_DIMENSIONS`` dimensions."""
    part = _recurrent_part(net)
    if part is None:
        return False
    size = part.hidden_size * (1 + isinstance(part, nn.LSTM))
    return 1 < size <= MOST_DIMENSIONS


def dynamics_of(net: Any, batch: Batch, device: torch.device | str = "cpu") -> Dynamics:
    """The dynamics of a trained network, with the mean over trials and steps of what they read as a constant input.

    Of LFADS they are those of the generator, under the posteriors' means; of other recurrent networks those of the
    last layer's forward direction.

    Args:
        net: one for which :func:`has_dynamics` is true, in evaluation mode.
        batch: of trials; ``MOST_TRIALS`` of them are used.
        device: where the network is.
    """
    part: Any = {name: values[:MOST_TRIALS] if isinstance(values, Tensor) else values for name, values in batch.items()}
    with torch.no_grad():
        lfads = isinstance(net.core, LFADSCore)
        found = _unroll_generator(net, part, device) if lfads else _unroll_layer(net, part, device)
        cell, advance, drives, state, lengths, name = found
        states = []
        for drive in drives.unbind(1):
            state = advance(cell, drive, state)
            states.append(state)
        visited = torch.stack(states, dim=1)
        known = torch.ones(visited.shape[:2], dtype=torch.bool)
        if lengths is not None:
            known = inside(lengths.cpu(), visited.shape[1])
        visited[~known] = torch.nan
        mean = drives[known].mean(0)
    return Dynamics(lambda states: advance(cell, mean.expand(len(states), -1), states), visited, name)


def _recurrent_part(net: Any) -> Any:
    """The recurrent module whose state is followed: an ``nn.RNNBase``, or LFADS's cell; None where there is none."""
    core = getattr(net, "core", None)
    if isinstance(core, LFADSCore):
        return core.generator.cell
    if isinstance(core, GRUCore):
        return core.gru
    if isinstance(core, AutoencoderCore):
        return core.encoder.rnn
    return core.second.rnn if isinstance(core, FeedbackCore) else None


def _unroll_generator(net: Any, batch: Batch, device: torch.device | str) -> _Unrolled:
    inputs, observed = batch["inputs"].to(device, net.core.generator.cell.weight_hh.dtype), batch.get("observed")
    if net.fixed_length:
        inputs = inputs[:, : net.steps.n_bins]
    observed = None if observed is None else observed[:, : inputs.shape[1]].to(device)
    start, course = net.mean_course(inputs, observed)
    cell = _in_double(net.core.generator.cell)
    start = start.double().cpu().clamp(-MAX_STATE, MAX_STATE)
    if course.mean is None:
        drives = cell.bias_ih.expand(*course.factors.shape[:2], -1)
    else:
        drives = course.mean.double().cpu() @ cell.weight_ih.T + cell.bias_ih
    return _Unrolled(cell, gru_step, drives, start, net.lengths(observed), "generator")


def _unroll_layer(net: Any, batch: Batch, device: torch.device | str) -> _Unrolled:
    rnn, given = _recurrent_part(net), []
    handle = rnn.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    try:
        run_network(net, batch, device)
    finally:
        handle.remove()
    inputs, lengths = pad_packed_sequence(given[0], True) if isinstance(given[0], PackedSequence) else (given[0], None)
    if rnn.num_layers > 1:
        lower = type(rnn)(
            rnn.input_size, rnn.hidden_size, rnn.num_layers - 1, batch_first=True, bidirectional=rnn.bidirectional
        )
        kept = lower.state_dict()
        lower.load_state_dict({name: values for name, values in rnn.state_dict().items() if name in kept})
        inputs = run_recurrent(lower.to(inputs), inputs, lengths)[0]
    kind, advance, name = CELLS[type(rnn)]
    cell, last = kind(inputs.shape[2], rnn.hidden_size), f"_l{rnn.num_layers - 1}"
    cell.load_state_dict({name: rnn.state_dict()[name + last] for name in cell.state_dict()})
    cell = _in_double(cell)
    drives = inputs.double().cpu() @ cell.weight_ih.T + cell.bias_ih
    start = drives.new_zeros(len(drives), rnn.hidden_size * (1 + isinstance(rnn, nn.LSTM)))
    return _Unrolled(cell, advance, drives, start, lengths, f"{name} layer")


def _in_double(cell: Any) -> Any:
    return deepcopy(cell).requires_grad_(False).double().cpu()
