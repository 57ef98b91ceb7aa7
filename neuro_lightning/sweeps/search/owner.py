"""Who runs which trial, and whether they still live: processes that share a sweep's folder tell it by file locks."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.locks import Lock, locked

FOLDER = ".search"


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
        self._lock = Lock(self.folder / self.name)
        self._lock.take()
        self._lock.sign()

    def close(self) -> None:
        """Say that this process runs no trials any more."""
        self._lock.give_back()

    def gone(self, name: str | None) -> bool:
        """Whether a process of this folder's has ended; one of another folder is not ours to judge."""
        path = self.folder / str(name)
        if not path.is_file():
            return False
        with locked(path, patience_s=0.0) as free:
            return _vanished(Lock(path).signed()) if free is None else free

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No two processes of this folder are in here at a time."""
        with locked(self.folder / "lock"):
            yield


def _vanished(signed: dict[str, Any]) -> bool:
    """Whether the process that noted its host and number is no more, as far as this machine can tell."""
    if signed.get("host") != socket.gethostname() or not isinstance(signed.get("pid"), int):
        return False
    try:
        os.kill(signed["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
