"""Read responses of mouse V1 to gratings: Neuromatch's dictionary and the authors' files of single sessions.

Both are dictionaries saved with ``np.save``: ``sresp`` (N, T) one response of each neuron to each grating, ``istim``
(T,) its direction in radians, ``mean_spont``, ``std_spont`` (N,) and ``u_spont`` (N, K) of spontaneous activity.

Source: Stringer et al. 2021 (Cell 184:2767); https://osf.io/ny4ut (Neuromatch Academy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.data.checks.bounds import check_arrays
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.formats.safe_pickle import load_dict
from neuro_lightning.data.images import ImageTrials
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
from neuro_lightning.functional.orientation import render_gratings

NAME = "stringer_orientations"
REQUIRED = ("sresp", "istim", "mean_spont", "std_spont")
TEST_EVERY = 4
"""Every fourth trial tests, from the first on: the authors' protocol."""


def load_orientations(
    path: str | Path,
    *,
    remove_components: int = 0,
    standardize: bool = True,
    neurons: int | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    size: Sequence[int] = (32, 32),
    degrees_per_pixel: float = 2.0,
    cycles_per_degree: float = 0.05,
    phase: float = 0.0,
    period: float = 180.0,
    truth: str | Path | None = None,
) -> Recording:
    """Responses to gratings as images and targets.

    Targets are ``z = (sresp - mean_spont) / std_spont``, less the first spontaneous components, then z-scored over
    the training trials (the authors do this last step over all trials).

    Args:
        path: the file.
        remove_components: spontaneous principal components taken out; the authors' default is none.
        standardize: z-score by the training trials.
        neurons: how many to draw, at most; None takes all.
        val_fraction: share of the trials that do not test to validate with.
        seed: draws the validation trials and the neurons.
        size: ``(H, W)`` of the images in pixels.
        degrees_per_pixel: of the visual field.
        cycles_per_degree: spatial frequency of the gratings.
        phase: of the gratings in degrees.
        period: 180 takes directions as orientations, 360 as they are.
        truth: the twin's file of true rates.

    Returns:
        A recording of images with the splits ``train``, ``val`` and ``test``.

    Raises:
        DataError: the file is missing or damaged, or its arrays are not what they should be.
        ConfigError: a setting cannot be.
    """
    _check_stimulus(size, degrees_per_pixel, cycles_per_degree, phase, period)
    path = Path(path).expanduser()
    arrays = _read(path, remove_components)
    istim = arrays["istim"]
    ongoing = _spontaneous(path, arrays, remove_components)
    chosen = choose_neurons(ongoing.active, neurons, seed)
    responses = subtract_spontaneous(path, arrays["sresp"], ongoing, chosen)
    rates = None
    if truth is not None:
        rates = subtract_spontaneous(truth, true_rates(truth, arrays["sresp"].shape), ongoing, chosen)
    index = split_trials(len(istim), val_fraction, seed)
    if standardize:
        responses, rates = standardize_responses(responses, index["train"], rates)
    images = render_gratings(
        torch.from_numpy(np.rad2deg(istim)),
        tuple(size),
        degrees_per_pixel=degrees_per_pixel,
        cycles_per_degree=cycles_per_degree,
        phase=phase,
        period=period,
    ).numpy()
    trials = ImageTrials(images, responses, rates=rates, angle=istim, row=np.arange(len(istim)))
    return Recording(
        name=NAME,
        bin_ms=0,
        splits={split: trials.take(rows) for split, rows in index.items()},
        unit_ids=chosen,
        kind="images",
        simulated=truth is not None,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={
            "period": period,
            "n_recorded": len(ongoing.mean),
            "n_silent": len(ongoing.mean) - len(ongoing.active),
            "remove_components": remove_components,
            "seed": seed,
        },
    )


def split_trials(n_trials: int, val_fraction: float, seed: int) -> dict[str, np.ndarray]:
    """Every fourth trial tests, from the first on; of the others a seeded share validates.

    Raises:
        ConfigError: ``val_fraction`` leaves nothing to train on.
    """
    test = np.arange(n_trials) % TEST_EVERY == 0
    others = np.flatnonzero(~test)
    parts = draw_splits(len(others), {"val": val_fraction}, seed)
    return {split: others[rows] for split, rows in parts.items()} | {"test": np.flatnonzero(test)}


def _read(path: Path, remove_components: int) -> dict[str, np.ndarray]:
    """The arrays that are needed, checked; angles between 0 and 2 pi."""
    arrays = load_dict(path, REQUIRED, ("u_spont",) if remove_components else ())
    for key in ("istim", "mean_spont", "std_spont"):
        arrays[key] = arrays[key].reshape(-1)
    if arrays["sresp"].ndim == 2:  # sessions may be longer than their list of gratings
        arrays["sresp"] = arrays["sresp"][:, : len(arrays["istim"])]
    shapes = {"istim": "T", "sresp": "NT", "mean_spont": "N", "std_spont": "N", "u_spont": "NK"}
    check_arrays(f"{path}: ", arrays, shapes)
    istim = arrays["istim"].astype(np.float64)
    low, high = istim.min(), istim.max()
    if low < 0 or high > 2 * math.pi + 1e-6:
        hint = ": these seem to be degrees, divide them by 180 / pi" if low >= 0 and high <= 360 else ""
        raise DataError(
            f"{path}: istim must be directions in radians, from 0 to 2 pi, but goes from {low:.4g} to {high:.4g}{hint}"
        )
    if len(istim) < 2 * TEST_EVERY:
        raise DataError(f"{path} has {len(istim)} trials, too few to train, validate and test with")
    return arrays | {"istim": istim}


def _spontaneous(path: Path, arrays: dict[str, np.ndarray], remove: int) -> SpontaneousActivity:
    """Spontaneous activity of all neurons."""
    mean, std = (arrays[key].astype(np.float64) for key in ("mean_spont", "std_spont"))
    if (std < 0).any():
        raise DataError(f"{path}: std_spont holds negative values; fetch the file again")
    found = spontaneous_activity(path, mean, std, "std_spont")
    if not remove:
        return found
    if "u_spont" not in arrays:
        raise DataError(f"{path} has no u_spont to take components from: set data.remove_components=0")
    columns = arrays["u_spont"].shape[1]
    check_whole("remove_components", remove, 0, columns, f" (the columns of u_spont in {path})")
    # orthonormal columns stay as they are, up to sign
    return replace(found, components=np.linalg.qr(arrays["u_spont"][:, :remove].astype(np.float64))[0])


def _check_stimulus(size: Sequence[int], pixel: float, frequency: float, phase: float, period: float) -> None:
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ConfigError(f"data.size must be two whole numbers of pixels, [height, width], not {list(size)}")
    if not pixel > 0 or not frequency > 0:
        raise ConfigError("data.degrees_per_pixel and data.cycles_per_degree must be above 0")
    if pixel * frequency > 0.5:
        raise ConfigError(
            f"data.cycles_per_degree={frequency} at data.degrees_per_pixel={pixel} is more than half a cycle a pixel: "
            "it cannot be drawn; lower either"
        )
    if period not in (180, 360):
        raise ConfigError(f"data.period must be 180 (orientations) or 360 (directions), not {period}")
    if period == 360 and phase % 180 == 0:
        raise ConfigError(
            f"data.period=360 with data.phase={phase} draws opposite directions as the same image: set data.phase=90"
        )
