"""Data modules of recordings that somebody has as arrays."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.arrays.images import ImageOptions, load_images
from neuro_lightning.data.arrays.spikes import SpikeOptions, load_other_spikes, load_spikes
from neuro_lightning.data.arrays.traces import load_traces
from neuro_lightning.data.arrays.twin import write_twin
from neuro_lightning.data.cache import cached
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.module import ImageDataModule, TwinDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.seen_trials import split_seen_trials
from neuro_lightning.data.stringer.datamodule import TraceDataModule
from neuro_lightning.data.stringer.reader import Preparation
from neuro_lightning.errors import ConfigError

log = logging.getLogger(__name__)


class _ArrayFile(TwinDataModule):
    """A file of arrays that a config names, or the simulated twin in place of it."""

    kind: str

    def __init__(self, path: str | None = None, **loader: Any) -> None:
        super().__init__(**loader)
        if path is None and not self.simulate:
            raise ConfigError("data.path=FILE must name a file of arrays; data.simulate=true does without one")
        self.path = path

    def file(self) -> Path:
        """The file to read; a twin is written if need be."""
        return write_twin(self.root, self.kind, self.simulate_seed) if self.simulate else Path(self.path)


@takes_options_of(SpikeOptions)
class ArraySpikes(_ArrayFile):
    """Spike counts (trials, bins, neurons) in an ``.npz``, ``.npy`` or ``.mat`` file.

    The arrays of the file are explained at :func:`neuro_lightning.data.arrays.spikes.check_spikes`.

    Args:
        path: the file.
        loader: see :class:`neuro_lightning.data.module.TwinDataModule`; and how counts are split and scored, see
            :class:`neuro_lightning.data.arrays.spikes.SpikeOptions`.
    """

    kind = "spikes"

    def serve_other_file(
        self, spec: DataSpec, info: dict[str, Any], identity: Identity, *, same_units: bool = False
    ) -> None:
        """Serve all trials of another file, whose neurons have the same unit ids or else the same columns."""
        # velocity is decoded from training trials and PSTHs are of known conditions: another file has neither
        self._spec = replace(spec, behavior_kind="none", behavior_dim=0, n_conditions=0, true_rates=False)
        other = load_other_spikes(self.path, info, spec)
        log.warning(f"{self.path}: its neurons are taken for those that trained the model, by unit_ids or by columns")
        self._recording, self.serves_other_file = split_seen_trials(other, identity, same_units=None), True

    def load(self) -> Recording:
        """Read anew each time: the files are small and hold binned counts."""
        return load_spikes(self.file(), self.options)


@takes_options_of(ImageOptions)
class ArrayImages(_ArrayFile, ImageDataModule):
    """Images and the responses to them in an ``.npz`` or ``.mat`` file.

    The arrays of the file are explained at :func:`neuro_lightning.data.arrays.images.check_images`.

    Args:
        path: the file.
        loader: see :class:`neuro_lightning.data.module.ImageDataModule` and ``TwinDataModule``; and how images are
            split and scaled, see :class:`neuro_lightning.data.arrays.images.ImageOptions`.
    """

    kind = "images"

    def load(self) -> Recording:
        """Read anew each time: it takes a moment."""
        return load_images(self.file(), self.options)


OF_PLANES = ("planes", "blocks", "neurons_per_plane", "neuron_seed", "behavior_components")
"""Options that arrays have no use for: their neurons lie in one plane and are all used."""


@takes_options_of(Preparation, without=OF_PLANES)
class ArrayTraces(_ArrayFile, TraceDataModule):
    """Calcium traces (neurons, frames) of one session in an ``.npz``, ``.npy`` or ``.mat`` file, split in time.

    The arrays of the file are explained at :func:`neuro_lightning.data.arrays.traces.check_traces`.

    Args:
        path: the file.
        cache_dir: prepared tensors.
        seed: of the held-out neurons.
        loader: see :class:`neuro_lightning.data.module.TwinDataModule`; and how the traces are prepared, see
            :class:`neuro_lightning.data.stringer.reader.Preparation`.
    """

    kind = "traces"

    def __init__(self, path: str | None = None, *, cache_dir: str, seed: int = 0, **loader: Any) -> None:
        super().__init__(path, **loader)
        self.cache_dir, self.options = Path(cache_dir), replace(self.options, neuron_seed=seed)

    def load(self) -> Recording:
        """The prepared traces, from the cache if they are there."""
        path, params = self.file(), {"reader": "array_traces", **asdict(self.options)}
        return cached(self.cache_dir, params, [path], lambda: load_traces(path, self.options))
