"""Errors of loggers and figures become warnings: they must not end a training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

LOGGER_CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")
Observer = TypeVar("Observer")


def warn_on_errors(observer: Observer, methods: Iterable[str] = LOGGER_CALLS) -> Observer:
    """The same object, with methods that warn instead of raising.

    Args:
        observer: a logger or a callback.
        methods: their names; those that it does not have are left out.
    """
    for name in methods:
        if hasattr(observer, name):
            setattr(observer, name, _catching(observer, getattr(observer, name)))
    return observer


@contextmanager
def errors_as_warnings(observer: Any) -> Iterator[None]:
    """Turn exceptions into a warning that names the object, once for each object."""
    try:
        yield
    except Exception as error:
        if not getattr(observer, "has_failed", False):
            observer.has_failed = True
            name, reason = type(observer).__name__, f"{type(error).__name__}: {error}"
            rank_zero_warn(f"{name} failed; the run continues (its numbers are in metrics.csv): {reason}")


def _catching(observer: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with errors_as_warnings(observer):
            return method(*args, **kwargs)

    return call
