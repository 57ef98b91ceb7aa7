"""Writes a file in one piece: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro_lightning.errors import NeuroError


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to ``path`` when the block ends without an error.

    The temporary file lies in the same folder, so that the rename never becomes a copy to another file system. Its name
    begins with a dot, is different at every call, and keeps the suffix, by which some writers choose the format. After
    an error it is deleted and ``path`` stays as it was.

    Args:
        path: the file to write; its folder is made.
        durable: wait until the content is on the disk before the rename, so that a power cut loses neither file.

    Yields:
        The path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield part
        if durable:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def delete_unfinished(folder: str | Path) -> None:
    """Delete the temporary files in a folder, which only a process that was killed while it wrote leaves behind."""
    for part in Path(folder).glob(".*.part.*"):
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path, error: type[NeuroError], mend: str) -> Iterator[Path]:
    """:func:`atomic_path`, in one line of error where there is no space or no permission.

    Args:
        path: the file to write.
        error: what is raised.
        mend: what to do about it.

    Raises:
        NeuroError: of the class ``error``.
    """
    try:
        with atomic_path(path) as part:
            yield part
    except OSError as cause:
        reason = " ".join(str(cause.strerror or cause).split())
        raise error(f"{path} cannot be written ({reason}): {mend}") from cause
