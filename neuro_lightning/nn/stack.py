"""Several networks of one architecture as one: their parameters with a leading member axis, their products batched.

Axis letters: K members, B trials, S steps, C channels, H units, D directions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.gru_states import gru_states
from neuro_lightning.nn.member_dropout import Generators, MemberDropout

State = tuple[Tensor, ...]
NOT_STACKED = (nn.RNNCellBase, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Stack(nn.Module):
    """K networks that differ in the values of their parameters alone, run at once.

    ``net`` is a network whose parameters have a leading member axis. Their names are those of a single network's, and
    row k of each belongs to member k. Dropout draws for each member from ``generators[k]``, at the member's own rate.

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
        self.generators: Generators = [None] * self.members
        self.net = _vmappable(copy.deepcopy(first), networks, self.generators)
        for name, value in list(self.net.named_parameters()):
            rows = torch.stack([state[name].detach() for state in states])
            _set(self.net, name, nn.Parameter(rows, requires_grad=value.requires_grad))
        for name, buffer in self.net.named_buffers():
            if not all(torch.equal(buffer, state[name]) for state in states):
                raise ConfigError(f"the members' {name} differ; train them one by one")

    def forward(self, inputs: Tensor, *arguments: Any) -> Any:
        """Inputs of each member (K, B, ...) -> the output of each, every tensor of it with a leading K.

        Args:
            inputs: of the members.
            arguments: of the network beside its inputs, the same for all members.
        """

        def one(parameters: dict[str, Tensor], shown: Tensor) -> Any:
            return functional_call(self.net, parameters, (shown, *arguments))

        return torch.vmap(one, randomness="different")(dict(self.net.named_parameters()), inputs)


class StackedRNN(nn.Module):
    """``nn.GRU`` or ``nn.LSTM`` as products and sums that vmap can batch, both directions in one.

    It has the parameters of the module that it stands for, under the same names, and gives the same values.

    Args:
        rnn: with ``batch_first=True``.
        dropout: between its layers.

    Raises:
        ConfigError: another kind of recurrent network, or projections of the state.
    """

    def __init__(self, rnn: nn.RNNBase, dropout: MemberDropout) -> None:
        super().__init__()
        if type(rnn) not in LAYERS or rnn.proj_size or not rnn.batch_first or not rnn.bias:
            raise ConfigError(f"{rnn} cannot be stacked; train the members one by one")
        self.run_layer = LAYERS[type(rnn)]
        self.num_layers, self.bidirectional, self.dropout = rnn.num_layers, rnn.bidirectional, dropout
        for name, value in rnn.named_parameters():
            self.register_parameter(name, value)

    def forward(self, inputs: Tensor, start: None = None) -> tuple[Tensor, Any]:
        """(B, S, C) -> states (B, S, D H), and the last ones as ``nn.GRU`` and ``nn.LSTM`` give them.

        Raises:
            ConfigError: trials of unequal length, or a start that is not zero.
        """
        if not isinstance(inputs, Tensor) or start is not None:
            raise ConfigError("recurrent networks of trials of unequal length cannot be stacked")
        x, ends = inputs.transpose(0, 1), []  # steps first, as torch's own: so dropout draws the same numbers
        for layer in range(self.num_layers):
            x, end = self._layer(self.dropout(x) if layer else x, layer)
            ends.append(end)
        last = tuple(torch.cat(states) for states in zip(*ends, strict=True))
        return x.transpose(0, 1), last if len(last) > 1 else last[0]

    def _layer(self, inputs: Tensor, layer: int) -> tuple[Tensor, State]:
        """(S, B, C) -> (S, B, D H), and the last states (D, B, H)."""
        ways = ["", "_reverse"][: 1 + self.bidirectional]

        def of(name: str) -> Tensor:
            return torch.stack([getattr(self, f"{name}_l{layer}{way}") for way in ways])

        read = torch.stack([inputs, inputs.flip(0)][: len(ways)])  # (D, S, B, C)
        drive = (read.flatten(1, 2) @ of("weight_ih").mT + of("bias_ih")[:, None]).unflatten(1, inputs.shape[:2])
        states, last = self.run_layer(drive, of("weight_hh").mT, of("bias_hh"))
        forward, *backward = states.unbind()  # of each direction (S, B, H)
        return torch.cat([forward, *(way.flip(0) for way in backward)], 2), last


def run_gru(drive: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, State]:
    """States (D, S, B, H) and the last ones, see :func:`~neuro_lightning.functional.gru_states.gru_states`."""
    states = gru_states(drive, weight, bias)
    return states, (states[:, -1],)


def run_lstm(drive: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, State]:
    """The states (D, S, B, H) of an LSTM that starts at zero, and its last state and cell.

    Args:
        drive: (D, S, B, 4H) what the inputs and their bias give to the gates, in torch's order.
        weight: (D, H, 4H) from the state to the gates.
        bias: (D, 4H) of the same.
    """
    state = cell = drive.new_zeros(*drive.shape[::2], weight.shape[1])
    states = []
    for driven in drive.unbind(1):
        write, keep, new, show = (driven + state @ weight + bias[:, None]).chunk(4, -1)
        cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
        state = show.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states, 1), (state, cell)


LAYERS: dict[type[nn.RNNBase], Callable[..., tuple[Tensor, State]]] = {nn.GRU: run_gru, nn.LSTM: run_lstm}
"""What runs a layer of each recurrent network."""


def _vmappable(net: nn.Module, members: Sequence[nn.Module], generators: Generators) -> nn.Module:
    """The network with layers that vmap can batch in the place of those that it cannot.

    Args:
        net: a copy of the first of the members.
        members: with the rates of dropout of each.
        generators: of the members' dropout.

    Raises:
        ConfigError: a layer has no such stand-in, or is another one in another member.
    """
    for name, layer in list(net.named_children()):
        own: list[Any] = [member.get_submodule(name) for member in members]
        if any(type(other) is not type(layer) for other in own):
            raise ConfigError(f"{name} is not the same layer in all members; train them one by one")
        if isinstance(layer, nn.RNNBase):
            dropout = MemberDropout(own, [rnn.dropout for rnn in own], generators)
            setattr(net, name, StackedRNN(layer, dropout).train(layer.training))
        elif isinstance(layer, nn.Dropout):
            dropout = MemberDropout(own, [each.p for each in own], generators)
            setattr(net, name, dropout.train(layer.training))
        elif isinstance(layer, NOT_STACKED):
            raise ConfigError(f"{type(layer).__name__} cannot be stacked; train the members one by one")
        elif any(other.extra_repr() != layer.extra_repr() for other in own):  # another rate or slope, say
            raise ConfigError(f"{name} is {layer.extra_repr()} and otherwise in other members; train them one by one")
        else:
            _vmappable(layer, own, generators)
    return net


def _set(net: nn.Module, name: str, value: nn.Parameter) -> None:
    path, _, last = name.rpartition(".")
    setattr(net.get_submodule(path), last, value)


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}
