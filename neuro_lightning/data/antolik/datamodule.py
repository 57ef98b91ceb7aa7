"""Antolik V1 as a data module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.data.antolik.reader import check_options, load_antolik
from neuro_lightning.data.antolik.twin import twin_folder, write_twin
from neuro_lightning.data.module import ImageDataModule
from neuro_lightning.data.recording import Recording


class AntolikV1(ImageDataModule):
    """Mouse V1, up to 103 neurons a region, and 31 x 31 pixel images from nature films (Antolik et al. 2016).

    Args:
        root: the files lie in ``antolik2016/region<k>`` below it.
        region: 1, 2 or 3, or a list of them to pool.
        input_scale: ``zscore``, ``zscore_each``, ``raw255`` or ``none``.
        response_scale: ``none`` or ``std``.
        val_fraction: share of the training images that validates.
        split_seed: draws them.
        protocol: ``honest`` or ``thesis``; all these see :func:`neuro_lightning.data.antolik.reader.load_antolik`.
        simulate: use a simulated twin, written below ``root`` in the layout of the real files.
        simulate_seed: of the twin.
        twin: how large it is, see :func:`neuro_lightning.data.antolik.twin.write_twin`.
        loader: see :class:`neuro_lightning.data.module.ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        region: int | Sequence[int] = 1,
        input_scale: str = "zscore",
        response_scale: str = "none",
        val_fraction: float = 0.15,
        split_seed: int = 0,
        protocol: str = "honest",
        simulate: bool = False,
        simulate_seed: int = 0,
        twin: dict[str, Any] | None = None,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.root, self.simulate, self.simulate_seed = Path(root), simulate, simulate_seed
        self.regions = list(region) if hasattr(region, "__iter__") and not isinstance(region, str) else [region]
        self.twin = dict(twin or {})
        self.options = {
            "input_scale": input_scale,
            "response_scale": response_scale,
            "val_fraction": val_fraction,
            "split_seed": split_seed,
            "protocol": protocol,
        }

    def load(self) -> Recording:
        """Read anew each time: it takes a tenth of a second."""
        check_options(self.regions, **self.options)  # before a twin is written
        root = self.root
        if self.simulate:
            root = root / "simulated" / "antolik_v1" / twin_folder(self.simulate_seed, self.twin)
            write_twin(root, self.regions, seed=self.simulate_seed, **self.twin)
        return load_antolik(root, self.regions, **self.options)
