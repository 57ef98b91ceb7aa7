"""Who is at work in a folder: a file that a process keeps locked, which the system lets go when the process ends.

That holds however it ends, also on network file systems and between containers, where a process number would mean
nothing. Nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TAKEN = (errno.EACCES, errno.EAGAIN)  # what the system says of a lock that another process holds
JOB_LOCK = ".lock"


def lock(file: IO[str], *, wait: bool) -> bool | None:
    """Whether an open file was free and is now this process's; None where the system knows no locks."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    except ImportError:  # Windows
        return None
    except OSError as error:
        return False if error.errno in TAKEN else None


@contextmanager
def claimed(folder: str | Path, patience_s: float = 0.0, waits: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Keep other processes out of a job's folder: two that train in it spoil each other's files.

    Args:
        folder: the job's; made if it is not there.
        patience_s: seconds to wait for a process that is at work there.
        waits: is called when the waiting begins.

    Yields:
        False if another process is at work there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / JOB_LOCK, "w") as file:
        free, end = lock(file, wait=False), time.monotonic() + patience_s
        if free is False and patience_s:
            waits()
        while free is False and time.monotonic() < end:
            time.sleep(0.1)
            free = lock(file, wait=False)
        yield free is not False
