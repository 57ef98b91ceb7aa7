"""Convolutional networks that are written as lists of layers, in the manner of the UWNDC19 winner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.nonlinearities import NONLINEARITIES
from neuro_lightning.nn.response_unit import ResponseUnit

POOL = 2


@dataclass(frozen=True)
class _Layer:
    """What the layers' descriptions share: they are made from a config's plain values."""

    example: ClassVar[dict[str, Any]]

    @classmethod
    def parse(cls, values: Any, key: str) -> Self:
        """A layer from a config's dictionary.

        Args:
            values: the layer's settings by name.
            key: where they stand in the config, for errors.

        Raises:
            ConfigError: a setting is unknown, missing or out of its range.
        """
        known = {f.name: f for f in fields(cls)}
        example = f"{{{', '.join(f'{name}: {value}' for name, value in cls.example.items())}}}"
        if not isinstance(values, Mapping):
            raise ConfigError(f"{key} must be a layer such as {example}, not {values!r}")
        if unknown := sorted(set(map(str, values)) - set(known)):
            raise ConfigError(f"{key}.{unknown[0]}: no such setting; a layer has {', '.join(known)}")
        if missing := sorted(set(cls.example) - set(values)):
            raise ConfigError(f"{key} needs {missing[0]!r}, as in {example}")
        for name, value in values.items():
            words, may_be = RANGES[name]
            if not may_be(value):
                raise ConfigError(f"{key}.{name}={value!r}: give {words}")
        return cls(**values)


def _is_number(value: Any, low: float, below: float = float("inf"), kind: type = float) -> bool:
    """Whether a value is a number of a kind (every whole number is a float, too) from ``low`` to ``below``."""
    return type(value) in (int, kind) and low <= value < below


WHOLE = "a whole number from 1", lambda value: _is_number(value, 1, kind=int)
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "filters": WHOLE,
    "units": WHOLE,
    "kernel": WHOLE,
    "padding": ("same or valid", lambda value: value in ("same", "valid")),
    "dropout": ("a number from 0 to below 1", lambda value: _is_number(value, 0, 1)),
    "l2": ("a number from 0", lambda value: _is_number(value, 0)),
    "batch_norm": ("true or false", lambda value: isinstance(value, bool)),
}
"""By setting: the values it may have, in words, and whether one of them is given."""


@dataclass(frozen=True)
class ConvLayer(_Layer):
    """A convolutional layer, a line of a config.

    Attributes:
        filters: output channels.
        kernel: height and width of the kernel, pixels.
        padding: ``same`` keeps height and width, ``valid`` loses ``kernel - 1`` pixels of each.
        dropout: share of the input values that are dropped in training.
        l2: strength of the penalty ``l2 * sum(w^2) / 2`` on the weights.
        batch_norm: normalize after the pooling.
    """

    filters: int
    kernel: int
    padding: str = "same"
    dropout: float = 0.0
    l2: float = 0.0
    batch_norm: bool = False

    example: ClassVar = {"filters": 32, "kernel": 5}


@dataclass(frozen=True)
class DenseLayer(_Layer):
    """A fully connected layer, a line of a config.

    Attributes:
        units: outputs.
        dropout: share of the input values that are dropped in training.
        l2: strength of the penalty ``l2 * sum(w^2) / 2`` on the weights.
    """

    units: int
    dropout: float = 0.0
    l2: float = 0.0

    example: ClassVar = {"units": 512}


class ConvBlock(nn.Module):
    """Dropout, convolution and ReLU, 2 x 2 max-pooling, batch normalization.

    Args:
        channels: input channels C.
        layer: what to build.
    """

    def __init__(self, channels: int, layer: ConvLayer) -> None:
        super().__init__()
        self.l2 = layer.l2
        self.dropout = nn.Dropout(layer.dropout) if layer.dropout else nn.Identity()
        self.linear = glorot(nn.Conv2d(channels, layer.filters, layer.kernel, padding=layer.padding))
        self.pool = nn.MaxPool2d(POOL)
        self.norm = nn.BatchNorm2d(layer.filters, eps=1e-3) if layer.batch_norm else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, filters, H // 2, W // 2), with ``padding: valid`` of what the kernel leaves."""
        return self.norm(self.pool(self.linear(self.dropout(inputs)).relu()))


