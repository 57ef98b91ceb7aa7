"""Arrays that stay in an archive until they are used, so that many recordings fit into little memory.

The system reads a page when it is first used, shares it between processes and drops it when memory is short. A mapping
is private: writing to an array changes neither the file nor what others see. A file that is deleted or replaced by a
rename keeps its content for those who have mapped it; only a file that is overwritten in place must not be mapped.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from neuro_lightning.data.blocks import BLOCK
from neuro_lightning.data.checks.bounds import array_header, read_member

LARGE = 2**20
"""Arrays of fewer bytes are read."""

ALIGNMENT = 64
"""Bytes of which a mapped array's place in the file is a multiple, as numpy allocates memory: sums stay as fast."""

FIXED, ZIP64, PADDING = 30, 20, 0xD935
"""Bytes of a zip member's own header and of what makes it a large one; the field that Android's archives pad with."""


def aligned_member(name: str, offset: int) -> zipfile.ZipInfo:
    """A member of an archive, to be opened with ``force_zip64``, whose content lies at a multiple of ALIGNMENT.

    Args:
        name: of the member.
        offset: where its header will be in the archive.
    """
    info = zipfile.ZipInfo(name)
    rest = -(offset + FIXED + len(name.encode()) + ZIP64 + 6) % ALIGNMENT
    info.extra = struct.pack("<HHH", PADDING, 2 + rest, ALIGNMENT) + bytes(rest)
    return info


def read_members(archive: zipfile.ZipFile, file: BinaryIO, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an open archive, the large ones mapped into memory.

    Each byte is checked against its CRC-32 every time: that reads the file once, as reading the arrays would, and takes
    half a second for a gigabyte that the system has in memory. A file that cannot be mapped is read.

    Args:
        archive: with members that are not compressed.
        file: the archive's own.
        names: of the arrays, without ``.npy``.

    Raises:
        ValueError: an array does not fill its member; other errors of a damaged archive pass through.
    """
    members = {name: archive.getinfo(f"{name}.npy") for name in names}
    large = {name for name, info in members.items() if info.file_size >= LARGE and not info.compress_type}
    mapping = _mapping(file) if large else None
    return {
        name: _checked(archive, info, mapping) if mapping and name in large else read_member(archive, info)
        for name, info in members.items()
    }


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array's values, or those it is a view of, lie in a file."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def _mapping(file: BinaryIO) -> mmap.mmap | None:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError:  # some network file systems
        return None


def _checked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapping: mmap.mmap) -> np.ndarray:
    with archive.open(info) as stream:
        shape, order, dtype = array_header(stream, info.file_size)
        header = stream.tell()
        while stream.read(BLOCK):  # at its end the CRC is compared
            pass
    name, extra = struct.unpack_from("<HH", mapping, info.header_offset + FIXED - 4)
    start = info.header_offset + FIXED + name + extra + header
    return np.frombuffer(mapping, dtype, math.prod(shape), start).reshape(shape, order=order)
