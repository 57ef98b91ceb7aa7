"""Arrays as recordings: spike counts of trials, calcium traces of one session, images and the responses to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.arrays.files import Arrays, check_splits_column, conditions, read_arrays, whole_number
from neuro_lightning.data.checks.bounds import LARGEST, check_array
from neuro_lightning.data.checks.options import check_choice, check_share, check_whole
from neuro_lightning.data.checks.overlap import Spans, first_identical, move_copies_together, shared_counts
from neuro_lightning.data.checks.plausible import multiples_warning
from neuro_lightning.data.counts import MOST, without_duplicates, without_shared_trials
from neuro_lightning.data.images import ImageTrials, mean_over_repeats
from neuro_lightning.data.recording import Recording, Trials, compact
from neuro_lightning.data.splitting import SPLITS, TrialSplit, draw_splits, hold_out, split_trials
from neuro_lightning.data.stringer.files import SpontaneousFile
from neuro_lightning.data.stringer.reader import Preparation, prepare
from neuro_lightning.errors import ConfigError, DataError

SPIKES = ("counts", "behavior", "condition", "split", "times", "heldout", "unit_ids", "bin_ms", "rates")
TRACES = ("traces", "behavior", "bin_ms", "rates")
IMAGES = ("images", "responses", "split", "unit_ids", "rates")
KEYS = {"spikes": SPIKES, "traces": TRACES, "images": IMAGES}
"""The arrays that a file of each kind may hold; the first one must be there."""
INPUT_SCALES = ("zscore", "none")


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


# ---- spikes


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
    arrays = read_arrays(path, SPIKES)
    check_spikes(arrays, f"{path}: ")
    counts = arrays["counts"].astype(np.uint8) if arrays["counts"].dtype.kind == "b" else arrays["counts"]
    n_trials, n_total, n_neurons = counts.shape
    bin_ms, n_bins = _bin_ms(path, arrays, options.bin_ms), n_total - options.n_forward
    check_whole("n_forward", options.n_forward, 0, n_total - 1)
    marked = _marks(arrays, n_neurons)
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
        trials.behavior = _with_channels(arrays["behavior"])[:, :n_bins]
    if "condition" in arrays:
        trials.condition, info["condition_values"] = conditions(arrays["condition"], n_trials, f"{path}: condition")
    if "rates" in arrays:
        trials.rates = arrays["rates"][:, :, order].astype(np.float32)
    parts = {split: trials.take(index) for split, index in drawn.parts.items()}
    warnings += [drawn.warning] if drawn.warning else []
    if "times" in arrays:
        info["times"] = [list(range(n_trials)), arrays["times"].reshape(-1).astype(float).tolist()]
        info["cut"] = {"window_ms": (0, n_bins * bin_ms), "forward_ms": (n_total - n_bins) * bin_ms}
    else:
        parts, told = _without_shared(path, parts, drawn.parts, counts)
        warnings += told
    if line := multiples_warning([counts]):
        warnings.append(f"{path}: {line}")
    ids = arrays.get("unit_ids", np.arange(n_neurons)).reshape(-1).astype(np.int64)
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


def check_spikes(arrays: Arrays, where: str = "") -> None:
    """Whether arrays can be spike counts in trials, and what belongs to them.

    Args:
        arrays: ``counts`` (B, L, N), whole numbers; optionally ``behavior`` (B, L, K) or (B, L), NaN where unknown;
            ``condition`` (B,) numbers or text; ``split`` (B,) of train, val and test; ``times`` (B,) when each trial
            starts, s; ``heldout`` (N,) bool, the neurons to hold out; ``unit_ids`` (N,); ``bin_ms``, a number;
            ``rates`` (B, L, N) of simulated spikes, in spikes per bin.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    axes = ("trials", "bins", "neurons")
    check_array(arrays["counts"], f"{where}counts", axes=axes, minimum=0, maximum=MOST, whole=True, what="spike counts")
    n_trials, n_total, n_neurons = arrays["counts"].shape
    if "behavior" in arrays:
        check_array(arrays["behavior"], f"{where}behavior", kinds="iuf", may_be_nan=True)
        _fits(arrays["behavior"].shape[:2], (n_trials, n_total), f"{where}behavior", "trials x bins (x channels)")
        if arrays["behavior"].ndim not in (2, 3):
            raise DataError(f"{where}behavior must be trials x bins x channels, but is {arrays['behavior'].shape}")
    if "condition" in arrays:
        conditions(arrays["condition"], n_trials, f"{where}condition")
    if "split" in arrays:
        check_splits_column(arrays["split"], n_trials, f"{where}split")
    if "times" in arrays:
        check_array(arrays["times"], f"{where}times", kinds="iuf", what="start times in s")
        _fits((arrays["times"].size,), (n_trials,), f"{where}times", "one start for each trial")
    if "heldout" in arrays:
        check_array(arrays["heldout"], f"{where}heldout", minimum=0, maximum=1, whole=True, what="marks, 0 or 1")
        _fits((arrays["heldout"].size,), (n_neurons,), f"{where}heldout", "one mark for each neuron")
    _check_unit_ids(arrays, n_neurons, where)
    if "rates" in arrays:
        check_array(arrays["rates"], f"{where}rates", kinds="f", minimum=0, what="rates in spikes per bin")
        _fits(arrays["rates"].shape, arrays["counts"].shape, f"{where}rates", "shaped like counts")


