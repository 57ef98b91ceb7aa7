"""CutMix: a part of an image comes from another one, and so does that share of the response."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, is_full
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.augment import Distortion
from neuro_lightning.nn.draws import uniform


class CutMix(Distortion):
    """Pastes a rectangle of another image of the batch into a random share of the images, and mixes their responses.

    The share of the pixels that stay, drawn uniformly from 0 to 1, is the weight of an image's own response; the
    rectangle has the image's proportions, its centre lies anywhere in the image, and what reaches beyond is cut off
    (Yun et al. 2019; the winner of Sensorium 2023, repository lRomul/sensorium). A neuron that sees a small part of the
    image answers to that part alone: the mixed response is right on average over rectangles only.

    Which images are pasted depends on the batch, all else on the image's number, see :mod:`neuro_lightning.nn.draws`.

    Args:
        p: the share of the images.

    Raises:
        ConfigError: ``p`` is no share.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"CutMix: p={p} must lie in [0, 1]")
        self.p = p

    @torch.no_grad()
    def change_batch(self, batch: Batch, epoch: int) -> Batch:
        """Mix a batch: its images, targets and mask. Without single responses and true rates, which are not mixed.

        A mixed response counts where both are known.

        Args:
            batch: of images.
            epoch: of the training.
        """
        images, index, mask = batch["inputs"], batch["index"], batch["mask"]
        draws = uniform(index, seed=self.seed, epoch=epoch, stream=self.stream, n=5)
        order = draws[:, 0].argsort()
        other = torch.empty_like(order).scatter_(0, order, order.roll(-1))  # the next one in a random order
        pasted = rectangles(images.shape[2], images.shape[3], draws[:, 1:4]) & (draws[:, 4] < self.p)[:, None, None]
        share = pasted.to(images.dtype).mean((1, 2))[:, None]
        targets = batch["targets"]
        mean = torch.lerp(targets, targets[other], share.to(targets.dtype))
        mixed = dict(
            inputs=torch.where(pasted[:, None], images[other], images),
            targets=torch.where(share == 0, targets, mean),
            mask=mask if is_full(mask) else mask & (mask[other] | (share == 0)),
            index=index,
        )
        kept = {name: value for name, value in batch.items() if name not in ("repeats", "rates")}
        return cast(Batch, kept | mixed)


def rectangles(height: int, width: int, draws: Tensor) -> Tensor:
    """(B, H, W) bool, True inside a rectangle of each image.

    Args:
        height: H.
        width: W.
        draws: (B, 3) in [0, 1): the share of the image that the rectangle leaves, and the row and the column of its
            centre, as shares of the sides.
    """
    half = (1 - draws[:, :1]).sqrt() / 2
    inside = []
    for size, centre in ((height, draws[:, 1:2]), (width, draws[:, 2:3])):
        place = (torch.arange(size, device=draws.device) + 0.5) / size
        inside.append((place - centre).abs() <= half)
    return inside[0][:, :, None] & inside[1][:, None]
