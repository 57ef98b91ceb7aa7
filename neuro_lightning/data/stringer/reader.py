"""Spontaneous activity as a recording: every imaging plane is a sequence, or several windows, of its neurons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuro_lightning.data.checks.bounds import check_array
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.identity import checksum
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.stringer.files import SpontaneousFile, read_spontaneous
from neuro_lightning.data.stringer.planes import (
    Scaling,
    block_labels,
    downsample,
    draw_neurons,
    fit_scaling,
    plane_labels,
    split_bins,
    windows,
)
from neuro_lightning.data.twin_files import true_rates
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.svca import checkerboard, random_half

BY_MEAN = ("layer_pop_mean", "divide_by_mean")
"""The normalisations that mean nothing where activity may be negative."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a recording of spontaneous activity is prepared.

    Attributes:
        planes: ``all``, or the number of one plane (or block).
        blocks: None for imaging planes; 3 for 3 x 3 blocks of the field of view in their place.
        neurons_per_plane: None for as many as the least populated plane has.
        neuron_seed: of the drawn neurons, and of the held-out ones among them.
        normalisation: ``layer_pop_mean``, ``zscore``, ``divide_by_mean`` or ``none``; see
            :func:`neuro_lightning.data.stringer.planes.fit_scaling`.
        downsample: bins of the file to one.
        val_fraction: share of the bins that validate.
        test_fraction: share of the bins, the last ones, that test; 0 for no test part.
        window: bins of a training sample; None for the whole training part. Validation and test samples are always
            the whole part, so that scores of all windows are on the same bins.
        stride: bins between the starts of training windows; None for ``window``.
        heldout_fraction: share of each plane's neurons to predict from the others; 0 for reconstruction alone.
        behavior_components: components of the face's motion among the behavior.
        bin_ms: width of the file's bins; None for what is known of the file.
    """

    planes: str | int = "all"
    blocks: int | None = None
    neurons_per_plane: int | None = None
    neuron_seed: int = 0
    normalisation: str = "layer_pop_mean"
    downsample: int = 2
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    window: int | None = None
    stride: int | None = None
    heldout_fraction: float = 0.0
    behavior_components: int = 16
    bin_ms: int | None = None

    def __post_init__(self) -> None:
        whole = {"downsample": 1, "behavior_components": 0, "neuron_seed": 0}
        optional = {"blocks": 1, "neurons_per_plane": 2, "window": 2, "stride": 1, "bin_ms": 1}
        for name, least in {**whole, **optional}.items():
            if name in whole or getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)


def load_spontaneous(
    path: Path,
    options: Preparation,
    *,
    name: str = "stringer_spontaneous",
    truth: Path | None = None,
    sha256: str | None = None,
) -> Recording:
    """Read a file and prepare it.

    Args:
        path: ``stringer_spontaneous.npy`` or an original ``spont_*.mat``.
        options: how.
        name: of the dataset.
        truth: the file of the expected activity behind a simulated one, in its neurons and bins.
        sha256: what the file must be; None for anything.

    Raises:
        DataError: see :func:`neuro_lightning.data.stringer.files.read_spontaneous`.
        ConfigError: an option does not fit the data.
    """
    found = checksum(path)
    if sha256 is not None and found != str(sha256).lower():
        raise DataError(
            f"{path} has the SHA-256 {found}, but data.sha256 says {sha256}: fetch the file again, or correct the key"
        )
    file = read_spontaneous(path, bin_ms=options.bin_ms)
    rates = None if truth is None else true_rates(truth, file.activity.shape)
    recording = prepare(file, options, name=name, truth=rates)
    for values in (v for trials in recording.splits.values() for v in (trials.heldin, trials.heldout, trials.rates)):
        if values is not None and values.size:
            check_array(values, f"{path}: its activity after data.normalisation={options.normalisation}")
    recording.sources = [{"path": str(path), "size": path.stat().st_size, "sha256": found}]
    return recording


def prepare(
    file: SpontaneousFile, options: Preparation, *, name: str = "stringer_spontaneous", truth: np.ndarray | None = None
) -> Recording:
    """Populations of equal size, normalised, down-sampled and split, in this order; arguments as above.

    Returns:
        A recording of traces. ``condition`` is the plane's number and ``decode_mask`` (B, planes) one-hot: different
        planes' columns are different neurons. ``info["neurons"]`` has the drawn neurons' numbers in the file, plane by
        plane, ``info["half"]`` 1 for those of the first half in shared variance, and ``info["scaling"]`` what undoes
        the normalisation (:func:`denormalise`).

    Raises:
        ConfigError: a normalisation by the mean, of activity that goes below zero.
    """
    x, y, z = file.xyz
    labels = plane_labels(z, file.path) if options.blocks is None else block_labels(x, y, options.blocks)
    neurons, n_in = draw_neurons(
        labels, n=options.neurons_per_plane, heldout_fraction=options.heldout_fraction, seed=options.neuron_seed
    )
    chosen = _chosen_planes(options.planes, len(neurons))
    neurons = {label: neurons[label] for label in chosen}
    parts = split_bins(file.activity.shape[1] // options.downsample, options.val_fraction, options.test_fraction)

    if options.normalisation in BY_MEAN and (low := min(float(row.min()) for row in file.activity)) < 0:
        raise ConfigError(
            f"data.normalisation={options.normalisation} divides by a mean activity, but {file.path} holds values down "
            f"to {low:.3g} (dF/F, or fluorescence less its surround): set data.normalisation=zscore"
        )
    activity, rates, scalings = [], [], []
    for index in neurons.values():
        true = None if truth is None else truth[index]
        values, true, scaling = _normalised(file.activity[index], true, options, n_in, parts["train"].stop)
        activity.append(values)
        rates.append(true)
        scalings.append(scaling)
    behavior, channels = _behavior(file, options, parts["train"])

    splits = {}
    for split, part in parts.items():
        whole = split != "train"
        cuts = windows(part.stop - part.start, None if whole else options.window, None if whole else options.stride)
        cuts = [slice(part.start + cut.start, part.start + cut.stop) for cut in cuts]
        splits[split] = _trials(activity, None if truth is None else rates, behavior, cuts, chosen, n_in)
    n = len(next(iter(neurons.values())))
    single = len(chosen) == 1
    return Recording(
        name=name,
        bin_ms=file.bin_ms * options.downsample,
        splits=splits,
        # with several planes a column is one neuron in each: the numbers in the file are in `info`
        unit_ids=next(iter(neurons.values())) if single else np.arange(n),
        kind="traces",
        simulated=truth is not None,
        info={
            "planes": chosen,
            "neurons": {str(label): [int(i) for i in index] for label, index in neurons.items()},
            "half": {
                str(label): _svca_half(file.xyz[:2, index], options.neuron_seed) for label, index in neurons.items()
            },
            "neurons_in_file": np.bincount(labels).tolist(),
            "n_in": n_in,
            "normalisation": options.normalisation,
            "scaling": {str(label): _plain(scaling) for label, scaling in zip(chosen, scalings, strict=True)},
            "bins": {split: [part.start, part.stop] for split, part in parts.items()},
            "behavior": channels,
        },
    )


def denormalise(values: np.ndarray, info: dict[str, Any], plane: int, first_bin: int = 0) -> np.ndarray:
    """Normalised activity of a plane in the file's unit.

    Exact for ``zscore``, ``divide_by_mean`` and ``none``. ``layer_pop_mean`` comes before down-sampling, as published;
    undone is the population's mean over the joined bins, which is exact only with ``downsample=1``.

    Args:
        values: (T, n) normalised values, held-in neurons first.
        info: of the recording.
        plane: the plane's number.
        first_bin: the recording's bin at which ``values`` begin (``info["bins"]["val"][0]`` for validation).
    """
    stored = info["scaling"][str(plane)]
    scaling = Scaling(np.array(stored["offset"]), np.array(stored["scale"]))
    if scaling.scale.shape[1] > 1:
        scaling.scale = scaling.scale[:, first_bin : first_bin + len(values)]
    return scaling.inverse(values.T).T


def _chosen_planes(planes: str | int, n: int) -> list[int]:
    if planes == "all":
        return list(range(n))
    if not isinstance(planes, int) or isinstance(planes, bool) or not 0 <= planes < n:
        raise ConfigError(f"data.planes={planes!r}: the recording has {n}; use all, or a number from 0 to {n - 1}")
    return [planes]


def _normalised(
    activity: np.ndarray, truth: np.ndarray | None, options: Preparation, n_in: int, n_train: int
) -> tuple[np.ndarray, np.ndarray | None, Scaling]:
    """(n, T) activity and true activity of a plane in its final bins, with what undoes the normalisation there."""
    factor, kind = options.downsample, options.normalisation
    values = np.asarray(activity, np.float64)
    if kind != "layer_pop_mean":  # statistics of the bins that models see, of the training part alone
        values, truth = downsample(values, factor), None if truth is None else downsample(truth, factor)
        scaling = fit_scaling(values, kind, n_in=n_in, n_train=n_train)
        return scaling.apply(values), None if truth is None else scaling.apply(truth), scaling
    scaling = fit_scaling(values, kind, n_in=n_in, n_train=n_train)
    values = downsample(scaling.apply(values), factor)
    truth = None if truth is None else downsample(scaling.apply(truth), factor)
    return values, truth, Scaling(scaling.offset, downsample(scaling.scale, factor))


def _behavior(file: SpontaneousFile, options: Preparation, train: slice) -> tuple[np.ndarray | None, list[str]]:
    """(T, K) behavior in standard deviations of the training part, and the channels' names."""
    columns, names = [], []
    for name, values in file.behavior.items():
        values = np.asarray(values[:, : options.behavior_components] if name == "face" else values, np.float64)
        if values.shape[1]:
            columns.append(downsample(values.T, options.downsample).T)
            names += [name] if values.shape[1] == 1 else [f"{name}_{k}" for k in range(values.shape[1])]
    if not columns:
        return None, []
    behavior = np.concatenate(columns, axis=1)
    behavior[~np.isfinite(behavior)] = np.nan
    seen = behavior[train]
    if empty := [name for name, column in zip(names, seen.T, strict=True) if np.isnan(column).all()]:
        raise DataError(f"{file.path}: {', '.join(empty)} has no value in the training part; mend or remove it")
    std = np.nanstd(seen, axis=0)
    return ((behavior - np.nanmean(seen, axis=0)) / np.where(std > 0, std, 1.0)).astype(np.float32), names


