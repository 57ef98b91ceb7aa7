"""Distortions of training images: flips, rotations, brightness, saturation; redrawn for every image and epoch.

Each is an object ``transform(images (B, C, H, W), index (B,), epoch) -> images`` that works on the whole batch where
it lies. What an image gets depends on the seed, the epoch, the image's number and the transform's place in the list,
and on nothing else (see :mod:`neuro_lightning.nn.draws`). They are those of the winner of UWNDC19 (repository
apls777/kaggle-uw-neural-data-challenge).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_lightning.contracts import Batch
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.draws import uniform

Transform = Callable[[Tensor, Tensor, int], Tensor]
INTERPOLATIONS = ("bilinear", "nearest")


class Distortion:
    """Base of all: a subclass turns one number in [0, 1) for each image into a distortion of it.

    Attributes:
        seed: of the draws.
        stream: the place in the list of transforms, so that two of a kind are drawn apart.
    """

    seed: int = 0
    stream: int = 0

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Distort a batch.

        Args:
            images: (B, C, H, W).
            index: (B,) the images' numbers in their split.
            epoch: of the training.

        Returns:
            (B, C, H, W), without gradients.
        """
        with torch.no_grad():
            draws = uniform(index, seed=self.seed, epoch=epoch, stream=self.stream)[:, 0]
            return self.distort(images, draws)

    def change_batch(self, batch: Batch, epoch: int) -> Batch:
        """A training batch with its images distorted; what mixes responses, too, overrides it."""
        return {**batch, "inputs": self(batch["inputs"], batch["index"], epoch)}

    def with_stream(self, seed: int, stream: int) -> Distortion:
        """A copy of the distortion with its own stream of random numbers."""
        other = copy.copy(self)
        other.seed, other.stream = seed, stream
        return other

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Distort (B, C, H, W) images by (B,) ``draws`` in [0, 1)."""
        raise NotImplementedError


def seed_transforms(transforms: Sequence[Transform] | Mapping[str, Transform] | None, seed: int) -> list[Transform]:
    """Transforms in their order, each distortion with its own stream of random numbers.

    Args:
        transforms: a list, a mapping by name (as ``data.augment`` in a config), or None for none.
        seed: of the draws.

    Raises:
        ConfigError: something in it is no transform.
    """
    named = dict(transforms) if isinstance(transforms, Mapping) else dict(enumerate(transforms or ()))
    for name, transform in named.items():
        if not callable(transform):
            raise ConfigError(
                f"data.augment.{name}: {transform!r} is no transform; give _target_: neuro_lightning.nn.augment.X "
                "with its arguments"
            )
    return [t.with_stream(seed, i) if isinstance(t, Distortion) else t for i, t in enumerate(named.values())]


def apply_transforms(transforms: Sequence[Transform], batch: Batch, epoch: int) -> Batch:
    """A training batch after one transform after the other, see :func:`seed_transforms`."""
    for transform in transforms:
        if isinstance(transform, Distortion):
            batch = transform.change_batch(batch, epoch)
        else:
            batch = {**batch, "inputs": transform(batch["inputs"], batch["index"], epoch)}
    return batch


class Flip(Distortion):
    """Mirrors a random share of the images.

    Args:
        p: the share.

    Raises:
        ConfigError: ``p`` is no share.
    """

    axis: ClassVar[int]

    def __init__(self, p: float = 0.5) -> None:
        _check(self, "p", p, 0 <= p <= 1, "lie in [0, 1]")
        self.p = p

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Mirror (B, C, H, W) images where the draw is below ``p``."""
        return torch.where(_per_image(draws < self.p), images.flip(self.axis), images)


class FlipLeftRight(Flip):
    """Swaps left and right in a random half of the images; ``p`` is the share."""

    axis = -1


class FlipUpDown(Flip):
    """Swaps top and bottom in a random half of the images; ``p`` is the share."""

    axis = -2


class Rotate(Distortion):
    """Turns each image by an angle between ``-max_angle`` and ``max_angle``; what comes in from outside is black.

    Args:
        max_angle: in degrees, above 0 and at most 180.
        interpolation: ``bilinear`` or ``nearest``.

    Raises:
        ConfigError: either is something else.
    """

    def __init__(self, max_angle: float, interpolation: str = "bilinear") -> None:
        _check(self, "max_angle", max_angle, 0 < max_angle <= 180, "lie above 0 and be at most 180 (degrees)")
        self.max_angle, self.interpolation = max_angle, _interpolation(self, interpolation)

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Rotate (B, C, H, W) images; a draw of a half leaves an image as it is."""
        return rotate(images, (2 * draws - 1) * self.max_angle, self.interpolation)


def _are_numbers(values: object) -> bool:
    """Whether something is a list of at least one finite number."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return False
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


