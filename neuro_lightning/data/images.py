"""Images and the responses to them, as numpy arrays and as tensors of which a batch is one index look-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuro_lightning.contracts import full_mask
from neuro_lightning.data.split_arrays import SplitArrays

RESPONSE_SCALES = ("none", "std")
EPSILON = 1e-6
"""Added to standard deviations, as Stringer et al. do."""


@dataclass
class ImageTrials(SplitArrays):
    """The images of one split. The first axis of every array is the image.

    Attributes:
        images: (B, C, H, W) float32.
        responses: (B, N) float, the mean over an image's repeats; NaN where a neuron was not shown the image.
        repeats: (B, R, N) float, the single responses, NaN where there was none; None without repeats.
        rates: (B, N) float32, the true mean responses; simulated data only.
        angle: (B,) float, the stimulus's direction in radians; None for other stimuli.
        pupil: (B, 2) float, see :class:`neuro_lightning.contracts.Batch`; None where it was not recorded.
        row: (B,) int64, the image's row in the source file, or None.
    """

    images: np.ndarray
    responses: np.ndarray
    repeats: np.ndarray | None = None
    rates: np.ndarray | None = None
    angle: np.ndarray | None = None
    pupil: np.ndarray | None = None
    row: np.ndarray | None = None


def standardizer(train: np.ndarray, *, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (+1e-6) of each neuron over training responses (..., N), NaN ignored, float32."""
    flat = train.reshape(-1, train.shape[-1])
    mean, std = np.empty(flat.shape[1], np.float32), np.empty(flat.shape[1], np.float32)
    for start in range(0, flat.shape[1], block):  # in blocks, for double precision at little memory
        columns = slice(start, start + block)
        values = flat[:, columns].astype(np.float64)
        seen = np.isfinite(values)
        count = np.maximum(seen.sum(0), 1)
        center = np.where(seen, values, 0).sum(0) / count
        variance = np.where(seen, (values - center) ** 2, 0).sum(0) / count
        mean[columns], std[columns] = center, np.sqrt(variance) + EPSILON
    return mean, std


def response_factor(train: np.ndarray, scale: str) -> tuple[np.ndarray, dict[str, Any]]:
    """What each neuron's responses are divided by.

    A standard deviation below a hundredth of the mean one is replaced by that, as in neuralpredictors: an almost silent
    neuron must not be blown up.

    Args:
        train: (..., N) the responses that train, NaN where there was none.
        scale: ``none`` or ``std``.

    Returns:
        ``(factor, info)``: (N,), and the same as plain values.
    """
    factor = np.ones(train.shape[-1])
    if scale == "std":
        known = np.isfinite(train).reshape(-1, len(factor)).any(0)
        factor[known] = np.nanstd(train[..., known], axis=tuple(range(train.ndim - 1)), dtype=np.float64)
        floor = 0.01 * factor[known].mean() if known.any() else 0.0
        factor = np.maximum(factor, floor) if floor else np.ones_like(factor)
    return factor, {"method": scale, "unit": factor.tolist()}


def mean_over_repeats(repeats: np.ndarray) -> np.ndarray:
    """(B, N) float64 means over the observed of (B, R, N) repeats, NaN where none was."""
    seen = np.isfinite(repeats)
    count = seen.sum(1)
    total = np.where(seen, repeats, 0).sum(1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class ImageDataset(Dataset):
    """Serves whole batches: ``dataset[[3, 1, 2]]`` is a :class:`neuro_lightning.contracts.Batch` of three images.

    Args:
        trials: the split's arrays.
    """

    def __init__(self, trials: ImageTrials) -> None:
        self.images = _float32(trials.images)
        responses = _float32(trials.responses)
        mask = ~responses.isnan()
        self.mask = None if mask.all() else mask
        self.responses = responses.nan_to_num()  # a masked zero is harmless where a masked NaN is a trap
        self.extras = {
            k: _float32(v) for k, v in trials.arrays().items() if k in ("repeats", "rates", "angle", "pupil")
        }

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: list[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(index)
        extras = {name: values[chosen] for name, values in self.extras.items()}
        return {
            "inputs": self.images[chosen],
            "targets": self.responses[chosen],
            "mask": full_mask((len(chosen), self.responses.shape[1])) if self.mask is None else self.mask[chosen],
            "index": chosen,
            **extras,
        }


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
