"""The two commands. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import errno
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuro_lightning.artifacts.checkpoint_files import resumable
from neuro_lightning.artifacts.lines import announce, error_line
from neuro_lightning.artifacts.locks import locked_folder
from neuro_lightning.artifacts.output import copy_output, print_to_terminal, terminal
from neuro_lightning.artifacts.records import newest_finished_run
from neuro_lightning.display.table import relative
from neuro_lightning.errors import CheckpointError, ConfigError, Interrupted, NeuroError, forbidden_path
from neuro_lightning.private_names import BASIC_LAUNCHER
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.resume import LATEST_ROOT, resume_arguments, resume_requeued_job
from neuro_lightning.settings import config  # noqa: F401  # which guards the environment before anything is composed
from neuro_lightning.settings.conf_folder import CONF
from neuro_lightning.settings.help_page import help_page
from neuro_lightning.settings.options import check_options, check_prediction, file_options, hydra_message
from neuro_lightning.settings.overrides import (
    CONFIG_FOLDERS,
    add_trusted_packages,
    check_environment,
    check_trusted,
    config_folders_from_file,
)
from neuro_lightning.settings.quoting import override, typed_value
from neuro_lightning.settings.registry import HYDRA_NAMES
from neuro_lightning.settings.session_words import expand_sessions
from neuro_lightning.settings.typed_words import MULTIRUN, check_single, parse_words
from neuro_lightning.sweeps.arguments import sweep_arguments
from neuro_lightning.sweeps.grid import Grid
from neuro_lightning.sweeps.jobs import decide
from neuro_lightning.sweeps.launchers import LAUNCHERS
from neuro_lightning.sweeps.population_sweeper import PopulationSweeper
from neuro_lightning.sweeps.results.best import register_experiment_files
from neuro_lightning.sweeps.search.sweeper import Search

# Threads that wait for each other by spinning slow a recurrent network down a hundredfold as soon as anything else runs
# on the machine; sleeping costs next to nothing. It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SWEEPERS = (Grid, Search, PopulationSweeper)
STEP_TIMEOUT_S = 60.0  # for a process that is about to leave a job's folder


def train() -> None:
    """``python train.py`` and ``neuro-train``."""
    _run_command("train", train_arguments, train_task)


def predict() -> None:
    """``python predict.py`` and ``neuro-predict``."""
    _run_command("predict", predict_arguments, predict_task)


def _run_command(name: str, prepare: Callable[[list[str]], list[str]], task: Callable[[DictConfig], Any]) -> None:
    """Print the help page if it is asked for; else run the command. Errors that the user can mend are one line."""
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            program = Path(sys.argv[0]).name
            program = f"python {program}" if program.endswith(".py") else program
            print(help_page(name, program, CONF, sys.argv[1:]))
            return
        typed = sys.argv[1:]
        sys.argv[1:] = prepare(typed)
        hydra_app(name, task, typed)
    except NeuroError as error:
        sys.exit(error_line(error))
    except KeyboardInterrupt:  # before a run has begun
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if isinstance(stop.__cause__, Interrupted):
            print(stop.__cause__, file=sys.stderr)  # below a sweep's table
        raise


def train_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of ``train.py`` as Hydra reads it: resumed runs and sweeps and experiment files are filled in.

    Raises:
        NeuroError: a word that names nothing, or several values without ``-m``.
    """
    words = resume_requeued_job(add_trusted_packages(expand_sessions(arguments)))
    words = register_experiment_files(sweep_arguments(resume_arguments(words)))
    check_options(words, CONF)
    check_single(words)
    return words


