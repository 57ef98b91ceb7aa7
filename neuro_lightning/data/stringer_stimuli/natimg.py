"""Read responses of mouse V1 to 2,800 natural images, each shown twice, from the authors' MATLAB files.

``natimg2800_<mouse>_<date>.mat`` holds the struct ``stim``: ``resp`` (P, N) one response of each neuron to each of P
presentations, ``istim`` (P, 1) the image's number from 1 on, the largest of them the grey screen, and ``spont`` (T, N)
spontaneous activity. ``med`` (N, 3) is where each neuron lies.
``images_natimg2800_all.mat`` holds ``imgs`` (68, 270, n): one pixel a degree of the visual field.

Source: Stringer, Pachitariu, Steinmetz, Carandini & Harris 2019 (Nature 571:361), data figshare 6845348, code
MouseLand/stringer-pachitariu-et-al-2018b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.linalg

from neuro_lightning.data.checks.bounds import check_arrays
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.checks.overlap import first_identical, move_copies_together
from neuro_lightning.data.formats.mat import read_mat
from neuro_lightning.data.images import EPSILON, ImageTrials, mean_over_repeats
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.splitting import draw_splits
from neuro_lightning.data.stringer_stimuli.responses import (
    SpontaneousActivity,
    choose_neurons,
    spontaneous_activity,
    standardize_responses,
    subtract_spontaneous,
)
from neuro_lightning.data.twin_files import true_rates
from neuro_lightning.errors import ConfigError, DataError

NAME = "stringer_natimg"


def load_natimg(
    path: str | Path,
    images_path: str | Path,
    *,
    remove_components: int = 32,
    standardize: bool = True,
    neurons: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    crop: Sequence[int] | None = None,
    downsample: int = 4,
    truth: str | Path | None = None,
) -> Recording:
    """Natural images, the single responses to them and their means.

    Responses are z-scored by spontaneous activity, lose its first principal components, and are then z-scored over
    the training images. Splits are by image, so that no image's other presentation is in another split; nor is an
    image of another number that is the same. Images are
    standardized by the mean and the standard deviation of all pixels of the training images.

    Args:
        path: the recording.
        images_path: the images.
        remove_components: spontaneous principal components taken out; 32 is the authors' choice.
        standardize: z-score by the training images.
        neurons: how many to draw, at most; None takes all.
        val_fraction: share of the images to validate with.
        test_fraction: share of the images to test with.
        seed: draws the images of each split, and the neurons.
        crop: ``[top, bottom, left, right]`` in pixels of the file, rows ``top`` to ``bottom - 1``; None for all.
        downsample: pixels a side that are averaged to one; what does not fill the last one is cut off on both sides.
        truth: the twin's file of true rates.

    Returns:
        A recording of images with the splits ``train``, ``val`` and ``test``; ``repeats`` are NaN where an image was
        shown fewer times than others.

    Raises:
        DataError: a file is missing or damaged, or its arrays are not what they should be.
        ConfigError: a setting cannot be.
    """
    path, images_path = Path(path).expanduser(), Path(images_path).expanduser()
    resp, istim, spont, places = _read_responses(path)
    images = _read_images(images_path)
    n_images = int(istim.max()) - 1  # the largest number is the grey screen
    if images.shape[0] != n_images:
        raise DataError(
            f"{images_path} has {images.shape[0]} images, but {path.name} numbers {n_images} and the grey screen "
            f"({n_images + 1}): it is of other stimuli"
        )
    ongoing = _spontaneous(path, spont, remove_components)
    chosen = choose_neurons(ongoing.active, neurons, seed)
    shown = istim <= n_images
    row, repeats = stack_repeats(istim[shown] - 1, subtract_spontaneous(path, resp.T[:, shown], ongoing, chosen))
    rates = None
    if truth is not None:
        rates = subtract_spontaneous(truth, true_rates(truth, (resp.shape[1], n_images)), ongoing, chosen)[row]
    small = shrink(images[row], crop, downsample)
    index, warnings = _split(small, {"val": val_fraction, "test": test_fraction}, seed, images_path)
    if standardize:
        repeats, rates = standardize_responses(repeats, index["train"], rates)
    level, contrast = small[index["train"]].mean(dtype=np.float64), small[index["train"]].std(dtype=np.float64)
    if not contrast > 0:
        raise DataError(f"{images_path}: the training images have one grey level only; check data.crop")
    trials = ImageTrials(
        images=((small - level) / contrast).astype(np.float32)[:, None],
        responses=mean_over_repeats(repeats).astype(np.float32),
        repeats=repeats,
        rates=rates,
        row=row,
    )
    return Recording(
        name=NAME,
        bin_ms=0,
        splits={split: trials.take(rows) for split, rows in index.items()},
        unit_ids=chosen,
        unit_positions=None if places is None else places[chosen],
        kind="images",
        simulated=truth is not None,
        sources=[{"path": str(p), "size": p.stat().st_size} for p in (path, images_path)],
        info={
            "n_recorded": resp.shape[1],
            "n_silent": resp.shape[1] - len(ongoing.active),
            "remove_components": remove_components,
            "image_mean": float(level),
            "image_std": float(contrast),
            "seed": seed,
            "warnings": warnings,
        },
    )


def _split(
    images: np.ndarray, fractions: dict[str, float], seed: int, path: Path
) -> tuple[dict[str, np.ndarray], list[str]]:
    """A seeded draw of images, the same ones on one side, and what is to be said of them."""
    first = first_identical(images)
    index = move_copies_together(draw_splits(len(images), fractions, seed), first)
    again = int((first != np.arange(len(first))).sum())
    if empty := [name for name, rows in index.items() if not len(rows)]:
        raise DataError(
            f"{path}: {again} of {len(first)} images are the same as an earlier one and stay on its side of the split, "
            f"so that none is left for {empty[0]}; check data.crop and data.downsample"
        )
    said = f"{path}: {again} images are the same as an earlier one as they are used, and stay on its side of the split"
    return index, [said] if again else []


def stack_repeats(image: np.ndarray, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Single responses by image, in the order in which they were recorded.

    Args:
        image: (P,) the image of each presentation.
        responses: (P, N).

    Returns:
        ``(row, repeats)``: (B,) the images that were shown, ascending, and (B, R, N) float32, NaN where an image was
        shown fewer than R times.
    """
    order = np.argsort(image, kind="stable")
    row, first, count = np.unique(image[order], return_index=True, return_counts=True)
    repeats = np.full((len(row), count.max(), responses.shape[1]), np.nan, np.float32)
    place = np.arange(len(image)) - np.repeat(first, count)
    repeats[np.repeat(np.arange(len(row)), count), place] = responses[order]
    return row.astype(np.int64), repeats


