"""Paths and other text in Hydra's overrides: written so that Hydra reads the same text, whatever is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from neuro_lightning.errors import ConfigError


def override(key: str, value: Any) -> str:
    r"""An override that gives a key a value of Python's; Hydra composes text and paths to exactly this text.

    Raises:
        ConfigError: a value that no config can hold.

    >>> print(override("resume", "/data/O'Brien/run"), override("seed", 3), override("data.cache_dir", None))
    resume='/data/O\'Brien/run' seed=3 data.cache_dir=null
    >>> override("data.sessions", {"monday": "lorenz"})
    "data.sessions={monday: 'lorenz'}"
    """
    if isinstance(value, Mapping):
        if not all(re.fullmatch(r"[\w.-]+", str(name)) for name in value):
            raise ConfigError(f"{key}={str(value)[:80]}: its names are letters, digits and . _ - alone")
        return f"{key}={{{', '.join(override(str(k), v).replace('=', ': ', 1) for k, v in value.items())}}}"
    if isinstance(value, str | Path):
        return f"{key}={quoted(str(value).replace('${', chr(92) + '${'))}"
    try:
        value = value.item() if hasattr(value, "item") else value  # numpy's
        return f"{key}={json.dumps(list(value) if isinstance(value, tuple | range) else value, allow_nan=False)}"
    except (TypeError, ValueError):
        raise ConfigError(
            f"{key}={str(value)[:80]}: give text, a number, True, False, None, or a list or dictionary of these"
        ) from None


def quoted(text: str) -> str:
    """Text in Hydra's quotes; ``${...}`` in it is filled in."""
    return QuotedString(text, Quote.single).with_quotes()


def unquoted(text: str) -> str:
    """The text of an override's value, with or without Hydra's quotes around it.

    Quotes within a path that was typed without them are its own.
    """
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
        return text
    escaped = rf"(\\*)\\{text[0]}|(\\+)$"
    return re.sub(escaped, lambda m: _half(m[1], text[0]) if m[1] is not None else _half(m[2], ""), text[1:-1])


def _half(backslashes: str, quote: str) -> str:
    return "\\" * (len(backslashes) // 2) + quote


def typed_value(arguments: list[str], key: str) -> str | None:
    """The last value that a command line gives to a key, without quotes; None where it gives none, or ``null``."""
    values = [word.removeprefix(f"{key}=") for word in arguments if word.startswith(f"{key}=")]
    return unquoted(values[-1]) if values and values[-1] != "null" else None


def to_override(value: Any) -> str:
    """A value as it is written in an override: ``null``, ``true``, ``0.5``."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def short(value: Any) -> str:
    """A value for a table: of a number four digits, which are more than a search can tell apart; ``-`` for none."""
    text = to_override(value)
    try:
        return f"{float(text):.4g}" if not text.lstrip("+-").isdigit() else text
    except ValueError:
        return text or "-"


def settings_in_words(values: Mapping[str, Any]) -> str:
    """Settings by key in a line, ``model=gru lr=0.001235``, without those that are empty text; numbers are short."""
    return " ".join(f"{key}={short(value)}" for key, value in values.items() if value != "")
