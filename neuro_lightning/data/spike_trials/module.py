"""What the data modules of files of spike times share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.cache import cached
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.seen_trials import split_seen_trials
from neuro_lightning.data.spike_trials.trials import apply_split, load_trials


class SpikeFileDataModule(PopulationDataModule):
    """Serves the trials of a file of spike times; a format is a subclass with :meth:`open_file`.

    Args:
        path: the file; None for one that is found or made when it is read.
        cache_dir: prepared tensors.
        loader: see :class:`PopulationDataModule`.
    """

    format: ClassVar[str]
    file_pattern: ClassVar[str]  # of the files in a folder that is given as path
    options: dict[str, Any]  # of ``load_trials``

    def __init__(self, path: Path | None, cache_dir: str, **loader: Any) -> None:
        super().__init__(**loader)
        self.path, self.cache_dir = path, Path(cache_dir)
        self._trained: dict[str, Any] | None = None

    def open_file(self, table: str | None) -> SpikeRecording:
        """The file, with its trials from a table of a name; None for the usual one, or none where it has none.

        Raises:
            DataError: it cannot be read.
        """
        raise NotImplementedError

    def serve_other_file(
        self, spec: DataSpec, info: dict[str, Any], identity: Identity, *, same_units: bool = False
    ) -> None:
        """Serve all trials of another file of the same neurons, as the model that ``info`` is of expects them."""
        # velocity is decoded from training trials and PSTHs are of known conditions: another file has neither
        self._spec = replace(spec, behavior_kind="none", behavior_dim=0, n_conditions=0)
        self._trained, self._trained_on, self._same_units = info, identity, same_units
        self.serves_other_file = True

    def load(self) -> Recording:
        """The file's trials, from the cache if they are there."""
        if self._trained is not None:
            other = apply_split(self.open_file, self._trained, name=self.format)
            return split_seen_trials(other, self._trained_on, same_units=self._same_units)
        params = {"reader": self.format, **self.options}
        return cached(self.cache_dir, params, [self.path], self._read)

    def _read(self) -> Recording:
        return load_trials(self.open_file, name=self.format, **self.options)
