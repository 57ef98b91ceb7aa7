"""Choices on the command line that are no option of their group, such as ``model=grru``: one line, with a guess."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import ChoiceSweep, Override
from omegaconf.errors import OmegaConfBaseException

from neuro_lightning.artifacts.old_names import MOVED_KEYS, update_override
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.overrides import SEARCH_PATH
from neuro_lightning.settings.typed_words import MULTIRUN, check_single, check_words, parse_words

OTHER_FOLDERS = (SEARCH_PATH, "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
REQUIRED = ("data", "model")  # groups that name the run's folder
PACKAGE = "pkg://"
DATA_FILES = (
    "a file of your own is data=nwb data.path=FILE (.nwb), data=lfads_h5 (.h5), or data=arrays (.npz, .npy, .mat)"
)


def check_options(arguments: list[str], conf: str) -> None:
    """Refuse a choice that its group lacks; Hydra lists the options in two dozen lines and does not say which is near.

    Where configs are looked for in other folders, too, Hydra is left to say what there is.

    Args:
        arguments: the command line, without the program.
        conf: where the configs lie, as Hydra is told.

    Raises:
        ConfigError: naming the nearest option and all others; or a word that is written wrongly.
    """
    parsed = list(parse_words(arguments))
    for word, value in parsed:
        _check_value(word, value, conf)
    chosen = [option for word, value in parsed for option in _chosen_options(word, value)]
    _check_old_keys(arguments)
    if any(word.lstrip("+").startswith(OTHER_FOLDERS) for word in arguments):
        return
    for key, option in chosen:
        group = key.lstrip("+").split("@")[0]
        known = group_options(conf, group)
        if not known or option in known or "${" in option or ("/" in option and group not in REQUIRED):
            continue
        if group.startswith("hydra/") and not get_close_matches(option, known):  # Hydra has some of its own
            continue
        file = f"{DATA_FILES}; " if group == "data" and ("/" in option or "." in option) else ""
        raise ConfigError(f"{key}={option}: no such option; {file}{describe_options(option, known)}")


def check_prediction(arguments: Sequence[str], conf: str) -> None:
    """Refuse words of ``predict.py`` that are for ``train.py``, or are written wrongly.

    Args:
        arguments: the command line, without the program.
        conf: where the configs lie, as Hydra is told.

    Raises:
        ConfigError: ``-m``, ``model=gru`` or ``data=mc_maze``, or a word that Hydra cannot read.
    """
    check_words(arguments)
    if typed := [word for word in arguments if word in MULTIRUN]:
        raise ConfigError(f"{typed[0]} is for train.py; the mean of several runs is predicted by 'ckpt=[RUN,RUN]'")
    for word, parsed in parse_words(arguments):
        key = parsed.key_or_group
        if not key.startswith("hydra") and file_options(conf, key):
            hint = "; keys of the data can be given, such as data.path=FILE" if key == "data" else ""
            raise ConfigError(f"{word}: predict.py takes {key} from the checkpoint{hint}")
    check_single(arguments)


def _check_value(word: str, parsed: Override, conf: str) -> None:
    """Refuse ``model=null``, ``debug=true`` and ``~data``, which Hydra answers with a traceback."""
    key = word.lstrip("+~").partition("=")[0]
    if "." in key.split("@")[0] or not (options := file_options(conf, key.split("@")[0])):
        return
    if parsed.is_delete():
        if key in REQUIRED:
            raise ConfigError(f"{word}: a run needs {key}=...; {describe_options('', options)}")
    elif not parsed.is_sweep_override() and isinstance(parsed.value(), bool | int | float | None):
        none = "" if key in REQUIRED else f"; for none leave {key} out, or write ~{key} where a recipe chooses one"
        raise ConfigError(f"{word}: no such option; {describe_options('', options)}{none}")


def _check_old_keys(arguments: list[str]) -> None:
    """Name today's key where one of an earlier version is typed for a model that is chosen by its own name."""
    named = [word.partition("=") for word in arguments]
    chosen = [value for key, _, value in named if key.lstrip("+") in ("model", "experiment", "sweep")]
    for model in MOVED_KEYS:
        name = model.split(".")[-2]
        for word in arguments if any(value.startswith(name) for value in chosen) else ():
            if (new := update_override(word, model)) != word:
                raise ConfigError(f"{word.partition('=')[0]} has moved: write {new}")


def describe_options(option: str, options: Iterable[str]) -> str:
    """What there is, the nearest first.

    >>> describe_options("grru", ["cnn", "gru", "_base"])
    "did you mean 'gru'? there are cnn, gru"
    """
    shown = sorted(name for name in options if not name.startswith("_"))
    near = get_close_matches(option.lower(), shown, n=1, cutoff=0.65)  # at 0.6 `init` is near `bin_width`
    return f"did you mean {near[0]!r}? there are {', '.join(shown)}" if near else f"there are {', '.join(shown)}"


def hydra_message(error: Exception, keys: Iterable[str] = ()) -> str:
    """One line of Hydra's long error message: what is wrong, and the nearest keys or options.

    Args:
        error: of a composition.
        keys: all keys of the config, such as ``model.optimizer.lr``, to name those that end like one that is not there.
    """
    cause, lines = error.__cause__, [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        text = f"{cause.full_key}: no such key; "
        if deeper := [key for key in keys if f".{key}".endswith(f".{cause.key}")]:
            text += f"did you mean {' or '.join(deeper[:3])}? "
            return text + describe_options("", map(str, cause.parent_node))
        return text + describe_options(str(cause.key), map(str, cause.parent_node))
    if len(lines) > 1 and lines[0].startswith("Could not override") and lines[1].startswith("Did you mean"):
        return f"{lines[0]} {lines[1]}"
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
