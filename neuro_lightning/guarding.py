"""Loggers that are views of ``metrics.csv`` never cost a training its result: what they raise is a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import Logger

CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")


def guarded_logger(logger: Logger) -> Logger:
    """The logger itself, whose calls warn where they would raise."""
    for name in CALLS:
        setattr(logger, name, _warning(logger, getattr(logger, name)))
    return logger


@contextmanager
def only_warns(logger: Logger) -> Iterator[None]:
    """What the logger raises within is a warning that names it, once for each logger."""
    try:
        yield
    except Exception as error:
        if not getattr(logger, "has_failed", False):
            logger.has_failed = True
            name = type(logger).__name__
            warnings.warn(
                f"{name} failed, the run goes on (its numbers are in metrics.csv): {type(error).__name__}: {error}",
                stacklevel=2,
            )


def _warning(logger: Logger, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with only_warns(logger):
            return method(*args, **kwargs)

    return call
