"""What only watches a training never costs its result: an exception of a logger or of a figure becomes a warning."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

LOGGER_CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")
Watcher = TypeVar("Watcher")


def guarded(watcher: Watcher, methods: Iterable[str] = LOGGER_CALLS) -> Watcher:
    """The object itself, whose methods warn where they would raise.

    Args:
        watcher: a logger or a callback.
        methods: their names; those that it does not have are left out.
    """
    for name in methods:
        if hasattr(watcher, name):
            setattr(watcher, name, _warning(watcher, getattr(watcher, name)))
    return watcher


@contextmanager
def only_warns(watcher: Any) -> Iterator[None]:
    """Turn what is raised inside into a warning that names the object, once for each object."""
    try:
        yield
    except Exception as error:
        if not getattr(watcher, "has_failed", False):
            watcher.has_failed = True
            name, reason = type(watcher).__name__, f"{type(error).__name__}: {error}"
            rank_zero_warn(f"{name} failed, the run goes on (its numbers are in metrics.csv): {reason}")


def _warning(watcher: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with only_warns(watcher):
            return method(*args, **kwargs)

    return call
