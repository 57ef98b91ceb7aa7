"""The one LightningModule that all architectures share: steps, optimizer and metrics."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from neuro_lightning.artifacts.old_names import update_names, update_weights
from neuro_lightning.contracts import Batch, DataSpec, Output, call_network
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, default_loss, loss_in_response_units
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.models.adaptation import Adaptation, keep_batch_statistics, parameter_groups
from neuro_lightning.models.epoch_sums import EpochSums
from neuro_lightning.models.head_losses import head_losses, weighted_heads
from neuro_lightning.models.output_check import check_shape
from neuro_lightning.models.resume_checks import check_same_data, check_same_weights
from neuro_lightning.nn.heads import Heads
from neuro_lightning.private_names import count_steps_in_batch

CHECKPOINT_KEY = "neuro_lightning"


class PopulationModule(pl.LightningModule):
    """Trains a network on a masked loss and scores it with the metrics of its data.

    An architecture is a subclass that builds its network and says in ``kinds`` which kinds of data it takes; it
    overrides only what is special about it.

    Args:
        net: (B, T, N_in) or (B, C, H, W) float inputs -> :class:`Output`.
        spec: the description of the data.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for other data.
        masking: for sequences, (B, T, N_in) inputs -> (masked inputs, bool mask of the elements to score); None shows
            and scores all.
        optimizer: called with the parameters; None for models that are fitted in closed form.
        scheduler: called with the optimizer and the number of steps, see ``neuro_lightning.optim``.

    Raises:
        ConfigError: some inputs were not recorded, which the network does not ask about.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes",)
    takes_sessions: ClassVar[bool] = True  # whether it can be trained on several recordings at once

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        *,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        super().__init__()
        self.net, self.spec, self.masking = net, spec, masking
        for part, each in zip(spec.parts, self.networks, strict=True):
            if part.partial and "observed" not in inspect.signature(each.forward).parameters:
                raise ConfigError(
                    f"{type(each).__name__} cannot run on {part.dataset}: some inputs were not recorded (trials of "
                    "unequal length, or neurons that come and go), and its forward takes no `observed`"
                )
        self.loss = _unchecked_partial(loss) or default_loss(spec)
        self._optimizer, self._scheduler = optimizer, scheduler
        self.scores: nn.Module | None = None  # of the validation
        self.plateau_scores: list[tuple[int, float]] = []  # (step, score) of each validation that stepped a schedule
        self.recipe: dict[str, Any] = {}
        self._epoch_sums = EpochSums()
        self._usual_interval: int | None = None  # of validations, while the trainer has another for one epoch
        self.adaptation: Adaptation | None = None  # where the core is that of another run
        self.before_step: Callable[[int], None] | None = None  # called with the number of each step of several at once
        self.take_together: Callable[[list[Batch], int], bool] | None = None  # takes steps with other models, or not

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """The reason why this model cannot run on these data although it takes their kind; None if it can."""
        return None

    @property
    def networks(self) -> list[nn.Module]:
        """The network of each session, which share a core; of one recording its own alone."""
        return list(self.net.sessions) if self.spec.sessions else [self.net]

    @property
    def _core(self) -> nn.Module:
        """What the networks of all sessions share; of a network without a core all of it."""
        return getattr(self.networks[0], "core", self.net)

    @property
    def heads(self) -> Heads | None:
        """What decodes behavior from the latents, see ``neuro_lightning.nn.heads``; sessions share it."""
        return getattr(self.networks[0], "heads", None)

    def by_session(self) -> dict[str, PopulationModule]:
        """A model for the evaluation of each session alone, by its name; one recording has none. Weights are shared."""
        if not self.spec.sessions:
            return {"": self}
        parts = zip(self.spec.sessions, self.networks, strict=True)
        found = {part.session: PopulationModule(net, part, loss=self.loss) for part, net in parts}
        return {name: one.to(self.device, self.dtype).train(self.training) for name, one in found.items()}

    def forward(self, inputs: Tensor) -> Output:
        """Inputs of any dtype -> the network's output."""
        return self.net(inputs.to(self.dtype))

    # ---- training

    def training_step(self, batch: Batch | list[Batch], batch_idx: int) -> Tensor | None:
        """The loss per scored element, plus the network's own terms; or several whole steps, see the data module."""
        return self._take_steps(batch, batch_idx) if isinstance(batch, list) else self._training_loss(batch, batch_idx)

    def _take_steps(self, batches: list[Batch], batch_idx: int) -> None:
        """A step of the optimizer for each of several batches, bit for bit as the trainer would take it."""
        first = batch_idx * self.trainer.datamodule.steps_at_once
        if self.take_together is None or not self.take_together(batches, first):
            for i, batch in enumerate(batches, start=first):

                def loss(batch: Batch = batch, i: int = i) -> Tensor:
                    value = self._training_loss(batch, i)
                    self.optimizers().zero_grad()
                    self.manual_backward(value)
                    return value

                self.begin_step(i)
                self.end_step(loss)
        count_steps_in_batch(self.trainer, len(batches))

    def begin_step(self, number: int) -> None:
        """Seed a step of several at once, by its number in the epoch."""
        if self.before_step is not None:
            self.before_step(self.current_epoch * self.trainer.datamodule.steps_per_epoch + number)

    def end_step(self, loss: Callable[[], Tensor]) -> None:
        """Take a step of several at once, and one of the schedules that count steps.

        Args:
            loss: computes the loss and the gradients.
        """
        optimizer = self.optimizers()

        def closure() -> Tensor:
            value = loss()
            self.clip_gradients(optimizer.optimizer)
            return value

        optimizer.step(closure)
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "step":
                config.scheduler.step()

    def _training_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        batch, inputs, mask = self.show(batch)
        return self.loss_of(call_network(self.net, batch, inputs), batch, mask, batch_idx)

    def show(self, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        """The batch, what the network is shown of its inputs, and the mask of the targets to score; masks are drawn."""
        inputs, mask = batch["inputs"].to(self.dtype), batch["mask"]
        if self.masking is not None:
            observed = batch.get("observed")
            if observed is not None:
                inputs = torch.where(observed, inputs, 0.0)
            inputs, scored = self.masking(inputs) if observed is None else self.masking(inputs, observed)
            mask = mask.clone()
            mask[:, : inputs.shape[1], : inputs.shape[2]] &= scored
            if getattr(self.masking, "marks_unrecorded", False):
                batch = {**batch, "observed": batch["observed"] & ~scored}
        return batch, inputs, mask

    def loss_of(self, output: Output, batch: Batch, mask: Tensor, batch_idx: int) -> Tensor:
        """The training loss of what the network said of a batch, see :meth:`show`; it is added to the epoch's."""
        check_shape(self.net, output, batch, self.spec)
        total, count = self.loss_sums(output, batch, mask)
        terms = output.get("losses", {})
        decoded = head_losses(self.heads, output, batch, self.spec)
        step = self.current_epoch, batch_idx
        means = self._epoch_sums.add({"count": count, "loss": total, **terms, **decoded}, step)
        # divided by the mean count, the mean of the processes' gradients is that of one process
        loss = total / means["count"].clamp_min(1) + self.weight_loss_terms(terms)
        return loss + weighted_heads(self.heads, decoded, means) if decoded else loss

    def loss_sums(self, output: Output, batch: Batch, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the loss over a batch's scored elements, and how many they are."""
        return loss_in_response_units(self.loss, output, batch["targets"], mask, self.spec.of_batch(batch))

    def weight_loss_terms(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The sum of the network's own terms; an architecture may weight them, also by ``self.current_epoch``."""
        return sum(terms.values())

    def on_train_start(self) -> None:
        """Let Lightning know that the last epoch of a resumed run was validated: else it would train a batch again."""
        self._stop_at_last_plateau()
        loop = self.trainer.fit_loop
        epoch, batch = loop.epoch_progress.current, loop.epoch_loop.batch_progress
        if loop.restarting and batch.is_last_batch and batch.current.completed and epoch.processed < epoch.ready:
            self._usual_interval = self.trainer.check_val_every_n_epoch
            self._validate_this_epoch()

    def on_train_epoch_start(self) -> None:
        """Set a masking that changes over the training to this epoch; validate the last epoch in any case."""
        if self._usual_interval is not None:
            self.trainer.check_val_every_n_epoch, self._usual_interval = self._usual_interval, None
        if hasattr(self.masking, "at_epoch"):
            self.masking.at_epoch(self.current_epoch)
        if self.adaptation is not None:
            keep_batch_statistics(self._core)
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self._validate_this_epoch()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Validate also where the training ends within an epoch (``max_steps``, ``max_time``)."""
        if training_ends_now(self.trainer):
            self.trainer.should_stop = True  # at max_steps Lightning would leave without a validation
            self._validate_this_epoch()

    def _validate_this_epoch(self) -> None:
        """Let Lightning validate at the end of this epoch, the last one, whatever ``check_val_every_n_epoch`` says."""
        every = self.trainer.check_val_every_n_epoch
        if every and (self.current_epoch + 1) % every:
            self.trainer.check_val_every_n_epoch = self.current_epoch + 1

    @property
    def size(self) -> int:
        """How many numbers the network has learnt."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch: the loss per scored element, the network's own terms per step."""
        if not (found := self._epoch_sums.end()):
            return
        means = {f"train/{name}": value for name, value in found.items()}
        self.log_dict(means, prog_bar=True, logger=False)
        # Lightning would write them after the checkpoints of this moment, which could then never be resumed exactly
        for logger in self.trainer.loggers:
            values = {**means, **self._learning_rate(), "epoch": self.current_epoch}
            logger.log_metrics(values, step=self.trainer.global_step - 1)

    def _learning_rate(self) -> dict[str, float]:
        """The learning rate of the first group of weights; nothing where there is no optimizer."""
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        return {"train/lr": float(groups[0]["lr"])} if groups and "lr" in groups[0] else {}

    def configure_optimizers(self) -> Any:
        """The optimizer and, if there is one, its schedule over all steps of the run.

        Raises:
            ConfigError: the optimizer does not take its settings.
        """
        if self._optimizer is None:
            return None
        try:
            optimizer = self._optimizer(parameter_groups(self, self._core, self.adaptation))
            for group in optimizer.param_groups:
                group["lr"] *= group.pop("share", 1.0)
        except (TypeError, ValueError) as error:  # a learning rate below zero, say
            raise ConfigError(f"model.optimizer: {error}") from error
        if not self._scheduler:
            return optimizer
        steps = self.trainer.estimated_stepping_batches  # loads the training data
        if (whole := self.trainer.datamodule.steps_per_epoch) is not None:  # a batch of the trainer's holds several
            steps = self.trainer.max_epochs * whole if self.trainer.max_epochs not in (None, -1) else math.inf
        if not math.isfinite(steps):
            raise ValueError(
                "a schedule needs trainer.max_epochs or trainer.max_steps; with neither, "
                "choose scheduler@model.scheduler=none"
            )
        schedule = self._scheduler(optimizer, int(steps))
        if isinstance(schedule["scheduler"], ReduceLROnPlateau):
            schedule["frequency"] = sys.maxsize  # never by Lightning at an epoch's end: see _step_plateau_schedules
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_after_backward(self) -> None:
        """Drop the gradients of an adapted core until it is its turn: the optimizer leaves such weights alone."""
        if self.adaptation is not None and not self.adaptation.core_trains(self.current_epoch, self.trainer.max_epochs):
            for parameter in self._core.parameters():
                parameter.grad = None

    def _step_plateau_schedules(self, scores: dict[str, float]) -> None:
        """Step ``ReduceLROnPlateau`` before the checkpoint of this validation is saved.

        The scores are kept for a refit, which has no validation and steps its schedule with the same ones.
        """
        for config in self.trainer.lr_scheduler_configs if self.trainer.validating else ():
            if config.reduce_on_plateau and config.monitor in scores:
                config.scheduler.step(scores[config.monitor])
                self._stop_at_last_plateau()
                self.plateau_scores.append((self.global_step, scores[config.monitor]))

    def _stop_at_last_plateau(self) -> None:
        """End the training where a schedule says so; a resumed one that had ended ends again."""
        if any(getattr(config.scheduler, "finished", False) for config in self.trainer.lr_scheduler_configs):
            self.trainer.should_stop = True

    # ---- evaluation

    def setup(self, stage: str) -> None:
        """Build the validation metrics from the data module's references."""
        if stage == "fit":
            self.automatic_optimization = self.trainer.datamodule.steps_at_once == 1
        references = self.trainer.datamodule.references()
        if self.scores is None and "val" in references:
            self.scores = build_metrics(self.spec, heads=self.heads, **references["val"]).to(self.device)
            self.val_loss = MeanMetric().to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the validation metrics; loader 1 holds the training trials, from which velocity is decoded."""
        output = call_network(self.net, batch, batch["inputs"].to(self.dtype))
        check_shape(self.net, output, batch, self.spec)
        if dataloader_idx > 0:
            self.scores.update_train(output, batch)
            return
        self.scores.update(output, batch)
        total, count = self.loss_sums(output, batch, batch["mask"])
        if count > 0:
            self.val_loss.update(total / count, count)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, and step schedules that wait for a plateau of one of them."""
        scores = {"loss": float(self.val_loss.compute()), **self.scores.compute()}
        scores = {f"val/{name}": value for name, value in scores.items()}
        device = "cpu" if self.device.type == "mps" else self.device  # which has no float64
        for name, value in scores.items():
            self.log(name, torch.tensor(value, dtype=torch.float64, device=device).float(), rank_zero_only=False)
        self.scores.reset()
        self.val_loss.reset()
        self._step_plateau_schedules(scores)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model with no data at hand: plain values only."""
        state = {"epoch_sums": self._epoch_sums.to_dict(), "plateau_scores": self.plateau_scores}
        checkpoint[CHECKPOINT_KEY] = {"spec": self.spec.to_dict(), **self.recipe, **state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint against data and model, and restore the sums of an interrupted epoch.

        Raises:
            CheckpointError: the checkpoint is of other data or of another model.
        """
        saved = update_names(checkpoint.get(CHECKPOINT_KEY, {}))
        check_same_data(saved, self.spec, self.recipe.get("identity"))
        update_weights(checkpoint, f"{type(self).__module__}.{type(self).__qualname__}")
        theirs = checkpoint["state_dict"]
        check_same_weights(theirs, self.state_dict())
        if any(theirs[name].dtype == torch.float64 for name, _ in self.named_parameters()):
            self.double()  # Lightning loads the weights before it converts the model to double precision
        self._epoch_sums.load(saved.get("epoch_sums", {}))
        self.plateau_scores = plateau_scores(checkpoint)


def plateau_scores(checkpoint: dict[str, Any]) -> list[tuple[int, float]]:
    """(step, score) of each validation at which a ``ReduceLROnPlateau`` was stepped; older runs kept it elsewhere."""
    older = [pair for schedule in checkpoint.get("lr_schedulers", []) for pair in schedule.get("seen", [])]
    return [tuple(pair) for pair in checkpoint.get(CHECKPOINT_KEY, {}).get("plateau_scores", older)]


def training_ends_now(trainer: pl.Trainer) -> bool:
    """Whether the step that has just been taken is the last one, by ``max_steps``, ``max_time`` or an early stop."""
    if 0 < trainer.max_steps <= trainer.global_step:
        return True
    long_enough = trainer.current_epoch >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and long_enough


def _unchecked_partial(function: Callable | None) -> Callable | None:
    """A partial without Hydra's check, at each call, that the function may be called: it takes longer than a loss.

    The function was checked when the partial was built.
    """
    if not isinstance(function, functools.partial):
        return function
    return functools.partial(function.func, *function.args, **function.keywords)