def predict_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of ``predict.py`` as Hydra reads it; ``ckpt=latest`` names the run that finished last.

    Raises:
        CheckpointError: no run has finished.
        ConfigError: a word that cannot be.
    """
    check_prediction(arguments, CONF)
    words = add_trusted_packages(list(arguments))
    if typed_value(words, "ckpt") != "latest":
        return words
    if (newest := newest_finished_run(LATEST_ROOT)) is None:
        raise CheckpointError(
            f"ckpt=latest: no run under {LATEST_ROOT}/ has finished; give ckpt=RUN, the folder of a run"
        )
    print(f"ckpt=latest is {newest}")
    return [override("ckpt", newest) if word.startswith("ckpt=") else word for word in words]


def compose_config(name: str, words: Sequence[str]) -> DictConfig:
    """The config of a command for the words of its command line, without a run.

    Args:
        name: ``train`` or ``predict``.
        words: see :func:`train_arguments`.

    Raises:
        ConfigError: a word that cannot be, in one line.
    """
    begin = hydra.initialize_config_module if CONF.startswith("pkg://") else hydra.initialize_config_dir
    try:
        with begin(CONF.removeprefix("pkg://")):
            return hydra.compose(name, overrides=list(words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_message(error, _keys(name, words))) from None


def _keys(name: str, words: Sequence[str]) -> list[str]:
    """All keys of the config with the groups' options that are chosen, such as ``model.optimizer.lr``."""
    begin = hydra.initialize_config_module if CONF.startswith("pkg://") else hydra.initialize_config_dir
    groups = [word for word in words if file_options(CONF, word.lstrip("+").partition("=")[0].partition("@")[0])]
    try:
        with begin(CONF.removeprefix("pkg://")):
            tree = OmegaConf.to_container(hydra.compose(name, overrides=groups))
    except (HydraException, OmegaConfBaseException):
        return []
    return list(_dotted(tree))


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield f"{prefix}{key}"
        yield from _dotted(value, f"{prefix}{key}.")


def hydra_app(name: str, task: Callable[[DictConfig], Any], typed: Sequence[str]) -> None:
    """Let Hydra compose the config of the command line and hand it to a task.

    Args:
        name: ``train`` or ``predict``.
        task: what is done with the config.
        typed: the command line as it was typed, before files added to it.

    Raises:
        ConfigError: a word that cannot be; Hydra itself takes five lines to say so.
    """
    words = sys.argv[1:]
    if not any(word.startswith(("-", "hydra.mode=")) and word not in MULTIRUN for word in words):
        # a sweep's own config is composed without what is swept
        compose_config(name, [word for word, parsed in parse_words(words) if not parsed.is_sweep_override()])
    folders = config_folders_from_file(words, typed)
    with _register_plugins(folders) if name == "train" else nullcontext(), execution_whitelist(HYDRA_NAMES):
        hydra.main(config_path=CONF, config_name=name)(task)()


@contextmanager
def _register_plugins(config_folders: Sequence[str]) -> Iterator[None]:
    """Register our sweepers and launchers with Hydra, which builds registered ones only; undone afterwards.

    Args:
        config_folders: of configs that a resumed sweep's folder names. They may choose ours only, which check their
            commands.
    """
    known = Plugins.instance().class_name_to_class
    before = dict(known)
    for name, plugin in before.items() if config_folders else ():
        if issubclass(plugin, Launcher | Sweeper) and not name.startswith(("neuro_lightning.", f"{BASIC_LAUNCHER}.")):
            del known[name]
    for plugin in (*SWEEPERS, *LAUNCHERS):
        Plugins.instance().register(plugin)
    token = CONFIG_FOLDERS.set(config_folders)
    try:
        yield
    finally:
        CONFIG_FOLDERS.reset(token)
        known.clear()
        known.update(before)


def train_task(cfg: DictConfig) -> float:
    """Train what a composed config of ``train.py`` says: a run, or a job of a sweep."""
    overrides = list(HydraConfig.get().overrides.task)
    if _in_sweep():
        return _report_errors(lambda: _sweep_job(cfg, overrides), sweep=True, worst=_worst_objective(cfg.mode))
    folder = Path(HydraConfig.get().runtime.output_dir)
    with copy_output(folder) if is_main_process() else nullcontext():
        return _report_errors(lambda: _run(cfg, overrides), sweep=False)


