"""The command line of ``python -m neuro_lightning.report``."""

from __future__ import annotations

import argparse

from neuro_lightning.display.table import relative
from neuro_lightning.errors import errors_in_one_line
from neuro_lightning.pages.build import report


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.report", description="the page of a run, a sweep, or several runs"
    )
    parser.add_argument("folders", nargs="+", metavar="RUN|SWEEP", help="a run or a sweep; or runs to compare")
    parser.add_argument("--out", metavar="FILE", help="report.html in the first folder when left out")
    parser.add_argument("--no-latents", dest="latents", action="store_false", help="faster, without the 3-D drawing")
    parser.add_argument("--trusted", nargs="*", default=(), help="packages of your own that the runs build from")
    given = parser.parse_args(arguments)
    path = report(*given.folders, file=given.out, latents=given.latents, trusted=given.trusted)
    print(f"written     {relative(path)} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
