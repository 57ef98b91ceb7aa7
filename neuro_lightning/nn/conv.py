"""Convolutional networks that are written as lists of layers, in the manner of the UWNDC19 winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Output
from neuro_lightning.errors import ConfigError

RECTIFIERS = {"relu": nn.ReLU, "softplus": nn.Softplus, "none": nn.Identity}
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
            if not _in_range(name, value):
                raise ConfigError(f"{key}.{name}={value!r}: give {RANGES[name]}")
        return cls(**values)


RANGES = {
    "filters": "a whole number from 1",
    "units": "a whole number from 1",
    "kernel": "a whole number from 1",
    "padding": "same or valid",
    "dropout": "a number from 0 to below 1",
    "l2": "a number from 0",
    "batch_norm": "true or false",
}


def _in_range(name: str, value: Any) -> bool:
    if name == "padding":
        return value in ("same", "valid")
    if name == "batch_norm":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name in ("filters", "units", "kernel"):
        return isinstance(value, int) and value >= 1
    return 0 <= value < (1 if name == "dropout" else float("inf"))


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
        activation: after the linear map.
    """

    def __init__(self, inputs: int, layer: DenseLayer, activation: nn.Module) -> None:
        super().__init__()
        self.l2 = layer.l2
        self.dropout = nn.Dropout(layer.dropout) if layer.dropout else nn.Identity()
        self.linear = glorot(nn.Linear(inputs, layer.units))
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs) -> (B, units)."""
        return self.activation(self.linear(self.dropout(inputs)))


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


class ConvNet(nn.Module):
    """Images -> convolutional blocks -> dense blocks -> one rectified value for each neuron.

    Source: the winner of the UW Neural Data Challenge 2019 (repository apls777/kaggle-uw-neural-data-challenge). Its
    final model, three convolutions of 32, 64 and 96 filters and one dense layer of 512, has 1,986,610 parameters
    for 18 neurons and color images of 48 x 48.

    Args:
        image_shape: (C, H, W).
        n_neurons: N.
        conv: the convolutional layers.
        dense: the dense layers.
        logits: dropout and L2 penalty of the output layer; its units are the neurons.
        output: what rectifies the output: ``relu``, ``softplus`` or ``none``.
        bias: (N,) of the output layer at the start, in units of the targets; zero without.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        n_neurons: int,
        *,
        conv: Sequence[ConvLayer],
        dense: Sequence[DenseLayer],
        logits: DenseLayer,
        output: str = "relu",
        bias: Sequence[float] = (),
    ) -> None:
        super().__init__()
        channels = [image_shape[0], *(layer.filters for layer in conv)]
        self.conv = nn.Sequential(*(ConvBlock(c, layer) for c, layer in zip(channels, conv, strict=False)))
        shape = pooled_shape(image_shape, conv)
        widths = [shape[0] * shape[1] * shape[2], *(layer.units for layer in dense)]
        self.dense = nn.Sequential(*(DenseBlock(w, layer, nn.ReLU()) for w, layer in zip(widths, dense, strict=False)))
        last = DenseLayer(n_neurons, logits.dropout, logits.l2)
        self.logits = DenseBlock(widths[-1], last, RECTIFIERS[output]())
        if len(bias):
            start = torch.tensor(bias, dtype=torch.float32)
            if output == "softplus":  # its inverse, so that the rectified value is the one that was asked for
                start = start.clamp_min(1e-3).expm1().log()
            with torch.no_grad():
                self.logits.linear.bias.copy_(start)

    def forward(self, inputs: Tensor) -> Output:
        """(B, C, H, W) images -> rates (B, N) and, in training, the L2 penalty of the layers that have one."""
        output: Output = {"rates": self.logits(self.dense(self.conv(inputs).flatten(1)))}
        if self.training and (penalty := self.penalty()) is not None:
            output["losses"] = {"l2": penalty}
        return output

    def penalty(self) -> Tensor | None:
        """The sum of the layers' L2 penalties; None without any. A layer that is frozen has none."""
        blocks = [block for block in (*self.conv, *self.dense, self.logits) if block.l2]
        weights = [(block.l2, block.linear.weight) for block in blocks if block.linear.weight.requires_grad]
        return sum(l2 / 2 * weight.square().sum() for l2, weight in weights) if weights else None
