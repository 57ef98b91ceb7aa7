"""Choices on the command line that are no option of their group, such as ``model=grru``: one line, with a guess."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from neuro_lightning.artifacts.old_names import MOVED_KEYS, update_override
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.overrides import SEARCH_PATH

OTHER_FOLDERS = (SEARCH_PATH, "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
PACKAGE = "pkg://"


def check_options(arguments: list[str], conf: str) -> None:
    """Refuse a choice that its group lacks; Hydra lists the options in two dozen lines and does not say which is near.

    Where configs are looked for in other folders, too, Hydra is left to say what there is.

    Args:
        arguments: the command line, without the program.
        conf: where the configs lie, as Hydra is told.

    Raises:
        ConfigError: naming the nearest option and all others; or a word that is written wrongly.
    """
    chosen = [option for word, parsed in _parse(arguments) for option in _chosen_options(word, parsed)]
    _check_old_keys(arguments)
    if any(word.lstrip("+").startswith(OTHER_FOLDERS) for word in arguments):
        return
    for key, option in chosen:
        group = key.lstrip("+").split("@")[0]
        known = group_options(conf, group)
        if not known or option in known or "/" in option or "${" in option:
            continue
        if group.startswith("hydra/") and not get_close_matches(option, known):  # Hydra has some of its own
            continue
        raise ConfigError(f"{key}={option}: no such option; {describe_options(option, known)}")


def _check_old_keys(arguments: list[str]) -> None:
    """Name today's key where one of an earlier version is typed for a model that is chosen by its own name."""
    named = [word.partition("=") for word in arguments]
    chosen = [value for key, _, value in named if key.lstrip("+") in ("model", "experiment", "sweep")]
    for model in MOVED_KEYS:
        name = model.split(".")[-2]
        for word in arguments if any(value.startswith(name) for value in chosen) else ():
            if (new := update_override(word, model)) != word:
                raise ConfigError(f"{word.partition('=')[0]} has moved: write {new}")


def _parse(arguments: list[str]) -> Iterator[tuple[str, Override]]:
    """Each override with what Hydra reads in it.

    Raises:
        ConfigError: a word that Hydra's grammar does not know; Hydra says it in three lines, or in a traceback.
    """
    parser = OverridesParser.create()
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word.startswith("-") or (before.startswith("-") and before not in ("-m", "--multirun", "--resolve")):
            continue
        try:
            parsed = parser.parse_override(word)
            reason = "" if word.lstrip("+~").partition("=")[0] else "it has no key"
        except HydraException as error:
            reason = str(error).splitlines()[0]
        if reason:
            raise ConfigError(
                f"{word}: Hydra cannot read this override ({reason}); a value with brackets, commas, spaces or = in it "
                "that are text needs quotes of its own: 'KEY=\"VALUE\"'"
            )
        yield word, parsed


def describe_options(option: str, options: Iterable[str]) -> str:
    """What there is, the nearest first.

    >>> describe_options("grru", ["cnn", "gru", "_base"])
    "did you mean 'gru'? there are cnn, gru"
    """
    shown = sorted(name for name in options if not name.startswith("_"))
    near = get_close_matches(option, shown, n=1)
    return f"did you mean {near[0]!r}? there are {', '.join(shown)}" if near else f"there are {', '.join(shown)}"


def hydra_message(error: Exception) -> str:
    """One line of Hydra's long error message: what is wrong, and the nearest keys or options.

    Args:
        error: of a composition.
    """
    cause, lines = error.__cause__, [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        return f"{cause.full_key}: no such key; {describe_options(str(cause.key), map(str, cause.parent_node))}"
    text = lines[0] if lines else type(error).__name__
    if cause is not None and str(cause):
        text += " " + str(cause).splitlines()[0]
    start = next((i for i, line in enumerate(lines) if line.startswith("Available options")), None)
    if start is not None:
        options = takewhile(lambda line: not line.startswith("Config search path"), lines[start + 1 :])
        missing = str(getattr(error, "missing_cfg_file", "")).rpartition("/")[2]
        text += f"; {describe_options(missing, options)}"
    return text


def _chosen_options(word: str, parsed: Override) -> Iterator[tuple[str, str]]:
    """The key as it was typed, if it may be a group's, with each option that is chosen, swept ones too."""
    key = word.partition("=")[0]
    if parsed.is_delete() or "." in key.split("@")[0]:
        return
    value: Any = parsed.value()
    values = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    for part in values:
        for option in part if isinstance(part, list) else [part]:
            text = getattr(option, "text", option)  # of one in quotes
            if isinstance(text, str):
                yield key, text.removesuffix(".yaml")


def config_folder(conf: str) -> Traversable:
    """The folder of the configs, in a checkout or in an installed package."""
    return resources.files(conf.removeprefix(PACKAGE)) if conf.startswith(PACKAGE) else Path(conf)


def group_options(conf: str, group: str) -> set[str]:
    """The options of a group: files, and those that are stored by code, such as an experiment's file; none of a key."""
    files = file_options(conf, group)
    if not files:
        return set()
    node: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        node = node.get(part, {}) if isinstance(node, dict) else {}
    stored = node if isinstance(node, dict) else ()
    return files | {name.removesuffix(".yaml") for name in stored if name.endswith(".yaml")}


def file_options(conf: str, group: str) -> set[str]:
    """The options of a group that are files of ``conf``; none where there is no such group."""
    folder = config_folder(conf)
    for part in group.split("/"):
        folder = folder / part
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {name.removesuffix(".yaml") for name in names if name.endswith(".yaml")}
