"""Overrides that decide which code runs: they are typed, and never taken from a file.

A run's folder, a sweep's, its study and an experiment's file may come from somebody else. They hold settings of
models and data; which packages are trusted, the environment of processes and shell commands come from the command line
or, for ``trusted``, from the environment variable ``NEURO_TRUSTED``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from neuro_lightning.errors import ConfigError

TRUSTED_VARIABLE = "NEURO_TRUSTED"
TRUSTED = "trusted"
ENVIRONMENT = "hydra.job.env_set"
SEARCH_PATH = "hydra.searchpath"
LAUNCHER_COMMANDS = (
    "setup", "srun_args", "additional_parameters", "python", "init", "remote", "address", "ray",
)  # fmt: skip
TYPED_KEYS = (
    TRUSTED, ENVIRONMENT, "hydra.job.env_copy", "hydra.callbacks", "hydra.job_logging", "hydra.hydra_logging",
    "hydra.sweeper._target_", "hydra.launcher._target_",
    *(f"hydra.launcher.{key}" for key in LAUNCHER_COMMANDS),
)  # fmt: skip
LAUNCHER_DEFAULTS = ({"requeue": True}, ["--kill-on-bad-exit=1"], {}, [], None)  # of such keys, in conf/hydra/launcher
# what config_folders_from_file finds, while a command runs
CONFIG_FOLDERS: ContextVar[Sequence[str]] = ContextVar("config folders", default=())


def must_be_typed(word: str) -> bool:
    """Whether an override, or the key of one, decides which code runs."""
    key, _, value = word.lstrip("+~").partition("=")
    if word.lstrip().startswith("-"):  # an option of Hydra's, one of which reads a pickle
        return True
    if key.strip() == SEARCH_PATH:
        return "pkg:" in value  # which imports a package
    places = [place.replace("[", ".").replace("]", "").strip("'\" ") for place in key.split("@")]
    return any(p == t or p.startswith(f"{t}.") or t.startswith(f"{p}.") for p in places for t in TYPED_KEYS)


def overrides_from_file(words: Iterable[str], typed: Sequence[str], source: Any) -> list[str]:
    """The overrides that a file holds, without those that must be typed.

    Args:
        words: of the file.
        typed: the command line.
        source: the file or folder, for the error.

    Raises:
        ConfigError: one of them must be typed and is not.
    """
    words, given = list(words), {_key(word) for word in typed}
    if missing := [word for word in words if must_be_typed(word) and _key(word) not in given]:
        words = " ".join(shlex.quote(word) for word in missing)
        raise ConfigError(
            f"{source} was begun with overrides that are never read from a file: type them again, {words}"
        )
    return [word for word in words if not must_be_typed(word)]


def config_folders_from_file(words: Iterable[str], typed: Iterable[str]) -> list[str]:
    """The overrides by which a file, and not the command line, says where configs lie.

    Args:
        words: the whole command line, with what files have added.
        typed: the command line as it was typed.
    """
    given = {_key(word) for word in typed}
    return [word for word in words if _names_configs(word) and _key(word) not in given]


def _names_configs(word: str) -> bool:
    """Whether an override says where configs lie: a search path, or an option outside of it."""
    key, _, value = word.partition("=")
    return _key(word) == SEARCH_PATH or ("." not in key and ".." in value)


def check_launcher(hydra: Any) -> None:
    """Refuse commands of a launcher where a sweep's folder, and not the user, says where the configs lie.

    Args:
        hydra: the composed ``hydra``.

    Raises:
        ConfigError: saying what to type.
    """
    if not (folders := CONFIG_FOLDERS.get()):
        return
    typed = {_key(word) for word in hydra.overrides.hydra}
    for key in LAUNCHER_COMMANDS:
        if hydra.launcher.get(key) not in LAUNCHER_DEFAULTS and f"hydra.launcher.{key}" not in typed:
            raise ConfigError(f"hydra.launcher.{key} is of configs that the sweep's folder names: type {folders[0]}")


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
            f"trusted is set in a file: the command line alone can do that, 'trusted=[{names}]', or "
            f"{TRUSTED_VARIABLE}={names}"
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


def trusted_override(trusted: Sequence[str] | None) -> str:
    """The end of the command that resumes a run: its files cannot say which packages it trusts."""
    if not trusted or os.environ.get(TRUSTED_VARIABLE):
        return ""
    return f" '{TRUSTED}=[{','.join(map(str, trusted))}]'"


def add_trusted_packages(arguments: list[str]) -> list[str]:
    """The command line with the packages of ``NEURO_TRUSTED`` as trusted, unless it names some itself."""
    names = [name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",") if name.strip()]
    if not names or TRUSTED in map(_key, arguments):
        return arguments
    place = next((i for i, word in enumerate(arguments) if "=" in word and word[0] != "-"), len(arguments))
    return [*arguments[:place], f"{TRUSTED}=[{','.join(names)}]", *arguments[place:]]


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~").strip()
