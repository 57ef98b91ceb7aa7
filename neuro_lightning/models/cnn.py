"""The convolutional network that won the UW Neural Data Challenge of 2019, layer by layer from the config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss
from neuro_lightning.models.warm_start import WarmStartModule
from neuro_lightning.nn.conv import RECTIFIERS, ConvLayer, ConvNet, DenseLayer


class CNN(WarmStartModule):
    """Responses to images from convolutions, dense layers and one output for each neuron.

    A rectified output is never negative, as the counts it predicts. Its price: a neuron whose output is zero for every
    image has no gradient and never comes back. With ``output_bias: mean`` each neuron starts at its mean response
    instead of zero, where the winner's network starts about half of them below zero.

    Args:
        spec: the description of the data.
        conv: convolutional layers, see :class:`neuro_lightning.nn.conv.ConvLayer`.
        dense: dense layers, see :class:`neuro_lightning.nn.conv.DenseLayer`.
        logits: ``dropout`` and ``l2`` of the output layer.
        output: ``relu``, ``softplus`` or ``none``; ``auto`` is ReLU, and none where responses may be negative, as
            z-scored ones are.
        output_bias: what the output layer's bias starts at: each neuron's ``mean`` response, or ``zero``.
        init_from: a checkpoint or a run's folder whose layers to begin with, or None.
        init_layers: which layers those are.
        freeze: layers that are not trained.
        loss: see ``neuro_lightning.losses``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: a layer is not described as it should be, images shrink to nothing on their way through the
            layers, or a rectified output is asked for negative responses.
    """

    kinds: ClassVar[tuple[str, ...]] = ("images",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        conv: Sequence[dict[str, Any]],
        dense: Sequence[dict[str, Any]],
        logits: dict[str, Any],
        output: str = "auto",
        output_bias: str = "mean",
        init_from: str | None = None,
        init_layers: Sequence[str] = ("conv",),
        freeze: Sequence[str] = (),
        loss: Loss | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if output_bias not in ("mean", "zero"):
            raise ConfigError(f"model.output_bias={output_bias}: give mean or zero")
        net = ConvNet(
            spec.image_shape,
            spec.n_neurons,
            conv=[ConvLayer.parse(values, f"model.conv[{i}]") for i, values in enumerate(conv or ())],
            dense=[DenseLayer.parse(values, f"model.dense[{i}]") for i, values in enumerate(dense or ())],
            logits=DenseLayer.parse({"units": spec.n_neurons, **(logits or {})}, "model.logits"),
            output=rectifier(output, spec),
            bias=spec.mean_rates if output_bias == "mean" else (),
        )
        super().__init__(
            net, spec, init_from=init_from, init_layers=init_layers, freeze=freeze,
            loss=loss, optimizer=optimizer, scheduler=scheduler,
        )  # fmt: skip


def rectifier(output: str, spec: DataSpec) -> str:
    """The name of the function that is applied to the output.

    Raises:
        ConfigError: there is none of this name, or its values cannot be those of the data.
    """
    if output not in ("auto", *RECTIFIERS):
        raise ConfigError(f"model.output={output}: give auto, {', '.join(RECTIFIERS)}")
    if output == "auto":
        return "relu" if spec.nonnegative else "none"
    if not spec.nonnegative and output != "none":
        raise ConfigError(
            f"model.output={output}: it is never negative, and responses of {spec.dataset} are: give model.output=none"
        )
    return output
