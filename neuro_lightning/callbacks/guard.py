"""Callbacks that only watch a training never cost its result: what they raise is a warning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import DeviceStatsMonitor, LearningRateMonitor, ModelSummary, ProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.callbacks.progress import FitProgress

ONLY_WATCH = (DeviceStatsMonitor, Figures, FitProgress, LearningRateMonitor, ModelSummary, ProgressBar, StepClock)


def guarded(callback: pl.Callback) -> pl.Callback:
    """The callback itself; if it only watches, its hooks warn where they would raise."""
    if isinstance(callback, ONLY_WATCH):
        hooks = [name for name in dir(pl.Callback) if name.startswith("on_")]
        for name in ("setup", "teardown", "draw", "draw_learning_curve", *hooks):
            if hasattr(callback, name):
                setattr(callback, name, _warning(callback, getattr(callback, name)))
    return callback


def _warning(callback: pl.Callback, hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return hook(*args, **kwargs)
        except Exception as error:
            rank_zero_warn(f"{type(callback).__name__} failed, the run goes on: {type(error).__name__}: {error}")

    return call
