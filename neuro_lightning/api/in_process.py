"""The commands, called in this process, which is left as it was."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from neuro_lightning.artifacts.locks import new_folder
from neuro_lightning.cli import hydra_app, predict_arguments, predict_task, train_arguments, train_task
from neuro_lightning.errors import NeuroError
from neuro_lightning.settings.quoting import override, typed_value


def run_train(arguments: Sequence[str]) -> Path:
    """Do what ``python train.py ARGUMENTS`` does.

    Args:
        arguments: the command line; with ``-m`` it is a sweep.

    Returns:
        The folder of the run or of the sweep.

    Raises:
        NeuroError: what the command would end with, as an exception.
    """
    words = [word for word in arguments if word != "-m"]
    if len(words) == len(arguments):
        task = _RecordedTask(train_task)
        _call("train", train_arguments(words), task, words)
        return task.folder
    if typed_value(words, "hydra.sweep.dir") is None and typed_value(words, "sweep.resume") is None:
        words.append(override("hydra.sweep.dir", new_folder(Path("multirun") / time.strftime("%Y-%m-%d_%H-%M-%S"))))
    filled_in = train_arguments(["-m", *words])
    _call("train", filled_in, train_task, words)  # its jobs may run in other processes, which take the task by its name
    return Path(typed_value(filled_in, "hydra.sweep.dir") or ".")


def run_predict(arguments: Sequence[str]) -> Path:
    """Do what ``python predict.py ARGUMENTS`` does.

    Returns:
        The file that was written.

    Raises:
        NeuroError: what the command would end with, as an exception.
    """
    task = _RecordedTask(predict_task)
    _call("predict", predict_arguments(arguments), task, arguments)
    return task.result


class _RecordedTask:
    """A task that keeps its folder, result and error: Hydra returns no result, and prints an error's traceback."""

    def __init__(self, task: Callable[[DictConfig], Any]) -> None:
        self.task, self.folder, self.result, self.error = task, Path("."), None, None

    def __call__(self, cfg: DictConfig) -> Any:
        self.folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            self.result = self.task(cfg)
        except Exception as error:
            self.error = error
        return self.result


def _call(command: str, words: list[str], task: Callable[[DictConfig], Any], given: Sequence[str]) -> None:
    """Run a command's task, and raise the error with which the command would end."""
    try:
        with unchanged_process([f"{command}.py", *words]):
            hydra_app(command, task, given)
    except SystemExit as stop:
        if stop.code:
            raise _error_behind(stop) from None
    if error := getattr(task, "error", None):
        raise error


def _error_behind(stop: SystemExit) -> BaseException:
    """The error for which a command has ended."""
    cause = stop.__cause__ or stop.__context__
    if isinstance(stop.code, str) and not isinstance(cause, NeuroError):
        return NeuroError(stop.code.removeprefix("error: "))
    return cause or NeuroError(f"the command ended with {stop.code}")


@contextmanager
def unchanged_process(argv: list[str]) -> Iterator[None]:
    """Set the command line; afterwards restore it, and what Hydra, Lightning and ``logging`` keep for the process."""
    hydra_before, config_before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    root, environment, argv_before = logging.getLogger(), dict(os.environ), sys.argv
    handlers, level = list(root.handlers), root.level
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) if in_main_thread else ()
    signals = {number: signal.getsignal(number) for number in numbers}
    GlobalHydra.instance().clear()
    sys.argv = argv
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.argv = argv_before
        GlobalHydra.instance().clear()
        if hydra_before is not None:
            GlobalHydra.instance().initialize(hydra_before)
        HydraConfig.instance().cfg = config_before
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
