"""``python -m neuro_lightning.report RUN|SWEEP [OTHER ...]``: the page of a run, a sweep, or several runs.

From Python it is ``nl.report``. The command and the function have one name: the module can be called, so that
``nl.report`` writes a page whether or not this module has been imported.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from neuro_lightning.pages.build import report


class CallableModule(ModuleType):
    """A module that is called like :func:`neuro_lightning.pages.build.report`."""

    def __call__(self, *runs: Any, **options: Any) -> Path:
        """Write the page; see there."""
        return report(*runs, **options)


sys.modules[__name__].__class__ = CallableModule
