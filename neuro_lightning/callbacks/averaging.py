"""Averages of the weights along the training: validated, saved and scored in place of the weights themselves.

The average lies in a flatter place of the loss than any of its members, and generalizes as if the learning rate had
been lowered. Lightning's own ``WeightAveraging`` counts a group of steps (``data.steps_at_once``) as one, stays in
single precision where the model is in double, and forgets when it is resumed how far its averages by epochs had come.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from neuro_lightning.callbacks.progress import total_steps
from neuro_lightning.errors import ConfigError

RAW = "trained_weights"  # in a checkpoint, beside the average in its ``state_dict``


class WeightAverage(pl.Callback):
    """Base class of :class:`EMA` and :class:`SWA`: the raw weights are trained, their average is validated and saved.

    Validation, the monitored score, ``best.ckpt`` and the final scores are those of the average; a checkpoint also
    holds the raw weights, from which a resumed run continues. Floating-point buffers (running means and variances of
    batch normalisation) are averaged like weights, counters are copied. Models that take no steps stay as they are.

    Args:
        start: share of the training's steps that pass before the first weights are averaged; until then the raw
            weights are validated.

    Raises:
        ConfigError: ``start`` does not lie in [0, 1).
    """

    def __init__(self, start: float = 0.0) -> None:
        if not 0 <= start < 1:
            raise ConfigError(f"callbacks.average.start={start} must lie in [0, 1): it is a share of the training")
        self.start = start
        self.count = 0  # members of the average
        self.average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] | None = None  # while the network holds the average
        self._hooks: list[Any] = []

    def newest_weight(self, count: int) -> float:
        """The weight of the newest member in the average of ``count``."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Add the network's weights of this moment to the average."""
        self.count += 1
        values = _floats(net)
        if not self.average:  # masks hold infinities, of which there is no average
            self.average = {name: value.clone() for name, value in values.items() if value.isfinite().all()}
        members = [values[name] for name in self.average]
        get_ema_multi_avg_fn(1 - self.newest_weight(self.count))(list(self.average.values()), members, self.count)

    def has_started(self, trainer: pl.Trainer, step: int) -> bool:
        """Whether the weights after ``step`` steps are to be averaged."""
        return self.start == 0 or step > self.start * total_steps(trainer)

    # ---- what is validated, saved and scored

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the start.

        Raises:
            ConfigError: a share of a training without an end, or a schedule that writes weights itself.
        """
        if any(getattr(config.scheduler, "restore_best", False) for config in trainer.lr_scheduler_configs):
            raise ConfigError(
                "model.scheduler.restore_best=true goes back to weights that were validated, which callbacks/average "
                "replaces by their average: leave out one of them"
            )
        if self.start and trainer.optimizers and total_steps(trainer) is None:
            raise ConfigError("callbacks.average.start is a share of the training: give trainer.max_epochs")
        own = _floats(pl_module.net)  # a resumed average was read before the network came to its device
        self.average = {name: value.to(own[name]) for name, value in self.average.items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._swap_in_average(trainer, pl_module.net)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train on with the raw weights."""
        if self._raw is not None and trainer.state.fn == "fit":
            _write(pl_module.net, self._raw)
            self._raw = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average is the trained model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._swap_in_average(trainer, pl_module.net)

    def _swap_in_average(self, trainer: pl.Trainer, net: nn.Module) -> None:
        if not self.average or self._raw is not None or trainer.state.fn != "fit":
            return
        if trainer.world_size > 1:  # weights agree, running statistics are each process's own
            for value in self.average.values():
                torch.distributed.broadcast(value, 0)
        own = _floats(net)
        self._raw = {name: own[name].clone() for name in self.average}
        _write(net, self.average)

    # ---- checkpoints

    def state_dict(self) -> dict[str, int]:
        """How many members the average has; it and the raw weights are saved with the model's."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the count."""
        self.count = state_dict["count"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The average is the checkpoint's model."""
        if self.average:
            own = self._raw or _floats(pl_module.net)
            checkpoint[RAW] = {name: own[name] for name in self.average}
            checkpoint["state_dict"].update({f"net.{name}": value for name, value in self.average.items()})

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume from the raw weights."""
        raw = checkpoint.get(RAW, {})
        self.average = {name: checkpoint["state_dict"][f"net.{name}"].clone() for name in raw}
        _write(pl_module.net, raw)


class EMA(WeightAverage):
    """Exponential moving average of the weights after each step of the optimizer.

    The weights i steps ago count in proportion to ``decay ** i``. They are normalised by their sum, as Adam's moments
    are, so that the first weights are not favored: the average begins as the mean of few members.

    Args:
        decay: what a step's weights lose in each step after it; the average looks back about 1 / (1 - decay) steps.
        start: see :class:`WeightAverage`.

    Raises:
        ConfigError: ``decay`` does not lie in [0, 1).
    """

    def __init__(self, decay: float = 0.99, start: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"callbacks.average.decay={decay} must lie in [0, 1)")
        super().__init__(start)
        self.decay = decay

    def newest_weight(self, count: int) -> float:
        """The weight of the newest member: one over the sum of the members' weights."""
        return (1 - self.decay) / (1 - self.decay**count)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Register a hook after every step of the optimizer, however many there are in one batch."""
        super().on_train_start(trainer, pl_module)

        def after_step(*_: Any) -> None:
            if self.has_started(trainer, trainer.global_step + 1):  # the trainer counts the step when it is over
                self.update(pl_module.net)

        self._hooks = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]


class SWA(WeightAverage):
    """Stochastic weight averaging: the plain mean of the weights at the ends of the last epochs.

    Source: Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization". They hold the
    learning rate constant while they average (``scheduler@model.scheduler=none``); under a schedule that ends at
    zero the last members differ little.

    Args:
        start: share of the training's steps after which epochs count.
    """

    def __init__(self, start: float = 0.75) -> None:
        super().__init__(start)

    def newest_weight(self, count: int) -> float:
        """All members count the same."""
        return 1 / count

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """An epoch's last step: its validation, which comes before the epoch's end, sees the new average."""
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if last and trainer.optimizers and self.has_started(trainer, trainer.global_step):
            self.update(pl_module.net)


def _floats(net: nn.Module) -> dict[str, Tensor]:
    """The floating-point numbers that a checkpoint of the network holds, as they lie in it."""
    return {name: value for name, value in net.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def _write(net: nn.Module, values: dict[str, Tensor]) -> None:
    own = _floats(net)
    for name, value in values.items():
        own[name].copy_(value)
