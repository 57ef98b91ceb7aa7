"""Write a trained network as a file that runs without this package: ``python -m neuro_lightning.export RUN``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from neuro_lightning.errors import errors_in_one_line
from neuro_lightning.export.command import export


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m neuro_lightning.export", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint")
    parser.add_argument("--to", choices=("onnx", "torch"), default="onnx", help="for onnxruntime, or for torch.export")
    parser.add_argument("--trial", action="store_true", help="the network of whole trials, not that of single bins")
    parser.add_argument("--behavior", action="store_true", help="with the decoder of behavior that vel R2 scores")
    parser.add_argument("--batch", type=int, default=1, help="trials side by side")
    parser.add_argument("--session", help="which of several recordings")
    parser.add_argument("--checkpoint", default="auto", help="auto, best, refit or last")
    parser.add_argument("--trusted", nargs="*", default=(), help="packages of your own that the run builds from")
    parser.add_argument("--out", type=Path, help="folder to write to; export/ in the run's folder by default")
    for path in export(**vars(parser.parse_args(arguments))):
        print(f"written     {path}")


if __name__ == "__main__":
    sys.exit(main())
