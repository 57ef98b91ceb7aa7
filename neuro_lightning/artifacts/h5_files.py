"""Writes HDF5 files; on a full disk that is an error as of any other file.

HDF5 itself ends the process there, by a segmentation fault and hundreds of lines.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


class _Sink(io.FileIO):
    """A file in which every write succeeds, as HDF5 sees it: the first error is kept, and what follows is not written.

    Attributes:
        error: the first.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, unless a write has failed before."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def h5_file(path: str | Path, *, append: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file to write into.

    Args:
        path: the file, which is replaced.
        append: keep what is in a file that is there.

    Raises:
        OSError: there is no space or no permission; what the file holds is then of no use.
    """
    import h5py

    keep = append and Path(path).is_file()
    with _Sink(path, "r+" if keep else "w+") as sink:
        try:
            with h5py.File(sink, "r+" if keep else "w") as file:
                yield file
        except Exception:
            if sink.error is None:
                raise
        if sink.error is not None:
            raise OSError(sink.error.errno, sink.error.strerror, str(path))
