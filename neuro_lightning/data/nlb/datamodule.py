"""The data module of the Neural Latents Benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import TwinDataModule
from neuro_lightning.data.nlb.download import nlb_files
from neuro_lightning.data.nlb.reader import load_nlb
from neuro_lightning.data.nlb.twin import write_twin
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording


@takes_options_of(load_nlb, without=("seed",))
class NLB(TwinDataModule):
    """A dataset of the Neural Latents Benchmark.

    Args:
        dataset: ``mc_maze``, ``mc_maze_large``, ``mc_maze_medium``, ``mc_maze_small``, ``mc_rtt``, ``area2_bump`` or
            ``dmfc_rsg``.
        cache_dir: prepared tensors.
        download: fetch missing files with dandi.
        loader: see :class:`TwinDataModule`; the files lie below ``root`` or are downloaded there; and ``phase`` and
            ``bin_ms``, see :func:`neuro_lightning.data.nlb.reader.load_nlb`.
    """

    def __init__(self, dataset: str, *, cache_dir: str, download: bool = True, **loader: Any) -> None:
        super().__init__(**loader)
        self.dataset_name, self.cache_dir, self.download = dataset, Path(cache_dir), download

    def files(self) -> tuple[Path, Path]:
        """The train and the test file: found, downloaded or simulated. Phase ``val`` does without the test file."""
        if self.simulate:
            folder = self.root / "simulated" / f"seed_{self.simulate_seed}"
            return write_twin(self.dataset_name, folder, seed=self.simulate_seed)
        return nlb_files(self.dataset_name, self.root, download=self.download, test=self.options["phase"] == "test")

    def load(self) -> Recording:
        """The benchmark's tensors, from the cache if they are there."""
        files = list(self.files())
        return cached(
            self.cache_dir,
            {"reader": "nlb", "dataset": self.dataset_name, **self.options},
            files if self.options["phase"] == "test" else files[:1],
            lambda: load_nlb(self.dataset_name, *files, **self.options),
        )
