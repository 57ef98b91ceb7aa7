"""``python -m neuro_lightning.report``: see :mod:`neuro_lightning.pages.command`."""

import sys

from neuro_lightning.pages.command import main

if __name__ == "__main__":
    sys.exit(main())
