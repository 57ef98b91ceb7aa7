"""Writing brainsets files with ``temporaldata``; reading them needs no other package than h5py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.errors import DataError


def import_temporaldata() -> ModuleType:
    """The package ``temporaldata``.

    Raises:
        DataError: it is not installed.
    """
    try:
        import temporaldata
    except ImportError:
        raise DataError(
            "simulated brainsets files are written by temporaldata, which is not installed: pip install temporaldata"
        ) from None
    return temporaldata


def to_spikes(spike_times: Sequence[np.ndarray], domain: Any) -> Any:
    """The ``IrregularTimeSeries`` of units' spikes, in the order of time.

    Args:
        spike_times: of each unit, in s.
        domain: the ``Interval`` in which spikes were recorded.
    """
    times = np.concatenate([*spike_times, np.zeros(0)])
    unit = np.repeat(np.arange(len(spike_times)), [len(t) for t in spike_times])
    order = np.argsort(times, kind="stable")
    series = import_temporaldata().IrregularTimeSeries
    return series(timestamps=times[order], unit_index=unit[order].astype(np.int64), domain=domain)


def save(data: Any, path: Path) -> None:
    """Write a ``Data`` to a file."""
    with h5_file(path) as file:
        data.to_hdf5(file)
