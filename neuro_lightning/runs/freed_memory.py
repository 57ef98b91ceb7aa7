"""Memory that one training step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of the options in ``malloc.h`` of the GNU C library, see its manual page ``mallopt(3)``."""
LARGEST_KEPT = 2**25
"""Bytes: larger blocks go back to the system when they are freed. The library takes no larger value."""
MOST_KEPT = 2**31 - 1
"""Bytes that are kept in all; the option holds no larger value."""


def keep_freed_memory() -> bool:
    """Let the GNU C library keep freed memory; returns whether it does.

    By default it gives much of what a step frees back to the system, which clears the same pages again for the next
    step: on a CPU about a tenth of the processor time of a training. The process then holds 5 to 11 % more memory at
    most (``experiment=mc_maze_430``). Other C libraries, and settings of the user (``MALLOC_...``, ``GLIBC_TUNABLES``),
    stay as they are.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; or Windows, whose library has a name
        return False
    return all(
        mallopt(option, value) for option, value in ((MMAP_THRESHOLD, LARGEST_KEPT), (TRIM_THRESHOLD, MOST_KEPT))
    )
