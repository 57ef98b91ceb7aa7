"""Writes the page of what lies in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.api.results import Run
from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.records import FILE_NAME
from neuro_lightning.ensemble.members import is_sweep
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.pages.comparison_page import comparison_page
from neuro_lightning.pages.html import to_html
from neuro_lightning.pages.parts import Page
from neuro_lightning.pages.run_page import run_page
from neuro_lightning.pages.sweep_page import sweep_page

FILE = "report.html"


def report(
    first: str | Path | Run, *others: str | Path | Run, file: str | Path | None = None, latents: bool = True,
    trusted: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the page of a run or a sweep, or of several runs side by side, as one HTML file.

    Args:
        first: a run, or the folder of a run or a sweep.
        others: further runs on the same trials, which are compared with the first.
        file: where to write; None for ``report.html`` in the folder of the first, ``comparison.html`` of several.
        latents: whether to predict the validation trials for a drawing of the latents that turns.
        trusted: packages of your own that checkpoints may build from.

    Returns:
        The file.

    Raises:
        NeuroError: with one line that says what to mend.
    """
    folders = [one.folder if isinstance(one, Run) else Path(one) for one in (first, *others)]
    page = _page(folders, latents, trusted)
    target = Path(file) if file is not None else folders[0] / ("comparison.html" if others else FILE)
    text = to_html(page)
    with whole_file(target, DataError, "give another place as --out FILE") as part:
        part.write_text(text, encoding="utf-8")
    return target


def _page(folders: Sequence[Path], latents: bool, trusted: Sequence[str]) -> Page:
    sweeps = [folder for folder in folders if is_sweep(folder)]
    if len(folders) == 1 and sweeps:
        return sweep_page(folders[0])
    if sweeps:
        raise ConfigError(f"{sweeps[0]} is a sweep's folder: give it alone, or runs to compare")
    for folder in folders:
        if not (folder / FILE_NAME).is_file():
            raise ConfigError(f"{folder} is no folder of a run or a sweep: it has no {FILE_NAME}")
    runs = [Run(folder, trusted=trusted) for folder in folders]
    return run_page(runs[0], latents=latents) if len(runs) == 1 else comparison_page(runs)
