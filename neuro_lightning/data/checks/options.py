"""Whether options of a data module are what they may be: whole numbers, shares, one of several names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuro_lightning.errors import ConfigError


def check_whole(key: str, value: Any, least: int = 0, most: int | None = None, why: str = "") -> None:
    """Whether ``data.key`` is a whole number from ``least`` to ``most``.

    Raises:
        ConfigError: it is not; ``why`` follows the bounds.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ConfigError(f"data.{key} must be a whole number {bounds}{why}, not {value!r}")


def check_share(key: str, value: Any, *, zero: bool = False) -> None:
    """Whether ``data.key`` is a number above 0, or with ``zero`` from 0 on, and below 1.

    Raises:
        ConfigError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 if zero else 0 < value < 1):
        raise ConfigError(f"data.{key} must be {'at least' if zero else 'above'} 0 and below 1, not {value!r}")


def check_choice(key: str, value: Any, choices: Sequence[str]) -> None:
    """Whether ``data.key`` is one of several names.

    Raises:
        ConfigError: it is not.
    """
    if value not in choices:
        raise ConfigError(f"data.{key} must be one of {', '.join(choices)}, not {value!r}")
