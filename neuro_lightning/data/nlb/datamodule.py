"""The data module of the Neural Latents Benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import TwinDataModule
from neuro_lightning.data.nlb.download import nlb_files
from neuro_lightning.data.nlb.reader import load_nlb
from neuro_lightning.data.nlb.twin import write_twin
from neuro_lightning.data.recording import Recording


class NLB(TwinDataModule):
    """A dataset of the Neural Latents Benchmark.

    Args:
        dataset: ``mc_maze``, ``mc_maze_large``, ``mc_maze_medium``, ``mc_maze_small``, ``mc_rtt``, ``area2_bump`` or
            ``dmfc_rsg``.
        cache_dir: prepared tensors.
        bin_ms: bin width, 5 or 20 ms.
        phase: ``val`` trains on the benchmark's training trials and predicts its validation trials; ``test``
            predicts its test trials, still choosing the checkpoint on the validation trials.
        download: fetch missing files with dandi.
        loader: see :class:`TwinDataModule`; the files lie below ``root`` or are downloaded there.
    """

    def __init__(
        self,
        dataset: str,
        *,
        cache_dir: str,
        bin_ms: int = 5,
        phase: str = "val",
        download: bool = True,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.dataset_name, self.cache_dir = dataset, Path(cache_dir)
        self.bin_ms, self.phase, self.download = bin_ms, phase, download

    def files(self) -> tuple[Path, Path]:
        """The train and the test file: found, downloaded or simulated. Phase ``val`` does without the test file."""
        if self.simulate:
            return write_twin(
                self.dataset_name, self.root / "simulated" / f"seed_{self.simulate_seed}", seed=self.simulate_seed
            )
        return nlb_files(self.dataset_name, self.root, download=self.download, test=self.phase == "test")

    def load(self) -> Recording:
        """The benchmark's tensors, from the cache if they are there."""
        train, test = self.files()
        params = {"dataset": self.dataset_name, "phase": self.phase, "bin_ms": self.bin_ms}
        sources = [train, test] if self.phase == "test" else [train]
        return cached(
            self.cache_dir,
            {"reader": "nlb", **params},
            sources,
            lambda: load_nlb(self.dataset_name, train, test, phase=self.phase, bin_ms=self.bin_ms),
        )
