"""Several networks of one architecture as one: their parameters with a leading member axis, their products batched.

Axis letters: K members, B trials, S steps, C channels, H units, D directions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuro_lightning.errors import ConfigError

State = tuple[Tensor, ...]
NOT_STACKED = (nn.RNNCellBase, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Stack(nn.Module):
    """K networks that differ in the values of their parameters alone, run at once.

    ``net`` is a network whose parameters have a leading member axis. Their names are those of a single network's, and
    row k of each belongs to member k. Dropout draws for every member anew, at the member's own rate.

    Args:
        networks: of one architecture; they are copied.

    Raises:
        ConfigError: the networks differ in more than values, or hold a layer that cannot be stacked.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        first = networks[0]
        if any(_shapes(other) != _shapes(first) for other in networks):
            raise ConfigError("networks of different shapes cannot be stacked; train them one by one")
        shared = dict(first.named_parameters(remove_duplicate=False)).keys() - dict(first.named_parameters()).keys()
        if shared:
            raise ConfigError(f"{min(shared)} is a parameter under two names: such networks cannot be stacked")
        self.members = len(networks)
        states = [{**dict(net.named_parameters()), **dict(net.named_buffers())} for net in networks]
        self.net = _vmappable(copy.deepcopy(first), networks, next(first.parameters()))
        for name, value in list(self.net.named_parameters()):
            rows = torch.stack([state[name].detach() for state in states])
            _set(self.net, name, nn.Parameter(rows, requires_grad=value.requires_grad))
        for name, buffer in self.net.named_buffers():
            if not _is_rate(name) and not all(torch.equal(buffer, state[name]) for state in states):
                raise ConfigError(f"the members' {name} differ; train them one by one")

    def forward(self, inputs: Tensor, *arguments: Any) -> Any:
        """Inputs of each member (K, B, ...) -> the output of each, every tensor of it with a leading K.

        Args:
            inputs: of the members.
            arguments: of the network beside its inputs, the same for all members.
        """

        def one(parameters: dict[str, Tensor], shown: Tensor) -> Any:
            return functional_call(self.net, parameters, (shown, *arguments))

        rates = {name: value for name, value in self.net.named_buffers() if _is_rate(name)}
        own = {**dict(self.net.named_parameters()), **rates}
        return torch.vmap(one, randomness="different")(own, inputs)

    def state_of(self, member: int) -> dict[str, Tensor]:
        """The ``state_dict`` of one member, as a single network loads it."""
        parameters = dict(self.net.named_parameters(remove_duplicate=False))
        return {name: (v[member] if name in parameters else v) for name, v in self.net.state_dict().items()}


