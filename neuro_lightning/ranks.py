"""Which of a job's processes this one is: the one definition that everything asks. Nothing heavy is imported here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any


def is_main_process() -> bool:
    """Whether this is the job's main process, which prints, writes and logs. True of one process on all machines.

    ``RANK`` counts over all machines (torchrun and this package's own launcher set it). Without it ``LOCAL_RANK``
    counts on one machine and ``NODE_RANK`` (or ``GROUP_RANK``) the machines. They come before ``SLURM_PROCID``, which
    processes that a task of SLURM's starts by itself inherit.
    """
    if (rank := _number("RANK")) is not None:
        return rank == 0
    local = _number("LOCAL_RANK")
    node = _number("NODE_RANK") if _number("NODE_RANK") is not None else _number("GROUP_RANK")
    if local is not None or node is not None:
        return not local and not node
    return not _number("SLURM_PROCID")


def main_process_only(function: Callable) -> Callable:
    """The function, called in the main process only; None in the others."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if is_main_process() else None

    return called


def count_launched_processes() -> int:
    """How many processes torchrun or ``srun`` has started with this command: each runs it from its first line."""
    if _number("RANK") is not None:
        return _number("WORLD_SIZE") or 1
    return (_number("SLURM_STEP_NUM_TASKS") or 1) if _number("SLURM_PROCID") is not None else 1


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None
