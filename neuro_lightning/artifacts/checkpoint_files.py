"""The names of a run's checkpoints, and where they lie. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

BEST, LAST, REFIT = "best.ckpt", "last.ckpt", "refit.ckpt"
MEMBERS = "members"
"""In the folder of a run of ``model.members=K``: the folders of its networks, ``0`` and so on, which are runs."""
PREVIOUS = "last.previous.ckpt"
"""The ``last.ckpt`` of the save before, kept for the case that a crash damages the newer one."""


def checkpoint_file(path: str | Path, *names: str) -> Path | None:
    """The file itself, or the first file of these names in a run's folder; None if there is none."""
    path = Path(path)
    places = [path, *(folder / name for folder in (path / "checkpoints", path) for name in names)]
    return next((place for place in places if place.is_file()), None)


def member_folders(run: str | Path) -> list[Path]:
    """The folders of a run's members in their order; none of a run of a single network."""
    folder = Path(run) / MEMBERS
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def resumable(run: str | Path) -> Path | None:
    """What a run is resumed from: its last checkpoint, the folder itself where its members have one; None if nothing.

    Args:
        run: its folder, or a checkpoint.
    """
    if (found := checkpoint_file(run, LAST, PREVIOUS)) is not None:
        return found
    return Path(run) if any(checkpoint_file(member, LAST, PREVIOUS) for member in member_folders(run)) else None


def run_folder(file: Path) -> Path:
    """The folder of the run to which a checkpoint, or another file in its folder, belongs; a folder is the run's."""
    if file.is_dir():
        return file
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent
