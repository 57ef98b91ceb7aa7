"""Overrides that decide which code runs: they are typed, and never taken from a file.

A run's folder, a sweep's, its study and an experiment's file may be somebody else's. What they hold are settings of
models and data; which packages are trusted, the environment of processes and shell commands come from the command line
or, for ``trusted``, from the environment variable ``NEURO_TRUSTED``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuro_lightning.errors import ConfigError

VARIABLE = "NEURO_TRUSTED"
TRUSTED = "trusted"
ENVIRONMENT = "hydra.job.env_set"
SEARCH_PATH = "hydra.searchpath"
COMMANDS = ("setup", "srun_args", "additional_parameters", "python", "init", "remote", "address", "ray")  # a launcher's
TYPED = (
    TRUSTED, ENVIRONMENT, "hydra.job.env_copy", "hydra.callbacks", "hydra.job_logging", "hydra.hydra_logging",
    "hydra.sweeper._target_", "hydra.launcher._target_",
    *(f"hydra.launcher.{key}" for key in COMMANDS),
)  # fmt: skip
PRESETS = ({"requeue": True}, ["--kill-on-bad-exit=1"], {}, [], None)  # of such keys, in conf/hydra/launcher
_brought: list[str] = []  # folders of configs that a file named, and nobody typed


def must_be_typed(word: str) -> bool:
    """Whether an override, or the key of one, decides which code runs."""
    key, _, value = word.lstrip("+~").partition("=")
    if word.lstrip().startswith("-"):  # an option of Hydra's, one of which reads a pickle
        return True
    if key.strip() == SEARCH_PATH:
        return "pkg:" in value  # which imports a package
    places = [place.replace("[", ".").replace("]", "").strip("'\" ") for place in key.split("@")]
    return any(p == t or p.startswith(f"{t}.") or t.startswith(f"{p}.") for p in places for t in TYPED)


def from_file(words: Iterable[str], typed: Sequence[str], source: Any) -> list[str]:
    """The overrides that a file holds, without those that are typed anew.

    Args:
        words: of the file.
        typed: the command line.
        source: the file or folder, for the error.

    Raises:
        ConfigError: one of them must be typed and is not.
    """
    words, given = list(words), {_key(word) for word in typed}
    if missing := [word for word in words if must_be_typed(word) and _key(word) not in given]:
        again = " ".join(shlex.quote(word) for word in missing)
        raise ConfigError(f"{source} was begun with words that no file may bring along: type them again, {again}")
    _brought[:] = [word for word in words if _names_configs(word) and _key(word) not in given]
    return [word for word in words if not must_be_typed(word)]


def _names_configs(word: str) -> bool:
    """Whether an override says where configs lie: a search path, or an option outside of it."""
    key, _, value = word.partition("=")
    return _key(word) == SEARCH_PATH or ("." not in key and ".." in value)


def brought() -> bool:
    """Whether configs are read from where a file, and nobody who typed, says that they lie."""
    return bool(_brought)


def forget_brought() -> None:
    """Begin a command anew: nothing that an earlier command of this process read counts."""
    _brought.clear()


def check_launcher(hydra: Any) -> None:
    """Refuse commands of a launcher where the configs may be somebody else's: a sweep's folder says where they lie.

    Args:
        hydra: the composed ``hydra``.

    Raises:
        ConfigError: saying what to type.
    """
    if not _brought:
        return
    typed = {_key(word) for word in hydra.overrides.hydra}
    for key in COMMANDS:
        if hydra.launcher.get(key) not in PRESETS and f"hydra.launcher.{key}" not in typed:
            raise ConfigError(f"hydra.launcher.{key} is of configs that the sweep's folder names: type {_brought[0]}")


def check_keys(keys: Iterable[str] | Mapping[str, Any] | None, source: str) -> None:
    """Refuse keys in a file that must be typed.

    Raises:
        ConfigError: naming the first.
    """
    for key in keys or ():
        if must_be_typed(str(key)):
            raise ConfigError(f"{source}: {key} is never taken from a file; give it on the command line")


def check_trusted(trusted: Any, words: Iterable[str]) -> None:
    """Refuse packages that a file, and not the command line, declares trusted.

    Args:
        trusted: the composed config's.
        words: the command line.

    Raises:
        ConfigError: saying what to type.
    """
    if trusted and TRUSTED not in map(_key, words):
        names = ",".join(map(str, trusted)) if not isinstance(trusted, str) else trusted
        raise ConfigError(
            f"trusted is set in a file: the command line alone can do that, 'trusted=[{names}]', or {VARIABLE}={names}"
        )


def check_environment(env_set: Any, words: Iterable[str]) -> None:
    """Refuse environment variables that a file, and not the command line, sets.

    Args:
        env_set: the composed ``hydra.job.env_set``.
        words: the command line's, of Hydra's part.

    Raises:
        ConfigError: naming the variables.
    """
    if env_set and not any(_key(word).startswith(ENVIRONMENT) for word in words):
        names = ", ".join(map(str, env_set))
        raise ConfigError(f"{ENVIRONMENT} is set in a file ({names}): only the command line can do that")


def again(trusted: Sequence[str] | None) -> str:
    """What the command by which a run goes on ends with: its files cannot say whom it trusts."""
    if not trusted or os.environ.get(VARIABLE):
        return ""
    return f" '{TRUSTED}=[{','.join(map(str, trusted))}]'"


def with_environment(arguments: list[str]) -> list[str]:
    """The command line with the packages of ``NEURO_TRUSTED`` as trusted, unless it names some itself."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if not names or TRUSTED in map(_key, arguments):
        return arguments
    place = next((i for i, word in enumerate(arguments) if "=" in word and word[0] != "-"), len(arguments))
    return [*arguments[:place], f"{TRUSTED}=[{','.join(names)}]", *arguments[place:]]


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~").strip()
