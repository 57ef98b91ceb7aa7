"""Why an NWB or another HDF5 file cannot be read, in one line: locked, linked, of another kind, or damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NWB = "an NWB file"
CONVERT = "convert it to NWB 2 (the lab that published it, or NeuroConv)"


def why_unreadable(path: Path, error: Exception, kind: str = NWB) -> str:
    """What is wrong with a file, and how to mend it.

    Args:
        path: the file.
        error: what reading it raised.
        kind: what it should be.

    Returns:
        One line that begins with the path.
    """
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
        return f"{path} cannot be read: permission denied; ask its owner, or chmod it"
    if getattr(error, "errno", None) == errno.EAGAIN or "unable to lock file" in str(error):
        return (
            f"{path} is open for writing in another program, which has locked it: close it there, or set "
            "HDF5_USE_FILE_LOCKING=FALSE where the file system cannot lock"
        )
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return _known_kind(path, kind) or (
        f"{path} cannot be read: it is damaged, cut short or not {kind}; fetch or write it again ({reason})"
    )


def _known_kind(path: Path, kind: str) -> str | None:
    """A file that is whole but not what is expected."""
    import h5py

    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return None
    if b"git-lfs.github.com" in head or b"/annex/objects" in head:
        return f"{path} is a pointer of git-annex or Git LFS, not the file itself: get its content first"
    try:
        with h5py.File(path, "r") as file:
            if "nwb_version" in file and "nwb_version" not in file.attrs:
                return f"{path} is an NWB 1.x file ({_text(file['nwb_version'][()])}): {CONVERT}"
            if str(_text(file.attrs.get("nwb_version", "2"))).startswith(("1.", "NWB-1")):
                return f"{path} is an NWB 1.x file: {CONVERT}"
            if _text(file.attrs.get("object", "")) == "Data":
                return f"{path} is a brainsets file: read it with data=brainset" if kind == NWB else None
            for name, link in _external_links(file):
                if not (path.parent / link.filename).is_file():
                    return f"{path} keeps {name} in {link.filename}, which is not there: put that file beside it"
    except Exception:  # damaged, which is what the caller says then
        return None
    return None


def _external_links(group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield f"{group.name.rstrip('/')}/{name}", link
        elif isinstance(link, h5py.HardLink) and depth < 8 and isinstance(group[name], h5py.Group):
            yield from _external_links(group[name], depth + 1)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
