"""``output.log``: what a run or a job of a sweep prints, kept in its folder. Nothing heavy is imported here."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

OUTPUT_FILE = "output.log"
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")  # colours, links, cursor


class JobOutput:
    """A file that stands in for the terminal: what a job of a sweep prints lies in its folder.

    Attributes:
        terminal: where a progress bar goes, and the one line that says how the job ended.
    """

    def __init__(self, path: Path, terminal: TextIO) -> None:
        self._file = _opened(path)
        self.terminal = terminal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Copied:
    """A terminal whose lines are copied into a file as they look in the end: no colours, one line for a bar.

    Args:
        stream: the terminal, or what stands in for it.
        file: the lines' file; nothing is copied once it is closed.
    """

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file, self._line = stream, file, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the terminal, and all lines that are now complete to the file."""
        written = self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._keep(line)
        self._line = _after_return(self._line)
        return written

    def writelines(self, lines: Any) -> None:
        """As a stream's."""
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Keep a last line that nothing has ended."""
        if self._line:
            self._keep(self._line)
            self._line = ""

    def _keep(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a full disk ends a run where it loses something; a closed file
            self._file.write(ESCAPES.sub("", _after_return(line.rstrip("\r"))).rstrip() + "\n")


@contextmanager
def kept_output(folder: Path) -> Iterator[None]:
    """Copy what is printed into a run's ``output.log``, and the error that ends it; a resumed run goes on there.

    Messages of ``logging`` that go to the terminal are copied, too.
    """
    try:
        file = _opened(folder / OUTPUT_FILE)
    except OSError:  # of a folder that cannot be written the run itself has something to say
        yield
        return
    before = sys.stdout, sys.stderr
    copies = [_Copied(stream, file) for stream in before]
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    streams = [(handler, handler.stream) for handler in handlers if handler.stream in before]
    sys.stdout, sys.stderr = copies
    for handler, stream in streams:
        handler.setStream(copies[before.index(stream)])
    try:
        yield
    except BaseException as error:
        for copy in copies:
            copy.end()
        with suppress(OSError):
            file.write(_said_of(error))
        raise
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in streams:
            handler.setStream(stream)
        for copy in copies:
            copy.end()
        with suppress(OSError):
            file.close()


def _said_of(error: BaseException) -> str:
    """What the terminal will show of an error that ends a command."""
    if isinstance(error, SystemExit):
        said = error.code if isinstance(error.code, str) else error.__context__
        return f"{said}\n" if said else ""
    return "".join(traceback.format_exception(error))


def _after_return(line: str) -> str:
    """What stands in a line of a terminal whose beginning is overwritten after each carriage return.

    A return at the end has overwritten nothing yet.
    """
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


def _opened(path: Path) -> TextIO:
    return open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
