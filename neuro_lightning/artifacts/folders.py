"""The folders of runs and sweeps: one process writes into each, and a run is overwritten only on request.

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

from neuro_lightning.artifacts.atomic import delete_unfinished
from neuro_lightning.artifacts.checkpoint_files import member_folders, resumable, run_folder
from neuro_lightning.artifacts.locks import (
    folder_lock_holder,
    holds_folder_lock,
    lock_folder,
    new_folder,
    read_folder_lock,
    unlock_folder,
)
from neuro_lightning.artifacts.output import OUTPUT_FILE
from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.errors import ELSEWHERE, ConfigError, FolderError, NeuroError
from neuro_lightning.ranks import count_launched_processes, is_main_process

HYDRA_BYTES = 1 << 16  # more than Hydra writes into the folder of a run
TIME_RESOLVER = "${now:"  # in the name of a folder that is made up from the time
KEPT_STATUSES = (
    "finished",
    "pruned",
    "paused",
    "diverged",
)  # runs whose record is kept also without a checkpoint
# what a run writes, and overwrite=true deletes
RUN_FILES = (
    FILE_NAME, "metrics.csv", "trial_scores.npz", "trial_scores/*.npz", OUTPUT_FILE, "train.log", ".job.json",
    "checkpoints/*.ckpt", "figures/*.png", "figures/*.pdf", "figures/*.svg",
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
)  # fmt: skip


@contextmanager
def claimed_run_folder(folder: str | Path, *, resume: str | None = None, overwrite: bool = False) -> Iterator[None]:
    """Lock a run's folder for this process, and check that it holds no other run; only in the main process.

    Checkpoints that a killed process has left half-written are deleted.

    Args:
        folder: the run's.
        resume: the checkpoint from which the run resumes; with one of this folder nothing is deleted.
        overwrite: delete what an earlier run has left there; see :data:`RUN_FILES`.

    Raises:
        FolderError: another process is at work there, or it holds another run.
    """
    if not is_main_process():
        yield
        return
    claim_run_folder(folder, resume=resume, overwrite=overwrite)
    try:
        delete_unfinished(Path(folder) / "checkpoints")
        yield
    finally:
        unlock_folder(folder)


def claim_run_folder(folder: str | Path, *, resume: str | None = None, overwrite: bool = False) -> None:
    """As :func:`claimed_run_folder`, until :func:`~neuro_lightning.artifacts.locks.unlock_folder`.

    Where this process has claimed the folder already, as the command line and a sweep do, it has been checked.
    """
    folder = Path(folder)
    claimed_before = holds_folder_lock(folder)
    if not lock_folder(folder, command=sys.argv):
        raise FolderError(
            f"{folder} is in use by {folder_lock_holder(folder)}: wait for its end, or give this run a folder of its "
            "own (hydra.run.dir=...)"
        )
    try:
        if claimed_before or (resume is not None and _is_of_run(Path(resume), folder)):
            return
        if overwrite:
            delete_run_files(folder)
        elif status := kept_run_status(folder):
            resumes = f"resume={shlex.quote(str(folder))} resumes it, " if resumable(folder) else ""
            raise FolderError(
                f"{folder} holds a run already ({status}): {resumes}overwrite=true replaces it, hydra.run.dir=... "
                "takes another folder"
            )
    except BaseException:
        unlock_folder(folder)
        raise


def _is_of_run(checkpoint: Path, folder: Path) -> bool:
    """Whether a checkpoint lies in a run's folder, in which ``checkpoints`` may be a link to elsewhere."""
    real = folder.resolve()
    return checkpoint.resolve().is_relative_to(real) or run_folder(checkpoint).resolve() == real


def kept_run_status(folder: Path) -> str:
    """The status of a folder's run; empty where nothing would be lost, as after an early error."""
    try:
        status = str(read_record(folder).get("status")) if (folder / FILE_NAME).is_file() else "no run.json"
    except NeuroError:
        status = "damaged"
    log = folder / "metrics.csv"
    trained = (log.is_file() and log.stat().st_size > 0) or any((folder / "checkpoints").glob("*.ckpt"))
    trained = trained or any(map(kept_run_status, member_folders(folder)))
    return status if trained or status in KEPT_STATUSES else ""


