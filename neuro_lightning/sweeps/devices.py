"""Which GPU a job gets, where several run side by side on one machine. Nothing heavy is imported here.

CUDA reads ``CUDA_VISIBLE_DEVICES`` once in a process, and the processes that run a sweep's jobs take one job after the
other. Therefore a process owns a GPU, from its first job to its end: no two jobs share a GPU however long each takes.
Giving GPUs to jobs in turn would not ensure that.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.locks import Lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
Slot = tuple[str, ...]  # the GPUs of one job, as CUDA_VISIBLE_DEVICES names them

_own: dict[tuple[Slot, ...], tuple[Slot, Lock | None]] = {}  # this process's slot, and the lock that keeps it


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if (named := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in named.split(",") if name.strip()] if _count() else []
    return [str(i) for i in range(_count())]


def _count() -> int:
    import torch

    return torch.cuda.device_count()


def devices_of(trainer: Any, everything: int = 1) -> int:
    """How many processes, with a GPU each, the trainer's config asks for on one machine.

    Args:
        trainer: the config's ``trainer``.
        everything: what ``devices: auto`` and ``-1`` mean.
    """
    devices = trainer.get("devices") or 1
    if isinstance(devices, int) or str(devices).isdigit():
        return int(devices) if int(devices) > 0 else everything
    return everything if str(devices) in ("auto", "-1") else len(devices)


def slots(gpus: Sequence[str], each: int = 1, jobs_per_gpu: int = 1) -> list[Slot]:
    """Places for jobs: all GPUs are used once before any is shared.

    Args:
        gpus: their names.
        each: GPUs of one job; those that are left over stay idle.
        jobs_per_gpu: jobs that share a GPU.
    """
    groups = [tuple(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]
    return groups * jobs_per_gpu


def own_slot(places: Sequence[Slot], number: int, folder: Path | None = None) -> Slot:
    """The GPUs of this process, claimed at the first call and kept until the process ends, also when it is killed.

    Other sweeps of the same user on this machine see the claim. Where they have taken all places, one is shared.

    Args:
        places: from :func:`slots`.
        number: of the job, which chooses where none is free.
        folder: where the claims lie; of this machine, not of the network.
    """
    places = tuple(places)
    if places not in _own:
        folder = folder or Path(tempfile.gettempdir()) / f"neuro_lightning-gpus-{getpass.getuser()}"
        folder.mkdir(parents=True, exist_ok=True)
        _own[places] = _claim(places, folder) or (places[number % len(places)], None)
    return _own[places][0]


def _claim(places: Sequence[Slot], folder: Path) -> tuple[Slot, Lock] | None:
    for i, place in enumerate(places):
        share = places[:i].count(place)
        lock = Lock(folder / f"{'+'.join(place).replace('/', '_')}-{share}.lock")
        if lock.acquire():
            return place, lock
    return None