class RotateChoice(Distortion):
    """Turns each image by one of several angles; what comes in from outside is black.

    Args:
        angles: in degrees, counterclockwise; list 0 too if some images shall stay as they are.
        interpolation: ``bilinear`` or ``nearest``.

    Raises:
        ConfigError: there is no angle, one is not finite, or the interpolation is unknown.
    """

    def __init__(self, angles: Sequence[float], interpolation: str = "bilinear") -> None:
        if not _are_numbers(angles):
            raise ConfigError(f"RotateChoice: angles={angles!r} must be a list of at least one angle in degrees")
        self.angles, self.interpolation = tuple(map(float, angles)), _interpolation(self, interpolation)

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Rotate (B, C, H, W) images by the angle that the draw chooses."""
        angles = torch.tensor(self.angles, device=images.device, dtype=images.dtype)
        return rotate(images, angles[(draws * len(angles)).long()], self.interpolation)


class Brightness(Distortion):
    """Multiplies each image by a factor between ``1 - max_factor`` and ``1 + max_factor``; whites are clipped.

    For images in [0, 1], which they stay.

    Args:
        max_factor: above 0 and at most 1.

    Raises:
        ConfigError: it is something else.
    """

    def __init__(self, max_factor: float) -> None:
        _check(self, "max_factor", max_factor, 0 < max_factor <= 1, "lie above 0 and be at most 1")
        self.max_factor = max_factor

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Scale (B, C, H, W) images; a draw of a half leaves an image as it is."""
        return (images * _per_image(1 + (2 * draws - 1) * self.max_factor)).clamp(0, 1)


class Saturation(Distortion):
    """Multiplies each RGB image's saturation (the S of HSV, at most 1) by a factor between two bounds.

    For images in [0, 1], which they stay. The winner of UWNDC19 used 0.7 and 1.3.

    Args:
        min_value: the least factor, at least 0.
        max_value: the largest.

    Raises:
        ConfigError: the bounds are negative or in the wrong order.
    """

    def __init__(self, min_value: float, max_value: float) -> None:
        _check(self, "min_value", min_value, 0 <= min_value < math.inf, "be at least 0")
        _check(self, "max_value", max_value, min_value <= max_value < math.inf, f"be at least min_value={min_value}")
        self.min_value, self.max_value = min_value, max_value

    def distort(self, images: Tensor, draws: Tensor) -> Tensor:
        """Saturate (B, 3, H, W) images."""
        return saturate(images, self.min_value + (self.max_value - self.min_value) * draws)


def rotate(images: Tensor, angles: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Turn each image about its centre, counterclockwise as it is seen.

    Args:
        images: (B, C, H, W).
        angles: (B,) in degrees.
        interpolation: ``bilinear`` or ``nearest``.

    Returns:
        (B, C, H, W); zero where there was no image. No value lies beyond the image's own and zero.
    """
    height, width = images.shape[-2:]
    angles = torch.deg2rad(angles.to(images.dtype))
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # where each pixel comes from; the grid's unit is half a side, so that a tall image needs other factors
    rows = [torch.stack([cos, -sin * height / width, zero], -1), torch.stack([sin * width / height, cos, zero], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, mode=interpolation, padding_mode="zeros", align_corners=False)
    if interpolation == "nearest":
        return turned
    # a mean of several values lies between them, but for rounding
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return turned.clamp(low.clamp(max=0), high.clamp(min=0))


def saturate(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply the saturation S of HSV by a factor; S stays at most 1, hue and value stay as they are.

    In HSV each channel is V - V S k, and k depends on the hue only: so V - channel is multiplied by what S is.

    Args:
        images: (B, 3, H, W) in [0, 1].
        factors: (B,) at least 0.

    Raises:
        ConfigError: there are not three channels.
    """
    if images.shape[1] != 3:
        raise ConfigError(
            f"data.augment: saturation needs RGB images, these have {images.shape[1]} channel(s); leave it out"
        )
    value = images.amax(1, keepdim=True)
    span = value - images.amin(1, keepdim=True)
    # S V = span, so a factor above V / span would make S larger than 1; grey pixels (0 / 0) stay grey anyway
    ratio = torch.where(span > 0, value / span, math.inf).minimum(_per_image(factors))
    return torch.addcmul(value, value - images, ratio, value=-1).clamp_(min=0)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _interpolation(owner: Distortion, name: str) -> str:
    lowered = str(name).lower()
    if lowered not in INTERPOLATIONS:
        raise ConfigError(
            f"{type(owner).__name__}: interpolation={name!r} is unknown; choose {' or '.join(INTERPOLATIONS)}"
        )
    return lowered


def _check(owner: Distortion, name: str, value: float, good: bool, rule: str) -> None:
    if not good:
        raise ConfigError(f"{type(owner).__name__}: {name}={value} must {rule}")
