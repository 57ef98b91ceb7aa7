"""The data module of the UW Neural Data Challenge 2019."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.overlap import first_identical
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.module import ImageDataModule, TwinDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.twin_files import TRUTH
from neuro_lightning.data.uwndc19.reader import FILES, N_TEST, read_challenge
from neuro_lightning.data.uwndc19.split import split_images
from neuro_lightning.data.uwndc19.twin import write_uwndc19


@takes_options_of(split_images)
class UWNDC19(TwinDataModule, ImageDataModule):
    """18 neurons of macaque V4 that were shown 551 natural image patches, and 50 test images without responses.

    Responses are square roots of spike counts, NaN where an image was not shown to a neuron. The split ``test`` has
    images only: its predictions are the challenge's submission.

    Args:
        image_size: side in pixels of the images' centre that is kept; 80 keeps all, 48 is the winner's.
        loader: see :class:`neuro_lightning.data.module.ImageDataModule`; and how images are divided, see
            :func:`neuro_lightning.data.uwndc19.split.split_images`.
    """

    def __init__(self, *, image_size: int = 48, **loader: Any) -> None:
        super().__init__(**loader)
        self.image_size = image_size

    def folder(self) -> Path:
        """Where the files lie; a twin is written there if need be."""
        if not self.simulate:
            return self.root / "uwndc19"
        return write_uwndc19(self.twin_folder("uwndc19"), seed=self.simulate_seed)

    def load(self) -> Recording:
        """Read anew each time: it takes a fraction of a second."""
        folder = self.folder()
        challenge = read_challenge(folder, image_size=self.image_size)
        image = first_identical(challenge.images[N_TEST:])
        train, val = split_images(challenge.responses, image, **self.options)
        warnings, again = [], int((image != np.arange(len(image))).sum())
        if again:
            warnings.append(
                f"{folder}: {again} images are the same as an earlier one in the {self.image_size} pixels a side that "
                f"are used, and stay on its side of the split: {len(train)} images train and {len(val)} validate"
            )
        names = [*FILES, TRUTH] if challenge.rates is not None else FILES
        unknown = np.full((N_TEST, challenge.responses.shape[1]), np.nan, np.float32)
        trials = ImageTrials(
            images=challenge.images,
            responses=np.concatenate([unknown, challenge.responses]),
            rates=challenge.rates,
            row=np.arange(len(challenge.images)),
        )
        rows = {"train": train + N_TEST, "val": val + N_TEST, "test": np.arange(N_TEST)}
        return Recording(
            name="uwndc19",
            bin_ms=0,
            splits={split: trials.take(index) for split, index in rows.items()},
            unit_ids=np.arange(challenge.responses.shape[1]),
            kind="images",
            simulated=challenge.rates is not None,
            sources=[{"path": str(folder / name), "size": (folder / name).stat().st_size} for name in names],
            info={
                "columns": challenge.columns,
                "warnings": warnings,
                "split": {**self.options, "train": rows["train"].tolist(), "val": rows["val"].tolist()},
            },
        )
