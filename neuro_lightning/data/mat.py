"""Read MATLAB files (version 7 and older) of which a damaged one may kill the process that reads it.

scipy's reader follows the sizes in a file's tags in compiled code: damaged ones end in segmentation faults, in endless
loops and in allocations of terabytes. A file is therefore read in a process of its own first, with bounds on memory and
time; where that one survives, the file is read here.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.data.bounds import PACKED, reading
from neuro_lightning.errors import DataError

SPARE = 2**31
"""Bytes of memory that the process may take beside what the file can be unpacked to."""
TRIAL = """
import sys
path, limit, *names = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), resource.getrlimit(resource.RLIMIT_AS)[1]))
except ImportError:
    pass
import scipy.io
try:
    scipy.io.whosmat(path)
    scipy.io.loadmat(path, variable_names=names)
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def read_mat(path: str | Path, wanted: Sequence[str], mend: str = "fetch it again") -> dict[str, np.ndarray]:
    """Variables of a MATLAB file.

    Args:
        path: the file.
        wanted: the variables' names; those that it lacks are left out.
        mend: what to do about a file that cannot be read.

    Returns:
        The variables by name, as :func:`scipy.io.loadmat` gives them; sparse matrices as arrays.

    Raises:
        DataError: the file is not there, is damaged or of MATLAB 7.3, or has none of the variables.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not there: check data.path and data.root")
    with reading(path, mend):
        import scipy.io

        with path.open("rb") as file:
            if b"MATLAB 7.3" in file.read(128):
                raise DataError(f"{path} is a MATLAB 7.3 file; save it in MATLAB with: save(file, '-v7')")
        stat = path.stat()
        if problem := _problem(path, stat.st_size, stat.st_mtime_ns, tuple(wanted)):
            raise ValueError(problem)
        content = scipy.io.loadmat(path, variable_names=list(wanted))
        found = {name: _dense(content[name]) for name in wanted if name in content}
        if not found:
            has = ", ".join(name for name, *_ in scipy.io.whosmat(path)) or "nothing"
            raise DataError(f"{path} has no variable {' or '.join(wanted)}. It has: {has}")
    return found


def _dense(value: np.ndarray) -> np.ndarray:
    if not hasattr(value, "toarray"):
        return value
    value.check_format(full_check=True)  # toarray() writes wherever the indices point
    return value.toarray()


@functools.lru_cache(maxsize=64)
def _problem(path: Path, size: int, changed: int, wanted: tuple[str, ...]) -> str:
    """What becomes of a process that reads the file: empty if nothing happens to it."""
    limit = SPARE + PACKED * size
    if hasattr(os, "sysconf"):
        limit = min(limit, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    command = [sys.executable, "-P", "-c", TRIAL, str(path), str(limit), *wanted]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each reserves memory
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60 + size / 1e6, env=os.environ | threads
        )
    except subprocess.TimeoutExpired:
        return "reading it does not end"
    if done.returncode < 0:
        return f"it kills the process that reads it, with signal {-done.returncode}"
    text = done.stderr.decode(errors="replace").strip()
    return "" if not done.returncode else text.splitlines()[-1] if text else "no reason was told"
