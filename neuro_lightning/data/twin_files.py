"""Files of simulated twins: each is there whole or not at all, and the truth beside them says how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.errors import DataError

Save = Callable[[Path], Any]
"""Writes a file's content to a path."""


def is_written(recipe: Mapping[str, Any], truth: Path, *files: Path) -> bool:
    """Whether an earlier call has written these very files.

    Args:
        recipe: seed, sizes and version of the twin, plain values.
        truth: the ``.npz`` file that was written last.
        files: the other files.
    """
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(truth, allow_pickle=False) as arrays:
        return str(arrays["recipe"]) == _text(recipe) and all(path.is_file() for path in files)
    return False


def write_twin_files(
    recipe: Mapping[str, Any], truth: Path, arrays: Mapping[str, np.ndarray], files: Mapping[Path, Save]
) -> None:
    """Write a twin's files; the truth goes last, so that a folder with a truth is complete.

    Args:
        recipe: see :func:`is_written`.
        truth: the ``.npz`` file of what was simulated.
        arrays: its content.
        files: what writes each of the other files.

    Raises:
        DataError: a file cannot be written.
    """
    with suppress(OSError):
        truth.unlink()
    for path, save in files.items():
        write_file(path, save)
    write_file(truth, lambda part: np.savez(part, **arrays, recipe=np.array(_text(recipe))))


def write_file(path: Path, save: Save) -> None:
    """Write one file of a twin.

    Raises:
        DataError: there is no space or no permission; nothing is left behind.
    """
    with whole_file(path, DataError, "it is of a simulated twin; set data.root=DIR to a folder with space") as part:
        save(part)


def _text(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
