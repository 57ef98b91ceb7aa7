"""The mean of several models' rates, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.checkpoint import Saved, load_checkpoint
from neuro_lightning.contracts import DataSpec, rates_of, respond
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import CheckpointError


def check_same_data(saved: Saved, spec: DataSpec, what: str) -> None:
    """A model may only speak of the neurons and bins that it was trained on.

    Args:
        saved: the trained model.
        spec: the data it is to predict.
        what: where ``spec`` comes from, for the message.

    Raises:
        CheckpointError: naming what differs.
    """
    own = saved.spec
    for name in ("kind", "bin_ms", "n_bins", "n_forward", "n_in", "n_out", "image_shape"):
        if getattr(own, name) != getattr(spec, name):
            raise CheckpointError(
                f"{saved.path} was trained on {own.dataset} with {name}={getattr(own, name)}, but {what} has "
                f"{name}={getattr(spec, name)} ({spec.dataset}): predict the data it was trained on"
            )
    if own.unit_ids != spec.unit_ids:
        raise CheckpointError(
            f"{saved.path} was trained on other neurons of {own.dataset} than {what} has (their unit ids differ): "
            "check the file, data.seed and data.heldout_fraction"
        )


@torch.no_grad()
def predict_rates(
    model: torch.nn.Module, data: PopulationDataModule, split: str, device: torch.device | str
) -> np.ndarray:
    """Expected values of a split's targets, (B, L, N) or (B, N) float32 in the order of the trial table."""
    model = model.to(device).eval()
    parts = [
        rates_of(respond(model, batch, batch["inputs"].to(device).float())).cpu().numpy()
        for batch in data.eval_dataloader(split)
    ]
    return np.concatenate(parts)


def mean_rates(
    checkpoints: Sequence[Path],
    data: PopulationDataModule,
    splits: Iterable[str],
    device: torch.device | str,
    *,
    trusted: Sequence[str] = (),
    progress: Callable[[Path], None] = lambda path: None,
) -> dict[str, np.ndarray]:
    """Rates averaged over models, in rate space as the benchmark's winners did.

    Args:
        checkpoints: trained on the same data.
        data: what to predict.
        splits: which of its splits.
        device: where the networks run.
        trusted: packages of your own that the checkpoints may build from.
        progress: called with each checkpoint before it is used.

    Returns:
        (B, L, N) or (B, N) float64 for each split.

    Raises:
        CheckpointError: a checkpoint of other data.
    """
    total: dict[str, np.ndarray] = {}
    for path in checkpoints:
        progress(path)
        saved = load_checkpoint(path, trusted=trusted)
        check_same_data(saved, data.spec, "the first checkpoint's data")
        for split in splits:
            rates = predict_rates(saved.model.net, data, split, device)
            total[split] = rates + total[split] if split in total else rates.astype(np.float64)
    return {split: rates / len(checkpoints) for split, rates in total.items()}


@torch.no_grad()
def predict_latents(
    model: torch.nn.Module, data: PopulationDataModule, split: str, device: torch.device | str
) -> np.ndarray | None:
    """The latents of every trial of a split, (B, L, D) float32 in the order of the trial table; None without any."""
    model = model.to(device).eval()
    parts = [
        respond(model, batch, batch["inputs"].to(device).float()).get("latents")
        for batch in data.eval_dataloader(split)
    ]
    return None if parts[0] is None else torch.cat([part.cpu() for part in parts]).numpy()
