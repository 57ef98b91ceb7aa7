"""Large arrays a part at a time, so that no copy as large as the array is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

BLOCK = 2**20
"""Numbers that are read at a time."""


def row_blocks(array: Any, most: int | None = None) -> Iterator[slice]:
    """Slices of rows that cover an array, each about ``most`` (:data:`BLOCK`) numbers and whole chunks of an HDF5 file.

    Args:
        array: with one axis or more, in memory or in a file.
        most: numbers in a block; a block has one row or one chunk at least.
    """
    chunk = array.chunks[0] if getattr(array, "chunks", None) else 1
    step = max(1, (most or BLOCK) // max(1, math.prod(array.shape[1:])) // chunk) * chunk
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))
