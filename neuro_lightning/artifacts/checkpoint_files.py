"""The names of a run's checkpoints, and where they lie. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

BEST, LAST, REFIT = "best.ckpt", "last.ckpt", "refit.ckpt"
PREVIOUS = "last.previous.ckpt"
"""The ``last.ckpt`` of the save before, kept for the case that a crash damages the newer one."""


def checkpoint_file(path: str | Path, *names: str) -> Path | None:
    """The file itself, or the first file of these names in a run's folder; None if there is none."""
    path = Path(path)
    places = [path, *(folder / name for folder in (path / "checkpoints", path) for name in names)]
    return next((place for place in places if place.is_file()), None)


def run_folder(file: Path) -> Path:
    """The folder of the run to which a checkpoint, or another file in its folder, belongs."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent
