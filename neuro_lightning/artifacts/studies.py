"""The study of a search on disk: a file by default, or any of Optuna's storages by URL."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from neuro_lightning.errors import ConfigError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import Trial


def open_storage(where: str) -> BaseStorage:
    """A storage that several processes may have open at once.

    Args:
        where: a path, of a journal that is made when it is not there and may lie on a network file system; or a URL
            such as ``sqlite:///study.db``, ``postgresql://...`` or ``redis://...``.

    Raises:
        ConfigError: it cannot be reached, or is none.
    """
    with quiet_optuna():
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

        try:
            if where.startswith("redis"):
                return JournalStorage(JournalRedisBackend(where))
            if "://" in where:
                return optuna.storages.get_storage(where)
            path = Path(where).resolve()  # the lock beside it is a symbolic link
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_torn_line(path)
            return JournalStorage(JournalFileBackend(str(path)))
        except ImportError as error:
            missing = error.name or getattr(error.__cause__, "name", None) or first_line(error)
            raise ConfigError(
                f"hydra.sweeper.storage={shown(where)} needs a package that is not installed: {missing}"
            ) from None
        except Exception as error:
            raise ConfigError(f"hydra.sweeper.storage={shown(where)} cannot be opened: {first_line(error)}") from None


def running_trial(study: Study, storage: BaseStorage, number: int) -> Trial:
    """A trial that another process, or an earlier one, asked of the study.

    Args:
        study: the study.
        storage: in which it lies.
        number: the trial's.
    """
    from optuna.trial import Trial

    study_id = storage.get_study_id_from_name(study.study_name)
    return Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def remove_torn_line(path: Path) -> None:
    """Remove the last line of a journal if a process was killed while writing it: the next one would be added to it."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if not path.is_file() or _ends_with_newline(path):
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        if not _ends_with_newline(path):
            with open(path, "rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def shown(where: str) -> str:
    """A storage's address without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", where)


def first_line(error: Exception) -> str:
    """The first line of an error's message, without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0]) if lines else type(error).__name__


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's warnings on experimental functions and its log of every trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", module="optuna")
            yield
    finally:
        optuna.logging.set_verbosity(before)
