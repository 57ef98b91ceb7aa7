"""Networks of several sessions with one core: each session has its own read-in and readout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError


class SessionsNet(nn.Module):
    """The networks of several sessions, all with the core of the first; see ``contracts.call_network``.

    Args:
        nets: the network of each session, whose ``core`` knows no neurons.
        names: of the sessions, for messages.

    Raises:
        ConfigError: the networks have no cores, or cores of different shapes.
    """

    def __init__(self, nets: Sequence[nn.Module], names: Sequence[str]) -> None:
        super().__init__()
        for net, name in zip(nets, names, strict=True):
            share_core(net, nets[0], f"sessions {names[0]} and {name}")
        self.sessions = nn.ModuleList(nets)


def build_for_sessions(build: Callable[[DataSpec], nn.Module], spec: DataSpec, core_bins: int = 0) -> nn.Module:
    """The network of one recording, or those of several with one core.

    Args:
        build: description of one recording -> its network.
        spec: the description of the data.
        core_bins: bins L that the core is made for, where sessions are shorter.

    Raises:
        ConfigError: see :class:`SessionsNet`.
    """
    longest = max(core_bins, *(part.n_total for part in spec.parts))  # positions in time are made for the longest
    nets = [build(replace(part, n_bins=longest - part.n_forward)) for part in spec.parts]
    if not spec.sessions:
        return nets[0]
    return SessionsNet(nets, [part.session for part in spec.sessions])


def share_core(net: nn.Module, other: nn.Module, which: str) -> None:
    """Give a network the core of another one, in place of its own.

    Args:
        net: gets the core.
        other: has it.
        which: the two networks, for the message.

    Raises:
        ConfigError: one of them has no core, or their cores have different shapes.
    """
    cores = getattr(net, "core", None), getattr(other, "core", None)
    if not all(isinstance(core, nn.Module) for core in cores):
        raise ConfigError(
            f"{type(net).__name__} has no core that several recordings could share: give one recording, or a model "
            "with a core, such as model=gru or model=core_readout"
        )
    shapes = [{name: tuple(value.shape) for name, value in core.state_dict().items()} for core in cores]
    if different := sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)):
        first = different[0]
        raise ConfigError(
            f"{which} cannot share a core of {type(net).__name__}: {first} would have the shapes "
            f"{shapes[1].get(first)} and {shapes[0].get(first)}"
        )
    net.core = cores[1]