def _sweep_job(cfg: DictConfig, overrides: list[str]) -> float:
    """A job of a sweep, or what is left to do of it."""
    _check_typed_overrides(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)

    def announce_wait() -> None:
        print_to_terminal(f"{folder.name}: waits for another process, which trains it")

    with locked_folder(folder, _lock_timeout_s(cfg), announce_wait) as acquired:
        if not acquired:
            print_to_terminal(f"{folder.name}: left to another process, which trains it")
            return _worst_objective(cfg.mode)
        job = decide(folder, overrides, start=cfg.resume)
        if job.message:
            print_to_terminal(job.message)
        if job.kind == "done":
            return _worst_objective(cfg.mode) if job.objective is None else job.objective
        cfg.resume = str(job.checkpoint) if job.checkpoint else None
        return _run(cfg, overrides, Path(HydraConfig.get().sweep.dir).name)


def _lock_timeout_s(cfg: DictConfig) -> float:
    """Seconds for which a job waits for another process that is at work in its folder."""
    if cfg.sweep.until is not None:  # the process of the step before, which is about to end
        return STEP_TIMEOUT_S
    # the worker of a search that was killed: the next trial depends on its score; a grid's jobs are independent
    return 0.0 if cfg.sweep.trial is None else math.inf


def _check_typed_overrides(cfg: DictConfig) -> None:
    """Refuse settings that decide which code runs, unless they were typed."""
    hydra = HydraConfig.get()
    check_trusted(cfg.trusted, hydra.overrides.task)
    check_environment(hydra.job.env_set, hydra.overrides.hydra)


def _run(cfg: DictConfig, overrides: list[str], group: str | None = None) -> float:
    _check_typed_overrides(cfg)
    announce("train", " ".join(overrides) or "the defaults")
    from neuro_lightning.runs.members import train_run  # with torch, which takes seconds

    return train_run(cfg, overrides, group)


def predict_task(cfg: DictConfig) -> Path:
    """Predict what a composed config of ``predict.py`` says; the file that was written."""

    def job() -> Path:
        _check_typed_overrides(cfg)
        announce("predict", " ".join(HydraConfig.get().overrides.task))
        from neuro_lightning.runs.predict import predict  # with torch, which takes seconds

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
        raise SystemExit(130) from error  # also out of a sweep
    except Exception as error:
        if full := _full_disk_message(error):
            sys.exit(error_line(full))  # out of a sweep, too: every other job would meet the same
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if not isinstance(error, NeuroError) and (forbidden := forbidden_path(error)):
            error = NeuroError(forbidden)
        known = isinstance(error, NeuroError)
        if not sweep:
            if known:
                sys.exit(error_line(error))
            raise
        if not known:
            logging.getLogger(__name__).exception("the job failed")
        # where jobs are a line each, that line says it
        print(f"error: {error}", file=sys.stdout if terminal() is not sys.stdout else sys.stderr)
        return worst


def _full_disk_message(error: BaseException) -> str:
    """One line, if a full disk is behind an error; else nothing."""
    cause: BaseException | None = error
    while not (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)):
        if cause is None:
            return ""
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, NeuroError):  # which names the file and what to do
        return f"{error}{_resume_words('; then resume with: ')}"
    where = f" ({cause.filename} could not be written)" if cause.filename else ""
    return f"the disk is full{where}: make room{_resume_words(', then resume with: ') or ', then start it again'}"


def _resume_words(before: str) -> str:
    """How the run or the sweep at work is resumed; nothing where there is no checkpoint."""
    if _in_sweep():
        return f"{before}python train.py -m sweep.resume={shlex.quote(HydraConfig.get().sweep.dir)}"
    folder = HydraConfig.get().runtime.output_dir
    return f"{before}python train.py resume={shlex.quote(str(relative(folder)))}" if resumable(folder) else ""
