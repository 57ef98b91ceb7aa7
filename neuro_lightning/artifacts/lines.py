"""Lines of at most 80 characters, and a word before whatever takes a while. Nothing heavy is imported here."""

from __future__ import annotations

import re
import sys
import textwrap

from neuro_lightning.ranks import is_main_process

WIDTH = 80  # characters of a line
MARGIN = 8  # characters before what a line says: `model   GRU with ...`
KEPT = "\0"  # stands for a space at which no line ends
COMMAND = re.compile(r"(?:^|(?<=\s))(?:python|pip|wandb) \S.*")  # to be copied whole


def wrapped(text: str, indent: int = 0) -> str:
    """Text in lines of at most :data:`WIDTH` characters.

    A longer word, such as a path, stays whole; so does a command at the end, on a line of its own.

    Args:
        text: lines; those that are short enough stay as they are.
        indent: spaces before the further lines of each.
    """
    return "\n".join(part for line in text.split("\n") for part in _parts(line, " " * indent))


def _parts(line: str, indent: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    command = COMMAND.search(line)
    if command and line[: command.start()].strip():
        return [*_parts(line[: command.start()].rstrip(), indent), f"{indent or '  '}{command[0]}"]
    if command:
        return [line]
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def shortened(text: str, width: int = WIDTH) -> str:
    """Text of at most so many characters, its end left out for a longer one."""
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."[:width]


def labelled(name: str, text: str) -> str:
    """``model   GRU with 126,528 parameters``: a name and what is said of it, wrapped beside the name."""
    first, *others = text.split("\n")
    beside = (name if len(name) < MARGIN else f"{name} ").ljust(MARGIN)
    # a path begins beside its name
    lines = [f"{beside.replace(' ', KEPT)}{first}", *(" " * MARGIN + line for line in others)]
    return wrapped("\n".join(lines), MARGIN).replace(KEPT, " ")


def say(text: str, indent: int = 0) -> None:
    """Print text in lines of at most 80 characters, in the main process; see :func:`wrapped`."""
    if is_main_process():
        print(wrapped(text, indent), flush=True)


def announce(name: str, text: str) -> None:
    """Print what is done now, in the main process, so that nobody waits without a word.

    In a sweep it goes into the job's file, and is the terminal's last line until the next one.

    Args:
        name: the kind of work, such as ``reading``.
        text: what.
    """
    if is_main_process():
        print(labelled(name, text), flush=True)
    show = getattr(sys.stdout, "show_status", None)
    if show is not None and is_main_process():
        show(f"{name} {text}")


def error_line(error: BaseException | str) -> str:
    """What ends a command: ``error: ...`` in one line, or wrapped where a terminal shows it."""
    text = f"error: {error}"
    return wrapped(text, 2) if sys.stderr is not None and sys.stderr.isatty() else text
