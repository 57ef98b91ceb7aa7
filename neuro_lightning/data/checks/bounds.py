"""What a file may bring in: sizes are checked before memory is allocated, then types, shapes, finiteness and range.

Every reader goes through these functions, so that a damaged file ends as one line that names it, and never as a
traceback, a MemoryError, or numbers that cannot be.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.errors import DataError, NeuroError

PACKED = 1100
"""How many bytes one stored byte may become: deflate packs zeros 1032-fold at most."""
SMALL = 64 * 2**20
"""Arrays up to this many bytes may be packed as tightly as they like."""
LARGEST = 1e9
"""Beyond it lies no response, trace, position or behavior, in whatever unit; damaged exponents mostly do."""
SIMPLE = "biufcSU"
"""The kinds of dtype that are read: numbers and text; no objects, no records, no dates."""


@contextmanager
def reading(path: str | Path, mend: str = "fetch it again", error: type[NeuroError] = DataError) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into one line that names the file.

    Args:
        path: the file.
        mend: what to do about it.
        error: what is raised.

    Raises:
        NeuroError: of the class ``error``, or as it was raised inside.
    """
    try:
        yield
    except NeuroError:
        raise
    except FileNotFoundError:
        raise error(f"{path} is not there; {mend}") from None
    except PermissionError:
        raise error(f"{path} may not be read: ask its owner, or change its mode with chmod") from None
    except MemoryError:
        raise error(f"{path} needs more memory than there is, or its sizes are damaged; {mend}") from None
    except Exception as cause:  # a damaged stream may fail in any step of any library
        message = f"{path} cannot be read: damaged, cut short or of another kind; {mend} ({reason(cause)})"
        raise error(message) from cause


def reason(error: BaseException) -> str:
    """An error's text in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_npy(path: str | Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an ``.npy`` file, whose values must fill the file to its last byte; nothing is unpickled.

    Args:
        path: the file.
        mapped: leave the values on disk (read-only) until they are used.

    Raises:
        ValueError: no such file, another number of bytes than its header asks for, or neither numbers nor text. Call
            it inside :func:`reading`, which adds the file's name.
    """
    with Path(path).open("rb") as file:
        shape, order, dtype = array_header(file, os.fstat(file.fileno()).st_size)
        if mapped:
            return np.memmap(file, dtype, "r", file.tell(), shape, order)
        return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)


