"""Draws a run's figures from validation trials, into ``figures/`` in its folder and into its loggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from neuro_lightning.functional.likelihood import bits_per_spike_from_sums, spike_sums
from neuro_lightning.functional.psth import condition_sums
from neuro_lightning.loggers import METRICS_FILE, log_figure, read_metrics
from neuro_lightning.report.table import LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT = ("targets", "mask", "index", "condition", "jitter", "rates")


class Figures(pl.Callback):
    """At the end of training: spikes and rates, learning curve, latents, PSTHs, each neuron's score.

    They show the best checkpoint, the one that is scored and saved. A figure that fails is a warning, never the end
    of a run. Drawing neither changes the network nor draws random numbers from training's generators.

    Args:
        n_trials: trials shown as rasters.
        max_trials: validation trials that latents, PSTHs and scores are taken from.
        every_n_validations: draw during training as well, with the weights of the moment; 0 for the end only.
        monitor: the metric of the learning curve.
    """

    def __init__(
        self,
        n_trials: int = 3,
        max_trials: int = 256,
        every_n_validations: int = 0,
        monitor: str = "val/co_bps",
    ) -> None:
        self.n_trials, self.max_trials, self.every, self.monitor = n_trials, max_trials, every_n_validations, monitor
        self._validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw every so many validations of a training."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self.every and self._validations % self.every == 0:
            self.draw(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the best checkpoint."""
        with best_weights(trainer, pl_module):
            self.draw(trainer, pl_module)

    @rank_zero_only
    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, references: Mapping[str, float] | None = None
    ) -> None:
        """Draw, save and log every figure that these data and this network allow.

        Args:
            trainer: with the data module, the loggers and the run's folder.
            pl_module: with ``net`` and ``spec``.
            references: scores for the learning curve to compare with, by name.
        """
        self.draw_learning_curve(trainer, pl_module, references)
        spec = pl_module.spec
        if spec.kind != "spikes":
            return
        trials = predict_trials(trainer, pl_module, self.max_trials)
        bits = "co-smoothing (bits/spike)" if spec.n_out else "bits per spike"
        psth = getattr(getattr(trainer.datamodule, "recording", None), "psth", None)
        drawings: dict[str, Callable[[Any], Figure]] = {
            "rates": lambda report: _rates(report, trials, spec, self.n_trials),
            "neurons": lambda report: report.neuron_bits_figure(
                neuron_bits(trials, spec), label=bits, simulated=spec.simulated
            ),
        }
        if "latents" in trials:
            drawings["latents"] = lambda report: report.latents_figure(
                trials["latents"].numpy(), bin_ms=spec.bin_ms, condition=_numpy(trials.get("condition")),
                simulated=spec.simulated,
            )  # fmt: skip
        if psth is not None and "condition" in trials:
            drawings["psth"] = lambda report: report.psth_figure(
                predicted_psth(trials, spec, len(psth)), np.asarray(psth), bin_ms=spec.bin_ms,
                simulated=spec.simulated,
            )  # fmt: skip
        for name, drawing in drawings.items():
            self._save(name, drawing, trainer)

    @rank_zero_only
    def draw_learning_curve(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, references: Mapping[str, float] | None = None
    ) -> None:
        """Draw ``metrics.csv``, if the run writes one; ``references`` as in :meth:`draw`."""
        path, spec = Path(trainer.default_root_dir) / METRICS_FILE, pl_module.spec
        if not path.is_file():
            return
        metrics = read_metrics(path)
        name = self.monitor.split("/", 1)[1]
        label = {"co_bps": "co-smoothing (bits/spike)", "bps": "bits per spike"}.get(name, LABELS.get(name, name))
        oracle = metrics.get(f"val/oracle_{name}", np.zeros(0))
        known = {"true rates": float(oracle[np.isfinite(oracle)][-1])} if np.isfinite(oracle).any() else {}
        self._save(
            "learning_curve",
            lambda report: report.learning_curve(
                metrics, metric=self.monitor, label=label, references={**known, **(references or {})},
                simulated=spec.simulated,
            ),
            trainer,
        )  # fmt: skip

    def _save(self, name: str, drawing: Callable[[Any], Figure], trainer: pl.Trainer) -> None:
        from neuro_lightning.report import figures as report

        path = Path(trainer.default_root_dir) / "figures" / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            drawing(report).savefig(path)
            log_figure(trainer.loggers, f"figures/{name}", path, trainer.global_step)
        except Exception as error:
            rank_zero_warn(f"the figure {name} was not drawn: {type(error).__name__}: {error}")


