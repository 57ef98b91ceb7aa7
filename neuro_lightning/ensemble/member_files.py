"""Keeps the predictions of an ensemble's members on disk, so that memory does not grow with their number."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from neuro_lightning.errors import DataError


@dataclass(frozen=True)
class MemberFiles:
    """Arrays of each member in a folder.

    Attributes:
        folder: a temporary one.

    Raises:
        DataError: the disk has no room for them.
    """

    folder: Path

    def reserve(self, n_bytes: int) -> None:
        """Check that there is room before anything is written."""
        free = shutil.disk_usage(self.folder).free
        if n_bytes > free:
            raise DataError(
                f"the members' predictions need {n_bytes / 1e9:.1f} GB of disk while they are chosen from, and "
                f"{self.folder.parent} has {free / 1e9:.1f} GB free: set TMPDIR to a roomier folder, or give fewer ckpt"
            )

    def write(self, name: str, member: int, values: ndarray) -> None:
        """Keep one member's array in single precision.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        path = self._path(name, member)
        try:
            np.save(path, values.astype(np.float32, copy=False))
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error}): set TMPDIR to another folder") from None

    def open(self, name: str, member: int) -> ndarray:
        """A member's array, mapped: only what is indexed is read. Memory counts what was read until it is closed."""
        return np.load(self._path(name, member), mmap_mode="r")

    def columns(self, name: str, n_members: int, start: int, stop: int) -> ndarray:
        """Entries ``start`` to ``stop`` of all members' arrays of one axis, (M, stop - start) float64."""
        return np.stack([self.open(name, member)[start:stop] for member in range(n_members)]).astype(np.float64)

    def _path(self, name: str, member: int) -> Path:
        return self.folder / f"{name}-{member}.npy"