def read_npz(path: str | Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray | None]:
    """The arrays of an ``.npz`` archive, each byte checked against the archive's CRC-32.

    Args:
        path: the file.
        wanted: names of the arrays to read; the others are None. None reads all.

    Raises:
        ValueError: as :func:`read_npy`; other errors of a damaged archive pass through.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {n: read_member(archive, i) if wanted is None or n in wanted else None for n, i in members.items()}


def read_member(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo) -> np.ndarray:
    """One array of an open archive; errors as in :func:`read_npz`."""
    info = archive.getinfo(member) if isinstance(member, str) else member
    if info.file_size > SMALL + PACKED * info.compress_size:
        raise ValueError(f"{info.filename} would take {info.file_size:,} bytes, {info.compress_size:,} are there")
    content = bytearray(archive.read(info))  # the whole member: only at its end is the CRC compared
    stream = io.BytesIO(content)
    shape, order, dtype = array_header(stream, len(content))
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order=order)


def read_h5(dataset: Any, where: str, error: type[NeuroError] = DataError) -> np.ndarray:
    """The values of an HDF5 dataset, after :func:`check_stored`."""
    check_stored(dataset, where, error)
    return np.asarray(dataset[()])


def check_stored(dataset: Any, where: str, error: type[NeuroError] = DataError) -> None:
    """Whether an HDF5 dataset's declared size can be in the file at all.

    Args:
        dataset: the dataset.
        where: the file and its name, for the message.
        error: what is raised.

    Raises:
        NeuroError: it is no dataset, or far larger than what is stored of it.
    """
    if not hasattr(dataset, "dtype") or dataset.shape is None:
        raise error(f"{where} must be an array, but is {'empty' if hasattr(dataset, 'dtype') else 'a group'}")
    if isinstance(dataset, np.ndarray) or dataset.is_virtual or dataset.external:
        return  # already in memory, or in other files, whose size this one does not tell
    declared, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > (SMALL if stored else 0) + PACKED * stored:
        raise error(
            f"{where} declares {dataset.dtype} {dataset.shape}, {declared:,} bytes, but only {stored:,} bytes are "
            "stored: the file is damaged or was not written to its end; fetch it again"
        )


def check_array(
    values: np.ndarray,
    where: str,
    *,
    kinds: str = "biuf",
    axes: tuple[str, ...] | None = None,
    minimum: float = -LARGEST,
    maximum: float = LARGEST,
    may_be_nan: bool = False,
    whole: bool = False,
    what: str = "numbers",
    error: type[NeuroError] = DataError,
) -> None:
    """Whether an array holds what it should.

    Args:
        values: the array.
        where: the file and the array's name, for the message.
        kinds: the kinds of dtype that are taken.
        axes: names of its axes; None for any number of them.
        minimum: the smallest value that can be.
        maximum: the largest one.
        may_be_nan: whether values may be missing.
        whole: values must be whole numbers.
        what: what is expected, in a word or two.
        error: what is raised.

    Raises:
        NeuroError: naming the first thing that is not so.
    """
    if values.dtype.kind not in kinds or (axes is not None and values.ndim != len(axes)):
        shape = "" if axes is None else f", {' x '.join(axes)}"
        if axes is not None and len(axes) == 1 and len(axes[0]) > 1:
            shape = f", one for each of the {axes[0]}"
        raise error(f"{where} must be {what}{shape}, but is {values.dtype} of shape {values.shape}")
    if not values.size:
        raise error(f"{where} is empty, shape {values.shape}; {what} are expected")
    if values.dtype.kind in "SUb":
        return
    values = np.atleast_1d(values)
    for rows in row_blocks(values):
        block = values[rows]
        if values.dtype.kind in "fc":
            seen = block[~np.isnan(block)] if may_be_nan else block
            if not np.isfinite(seen).all():
                kind = "infinite" if may_be_nan else "NaN or infinite"
                raise error(f"{where} holds {kind} values; {what} are expected: mend the file, or fetch it again")
        else:
            seen = block
        if not seen.size or values.dtype.kind == "c":
            continue
        low, high = float(seen.min()), float(seen.max())
        if low < minimum or high > maximum:
            odd = low if low < minimum else high
            sign = "negative values, down to " if minimum == 0 and odd < 0 else ""
            bounds = f"lie between {minimum:g} and {maximum:g}"
            if maximum == LARGEST and low < minimum > -LARGEST:
                bounds = f"are at least {minimum:g}"
            raise error(f"{where} holds {sign}{odd:.6g}, where {what} {bounds}")
        if whole and values.dtype.kind == "f" and (seen % 1).any():
            odd = float(seen[seen % 1 != 0].flat[0])
            raise error(f"{where} holds {odd:.6g}, but {what} are whole numbers")


def check_arrays(
    where: str,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, str],
    rules: Mapping[str, dict[str, Any]] | None = None,
    axes: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Whether arrays are finite numbers of shapes that fit each other.

    Args:
        where: what stands before each array's name in the message: the file.
        arrays: by key; keys that are not in ``shapes`` are not looked at, and the reverse.
        shapes: an axis a character: ``{"sresp": "NT", "xyz": "3N", "run": "T1"}``. A letter is a size that must be the
            same wherever it stands, a digit is a size itself.
        rules: by key, what else than finite numbers is expected: keyword arguments of :func:`check_array`.
        axes: the axes' names by letter, for the message.

    Returns:
        The sizes by letter.

    Raises:
        DataError: an array is empty, not of numbers, of another shape, or holds NaN, infinite or impossible values.
    """
    known = {key: array for key, array in arrays.items() if key in shapes}
    for key, array in known.items():
        names = tuple((axes or {}).get(axis, axis) for axis in shapes[key])
        check_array(array, f"{where}{key}", axes=names, **(rules or {}).get(key, {}))
    return check_sizes(where, known, shapes, axes=axes)


def check_sizes(
    where: str,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, str],
    error: type[NeuroError] = DataError,
    axes: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Whether the shapes of arrays fit each other.

    Args:
        where: what stands before each array's name in the message: the file.
        arrays: by key, each with as many axes as ``shapes`` has characters for it.
        shapes: as for :func:`check_arrays`.
        error: what is raised.
        axes: as for :func:`check_arrays`.

    Returns:
        The sizes by letter.

    Raises:
        NeuroError: of the class ``error``: an array has another shape.
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    names = axes or {}
    for key, array in ((key, arrays[key]) for key in shapes if key in arrays):
        for axis, size in zip(shapes[key], array.shape, strict=True):
            expected = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
            first = origin.setdefault(axis, key)
            if size != expected:
                want = " x ".join(names.get(letter, letter) for letter in shapes[key])
                want = f"one for each of the {want}" if len(want) > len(shapes[key]) == 1 else want
                size = f"{expected} {names[axis]}" if axis in names else f"{axis} = {expected}"
                like = "" if axis.isdigit() else f" with {size} as in {first}"
                raise error(f"{where}{key} has the shape {array.shape}, but it must be {want}{like}")
    return sizes


def array_header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], str, np.dtype]:
    """Shape, order and dtype of an array whose values must fill the rest of a stream of ``size`` bytes.

    Raises:
        ValueError: as :func:`read_npy`.
    """
    shape, order, dtype = npy_header(file)
    if dtype.kind not in SIMPLE or not dtype.itemsize or any(length < 0 for length in shape):
        raise ValueError(f"an array of {dtype} and shape {shape} is not read: numbers or text are expected")
    needed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if needed != there:
        raise ValueError(f"its header tells of {dtype} {shape}, {needed:,} bytes, but {there:,} follow")
    return shape, order, dtype


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], str, np.dtype]:
    """Shape, order (C or F) and dtype at the beginning of an ``.npy`` stream."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, "F" if fortran else "C", dtype
