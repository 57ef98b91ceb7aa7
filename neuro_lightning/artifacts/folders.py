"""The folders of runs and sweeps: each has one process at work in it, and no run is written over another unasked.

Hydra calls :class:`ClaimFolder` when a command's config is composed and nothing is written yet. Nothing heavy is
imported here.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from neuro_lightning.artifacts.locks import at_work, enter, is_entered, leave, new_folder, wait_for_signature
from neuro_lightning.artifacts.output import OUTPUT_FILE
from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.errors import ConfigError, FolderError, NeuroError
from neuro_lightning.ranks import is_main_process, started_together

CLOCK = "${now:"  # in the name of a folder that is made up from the time
KEPT = ("finished", "pruned", "paused", "diverged")  # runs whose record is worth something without a checkpoint
# what a run writes, and overwrite=true deletes
WRITTEN = (
    FILE_NAME, "metrics.csv", OUTPUT_FILE, "train.log", ".job.json", "checkpoints/*.ckpt", "figures/*.png",
    "figures/*.pdf", "figures/*.svg", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
)  # fmt: skip


@contextmanager
def claimed_run(folder: str | Path, *, resume: str | None = None, overwrite: bool = False) -> Iterator[None]:
    """Keep a run's folder for this process, and for this run; nothing in processes that follow the main one.

    Args:
        folder: the run's.
        resume: the checkpoint that the run goes on from; one of this folder's lets it stay as it is.
        overwrite: delete what an earlier run has left there; see :data:`WRITTEN`.

    Raises:
        FolderError: another process is at work there, or it holds another run.
    """
    if not is_main_process():
        yield
        return
    claim_run(folder, resume=resume, overwrite=overwrite)
    try:
        yield
    finally:
        leave(folder)


def claim_run(folder: str | Path, *, resume: str | None = None, overwrite: bool = False) -> None:
    """As :func:`claimed_run`, until :func:`~neuro_lightning.artifacts.locks.leave`.

    Where this process has claimed the folder already, as the command line and a sweep do, that has been looked over.
    """
    folder = Path(folder)
    looked_over = is_entered(folder)
    if not enter(folder, command=sys.argv):
        raise FolderError(
            f"{folder} is in use by {at_work(folder)}: wait for its end, or give this run a folder of its own "
            "(hydra.run.dir=...)"
        )
    try:
        if looked_over or (resume is not None and Path(resume).resolve().is_relative_to(folder.resolve())):
            return
        if overwrite:
            clear_run(folder)
        elif status := run_in(folder):
            raise FolderError(
                f"{folder} holds a run already ({status}): resume={shlex.quote(str(folder))} goes on with it, "
                "overwrite=true replaces it, hydra.run.dir=... takes another folder"
            )
    except BaseException:
        leave(folder)
        raise


def run_in(folder: Path) -> str:
    """The status of the run that a folder holds; empty where there is nothing to lose, as after an early error."""
    try:
        status = str(read_record(folder).get("status")) if (folder / FILE_NAME).is_file() else "no run.json"
    except NeuroError:
        status = "damaged"
    log = folder / "metrics.csv"
    trained = (log.is_file() and log.stat().st_size > 0) or any((folder / "checkpoints").glob("*.ckpt"))
    return status if trained or status in KEPT else ""


def clear_run(folder: Path) -> None:
    """Delete what a run has written into its folder, and nothing else."""
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()
    for name in ("checkpoints", "figures"):
        if (folder / name).is_dir() and not (folder / name).is_symlink() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


class ClaimFolder(Callback):
    """Claims the folder of a run or of a sweep before anything is written there.

    A folder that is named by the clock is always a new one: where the name is taken, by a run begun in the same
    second, it gets a number. A folder that is named otherwise is the one that is meant.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder of a run."""
        with said_in_one_line():
            by_clock = CLOCK in _raw(config, "run")
            if by_clock and started_together() > 1:
                raise ConfigError(
                    f"{started_together()} processes were started together, each of which would name the run's folder "
                    "by its own clock: name it for all of them, hydra.run.dir=FOLDER"
                )
            if not is_main_process():  # the folder is the main process's, and what Hydra notes there
                with read_write(config.hydra), open_dict(config.hydra):
                    config.hydra.output_subdir = None
                return
            folder = Path(config.hydra.run.dir)
            if by_clock:
                folder = new_folder(folder)
                _set(config, "run", folder)
            claim_run(folder, resume=config.get("resume"), overwrite=bool(config.get("overwrite")))
            self._folder = folder.resolve()

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Let others in."""
        self._leave()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder of a sweep."""
        with said_in_one_line():
            folder, words = Path(config.hydra.sweep.dir), list(config.hydra.overrides.task)
            if CLOCK in _raw(config, "sweep"):
                folder = new_folder(folder)
                _set(config, "sweep", folder)
                with read_write(config.hydra.overrides):  # of which the jobs are composed
                    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={_quoted(folder)}")
                HydraConfig.instance().set_config(config)
            if enter(folder, command=words):
                self._folder = folder.resolve()
            elif not _shared(config, folder, words):
                raise FolderError(
                    f"{folder}: another sweep is at work there ({at_work(folder)}): wait for its end, or give this "
                    "one a folder of its own (hydra.sweep.dir=...)"
                )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Let others in."""
        self._leave()

    def _leave(self) -> None:
        if self._folder is not None:
            leave(self._folder)
            self._folder = None


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """End the command with what is wrong: of a callback's error Hydra would make a warning, and go on."""
    try:
        yield
    except NeuroError as error:
        sys.exit(f"error: {error}")


def _shared(config: DictConfig, folder: Path, words: Sequence[str]) -> bool:
    """Whether processes may run this sweep together: a search knows by its study, any other is the same command."""
    target = str(config.hydra.sweeper.get("_target_"))
    return target.endswith(".Search") or sorted(wait_for_signature(folder).get("command") or ()) == sorted(words)


def _raw(config: DictConfig, mode: str) -> str:
    raw: Any = OmegaConf.to_container(config.hydra[mode], resolve=False)
    return str(raw["dir"])


def _set(config: DictConfig, mode: str, folder: Path) -> None:
    with read_write(config.hydra):
        config.hydra[mode].dir = str(folder)


def _quoted(folder: Path) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(folder), Quote.single).with_quotes()
