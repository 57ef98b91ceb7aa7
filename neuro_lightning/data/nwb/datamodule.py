"""The data module of any NWB file with units and trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.cache import cached
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.module import PopulationDataModule, one_file
from neuro_lightning.data.nwb.reader import apply_split, load_nwb_trials
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.seen_trials import split_seen_trials


@takes_options_of(load_nwb_trials, without=("name",))
class NWB(PopulationDataModule):
    """Any NWB file with units and trials.

    Args:
        path: the file; a list, a folder or a pattern in a config means several recordings, see
            :class:`neuro_lightning.data.sessions.Sessions`.
        cache_dir: prepared tensors.
        loader: see :class:`PopulationDataModule`; and how the file is cut and split, see
            :func:`neuro_lightning.data.nwb.reader.load_nwb_trials`.
    """

    file_pattern: ClassVar[str] = "*.nwb"

    def __init__(self, path: str | list[str], *, cache_dir: str, **loader: Any) -> None:
        super().__init__(**loader)
        self.path, self.cache_dir = one_file(path), Path(cache_dir)
        self._trained: dict[str, Any] | None = None

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
            return split_seen_trials(
                apply_split(self.path, self._trained), self._trained_on, same_units=self._same_units
            )
        params = {"reader": "nwb", **self.options}
        return cached(self.cache_dir, params, [self.path], lambda: load_nwb_trials(self.path, **self.options))
