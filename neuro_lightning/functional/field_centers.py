"""Where in the image each neuron looks, found from responses before any network is trained."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuro_lightning.functional.laplacian_regression import laplacian_regression

STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
BANDS = (1 / 32, 1 / 16, 1 / 8)
"""Sizes of the details whose contrast is looked at, as shares of the image's shorter side."""


def field_centers(images: Tensor, responses: Tensor, mask: Tensor) -> Tensor:
    """The places of the neurons' receptive fields in the image.

    Two maps are made of each neuron. One is the energy of its linear filter, from a regression with smooth weights: it
    finds neurons that are selective to the sign of the contrast (simple cells). The other is how far responses go
    together with the local contrast: it finds those that are not (complex cells). The center is where their product is
    largest. The contrast is that of the pixels or of details of one of three sizes (differences of Gaussians):
    whichever goes together best with the responses of all neurons.

    Args:
        images: (B, C, H, W).
        responses: (B, N), anything where ``mask`` is False.
        mask: (B, N) bool.

    Returns:
        (N, 2) row and column in pixels; the middle of the image for neurons whose responses do not vary.
    """
    images, height, width = images.float(), *images.shape[2:]
    side = min(height, width)
    filters = laplacian_regression(images, responses, mask, STRENGTHS).weight.float()
    energy = _smooth(filters.square().sum(1), side / 10)
    found = [_correlations(contrast, responses, mask) for contrast in _contrasts(images, side)]
    both = energy * max(found, key=lambda each: float(each.amax((1, 2)).square().mean()))
    best, largest = both.flatten(1).argmax(1), both.flatten(1).amax(1)
    centers = torch.stack([best // width, best % width], 1).to(images.dtype)
    return torch.where((largest > 0)[:, None], centers, centers.new_tensor([(height - 1) / 2, (width - 1) / 2]))


def _contrasts(images: Tensor, side: int) -> Iterator[Tensor]:
    """(B, H, W) local contrast of the pixels, and of the details of each size."""
    pixels = images - images.mean(0)
    yield _smooth(pixels.square().sum(1), side / 16).sqrt()
    for size in (share * side for share in BANDS):
        flat = images.flatten(0, 1)
        details = (_smooth(flat, size) - _smooth(flat, 2 * size)).view_as(images)
        yield _smooth(details.square().sum(1), max(side / 16, 1.5 * size)).sqrt()


def _correlations(maps: Tensor, responses: Tensor, mask: Tensor) -> Tensor:
    """(N, H, W) correlations over images of responses with maps (B, H, W), 0 where they are negative."""
    maps = (maps - maps.mean(0)) / maps.std(0, correction=0).clamp_min(1e-6)
    z, count = _zscores(responses, mask), mask.sum(0).clamp_min(1)
    return ((z.T @ maps.flatten(1)) / count[:, None]).clamp_min(0).unflatten(1, maps.shape[1:])


def _zscores(responses: Tensor, mask: Tensor) -> Tensor:
    """(B, N) z-scores over the observed images, 0 where unobserved and for neurons whose responses do not vary."""
    values = torch.where(mask, responses, 0.0).float()
    count = mask.sum(0).clamp_min(1)
    centred = torch.where(mask, values - values.sum(0) / count, 0.0)
    deviation = (centred.square().sum(0) / count).sqrt()
    return torch.where(deviation > 1e-6, centred / deviation.clamp_min(1e-6), 0.0)


def _smooth(maps: Tensor, deviation: float) -> Tensor:
    """(K, H, W) maps smoothed by a Gaussian, whose weights beyond the edges are shared out among those within."""
    for axis in (1, 2):
        place = torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device)
        weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * deviation**2))
        weights = weights / weights.sum(1, keepdim=True)
        maps = weights @ maps if axis == 1 else maps @ weights.T
    return maps
