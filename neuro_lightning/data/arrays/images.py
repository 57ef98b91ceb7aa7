"""Images and the responses to them, in arrays, as a recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuro_lightning.data.arrays.files import COMMON, Arrays, check_values, read_arrays, splits_column, unit_ids
from neuro_lightning.data.checks.options import check_choice
from neuro_lightning.data.checks.overlap import first_identical, move_copies_together
from neuro_lightning.data.images import ImageTrials, mean_over_repeats
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.splitting import draw_splits
from neuro_lightning.errors import DataError

INPUT_SCALES = ("zscore", "none")
SHAPES = {"images": "IcHW", "responses": "IrN", "split": "I", "unit_ids": "N", "rates": "IN"}
"""The arrays that a file may hold, and their axes; the first one must be there."""
RULES = COMMON | {"images": {"what": "pixels"}, "responses": {"kinds": "iuf", "may_be_nan": True, "what": "responses"}}


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
    arrays = check_images(read_arrays(path, tuple(SHAPES)), f"{path}: ")
    images, responses = arrays["images"], arrays["responses"].astype(np.float32)
    index, warnings = _split_images(path, arrays, images, options)
    level, contrast = 0.0, 1.0
    if options.input_scale == "zscore":
        shown = images[index["train"]]
        level, contrast = float(shown.mean(dtype=np.float64)), float(shown.std(dtype=np.float64))
        if not contrast > 0:
            raise DataError(f"{path}: the training images have one grey level only; set data.input_scale=none")
    trials = ImageTrials(
        images=scale_images(images, level, contrast),
        responses=mean_over_repeats(responses).astype(np.float32),
        repeats=responses if responses.shape[1] > 1 else None,
        rates=arrays["rates"].astype(np.float32) if "rates" in arrays else None,
        row=np.arange(len(images)),
    )
    return Recording(
        name="array_images",
        bin_ms=0,
        splits={split: trials.take(rows) for split, rows in index.items()},
        unit_ids=unit_ids(arrays, responses.shape[2]),
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


def check_images(arrays: Arrays, where: str = "") -> Arrays:
    """The arrays with all of their axes, if they can be images and the responses to them.

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
    arrays = check_values(arrays, SHAPES, RULES, where)
    if arrays["images"].shape[1] > min(arrays["images"].shape[2:]):
        shape = arrays["images"].shape
        raise DataError(f"{where}images must be (B, H, W) or (B, C, H, W), but have the shape {shape}")
    return arrays | ({"split": splits_column(arrays["split"], where)} if "split" in arrays else {})


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
        column = arrays["split"]
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
