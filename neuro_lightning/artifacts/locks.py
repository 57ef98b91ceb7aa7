"""Locks on files and folders, which the system lets go when their process ends, however it ends.

That holds also on network file systems and between containers, where a process number would mean nothing. A lock's
file stays when it is given up: deleting it would let two processes lock two files of one name. What is in it says who
holds it. Nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neuro_lightning.errors import ELSEWHERE, FolderError

FOLDER_LOCK = ".lock"  # in a folder: who is at work there
# what file systems say that know no locks, and read-only ones
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
POLL_S = 0.05

_held: dict[Path, tuple[Lock, int]] = {}  # folders that this process works in, and how often it has said so


class Lock:
    """A file that one process at a time keeps locked.

    Args:
        path: the file; it and its folder are made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path, thread_local=False, fallback_to_soft=False)

    def take(self, patience_s: float = 0.0, waits: Callable[[], None] | None = None) -> bool | None:
        """Whether the lock was free and is now this process's; None where the file system knows no locks.

        Args:
            patience_s: seconds to wait for a process that holds it.
            waits: is called when the waiting begins.

        Raises:
            FolderError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                if not patience_s:
                    return False
                if waits is not None:
                    waits()
                self._lock.acquire(timeout=-1 if math.isinf(patience_s) else patience_s, poll_interval=POLL_S)
        except Timeout:
            return False
        except OSError as error:
            if error.errno in UNKNOWN:
                return None
            raise FolderError(
                f"{self.path.parent} cannot be written ({error.strerror or error}): {ELSEWHERE}"
            ) from None
        return True

    def give_back(self) -> None:
        """Let others have it."""
        self._lock.release()

    def sign(self, command: Sequence[str] = ()) -> None:
        """Note in the file who holds it, for those who find it taken."""
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        values = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": list(command)}
        with suppress(OSError):  # a full disk, say: the lock holds all the same
            self.path.write_text(json.dumps(values))  # in place: the lock belongs to this very file

    def signed(self) -> dict[str, Any]:
        """What its holder has noted; empty if nothing."""
        try:
            values = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def holder(self) -> str:
        """Who holds it, in words."""
        values = self.signed()
        if not {"pid", "host", "since"} <= values.keys():
            return "another process"
        return f"process {values['pid']} on {values['host']}, since {values['since']}"


@contextmanager
def locked(path: str | Path, patience_s: float = math.inf, *, remove: bool = False) -> Iterator[bool | None]:
    """Hold a file's lock.

    Args:
        path: the file.
        patience_s: seconds to wait for it.
        remove: delete the file in the end; whoever waits for it sees that and makes it anew.

    Yields:
        As :meth:`Lock.take`.
    """
    lock = Lock(path)
    taken = lock.take(patience_s)
    try:
        yield taken
    finally:
        if taken:
            if remove:
                lock.path.unlink(missing_ok=True)
            lock.give_back()


def enter(
    folder: str | Path,
    patience_s: float = 0.0,
    waits: Callable[[], None] | None = None,
    command: Sequence[str] = (),
) -> bool:
    """Keep other processes out of a folder until :func:`leave`; this process may enter it again.

    Args:
        folder: made if it is not there.
        patience_s: seconds to wait for a process that is at work there.
        waits: is called when the waiting begins.
        command: what others are told is going on.

    Returns:
        False if another process is at work there.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        lock, times = _held[folder]
        _held[folder] = lock, times + 1
        return True
    lock = Lock(folder / FOLDER_LOCK)
    if (taken := lock.take(patience_s, waits)) is False:
        return False
    if taken:
        lock.sign(command)
    _held[folder] = lock, 1
    return True


def is_entered(folder: str | Path) -> bool:
    """Whether this process has entered the folder."""
    return Path(folder).resolve() in _held


def leave(folder: str | Path) -> None:
    """Let others into a folder, once for each time that it was entered."""
    folder = Path(folder).resolve()
    lock, times = _held.pop(folder)
    if times > 1:
        _held[folder] = lock, times - 1
    else:
        lock.give_back()


@contextmanager
def entered(folder: str | Path, patience_s: float = 0.0, waits: Callable[[], None] | None = None) -> Iterator[bool]:
    """:func:`enter` and :func:`leave`.

    Yields:
        False if another process is at work there.
    """
    ours = enter(folder, patience_s, waits)
    try:
        yield ours
    finally:
        if ours:
            leave(folder)


def at_work(folder: str | Path) -> str:
    """Who is at work in a folder that could not be entered, in words."""
    return Lock(Path(folder) / FOLDER_LOCK).holder()


def new_folder(path: str | Path) -> Path:
    """Make a folder that nobody has: ``path``, or if that is there ``path_2``, ``path_3`` and so on.

    Raises:
        FolderError: it cannot be made.
    """
    path, number = Path(path), 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
        try:
            candidate.parent.mkdir(parents=True, exist_ok=True)
            candidate.mkdir()  # one process succeeds, also on network file systems
            return candidate
        except FileExistsError:
            if not candidate.parent.is_dir():
                raise FolderError(f"{candidate.parent} is a file: {ELSEWHERE}") from None
            number += 1
        except OSError as error:
            raise FolderError(f"{candidate} cannot be made ({error.strerror}): {ELSEWHERE}") from None


def wait_for_signature(folder: str | Path, patience_s: float = 2.0) -> dict[str, Any]:
    """What the process that is at work in a folder has noted; it may have locked it a moment ago."""
    lock, end = Lock(Path(folder) / FOLDER_LOCK), time.monotonic() + patience_s
    while not (values := lock.signed()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return values