def _marks(arrays: Arrays, n_neurons: int) -> np.ndarray:
    return arrays["heldout"].reshape(-1).astype(bool) if "heldout" in arrays else np.zeros(n_neurons, bool)


def _split(path: Path, arrays: Arrays, n_trials: int, length_ms: int, options: SpikeOptions) -> TrialSplit:
    """Which trials train, validate and test; without times trials lie apart."""
    column = check_splits_column(arrays["split"], n_trials, f"{path}: split") if "split" in arrays else None
    start = np.arange(n_trials) * length_ms
    if "times" in arrays:
        start = np.rint(arrays["times"].reshape(-1).astype(np.float64) * 1000).astype(np.int64)
    return split_trials(
        path, column, Spans(start, start + length_ms), options.split, options.val_fraction, options.seed
    )


def _without_shared(
    path: Path, parts: dict[str, Trials], index: dict[str, np.ndarray], counts: np.ndarray
) -> tuple[dict[str, Trials], list[str]]:
    """The splits without the trials that share bins with those of a later one, and what is said of it."""
    told: list[str] = []
    for part, later in (("train", ("val", "test")), ("val", ("test",))):
        others = [counts[index[name]] for name in later if name in index]
        if others:
            shared = shared_counts(counts[index[part]], np.concatenate(others))
            parts[part], _, lines = without_shared_trials(path, parts[part], shared, counts.shape[1])
            told += lines
    return parts, told


# ---- traces


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
    arrays = read_arrays(path, TRACES)
    check_traces(arrays, f"{path}: ")
    traces = arrays["traces"]
    behavior = {"behavior": _with_channels(arrays["behavior"], 1)} if "behavior" in arrays else {}
    file = SpontaneousFile(path, traces, np.zeros((3, len(traces))), behavior, _bin_ms(path, arrays, options.bin_ms))
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


