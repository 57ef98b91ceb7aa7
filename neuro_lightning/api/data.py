"""Arrays of one's own as data to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.arrays import images as image_arrays
from neuro_lightning.data.arrays import spikes as spike_arrays
from neuro_lightning.data.arrays import traces as trace_arrays
from neuro_lightning.data.arrays.datamodule import ArrayImages, ArraySpikes, ArrayTraces
from neuro_lightning.data.arrays.files import Arrays, check_names, save_arrays, write_arrays
from neuro_lightning.data.arrays.presentations import are_unequal, join_list
from neuro_lightning.data.arrays.spike_times import are_spike_times, bin_spike_times
from neuro_lightning.errors import DataError
from neuro_lightning.settings.config import arguments_of
from neuro_lightning.settings.options import describe_options
from neuro_lightning.settings.quoting import override

GROUPS = {"spikes": "arrays", "traces": "array_traces", "images": "images"}
KEYS = {"spikes": spike_arrays.SHAPES, "traces": trace_arrays.SHAPES, "images": image_arrays.SHAPES}
MODULES = {"spikes": ArraySpikes, "traces": ArrayTraces, "images": ArrayImages}
CHECKS = {"spikes": spike_arrays.check_spikes, "traces": trace_arrays.check_traces, "images": image_arrays.check_images}


@dataclass(frozen=True)
class Data:
    """Arrays to train on, and how they are split; made by :func:`spikes`, :func:`traces` and :func:`images`.

    Attributes:
        kind: ``spikes``, ``traces`` or ``images``.
        arrays: by the names that ``data=arrays`` reads from a file.
        options: keys of the dataset's config, such as ``heldout_fraction``.
    """

    kind: str
    arrays: Arrays
    options: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write the arrays into an ``.npz`` file that ``data=arrays data.path=FILE`` takes on the command line.

        Example:
            >>> nl.spikes(counts, bin_ms=20).save("mine.npz")  # doctest: +SKIP
        """
        return save_arrays(path, self.arrays)

    def overrides(self, folder: str | Path) -> list[str]:
        """The words of a command line that choose these data; the arrays are written below ``folder``.

        The file is named by what it holds: the same arrays are one file, for all runs and the jobs of a sweep.
        """
        path = write_arrays(Path(folder) / "arrays", self.kind, self.arrays)
        words = [f"data={GROUPS[self.kind]}", override("data.path", path)]
        return words + [override(f"data.{key}", value) for key, value in self.options.items()]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in self.arrays.items() if values.ndim)
        return f"Data({self.kind}: {shapes})"


def spikes(
    counts: Any,
    *,
    bin_ms: int,
    trials: Any = None,
    window_ms: Sequence[int] | None = None,
    behavior: Any = None,
    lag_ms: int = 0,
    condition: Any = None,
    split: Any = None,
    times: Any = None,
    heldout: Any = None,
    unit_ids: Any = None,
    rates: Any = None,
    **options: Any,
) -> Data:
    """Spikes of many neurons in trials, as counts in an array or as spike times.

    Args:
        counts: (B, T, N) spike counts, trials x bins x neurons. Or, with ``trials``, the spike times of each unit in s:
            a list of arrays, a dictionary by the unit's number, or pynapple's ``TsGroup``.
        bin_ms: bin width in ms.
        trials: of spike times: ``(starts, stops)`` in s, an array (B, 2), or pynapple's ``IntervalSet``.
        window_ms: of spike times: the window ``[start, stop)`` around each trial's start; None for as long as the
            shortest trial.
        behavior: (B, T, K) decoded from the rates, NaN where unknown. Of spike times ``(times, values)`` of a
            continuous series, or pynapple's ``Tsd`` or ``TsdFrame``.
        lag_ms: of spike times: the behavior comes so long after the spikes.
        condition: (B,) each trial's condition, numbers or text.
        split: (B,) ``train``, ``val`` or ``test``; None draws the validation trials.
        times: (B,) start of each trial in s, by which trials that overlap are kept on one side of the split.
        heldout: (N,) bool, the neurons to predict from the others; None draws them.
        unit_ids: (N,) the neurons' numbers.
        rates: (B, T, N) true rates in spikes per bin, of simulated counts alone; scores are then shown beside theirs.
        options: further keys of ``conf/data/arrays.yaml``: ``heldout_fraction`` (0: none is held out),
            ``val_fraction``, ``n_forward``, ``drop_duplicates``, ``seed``, ``batch_size``, ...

    Raises:
        DataError: what cannot be spike counts or times, or shapes that do not fit each other.

    Example:
        >>> data = nl.spikes(counts, bin_ms=20, behavior=velocity, heldout_fraction=0.25)  # doctest: +SKIP
        >>> data = nl.spikes([unit_1, unit_2], trials=(starts, stops), bin_ms=20)          # doctest: +SKIP
    """
    given = {"condition": condition, "split": split, "heldout": heldout}
    if trials is not None or are_spike_times(counts):
        if trials is None:
            raise DataError("spike times need trials=(starts, stops) in s")
        if times is not None or unit_ids is not None or rates is not None:
            raise DataError("times, unit_ids and rates are for counts in an array: leave them out beside spike times")
        found, rows = bin_spike_times(
            counts, trials, bin_ms=bin_ms, window_ms=window_ms, behavior=behavior, lag_ms=lag_ms
        )
        for name in ("condition", "split"):
            given[name] = None if given[name] is None else np.asarray(given[name])[rows]
        given |= found
    else:
        given |= {"counts": counts, "behavior": behavior, "times": times, "unit_ids": unit_ids}
        given |= {"bin_ms": bin_ms, "rates": rates}
    return _data("spikes", given, options)


