"""The data module of any brainsets file with spikes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from neuro_lightning.data.brainset.twin import write_twin
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.formats.brainset import open_brainset
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.module import TwinDataModule, one_file
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.spike_trials.module import SpikeFileDataModule
from neuro_lightning.data.spike_trials.trials import load_trials
from neuro_lightning.errors import DataError


@takes_options_of(load_trials, without=("name",))
class Brainset(SpikeFileDataModule, TwinDataModule):
    """Any brainsets file with spikes.

    Args:
        path: the file; a list, a folder or a pattern in a config means several recordings, see
            :class:`neuro_lightning.data.sessions.Sessions`. None for a simulated one.
        cache_dir: prepared tensors.
        simulate_sessions: how many files are simulated; a config that asks for several means several recordings.
        loader: see :class:`~neuro_lightning.data.module.TwinDataModule`; and how the file is cut and split, see
            :func:`neuro_lightning.data.spike_trials.trials.load_trials`.
    """

    format: ClassVar[str] = "brainset"
    file_pattern: ClassVar[str] = "*.h5"

    def __init__(
        self, path: str | list[str] | None = None, *, cache_dir: str, simulate_sessions: int = 1, **loader: Any
    ) -> None:
        super().__init__(None if path is None else one_file(path), cache_dir, **loader)
        self.simulate_sessions = simulate_sessions

    @classmethod
    def session_files(cls, config: Mapping[str, Any]) -> list[Path] | None:
        """The files that a config without a path means: simulated ones; None where it asks for none.

        Args:
            config: of the data, plain values.
        """
        if not config.get("simulate"):
            return None
        n_sessions, seed = config.get("simulate_sessions", 1), config.get("simulate_seed", 0)
        check_whole("simulate_sessions", n_sessions, 1)
        folder = Path(config["root"]).expanduser() / "simulated" / "brainset" / f"seed_{seed}_of_{n_sessions}"
        return write_twin(folder, seed=seed, n_sessions=n_sessions)

    def open_file(self, table: str | None) -> SpikeRecording:
        """The units of the file, and its trials from a table of a name."""
        return open_brainset(self.path, table)

    def load(self) -> Recording:
        """The file's trials, from the cache if they are there; of a simulated file, which is written before.

        Raises:
            DataError: no file is named.
        """
        if self.path is None:
            names = ("root", "simulate", "simulate_seed", "simulate_sessions")
            files = self.session_files({name: getattr(self, name) for name in names})
            if files is None:
                raise DataError("data.path is missing: name a brainsets file, or take data.simulate=true")
            self.path = files[0]
        return super().load()
