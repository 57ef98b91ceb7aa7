"""What the members of an ensemble predict, on disk: memory does not grow with their number."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy import ndarray

from neuro_lightning.errors import DataError

BLOCK = 2**20  # numbers that are read at a time


class MemberFiles:
    """Arrays of each member in a temporary folder, which is gone when the ``with`` block ends, however it ends.

    Raises:
        DataError: the disk has no room for them.
    """

    def __enter__(self) -> MemberFiles:
        self._temporary = tempfile.TemporaryDirectory(prefix="neuro_lightning-members-")
        self.folder = Path(self._temporary.name)
        self._shapes: dict[str, tuple[int, ...]] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def reserve(self, n_bytes: int) -> None:
        """Check that there is room before anything is written."""
        free = shutil.disk_usage(self.folder).free
        if n_bytes > free:
            raise DataError(
                f"the members' predictions need {n_bytes / 1e9:.1f} GB of disk while they are chosen from, and "
                f"{self.folder.parent} has {free / 1e9:.1f} GB free: set TMPDIR to a roomier folder, or give fewer ckpt"
            )

    def write(self, name: str, member: int, values: ndarray) -> None:
        """Keep one member's array, float32, of the same shape for all members; members come in turn: 0, 1, 2, ..."""
        if self._shapes.setdefault(name, values.shape) != values.shape:
            raise ValueError(f"{name}: shape {values.shape}, of others {self._shapes[name]}")
        try:
            with open(self.folder / name, "r+b" if member else "wb") as file:
                file.seek(member * values.size * 4)
                np.ascontiguousarray(values, np.float32).tofile(file)
        except OSError as error:
            raise DataError(f"{self.folder / name} cannot be written ({error}): set TMPDIR to another folder") from None

    def blocks(self, name: str) -> Iterator[slice]:
        """Rows that cover a member's array, about :data:`BLOCK` numbers each."""
        rows, *rest = self._shapes[name]
        step = max(1, BLOCK // max(1, math.prod(rest)))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def read(self, name: str, member: int, rows: slice) -> ndarray:
        """Some rows of a member's array, float32."""
        size, per_row = math.prod(self._shapes[name]), math.prod(self._shapes[name][1:])
        count, offset = (rows.stop - rows.start) * per_row, 4 * (member * size + rows.start * per_row)
        return np.fromfile(self.folder / name, np.float32, count, offset=offset).reshape(-1, *self._shapes[name][1:])

    def columns(self, name: str, n_members: int, start: int, stop: int) -> ndarray:
        """Entries ``start`` to ``stop`` of all members' arrays of one axis, (M, stop - start) float64."""
        (size,) = self._shapes[name]
        if start == stop:
            return np.zeros((n_members, 0))
        # mapped anew each time: what is mapped counts as memory as long as it is
        return np.memmap(self.folder / name, np.float32, "r", shape=(n_members, size))[:, start:stop].astype(np.float64)