@contextmanager
def best_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """The network with the weights of the best checkpoint, where there is one; afterwards with its own again."""
    callback = trainer.checkpoint_callback
    path = Path(getattr(callback, "best_model_path", "") or "none")
    if not path.is_file():
        yield
        return
    own = {name: value.clone() for name, value in pl_module.net.state_dict().items()}
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    pl_module.net.load_state_dict({k.removeprefix("net."): v for k, v in saved.items() if k.startswith("net.")})
    try:
        yield
    finally:
        pl_module.net.load_state_dict(own)


@torch.no_grad()
def predict_trials(trainer: pl.Trainer, pl_module: pl.LightningModule, n: int) -> dict[str, Tensor]:
    """The first validation trials with the network's ``log_rates`` and ``latents`` for them, on the CPU.

    Returns:
        What the batches hold of ``targets``, ``mask``, ``index``, ``condition``, ``jitter`` and true ``rates``, and
        ``log_rates`` (B, L, N), and ``latents`` (B, L, D) where the network has some.
    """
    training = {module: module.training for module in pl_module.net.modules()}
    pl_module.net.eval()
    parts: list[dict[str, Tensor]] = []
    with torch.random.fork_rng():  # a loader's iterator draws a seed
        loaders = trainer.datamodule.val_dataloader()
        for batch in loaders[0] if isinstance(loaders, list | tuple) else loaders:
            output = pl_module.net(batch["inputs"].to(pl_module.device).float())
            part = {name: batch[name] for name in KEPT if name in batch}
            part |= {name: output[name].float() for name in ("log_rates", "latents") if name in output}
            parts.append({name: value.cpu() for name, value in part.items()})
            if sum(len(part["targets"]) for part in parts) >= n:
                break
    for module, was in training.items():
        module.training = was
    return {name: torch.cat([part[name] for part in parts])[:n] for name in parts[0]} if parts else {}


def neuron_bits(trials: dict[str, Tensor], spec: Any) -> np.ndarray:
    """(N_out,) bits per spike of each held-out neuron in the observed bins; of all neurons where none is held out."""
    part = (slice(None), slice(0, spec.n_bins), slice(spec.n_in if spec.n_out else 0, None))
    sums = spike_sums(trials["log_rates"][part].exp(), trials["targets"][part], trials["mask"][part])
    return bits_per_spike_from_sums(sums, per_neuron=True).numpy()


def predicted_psth(trials: dict[str, Tensor], spec: Any, n_conditions: int) -> np.ndarray:
    """(C, T, N) mean predicted rates in spikes per bin; NaN for a condition without trials."""
    rates = trials["log_rates"][:, : spec.n_bins].exp()
    sums, count = condition_sums(rates, trials["condition"], n_conditions, trials.get("jitter"))
    return (sums / torch.where(count > 0, count, torch.nan)[:, None, None]).numpy()


def _rates(report: Any, trials: dict[str, Tensor], spec: Any, n: int) -> Figure:
    """Rasters of the held-out neurons (all neurons, where none is held out) in trials from all over the split."""
    total = len(trials["targets"])
    chosen = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(int))
    part = (torch.from_numpy(chosen), slice(None), slice(spec.n_in if spec.n_out else 0, None))
    observed = trials["targets"][part].float().masked_fill(~trials["mask"][part], torch.nan)
    return report.rates_figure(
        observed.numpy(),
        trials["log_rates"][part].exp().numpy(),
        bin_ms=spec.bin_ms,
        n_bins=spec.n_bins,
        true_rates=trials["rates"][part].numpy() if "rates" in trials else None,
        trials=trials["index"][part[0]].numpy(),
        neurons="held-out neurons" if spec.n_out else "neurons",
        simulated=spec.simulated,
    )


def _numpy(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else values.numpy()
