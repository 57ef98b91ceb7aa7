"""Plays a recording over a socket and streams it through a model: ``python -m neuro_lightning.live RUN``."""

from __future__ import annotations

import sys

from neuro_lightning.live.command import main

if __name__ == "__main__":
    sys.exit(main())
