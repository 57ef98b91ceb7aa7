"""Reads a file in a process of its own, with bounds on memory and time, where damage may kill or hang the reader."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from neuro_lightning.data.checks.bounds import PACKED

SPARE = 2**31
"""Bytes of memory that the process may take beside what the file can be unpacked to."""
BEGIN = """
import sys
path, limit, *names = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), resource.getrlimit(resource.RLIMIT_AS)[1]))
except ImportError:
    pass
try:
"""
END = """
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@functools.lru_cache(maxsize=64)
def find_reading_problem(
    code: str, path: str, names: tuple[str, ...], size: int, changed: int, seconds: float = 60
) -> str:
    """What becomes of a process that reads a file: empty if nothing happens to it.

    Args:
        code: lines of Python, indented by four spaces, that read ``names`` from ``path``.
        path: the file.
        names: what is read.
        size: of the file in bytes.
        changed: when it was changed last; files that have not changed are not tried again.
        seconds: how long it may take, apart from a second for each megabyte.
    """
    limit = SPARE + PACKED * size
    if hasattr(os, "sysconf"):
        limit = min(limit, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    command = [sys.executable, "-P", "-c", BEGIN + code + END, path, str(limit), *names]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each reserves memory
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds + size / 1e6,
            env=os.environ | threads,
        )
    except subprocess.TimeoutExpired:
        return "reading it does not end"
    if done.returncode < 0:
        return f"it kills the process that reads it, with signal {-done.returncode}"
    text = done.stderr.decode(errors="replace").strip()
    return "" if not done.returncode else text.splitlines()[-1] if text else "no reason was given"
