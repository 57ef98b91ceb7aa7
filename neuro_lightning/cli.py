"""The two commands. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import atexit
import errno
import functools
import io
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import execution_whitelist
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from neuro_lightning.artifacts.locks import new_folder
from neuro_lightning.artifacts.output import copy_output
from neuro_lightning.errors import ConfigError, Interrupted, NeuroError, forbidden_path
from neuro_lightning.private_names import BASIC_LAUNCHER
from neuro_lightning.ranks import is_main_process
from neuro_lightning.settings import config  # noqa: F401  # which guards the environment before anything is composed
from neuro_lightning.settings.conf_folder import CONF
from neuro_lightning.settings.help_page import help_page
from neuro_lightning.settings.options import check_options
from neuro_lightning.settings.overrides import (
    add_trusted_packages,
    check_environment,
    check_trusted,
    forget_config_folders,
    has_config_folders_from_file,
)
from neuro_lightning.settings.quoting import override, typed
from neuro_lightning.settings.registry import HYDRA_NAMES

# Threads that wait for each other by spinning slow a recurrent network down a hundredfold as soon as anything else runs
# on the machine; sleeping costs next to nothing. It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# in neuro_lightning.sweeps
SWEEPERS = ("grid.Grid", "search.sweeper.Search", "population_sweeper.PopulationSweeper")
LAUNCHERS = ("launchers.Processes", "launchers.Gpus", "launchers.RayCluster", "launchers.Slurm")
STEP_TIMEOUT_S = 60.0  # for a process that is about to leave a job's folder


def _exit_on_interrupt(command: Callable[[], None]) -> Callable[[], None]:
    """The command, which Ctrl-C ends with one line also before a run has begun."""

    @functools.wraps(command)
    def called() -> None:
        try:
            command()
        except KeyboardInterrupt:
            print("interrupted.", file=sys.stderr)
            sys.exit(130)

    return called


@_exit_on_interrupt
def train() -> None:
    """``python train.py`` and ``neuro-train``."""
    if _print_help("train"):
        return
    try:
        sys.argv[1:] = _train_arguments(sys.argv[1:])
    except NeuroError as error:
        sys.exit(f"error: {error}")
    _hydra_app("train", _train_task)


def _train_arguments(arguments: list[str]) -> list[str]:
    """The command line as Hydra reads it: runs and sweeps that go on and experiment files are resolved.

    Raises:
        NeuroError: a word that names nothing.
    """
    from neuro_lightning.runs.resume import resume_arguments, resume_requeued_job
    from neuro_lightning.sweeps.arguments import sweep_arguments
    from neuro_lightning.sweeps.results.best import register_experiment_files

    forget_config_folders()
    arguments = resume_requeued_job(add_trusted_packages(arguments))
    arguments = register_experiment_files(sweep_arguments(resume_arguments(arguments)))
    check_options(arguments, CONF)
    return arguments


def run_train(arguments: Sequence[str]) -> Path:
    """Do what ``python train.py ARGUMENTS`` does, in this process, which is left as it was.

    Args:
        arguments: the command line; with ``-m`` it is a sweep.

    Returns:
        The folder of the run or of the sweep.

    Raises:
        NeuroError: what the command would end with, as an exception.
    """
    words = [name for name in arguments if name != "-m"]
    sweeps = len(words) < len(arguments)
    if sweeps and typed(words, "hydra.sweep.dir") is None and typed(words, "sweep.resume") is None:
        words.append(override("hydra.sweep.dir", new_folder(Path("multirun") / time.strftime("%Y-%m-%d_%H-%M-%S"))))
    words = _train_arguments(["-m", *words] if sweeps else words)
    folder = Path(typed(words, "hydra.sweep.dir") or ".")

    def task(cfg: DictConfig) -> float:
        nonlocal folder
        folder = Path(HydraConfig.get().runtime.output_dir)
        return _train_task(cfg)

    if sweeps:  # whose jobs may run in other processes, which take the task by its name
        _call_in_process(["train.py", *words], "train", _train_task)
    else:
        _call_in_process(["train.py", *words], "train", _TaskResult(task))
    return folder


def run_predict(arguments: Sequence[str]) -> Path:
    """Do what ``python predict.py ARGUMENTS`` does, in this process, which is left as it was.

    Returns:
        The file that was written.

    Raises:
        NeuroError: what the command would end with, as an exception.
    """
    task = _TaskResult(_predict_task)
    _call_in_process(["predict.py", *add_trusted_packages(list(arguments))], "predict", task)
    return task.result


class _TaskResult:
    """A task that stores its result and error: Hydra returns no result, and prints an error's traceback."""

    def __init__(self, task: Callable[[DictConfig], Any]) -> None:
        self.task, self.result, self.error, self.stderr = task, None, None, sys.stderr

    def __call__(self, cfg: DictConfig) -> Any:
        try:
            with redirect_stderr(self.stderr):
                self.result = self.task(cfg)
        except Exception as error:
            self.error = error
        return self.result