def _trials(
    activity: list[np.ndarray],
    rates: list[np.ndarray] | None,
    behavior: np.ndarray | None,
    cuts: list[slice],
    labels: list[int],
    n_in: int,
) -> Trials:
    """Every plane's windows, plane by plane."""

    def cut(planes: list[np.ndarray], neurons: slice) -> np.ndarray:
        return np.stack([values[neurons, part].T.astype(np.float32) for values in planes for part in cuts])

    n = len(activity[0])
    condition = np.repeat(np.array(labels, np.int64), len(cuts))
    return Trials(
        heldin=cut(activity, slice(0, n_in)),
        heldout=cut(activity, slice(n_in, n)) if n_in < n else None,
        behavior=None if behavior is None else np.stack([behavior[part] for _ in labels for part in cuts]),
        decode_mask=condition[:, None] == np.array(labels)[None],
        condition=condition,
        rates=None if rates is None else cut(rates, slice(0, n)),
        row=np.array([part.start for _ in labels for part in cuts], np.int64),
    )


def _svca_half(xy: np.ndarray, seed: int) -> list[int]:
    """1 for the neurons (2, n) of one half: squares of the field, as published, or drawn where few lie on them."""
    half = checkerboard(torch.from_numpy(np.ascontiguousarray(xy.T, np.float64)))
    if not 0.25 <= float(half.double().mean()) <= 0.75:
        half = random_half(len(half), seed)
    return half.int().tolist()


def _plain(scaling: Scaling) -> dict[str, Any]:
    return {"offset": scaling.offset.tolist(), "scale": scaling.scale.tolist()}
