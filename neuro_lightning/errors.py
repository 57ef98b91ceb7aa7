"""The errors a user can mend: each names the file or the config key, what is wrong, and how to put it right."""

import errno
import functools
import sys
from collections.abc import Callable, Sequence

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
"""What the system says of a place where nothing can be written; a file in a folder's place is among it."""
ELSEWHERE = (
    "choose another folder with hydra.run.dir (of a run), hydra.sweep.dir (of a sweep), paths.data (of data and "
    "simulated twins), paths.cache or, in predict.py, file"
)


def forbidden_path(error: BaseException | None) -> str:
    """One line, if an error or its cause is that a path may not be written or opened; else nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename is not None:
            return f"{error.filename} cannot be written or opened ({error.strerror}): {ELSEWHERE}"
        error = error.__cause__
    return ""


class NeuroError(Exception):
    """Base of all errors that are shown as one message, without a traceback."""


class DataError(NeuroError):
    """A data file is missing, damaged, or is not what the config says it is."""


class ConfigError(NeuroError):
    """A config key is unknown, contradicts another, or names something that does not exist."""


class CheckpointError(NeuroError):
    """A checkpoint is missing, damaged, or belongs to other data."""


class DivergedError(CheckpointError):
    """A checkpoint holds weights of a training that diverged."""


class FolderError(NeuroError):
    """A folder cannot be written, is in use, or holds another run."""


class Interrupted(NeuroError):
    """The user stopped a run."""


class SubmissionError(NeuroError):
    """A submission or target file does not hold what the benchmark expects."""


def errors_in_one_line(main: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """A command that prints an error that the user can mend as one line, and returns the exit status, 0 or 1.

    Args:
        main: takes the command line, by default that of the process.
    """

    @functools.wraps(main)
    def command(arguments: Sequence[str] | None = None) -> int:
        try:
            main(arguments)
        except NeuroError as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            print(f"error: {error.filename} cannot be read or written ({error.strerror or error})", file=sys.stderr)
        else:
            return 0
        return 1

    return command
