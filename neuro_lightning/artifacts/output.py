"""``output.log``: what a run or a job of a sweep prints, kept in its folder. Nothing heavy is imported here."""

from __future__ import annotations

import logging
import multiprocessing
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from neuro_lightning.artifacts.lines import WIDTH, labelled, say, shortened
from neuro_lightning.ranks import is_main_process

OUTPUT_FILE = "output.log"
ERASE = "\r\x1b[2K"  # a terminal's line
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")  # colours, links, cursor


class JobOutput:
    """A file in place of the terminal: it keeps what a job of a sweep prints, in the job's folder.

    Attributes:
        terminal: where a progress bar goes, and the one line that says how the job ended.
        title: the job, for the terminal's last line while it runs.
        represents_others: that are trained with it: what is trained and, where there is no terminal, how far it is are
            printed there as well as kept.
    """

    def __init__(
        self, path: Path, terminal: TextIO | WithoutBars, title: str = "", *, represents_others: bool = False
    ) -> None:
        self._file = _open_log(path)
        self.terminal, self.title, self.represents_others = terminal, title, represents_others
        self._shown = False

    def show_status(self, text: str) -> None:
        """Show the job and what it does as the last line of a terminal, where no other job writes into it."""
        if self.terminal.isatty() and multiprocessing.current_process().name == "MainProcess":
            self.terminal.write(f"{ERASE}{f'{self.title}  {text}'[: WIDTH - 1]}")
            self.terminal.flush()
            self._shown = True

    def clear_status(self) -> None:
        """Take that line away."""
        if self._shown:
            self.terminal.write(ERASE)
            self.terminal.flush()
            self._shown = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class WithoutBars:
    """A terminal that does not say so: lines are printed there, no progress bars.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """No."""
        return False


class _CopyingStream:
    """A terminal whose lines are copied into a file as they finally look: no colours, one line for a bar.

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
            self._write_line(line)
        self._line = _visible_text(self._line)
        return written

    def writelines(self, lines: Any) -> None:
        """As a stream's."""
        for line in lines:
            self.write(line)

    def flush_line(self) -> None:
        """Write a last line that has no line break."""
        if self._line:
            self._write_line(self._line)
            self._line = ""

    def _write_line(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a full disk ends a run where it loses something; a closed file
            self._file.write(ESCAPES.sub("", _visible_text(line.rstrip("\r"))).rstrip() + "\n")


@contextmanager
def copy_output(folder: Path) -> Iterator[None]:
    """Copy what is printed into a run's ``output.log``, with the error that ends it; a resumed run appends.

    Messages of ``logging`` that go to the terminal are copied, too.
    """
    try:
        file = _open_log(folder / OUTPUT_FILE)
    except OSError:  # the run itself reports a folder that cannot be written
        yield
        return
    before = sys.stdout, sys.stderr
    copies = [_CopyingStream(stream, file) for stream in before]
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    streams = [(handler, handler.stream) for handler in handlers if handler.stream in before]
    sys.stdout, sys.stderr = copies
    for handler, stream in streams:
        handler.setStream(copies[before.index(stream)])
    try:
        yield
    except BaseException as error:
        for copy in copies:
            copy.flush_line()
        with suppress(OSError):
            file.write(_error_text(error))
        raise
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in streams:
            handler.setStream(stream)
        for copy in copies:
            copy.flush_line()
        with suppress(OSError):
            file.close()


def print_progress(line: str) -> None:
    """Print a line of progress, of at most :func:`progress_width`; in the terminal too where the job's file says so."""
    print(line, flush=True)
    if title := _title_of_progress():
        print_to_terminal(f"{title}  {line}")


def print_header_lines(lines: Mapping[str, str]) -> None:
    """Print what is trained, each line labelled; of a job that represents others, in the terminal, too.

    Args:
        lines: by their labels; the folder is the job's own.
    """
    print("\n".join(labelled(name, line) for name, line in lines.items()), flush=True)
    if getattr(sys.stdout, "represents_others", False):
        print_to_terminal("\n".join(labelled(name, line) for name, line in lines.items() if name != "folder"))


def progress_width() -> int:
    """The room for a line of progress, which the job's title may precede."""
    title = _title_of_progress()
    return WIDTH - len(title) - 2 if title else WIDTH


def _title_of_progress() -> str:
    """The job's title, where its lines of progress are printed in the terminal, too."""
    output = sys.stdout
    if isinstance(output, JobOutput) and output.represents_others and not output.terminal.isatty():
        return output.title
    return ""


def print_to_terminal(line: str) -> None:
    """Print a line in the terminal, also where a sweep keeps standard output in a file."""
    clear_status()
    print(line, file=terminal(), flush=True)


def warn(text: str) -> None:
    """Print a warning, in the main process; in a sweep into the job's file, and its beginning in the terminal."""
    say(text, 2)
    if terminal() is not sys.stdout and is_main_process():
        print_to_terminal(shortened(" ".join(text.split())))


def clear_status() -> None:
    """Take away the line that says what a job of a sweep does; what follows is printed in its place."""
    if isinstance(sys.stdout, JobOutput):
        sys.stdout.clear_status()


def terminal() -> Any:
    """Standard output; where a sweep keeps that in a file, what it was before."""
    return getattr(sys.stdout, "terminal", sys.stdout)


def _error_text(error: BaseException) -> str:
    """The text that the terminal will show of an error that ends a command."""
    if isinstance(error, SystemExit):
        shown = error.code if isinstance(error.code, str) else error.__context__
        return f"{shown}\n" if shown else ""
    return "".join(traceback.format_exception(error))


def _visible_text(line: str) -> str:
    """The visible part of a terminal's line, whose beginning is overwritten after each carriage return.

    A return at the end has overwritten nothing yet.
    """
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


def _open_log(path: Path) -> TextIO:
    return open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
