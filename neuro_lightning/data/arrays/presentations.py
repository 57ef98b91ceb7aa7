"""Responses that are stored by presentation, in the order of the recording: which are of which image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuro_lightning.data.images import mean_over_repeats
from neuro_lightning.errors import DataError


def are_unequal(responses: object) -> bool:
    """Whether responses are a list of those to each image, of which some were shown more often than others."""
    if isinstance(responses, np.ndarray):
        return responses.dtype == object
    return isinstance(responses, list | tuple) and len({np.shape(entry) for entry in responses}) > 1


def join_list(responses: Sequence[np.ndarray], where: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A list of the responses (R, N) to each image as ``(responses, image_ids)``: (P, N) presentations, their images.

    Args:
        responses: of each image as many presentations as there were; (N,) is a single one, and none is none.
        where: the file, for the message.

    Raises:
        DataError: an entry is no array of numbers, or has other neurons than the one before.
    """
    found: list[np.ndarray] = []
    for k, entry in enumerate(responses):
        values = np.asarray(entry)
        if values.dtype.kind not in "iuf" or values.ndim > 2:
            kind = f"{values.dtype} of shape {values.shape}"
            raise DataError(f"{where}responses to image {k} must be numbers, repeats x neurons, but are {kind}")
        found.append(values[None] if values.ndim == 1 and values.size else values)
    shown = [values for values in found if values.size]
    for k, values in enumerate(found):
        if values.size and values.shape[1] != shown[0].shape[1]:
            raise DataError(
                f"{where}responses to image {k} are of {values.shape[1]} neurons, those before of {shown[0].shape[1]}"
            )
    if not shown:
        raise DataError(f"{where}responses is a list without any response")
    counts = [len(values) if values.size else 0 for values in found]
    return np.concatenate(shown), np.repeat(np.arange(len(found)), counts)


def check_image_ids(image_ids: np.ndarray, n_images: int, where: str) -> None:
    """Whether the numbers of the presented images are rows of the images.

    Raises:
        DataError: they are not, or count from 1.
    """
    low, high = int(image_ids.min()), int(image_ids.max())
    if low == 1 and high == n_images:
        raise DataError(f"{where}image_ids run from 1 to {n_images}, but images count from 0: subtract 1")
    if low < 0 or high >= n_images:
        odd = low if low < 0 else high
        raise DataError(f"{where}image_ids holds {odd}, but there are {n_images} images, 0 to {n_images - 1}")


def split_of_images(split: np.ndarray, image_ids: np.ndarray, n_images: int, where: str) -> np.ndarray:
    """(I,) the split of each image, from that of each presentation (P,); empty for images that were not shown.

    Raises:
        DataError: presentations of one image are in several splits.
    """
    found = np.full(n_images, "", split.dtype)
    found[image_ids] = split
    if len(odd := np.flatnonzero(found[image_ids] != split)):
        image = image_ids[odd[0]]
        sides = " and ".join(sorted(set(split[image_ids == image].tolist())))
        raise DataError(
            f"{where}split puts presentations of image {image} into {sides}: all presentations of an image belong to "
            "one split, since what trains on one of them has seen the others"
        )
    return found


def presentations_of(image_ids: np.ndarray, n_images: int) -> list[np.ndarray]:
    """For each image the rows of its presentations, in their order; none for an image that was not shown."""
    order = np.argsort(image_ids, kind="stable")
    return np.split(order, np.searchsorted(image_ids[order], np.arange(1, n_images)))


def mean_by_image(responses: np.ndarray, presentations: Sequence[np.ndarray]) -> np.ndarray:
    """(B, N) float64 means over the observed responses to each image, NaN where there was none.

    Args:
        responses: (P, N), NaN where a neuron was not recorded.
        presentations: rows of the presentations of each of B images.
    """
    return np.concatenate([mean_over_repeats(responses[rows][None]) for rows in presentations])


def repeats_by_image(responses: np.ndarray, presentations: Sequence[np.ndarray]) -> np.ndarray:
    """(B, R, N) float32 responses to each image, NaN after the last one of those that were shown less often."""
    most = max(len(rows) for rows in presentations)
    repeats = np.full((len(presentations), most, responses.shape[1]), np.nan, np.float32)
    for k, rows in enumerate(presentations):
        repeats[k, : len(rows)] = responses[rows]
    return repeats
