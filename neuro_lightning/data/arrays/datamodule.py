"""Data modules of recordings that somebody has as arrays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuro_lightning.data.arrays.reader import ImageOptions, SpikeOptions, load_images, load_spikes, load_traces
from neuro_lightning.data.arrays.twin import write_twin
from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import ImageDataModule, PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.stringer.datamodule import Spontaneous
from neuro_lightning.errors import ConfigError


class ArraySpikes(PopulationDataModule):
    """Spike counts (trials, bins, neurons) in an ``.npz``, ``.npy`` or ``.mat`` file.

    The options from ``bin_ms`` on are explained at :class:`neuro_lightning.data.arrays.reader.SpikeOptions`, the arrays
    of the file at :func:`neuro_lightning.data.arrays.reader.check_spikes`.

    Args:
        path: the file.
        root: the folder of data, for a simulated twin.
        simulate: use a simulated twin, written below ``root``, in place of ``path``.
        simulate_seed: of the twin.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        root: str,
        simulate: bool = False,
        simulate_seed: int = 0,
        bin_ms: int | None = None,
        heldout_fraction: float = 0.25,
        n_forward: int = 0,
        val_fraction: float = 0.25,
        split: str = "auto",
        min_spikes: int = 1,
        drop_duplicates: bool = False,
        seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.file = _ArrayFile("spikes", path, root, simulate, simulate_seed)
        self.options = SpikeOptions(
            bin_ms=bin_ms,
            heldout_fraction=heldout_fraction,
            n_forward=n_forward,
            val_fraction=val_fraction,
            split=split,
            min_spikes=min_spikes,
            drop_duplicates=drop_duplicates,
            seed=seed,
        )

    def load(self) -> Recording:
        """Read anew each time: the files are small and hold binned counts."""
        return load_spikes(self.file.find(), self.options)


class ArrayTraces(Spontaneous):
    """Calcium traces (neurons, frames) of one session in an ``.npz``, ``.npy`` or ``.mat`` file, split in time.

    The options from ``bin_ms`` on are explained at :class:`neuro_lightning.data.stringer.reader.Preparation`, the
    arrays of the file at :func:`neuro_lightning.data.arrays.reader.check_traces`.

    Args:
        path: the file.
        root: the folder of data, for a simulated twin.
        cache_dir: prepared tensors.
        simulate: use a simulated twin, written below ``root``, in place of ``path``.
        simulate_seed: of the twin.
        seed: of the held-out neurons.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        root: str,
        cache_dir: str,
        simulate: bool = False,
        simulate_seed: int = 0,
        bin_ms: int | None = None,
        normalisation: str = "zscore",
        downsample: int = 1,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        window: int | None = 64,
        stride: int | None = 16,
        heldout_fraction: float = 0.25,
        seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(
            root=root,
            cache_dir=cache_dir,
            bin_ms=bin_ms,
            normalisation=normalisation,
            downsample=downsample,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            window=window,
            stride=stride,
            heldout_fraction=heldout_fraction,
            neuron_seed=seed,
            **loader,
        )
        self.file = _ArrayFile("traces", path, root, simulate, simulate_seed)

    def load(self) -> Recording:
        """The prepared traces, from the cache if they are there."""
        path, params = self.file.find(), {"reader": "array_traces", **asdict(self.options)}
        return cached(self.cache_dir, params, [path], lambda: load_traces(path, self.options))


class ArrayImages(ImageDataModule):
    """Images and the responses to them in an ``.npz`` or ``.mat`` file.

    The options from ``val_fraction`` on are explained at :class:`neuro_lightning.data.arrays.reader.ImageOptions`, the
    arrays of the file at :func:`neuro_lightning.data.arrays.reader.check_images`.

    Args:
        path: the file.
        root: the folder of data, for a simulated twin.
        simulate: use a simulated twin, written below ``root``, in place of ``path``.
        simulate_seed: of the twin.
        loader: see :class:`neuro_lightning.data.module.ImageDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        root: str,
        simulate: bool = False,
        simulate_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        input_scale: str = "zscore",
        seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.file = _ArrayFile("images", path, root, simulate, simulate_seed)
        self.options = ImageOptions(
            val_fraction=val_fraction, test_fraction=test_fraction, input_scale=input_scale, seed=seed
        )

    def load(self) -> Recording:
        """Read anew each time: it takes a moment."""
        return load_images(self.file.find(), self.options)


class _ArrayFile:
    """The file that a config names, or the simulated twin in place of it."""

    def __init__(self, kind: str, path: str | None, root: str, simulate: bool, simulate_seed: int) -> None:
        if path is None and not simulate:
            raise ConfigError("data.path=FILE must name a file of arrays; data.simulate=true does without one")
        self.kind, self.path, self.root, self.simulate, self.seed = kind, path, root, simulate, simulate_seed

    def find(self) -> Path:
        return write_twin(self.root, self.kind, self.seed) if self.simulate else Path(self.path)
