"""The trials that a run's figures show, with what the network says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, evaluation_mode
from neuro_lightning.data.recording import padding
from neuro_lightning.models.inference import predict_batches

SHOWN_KEYS = (
    "targets", "mask", "observed", "index", "condition", "jitter", "rates", "repeats", "angle", "behavior",
    "decode_fold",
)  # fmt: skip


def shown_split(data: Any) -> str:
    """Validation trials are shown; of images the repeated ones of the test split, whose noise is known."""
    splits = getattr(getattr(data, "recording", None), "splits", {})
    return "test" if getattr(splits.get("test"), "repeats", None) is not None else "val"


def predict_trials(data: Any, model: Any, n: int, split: str = "val") -> dict[str, Tensor]:
    """The first trials of a split with the network's output for them, on the CPU.

    Args:
        data: the data module.
        model: with ``net`` and ``device``.
        n: trials at most.
        split: which.

    Returns:
        The tensors of ``SHOWN_KEYS`` in the batches; ``row``, the trials' rows in the file, where known; ``predicted``,
        the expected targets, whichever link the net has; ``latents`` (B, L, D) where it has some; and what its heads
        decode of bins as ``heads/NAME`` (B, T, K). ``rates`` are the true ones, where known.
    """
    batches: list[Batch] = []
    with torch.random.fork_rng(), evaluation_mode(model.net):  # a loader's iterator draws a seed
        for batch in data.eval_dataloader(split):
            batches.append(batch)
            if sum(len(batch["targets"]) for batch in batches) >= n:
                break
        n_trials = sum(len(batch["targets"]) for batch in batches)
        heads = getattr(model.net, "heads", None) or ()
        names = [f"heads/{head.name}" for head in heads if head.settings.kind == "linear"]
        found = predict_batches(model.net, batches, n_trials, model.device, ("rates", "latents", *names))
    trials = {
        name: torch.cat([batch[name] for batch in batches]) for name in SHOWN_KEYS if batches and name in batches[0]
    }
    if batches and "observed" in batches[0] and not model.spec.n_forward:
        after = padding(trials["mask"].numpy())[..., None]
        found = {name: np.where(after, np.float32(np.nan), part) for name, part in found.items()}
    trials |= {"predicted" if name == "rates" else name: torch.from_numpy(part).float() for name, part in found.items()}
    trials = {name: values[:n] for name, values in trials.items()}
    row = getattr(getattr(getattr(data, "recording", None), "splits", {}).get(split), "row", None)
    return trials | ({} if row is None or not trials else {"row": torch.as_tensor(row)[trials["index"]]})


def targets_or_nan(trials: Mapping[str, Tensor]) -> np.ndarray:
    """Targets as float, NaN where nothing was observed."""
    return trials["targets"].float().masked_fill(~trials["mask"], torch.nan).numpy()


def as_numpy(values: Tensor | None) -> np.ndarray | None:
    """The array of a tensor; None of none."""
    return None if values is None else values.numpy()
