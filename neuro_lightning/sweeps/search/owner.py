"""Who runs which trial, and whether they still live: processes that share a sweep's folder tell it by file locks."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from neuro_lightning.sweeps.locks import lock

FOLDER = ".search"
_living: set[str] = set()  # owners in this process


class Owner:
    """A search's process, known by a file in the sweep's folder that it keeps locked.

    The system lets go of the lock when the process ends, however it ends, also on network file systems and between
    containers, where a process number would mean nothing. File systems that know no locks are answered by host and
    process number.

    Args:
        folder: the sweep's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex[:12]
        self._file = open(self.folder / self.name, "w")  # noqa: SIM115  kept open: closing it would give it up
        self._file.write(f"{socket.gethostname()} {os.getpid()}\n")
        self._file.flush()
        lock(self._file, wait=False)
        _living.add(self.name)

    def close(self) -> None:
        """Say that this process runs no trials any more."""
        _living.discard(self.name)
        self._file.close()

    def gone(self, name: str | None) -> bool:
        """Whether a process of this folder's has ended; one of another folder is not ours to judge."""
        path = self.folder / str(name)
        if name in _living or not path.is_file():  # its own locks a process would not see
            return False
        with open(path, "r+") as file:
            free = lock(file, wait=False)
            return _vanished(file.read()) if free is None else free

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No two processes of this folder are in here at a time."""
        with open(self.folder / "lock", "w") as file:
            lock(file, wait=True)
            yield


def _vanished(said: str) -> bool:
    """Whether the process that said its host and number is no more, as far as this machine can tell."""
    host, _, number = said.strip().partition(" ")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
