"""Read the files of Antolik et al. 2016, one folder a region, and check that they fit each other.

Source: S1 Dataset of Antolik, Hofer, Bednar & Mrsic-Flogel 2016 (PLoS Computational Biology 12:e1004927).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.bounds import check_array, read_npy, read_npz, reading
from neuro_lightning.data.split_arrays import SplitArrays
from neuro_lightning.errors import DataError

DOI = "https://doi.org/10.1371/journal.pcbi.1004927.s001"
SIDE = 31
"""Images are 31 x 31 pixels, one row of 961 values each."""
GREY = 1e-6
"""The value of one grey level: the files hold 0 to 255 of them."""
MOST = 1e4
"""More inferred spikes than any image can evoke; the published files reach about 24."""
TRUTH = "truth.npz"
"""What a simulated twin's folder holds beside the published files."""


@dataclass
class ShownImages(SplitArrays):
    """Images and the responses to them, as the files have them.

    Attributes:
        images: (B, 961) grey values, 0 to 0.000255.
        repeats: (B, R, N) single responses, NaN where there was none; R is 1 for training images.
        row: (B,) the images' rows in their file.
        rates: (B, N) true mean responses, NaN where ``repeats`` are; simulated data only.
    """

    images: np.ndarray
    repeats: np.ndarray
    row: np.ndarray
    rates: np.ndarray | None = None


@dataclass
class Region:
    """One recorded region.

    Attributes:
        train: images shown once.
        test: the 50 images shown several times ("validation" in the files' names).
        sources: the files, each a dictionary with ``path`` and ``size``.
        truth: a twin's planted parameters by name; None for a recording.
    """

    train: ShownImages
    test: ShownImages
    sources: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, np.ndarray] | None = None


def region_folder(root: str | Path, region: int) -> Path:
    """Where a region's files lie: ``antolik2016/region<k>`` below ``root``, or with the zip's ``Data`` in between.

    Raises:
        DataError: there is no such folder.
    """
    root = Path(root).expanduser()
    for folder in (root / "antolik2016", root / "antolik2016" / "Data", root / "Data"):
        if (folder / f"region{region}").is_dir():
            return folder / f"region{region}"
    raise DataError(f"{root / 'antolik2016'} has no folder region{region}: {_download_hint(root / 'antolik2016')}")


def load_region(folder: str | Path) -> Region:
    """Read a region's five files.

    Args:
        folder: with ``training_inputs``, ``training_set``, ``validation_inputs``, ``validation_set`` and
            ``raw_validation_set``, all ``.npy``.

    Raises:
        DataError: a file is missing, damaged, holds what it must not, or does not fit the others.
    """
    folder = Path(folder).expanduser()
    repeats = load_repeats(folder)
    images = {part: _load_images(folder / f"{part}_inputs.npy") for part in ("training", "validation")}
    path = folder / "training_set.npy"
    training = _load_responses(path, ("images", "neurons"))
    if training.shape[1] != repeats.shape[2]:
        raise DataError(
            f"{path} has {training.shape[1]} neurons, but raw_validation_set.npy beside it has {repeats.shape[2]}: "
            "they are of different regions"
        )
    for part, responses in (("training", training), ("validation", repeats)):
        if len(images[part]) != len(responses):
            raise DataError(
                f"{folder}: {part}_inputs.npy has {len(images[part])} images, but there are responses to "
                f"{len(responses)} in {'training_set' if part == 'training' else 'raw_validation_set'}.npy"
            )
    train = ShownImages(images["training"], training[:, None], np.arange(len(training)))
    test = ShownImages(images["validation"], repeats, np.arange(len(repeats)))
    truth = _load_truth(folder, train, test)
    sources = [{"path": str(file), "size": file.stat().st_size} for file in sorted(folder.glob("*.np[yz]"))]
    return Region(train, test, sources, truth)


def load_repeats(folder: str | Path) -> np.ndarray:
    """The single responses to a region's repeated images; the training files need not be there.

    Args:
        folder: with ``raw_validation_set.npy`` and ``validation_set.npy``.

    Returns:
        (B, R, N) float64, B images and R repeats.

    Raises:
        DataError: a file is missing or damaged, or ``validation_set`` is not the mean of ``raw_validation_set``.
    """
    folder = Path(folder).expanduser()
    path = folder / "raw_validation_set.npy"
    raw = _load_responses(path, ("repeats", "images", "neurons"))
    averages = _load_responses(folder / "validation_set.npy", ("images", "neurons"))
    if raw.shape[1:] != averages.shape:
        raise DataError(
            f"{path} is {raw.shape} (repeats, images, neurons), but validation_set.npy beside it {averages.shape}: "
            "its last two axes must be these; unpack both files again"
        )
    worst = float(np.abs(raw.mean(0) - averages).max())
    if worst > 1e-6 * max(1.0, float(averages.max())):
        raise DataError(
            f"{folder}: validation_set.npy is not the mean of raw_validation_set.npy over its {len(raw)} repeats "
            f"(they differ by up to {worst:.3g}); repeats are missing or the files are of different recordings"
        )
    return np.ascontiguousarray(raw.swapaxes(0, 1))


def _load(path: Path, axes: tuple[str, ...]) -> np.ndarray:
    """A float64 array of finite numbers with the given axes; never unpickles."""
    if not path.is_file():
        raise DataError(f"{path.name} is missing in {path.parent}: {_download_hint(path.parent.parent)}")
    with reading(path, "unpack it again"):
        values = read_npy(path)
    check_array(values, str(path), kinds="fiu", axes=axes)
    return values.astype(np.float64, copy=False)


def _load_responses(path: Path, axes: tuple[str, ...]) -> np.ndarray:
    values = _load(path, axes)
    check_array(values, str(path), minimum=0, maximum=MOST, what="inferred spikes in response to an image")
    return values


def _load_images(path: Path) -> np.ndarray:
    values = _load(path, ("images", "pixels"))
    if values.shape[1] != SIDE * SIDE:
        raise DataError(f"{path} has {values.shape[1]} pixels an image where {SIDE} x {SIDE} make {SIDE * SIDE}")
    if values.min() < 0 or values.max() > 256 * GREY:
        raise DataError(
            f"{path} holds values from {values.min():.3g} to {values.max():.3g}; the published ones are grey levels "
            f"0 to 255 times {GREY:g}. Use the file as published: data.input_scale does the rescaling"
        )
    return values


def _load_truth(folder: Path, train: ShownImages, test: ShownImages) -> dict[str, np.ndarray] | None:
    """A twin's truth, with the true means put into ``train`` and ``test``; None for a recording."""
    path = folder / TRUTH
    if not path.is_file():
        return None
    with reading(path, f"delete the folder {folder} to have it simulated again"):
        truth = read_npz(path)
        train.rates, test.rates = truth["training_means"], truth["validation_means"]
    for shown in (train, test):
        if shown.rates.shape != (shown.repeats.shape[0], shown.repeats.shape[2]):
            raise DataError(f"{path} does not fit the files beside it; delete the folder {folder}")
    return truth


def _download_hint(folder: Path) -> str:
    return f"download the zip {DOI} and unpack it in {folder}, or set data.simulate=true"
