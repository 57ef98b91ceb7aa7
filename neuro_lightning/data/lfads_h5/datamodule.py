"""The data module of h5 files in the style of LFADS, lfads-torch and NDT."""

from __future__ import annotations

from typing import Any, ClassVar

from neuro_lightning.data.lfads_h5.reader import load_lfads_h5
from neuro_lightning.data.module import PopulationDataModule, one_file
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording


@takes_options_of(load_lfads_h5)
class LFADSH5(PopulationDataModule):
    """An h5 file in the style of LFADS, lfads-torch or NDT.

    Args:
        path: the file; a list, a folder or a pattern in a config means several recordings, see
            :class:`neuro_lightning.data.sessions.Sessions`.
        loader: see :class:`PopulationDataModule`; and how the file is read, see
            :func:`neuro_lightning.data.lfads_h5.reader.load_lfads_h5`.
    """

    file_pattern: ClassVar[str] = "*.h5"

    def __init__(self, path: str | list[str], **loader: Any) -> None:
        super().__init__(**loader)
        self.path = one_file(path)

    def load(self) -> Recording:
        """Read anew each time: the files are small and hold binned counts."""
        return load_lfads_h5(self.path, **self.options)
