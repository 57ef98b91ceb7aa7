"""The convolutional core: one feature map of an image, shared by all neurons."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INITS = ("torch", "xavier")
NORMS = ("full", "shift", "none")


class ConvCore(nn.Module):
    """Stacked 2-D convolutions with batch normalisation and ELU; the last layer's map is what neurons read.

    The core of Lurz et al. 2021 and of the Sensorium 2022 baseline (repositories sinzlab/neuralpredictors and
    sinzlab/sensorium): there four layers of 64 channels, kernels of 9 and then 7 pixels, depth-separable from the
    second layer on, momentum 0.9. Convolutions have no bias, which batch normalisation would take away again.

    Penalties are scale-invariant in the weights they act on: batch normalisation takes their scale away too, so that
    a penalty on it could be lowered to nothing without smoothing anything.

    Args:
        image_shape: (C, H, W) of the images.
        channels: of every layer.
        layers: convolutions, 1 or more.
        first_kernel: pixels of the first layer's kernels.
        kernel: pixels of the later layers' kernels, odd; their input is padded, so that they keep the map's size.
        stride: of the first layer.
        pad_first: keep the image's size in the first layer; else its map is smaller by ``first_kernel - 1``.
        depth_separable: later layers as 1x1, depthwise and 1x1 convolutions.
        linear: without ELU: the linear-nonlinear model, whose only nonlinearity is at the output.
        init: of the kernels: ``torch`` (its uniform default) or ``xavier`` (Glorot's normal distribution, as
            published). Batch normalisation takes the scale away; small kernels turn faster at one learning rate.
        batch_norm: ``full`` learns a scale and a shift of each channel, ``shift`` the latter alone; ``none`` has no
            batch normalisation, but a bias.
        momentum: weight of the newest batch in the running statistics (torch's convention).
        dropout: share of the map's channels that is dropped in training.
        laplace: strength of :func:`laplacian_energy` of the first layer's kernels.
        group_sparsity: strength of :func:`group_sparsity` of the later layers' kernels.

    Raises:
        ValueError: another ``init`` or ``batch_norm``, no stride, a negative penalty, a kernel larger than its image,
            an even one where the map is to keep its size, or a group sparsity of depth-separable layers, whose kernels
            are no groups.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        channels: int = 64,
        layers: int = 4,
        first_kernel: int = 9,
        kernel: int = 7,
        stride: int = 1,
        pad_first: bool = False,
        depth_separable: bool = True,
        linear: bool = False,
        init: str = "torch",
        batch_norm: str = "full",
        momentum: float = 0.1,
        dropout: float = 0.0,
        laplace: float = 0.0,
        group_sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        if stride < 1 or laplace < 0 or group_sparsity < 0:
            raise ValueError(
                f"core.stride={stride} must be 1 at least, core.laplace={laplace} and "
                f"core.group_sparsity={group_sparsity} not negative"
            )
        padding = first_kernel // 2 if pad_first else 0
        height, width = ((size + 2 * padding - first_kernel) // stride + 1 for size in image_shape[1:])
        if layers < 1 or min(height, width) < 1:
            raise ValueError(
                f"core.first_kernel={first_kernel} and core.layers={layers} do not fit images of "
                f"{image_shape[1]} x {image_shape[2]} pixels"
            )
        if (layers > 1 and kernel % 2 == 0) or (pad_first and first_kernel % 2 == 0):
            raise ValueError(
                "core.kernel (and core.first_kernel, where it is padded) must be odd to keep the map's size"
            )
        if group_sparsity and depth_separable:
            raise ValueError("core.group_sparsity needs core.depth_separable=false")
        for name, value, known in (("init", init, INITS), ("batch_norm", batch_norm, NORMS)):
            if value not in known:
                raise ValueError(f"core.{name}={value} is none of {', '.join(known)}")
        self.laplace, self.group_sparsity = laplace, group_sparsity
        self.out_shape = (channels, height, width)
        self.offset, self.stride = (first_kernel - 1) / 2 - padding, stride
        bias = batch_norm == "none"
        first = nn.Conv2d(image_shape[0], channels, first_kernel, stride=stride, padding=padding, bias=bias)
        convolve = _separable if depth_separable else _full
        stack = [first, *(convolve(channels, kernel, bias) for _ in range(layers - 1))]
        if init == "xavier":
            for layer in stack:
                layer.apply(_init_xavier)
        self.layers = nn.ModuleList(
            nn.Sequential(
                layer,
                _normalise(batch_norm, channels, momentum),
                nn.Identity() if linear else nn.ELU(),
                nn.Dropout2d(dropout),
            )
            for layer in stack
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, channels, H', W') features."""
        for layer in self.layers:
            images = layer(images)
        return images

    def on_map(self, pixels: Tensor) -> Tensor:
        """Points (x, y) of the map, see :func:`on_map`, that lie above places (n, 2) in the image."""
        return on_map(pixels, self.out_shape, self.offset, self.stride)

    def filters(self) -> Tensor:
        """(channels, C, k, k) kernels of the first layer."""
        return self._kernels()[0]

    def penalties(self) -> dict[str, Tensor]:
        """The terms to add to the loss, by name; only those with a strength."""
        terms = {}
        if self.laplace:
            terms["laplace"] = self.laplace * laplacian_energy(self.filters())
        if self.group_sparsity and len(self.layers) > 1:
            sparsities = [group_sparsity(kernels) for kernels in self._kernels()[1:]]
            terms["group_sparsity"] = self.group_sparsity * sum(sparsities[1:], sparsities[0])
        return terms

    def _kernels(self) -> list[Tensor]:
        """The weights of the layers' convolutions, each the first parameter of its layer."""
        return [next(layer.parameters()) for layer in self.layers]


def on_map(pixels: Tensor, shape: Sequence[int], offset: float, stride: int) -> Tensor:
    """Places in an image as points of a map, whose outermost pixels have their centers at -1 and 1.

    Args:
        pixels: (n, 2) row and column.
        shape: (C, H, W) of the map.
        offset: pixel of the image below the center of the map's first one.
        stride: pixels of the image from one of the map's to the next.

    Returns:
        (n, 2) x and y; beyond -1 and 1 for places beyond the map.
    """
    last = pixels.new_tensor(shape[1:]) - 1
    return (2 * (pixels - offset) / (stride * last.clamp_min(1)) - 1).flip(1)


def laplacian_energy(weight: Tensor) -> Tensor:
    """How rough kernels are: energy of their Laplacian over their own, ``sum |L * w|^2 / sum |w|^2``.

    Scale-invariant (``LaplaceL2norm`` of sinzlab/neuralpredictors). ``L`` is the 5-point Laplacian; beyond its edges a
    kernel counts as zero. Taken inside the kernel only, it leaves the outermost pixels free, and they turn to noise.

    Args:
        weight: (K, C, k, k) kernels.

    Returns:
        A scalar between 0 and 64.
    """
    kernel = weight.new_tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
    rough = F.conv2d(weight.flatten(0, 1)[:, None], kernel[None, None], padding=1)
    return rough.square().sum() / weight.square().sum().clamp_min(torch.finfo(weight.dtype).tiny)


def group_sparsity(weight: Tensor) -> Tensor:
    """How evenly a layer's energy is spread over its kernels: ``sum |w_oi| / (sqrt(n) |w|)``, with 2-norms.

    A group is the kernel from one input to one output channel: few non-zero groups mean that an output channel reads
    few inputs (Ecker et al. 2019, Cadena et al. 2019). Scale-invariant.

    Args:
        weight: (K, C, k, k) kernels.

    Returns:
        A scalar from ``1 / sqrt(K C)`` (a single kernel) to 1 (all alike).
    """
    energy = weight.square().sum((2, 3))
    tiny = torch.finfo(weight.dtype).tiny  # the square root's gradient at zero
    return (energy + tiny).sqrt().sum() / (energy.numel() * energy.sum() + tiny).sqrt()


class Shift(nn.Module):
    """Adds a number to each channel of (B, C, H, W), which is learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return maps + self.bias[:, None, None]


def _normalise(kind: str, channels: int, momentum: float) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(channels, momentum=momentum, affine=kind == "full")
    return norm if kind == "full" else nn.Sequential(norm, Shift(channels))


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _full(channels: int, kernel: int, bias: bool) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=bias)


def _separable(channels: int, kernel: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=bias),
    )
