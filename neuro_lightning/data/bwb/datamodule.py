"""The data module of IBL BrainWideBench, task suite TS2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuro_lightning.data.bwb.reader import load_session
from neuro_lightning.data.bwb.rules import PARTS, download_command, session_file
from neuro_lightning.data.bwb.twin import write_twin
from neuro_lightning.data.cache import cached
from neuro_lightning.data.checks.options import check_choice, check_whole
from neuro_lightning.data.module import TwinDataModule, one_file
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import ConfigError, DataError

VERSION = 2
"""Raised whenever the reader prepares a file otherwise than before, so that older caches are not used."""


@takes_options_of(load_session)
class BrainWideBench(TwinDataModule):
    """A session of the benchmark; several in a config are several recordings.

    Args:
        cache_dir: prepared tensors.
        path: a session's file, in place of ``session``.
        session: the id of a session whose file lies below ``root``, as in the benchmark's bucket.
        part: ``eval`` or ``pretrain``, the bucket's folder.
        simulate_sessions: how many sessions are simulated.
        loader: see :class:`~neuro_lightning.data.module.TwinDataModule`; and the task and the strides of windows, see
            :func:`~neuro_lightning.data.bwb.reader.load_session`.
    """

    file_pattern = "*.h5"
    options: dict[str, Any]

    def __init__(
        self,
        *,
        cache_dir: str,
        path: str | list[str] | None = None,
        session: str | list[str] | None = None,
        part: str = "eval",
        simulate_sessions: int = 1,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        if self.train_on_inputs:
            raise ConfigError("data.train_on_inputs: the benchmark trains on its training domain alone; leave it out")
        check_choice("part", part, PARTS)
        self.cache_dir, self.path = Path(cache_dir), None if path is None else one_file(path)
        self.session, self.part, self.simulate_sessions = session, part, simulate_sessions

    @classmethod
    def session_files(cls, config: Mapping[str, Any]) -> list[Path] | None:
        """The files that a config without a path means: of the sessions that it names, or simulated ones.

        Args:
            config: of the data, plain values.

        Raises:
            DataError: a file is not there; the message has the command that fetches it.
        """
        root, part = Path(config["root"]).expanduser(), config.get("part", "eval")
        if config.get("simulate"):
            n_sessions, seed = config.get("simulate_sessions", 1), config.get("simulate_seed", 0)
            check_whole("simulate_sessions", n_sessions, 1)
            return write_twin(root / "simulated" / "bwb" / f"seed_{seed}", seed=seed, n_sessions=n_sessions)
        wanted = config.get("session")
        if wanted is None:
            return None
        if wanted == "all":
            found = sorted(session_file(root, "*", part).parent.glob("*.h5"))
            if not found:
                place = session_file(root, "SESSION", part)
                raise DataError(
                    f"data.session=all: no file in {place.parent}; a session is fetched with "
                    f"{download_command(place, 'SESSION', part)}"
                )
            return found
        files = [session_file(root, name, part) for name in ([wanted] if isinstance(wanted, str) else wanted)]
        for file in files:
            if not file.is_file():
                raise DataError(f"{file} is not there; fetch it with {download_command(file, file.stem, part)}")
        return files

    def load(self) -> Recording:
        """The session's windows, from the cache if they are there.

        Raises:
            ConfigError: no session is named.
            DataError: its file is not there, or is none of the benchmark.
        """
        path = self.path
        if path is None:
            names = ("root", "simulate", "simulate_seed", "simulate_sessions", "session", "part")
            files = self.session_files({name: getattr(self, name) for name in names})
            if not files:
                raise ConfigError("data.session is missing: name a session's id, or take data.simulate=true")
            path = files[0]
        params = {"reader": "bwb", "version": VERSION, **self.options}
        return cached(self.cache_dir, params, [path], lambda: load_session(path, **self.options))
