"""Regions of Antolik et al. 2016 as a recording: pooled, split, rescaled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.antolik.files import GREY, SIDE, Region, ShownImages, load_region, region_folder
from neuro_lightning.data.checks.options import check_choice, check_share, check_whole
from neuro_lightning.data.checks.overlap import first_identical
from neuro_lightning.data.images import RESPONSE_SCALES, ImageTrials, mean_over_repeats, response_factor
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import ConfigError, DataError

INPUT_SCALES = ("zscore", "zscore_each", "raw255", "none")
PROTOCOLS = ("honest", "thesis")


def load_antolik(
    root: str | Path,
    regions: Sequence[int],
    *,
    input_scale: str = "zscore",
    response_scale: str = "none",
    val_fraction: float = 0.15,
    split_seed: int = 0,
    protocol: str = "honest",
) -> Recording:
    """Read one region or several pooled ones.

    Pooled, the neurons stand side by side and a response is NaN where a neuron's region was not shown the image. Images
    that are the same in every pixel are merged into one, so that regions 1 and 2, which share their 50 repeated images,
    have 50 of them and not 100, each with the responses of both; the region with fewer repeats has NaN in the rest.

    Args:
        root: the folder ``antolik2016`` lies there, see :func:`neuro_lightning.data.antolik.files.region_folder`.
        regions: which of 1, 2 and 3.
        input_scale: ``zscore`` by the mean and standard deviation (scalars) of the images that train; ``zscore_each``
            of every split by its own, as in msc-neuro; ``raw255`` grey levels 0 to 255; ``none`` as in the file.
        response_scale: ``std`` divides each neuron's responses by their standard deviation over the images that train.
        val_fraction: share of the training images that validates. Identical images stay together.
        split_seed: draws them.
        protocol: ``honest`` tests on the repeated images, and drops training images that are among them; ``thesis``
            trains on all training images and validates with the repeated ones, which then choose and report.

    Returns:
        A recording whose neurons are numbered 1000 x region + column. ``info`` keeps the scales, the validation
        images' rows and, for a twin with planted units, ``dog``: the [mx, my, s1, s2, a1, a2] of each, in pixels.

    Raises:
        DataError: see :func:`neuro_lightning.data.antolik.files.load_region`.
        ConfigError: an option cannot be.
    """
    regions = check_options(regions, input_scale, response_scale, val_fraction, split_seed, protocol)
    found = {k: load_region(region_folder(root, k)) for k in regions}
    simulated = [region.truth is not None for region in found.values()]
    if any(simulated) and not all(simulated):
        raise DataError(f"{root}: some of the regions {regions} are simulated and others recorded; pool them not")
    train, test = (pool([getattr(region, part) for region in found.values()]) for part in ("train", "test"))
    info: dict[str, Any] = {"regions": regions, "protocol": protocol}
    tested = set(_keys(test.images))
    unseen = np.array([key not in tested for key in _keys(train.images)])
    shared = int((~unseen).sum())
    if shared:
        done = "train all the same (data.protocol=thesis)" if protocol == "thesis" else "are left out"
        said = f"{shared} of {len(train)} training images are among the repeated images, and {done}"
        info["warnings"] = [f"{root}: {said}"]
    if protocol == "thesis":
        parts = {"train": train, "val": test}
    else:
        info["dropped_images"] = shared
        train = train.take(np.flatnonzero(unseen))
        validates = draw_validation(train.images, val_fraction, split_seed)
        parts = {"train": train.take(~validates), "val": train.take(validates), "test": test}
        info |= {"val_rows": parts["val"].row.tolist(), "val_fraction": val_fraction, "split_seed": split_seed}
    images, info["input_scale"] = scale_images({name: part.images for name, part in parts.items()}, input_scale)
    factor, info["response_scale"] = response_factor(parts["train"].repeats, response_scale)
    splits = {name: _trials(part, images[name], factor) for name, part in parts.items()}
    return Recording(
        name="antolik_v1",
        bin_ms=0,
        kind="images",
        splits=splits,
        unit_ids=np.concatenate([1000 * k + np.arange(r.train.repeats.shape[2]) for k, r in found.items()]),
        simulated=all(simulated),
        sources=[source for region in found.values() for source in region.sources],
        info=info | _planted(found),
    )


def pool(parts: Sequence[ShownImages]) -> ShownImages:
    """Several regions' images and responses in one table, with identical images merged.

    An image that a region was shown more than once in different rows keeps that many rows.

    Args:
        parts: of each region, (B_k, R_k, N_k) responses.

    Returns:
        The images in the order of their first appearance, with responses (B, max R_k, sum of N_k), NaN where a region
        was not shown the image or not as often. ``row`` is that of the first region that was shown it.
    """
    if len(parts) == 1:
        return parts[0]
    numbered = [_numbered(_keys(part.images)) for part in parts]
    place = {key: k for k, key in enumerate(dict.fromkeys(key for keys in numbered for key in keys))}
    n_neurons = [part.repeats.shape[2] for part in parts]
    ends = np.cumsum(n_neurons)
    repeats = np.full((len(place), max(part.repeats.shape[1] for part in parts), ends[-1]), np.nan)
    rates = np.full((len(place), ends[-1]), np.nan)
    images, row = np.empty((len(place), parts[0].images.shape[1])), np.full(len(place), -1)
    for part, keys, end, n in zip(parts, numbered, ends, n_neurons, strict=True):
        rows = np.array([place[key] for key in keys])
        images[rows] = part.images
        row[rows] = np.where(row[rows] < 0, part.row, row[rows])
        repeats[rows, : part.repeats.shape[1], end - n : end] = part.repeats
        if part.rates is not None:
            rates[rows, end - n : end] = part.rates
    return ShownImages(images, repeats, row, None if parts[0].rates is None else rates)


def draw_validation(images: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images validate: a seeded draw of distinct images, so that none is on both sides.

    Args:
        images: (B, P).
        fraction: share of the distinct images.
        seed: of the draw.

    Returns:
        (B,) bool.

    Raises:
        DataError: there are too few images for both sides.
    """
    distinct, group = np.unique(first_identical(_grey_levels(images)), return_inverse=True)
    n_val = max(1, round(fraction * len(distinct)))
    if n_val >= len(distinct):
        raise DataError(
            f"{len(distinct)} training images are too few to train and to validate with data.val_fraction={fraction}"
        )
    chosen = np.random.default_rng(seed).permutation(len(distinct))[:n_val]
    return np.isin(group, chosen)


