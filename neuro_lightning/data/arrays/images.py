"""Images and the responses to them, in arrays, as a recording."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neuro_lightning.data.arrays.files import COMMON, Arrays, check_values, read_arrays, splits_column, unit_ids
from neuro_lightning.data.arrays.presentations import (
    check_image_ids,
    join_list,
    mean_by_image,
    presentations_of,
    repeats_by_image,
    split_of_images,
)
from neuro_lightning.data.checks.options import check_choice
from neuro_lightning.data.checks.overlap import first_identical, move_copies_together
from neuro_lightning.data.images import RESPONSE_SCALES, ImageTrials, mean_over_repeats, response_factor, standardizer
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.splitting import draw_splits
from neuro_lightning.errors import DataError

INPUT_SCALES = ("zscore", "none")
SHAPES = {
    "images": "IcHW", "responses": "IrN", "image_ids": "P", "split": "I", "unit_ids": "N", "unit_positions": "ND",
    "pupil_center": "IE", "rates": "IN",
}  # fmt: skip
"""The arrays that a file may hold, and their axes; the first one must be there."""
BY_PRESENTATION = {"responses": "PN", "pupil_center": "PE"}
"""Axes that differ where ``image_ids`` says which image each response is to."""
RULES = COMMON | {
    "images": {"what": "pixels"},
    "responses": {"kinds": "iuf", "may_be_nan": True, "what": "responses"},
    "image_ids": {"kinds": "iuf", "whole": True, "what": "the images' rows"},
    "pupil_center": {"kinds": "iuf", "may_be_nan": True, "what": "where the pupil was"},
}
MOST_REPEATS = 50
"""Presentations of one image that are used: a grey screen that was shown 300 times would make arrays of it for all."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images and responses are split and scaled.

    Attributes:
        val_fraction: share of the images that validates, where the file does not say which.
        test_fraction: share of the images that tests, likewise; 0 for none.
        input_scale: ``zscore`` by mean and standard deviation of the training images' pixels, or ``none``.
        response_scale: ``std`` lets networks learn each neuron's responses divided by their standard deviation over the
            training images; predictions and scores stay in the file's unit. ``none`` takes them as they are.
        seed: of the split.
    """

    val_fraction: float = 0.15
    test_fraction: float = 0.15
    input_scale: str = "zscore"
    response_scale: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("input_scale", self.input_scale, INPUT_SCALES)
        check_choice("response_scale", self.response_scale, RESPONSE_SCALES)


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
    presented, warnings = _presented(path, arrays)
    shown = np.arange(len(images)) if presented is None else np.flatnonzero([len(rows) for rows in presented])
    index = _split_images(path, arrays, shown, options, warnings)
    level, contrast = 0.0, 1.0
    if options.input_scale == "zscore":
        pixels = images[index["train"]]
        level, contrast = float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))
        if not contrast > 0:
            raise DataError(f"{path}: the training images have one grey level only; set data.input_scale=none")
    mean = mean_over_repeats(responses) if presented is None else mean_by_image(responses, presented)
    trials = ImageTrials(
        images=scale_images(images, level, contrast),
        responses=mean.astype(np.float32),
        repeats=responses if presented is None and responses.shape[1] > 1 else None,
        rates=arrays["rates"].astype(np.float32) if "rates" in arrays else None,
        pupil=_pupil(arrays, presented, index["train"]),
        row=np.arange(len(images)),
    )
    splits = {split: trials.take(rows) for split, rows in index.items()}
    for split in set(splits) - {"train"} if presented is not None else ():  # the mean is what trains
        repeats = repeats_by_image(responses, [presented[row] for row in index[split]])
        splits[split] = replace(splits[split], repeats=repeats if repeats.shape[1] > 1 else None)
    return Recording(
        name="images",
        bin_ms=0,
        splits=splits,
        unit_ids=unit_ids(arrays, responses.shape[-1]),
        unit_positions=arrays["unit_positions"][:, :2].astype(np.float64) if "unit_positions" in arrays else None,
        kind="images",
        simulated="rates" in arrays,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={
            "image_mean": level,
            "image_std": contrast,
            "seed": options.seed,
            "rows": {split: rows.tolist() for split, rows in index.items()},
            **_response_unit(trials.responses[index["train"]], options.response_scale),
            **({"warnings": warnings} if warnings else {}),
        },
    )


def check_images(arrays: Arrays, where: str = "") -> Arrays:
    """The arrays with all of their axes, if they can be images and the responses to them.

    Args:
        arrays: ``images`` (I, H, W) or (I, C, H, W); ``responses`` (I, N), or (I, R, N) of R repeats, NaN where a
            neuron was not recorded. Or ``responses`` (P, N) of each presentation, with ``image_ids`` (P,), which row of
            ``images`` was presented, from 0 on; or a list (cells in MATLAB) of the responses (R, N) to each image, with
            R that differ. Optionally ``split`` (I,) or (P,) of train, val and test; ``unit_ids`` (N,);
            ``unit_positions`` (N, 2) or (N, 3), x, y and z of the neurons in the cortex; ``pupil_center`` (I, 2)
            or (P, 2), where the pupil was, NaN where unknown; ``rates`` (I, N), the true mean responses of simulated
            neurons.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    if "responses" not in arrays:
        raise DataError(f"{where}images need responses beside them, images x neurons or images x repeats x neurons")
    if arrays["responses"].dtype == object:
        if "image_ids" in arrays:
            raise DataError(f"{where}responses has cells for each image: leave image_ids out beside it")
        arrays = dict(arrays)
        arrays["responses"], arrays["image_ids"] = join_list(arrays["responses"].reshape(-1), where)
    n_images, n_rows = len(np.atleast_1d(arrays["images"])), len(np.atleast_1d(arrays["responses"]))
    if "image_ids" not in arrays and n_rows != n_images:
        raise DataError(
            f"{where}responses has {n_rows} rows for {n_images} images: give one row for each image, or image_ids with "
            "the image of each row"
        )
    per_presentation = "image_ids" in arrays and "split" in arrays and arrays["split"].size == n_rows != n_images
    axes = SHAPES | (BY_PRESENTATION if "image_ids" in arrays else {}) | ({"split": "P"} if per_presentation else {})
    arrays = check_values(arrays, axes, RULES, where)
    if arrays["images"].shape[1] > min(arrays["images"].shape[2:]):
        shape = arrays["images"].shape
        last = "; channels come before the pixels: images.transpose(0, 3, 1, 2)" if shape[3] in (1, 3) else ""
        raise DataError(f"{where}images must be (I, H, W) or (I, C, H, W), but have the shape {shape}{last}")
    if "unit_positions" in arrays and arrays["unit_positions"].shape[1] not in (2, 3):
        shape = arrays["unit_positions"].shape
        raise DataError(f"{where}unit_positions must be neurons x 2 or neurons x 3, but have the shape {shape}")
    if "pupil_center" in arrays and arrays["pupil_center"].shape[1] != 2:
        raise DataError(f"{where}pupil_center must have 2 columns, but has the shape {arrays['pupil_center'].shape}")
    if "image_ids" in arrays:
        check_image_ids(arrays["image_ids"], n_images, where)
        arrays["image_ids"] = arrays["image_ids"].astype(np.int64)
    if "split" in arrays:
        arrays["split"] = splits_column(arrays["split"], where)
    if per_presentation:
        arrays["split"] = split_of_images(arrays["split"], arrays["image_ids"], n_images, where)
    return arrays