def delete_run_files(folder: Path) -> None:
    """Delete what a run has written into its folder, and nothing else; that of its members, too."""
    for member in member_folders(folder):
        delete_run_files(member)
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()
    for name in ("checkpoints", "figures"):
        if (folder / name).is_dir() and not (folder / name).is_symlink() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def check_room(folder: Path) -> None:
    """Refuse a folder on a full disk, where Hydra would end the command with a traceback.

    Raises:
        FolderError: what Hydra writes does not fit.
    """
    tried = folder / ".room"
    try:
        tried.write_bytes(bytes(HYDRA_BYTES))
    except OSError as error:
        raise FolderError(f"{folder} cannot be written ({error.strerror}): {ELSEWHERE}") from None
    finally:
        tried.unlink(missing_ok=True)


class ClaimFolder(Callback):
    """Claims the folder of a run or of a sweep before anything is written there.

    A folder that is named by the time is always a new one: where a run that began in the same second has the name,
    it gets a number. A folder with any other name is used as it is.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder of a run."""
        with exit_on_error():
            named_by_time = TIME_RESOLVER in _unresolved_dir(config, "run")
            if named_by_time and (processes := count_launched_processes()) > 1:
                raise ConfigError(
                    f"{processes} processes were started together, each of which would name the run's folder "
                    "by its own clock: name it for all of them, hydra.run.dir=FOLDER"
                )
            if not is_main_process():  # the folder is the main process's, and what Hydra notes there
                with read_write(config.hydra), open_dict(config.hydra):
                    config.hydra.output_subdir = None
                return
            folder = Path(config.hydra.run.dir)
            if named_by_time:
                folder = new_folder(folder)
                _set_dir(config, "run", folder)
            claim_run_folder(folder, resume=config.get("resume"), overwrite=bool(config.get("overwrite")))
            self._folder = folder.resolve()
            check_room(folder)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Release the folder."""
        self._unlock()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder of a sweep."""
        with exit_on_error():
            folder, words = Path(config.hydra.sweep.dir), list(config.hydra.overrides.task)
            if TIME_RESOLVER in _unresolved_dir(config, "sweep"):
                folder = new_folder(folder)
                _set_dir(config, "sweep", folder)
                with read_write(config.hydra.overrides):  # of which the jobs are composed
                    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={_quoted(folder)}")
                HydraConfig.instance().set_config(config)
            if lock_folder(folder, command=words):
                self._folder = folder.resolve()
                check_room(folder)
            elif not _may_share(config, folder, words):
                raise FolderError(
                    f"{folder}: another sweep is at work there ({folder_lock_holder(folder)}): wait for its end, or "
                    "give this one a folder of its own (hydra.sweep.dir=...)"
                )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Release the folder."""
        self._unlock()

    def _unlock(self) -> None:
        if self._folder is not None:
            unlock_folder(self._folder)
            self._folder = None


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command with the error's message: Hydra turns a callback's error into a warning and continues."""
    try:
        yield
    except NeuroError as error:
        sys.exit(f"error: {error}")


def _may_share(config: DictConfig, folder: Path, words: Sequence[str]) -> bool:
    """Whether several processes may run this sweep: a search checks its study, others need the same command."""
    target = str(config.hydra.sweeper.get("_target_"))
    return target.endswith(".Search") or sorted(read_folder_lock(folder).get("command") or ()) == sorted(words)


def _unresolved_dir(config: DictConfig, mode: str) -> str:
    raw: Any = OmegaConf.to_container(config.hydra[mode], resolve=False)
    return str(raw["dir"])


def _set_dir(config: DictConfig, mode: str, folder: Path) -> None:
    with read_write(config.hydra):
        config.hydra[mode].dir = str(folder)


def _quoted(folder: Path) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(folder), Quote.single).with_quotes()
