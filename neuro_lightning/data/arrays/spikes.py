"""Spike counts of trials, in an array, as a recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.arrays.files import (
    COMMON,
    Arrays,
    bin_width,
    check_values,
    conditions,
    read_arrays,
    splits_column,
    unit_ids,
)
from neuro_lightning.data.checks.options import check_choice, check_share, check_whole
from neuro_lightning.data.checks.overlap import Spans, shared_counts
from neuro_lightning.data.checks.plausible import multiples_warning
from neuro_lightning.data.counts import MOST, without_duplicates, without_shared_trials
from neuro_lightning.data.recording import Recording, Trials, compact
from neuro_lightning.data.splitting import SPLITS, TrialSplit, hold_out, split_trials
from neuro_lightning.errors import DataError

SHAPES = {"counts": "BLN", "behavior": "BLk", "condition": "B", "split": "B", "times": "B", "heldout": "N",
          "unit_ids": "N", "bin_ms": "1", "rates": "BLN"}  # fmt: skip
"""The arrays that a file may hold, and their axes; the first one must be there."""
RULES = COMMON | {
    "counts": {"minimum": 0, "maximum": MOST, "whole": True, "what": "spike counts"},
    "condition": {"kinds": "biufSU", "may_be_nan": True, "what": "a condition for each trial"},
    "times": {"kinds": "iuf", "what": "start times in s"},
    "heldout": {"minimum": 0, "maximum": 1, "whole": True, "what": "marks, 0 or 1 for each neuron,"},
    "rates": {"kinds": "f", "minimum": 0, "what": "rates in spikes per bin"},
}


@dataclass(frozen=True, kw_only=True)
class SpikeOptions:
    """How spike counts are split and scored.

    Attributes:
        bin_ms: bin width in ms; None for what the file says.
        heldout_fraction: share of the neurons to hold out where the file does not say which; 0 for none.
        n_forward: last bins of each trial to predict unseen.
        val_fraction: share of the trials to validate with, where the file does not say which.
        split: ``auto`` (the file's, else random), ``random``, ``chronological`` or ``column`` (the file's).
        min_spikes: fewer in the training trials, and a neuron is not chosen to be held out.
        drop_duplicates: of neurons that look like one neuron sorted twice, keep one.
        seed: of the drawn neurons and trials.
    """

    bin_ms: int | None = None
    heldout_fraction: float = 0.25
    n_forward: int = 0
    val_fraction: float = 0.25
    split: str = "auto"
    min_spikes: int = 1
    drop_duplicates: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_share("val_fraction", self.val_fraction)
        if self.bin_ms is not None:
            check_whole("bin_ms", self.bin_ms, 1)


def load_spikes(path: str | Path, options: SpikeOptions) -> Recording:
    """Read spike counts in trials.

    Args:
        path: ``.npz``, ``.npy`` (counts alone) or ``.mat`` with the arrays that :func:`check_spikes` describes.
        options: how they are split and scored.

    Returns:
        A recording with the splits ``train`` and ``val``, and ``test`` where the file has such trials. Where the file
        has no ``times``, trials that share bins with those of another split are left out with a warning.

    Raises:
        DataError: the file is missing or damaged, or holds what cannot be spike counts.
        ConfigError: an option does not fit the file.
    """
    path = Path(path).expanduser()
    arrays = check_spikes(read_arrays(path, tuple(SHAPES)), f"{path}: ")
    counts = arrays["counts"].astype(np.uint8) if arrays["counts"].dtype.kind == "b" else arrays["counts"]
    n_trials, n_total, n_neurons = counts.shape
    bin_ms, n_bins = bin_width(path, arrays, options.bin_ms), n_total - options.n_forward
    check_whole("n_forward", options.n_forward, 0, n_total - 1)
    marked = arrays.get("heldout", np.zeros(n_neurons)).astype(bool)
    drawn = _split(path, arrays, n_trials, n_total * bin_ms, options)
    train = counts[drawn.parts["train"]]
    keep, warnings = without_duplicates(path, train, marked, options.drop_duplicates)
    active = train[:, :, keep].sum(axis=(0, 1), dtype=np.float64) >= options.min_spikes
    heldout = hold_out(marked[keep], active, options.heldout_fraction, options.seed, path)
    order = keep[np.argsort(heldout, kind="stable")]
    n_in, row = int((~heldout).sum()), np.arange(n_trials)
    trials = Trials.from_counts(compact(counts[:, :, order]), n_bins, n_in, row=row)
    info: dict[str, Any] = {"seed": options.seed, "overlap": drawn.overlap}
    info |= {"columns": order.tolist(), "n_columns": n_neurons}
    if "behavior" in arrays:
        trials.behavior = arrays["behavior"][:, :n_bins].astype(np.float64)
    if "condition" in arrays:
        trials.condition, info["condition_values"] = conditions(arrays["condition"])
    if "rates" in arrays:
        trials.rates = arrays["rates"][:, :, order].astype(np.float32)
    parts = {split: trials.take(index) for split, index in drawn.parts.items()}
    warnings += [drawn.warning] if drawn.warning else []
    if "times" in arrays:
        info["times"] = [list(range(n_trials)), arrays["times"].astype(float).tolist()]
        info["cut"] = {"window_ms": (0, n_bins * bin_ms), "forward_ms": (n_total - n_bins) * bin_ms}
    else:
        parts, lines = _without_shared(path, parts, drawn.parts, counts)
        warnings += lines
    if line := multiples_warning([counts]):
        warnings.append(f"{path}: {line}")
    ids = unit_ids(arrays, n_neurons)
    return Recording(
        name="arrays",
        bin_ms=bin_ms,
        splits=parts,
        unit_ids=ids[order],
        behavior_kind="velocity" if "behavior" in arrays else "none",
        simulated="rates" in arrays,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={
            **info,
            "heldout_units": ids[keep[heldout]].tolist(),
            "rows": {split: part.row.tolist() for split, part in parts.items()},
            **({"warnings": warnings} if warnings else {}),
        },
    )


def load_other_spikes(path: str | Path, info: dict[str, Any], spec: DataSpec) -> Recording:
    """Read another file of the same neurons as a trained model expects it.

    Args:
        path: as for :func:`load_spikes`.
        info: what :func:`load_spikes` noted of the file that the model was trained on.
        spec: of that file's data. Units have the same numbers in both files, or where there are none the same columns.

    Returns:
        A recording whose split ``test`` has all of the file's trials.

    Raises:
        DataError: the file has other neurons, or trials of another length.
        ConfigError: its bins have another width.
    """
    path = Path(path).expanduser()
    arrays = check_spikes(read_arrays(path, tuple(SHAPES)), f"{path}: ")
    counts, n_neurons = arrays["counts"], arrays["counts"].shape[2]
    position = {int(unit): k for k, unit in enumerate(unit_ids(arrays, n_neurons))}
    if n_neurons != info["n_columns"] or not set(spec.unit_ids) <= set(position):
        raise DataError(
            f"{path} holds {n_neurons} neurons, which are not the {info['n_columns']} of the file that trained the "
            "model: give counts of the same neurons in the same order, or with the same unit_ids"
        )
    if counts.shape[1] != spec.n_total:
        raise DataError(f"{path}: its trials have {counts.shape[1]} bins, those that trained the model {spec.n_total}")
    order, row = [position[unit] for unit in spec.unit_ids], np.arange(len(counts))
    return Recording(
        name="arrays",
        bin_ms=bin_width(path, arrays, spec.bin_ms),
        splits={"test": Trials.from_counts(compact(counts[:, :, order]), spec.n_bins, spec.n_in, row=row)},
        unit_ids=np.array(spec.unit_ids),
        simulated="rates" in arrays,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={name: info[name] for name in ("seed", "columns", "n_columns", "heldout_units")},
    )


def check_spikes(arrays: Arrays, where: str = "") -> Arrays:
    """The arrays with all of their axes, if they can be spike counts in trials, and what belongs to them.

    Args:
        arrays: ``counts`` (B, L, N), whole numbers; optionally ``behavior`` (B, L, K) or (B, L), NaN where unknown;
            ``condition`` (B,) numbers or text; ``split`` (B,) of train, val and test; ``times`` (B,) when each trial
            starts, s; ``heldout`` (N,) bool, the neurons to hold out; ``unit_ids`` (N,); ``bin_ms``, a number;
            ``rates`` (B, L, N) of simulated spikes, in spikes per bin.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    arrays = check_values(arrays, SHAPES, RULES, where)
    return arrays | ({"split": splits_column(arrays["split"], where)} if "split" in arrays else {})


def _split(path: Path, arrays: Arrays, n_trials: int, length_ms: int, options: SpikeOptions) -> TrialSplit:
    """Which trials train, validate and test; without times trials lie apart."""
    start = np.arange(n_trials) * length_ms
    if "times" in arrays:
        start = np.rint(arrays["times"].astype(np.float64) * 1000).astype(np.int64)
    spans = Spans(start, start + length_ms)
    return split_trials(path, arrays.get("split"), spans, options.split, options.val_fraction, options.seed)


def _without_shared(
    path: Path, parts: dict[str, Trials], index: dict[str, np.ndarray], counts: np.ndarray
) -> tuple[dict[str, Trials], list[str]]:
    """The splits without the trials that share bins with those of a later one, and what is said of it."""
    warnings: list[str] = []
    for part, later in (("train", ("val", "test")), ("val", ("test",))):
        others = [counts[index[name]] for name in later if name in index]
        if others:
            shared = shared_counts(counts[index[part]], np.concatenate(others))
            parts[part], _, lines = without_shared_trials(path, parts[part], shared, counts.shape[1])
            warnings += lines
    return parts, warnings
