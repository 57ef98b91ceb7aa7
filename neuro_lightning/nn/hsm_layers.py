"""The layers that the hierarchical structural model and its relatives are put together from (NDN3's, in short).

Each takes maps (B, F, H, W) and gives maps: a dense layer's are (B, U, 1, 1). Each is built from the shape it reads and
the number of neurons in the population, of which the number of its units may be a share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dog import DoGFilters, same_padding
from neuro_lightning.nn.nonlinearities import NONLINEARITIES
from neuro_lightning.nn.regularizers import nonzero_strengths, penalties
from neuro_lightning.nn.separable import SeparableLinear


def n_units(units: float | None, n_neurons: int) -> int:
    """A number of units, or a share of the neurons: 20, 11 and 20 units for 0.2 of 103, 55 and 102 neurons.

    Args:
        units: a whole number, or a share below 1 (rounded down, one at least); None for one unit a neuron.
        n_neurons: N.

    Raises:
        ConfigError: neither.
    """
    if units is None:
        return n_neurons
    if 0 < units < 1:
        return max(1, int(units * n_neurons + 1e-9))
    if units < 1 or units != int(units):
        raise ConfigError(f"units={units} is neither a whole number nor a share of the neurons between 0 and 1")
    return int(units)


class Layer(nn.Module):
    """What all layers share: nonlinearity, dropout, penalties, and how weights begin.

    Args:
        in_shape: (F, H, W) of the maps it reads.
        activation: ``none``, ``softplus``, ``relu``, ``elu`` (plus 1) or ``exp``.
        dropout: share of the outputs set to zero in training (NDN3's are shares that are kept).
        weight_std: of the normal distribution that weights are drawn from.
        bias_std: likewise; 0 for biases that begin at zero.
        reg: strengths of penalties, see ``neuro_lightning.nn.regularizers``.

    Attributes:
        out_shape: (F, H, W) of the maps it gives.

    Raises:
        ConfigError: an unknown activation or penalty, or a number that is out of range.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        activation: str = "none",
        dropout: float = 0.0,
        weight_std: float = 0.1,
        bias_std: float = 0.1,
        reg: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if activation not in NONLINEARITIES:
            raise ConfigError(f"activation={activation} is none of {', '.join(NONLINEARITIES)}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout={dropout} must lie in [0, 1): it is the share that is left out")
        if weight_std < 0 or bias_std < 0:
            raise ConfigError(f"weight_std={weight_std} and bias_std={bias_std} must not be negative")
        channels, height, width = in_shape
        self.in_shape, self.activation = (channels, height, width), activation
        self.dropout = nn.Dropout(dropout)
        self.weight_std, self.bias_std, self.reg = weight_std, bias_std, nonzero_strengths(reg)
        self.out_shape: tuple[int, int, int] = self.in_shape
        if "d2x" in self.reg and self.in_shape[1:] == (1, 1):
            raise ConfigError("reg.d2x needs weights over an image's pixels, which this layer has none of")

    def linear(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, F', H', W'), before the nonlinearity."""
        raise NotImplementedError

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, F', H', W')."""
        return self.dropout(NONLINEARITIES[self.activation].function(self.linear(maps)))

    def penalties(self) -> dict[str, Tensor]:
        """The penalties by name, each times its strength."""
        return penalties(cast(Tensor, self.weight), self.reg) if self.reg else {}

    def draw(self, bias: nn.Parameter, *weights: nn.Parameter) -> None:
        """Draw the first values of a bias and of weights."""
        nn.init.normal_(bias, 0.0, self.bias_std)
        for weight in weights:
            nn.init.normal_(weight, 0.0, self.weight_std)


class Units(Layer):
    """Base class of layers whose units read the whole image.

    Args:
        in_shape: (F, H, W).
        n_neurons: N.
        units: their number, or their share of the neurons; None for one a neuron.
        shared: see :class:`Layer`.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, *, units: float | None = None, **shared: Any) -> None:
        super().__init__(in_shape, **shared)
        self.out_shape = (n_units(units, n_neurons), 1, 1)


class Dense(Units):
    """Every unit reads everything.

    Args:
        in_shape: (F, H, W).
        n_neurons: N.
        shared: see :class:`Units`.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, **shared: Any) -> None:
        super().__init__(in_shape, n_neurons, **shared)
        self.weight = nn.Parameter(torch.empty(self.out_shape[0], *self.in_shape))
        self.bias = nn.Parameter(torch.empty(self.out_shape[0]))
        self.draw(self.bias, self.weight)

    def linear(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, U, 1, 1)."""
        return F.linear(maps.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class Separable(Units):
    """Every unit reads a weighted sum of the filters, weighted by place.

    Args:
        in_shape: (F, H, W).
        n_neurons: N.
        shared: see :class:`Units`.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, **shared: Any) -> None:
        super().__init__(in_shape, n_neurons, **shared)
        self.read = SeparableLinear(in_shape, self.out_shape[0])
        self.draw(self.read.bias, self.read.feature, self.read.spatial)
        self.read.penalties(dict.fromkeys(self.reg, 0.0))  # those that are not defined are refused now

    @property
    def weight(self) -> Tensor:
        """(U, F, H, W)."""
        return self.read.weight

    def linear(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, U, 1, 1)."""
        return self.read(maps)[:, :, None, None]

    def penalties(self) -> dict[str, Tensor]:
        """The penalties by name, each times its strength."""
        return self.read.penalties(self.reg)


class DoG(Units):
    """Differences of Gaussians that look at the whole image; of color images, at the mean of the channels.

    Args:
        in_shape: (C, H, W).
        n_neurons: N.
        parametrisation: ``smooth`` or ``published``, see :class:`neuro_lightning.nn.dog.DoGFilters`.
        shared: see :class:`Units`; penalties act on the filters.
    """

    def __init__(
        self, in_shape: Sequence[int], n_neurons: int, *, parametrisation: str = "smooth", **shared: Any
    ) -> None:
        super().__init__(in_shape, n_neurons, **shared)
        self.dog = DoGFilters(self.out_shape[0], self.in_shape[1:], parametrisation=parametrisation)
        self.bias = nn.Parameter(torch.empty(self.out_shape[0]))
        self.draw(self.bias)

    @property
    def weight(self) -> Tensor:
        """The filters, (U, 1, H, W)."""
        return self.dog()[:, None]

    def linear(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, U, 1, 1)."""
        return F.linear(maps.mean(1).flatten(1), self.dog().flatten(1), self.bias)[:, :, None, None]