def _call_in_process(argv: list[str], config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Run a command's task; what Hydra says of an error is not printed, since the error is raised."""
    printed, stderr = io.StringIO(), sys.stderr
    try:
        with _unchanged_process(argv), redirect_stderr(printed):
            _hydra_app(config_name, task)
    except SystemExit as stop:
        atexit.unregister(_print_error)
        _raise_cause(stop)
    else:
        print(printed.getvalue(), end="", file=stderr)
    if error := getattr(task, "error", None):
        raise error


def compose_config(words: Sequence[str]) -> DictConfig:
    """The config of ``train.py`` for the words of a command line, without a run.

    Raises:
        ConfigError: a word that cannot be.
    """
    words = _train_arguments(list(words))
    begin = hydra.initialize_config_module if CONF.startswith("pkg://") else hydra.initialize_config_dir
    try:
        with begin(CONF.removeprefix("pkg://")):
            return hydra.compose("train", overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def _raise_cause(stop: SystemExit) -> None:
    """Raise the error for which a command has ended; nothing where it has ended well."""
    cause = stop.__cause__ or stop.__context__
    if not stop.code:
        return
    if isinstance(cause, NeuroError):
        raise cause from None
    if isinstance(stop.code, str):
        raise NeuroError(stop.code.removeprefix("error: ")) from cause
    if isinstance(cause, HydraException | OmegaConfBaseException):
        raise ConfigError(" ".join(str(cause).split())) from None
    raise cause or NeuroError(f"the command ended with {stop.code}")


@contextmanager
def _unchanged_process(argv: list[str]) -> Iterator[None]:
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
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def _print_help(command: str) -> bool:
    """Print the help page if the command line asks for it; whether it does."""
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return False
    name = Path(sys.argv[0]).name
    print(help_page(command, f"python {name}" if name.endswith(".py") else name, CONF, sys.argv[1:]))
    return True


@contextmanager
def _register_plugins() -> Iterator[None]:
    """Register our sweepers and launchers with Hydra, which builds registered ones only; undone afterwards.

    Configs that a resumed sweep's folder names may choose these only, since they check their commands.
    """
    from importlib import import_module

    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper

    known = Plugins.instance().class_name_to_class
    before = dict(known)
    for name in [
        name for name, cls in known.items() if has_config_folders_from_file() and issubclass(cls, Launcher | Sweeper)
    ]:
        if not name.startswith(("neuro_lightning.", f"{BASIC_LAUNCHER}.")):
            del known[name]
    for name in (*SWEEPERS, *LAUNCHERS):
        module, _, cls = name.rpartition(".")
        Plugins.instance().register(getattr(import_module(f"neuro_lightning.sweeps.{module}"), cls))
    try:
        yield
    finally:
        known.clear()
        known.update(before)


@_exit_on_interrupt
def predict() -> None:
    """``python predict.py`` and ``neuro-predict``."""
    if _print_help("predict"):
        return
    sys.argv[1:] = add_trusted_packages(sys.argv[1:])
    _hydra_app("predict", _predict_task)


def _hydra_app(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the config of the command line and hand it to a task."""
    plugins = _register_plugins() if config_name == "train" else nullcontext()
    with plugins, execution_whitelist(HYDRA_NAMES):
        hydra.main(config_path=CONF, config_name=config_name)(task)()


def _train_task(cfg: DictConfig) -> float:
    overrides = list(HydraConfig.get().overrides.task)
    if _in_sweep():
        return _report_errors(lambda: _sweep_job(cfg, overrides), sweep=True, worst=_worst_objective(cfg.mode))
    folder = Path(HydraConfig.get().runtime.output_dir)
    with copy_output(folder) if is_main_process() else nullcontext():
        return _report_errors(lambda: _run(cfg, overrides), sweep=False)


def _sweep_job(cfg: DictConfig, overrides: list[str]) -> float:
    """A job of a sweep, or what is left to do of it."""
    from neuro_lightning.artifacts.locks import locked_folder
    from neuro_lightning.sweeps.jobs import decide

    _check_typed_overrides(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)

    def announce_wait() -> None:
        _print_to_terminal(f"{folder.name}: another process trains it, waits for that one")

    with locked_folder(folder, _lock_timeout_s(cfg), announce_wait) as acquired:
        if not acquired:
            _print_to_terminal(f"{folder.name}: another process trains it, left to that one")
            return _worst_objective(cfg.mode)
        job = decide(folder, overrides, start=cfg.resume)
        if job.message:
            _print_to_terminal(job.message)
        if job.kind == "done":
            return _worst_objective(cfg.mode) if job.objective is None else job.objective
        cfg.resume = str(job.checkpoint) if job.checkpoint else None
        return _run(cfg, overrides, Path(HydraConfig.get().sweep.dir).name)


def _lock_timeout_s(cfg: DictConfig) -> float:
    """Seconds for which a job waits for another process that is at work in its folder."""
    if cfg.sweep.until is not None:  # the process of the step before, which is about to end
        return STEP_TIMEOUT_S
    # the worker of a search that was killed: what comes next depends on its score; a grid's jobs depend on nobody
    return 0.0 if cfg.sweep.trial is None else math.inf


def _print_to_terminal(line: str) -> None:
    print(line, file=getattr(sys.stdout, "terminal", None), flush=True)  # not into the job's file


def _check_typed_overrides(cfg: DictConfig) -> None:
    """Refuse settings that decide which code runs, unless they were typed."""
    hydra = HydraConfig.get()
    check_trusted(cfg.trusted, hydra.overrides.task)
    check_environment(hydra.job.env_set, hydra.overrides.hydra)


def _run(cfg: DictConfig, overrides: list[str], group: str | None = None) -> float:
    from neuro_lightning.runs.train import train

    _check_typed_overrides(cfg)
    return train(cfg, overrides, group)


def _predict_task(cfg: DictConfig) -> Path:
    from neuro_lightning.runs.predict import predict

    def job() -> Path:
        _check_typed_overrides(cfg)
        return predict(cfg)

    return _report_errors(job, sweep=False)


def _worst_objective(mode: str) -> float:
    """The objective of a job that failed: a search must not take it for a good one."""
    return math.inf if mode == "min" else -math.inf


def _in_sweep() -> bool:
    return str(HydraConfig.get().mode).endswith("MULTIRUN")


def _report_errors(job: Callable[[], Any], *, sweep: bool, worst: float = math.nan) -> Any:
    """Run a job and print an error that the user can mend as one message; in a sweep return ``worst`` for it."""
    try:
        return job()
    except Interrupted as error:
        atexit.register(_print_error, error)  # below a sweep's table
        sys.exit(130)  # also out of a sweep
    except Exception as error:
        if full := _full_disk_message(error):
            sys.exit(f"error: {full}")  # out of a sweep, too: every other job would meet the same
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if not isinstance(error, NeuroError) and (forbidden := forbidden_path(error)):
            error = NeuroError(forbidden)
        if not sweep and not isinstance(error, NeuroError):
            raise
        if not isinstance(error, NeuroError):
            logging.getLogger(__name__).exception("the job failed")
        if not sweep:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
        return worst


def _print_error(error: Interrupted) -> None:
    print(error, file=sys.stderr)


def _full_disk_message(error: BaseException | None) -> str:
    """One line, if a full disk is behind an error; else nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({error.filename} could not be written)" if error.filename else ""
            sweep = f"-m sweep.resume={shlex.quote(HydraConfig.get().sweep.dir)}" if _in_sweep() else "resume=FOLDER"
            return f"the disk is full{where}: make room, then go on with: python train.py {sweep}"
        error = error.__cause__ or error.__context__
    return ""
