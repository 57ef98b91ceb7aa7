"""Calcium traces of one session, in an array, as a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.arrays.files import COMMON, Arrays, bin_width, check_values, read_arrays
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.stringer.files import SpontaneousFile
from neuro_lightning.data.stringer.reader import Preparation, prepare
from neuro_lightning.errors import ConfigError, DataError

SHAPES = {"traces": "NF", "behavior": "Fk", "bin_ms": "1", "rates": "NF"}
"""The arrays that a file may hold, and their axes; the first one must be there."""
RULES = COMMON | {"traces": {"kinds": "iuf", "what": "traces"}}


def load_traces(path: str | Path, options: Preparation) -> Recording:
    """Read the traces of one session, normalise them, and split them in time.

    Args:
        path: ``.npz``, ``.npy`` (traces alone) or ``.mat`` with the arrays that :func:`check_traces` describes.
        options: how they are prepared.

    Raises:
        DataError: the file is missing or damaged, or its arrays do not fit each other.
        ConfigError: an option does not fit the file.
    """
    path = Path(path).expanduser()
    arrays = check_traces(read_arrays(path, tuple(SHAPES)), f"{path}: ")
    traces, bin_ms = arrays["traces"], bin_width(path, arrays, options.bin_ms)
    behavior = {"behavior": arrays["behavior"].astype(np.float64)} if "behavior" in arrays else {}
    file = SpontaneousFile(path, traces, np.zeros((3, len(traces))), behavior, bin_ms)
    said = f"{path}: traces of shape {traces.shape} are taken for {len(traces)} neurons in {traces.shape[1]} frames"
    said = f"{said}; give neurons x frames, as suite2p writes them" if len(traces) > traces.shape[1] else ""
    try:
        recording = prepare(file, options, name="array_traces", truth=arrays.get("rates"))
    except (ConfigError, DataError) as error:
        raise type(error)(f"{error}. {said}" if said else str(error)) from None
    recording.sources = [{"path": str(path), "size": path.stat().st_size}]
    if said:
        recording.info["warnings"] = [said]
    return recording


def check_traces(arrays: Arrays, where: str = "") -> Arrays:
    """The arrays with all of their axes, if they can be the traces of one session.

    Args:
        arrays: ``traces`` (N, frames) as suite2p writes them; optionally ``behavior`` (frames, K) or (frames,), NaN
            where unknown; ``bin_ms``, the width of a frame; ``rates`` like ``traces``, what simulated traces are of.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    return check_values(arrays, SHAPES, RULES, where)
