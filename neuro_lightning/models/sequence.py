"""Models of spikes or traces whose network is built from the data's description and the settings of the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.masking import configure_masking


class SequenceModel(PopulationModule):
    """Base class: a subclass names its network, whose settings are the model's own.

    Args:
        spec: the description of the data.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for traces.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.
        settings: of the network, see its class.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")
    network_class: ClassVar[Any] = None  # called with the description, `names` for its readout, and the settings
    masks_whole_steps: ClassVar[bool] = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
        **settings: Any,
    ) -> None:
        net = self.network_class(spec, names=readout_names(loss, spec), **settings)
        if self.masks_whole_steps:
            configure_masking(masking, block=net.stride, kind=spec.kind)
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)