def check_traces(arrays: Arrays, where: str = "") -> None:
    """Whether arrays can be the traces of one session.

    Args:
        arrays: ``traces`` (N, frames) as suite2p writes them; optionally ``behavior`` (frames, K) or (frames,), NaN
            where unknown; ``bin_ms``, the width of a frame; ``rates`` like ``traces``, what simulated traces are of.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    check_array(arrays["traces"], f"{where}traces", kinds="iuf", axes=("neurons", "frames"), what="traces")
    n_frames = arrays["traces"].shape[1]
    if "behavior" in arrays:
        check_array(arrays["behavior"], f"{where}behavior", kinds="iuf", may_be_nan=True)
        if arrays["behavior"].ndim not in (1, 2):
            raise DataError(f"{where}behavior must be frames x channels, but is {arrays['behavior'].shape}")
        _fits(arrays["behavior"].shape[:1], (n_frames,), f"{where}behavior", "frames (x channels)")
    if "rates" in arrays:
        check_array(arrays["rates"], f"{where}rates", kinds="f")
        _fits(arrays["rates"].shape, arrays["traces"].shape, f"{where}rates", "shaped like traces")


# ---- images


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images and responses are split and scaled.

    Attributes:
        val_fraction: share of the images that validates, where the file does not say which.
        test_fraction: share of the images that tests, likewise; 0 for none.
        input_scale: ``zscore`` by mean and standard deviation of the training images' pixels, or ``none``.
        seed: of the split.
    """

    val_fraction: float = 0.15
    test_fraction: float = 0.15
    input_scale: str = "zscore"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("input_scale", self.input_scale, INPUT_SCALES)


def load_images(path: str | Path, options: ImageOptions) -> Recording:
    """Read images and the responses to them. Images that are equal stay on one side of the split.

    Args:
        path: ``.npz`` or ``.mat`` with the arrays that :func:`check_images` describes.
        options: how they are split and scaled.

    Raises:
        DataError: the file is missing or damaged, or its arrays do not fit each other.
        ConfigError: an option does not fit the file.
    """
    path = Path(path).expanduser()
    arrays = read_arrays(path, IMAGES)
    check_images(arrays, f"{path}: ")
    images, responses = with_color_axis(arrays["images"]), arrays["responses"].astype(np.float32)
    index, warnings = _split_images(path, arrays, images, options)
    level, contrast = 0.0, 1.0
    if options.input_scale == "zscore":
        shown = images[index["train"]]
        level, contrast = float(shown.mean(dtype=np.float64)), float(shown.std(dtype=np.float64))
        if not contrast > 0:
            raise DataError(f"{path}: the training images have one grey level only; set data.input_scale=none")
    trials = ImageTrials(
        images=scale_images(images, level, contrast),
        responses=mean_over_repeats(responses).astype(np.float32) if responses.ndim == 3 else responses,
        repeats=responses if responses.ndim == 3 and responses.shape[1] > 1 else None,
        rates=arrays["rates"].astype(np.float32) if "rates" in arrays else None,
        row=np.arange(len(images)),
    )
    n_neurons = responses.shape[-1]
    return Recording(
        name="array_images",
        bin_ms=0,
        splits={split: trials.take(rows) for split, rows in index.items()},
        unit_ids=arrays.get("unit_ids", np.arange(n_neurons)).reshape(-1).astype(np.int64),
        kind="images",
        simulated="rates" in arrays,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={
            "image_mean": level,
            "image_std": contrast,
            "seed": options.seed,
            "rows": {split: rows.tolist() for split, rows in index.items()},
            **({"warnings": warnings} if warnings else {}),
        },
    )


