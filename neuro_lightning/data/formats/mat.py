"""Read MATLAB files (version 7 and older) of which a damaged one may kill the process that reads it.

scipy's reader follows the sizes in a file's tags in compiled code: damaged ones end in segmentation faults, in endless
loops and in allocations of terabytes. A file is therefore read in a process of its own first, with bounds on memory and
time; where that one survives, the file is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.bounds import reading
from neuro_lightning.data.formats.subprocess_check import find_reading_problem
from neuro_lightning.errors import DataError

TRIAL = """
    import scipy.io
    scipy.io.whosmat(path)
    scipy.io.loadmat(path, variable_names=names)
"""


def read_mat(path: str | Path, wanted: Sequence[str], mend: str = "fetch it again") -> dict[str, np.ndarray]:
    """Variables of a MATLAB file.

    Args:
        path: the file.
        wanted: the variables' names; those that it lacks are left out.
        mend: what to do about a file that cannot be read.

    Returns:
        The variables by name, as ``scipy.io.loadmat`` gives them; sparse matrices as arrays.

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
        if problem := find_reading_problem(TRIAL, str(path), tuple(wanted), stat.st_size, stat.st_mtime_ns):
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