def scale_images(images: dict[str, np.ndarray], scale: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Rescale the images of each split.

    Args:
        images: (B, 961) by split, as in the files.
        scale: see :func:`load_antolik`.

    Returns:
        ``(images, info)``: (B, 1, 31, 31) float32 by split, and what was subtracted and divided by.

    Raises:
        DataError: all images of a split are the same grey, and are to be z-scored.
    """
    shift, unit = dict.fromkeys(images, 0.0), dict.fromkeys(images, GREY if scale == "raw255" else 1.0)
    for name, values in images.items() if scale.startswith("zscore") else ():
        source = values if scale == "zscore_each" else images["train"]
        shift[name], unit[name] = float(source.mean()), float(source.std())
        if not unit[name]:
            raise DataError(
                f"the {name} images are all the same grey and cannot be z-scored: set data.input_scale=none"
            )
    scaled = {
        name: ((values - shift[name]) / unit[name]).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
        for name, values in images.items()
    }
    return scaled, {"method": scale, "shift": shift, "unit": unit}


def _trials(part: ShownImages, images: np.ndarray, factor: np.ndarray) -> ImageTrials:
    repeats = part.repeats / factor
    return ImageTrials(
        images=images,
        responses=mean_over_repeats(repeats),
        repeats=repeats if repeats.shape[1] > 1 else None,
        rates=None if part.rates is None else (part.rates / factor).astype(np.float32),
        row=part.row.astype(np.int64),
    )


def _planted(regions: dict[int, Region]) -> dict[str, Any]:
    truths = [region.truth for region in regions.values() if region.truth is not None and "dog" in region.truth]
    return {"dog": np.concatenate([truth["dog"] for truth in truths]).tolist()} if truths else {}


def _grey_levels(images: np.ndarray) -> np.ndarray:
    """Grey levels 0 to 255, by which images are compared."""
    return np.round(images / GREY).astype(np.uint8)


def _keys(images: np.ndarray) -> list[bytes]:
    """What identical images have in common."""
    return [image.tobytes() for image in _grey_levels(images)]


def _numbered(keys: list[bytes]) -> list[tuple[bytes, int]]:
    """Each key with how often it came before."""
    seen: Counter[bytes] = Counter()
    numbered = []
    for key in keys:
        numbered.append((key, seen[key]))
        seen[key] += 1
    return numbered


def check_options(
    regions: Sequence[int], input_scale: str, response_scale: str, val_fraction: float, split_seed: int, protocol: str
) -> list[int]:
    """The regions as a list; the arguments are those of :func:`load_antolik`.

    Raises:
        ConfigError: one cannot be.
    """
    regions = list(regions)
    known = all(isinstance(k, int) and not isinstance(k, bool) and k in (1, 2, 3) for k in regions)
    if not regions or not known or len(set(regions)) < len(regions):
        raise ConfigError(f"data.region must be 1, 2 or 3, or a list of different ones like [1,2], not {regions}")
    check_choice("input_scale", input_scale, INPUT_SCALES)
    check_choice("response_scale", response_scale, RESPONSE_SCALES)
    check_choice("protocol", protocol, PROTOCOLS)
    check_share("val_fraction", val_fraction)
    check_whole("split_seed", split_seed)
    return regions
