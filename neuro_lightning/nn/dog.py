"""Differences of Gaussians: the first stage of the hierarchical structural model.

A unit looks at the image S through a center and a wider surround that share their position (Antolik et al. 2016):

    u = sum_xy S(x, y) * [a1 g(x, y; s1) - a2 g(x, y; s1 + s2)],    g(x, y; s) = exp(-r^2 / 2s) / (2 pi s)

with r the distance of pixel (x, y) from (mx, my). ``s1`` and ``s2`` are **variances** in square pixels; six numbers
describe a unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError

MARGIN = 2.0  # pixels from the first row and from the size that a center keeps
SMALLEST = 5  # below, the bounds of the center cross
LEAST_AMPLITUDE, START_AMPLITUDE = 1e-6, 10.0  # the least there may be, the greatest there is at the start
PARAMETRISATIONS = ("smooth", "published")


def gaussian_bounds(size: Sequence[int]) -> dict[str, tuple[list[float], list[float]]]:
    """The published bounds, for images of any size.

    The center lies in [2, size - 2] (pixels count from 0), a variance in [1, int(0.82 size)] square pixels, of the
    shorter side: [2, 29] and [1, 25] for the 31 x 31 images of Antolik et al. 2016, and what NDN3 (repository
    NeuroTheoryUMD/NDN3) takes for convolutional patches. Amplitudes are positive.

    Args:
        size: (H, W).

    Returns:
        Lower and upper bounds of ``amplitude`` (center, surround), ``variance`` (s1, s2), ``center`` (x, y).

    Raises:
        ConfigError: a side below 5 pixels, for which the bounds of the center cross.
    """
    height, width = size
    if min(size) < SMALLEST:
        raise ConfigError(
            f"a difference of Gaussians needs {SMALLEST} x {SMALLEST} pixels at least, not {height} x {width}: "
            "its center keeps 2 pixels from the edges"
        )
    widest = float(int(0.82 * min(size)))
    return {
        "amplitude": ([LEAST_AMPLITUDE] * 2, [math.inf] * 2),
        "variance": ([1.0, 1.0], [widest, widest]),
        "center": ([MARGIN, MARGIN], [width - MARGIN, height - MARGIN]),
    }


class DoGFilters(nn.Module):
    """The filters of K differences of Gaussians, from six parameters each.

    Two parametrisations within the same bounds:

    - ``published`` (NDN3): the parameters themselves, clipped where they are used. Beyond a bound the gradient is
      zero and a unit may never come back; a quasi-Newton fit with bounds has no such trouble.
    - ``smooth``: sigmoids between the bounds, a softplus for the amplitudes: the gradient never dies.

    Units start uniformly within the bounds (amplitudes up to 10). NDN3 adds 2 to the first y by mistake; we do not.

    Args:
        units: K.
        size: (H, W) of the image or patch.
        parametrisation: ``smooth`` or ``published``.

    Raises:
        ConfigError: another parametrisation, or an image too small.
    """

    def __init__(self, units: int, size: Sequence[int], *, parametrisation: str = "smooth") -> None:
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise ConfigError(f"parametrisation={parametrisation} is none of {', '.join(PARAMETRISATIONS)}")
        self.units, self.size, self.smooth = units, tuple(size), parametrisation == "smooth"
        self.limits = gaussian_bounds(size)
        for name, limits in self.limits.items():
            low, high = (torch.tensor(limit)[:, None] for limit in limits)
            self.register_buffer(f"{name}_low", low, persistent=False)
            self.register_buffer(f"{name}_high", high, persistent=False)
            top = START_AMPLITUDE if name == "amplitude" else high
            start = low + (top - low) * torch.rand(2, units)
            setattr(self, name, nn.Parameter(self._inverse(name, start) if self.smooth else start))

    def bounds(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Bounds (2, 1) of each parameter as it is stored, for an optimizer that takes them; none if smooth."""
        if self.smooth:
            return {}
        return {name: (getattr(self, f"{name}_low"), getattr(self, f"{name}_high")) for name in self.limits}

    def bounded(self, name: str) -> Tensor:
        """``amplitude`` (a1, a2), ``variance`` (s1, s2) or ``center`` (x, y) within its bounds, (2, K)."""
        raw, low, high = getattr(self, name), getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
        if not self.smooth:
            return raw.clamp(low, high)
        return low + F.softplus(raw) if name == "amplitude" else low + (high - low) * raw.sigmoid()

    def _inverse(self, name: str, values: Tensor) -> Tensor:
        """The stored parameters of which :meth:`bounded` makes ``values``; kept off the flat ends."""
        low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
        if name == "amplitude":
            return (values - low).clamp_min(1e-3).expm1().log()
        return ((values - low) / (high - low)).clamp(0.02, 0.98).logit()

    @torch.no_grad()
    def assign(self, **values: Tensor) -> None:
        """Set ``amplitude``, ``variance`` or ``center`` (2, K) to values within the bounds."""
        for name, value in values.items():
            value = value.to(getattr(self, name))
            getattr(self, name).copy_(self._inverse(name, value) if self.smooth else value)

    def forward(self) -> Tensor:
        """The filters, (K, H, W).

        A Gaussian of x and y is the product of one of x and one of y, so that a filter takes 2 (H + W) exponentials.
        """
        variance, (mx, my) = self.bounded("variance"), self.bounded("center")
        variance = torch.stack([variance[0], variance.sum(0)])  # the surround is always wider than the center
        scale = self.bounded("amplitude") / (2 * math.pi * variance)
        scale = torch.stack([scale[0], -scale[1]])
        y, x = (torch.arange(n, dtype=variance.dtype, device=variance.device) for n in self.size)
        along_x = (-(x - mx[:, None]).square() / (2 * variance[..., None])).exp()  # (2, K, W)
        along_y = (-(y - my[:, None]).square() / (2 * variance[..., None])).exp() * scale[..., None]
        return torch.einsum("gky,gkx->kyx", along_y, along_x)

    @torch.no_grad()
    def table(self) -> dict[str, Tensor]:
        """What is drawn and compared, each (K,).

        Position ``x``, ``y`` in pixels, amplitudes ``a1``, ``a2``, and variances ``s1`` of the center and ``s2``, of
        which the surround's is the sum, ``s1 + s2``.
        """
        (a1, a2), (s1, s2), (x, y) = (self.bounded(name) for name in ("amplitude", "variance", "center"))
        return {"x": x, "y": y, "a1": a1, "a2": a2, "s1": s1, "s2": s2}


def same_padding(images: Tensor, size: int, stride: int) -> Tensor:
    """Pad (B, F, H, W) with zeros such that a convolution gives ceil(H / stride) x ceil(W / stride) outputs.

    Where the padding is odd the right and lower edge get the greater part, as in TensorFlow ("SAME").
    """
    pads: list[int] = []
    for side in (images.shape[3], images.shape[2]):
        total = max(0, (-(-side // stride) - 1) * stride + size - side)
        pads += [total // 2, total - total // 2]
    return F.pad(images, pads)
