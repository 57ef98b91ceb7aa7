"""Draws a run's figures from validation trials, into ``figures/`` in its folder and into its loggers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from neuro_lightning.artifacts.lines import announce
from neuro_lightning.artifacts.metrics_csv import METRICS_FILE, read_metrics
from neuro_lightning.artifacts.old_names import update_weights
from neuro_lightning.artifacts.output import warn
from neuro_lightning.callbacks.drawings import AT_THE_END, drawings, joint_drawings
from neuro_lightning.callbacks.shown_trials import predict_trials, shown_split
from neuro_lightning.display.figures import learning_curve
from neuro_lightning.display.table import MOST_SESSIONS, NAMES
from neuro_lightning.loggers.building import log_figure
from neuro_lightning.metrics.catalog import axis_label
from neuro_lightning.ranks import main_process_only

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Figures(pl.Callback):
    """At the end of training: the learning curve, and what fits the data.

    Of spikes: rasters and rates, latents, PSTHs, each neuron's score, calibration, single trials, forward prediction,
    decoded behavior. Of traces: a reconstruction, latents, each neuron's R2, dimensions. Of images: receptive fields,
    first-stage filters, responses against predictions, tuning curves. The gallery in the documentation shows them all.

    Of several sessions each has a folder of its own, up to ``MOST_SESSIONS`` of them by their names; the learning curve
    is that of their mean, and ``latents_together`` shows the latents of all in one space.

    They show the best checkpoint, the one that is scored and saved. A figure that fails is a warning, never the end
    of a run. Drawing neither changes the network nor draws random numbers from training's generators.

    Args:
        n_trials: trials shown as rasters.
        max_trials: validation trials that latents, PSTHs and scores are taken from.
        every_n_validations: draw during training as well, with the weights of the moment; 0 for the end only. What
            takes longest (``AT_THE_END``) is drawn at the end only.
        monitor: the metric of the learning curve.
        mode: ``max`` or ``min``, which of two scores is better.
    """

    def __init__(
        self,
        n_trials: int = 3,
        max_trials: int = 256,
        every_n_validations: int = 0,
        monitor: str = "val/co_bps",
        mode: str = "max",
    ) -> None:
        self.mode = mode
        self.n_trials, self.max_trials, self.every, self.monitor = n_trials, max_trials, every_n_validations, monitor
        self._validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw every so many validations of a training."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self.every and self._validations % self.every == 0:
            self.draw(trainer, pl_module, leave_out=AT_THE_END)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the best checkpoint."""
        announce("drawing", "figures of the best checkpoint")
        with best_weights(trainer, pl_module):
            self.draw(trainer, pl_module)

    @main_process_only
    def draw(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        references: Mapping[str, float] | None = None,
        leave_out: Collection[str] = (),
    ) -> None:
        """Draw, save and log every figure that these data and this network allow.

        Args:
            trainer: with the data module, the loggers and the run's folder.
            pl_module: with ``net`` and ``spec``.
            references: scores for the learning curve to compare with, by name.
            leave_out: names of figures that are not drawn.
        """
        self.draw_learning_curve(trainer, pl_module, references)
        parts = dict(list(trainer.datamodule.by_session().items())[:MOST_SESSIONS])
        models = pl_module.by_session()
        for session, data in parts.items():
            trials = predict_trials(data, models[session], self.max_trials, shown_split(data))
            for name, drawing in drawings(trials, models[session], data, self.n_trials).items():
                if name not in leave_out:
                    self._save(f"{session}/{name}" if session else name, drawing, trainer)
        if len(parts) > 1:
            trials = {session: self._all_trials(data, models[session]) for session, data in parts.items()}
            for name, drawing in joint_drawings(trials, parts).items():
                self._save(name, drawing, trainer)

    def _all_trials(self, data: Any, model: Any) -> dict[str, Tensor]:
        """Training and validation trials together where they are equally long, for averages: latents are no scores."""
        found = [predict_trials(data, model, self.max_trials, split) for split in ("val", "train")]
        found = [part for part in found if part["targets"].shape[1:] == found[0]["targets"].shape[1:]]
        return {
            name: torch.cat([part[name] for part in found]) for name in ("latents", "condition") if name in found[0]
        }

    @main_process_only
    def draw_learning_curve(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, references: Mapping[str, float] | None = None
    ) -> None:
        """Draw ``metrics.csv``, if the run writes one; ``references`` as in :meth:`draw`."""
        path, spec = Path(trainer.default_root_dir) / METRICS_FILE, pl_module.spec
        if not path.is_file():
            return
        metrics = read_metrics(path)
        name = self.monitor.split("/", 1)[1]
        label = axis_label(name) + (f"\nmean of {len(spec.sessions)} sessions" if spec.sessions else "")
        loss = "loss (nats per bin and neuron)" if spec.kind == "spikes" else "loss"
        oracle = metrics.get(f"val/oracle_{name}", np.zeros(0))
        known = {NAMES["oracle"]: float(oracle[np.isfinite(oracle)][-1])} if np.isfinite(oracle).any() else {}
        self._save(
            "learning_curve",
            lambda: learning_curve(
                metrics, metric=self.monitor, label=label, mode=self.mode, loss=loss,
                references={**known, **(references or {})},
                simulated=spec.simulated,
            ),
            trainer,
        )  # fmt: skip

    def _save(self, name: str, drawing: Callable[[], Figure], trainer: pl.Trainer) -> None:
        path = Path(trainer.default_root_dir) / "figures" / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            drawing().savefig(path)
            log_figure(trainer.loggers, f"figures/{name}", path, trainer.global_step)
        except Exception as error:
            warn(f"the figure {name} was not drawn: {type(error).__name__}: {error}")


@contextmanager
def best_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """The network with the weights of the best checkpoint, where there is one; afterwards with its own again."""
    callback = trainer.checkpoint_callback
    path = Path(getattr(callback, "best_model_path", "") or "none")
    if not path.is_file():
        yield
        return
    own = {name: value.clone() for name, value in pl_module.net.state_dict().items()}
    content = torch.load(path, map_location="cpu", weights_only=True)
    update_weights(content, f"{type(pl_module).__module__}.{type(pl_module).__qualname__}")  # of a run resumed since
    saved = content["state_dict"]
    pl_module.net.load_state_dict({k.removeprefix("net."): v for k, v in saved.items() if k.startswith("net.")})
    try:
        yield
    finally:
        pl_module.net.load_state_dict(own)
