"""Values of Python as the words of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.overrides import TRUSTED, add_trusted_packages
from neuro_lightning.settings.quoting import override, typed_value

Overrides = Sequence[str] | Mapping[str, Any]


def choices(**groups: str | Sequence[str] | None) -> list[str]:
    """Choices of config groups; several of one are swept."""
    return [
        f"{key}={chosen if isinstance(chosen, str) else ','.join(chosen)}"
        for key, chosen in groups.items()
        if chosen is not None
    ]


def place(path: str | Path) -> str:
    """A path as it is meant: ``~`` is the home folder."""
    return str(Path(path).expanduser())


def to_words(overrides: Overrides, *, sweep: bool = False) -> list[str]:
    """Overrides as words of a command line, ``key=value``.

    Args:
        overrides: words, or values by key.
        sweep: whether a list among the values by key means that each of its entries is a job; else it is one value.

    Raises:
        ConfigError: a single text in place of a list.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides!r}: give a list of words, [{overrides!r}], or values by key")
    if not isinstance(overrides, Mapping):
        return [str(word) for word in overrides]
    words = []
    for key, value in overrides.items():
        if sweep and isinstance(value, list | tuple | range):
            words.append(f"{key}={','.join(override(key, each).partition('=')[2] for each in value)}")
        else:
            words.append(override(key, value))
    return words


def trusted_packages(words: Sequence[str]) -> tuple[str, ...]:
    """The packages that the words of a command line, or the environment, declare trusted."""
    value = typed_value(add_trusted_packages(list(words)), TRUSTED) or ""
    return tuple(name.strip("'\" ") for name in value.strip("[]").split(",") if name.strip("'\" "))