class Patches(Layer):
    """Base class of layers whose filters look at a small patch, the same at every place; borders are padded with zeros.

    Args:
        in_shape: (F, H, W).
        n_neurons: not used; every layer takes it.
        filters: their number.
        size: of a patch, pixels.
        stride: None for half a patch, ``(size + 1) // 2``.
        shared: see :class:`Layer`.

    Raises:
        ConfigError: a size or a stride that is no whole number of pixels.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        n_neurons: int,
        *,
        filters: int,
        size: int,
        stride: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(in_shape, **shared)
        self.size, self.stride = size, (size + 1) // 2 if stride is None else stride
        for name, pixels in {"size": size, "stride": self.stride}.items():
            if type(pixels) is not int or pixels < 1:
                raise ConfigError(f"{name}={pixels!r} must be a whole number of pixels from 1 on")
        self.out_shape = (filters, -(-self.in_shape[1] // self.stride), -(-self.in_shape[2] // self.stride))


class Conv(Patches):
    """A convolution.

    Args:
        in_shape: (F, H, W).
        n_neurons: not used; every layer takes it.
        batch_norm: normalise each filter's output, without a scale, before the nonlinearity.
        shared: see :class:`Patches`.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, *, batch_norm: bool = False, **shared: Any) -> None:
        super().__init__(in_shape, n_neurons, **shared)
        filters = self.out_shape[0]
        self.weight = nn.Parameter(torch.empty(filters, self.in_shape[0], self.size, self.size))
        self.norm = nn.BatchNorm2d(filters, affine=False) if batch_norm else nn.Identity()
        self.bias = nn.Parameter(torch.empty(filters))
        self.draw(self.bias, self.weight)

    def linear(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, F', ceil(H / stride), ceil(W / stride))."""
        maps = F.conv2d(same_padding(maps, self.size, self.stride), self.weight, stride=self.stride)
        return self.norm(maps) + self.bias[:, None, None]


class DoGConv(Patches):
    """Differences of Gaussians on a small patch; of color images, on the channels' mean.

    A patch has 5 pixels at least (the thesis's 3 had bounds that crossed).

    Args:
        in_shape: (C, H, W).
        n_neurons: not used; every layer takes it.
        parametrisation: as in :class:`DoG`.
        shared: see :class:`Patches`.
    """

    def __init__(
        self, in_shape: Sequence[int], n_neurons: int, *, parametrisation: str = "smooth", **shared: Any
    ) -> None:
        super().__init__(in_shape, n_neurons, **shared)
        filters = self.out_shape[0]
        self.dog = DoGFilters(filters, (self.size, self.size), parametrisation=parametrisation)
        self.bias = nn.Parameter(torch.empty(filters))
        self.draw(self.bias)

    @property
    def weight(self) -> Tensor:
        """The kernels, (U, 1, size, size)."""
        return self.dog()[:, None]

    def linear(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, U, ceil(H / stride), ceil(W / stride))."""
        grey = same_padding(maps.mean(1, keepdim=True), self.size, self.stride)
        return F.conv2d(grey, self.weight, self.bias, stride=self.stride)


class Standardise(nn.Module):
    """Takes a mean off images and divides by a deviation; both stay as they are.

    Args:
        mean: of the training images' pixels.
        std: their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> likewise."""
        return (images - self.mean) / self.std


class LinScale(nn.Module):
    """``w x + b`` with two numbers for all pixels, which begin at 1 and 0 (NDN3)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Anything -> the same shape."""
        return self.scale * maps + self.shift
