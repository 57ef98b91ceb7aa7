"""Whether predicted rates are what the benchmark expects: names, shapes, order, finite, non-negative, not in Hz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.checks.bounds import check_sizes, check_stored, reading
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission.layout import EVAL, FORWARD, RATES, TRAIN

AGAIN = "write or copy it again"
ELSEWHERE = "choose another place with file=PATH, or free some space"
BLOCK = 2**19
"""Numbers of an array that are held in memory at a time."""


def open_h5(path: str | Path) -> h5py.File:
    """Opens an HDF5 file for reading.

    Raises:
        SubmissionError: there is no such file, or it is no HDF5 file.
    """
    if not Path(path).is_file():
        raise SubmissionError(f"{path}: no such file")
    with reading(path, AGAIN, SubmissionError):
        return h5py.File(path, "r")


def arrays_of(file: Mapping[str, Any], group: str, where: str) -> dict[str, Any]:
    """The arrays or HDF5 datasets of a group, each of a size that the file can hold.

    Args:
        file: the open file, or its groups.
        group: the group's name.
        where: the file, for the message.

    Raises:
        SubmissionError: the group is not there, or holds something else.
    """
    with reading(where, AGAIN, SubmissionError):
        if group not in file:
            raise SubmissionError(f"{where}: no group {group!r}; the file has {sorted(file)}")
        if not isinstance(file[group], Mapping):
            raise SubmissionError(f"{where}:/{group} is no group of arrays; {AGAIN}")
        arrays = {name: file[group][name] for name in file[group]}
        for name, array in arrays.items():
            if not isinstance(array, list):
                check_stored(array, f"{where}:/{group}/{name}", SubmissionError)
    return arrays


def check_names(where: str, names: set[str], needed: tuple[str, ...]) -> None:
    """Checks that a group's arrays are known, complete and come in pairs of held-in and held-out.

    Args:
        where: file and group, for the message.
        names: the arrays there are.
        needed: the arrays there must be.

    Raises:
        SubmissionError: an array is unknown or missing.
    """
    if unknown := names - set(RATES):
        raise SubmissionError(f"{where}: unknown arrays {sorted(unknown)}; the benchmark knows {', '.join(RATES)}")
    wanted = set(needed)
    for pair in (TRAIN, EVAL, FORWARD):
        if names & set(pair):
            wanted |= set(pair)
    if missing := wanted - names:
        raise SubmissionError(f"{where}: {', '.join(sorted(missing))} missing; write the rates of every part")


def check_rates(where: str, array: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Checks one array of rates, a block of trials at a time.

    Args:
        where: file, group and array, for the message.
        array: (B, T, N) rates in spikes per bin, an array or an HDF5 dataset.
        shape: the shape expected; None means any with three axes.

    Returns:
        (N,) mean rates in spikes per bin, float64.

    Raises:
        SubmissionError: shape or dtype is wrong, or a rate is NaN, infinite or negative.
    """
    found = tuple(array.shape)
    if len(found) != 3 or (shape is not None and found != tuple(shape)):
        wanted = "(trials, bins, neurons)" if shape is None else f"{tuple(shape)} (trials, bins, neurons)"
        raise SubmissionError(f"{where}: the shape is {found}, expected {wanted}{_hint(found, shape)}")
    if array.dtype.kind not in "fiu":
        raise SubmissionError(f"{where}: the values are {array.dtype}, expected numbers (float32)")
    total = np.zeros(found[2])
    for block in row_blocks(array, BLOCK):
        rates = np.asarray(array[block], dtype=np.float64)
        for name, bad in (("not finite (NaN or infinite)", ~np.isfinite(rates)), ("negative", rates < 0)):
            if bad.any():
                trial, bin_, neuron = np.argwhere(bad)[0] + [block.start, 0, 0]
                raise SubmissionError(
                    f"{where}: {bad.sum()} rates in trials {block.start} to {block.stop - 1} are {name}, the first in "
                    f"trial {trial}, bin {bin_}, neuron {neuron}; rates are expected spikes per bin"
                )
        total += rates.sum((0, 1))
    return total / max(1, found[0] * found[1])


def check_units(where: str, mean_rates: np.ndarray, mean_counts: np.ndarray, bin_ms: int) -> None:
    """Checks mean rates against mean spike counts of the same neurons: not Hz, and not in another order.

    Args:
        where: file, group and array, for the message.
        mean_rates: (N,) mean predicted rates.
        mean_counts: (N,) mean spikes per bin of the same neurons.
        bin_ms: bin width in ms.

    Raises:
        SubmissionError: the rates are larger by about the factor between Hz and spikes per bin, or would fit another
            order of the neurons far better.
    """
    rate, count, hz = mean_rates.mean(), mean_counts.mean(), 1000 / bin_ms
    if not count > 0:
        return
    if hz >= 10 and hz / 3 < rate / count < hz * 3:  # wider bins leave no gap between Hz and a poor model
        raise SubmissionError(
            f"{where}: the mean rate is {rate:.3g} where the neurons fire {count:.3g} spikes per {bin_ms} ms bin; "
            f"these look like Hz: divide them by {hz:g}"
        )
    here = np.abs(mean_rates - mean_counts).mean() / count
    sorted_ = np.abs(np.sort(mean_rates) - np.sort(mean_counts)).mean() / count
    if len(mean_rates) > 7 and here > 0.5 and sorted_ < 0.1:  # of a few neurons that can be chance
        raise SubmissionError(
            f"{where}: the mean rates fit the neurons' mean spike counts only in another order; keep the neurons "
            "in the order of the recording, held-in and held-out apart"
        )


def check_submission(
    where: str,
    arrays: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]] | None = None,
    *,
    mean_counts: Mapping[str, np.ndarray] | None = None,
    bin_ms: int = 5,
) -> None:
    """Checks the rates of one dataset.

    Args:
        where: file and group, for the message.
        arrays: arrays or HDF5 datasets by name.
        expected: the shape of each array there must be; None where the arrays need only fit each other.
        mean_counts: (N,) mean spikes per bin of the neurons of some arrays, by the array's name, where they are known.
        bin_ms: bin width in ms.

    Raises:
        SubmissionError: anything is not as expected; the message says what, where, and how to mend it.
    """
    shapes, counts = expected or {}, mean_counts or {}
    check_names(where, set(arrays), tuple(shapes) or EVAL)
    for name, array in arrays.items():
        mean = check_rates(f"{where}/{name}", array, shapes.get(name))
        if name in counts:
            check_units(f"{where}/{name}", mean, np.asarray(counts[name], dtype=float), bin_ms)
    check_sizes(f"{where}/", arrays, RATES, SubmissionError)


def _hint(found: tuple[int, ...], shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return ""
    if sorted(found) == sorted(shape):
        return ": the axes are in another order"
    if len(found) == 3 and found[1:] == shape[1:]:
        return ": predict every trial of the split, and no other"
    return ": check dataset, split and bin width"
