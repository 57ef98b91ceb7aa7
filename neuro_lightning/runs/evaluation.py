"""Scores of anything that predicts rates: a trained model, a baseline, the true rates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torchmetrics import Metric

from neuro_lightning.contracts import Batch, Output, run_network
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.nn.heads import Heads

Predictor = Callable[[Batch, str], Output]  # a batch and the split it is from


@torch.no_grad()
def evaluate(
    predict: Predictor,
    data: PopulationDataModule,
    split: str,
    watch: Callable[[Output, Batch], None] | None = None,
    heads: Heads | None = None,
) -> dict[str, float]:
    """The metrics of a predictor on one labelled split, computed in this process alone.

    Args:
        predict: a batch and its split -> rates or log-rates, like the targets, on the CPU.
        data: where the trials come from.
        split: ``val`` or ``test``.
        watch: called with what was predicted of each batch.
        heads: of the predictor, which are scored too; None without.

    Returns:
        Scores by name, without the split's prefix.
    """
    metrics = build_metrics(data.spec, heads=heads, **data.references()[split])
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.distributed_available_fn = _alone
    for batch in data.eval_dataloader(split):
        output = predict(batch, split)
        metrics.update(output, batch)
        if watch is not None:
            watch(output, batch)
    if metrics.needs_train:
        for batch in data.eval_dataloader("train", evaluate=False):
            metrics.update_train(predict(batch, "train"), batch)
    return metrics.compute()


def _alone() -> bool:
    """Metrics ask this before they wait for the job's other processes, which have gone home."""
    return False


def network_predictor(net: torch.nn.Module, device: torch.device | str = "cpu") -> Predictor:
    """Rates of a network, in evaluation mode, on a device; the results come back to the CPU."""
    net = net.to(device).eval()
    return lambda batch, split: run_network(net, batch, device)


def true_rates(batch: Batch, split: str) -> Output:
    """The oracle: the rates that drew the targets. Simulated data only."""
    return {"rates": batch["rates"]}
