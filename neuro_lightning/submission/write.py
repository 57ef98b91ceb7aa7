"""Writes predicted rates as the benchmark's submission file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.checks.bounds import reading
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission.check import AGAIN, BLOCK, ELSEWHERE, arrays_of, check_submission, open_h5
from neuro_lightning.submission.layout import RATES, group_name

CHUNK_BYTES = 2**20


def write_submission(
    path: str | Path,
    dataset: str,
    bin_ms: int,
    arrays: Mapping[str, np.ndarray],
    *,
    merge_into: str | Path | None = None,
    mean_counts: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Writes the rates of one dataset: float32, compressed, and complete or not at all.

    Args:
        path: the file to write; it replaces an existing one.
        dataset: the dataset's name.
        bin_ms: bin width in ms.
        arrays: (B, T, N) rates in spikes per bin by their name in :data:`~neuro_lightning.submission.layout.RATES`.
        merge_into: a submission file whose other datasets are kept; the same dataset is replaced. It may be ``path``.
        mean_counts: (N,) mean spikes per bin of the neurons of some arrays, which tell rates in Hz; see
            :func:`~neuro_lightning.submission.check.check_submission`.

    Returns:
        The path written.

    Raises:
        SubmissionError: the rates are not what the benchmark expects, or a file cannot be read or written.
    """
    path, group = Path(path), group_name(dataset, bin_ms)
    with np.errstate(over="ignore"):
        arrays = {n: a.astype(np.float32) if a.dtype.kind in "fiu" else a for n, a in arrays.items()}
    check_submission(group, arrays, mean_counts=mean_counts, bin_ms=bin_ms)
    before = _state(merge_into)
    with whole_file(path, SubmissionError, ELSEWHERE) as part:
        with h5_file(part) as file:
            if merge_into is not None:
                with open_h5(merge_into) as other:
                    for name in _whole_groups(other, str(merge_into), but=group):
                        other.copy(other[name], file, name=name)
            for name in RATES:
                if name in arrays:
                    _write(file, f"{group}/{name}", arrays[name])
        if _state(merge_into) != before:  # the dataset that was added would be lost
            raise SubmissionError(f"{merge_into}: another process has written it meanwhile; merge again")
    return path


def _state(path: str | Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None without one."""
    if path is None or not Path(path).exists():
        return None
    stat = Path(path).stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _whole_groups(file: h5py.File, where: str, but: str) -> list[str]:
    """The groups of a file apart from one, after all of their arrays were read: a copy would take damage along."""
    with reading(where, AGAIN, SubmissionError):
        names = [name for name in file if name != but]
        for name in names:
            for array in arrays_of(file, name, where).values():
                for block in row_blocks(array, BLOCK) if array.ndim else ():
                    array[block]
    return names


def _write(file: h5py.File, name: str, array: np.ndarray) -> None:
    trial = 4 * max(1, int(np.prod(array.shape[1:])))
    chunks = (min(len(array), max(1, CHUNK_BYTES // trial)), *array.shape[1:]) if array.size else None
    packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "chunks": chunks} if array.size else {}
    file.create_dataset(name, data=array, **packed)
