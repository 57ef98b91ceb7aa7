"""Networks that run on bin by bin: what they remember of the bins before, and how bins make a step.

A network that never looks ahead has a step form: :meth:`Stepwise.initial_state` and :meth:`Stepwise.step`. What it
says of a bin is what its ``forward`` says of that bin when it is given the whole trial. The state is tensors by name
and is never changed in place: a state that was kept can be gone back to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Output

State = dict[str, Tensor]


class Stepwise(nn.Module):
    """Base class of networks with a step form.

    Attributes:
        causal_words: the words of the command line with which such a network is trained to look back only.
        not_by_bins: why it has no step form without them.
    """

    causal_words: ClassVar[str] = ""
    not_by_bins: ClassVar[str] = "it looks ahead"

    @property
    def looks_ahead(self) -> bool:
        """Whether what is said of a bin depends on later ones: the network then has no step form."""
        raise NotImplementedError

    @property
    def longest(self) -> int | None:
        """After how many bins of a trial the network can say nothing more; None where it runs on."""
        return None

    @property
    def lag(self) -> int:
        """How many bins later the network says of a bin what it says: :meth:`step` is about the bin that long ago."""
        return 0

    def initial_state(self, batch: int) -> State:
        """The state before a trial's first bin, for ``batch`` trials that run side by side."""
        raise NotImplementedError

    def step(self, inputs: Tensor, state: State, observed: Tensor | None = None) -> tuple[Output, State]:
        """What the network says of the next bin, and the state after it.

        Args:
            inputs: (B, N_in) counts in that bin.
            state: after the bin before.
            observed: (B, N_in) bool, True where they were recorded; None is everywhere.

        Returns:
            The output as of ``forward``, without the axis of time: (B, N) rates or log-rates, (B, D) latents.
        """
        raise NotImplementedError


def under(name: str, state: State) -> State:
    """The state of a part, its names below that part's: ``{"hidden": h}`` -> ``{"core.hidden": h}``."""
    return {f"{name}.{key}": value for key, value in state.items()}


def of_part(state: State, name: str) -> State:
    """The inverse of :func:`under`."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def bins_to_come(batch: int, n_in: int, stride: int, like: Tensor) -> State:
    """The state that :func:`add_bin` needs, before the first bin: of steps of a single bin it is empty.

    Args:
        batch: trials B.
        n_in: neurons N_in.
        stride: bins in a step.
        like: has the dtype of the counts.
    """
    if stride == 1:
        return {}
    zeros = like.new_zeros(batch, n_in)
    return {"bin": torch.zeros((), dtype=torch.long, device=like.device), "sums": zeros, "seen": zeros}


def add_bin(
    inputs: Tensor,
    state: State,
    stride: int,
    run: Callable[[Tensor, Tensor, State], State],
    observed: Tensor | None = None,
) -> State:
    """The state after a bin, with which a step of the network may end.

    A network in steps of several bins works with the last bin of each. An exported network, which has no branches,
    works with every bin, and what comes of it is taken with the last one.

    Args:
        inputs: (B, N_in) counts in the bin.
        state: what :func:`bins_to_come` has begun, and what ``run`` returns.
        stride: bins in a step.
        run: sums of the step's recorded counts (B, N_in), the recorded share of each, and the state -> what has changed
            in the state.
        observed: see :meth:`Stepwise.step`.
    """
    recorded = torch.ones_like(inputs) if observed is None else observed.to(inputs.dtype)
    counts = inputs if observed is None else torch.where(observed, inputs, 0.0)
    if stride == 1:
        return {**state, **run(counts, recorded, state)}
    now, sums, seen = state["bin"] + 1, state["sums"] + counts, state["seen"] + recorded
    waiting = {**state, "bin": now, "sums": sums, "seen": seen}
    ends = now % stride == 0
    exported = torch.compiler.is_exporting()
    if not exported and not bool(ends):
        return waiting
    none = torch.zeros_like(sums)
    after = {**state, "bin": now, "sums": none, "seen": none, **run(sums, seen / stride, state)}
    return {name: torch.where(ends, value, waiting[name]) for name, value in after.items()} if exported else after
