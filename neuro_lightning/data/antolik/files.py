"""Read the files of Antolik et al. 2016, one folder a region, and check that they fit each other.

Source: S1 Dataset of Antolik, Hofer, Bednar & Mrsic-Flogel 2016 (PLoS Computational Biology 12:e1004927).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.bounds import check_array, check_arrays, read_npy, read_npz, reading
from neuro_lightning.data.split_arrays import SplitArrays
from neuro_lightning.data.twin_files import TRUTH, true_rates
from neuro_lightning.errors import DataError

DOI = "https://doi.org/10.1371/journal.pcbi.1004927.s001"
SIDE = 31
"""Images are 31 x 31 pixels, one row of 961 values each."""
GREY = 1e-6
"""The value of one grey level: the files hold 0 to 255 of them."""
FILES = {
    "training_inputs.npy": "BP",
    "training_set.npy": "BN",
    "validation_inputs.npy": "IP",
    "validation_set.npy": "IN",
    "raw_validation_set.npy": "RIN",
}
"""The files of a region and their axes."""
AXES = {"B": "images", "I": "images", "P": "pixels", "N": "neurons", "R": "repeats"}
# the published responses reach about 24
RESPONSES = {"kinds": "fiu", "minimum": 0, "maximum": 1e4, "what": "inferred spikes in response to an image"}
RULES = {name: {"kinds": "fiu"} if name.endswith("inputs.npy") else RESPONSES for name in FILES}


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
        folder: with the files of :data:`FILES`.

    Raises:
        DataError: a file is missing, damaged, holds what it must not, or does not fit the others.
    """
    folder = Path(folder).expanduser()
    arrays = _read(folder, *FILES)
    training, repeats = arrays["training_set.npy"], _repeats(folder, arrays)
    train = ShownImages(arrays["training_inputs.npy"], training[:, None], np.arange(len(training)))
    test = ShownImages(arrays["validation_inputs.npy"], repeats, np.arange(len(repeats)))
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
    return _repeats(folder, _read(folder, "validation_set.npy", "raw_validation_set.npy"))


def _read(folder: Path, *names: str) -> dict[str, np.ndarray]:
    """Some of a region's files as float64 arrays of finite numbers and of sizes that fit each other."""
    arrays = {}
    for path in (folder / name for name in names):
        if not path.is_file():
            raise DataError(f"{path.name} is missing in {folder}: {_download_hint(folder.parent)}")
        with reading(path, "unpack it again"):
            arrays[path.name] = read_npy(path)
        if path.name.endswith("inputs.npy"):
            _check_images(path, arrays[path.name])
    check_arrays(f"{folder}/", arrays, FILES, RULES, AXES)
    return {name: values.astype(np.float64, copy=False) for name, values in arrays.items()}


def _check_images(path: Path, values: np.ndarray) -> None:
    """Whether images have the published size and grey levels."""
    check_array(values, str(path), axes=("images", "pixels"), **RULES[path.name])
    if values.shape[1] != SIDE * SIDE:
        raise DataError(f"{path} has {values.shape[1]} pixels an image where {SIDE} x {SIDE} make {SIDE * SIDE}")
    if values.min() < 0 or values.max() > 256 * GREY:
        raise DataError(
            f"{path} holds values from {values.min():.3g} to {values.max():.3g}; the published ones are grey levels "
            f"0 to 255 times {GREY:g}. Use the file as published: data.input_scale does the rescaling"
        )


def _repeats(folder: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(B, R, N) the single responses, whose means must be those of the file."""
    raw, averages = arrays["raw_validation_set.npy"], arrays["validation_set.npy"]
    worst = float(np.abs(raw.mean(0) - averages).max())
    if worst > 1e-6 * max(1.0, float(averages.max())):
        raise DataError(
            f"{folder}: validation_set.npy is not the mean of raw_validation_set.npy over its {len(raw)} repeats "
            f"(they differ by up to {worst:.3g}); repeats are missing or the files are of different recordings"
        )
    return np.ascontiguousarray(raw.swapaxes(0, 1))


def _load_truth(folder: Path, train: ShownImages, test: ShownImages) -> dict[str, np.ndarray] | None:
    """A twin's truth, with the true means put into ``train`` and ``test``; None for a recording."""
    path = folder / TRUTH
    if not path.is_file():
        return None
    for shown, name in ((train, "training_means"), (test, "validation_means")):
        shown.rates = true_rates(path, (shown.repeats.shape[0], shown.repeats.shape[2]), name)
    return read_npz(path)


def _download_hint(folder: Path) -> str:
    return f"download the zip {DOI} and unpack it in {folder}, or set data.simulate=true"