def check_images(arrays: Arrays, where: str = "") -> None:
    """Whether arrays can be images and the responses to them.

    Args:
        arrays: ``images`` (B, H, W) or (B, C, H, W); ``responses`` (B, N), or (B, R, N) of R repeats, NaN where a
            neuron was not recorded; optionally ``split`` (B,) of train, val and test; ``unit_ids`` (N,); ``rates``
            (B, N), the true mean responses of simulated neurons.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    if "responses" not in arrays:
        raise DataError(f"{where}images need responses beside them, images x neurons or images x repeats x neurons")
    images, responses = arrays["images"], arrays["responses"]
    check_array(images, f"{where}images", kinds="biuf", what="pixels")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] > min(images.shape[2:])):
        raise DataError(f"{where}images must be (B, H, W) or (B, C, H, W), but have the shape {images.shape}")
    check_array(responses, f"{where}responses", kinds="iuf", may_be_nan=True, what="responses")
    if responses.ndim not in (2, 3):
        raise DataError(f"{where}responses must be (B, N), or (B, R, N) with repeats, but are {responses.shape}")
    _fits(responses.shape[:1], images.shape[:1], f"{where}responses", "as many rows as images")
    if "split" in arrays:
        check_splits_column(arrays["split"], len(images), f"{where}split")
    _check_unit_ids(arrays, responses.shape[-1], where)
    if "rates" in arrays:
        check_array(arrays["rates"], f"{where}rates", kinds="f")
        _fits(arrays["rates"].shape, (len(images), responses.shape[-1]), f"{where}rates", "images x neurons")


def with_color_axis(images: np.ndarray) -> np.ndarray:
    """(B, C, H, W) of images that may lack the axis of colors."""
    return images[:, None] if images.ndim == 3 else images


def scale_images(images: np.ndarray, level: float, contrast: float) -> np.ndarray:
    """Pixels less ``level``, in units of ``contrast``, float32."""
    return ((images.astype(np.float64) - level) / contrast).astype(np.float32)


def _split_images(
    path: Path, arrays: Arrays, images: np.ndarray, options: ImageOptions
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Which images train, validate and test, and what is to be said of it."""
    first = first_identical(images)
    again = int((first != np.arange(len(first))).sum())
    if "split" in arrays:
        column = check_splits_column(arrays["split"], len(images), f"{path}: split")
        index = {name: np.flatnonzero(column == name) for name in ("train", "val", "test")}
        if sides := [k for k in range(len(first)) if column[k] != column[first[k]]]:
            raise DataError(
                f"{path}: image {sides[0]} ({column[sides[0]]}) is the same as image {first[sides[0]]} "
                f"({column[first[sides[0]]]}): put equal images on one side of the split"
            )
        index = {name: rows for name, rows in index.items() if len(rows)}
    else:
        fractions = {"val": options.val_fraction, "test": options.test_fraction}
        index = move_copies_together(
            draw_splits(len(images), {k: v for k, v in fractions.items() if v}, options.seed), first
        )
    if missing := [name for name in ("train", "val") if not len(index.get(name, ()))]:
        raise DataError(f"{path}: no image is left for {missing[0]}; check its split and data.val_fraction")
    said = f"{path}: {again} images are the same as an earlier one, and stay on its side of the split"
    return index, [said] if again else []


# ---- all


def _bin_ms(path: Path, arrays: Arrays, asked: int | None) -> int:
    """The bin width that is asked for and that the file says, which must be the same."""
    said = whole_number(arrays["bin_ms"], f"{path}: bin_ms") if "bin_ms" in arrays else None
    if asked is None and said is None:
        raise ConfigError(f"{path} does not say how wide its bins are: give data.bin_ms=MILLISECONDS")
    if asked is not None and said is not None and asked != said:
        raise ConfigError(f"data.bin_ms={asked}: {path} says that its bins are {said} ms wide; leave it out")
    return said if asked is None else asked


def _with_channels(behavior: np.ndarray, without: int = 2) -> np.ndarray:
    """Behavior with an axis of channels, as float; ``without`` is the number of axes that it has when there is none."""
    behavior = behavior.astype(np.float64)
    return behavior[..., None] if behavior.ndim == without else behavior


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], where: str, what: str) -> None:
    if shape != expected:
        raise DataError(f"{where} has the shape {shape}, but {what} are expected: {expected}")


def _check_unit_ids(arrays: Arrays, n_neurons: int, where: str) -> None:
    if "unit_ids" not in arrays:
        return
    ids = arrays["unit_ids"]
    check_array(ids, f"{where}unit_ids", kinds="iuf", minimum=-LARGEST, whole=True, what="the neurons' numbers")
    _fits((ids.size,), (n_neurons,), f"{where}unit_ids", "one number for each neuron")
    if len(np.unique(ids)) < n_neurons:
        raise DataError(f"{where}unit_ids holds a number twice; neurons' numbers must differ")
