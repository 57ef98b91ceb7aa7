"""Files of simulated twins: each is there whole or not at all, and the truth beside them says how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.data.checks.bounds import check_array, read_npz, reading
from neuro_lightning.errors import DataError

TRUTH = "truth.npz"
"""The file of what was simulated, beside the others."""

Save = Callable[[Path], Any]
"""Writes a file's content to a path."""
Simulate = Callable[[], tuple[Mapping[str, Save], Mapping[str, np.ndarray]]]
"""Returns what writes each file, by name, and the truth behind them, arrays by name."""


def write_twin_files(folder: str | Path, recipe: Mapping[str, Any], simulate: Simulate) -> Path:
    """Write a twin's files, unless an earlier call with the same recipe has written them.

    The truth goes last, so that a folder with a truth is complete.

    Args:
        folder: where to; made if need be.
        recipe: seed, sizes and version of the twin, plain values.
        simulate: makes the content.

    Returns:
        The folder.

    Raises:
        DataError: a file cannot be written.
    """
    folder, text = Path(folder).expanduser(), json.dumps(recipe, sort_keys=True)
    truth = folder / TRUTH
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(truth, allow_pickle=False) as arrays:
        if str(arrays["recipe"]) == text and all((folder / name).is_file() for name in arrays["files"].tolist()):
            return folder
    files, planted = simulate()
    with suppress(OSError):
        truth.unlink()
    for name, save in files.items():
        write_file(folder / name, save)
    write_file(truth, lambda part: np.savez(part, **planted, recipe=np.array(text), files=np.array(list(files))))
    return folder


def twin_version(sources: Sequence[Mapping[str, Any]]) -> int | None:
    """The version of the twin that files belong to, by the truth beside them; None where there is none."""
    for truth in {Path(source["path"]).parent / TRUTH for source in sources}:
        with (
            suppress(OSError, ValueError, KeyError, EOFError, BadZipFile),
            np.load(truth, allow_pickle=False) as arrays,
        ):
            return int(json.loads(str(arrays["recipe"]))["twin"])
    return None


def write_file(path: Path, save: Save) -> None:
    """Write one file of a twin.

    Raises:
        DataError: there is no space or no permission; nothing is left behind.
    """
    with whole_file(path, DataError, "it is of a simulated twin; set data.root=DIR to a folder with space") as part:
        save(part)


def true_rates(path: str | Path, shape: tuple[int, ...], name: str = "rates") -> np.ndarray:
    """The expected responses that a twin keeps beside its files.

    Args:
        path: the file of the truth.
        shape: that they must have.
        name: of the array.

    Raises:
        DataError: the file is damaged, or is of another twin.
    """
    mend = f"delete the folder {Path(path).parent} to have it simulated again"
    with reading(path, mend):
        rates = read_npz(path)[name]
    check_array(rates, f"{path}: {name}", kinds="f")
    if rates.shape != shape:
        raise DataError(f"{path}: {name} {rates.shape} do not fit the files beside it, {shape}; {mend}")
    return rates
