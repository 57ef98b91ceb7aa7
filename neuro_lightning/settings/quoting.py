"""Paths and other text in Hydra's overrides: written so that Hydra reads the same text, whatever is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString


def override(key: str, value: str | Path) -> str:
    r"""``key='value'``, which Hydra composes to exactly this text.

    >>> print(override("resume", "/data/O'Brien/run"))
    resume='/data/O\'Brien/run'
    """
    return f"{key}={quoted(str(value).replace('${', chr(92) + '${'))}"


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


def typed(arguments: list[str], key: str) -> str | None:
    """The last value that a command line gives to a key, without quotes; None where it gives none, or ``null``."""
    values = [word.removeprefix(f"{key}=") for word in arguments if word.startswith(f"{key}=")]
    return unquoted(values[-1]) if values and values[-1] != "null" else None


def to_override(value: Any) -> str:
    """A value as it is written in an override: ``null``, ``true``, ``0.5``."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