class DenseBlock(nn.Module):
    """Dropout on the input, linear map, activation.

    Args:
        inputs: width of the input.
        layer: what to build.
        activation: after the linear map, a name in ``NONLINEARITIES``.
    """

    def __init__(self, inputs: int, layer: DenseLayer, activation: str = "relu") -> None:
        super().__init__()
        self.l2 = layer.l2
        self.dropout = nn.Dropout(layer.dropout) if layer.dropout else nn.Identity()
        self.linear = glorot(nn.Linear(inputs, layer.units))
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs) -> (B, units)."""
        return NONLINEARITIES[self.activation].function(self.linear(self.dropout(inputs)))


LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d)


def glorot(layer: LayerT) -> LayerT:
    """The layer with Glorot-uniform weights and zero biases, TensorFlow's defaults."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def pooled_shape(image_shape: Sequence[int], layers: Sequence[ConvLayer], key: str = "model.conv") -> tuple[int, ...]:
    """(C, H, W) after the convolutional layers, each followed by its pooling.

    Raises:
        ConfigError: an image shrinks to nothing on the way.
    """
    channels, *size = image_shape
    for i, layer in enumerate(layers):
        lost = layer.kernel - 1 if layer.padding == "valid" else 0
        before, size = size, [(pixels - lost) // POOL for pixels in size]
        if min(size) < 1:
            shown = " x ".join(map(str, image_shape[1:]))
            raise ConfigError(
                f"{key}: nothing is left of images of {shown} pixels after layer {i}, which gets {before[0]} x "
                f"{before[1]}: use fewer layers, or padding: same"
            )
        channels = layer.filters
    return (channels, *size)


class ConvCore(nn.Module):
    """Convolutional and dense blocks, which all neurons share.

    Args:
        image_shape: (C, H, W).
        convs: convolutional layers.
        denses: dense layers behind them.
    """

    def __init__(self, image_shape: Sequence[int], convs: Sequence[ConvLayer], denses: Sequence[DenseLayer]) -> None:
        super().__init__()
        channels = [image_shape[0], *(layer.filters for layer in convs)]
        self.conv = nn.Sequential(*map(ConvBlock, channels, convs))
        widths = [math.prod(pooled_shape(image_shape, convs)), *(layer.units for layer in denses)]
        self.dense = nn.Sequential(*map(DenseBlock, widths, denses))
        self.width = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, width)."""
        return self.dense(self.conv(images).flatten(1))


class ConvNet(nn.Module):
    """Images -> core of convolutional and dense blocks -> one rectified value for each neuron.

    Source: the winner of the UW Neural Data Challenge 2019 (repository apls777/kaggle-uw-neural-data-challenge). Its
    final model, three convolutions of 32, 64 and 96 filters and one dense layer of 512, has 1,986,610 parameters
    for 18 neurons and color images of 48 x 48.

    A rectified output is never negative, as the counts it predicts. Its price: a neuron whose output is zero for every
    image has no gradient and never comes back. With ``output_bias="mean"`` each neuron starts at its mean response
    instead of zero, where the winner's network starts about half of them below zero.

    Args:
        spec: the description of the data.
        conv: convolutional layers, see :class:`ConvLayer`.
        dense: dense layers, see :class:`DenseLayer`.
        logits: ``dropout`` and ``l2`` of the output layer.
        output: ``relu``, ``softplus``, ``none`` or another of ``NONLINEARITIES``; ``auto`` is ReLU, and none where
            responses may be negative, as z-scored ones are.
        output_bias: what the output layer's bias starts at: each neuron's ``mean`` response, or ``zero``.

    Raises:
        ConfigError: a layer is not described as it should be, or images shrink to nothing on their way through them.
    """

    output_key = "model.output"

    def __init__(
        self,
        spec: DataSpec,
        *,
        conv: Sequence[dict[str, Any]],
        dense: Sequence[dict[str, Any]],
        logits: dict[str, Any],
        output: str = "auto",
        output_bias: str = "mean",
    ) -> None:
        super().__init__()
        if output_bias not in ("mean", "zero"):
            raise ConfigError(f"model.output_bias={output_bias}: give mean or zero")
        if output == "auto":
            output = "relu" if spec.nonnegative else "none"
        if output not in NONLINEARITIES:
            raise ConfigError(f"model.output={output}: give auto, {', '.join(NONLINEARITIES)}")
        self.output = output
        convs = [ConvLayer.parse(values, f"model.conv[{i}]") for i, values in enumerate(conv or ())]
        denses = [DenseLayer.parse(values, f"model.dense[{i}]") for i, values in enumerate(dense or ())]
        last = DenseLayer.parse({"units": spec.n_neurons, **(logits or {})}, "model.logits")
        self.core = ConvCore(spec.image_shape, convs, denses)
        self.logits = DenseBlock(self.core.width, last, output)
        self.unit = ResponseUnit(spec)
        spec = spec.in_response_units()
        if output_bias == "mean" and len(spec.mean_rates):
            with torch.no_grad():
                self.logits.linear.bias.copy_(NONLINEARITIES[output].inverse(torch.tensor(spec.mean_rates)))

    def forward(self, inputs: Tensor) -> Output:
        """(B, C, H, W) images -> rates (B, N) and, in training, the L2 penalty of the layers that have one."""
        output: Output = {"rates": self.unit(self.logits(self.core(inputs)))}
        if self.training and (penalty := self.penalty()) is not None:
            output["losses"] = {"l2": penalty}
        return output

    def penalty(self) -> Tensor | None:
        """The sum of the layers' L2 penalties; None without any. A layer that is frozen has none."""
        blocks = [block for block in (*self.core.conv, *self.core.dense, self.logits) if block.l2]
        weights = [(block.l2, block.linear.weight) for block in blocks if block.linear.weight.requires_grad]
        return sum(l2 / 2 * weight.square().sum() for l2, weight in weights) if weights else None
