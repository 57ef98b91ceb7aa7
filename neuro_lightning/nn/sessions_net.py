"""Networks of several sessions with one core: each session has its own read-in and readout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError

Shape = tuple[int, ...] | None


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
    own, shared = getattr(net, "core", None), getattr(other, "core", None)
    if not isinstance(own, nn.Module) or not isinstance(shared, nn.Module):
        raise ConfigError(
            f"{type(net).__name__} has no core that several recordings could share: give one recording, or a model "
            "with a core, such as model=gru or model=core_readout"
        )
    if different := first_difference(own.state_dict(), shared.state_dict()):
        name, *shapes = different
        raise ConfigError(
            f"{which} cannot share a core of {type(net).__name__}: {name} would have the shapes {shapes[1]} and "
            f"{shapes[0]}"
        )
    net.core = shared


def first_difference(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> tuple[str, Shape, Shape] | None:
    """The first weight whose shape differs, and its shape in both, None where it is missing; None where all are alike.

    Args:
        weights: by name.
        others: likewise.
    """
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (weights, others)]
    for name in {**shapes[0], **shapes[1]}:
        if shapes[0].get(name) != shapes[1].get(name):
            return name, shapes[0].get(name), shapes[1].get(name)
    return None
