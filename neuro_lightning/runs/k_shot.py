"""k-shot co-bps of a trained network, beside its other scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import evaluation_mode, run_network
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.k_shot import k_shot_bits
from neuro_lightning.metrics.trial_sums import scored_part


def check_k_shot(numbers: Sequence[int], net: nn.Module, data: PopulationDataModule) -> None:
    """Refuse numbers of trials that cannot be scored, before the training.

    Raises:
        ConfigError: a number that is none, no held-out neurons, or a network without latents.
    """
    wrong = [k for k in numbers if type(k) is not int or k < 1]
    if wrong:
        raise ConfigError(f"k_shot={list(numbers)}: give numbers of training trials, such as [64,128]")
    if not numbers:
        return
    spec = data.spec
    if spec.kind != "spikes" or not spec.n_out:
        raise ConfigError(f"k_shot is about held-out neurons, and {spec.dataset} has none; leave it out")
    if (most := max(numbers)) > (n_trials := data.count_trials("train")):
        raise ConfigError(f"k_shot={most}: {spec.dataset} has {n_trials} training trials")
    with torch.random.fork_rng(), evaluation_mode(net):  # a loader's iterator draws a seed; the training comes after
        output = run_network(net, next(iter(data.eval_dataloader("val"))))
    if "latents" not in output:
        raise ConfigError("k_shot reads held-out neurons from latents, and this model has none; leave it out")


def k_shot_scores(
    numbers: Sequence[int], net: nn.Module, data: PopulationDataModule, device: torch.device
) -> dict[str, dict[str, float]]:
    """Mean over draws of ``k64_co_bps`` and so on, by evaluated split; nothing without numbers.

    Args:
        numbers: of training trials.
        net: trained.
        data: with latents for all of its splits.
        device: where the network runs.
    """
    if not numbers:
        return {}
    net = net.to(device).eval()
    train = _latents_and_counts(net, data, "train", device)
    return {
        split: {f"k{k}_co_bps": float(k_shot_bits(train, evaluated, k).mean()) for k in numbers}
        for split in data.references()
        for evaluated in [_latents_and_counts(net, data, split, device)]
    }


def _latents_and_counts(
    net: nn.Module, data: PopulationDataModule, split: str, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, T, D), counts and mask (B, T, N_out) of the observed bins of a split, on the CPU."""
    scored, parts = scored_part(data.spec), []
    for batch in data.eval_dataloader(split, evaluate=split != "train"):
        latents = run_network(net, batch, device)["latents"][:, : data.spec.n_bins]
        parts.append((latents, batch["targets"][scored], batch["mask"][scored]))
    latents, counts, mask = (torch.cat(found) for found in zip(*parts, strict=True))
    return latents, counts, mask
