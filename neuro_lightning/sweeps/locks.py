"""Who is at work in a folder: a file that a process keeps locked, which the system lets go when the process ends.

That holds however it ends, also on network file systems and between containers, where a process number would mean
nothing. Nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
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
def claimed(folder: str | Path, patience_s: float = 0.0) -> Iterator[bool]:
    """Keep other processes out of a job's folder: two that train in it spoil each other's files.

    Args:
        folder: the job's; made if it is not there.
        patience_s: seconds to wait for a process that is about to end.

    Yields:
        False if another process is at work there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / JOB_LOCK, "w") as file:
        end = time.monotonic() + patience_s
        while (free := lock(file, wait=False)) is False and time.monotonic() < end:
            time.sleep(0.1)
        yield free is not False
