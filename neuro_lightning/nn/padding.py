"""Trials of unequal length in one batch: bins after a trial's end are padding, which no network reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def trial_lengths(observed: Tensor) -> Tensor:
    """(B,) how many bins each trial has: up to the last one in which anything was observed, and one at least.

    Args:
        observed: (B, T, N) bool.

    Example:
        >>> trial_lengths(torch.tensor([[[True], [False], [True], [False]], [[False]] * 4]))
        tensor([3, 1])
    """
    numbers = torch.arange(1, observed.shape[1] + 1, device=observed.device)
    return (observed.any(2) * numbers).amax(1).clamp_min(1)


def inside(lengths: Tensor, n: int) -> Tensor:
    """(B, n) bool, True before the end of each trial; lengths are (B,)."""
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def run_recurrent(
    rnn: nn.RNNBase, inputs: Tensor, lengths: Tensor | None = None, start: Tensor | None = None
) -> tuple[Tensor, Any]:
    """A recurrent network's states (B, S, D), zeros after each trial's end, and its last state at that end.

    Args:
        rnn: with ``batch_first=True``. Its backward direction begins at each trial's end.
        inputs: (B, S, C).
        lengths: (B,) steps of each trial; None where all have S.
        start: the first state; None is zero.
    """
    steps = None if lengths is None else lengths.cpu()
    if steps is None or bool((steps == inputs.shape[1]).all()):  # packed sequences take twice as long on a CPU
        return rnn(inputs, start)
    packed = pack_padded_sequence(inputs, steps, batch_first=True, enforce_sorted=False)
    states, last = rnn(packed, start)
    return pad_packed_sequence(states, batch_first=True, total_length=inputs.shape[1])[0], last


def hold_last(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Values of steps (B, S, D), after each trial's end those of its last step: interpolation then ends with the trial.

    Args:
        values: (B, S, D).
        lengths: (B,) steps of each trial; None changes nothing.
    """
    if lengths is None:
        return values
    step = torch.minimum(torch.arange(values.shape[1], device=lengths.device), lengths[:, None] - 1)
    return values.gather(1, step[..., None].expand_as(values))


def attended(lengths: Tensor, n: int, allowed: Tensor | None = None) -> Tensor:
    """Which step sees which, none of them what comes after its trial's end; padding sees itself.

    Args:
        lengths: (B,) steps of each trial.
        n: steps S.
        allowed: (S, S) bool, which step sees which by the context; None is all.

    Returns:
        (B, 1, S, S) bool. Each row has a True: a row without one would have no attention.
    """
    itself = torch.eye(n, dtype=torch.bool, device=lengths.device)
    seen = inside(lengths, n)[:, None, None] | itself
    return seen if allowed is None else seen & allowed
