"""Antolik V1 as a data module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuro_lightning.data.antolik.reader import check_options, load_antolik
from neuro_lightning.data.antolik.twin import twin_folder, write_twin
from neuro_lightning.data.module import ImageDataModule, TwinDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording


@takes_options_of(load_antolik)
class AntolikV1(TwinDataModule, ImageDataModule):
    """Mouse V1, up to 103 neurons a region, and 31 x 31 pixel images from nature films (Antolik et al. 2016).

    Args:
        region: 1, 2 or 3, or a list of them to pool.
        twin: how large it is, see :func:`neuro_lightning.data.antolik.twin.write_twin`.
        loader: see :class:`neuro_lightning.data.module.ImageDataModule`; and how images and responses are scaled and
            split, see :func:`neuro_lightning.data.antolik.reader.load_antolik`.
    """

    def __init__(self, *, region: int | Sequence[int] = 1, twin: dict[str, Any] | None = None, **loader: Any) -> None:
        super().__init__(**loader)
        self.regions = list(region) if hasattr(region, "__iter__") and not isinstance(region, str) else [region]
        self.twin = dict(twin or {})

    def load(self) -> Recording:
        """Read anew each time: it takes a tenth of a second."""
        check_options(self.regions, **self.options)  # before a twin is written
        root = self.root
        if self.simulate:
            root = root / "simulated" / "antolik_v1" / twin_folder(self.simulate_seed, self.twin)
            write_twin(root, self.regions, seed=self.simulate_seed, **self.twin)
        return load_antolik(root, self.regions, **self.options)
