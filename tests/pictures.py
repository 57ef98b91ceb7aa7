"""Images and responses in memory, with NaN, small enough to train a convolutional network on in a second."""

import numpy as np

from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.module import ImageDataModule
from neuro_lightning.data.recording import Recording

NEURONS = 4


class Pictures(ImageDataModule):
    """Rectified sums over four patches of an image; a fifth of the responses was not observed, and of neuron 0 most.

    Args:
        n_train: training images.
        n_val: validation images.
        offset: added to the responses; below zero some are negative.
        loader: see the base class.
    """

    def __init__(self, *, n_train: int, n_val: int, offset: float, **loader):
        super().__init__(**loader)
        self.sizes, self.offset = {"train": n_train, "val": n_val}, offset

    def load(self) -> Recording:
        rng = np.random.default_rng(0)
        filters = rng.normal(0, 1, (4, NEURONS))
        splits = {name: self.make(n, filters, rng) for name, n in self.sizes.items()}
        return Recording("pictures", 0, splits, np.arange(NEURONS), kind="images", simulated=True)

    def make(self, n: int, filters: np.ndarray, rng: np.random.Generator) -> ImageTrials:
        patches = rng.random((n, 1, 2, 2))
        images = np.clip(patches.repeat(6, 2).repeat(5, 3) + rng.normal(0, 0.1, (n, 3, 12, 10)), 0, 1)
        responses = np.maximum(0, 1 + (patches.reshape(n, 4) - 0.5) @ filters) + self.offset
        responses[rng.random(responses.shape) < 0.2] = np.nan
        responses[n // 2 :, 0] = np.nan
        return ImageTrials(images.astype(np.float32), responses.astype(np.float32))