def shrink(images: np.ndarray, crop: Sequence[int] | None, factor: int) -> np.ndarray:
    """Crop images and average squares of pixels.

    Args:
        images: (B, H, W) numbers.
        crop: ``[top, bottom, left, right]``, see :func:`load_natimg`.
        factor: pixels a side of a square.

    Returns:
        (B, H // factor, W // factor) float32.

    Raises:
        ConfigError: nothing would be left.
    """
    height, width = images.shape[1:]
    edges = (0, height, 0, width) if crop is None else tuple(crop)
    whole = len(edges) == 4 and all(isinstance(edge, int) and not isinstance(edge, bool) for edge in edges)
    if not whole or not (0 <= edges[0] < edges[1] <= height and 0 <= edges[2] < edges[3] <= width):
        raise ConfigError(
            f"data.crop={list(crop)} must be [top, bottom, left, right] with 0 <= top < bottom <= {height} "
            f"and 0 <= left < right <= {width}"
        )
    top, bottom, left, right = edges
    height, width = bottom - top, right - left
    check_whole("downsample", factor, 1, min(height, width))
    top, left = top + height % factor // 2, left + width % factor // 2
    rows, columns = height // factor, width // factor
    result = np.empty((len(images), rows, columns), np.float32)
    for i, image in enumerate(images):  # one at a time: 2,800 images as float64 take 400 MB
        part = image[top : top + rows * factor, left : left + columns * factor]
        result[i] = part.reshape(rows, factor, columns, factor).mean((1, 3), dtype=np.float64)
    return result


