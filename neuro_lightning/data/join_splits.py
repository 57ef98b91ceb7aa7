"""Training and validation trials as one split, for a final fit on both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import DataError

Split = Trials | ImageTrials
# (B, T, ...) of traces, which have no forward bins
IN_TIME = ("heldin", "heldout", "behavior", "observed", "scored", "rates")


def check_joinable(recording: Recording) -> None:
    """Whether training and validation trials can be one split.

    Raises:
        DataError: they do not fit together, or the validation trials are the test trials.
    """
    name, train, val = recording.name, recording.splits["train"], recording.splits["val"]
    test = recording.splits.get("test")
    if test is not None and np.array_equal(_stimuli(val), _stimuli(test)):
        raise DataError(f"refit=true: {name} validates on its test trials; a refit would train on them")
    if recording.kind == "traces":
        bins, total = train.heldin.shape[1], val.heldin.shape[1]
        if total < bins:
            raise DataError(
                f"refit=true: {name} has {total} bins to validate with and trains on windows of {bins}: "
                f"take data.window={total} or fewer, or leave out the refit"
            )
        return
    others = val.arrays()
    for field, one in _without_repeats(train).arrays().items():
        other = others.get(field, one)
        if one.shape[1:] != other.shape[1:]:
            raise DataError(
                f"refit=true: {name} has {field} of shape {one.shape[1:]} in a training trial and {other.shape[1:]} "
                "in a validation trial: they cannot be joined; leave out the refit"
            )


def join_train_and_val(recording: Recording, stride: int | None = None) -> Recording:
    """The recording with its validation trials among the training trials, after them, and without a split ``val``.

    Validation sequences that are longer than the training windows (traces) are cut into such windows. What only one of
    the two splits knows is left out.

    Args:
        recording: with splits ``train`` and ``val``; their arrays are copied once.
        stride: bins between the starts of training windows; None for windows side by side.

    Raises:
        DataError: as :func:`check_joinable`.
    """
    check_joinable(recording)
    train, val = recording.splits["train"], recording.splits["val"]
    if recording.kind == "traces":
        val = cut_sequences(val, train.heldin.shape[1], stride)
    others = {name: trials for name, trials in recording.splits.items() if name not in ("train", "val")}
    return replace(recording, splits={"train": _without_repeats(train).joined(val), **others})


def cut_sequences(trials: Trials, n_bins: int, stride: int | None = None) -> Trials:
    """Windows of ``n_bins`` of longer sequences, as many as fit at this stride, and a last one that ends with them.

    Args:
        trials: (B, T, ...) sequences without forward bins.
        n_bins: bins of a window, T at most.
        stride: bins between the starts of windows; None for ``n_bins``.
    """
    last = trials.heldin.shape[1] - n_bins
    starts = sorted({*range(0, last + 1, stride or n_bins), last})

    def windows(name: str, values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:, start : start + n_bins] if name in IN_TIME else values for start in starts])

    return Trials(**{name: windows(name, values) for name, values in trials.arrays().items()})


def _without_repeats(trials: Split) -> Split:
    """Without the single responses to repeated images: their mean is what trains."""
    return replace(trials, repeats=None) if isinstance(trials, ImageTrials) else trials


def _stimuli(trials: Split) -> np.ndarray:
    return trials.images if isinstance(trials, ImageTrials) else trials.heldin
