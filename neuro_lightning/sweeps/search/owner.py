"""Tells which process runs which trial, and whether it has ended, by file locks in the sweep's folder."""

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
    """A process of a search: it keeps a file in the sweep's folder locked while it runs.

    The system releases the lock when the process ends, also when it is killed, on network file systems and between
    containers, where a process number would mean nothing. On file systems without locks the host and the process number
    decide.

    Args:
        folder: the sweep's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex[:12]
        self._lock = Lock(self.folder / self.name)
        self._lock.acquire()
        self._lock.write_holder()

    def close(self) -> None:
        """Release the lock: this process runs no more trials."""
        self._lock.release()

    def has_ended(self, name: str | None) -> bool:
        """Whether the process of this name in this folder has ended; False where it is unknown here."""
        path = self.folder / str(name)
        if not path.is_file():
            return False
        with locked(path, timeout_s=0.0) as free:
            return _process_is_gone(Lock(path).read_holder()) if free is None else free

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep all other processes of this folder waiting at this call."""
        with locked(self.folder / "lock"):
            yield


def _process_is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process with this host and number has ended, as far as this machine can tell."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