def clip_members(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Clip the gradient of each member to a norm of its own, in place; returns the norms before it, (K,).

    A member whose gradient is not finite changes no other.

    Args:
        parameters: with a leading member axis.
        largest: the norm that is left at most.
    """
    gradients = [value.grad for value in parameters if value.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
    return norms


class Unrolled(nn.Module):
    """``nn.GRU`` or ``nn.LSTM`` as a loop over steps, both directions in one product, which vmap can batch.

    It has the parameters of the module that it stands for, under the same names, and gives the same values.

    Args:
        rnn: with ``batch_first=True``.
        dropout: between its layers.

    Raises:
        ConfigError: another kind of recurrent network, or projections of the state.
    """

    def __init__(self, rnn: nn.RNNBase, dropout: FreshDropout) -> None:
        super().__init__()
        if type(rnn) not in STEPS or rnn.proj_size or not rnn.batch_first or not rnn.bias:
            raise ConfigError(f"{rnn} cannot be stacked; train the members one by one")
        self.step, self.n_states = STEPS[type(rnn)]
        self.num_layers, self.hidden_size, self.bidirectional = rnn.num_layers, rnn.hidden_size, rnn.bidirectional
        self.dropout = dropout
        for name, value in rnn.named_parameters():
            self.register_parameter(name, value)

    def forward(self, inputs: Tensor, start: None = None) -> tuple[Tensor, Any]:
        """(B, S, C) -> states (B, S, D H), and the last ones as ``nn.GRU`` and ``nn.LSTM`` give them.

        Raises:
            ConfigError: trials of unequal length, or a start that is not zero.
        """
        if not isinstance(inputs, Tensor) or start is not None:
            raise ConfigError("recurrent networks of trials of unequal length cannot be stacked")
        ends = []
        for layer in range(self.num_layers):
            inputs, end = self._layer(self.dropout(inputs) if layer else inputs, layer)
            ends.append(end)
        last = tuple(torch.cat(states) for states in zip(*ends, strict=True))
        return inputs, last if self.n_states > 1 else last[0]

    def _layer(self, inputs: Tensor, layer: int) -> tuple[Tensor, State]:
        """(B, S, C) -> (B, S, D H), and the last states (D, B, H)."""
        ways = ["", "_reverse"][: 1 + self.bidirectional]

        def of(name: str) -> Tensor:
            return torch.stack([getattr(self, f"{name}_l{layer}{way}") for way in ways])

        read = torch.stack([inputs, inputs.flip(1)][: len(ways)]).flatten(1, 2)  # (D, B S, C)
        drive = (read @ of("weight_ih").mT + of("bias_ih")[:, None]).unflatten(1, inputs.shape[:2])
        weight, bias = of("weight_hh").mT, of("bias_hh")[:, None]
        state: State = (inputs.new_zeros(len(ways), len(inputs), self.hidden_size),) * self.n_states
        seen = []
        for now in drive.unbind(2):
            state = self.step(now, state[0] @ weight + bias, *state)
            seen.append(state[0])
        states = torch.stack(seen, 2).unbind(0)  # of each direction (B, S, H)
        return torch.cat([states[0], *(backward.flip(1) for backward in states[1:])], 2), state


def gru_states(drive: Tensor, recurrent: Tensor, state: Tensor) -> State:
    """The next state (D, B, H) of a GRU from what the input and the state give to its gates, (D, B, 3H) each."""
    size = state.shape[-1]
    gates = (drive[..., : 2 * size] + recurrent[..., : 2 * size]).sigmoid()
    new = (drive[..., 2 * size :] + gates[..., :size] * recurrent[..., 2 * size :]).tanh()
    return (new + gates[..., size:] * (state - new),)


def lstm_states(drive: Tensor, recurrent: Tensor, state: Tensor, cell: Tensor) -> State:
    """The next state and cell (D, B, H) of an LSTM; see :func:`gru_states`, with (D, B, 4H)."""
    write, keep, new, show = (drive + recurrent).chunk(4, -1)
    cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
    return show.sigmoid() * cell.tanh(), cell


STEPS: dict[type[nn.RNNBase], tuple[Callable[..., State], int]] = {nn.GRU: (gru_states, 1), nn.LSTM: (lstm_states, 2)}
"""The step of each recurrent network, and of how many tensors its state consists."""


class FreshDropout(nn.Dropout):
    """Dropout as :class:`neuro_lightning.nn.dropout.Dropout`, from random numbers that vmap draws for each member.

    Args:
        rates: the members' probabilities. ``p`` is the one that they share; NaN, which torch's own functions refuse,
            where they differ.
        like: a tensor of the type and on the device of the inputs.
    """

    dropped_16: Tensor
    kept_scale: Tensor

    def __init__(self, rates: Sequence[float], like: Tensor) -> None:
        super().__init__(rates[0] if len(set(rates)) == 1 else math.nan)
        dropped = torch.tensor([round(rate * 2**16) for rate in rates], device=like.device)
        self.register_buffer("dropped_16", dropped.int(), persistent=False)
        scale = [2**16 / max(2**16 - each, 1) for each in dropped.tolist()]
        self.register_buffer("kept_scale", like.new_tensor(scale), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with the member's probability in training, and scale the others to keep the mean."""
        if not self.training or self.p == 0:
            return x
        draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
        kept = draws.view(torch.int16)[: x.numel()] >= self.dropped_16 - 2**15
        return x * (kept.view(x.shape).to(x.dtype) * self.kept_scale)


def _is_rate(buffer: str) -> bool:
    """Whether a buffer, by its name, is a :class:`FreshDropout`'s, which has a value for each member."""
    return buffer.rpartition(".")[2] in ("dropped_16", "kept_scale")


def _vmappable(net: nn.Module, members: Sequence[nn.Module], like: Tensor) -> nn.Module:
    """The network with layers that vmap can batch in the place of those that it cannot.

    Args:
        net: a copy of the first of the members.
        members: with the rates of dropout of each.
        like: a tensor of their type and on their device.

    Raises:
        ConfigError: a layer has no such stand-in, or is another one in another member.
    """
    for name, layer in list(net.named_children()):
        own: list[Any] = [member.get_submodule(name) for member in members]
        if any(type(other) is not type(layer) for other in own):
            raise ConfigError(f"{name} is not the same layer in all members; train them one by one")
        if isinstance(layer, nn.RNNBase):
            dropout = FreshDropout([rnn.dropout for rnn in own], like)
            setattr(net, name, Unrolled(layer, dropout).train(layer.training))
        elif isinstance(layer, nn.Dropout):
            setattr(net, name, FreshDropout([each.p for each in own], like).train(layer.training))
        elif isinstance(layer, NOT_STACKED):
            raise ConfigError(f"{type(layer).__name__} cannot be stacked; train the members one by one")
        elif any(other.extra_repr() != layer.extra_repr() for other in own):  # another rate or slope, say
            raise ConfigError(f"{name} is {layer.extra_repr()} and otherwise in other members; train them one by one")
        else:
            _vmappable(layer, own, like)
    return net


def _set(net: nn.Module, name: str, value: nn.Parameter) -> None:
    path, _, last = name.rpartition(".")
    setattr(net.get_submodule(path), last, value)


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}
