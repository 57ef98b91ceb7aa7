"""The one LightningModule that all architectures share: steps, optimizer and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.losses import poisson
from neuro_lightning.metrics.collection import MetricSet, build_metrics

CHECKPOINT_KEY = "neuro_lightning"


class PopulationModule(pl.LightningModule):
    """Trains a network on masked Poisson likelihood and scores it with the benchmark's metrics.

    An architecture is a subclass that builds its network; it overrides only what is special about it.

    Args:
        net: (B, T, N_in) float counts -> :class:`Output`.
        spec: what to know of the data.
        masking: (B, T, N_in) inputs -> (masked inputs, bool mask of the elements to score); None shows and scores all.
        optimizer: called with the parameters; None for models that are fitted in closed form.
        scheduler: called with the optimizer and the number of steps, see ``neuro_lightning.optim``.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        *,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        super().__init__()
        self.net, self.spec, self.masking = net, spec, masking
        self._optimizer, self._scheduler = optimizer, scheduler
        self.metrics = nn.ModuleDict()
        self.recipe: dict[str, Any] = {}

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts of any dtype -> the network's output."""
        return self.net(inputs.float())

    # ---- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Poisson loss per scored element, plus the network's own terms."""
        inputs, mask = batch["inputs"].float(), batch["mask"]
        if self.masking is not None:
            inputs, scored = self.masking(inputs)
            mask = mask.clone()
            mask[:, : self.spec.n_bins, : self.spec.n_in] &= scored
        output = self.net(inputs)
        total, count = poisson(output["log_rates"], batch["targets"], mask)
        loss = total / self._mean_over_processes(count).clamp_min(1)
        terms = output.get("losses", {})
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach(), on_step=False, on_epoch=True, batch_size=len(inputs))
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(inputs))
        return loss + sum(terms.values())

    def _mean_over_processes(self, count: Tensor) -> Tensor:
        """The mean count of scored elements: it makes the mean of the processes' gradients that of one process."""
        count = count.detach().to(torch.float64 if self.device.type != "mps" else torch.float32)
        if self._trainer is not None and self.trainer.world_size > 1:
            torch.distributed.all_reduce(count)
            count = count / self.trainer.world_size
        return count.float()

    def configure_optimizers(self) -> Any:
        """The optimizer and, if there is one, its schedule over all steps of the run."""
        if self._optimizer is None:
            return None
        optimizer = self._optimizer(self.parameters())
        if self._scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                "a schedule needs trainer.max_epochs or trainer.max_steps; with neither, "
                "choose scheduler@model.scheduler=none"
            )
        return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer, int(steps))}

    # ---- evaluation

    @property
    def metric_names(self) -> list[str]:
        """The names of what validation logs, such as ``val/co_bps``."""
        return ["val/loss", *(f"val/{name}" for name in _probe(self.spec).names)]

    def setup(self, stage: str) -> None:
        """Build the metrics of each labelled split from the data module's references."""
        for split, references in self.trainer.datamodule.references().items():
            if split not in self.metrics:
                metrics = nn.ModuleDict({"scores": build_metrics(self.spec, **references), "loss": MeanMetric()})
                self.metrics[split] = metrics.to(self.device)

    def _evaluate(self, batch: Batch, split: str, dataloader_idx: int) -> None:
        output, metrics = self(batch["inputs"]), self.metrics[split]
        if dataloader_idx > 0:  # the training trials, from which velocity is decoded
            metrics["scores"].update_train(output, batch)
            return
        metrics["scores"].update(output, batch)
        total, count = poisson(output["log_rates"], batch["targets"], batch["mask"])
        if count > 0:
            metrics["loss"].update(total / count, count)

    def _log_scores(self, split: str) -> None:
        metrics = self.metrics[split]
        scores = {"loss": float(metrics["loss"].compute()), **metrics["scores"].compute()}
        for name, value in scores.items():
            value = torch.tensor(value, dtype=torch.float64, device=self._log_device)
            self.log(f"{split}/{name}", value.float(), prog_bar=name == "co_bps", rank_zero_only=False)
        metrics["scores"].reset()
        metrics["loss"].reset()

    @property
    def _log_device(self) -> torch.device:
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the validation metrics; loader 1 holds the training trials."""
        self._evaluate(batch, "val", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the test metrics; loader 1 holds the training trials."""
        self._evaluate(batch, "test", dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_scores("test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Rates in spikes per bin (B, L, N), with the trials' numbers."""
        output = self(batch["inputs"])
        return {
            "index": batch["index"],
            "rates": output["log_rates"].exp(),
            **({"latents": output["latents"]} if "latents" in output else {}),
        }

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model with no data at hand: plain values only."""
        checkpoint[CHECKPOINT_KEY] = {"spec": self.spec.to_dict(), **self.recipe}


def _probe(spec: DataSpec) -> MetricSet:
    psth = torch.zeros(spec.n_conditions, spec.n_bins, spec.n_neurons) if spec.n_conditions else None
    return build_metrics(spec, n_eval=1, psth=psth)
