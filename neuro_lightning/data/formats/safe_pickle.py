"""Read dictionaries of arrays that ``np.save`` pickled, without running anything that a file may carry.

``np.load(allow_pickle=True)`` would call whatever function a file names. Here only the few names that a dictionary of
numbers needs are known, and behind them stand plain functions of this file: not even numpy's own unpickling sees the
file's values (a forged dtype can make it follow pointers that the file has chosen).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neuro_lightning.data.checks.bounds import npy_header, read_npz, reading
from neuro_lightning.errors import DataError

BUILTINS = {"dict": dict, "list": list, "tuple": tuple, "str": str, "float": float, "int": int}
SIMPLE = frozenset("biufcSUO")
"""The kinds of dtype that are read: numbers, text and Python objects; no records, no dates."""


def load_dict(path: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read a dictionary of arrays from an ``.npy`` file (``np.save`` of a dict) or an ``.npz`` archive.

    The pickle is read straight from the file, so the file's size is about what it costs in memory; arrays are views of
    what was read, hence read-only.

    Args:
        path: the file.
        required: keys that must be there.
        optional: keys that are returned too where they are there; all others are left out.

    Returns:
        The arrays by key, required ones first. Single numbers and texts are arrays of shape (); lists of dictionaries
        (suite2p's ``stat``) are arrays of objects.

    Raises:
        DataError: the file is missing, damaged, no dictionary, carries anything but arrays, numbers and text, or lacks
            a key.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path} is not there: check data.path and data.root")
    with reading(path):
        values = read_npz(path, (*required, *optional)) if path.suffix == ".npz" else _read_npy(path)
        if missing := [key for key in required if key not in values]:
            has = ", ".join(str(key) for key in values)
            raise DataError(f"{path} lacks {', '.join(missing)}. Expected: {', '.join(required)}. It has: {has}")
        unwrap = _Unwrap()
        wanted = [*required, *(key for key in optional if key in values)]
        return {key: _as_array(unwrap(values[key])) for key in wanted}


def load_list(path: str | Path) -> list[dict]:
    """Read a list of dictionaries from an ``.npy`` file (``np.save`` of an array of them, as suite2p's ``stat.npy``).

    Raises:
        DataError: the file is missing, damaged, or carries anything but dictionaries of arrays, numbers and text.
    """
    path = Path(path).expanduser()
    with reading(path):
        root = _unpickled(path)
        items = list(_Unwrap()(root).flat) if isinstance(root, _Array) and root.items else []
        if not items or not all(isinstance(item, dict) for item in items):
            raise DataError(f"{path} does not hold a list of dictionaries")
        return items


def _read_npy(path: Path) -> dict[str, Any]:
    root = _unpickled(path)
    content = root.items[0] if isinstance(root, _Array) and root.shape == () and root.items else None
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a dictionary; np.save(file, {{'key': array}}) makes one")
    return content


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        shape, _, dtype = npy_header(file)
        if dtype.kind != "O":
            raise DataError(f"{path} holds an array of {dtype} and shape {shape}; a pickled dictionary is expected")
        root = _Unpickler(file, path).load()
        if file.read(1):
            raise DataError(f"{path} has further bytes after its dictionary: bytes were added or moved; fetch it again")
    return root


class _Unpickler(pickle.Unpickler):
    """Knows the names that arrays, numbers and text need; any other is refused before it is looked up."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's arrays carry their bytes as text
        self.path = path
        # bound methods have no attributes that a file could set
        self.known: dict[tuple[str, str], Callable | str] = {("_codecs", "encode"): self.encode}
        for module in ("builtins", "__builtin__"):
            self.known |= {(module, name): value for name, value in BUILTINS.items()}
            self.known[module, "bytes"] = self.no_bytes
        self.known |= {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): self.dtype}
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self.known |= {(core, "_reconstruct"): self.reconstruct, (core, "scalar"): self.scalar}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global name of the file."""
        if (module, name) not in self.known:
            raise DataError(
                f"{self.path} asks for {module}.{name}, which a dictionary of arrays does not need: it is refused, "
                "as it could run code. Fetch the file from its source, or save it anew with arrays and text only"
            )
        return self.known[module, name]

    def encode(self, text: str, encoding: str) -> bytes:
        """Bytes as Python 3 writes them for Python 2."""
        if encoding not in ("latin1", "latin-1"):
            raise DataError(f"{self.path} asks for the codec {encoding!r}; only latin1 carries bytes of arrays")
        return text.encode("latin1")

    def no_bytes(self) -> bytes:
        """The empty bytes, as Python 3 writes them for Python 2; ``bytes(10**12)`` would fill the memory."""
        return b""

    def dtype(self, name: str, *_: Any) -> _DType:
        """In place of ``numpy.dtype``."""
        return _DType(name)

    def reconstruct(self, *_: Any) -> _Array:
        """In place of numpy's ``_reconstruct``: an array that gets its content by ``__setstate__``."""
        return _Array()

    def scalar(self, dtype: _DType, data: Any) -> Any:
        """In place of numpy's ``scalar``."""
        return _from_bytes(data, dtype.value, ()).reshape(())[()]


class _DType:
    """A dtype of numbers, text or objects."""

    __slots__ = ("value",)

    def __init__(self, name: str) -> None:
        self.value = np.dtype(str(name))
        if self.value.kind not in SIMPLE:
            raise ValueError(f"arrays of {name} are not read")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">", "="):  # nothing but the byte order is taken from it
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """An array while the file is read."""

    __slots__ = ("items", "shape", "value")

    def __init__(self) -> None:
        self.items: list | None = None
        self.shape: tuple[int, ...] = (0,)
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.shape = tuple(int(size) for size in shape)
        if dtype.value.kind == "O":
            if fortran or not isinstance(data, list) or len(data) != np.prod(self.shape, dtype=int):
                raise ValueError("an array of objects does not fit its shape")
            self.items = data
        else:
            self.value = _from_bytes(data, dtype.value, self.shape, "F" if fortran else "C")


class _Unwrap:
    """Puts arrays in place of what the unpickler left, each object once, however often it is referred to."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, _Array | dict | list | tuple):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = None  # a container within itself ends here
            self.done[id(value)] = self._content(value)
        return self.done[id(value)]

    def _content(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(item) for item in value)
        if value.items is None:
            return value.value
        return _objects([self(item) for item in value.items]).reshape(value.shape)


def _objects(items: list) -> np.ndarray:
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple | np.ndarray) for item in value):
        return _objects(list(value))
    return np.asarray(value) if not isinstance(value, dict) else _objects([value])


def _from_bytes(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    """An array on the bytes themselves; it is their owner, nothing is copied."""
    if isinstance(data, str):
        data = data.encode("latin1")
    if dtype.kind == "O" or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype} and shape {shape} cannot be made of bytes")
    if not data:  # of text without letters one item takes no bytes; -1 fails: bytes are missing
        return np.zeros(shape if 0 in shape or (not dtype.itemsize and not shape) else -1, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)
