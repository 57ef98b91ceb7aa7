"""``python -m neuro_lightning.report RUN|SWEEP [OTHER ...]``: the page of a run, a sweep, or several runs.

The command alone: from Python it is :func:`neuro_lightning.pages.build.report`, as ``nl.report``.
"""

import sys

from neuro_lightning.pages.command import main

if __name__ == "__main__":
    sys.exit(main())
