"""Images that a network's neurons would answer most, or that tell one from the others: ascent at a fixed contrast.

Sources: Walker et al. 2019, Nature Neuroscience 22:2060 (inception loops); Burg et al. 2024, ICLR,
arXiv:2401.05342 (most discriminative stimuli; theirs are of clusters of neurons). Here contrast is fixed and gradients
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
    return _climb(net, grey, contrast, neurons, n_steps, seed, lambda rates: rates)


def most_discriminative_images(
    net: Callable[[Tensor], Output],
    grey: Tensor,
    contrast: float,
    neurons: Sequence[int] | Tensor,
    *,
    mean: Tensor | float = 0.0,
    spread: Tensor | float = 1.0,
    temperature: float = 1.0,
    n_steps: int = 30,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The images of a given contrast that are predicted to excite one neuron and none of the others.

    The neuron's share in the softmax over all neurons is raised. Neurons that want the same image cannot be told apart:
    their shares stay low.

    Args:
        net: as in :func:`most_exciting_images`.
        grey: likewise.
        contrast: likewise.
        neurons: likewise.
        mean: (N,) each neuron's mean response, such as that to the training images, which is subtracted.
        spread: (N,) its standard deviation, by which responses are divided, so that lively neurons are no stronger
            rivals than others; 0 leaves a neuron out.
        temperature: the difference of such responses that counts, above 0. The smaller, the more the strongest rival
            counts alone.
        n_steps: likewise.
        seed: likewise.

    Returns:
        The differences from ``grey`` (n, C, H, W), and the neurons' shares (n,), between 0 and 1.
    """
    mean, spread = (torch.as_tensor(value, dtype=grey.dtype, device=grey.device) for value in (mean, spread))
    scale = torch.where(spread > 0, 1 / (spread * temperature), 0)
    found, shares = _climb(
        net, grey, contrast, neurons, n_steps, seed, lambda rates: ((rates - mean) * scale).log_softmax(-1)
    )
    return found, shares.exp()


def _climb(
    net: Callable[[Tensor], Output],
    grey: Tensor,
    contrast: float,
    neurons: Sequence[int] | Tensor,
    n_steps: int,
    seed: int,
    goals: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) that raise each neuron's goal, and these (n,); ``goals`` are of rates, both (B, N)."""
    neurons = torch.as_tensor(neurons, dtype=torch.long, device=grey.device)
    if not len(neurons):
        return grey.new_zeros(0, *grey.shape), grey.new_zeros(0)
    noise = _unit(torch.randn(NOISES, *grey.shape, generator=torch.Generator().manual_seed(seed)).to(grey))

    def of_all(change: Tensor) -> Tensor:
        return goals(rates_of(net(grey + change)))

    parts = [_ascend(of_all, contrast, part, n_steps, noise) for part in neurons.split(AT_ONCE)]
    found, reached = zip(*parts, strict=True)
    return torch.cat(found), torch.cat(reached)


def _ascend(
    of_all: Callable[[Tensor], Tensor], contrast: float, neurons: Tensor, n_steps: int, noise: Tensor
) -> tuple[Tensor, Tensor]:
    def goal_and_slope(change: Tensor) -> tuple[Tensor, Tensor]:
        change = change.detach().requires_grad_()
        with torch.enable_grad():
            goal = of_all(change)[torch.arange(len(neurons), device=change.device), neurons]
            return goal.detach(), _unit(torch.autograd.grad(goal.sum(), change)[0])

    _, slope = goal_and_slope(noise.new_zeros(len(neurons), *noise.shape[1:]))
    flat = (slope == 0).flatten(1).all(1)[:, None, None, None]
    change = contrast * _unit(slope)
    if bool(flat.any()):
        with torch.no_grad():
            chosen = of_all(contrast * noise)[:, neurons].argmax(0)
        change = torch.where(flat, contrast * noise[chosen], change)
    goal, slope = goal_and_slope(change)
    best, highest = change, goal
    for _ in range(n_steps):
        change = contrast * _unit(change + STEP * contrast * slope)
        goal, slope = goal_and_slope(change)
        better = goal > highest
        best, highest = torch.where(better[:, None, None, None], change, best), torch.where(better, goal, highest)
    return best, highest


def _unit(values: Tensor) -> Tensor:
    """Images (n, C, H, W) of norm 1, zeros where there is nothing."""
    return values / values.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