def traces(traces: Any, *, rate_hz: float, behavior: Any = None, rates: Any = None, **options: Any) -> Data:
    """Calcium traces of one session, such as suite2p's ``F.npy`` or ``spks.npy``.

    Args:
        traces: (N, frames) dF/F, fluorescence or deconvolved activity.
        rate_hz: frames per second.
        behavior: (frames,) or (frames, K), NaN where unknown.
        rates: (N, frames) what simulated traces are of, without their noise.
        options: further keys of ``conf/data/array_traces.yaml``: ``normalisation``, ``downsample``, ``window``,
            ``heldout_fraction``, ``val_fraction``, ``test_fraction``, ``seed``, ``batch_size``, ...

    Raises:
        DataError: values or shapes that cannot be.

    Example:
        >>> run = nl.train(model="ndt", data=nl.traces(dff, rate_hz=30, downsample=3))  # doctest: +SKIP
    """
    if not rate_hz > 0:
        raise DataError(f"rate_hz={rate_hz}: give frames per second")
    given = {"traces": traces, "behavior": behavior, "bin_ms": max(1, round(1000 / rate_hz)), "rates": rates}
    return _data("traces", given, options)


def images(
    images: Any,
    responses: Any,
    *,
    image_ids: Any = None,
    split: Any = None,
    unit_ids: Any = None,
    unit_positions: Any = None,
    pupil_center: Any = None,
    rates: Any = None,
    **options: Any,
) -> Data:
    """Images and the response of each neuron to each of them.

    Args:
        images: (I, H, W) or (I, C, H, W).
        responses: (I, N), or (I, R, N) of R repeats; NaN where a neuron was not recorded. Of images that were shown
            unequally often a list with the responses (R, N) to each image, or (P, N) of each presentation beside
            ``image_ids``.
        image_ids: (P,) which of the images was presented, from 0 on.
        split: (I,) or (P,) ``train``, ``val`` or ``test``; None draws them. All presentations of an image, and equal
            images, stay on one side.
        unit_ids: (N,) the neurons' numbers.
        unit_positions: (N, 2) or (N, 3) where they lie in the cortex.
        pupil_center: (I, 2) or (P, 2) where the pupil was, NaN where unknown.
        rates: (I, N) true mean responses of simulated neurons.
        options: further keys of ``conf/data/images.yaml``: ``input_scale``, ``val_fraction``, ``test_fraction``,
            ``seed``, ``batch_size``, ...

    Raises:
        DataError: values or shapes that cannot be.

    Example:
        >>> run = nl.train(model="core_readout", data=nl.images(stimuli, responses))  # doctest: +SKIP
        >>> data = nl.images(stimuli, responses, image_ids=shown)                      # doctest: +SKIP
    """
    given = {"images": images, "responses": responses, "image_ids": image_ids, "split": split}
    given |= {"unit_ids": unit_ids, "unit_positions": unit_positions, "pupil_center": pupil_center, "rates": rates}
    if are_unequal(responses):
        if image_ids is not None:
            raise DataError("responses is a list of the responses to each image: leave image_ids out beside it")
        given["responses"], given["image_ids"] = join_list(responses)
    return _data("images", given, options)


def _data(kind: str, given: Mapping[str, Any], options: dict[str, Any]) -> Data:
    arrays = {name: _array(name, values) for name, values in given.items() if values is not None}
    check_names(arrays, tuple(KEYS[kind]), "these data")
    CHECKS[kind](arrays)
    _check_options(kind, options)
    return Data(kind, arrays, options)


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse misspelt arguments at once, not at the training."""
    known = set(arguments_of(MODULES[kind]))
    for name in options:
        if name not in known:
            raise DataError(f"nl.{kind} takes no {name!r}; {describe_options(name, known | set(KEYS[kind]))}")


def _array(name: str, values: Any) -> np.ndarray:
    try:
        found = np.asarray(values)
    except ValueError:  # rows of different lengths
        found = np.empty(0, object)
    if found.dtype == object:
        raise DataError(f"{name} is an array of Python objects: give numbers or text, of one length in all trials")
    return found
