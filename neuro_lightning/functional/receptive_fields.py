"""Receptive fields: the gradient of each of a network's predictions, and averages of images weighted by responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import Output, rates_of

AT_ONCE = 64  # copies of the image in one backward pass


def receptive_fields(net: Callable[[Tensor], Output], images: Tensor, neurons: Sequence[int] | Tensor) -> Tensor:
    """Gradients of predictions with respect to the image, at the mean of the given images.

    For a linear neuron this is its filter; for others the filter that is best near the mean image. The network must
    be in evaluation mode, where its output for one image does not depend on the others of a batch.

    Args:
        net: (B, C, H, W) images -> :class:`neuro_lightning.contracts.Output` of (B, N).
        images: (B, C, H, W), such as the training images; one is enough.
        neurons: (n,) the neurons' places among the N.

    Returns:
        (n, C, H, W), in the unit of the responses per unit of the pixels.

    Raises:
        ValueError: no image.
    """
    if not len(images):
        raise ValueError("receptive fields need an image to be taken at")
    neurons = torch.as_tensor(neurons, dtype=torch.long, device=images.device)
    mean = images.detach().mean(0)
    fields = []
    for part in neurons.split(AT_ONCE):
        # one copy of the image for each neuron: a single backward pass gives all their gradients
        copies = mean.expand(len(part), *mean.shape).clone().requires_grad_()
        with torch.enable_grad():
            rates = rates_of(net(copies))[torch.arange(len(part), device=images.device), part]
            fields.append(torch.autograd.grad(rates.sum(), copies)[0])
    return torch.cat(fields) if fields else images.new_zeros(0, *mean.shape)


def mean_gradients(net: Callable[[Tensor], Output], images: Tensor, neurons: Sequence[int] | Tensor) -> Tensor:
    """Gradients of predictions with respect to the image, averaged over images.

    It tells what a neuron sees whose prediction is flat at the mean image, such as that of a rectified unit.

    Args:
        net: as in :func:`receptive_fields`.
        images: (B, C, H, W); ``AT_ONCE`` of them, evenly spaced, are used.
        neurons: (n,) the neurons' places among the N.

    Returns:
        (n, C, H, W).
    """
    chosen = torch.linspace(0, len(images) - 1, min(AT_ONCE, len(images))).round().long()
    given = images[chosen.to(images.device)].detach().requires_grad_()
    with torch.enable_grad():
        rates = rates_of(net(given)).sum(0)
        fields = [torch.autograd.grad(rates[int(n)], given, retain_graph=True)[0].mean(0) for n in neurons]
    return torch.stack(fields) if fields else images.new_zeros(0, *images.shape[1:])


def triggered_averages(images: Tensor, responses: Tensor) -> Tensor:
    """Response-triggered averages: images weighted by how far each response is above the neuron's mean.

    Of spike counts it is the spike-triggered average less the mean image, times the mean count. Of images of white
    Gaussian noise it is in proportion to the filter of any neuron that has a single one (Chichilnisky 2001, Network
    12:199); pixels of natural images go together, which blurs it.

    Args:
        images: (B, C, H, W).
        responses: (B, n), recorded or predicted, NaN where unobserved.

    Returns:
        (n, C, H, W), the covariance of response and pixel; zeros where nothing was observed.
    """
    known = responses.isfinite()
    count = known.sum(0).clamp_min(1)
    values = responses.masked_fill(~known, 0)
    weights = torch.where(known, values - values.sum(0) / count, 0) / count
    return (weights.T.to(images.dtype) @ images.flatten(1)).unflatten(1, images.shape[1:])
