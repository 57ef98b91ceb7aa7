"""Models of images whose network is built from the data's description and the settings of the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, needs_positive
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.nonlinearities import NONLINEARITIES
from neuro_lightning.nn.sessions_net import build_for_sessions


class ImageModel(PopulationModule):
    """Base class: a subclass names its network, whose settings are the model's own.

    Args:
        spec: the description of the data.
        loss: see ``neuro_lightning.losses``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.
        settings: of the network, see its class.

    Raises:
        ConfigError: see the network's class and :func:`check_output`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("images",)
    network_class: ClassVar[Any] = None  # called with the description and the settings

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: Loss | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
        **settings: Any,
    ) -> None:
        net = build_for_sessions(lambda part: self.network_class(part, **settings), spec)
        for part, own in zip(spec.parts, net.sessions if spec.sessions else [net], strict=True):
            check_output(own, part, loss)
        super().__init__(net, spec, loss=loss, optimizer=optimizer, scheduler=scheduler)


def check_output(net: nn.Module, spec: DataSpec, loss: Loss | None) -> None:
    """Check that what the network gives is in the range of the responses and of the loss.

    Args:
        net: its ``output`` is the name of the last nonlinearity, ``output_key`` that one's key in a config.
        spec: the description of the data.
        loss: None for the default.

    Raises:
        ConfigError: an output that is never negative for responses that are, or a Poisson loss of one that may be.
    """
    key, name = net.output_key, net.output
    if NONLINEARITIES[name].never_negative:
        if not spec.nonnegative:
            raise ConfigError(
                f"{key}={name} is never negative, but responses in {spec.dataset} are: take {key}=auto and a loss "
                "that suits both, loss@model.loss=auto or auto_normalised"
            )
    elif needs_positive(loss, spec):
        raise ConfigError(
            f"{key}={name} may be negative, which a Poisson loss has no meaning for: take loss@model.loss=mse"
            + (f", or {key}=softplus" if spec.nonnegative else "")
        )
