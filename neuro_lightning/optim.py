"""Sharpness-aware minimization, and learning rate schedules: functions of the optimizer and the run's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from neuro_lightning.errors import ConfigError


class SAM(Optimizer):
    """Sharpness-aware minimization: step with the gradient of the worst weights nearby.

    A step sees the batch twice. With the gradient g at the weights w it climbs to ``w + rho * g / (||g|| + 1e-12)``,
    takes the gradient there, goes back to w, and lets the base optimizer step with it (Foret et al. 2021, "Sharpness-
    aware minimization for efficiently improving generalization"). With ``adaptive`` every weight climbs in proportion
    to its own size (Kwon et al. 2021, "ASAM"). The norm is over all parameters.

    The closure is everything that makes a gradient: forward pass, backward pass, and under Lightning clipping (which
    leaves the climb as it is, as only the gradient's direction counts there, and bounds the gradient that steps).
    Dropout draws other masks in the second pass. The gradients are cleared after the step.

    Args:
        params: parameters or groups of them.
        base: called with the groups, the optimizer that steps, a ``functools.partial`` of one.
        rho: how far to climb.
        adaptive: climb in proportion to the weights' sizes.

    Raises:
        ConfigError: ``rho`` is negative.
    """

    def __init__(
        self, params: Iterable, base: Callable[..., Optimizer], *, rho: float = 0.05, adaptive: bool = False
    ) -> None:
        if rho < 0:
            raise ConfigError(f"optimizer.rho={rho}: the distance to climb cannot be negative")
        super().__init__(params, {"rho": rho, "adaptive": adaptive})
        self.base = base(self.param_groups)
        self.defaults = {**self.base.defaults, **self.defaults}
        self._share()

    def _share(self) -> None:
        """Groups and state are the base's own: schedules and checkpoints see one optimizer."""
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Args:
            closure: clears the gradients, computes the loss and its gradients; it is called twice.

        Returns:
            What the closure returned at the weights themselves.

        Raises:
            ConfigError: there is no closure, or a gradient was gathered before it.
        """
        if closure is None:
            raise ConfigError("SAM sees each batch twice: trainer.precision must be 32-true, 64-true or bf16-mixed")
        if any(p.grad is not None for p in self._parameters()):
            raise ConfigError("SAM cannot gather gradients over batches: leave trainer.accumulate_grad_batches=1")
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            climbed = self._climb()
        try:
            with torch.enable_grad():
                closure()
        finally:
            with torch.no_grad():
                for p, weights in climbed:
                    p.copy_(weights)
        self.base.step()
        self.zero_grad(set_to_none=True)
        return loss

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Move the weights uphill; returns each parameter that moved with what it was."""
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not moving:
            return []
        norm = get_total_norm([p.abs() * p.grad if group["adaptive"] else p.grad for p, group in moving])
        before = []
        for p, group in moving:
            before.append((p, p.clone()))
            direction = p.square() * p.grad if group["adaptive"] else p.grad
            p.add_(direction * (group["rho"] / (norm.to(p.device) + 1e-12)))
        return before

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, the base's with it."""
        self.base.load_state_dict(state_dict)
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train further parameters."""
        if not hasattr(self, "base"):  # the constructor of the optimizers' class collects them
            super().add_param_group(param_group)
            return
        for name in ("rho", "adaptive"):
            param_group.setdefault(name, self.defaults[name])
        self.base.add_param_group(param_group)
        self._share()


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0) -> dict[str, Any]:
    """Linear warm-up, then half a cosine down to a share of the peak.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up.
        final: learning rate at the end, as a share of the peak.
    """
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


class Plateau(ReduceLROnPlateau):
    """Torch's schedule, which can also go back to the best weights and end the training.

    Args:
        optimizer: the optimizer to steer.
        restore_best: at each plateau, go back to the weights that had the best score. Running statistics of batch
            normalisation and the optimizer's moments stay.
        rounds: plateaus after which the training ends; None for no end.
        settings: of torch's ``ReduceLROnPlateau``.
    """

    def __init__(
        self, optimizer: Optimizer, *, restore_best: bool = False, rounds: int | None = None, **settings: Any
    ) -> None:
        super().__init__(optimizer, **settings)
        self.restore_best, self.rounds, self.plateaus = restore_best, rounds, 0
        self.best_weights: list[Tensor] = []

    @property
    def finished(self) -> bool:
        """Whether the training is to end."""
        return self.rounds is not None and self.plateaus >= self.rounds

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Take the score of a validation."""
        best = self.best
        super().step(metrics, epoch)
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.best != best:
            self.best_weights = [p.detach().clone() for p in weights] if self.restore_best else []
        elif self.num_bad_epochs == 0:  # torch begins to count anew after a plateau
            self.plateaus += 1
            with torch.no_grad():
                for p, before in zip(weights, self.best_weights, strict=False):
                    p.copy_(before)


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    *,
    monitor: str,
    mode: str,
    factor: float = 0.5,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    min_lr: float = 0.0,
    restore_best: bool = False,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Lower the learning rate when a metric stops improving.

    Args:
        optimizer: the optimizer to steer.
        total_steps: not used; every schedule takes it.
        monitor: the metric's name, such as ``val/co_bps``.
        mode: ``max`` or ``min``.
        factor: what the learning rate is multiplied by.
        patience: validations without improvement before that.
        threshold: what an improvement must exceed.
        threshold_mode: ``rel``, a share of the best score, or ``abs``.
        min_lr: the learning rate falls no lower.
        restore_best: go back to the best weights at each plateau, as published for Sensorium 2022.
        rounds: plateaus after which the training ends, as published there; None for no end.

    Raises:
        ConfigError: ``rounds`` is below 1.
    """
    if rounds is not None and rounds < 1:
        raise ConfigError(f"scheduler.rounds={rounds} must be 1 at least, or null for no end")
    settings = {"mode": mode, "factor": factor, "patience": patience, "min_lr": min_lr}
    settings |= {"threshold": threshold, "threshold_mode": threshold_mode}
    scheduler = Plateau(optimizer, restore_best=restore_best, rounds=rounds, **settings)
    return {"scheduler": scheduler, "monitor": monitor, "interval": "epoch", "strict": False}
