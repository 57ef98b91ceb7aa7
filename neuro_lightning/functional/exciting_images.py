"""Images that a network's neurons would answer most: gradient ascent at a fixed contrast.

Source: Walker et al. 2019, Nature Neuroscience 22:2060 (inception loops); here contrast is fixed and gradients
are not smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import Output, rates_of
from neuro_lightning.functional.receptive_fields import AT_ONCE

NOISES = 32
STEP = 0.5  # of the contrast, before it is restored


def contrast_of(images: Tensor) -> tuple[Tensor, float]:
    """The grey level of images (B, C, H, W), the mean of each color (C, 1, 1), and their median norm about it."""
    grey = images.mean((0, 2, 3))[:, None, None]
    return grey, float((images - grey).flatten(1).norm(dim=1).median())


def most_exciting_images(
    net: Callable[[Tensor], Output],
    grey: Tensor,
    contrast: float,
    neurons: Sequence[int] | Tensor,
    *,
    n_steps: int = 30,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The images of a given contrast that neurons are predicted to answer most, found by gradient ascent.

    Each begins with the gradient at the grey image, or, where that is zero, with the best of ``NOISES`` noise images.
    Pixels may leave the range of real images. The best image on the way is returned; there may be better ones
    elsewhere. The network must be in evaluation mode.

    Args:
        net: (B, C, H, W) images -> :class:`neuro_lightning.contracts.Output` of (B, N).
        grey: (C, H, W) the image that has no contrast.
        contrast: norm of the difference of an image from ``grey``.
        neurons: (n,) the neurons' places among the N.
        n_steps: of the ascent.
        seed: of the noise.

    Returns:
        The differences from ``grey`` (n, C, H, W), and the predicted responses (n,).
    """
    neurons = torch.as_tensor(neurons, dtype=torch.long, device=grey.device)
    if not len(neurons):
        return grey.new_zeros(0, *grey.shape), grey.new_zeros(0)
    noise = _unit(torch.randn(NOISES, *grey.shape, generator=torch.Generator().manual_seed(seed)).to(grey))
    parts = [_ascend(net, grey, contrast, part, n_steps, noise) for part in neurons.split(AT_ONCE)]
    found, answers = zip(*parts, strict=True)
    return torch.cat(found), torch.cat(answers)


def _ascend(
    net: Callable[[Tensor], Output], grey: Tensor, contrast: float, neurons: Tensor, n_steps: int, noise: Tensor
) -> tuple[Tensor, Tensor]:
    def answers(change: Tensor) -> tuple[Tensor, Tensor]:
        change = change.detach().requires_grad_()
        with torch.enable_grad():
            rates = rates_of(net(grey + change))[torch.arange(len(neurons), device=grey.device), neurons]
            return rates.detach(), _unit(torch.autograd.grad(rates.sum(), change)[0])

    _, slope = answers(grey.new_zeros(len(neurons), *grey.shape))
    flat = (slope == 0).flatten(1).all(1)[:, None, None, None]
    change = contrast * _unit(slope)
    if bool(flat.any()):
        with torch.no_grad():
            chosen = rates_of(net(grey + contrast * noise))[:, neurons].argmax(0)
        change = torch.where(flat, contrast * noise[chosen], change)
    rate, slope = answers(change)
    best, highest = change, rate
    for _ in range(n_steps):
        change = contrast * _unit(change + STEP * contrast * slope)
        rate, slope = answers(change)
        better = rate > highest
        best, highest = torch.where(better[:, None, None, None], change, best), torch.where(better, rate, highest)
    return best, highest


def _unit(values: Tensor) -> Tensor:
    """Images (n, C, H, W) of norm 1, zeros where there is nothing."""
    return values / values.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