def _pupil(arrays: Arrays, presented: list[np.ndarray] | None, train: np.ndarray) -> np.ndarray | None:
    """(I, 2) the pupil's position, the mean over an image's presentations, z-scored over ``train``, 0 where unknown."""
    if "pupil_center" not in arrays:
        return None
    where = arrays["pupil_center"].astype(np.float64)
    if presented is not None:
        where = mean_by_image(where, presented)
    mean, std = standardizer(where[train])
    return np.nan_to_num((where - mean) / std).astype(np.float32)


def _response_unit(train: np.ndarray, scale: str) -> dict[str, list[float]]:
    """What networks measure responses in, as the recording notes it; nothing where it is the file's unit."""
    return {} if scale == "none" else {"response_unit": response_factor(train, scale)[1]["unit"]}


def scale_images(images: np.ndarray, level: float, contrast: float) -> np.ndarray:
    """Pixels less ``level``, in units of ``contrast``, float32."""
    return ((images.astype(np.float64) - level) / contrast).astype(np.float32)


def _presented(path: Path, arrays: Arrays) -> tuple[list[np.ndarray] | None, list[str]]:
    """Rows of the presentations of each image, None where responses are stored by image; and what is to be said."""
    if "image_ids" not in arrays:
        return None, []
    rows, said = presentations_of(arrays["image_ids"], len(arrays["images"])), []
    if absent := sum(not len(of_image) for of_image in rows):
        said.append(f"{path}: {absent} images were not shown, and are left out")
    if often := sum(len(of_image) > MOST_REPEATS for of_image in rows):
        said.append(f"{path}: {often} images were shown more than {MOST_REPEATS} times; the first {MOST_REPEATS} count")
    return [of_image[:MOST_REPEATS] for of_image in rows], said


def _split_images(
    path: Path, arrays: Arrays, shown: np.ndarray, options: ImageOptions, said: list[str]
) -> dict[str, np.ndarray]:
    """Which of the images that were shown train, validate and test; what is to be said of it is added to ``said``."""
    first = first_identical(arrays["images"][shown])
    again = int((first != np.arange(len(first))).sum())
    if "split" in arrays:
        column = arrays["split"][shown]
        index = {name: np.flatnonzero(column == name) for name in ("train", "val", "test")}
        if sides := [k for k in range(len(first)) if column[k] != column[first[k]]]:
            one, other = sides[0], first[sides[0]]
            raise DataError(
                f"{path}: image {shown[one]} ({column[one]}) is the same as image {shown[other]} "
                f"({column[other]}): put equal images on one side of the split"
            )
        index = {name: rows for name, rows in index.items() if len(rows)}
    else:
        fractions = {"val": options.val_fraction, "test": options.test_fraction}
        index = move_copies_together(
            draw_splits(len(shown), {k: v for k, v in fractions.items() if v}, options.seed), first
        )
    if missing := [name for name in ("train", "val") if not len(index.get(name, ()))]:
        raise DataError(f"{path}: no image is left for {missing[0]}; check its split and data.val_fraction")
    if again:
        said.append(f"{path}: {again} images are the same as an earlier one, and stay on its side of the split")
    return {name: shown[rows] for name, rows in index.items()}