def spontaneous_components(z: np.ndarray, n: int) -> np.ndarray:
    """The first principal directions of spontaneous activity.

    Args:
        z: (T, N) activity, each neuron of mean 0.
        n: how many.

    Returns:
        (N, n) orthonormal columns, the one of most variance first.
    """
    wide = z.shape[1] > z.shape[0]
    gram = z @ z.T if wide else z.T @ z
    size = len(gram)
    _, vectors = scipy.linalg.eigh(gram, subset_by_index=(size - n, size - 1))
    vectors = vectors[:, ::-1]
    return np.linalg.qr(z.T @ vectors)[0] if wide else vectors


def _spontaneous(path: Path, spont: np.ndarray, remove: int) -> SpontaneousActivity:
    """Spontaneous activity of all neurons."""
    mean, std = spont.mean(0, dtype=np.float64), spont.std(0, dtype=np.float64)
    found = spontaneous_activity(path, mean, np.where(std > 0, std + EPSILON, 0.0), "stim.spont")
    most = min(len(spont) - 1, len(found.active))
    check_whole("remove_components", remove, 0, most, f" (what stim.spont in {path} allows)")
    if not remove:
        return found
    return replace(found, components=spontaneous_components((spont - found.mean) / found.std, remove))


def _read_responses(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """``(resp (P, N), istim (P,), spont (T, N), med (N, 2) or None)``; single responses may be NaN."""
    content = read_mat(path, ["stim", "med"])
    if "stim" not in content:
        raise DataError(f"{path} has no struct stim: it is no recording of responses to natural images")
    stim = content["stim"]
    wanted = ("resp", "istim", "spont")
    if stim.dtype.names is None or stim.size != 1 or not set(wanted) <= set(stim.dtype.names):
        has = "a struct with " + ", ".join(stim.dtype.names) if stim.dtype.names else f"{stim.dtype} {stim.shape}"
        raise DataError(f"{path}: stim must be a struct with the fields {', '.join(wanted)}, but is {has}")
    arrays = {name: np.asarray(stim[name].reshape(-1)[0]) for name in wanted}
    arrays["istim"] = arrays["istim"].reshape(-1)
    lost = {"resp": {"may_be_nan": True}}  # MATLAB users mark what was lost by NaN
    check_arrays(f"{path}: ", arrays, {"istim": "P", "resp": "PN", "spont": "TN"}, lost)
    istim = arrays["istim"]
    if (istim % 1 != 0).any() or istim.min() < 1:
        raise DataError(
            f"{path}: stim.istim must be whole numbers from 1 on, but goes from {istim.min()} to {istim.max()}"
        )
    if istim.max() < 2:
        raise DataError(
            f"{path}: stim.istim holds {istim.max()} only, the grey screen: there is no response to an image"
        )
    places = content.get("med", np.empty(0))
    known = places.ndim == 2 and places.shape[0] == arrays["resp"].shape[1] and places.shape[1] >= 2
    known = known and places.dtype.kind in "iuf" and bool(np.isfinite(places).all())
    return arrays["resp"], istim.astype(np.int64), arrays["spont"], places[:, :2].astype(np.float64) if known else None


def _read_images(path: Path) -> np.ndarray:
    """(n, H, W) the images, as they are in the file."""
    images = read_mat(path, ["imgs"])["imgs"]
    check_arrays(f"{path}: ", {"imgs": images}, {"imgs": "HWn"})
    return images.transpose(2, 0, 1)
