"""The data module of any NWB file with units and trials."""

from __future__ import annotations

from typing import Any, ClassVar

from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.module import one_file
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.spike_trials.module import SpikeFileDataModule
from neuro_lightning.data.spike_trials.trials import load_trials


@takes_options_of(load_trials, without=("name", "domains"))
class NWB(SpikeFileDataModule):
    """Any NWB file with units and trials.

    Args:
        path: the file; a list, a folder or a pattern in a config means several recordings, see
            :class:`neuro_lightning.data.sessions.Sessions`.
        cache_dir: prepared tensors.
        loader: see :class:`~neuro_lightning.data.module.PopulationDataModule`; and how the file is cut and split, see
            :func:`neuro_lightning.data.spike_trials.trials.load_trials`.
    """

    format: ClassVar[str] = "nwb"
    file_pattern: ClassVar[str] = "*.nwb"

    def __init__(self, path: str | list[str], *, cache_dir: str, **loader: Any) -> None:
        super().__init__(one_file(path), cache_dir, **loader)

    def open_file(self, table: str | None) -> SpikeRecording:
        """The units of the file, and its trials from a table of a name."""
        return open_nwb(self.path, table)
