"""Locks on files and folders, which the system releases when their process ends, however it ends.

That holds also on network file systems and between containers, where a process number would mean nothing. A lock's
file stays when it is released: deleting it would let two processes lock two files of one name. Its content says who
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

FOLDER_LOCK = ".lock"  # in a folder: held by the process that works there
# errors of file systems without locks, and of read-only ones
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
POLL_S = 0.05

_held_locks: dict[Path, tuple[Lock, int]] = {}  # by folder: this process's lock, and how often it was taken


class Lock:
    """A file that one process at a time keeps locked.

    Args:
        path: the file; it and its folder are made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path, thread_local=False, fallback_to_soft=False)

    def acquire(self, timeout_s: float = 0.0, on_wait: Callable[[], None] | None = None) -> bool | None:
        """Try to get the lock.

        Args:
            timeout_s: seconds to wait for a process that holds it.
            on_wait: is called when the waiting begins.

        Returns:
            Whether this process holds it now; None where the file system has no locks.

        Raises:
            FolderError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                if not timeout_s:
                    return False
                if on_wait is not None:
                    on_wait()
                self._lock.acquire(timeout=-1 if math.isinf(timeout_s) else timeout_s, poll_interval=POLL_S)
        except Timeout:
            return False
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return None
            raise FolderError(
                f"{self.path.parent} cannot be written ({error.strerror or error}): {ELSEWHERE}"
            ) from None
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def write_holder(self, command: Sequence[str] = ()) -> None:
        """Write into the file which process holds it, for those that find it locked."""
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        values = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": list(command)}
        with suppress(OSError):  # a full disk, say: the lock holds all the same
            self.path.write_text(json.dumps(values))  # in place: the lock belongs to this very file

    def read_holder(self) -> dict[str, Any]:
        """What its holder has written; empty if nothing."""
        try:
            values = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def describe_holder(self) -> str:
        """The holder as text: process, host and time."""
        values = self.read_holder()
        if not {"pid", "host", "since"} <= values.keys():
            return "another process"
        return f"process {values['pid']} on {values['host']}, since {values['since']}"


@contextmanager
def locked(path: str | Path, timeout_s: float = math.inf, *, remove: bool = False) -> Iterator[bool | None]:
    """Hold a file's lock.

    Args:
        path: the file.
        timeout_s: seconds to wait for it.
        remove: delete the file in the end; a process that waits for it makes it again.

    Yields:
        As :meth:`Lock.acquire` returns.
    """
    lock = Lock(path)
    acquired = lock.acquire(timeout_s)
    try:
        yield acquired
    finally:
        if acquired:
            if remove:
                lock.path.unlink(missing_ok=True)
            lock.release()


def lock_folder(
    folder: str | Path,
    timeout_s: float = 0.0,
    on_wait: Callable[[], None] | None = None,
    command: Sequence[str] = (),
) -> bool:
    """Keep other processes out of a folder until :func:`unlock_folder`; this process may lock it several times.

    Args:
        folder: made if it is not there.
        timeout_s: seconds to wait for a process that is at work there.
        on_wait: is called when the waiting begins.
        command: the command line, for the message to others.

    Returns:
        False if another process is at work there.
    """
    folder = Path(folder).resolve()
    if folder in _held_locks:
        lock, times = _held_locks[folder]
        _held_locks[folder] = lock, times + 1
        return True
    lock = Lock(folder / FOLDER_LOCK)
    if (acquired := lock.acquire(timeout_s, on_wait)) is False:
        return False
    if acquired:
        lock.write_holder(command)
    _held_locks[folder] = lock, 1
    return True


def holds_folder_lock(folder: str | Path) -> bool:
    """Whether this process holds the lock of the folder."""
    return Path(folder).resolve() in _held_locks


def unlock_folder(folder: str | Path) -> None:
    """Release a folder's lock once; others get it after as many calls as :func:`lock_folder` had."""
    folder = Path(folder).resolve()
    lock, times = _held_locks.pop(folder)
    if times > 1:
        _held_locks[folder] = lock, times - 1
    else:
        lock.release()


@contextmanager
def locked_folder(
    folder: str | Path, timeout_s: float = 0.0, on_wait: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold a folder's lock within a ``with`` block.

    Yields:
        False if another process is at work there.
    """
    acquired = lock_folder(folder, timeout_s, on_wait)
    try:
        yield acquired
    finally:
        if acquired:
            unlock_folder(folder)


def folder_lock_holder(folder: str | Path) -> str:
    """The process that holds a folder's lock, as text."""
    return Lock(Path(folder) / FOLDER_LOCK).describe_holder()


def new_folder(path: str | Path) -> Path:
    """Make a new folder: ``path``, or if that is there ``path_2``, ``path_3`` and so on.

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


def read_folder_lock(folder: str | Path, timeout_s: float = 2.0) -> dict[str, Any]:
    """What the holder of a folder's lock has written; waited for, as it may have locked it a moment ago."""
    lock, end = Lock(Path(folder) / FOLDER_LOCK), time.monotonic() + timeout_s
    while not (values := lock.read_holder()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return values
