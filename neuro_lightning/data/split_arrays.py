"""Dataclasses of arrays that have one row for each trial, image or window."""

from __future__ import annotations

from dataclasses import fields
from typing import Self

import numpy as np


class SplitArrays:
    """Base of the dataclasses whose fields are arrays of one length, or None."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        return {f.name: values for f in fields(self) if (values := getattr(self, f.name)) is not None}

    def joined(self, other: Self) -> Self:
        """The rows of both, of those arrays that both have."""
        theirs = other.arrays()
        both = {name: (values, theirs[name]) for name, values in self.arrays().items() if name in theirs}
        return type(self)(**{name: np.concatenate(pair) for name, pair in both.items()})

    def take(self, index: np.ndarray) -> Self:
        """The rows at ``index`` (integers or a boolean mask), in that order."""
        return type(self)(**{name: values[index] for name, values in self.arrays().items()})
