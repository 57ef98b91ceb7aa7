"""A sweep's best setting as an experiment config, ``best.yaml``, and experiment configs that lie anywhere.

``python train.py experiment=multirun/2026-01-31_12-00-00/best.yaml`` trains it again. The file stands alone: it needs
neither the sweep's folder nor the experiment or search that the sweep was made with.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.sweep_jobs import Job
from neuro_lightning.display.table import number, relative
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.conf_folder import CONF
from neuro_lightning.settings.options import config_folder
from neuro_lightning.settings.overrides import check_keys, must_be_typed
from neuro_lightning.settings.quoting import quoted, unquoted
from neuro_lightning.sweeps.results.summary import SOURCES, objective_name, summarize

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

BEST_FILE = "best.yaml"
# parts of a job's config that are not its setting: where it ran and was logged, and how the sweep controlled it
NOT_GROUPS = ("experiment", "sweep", "debug", "logger", "paths", "hydra", "local")
NOT_KEYS = ("seed", "name", "tags", "resume", "sweep", "logger", "paths", "trusted")
NOT_CALLBACKS = tuple(f"neuro_lightning.callbacks.{name}." for name in ("explore", "pause", "prune"))
GROUP = "experiment"
GROUPS = ("data", "model", "trainer", "callbacks", "paths", "sweep", "baselines", "hydra")
WRITTEN = ("dirpath", "output_dir", "save_dir", "default_root_dir", "root_dir")
PLAIN_PATH = re.compile(r"[\w./@+-]+")


# ---- written


def write_best(folder: str | Path, jobs: list[Job]) -> list[Path]:
    """Write the best setting of a sweep, by its mean over seeds, as an experiment config without the seed.

    Args:
        folder: the sweep's folder.
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.

    Returns:
        ``best.yaml``; of a sweep over datasets, whose scores do not compare, ``best_<dataset>.yaml`` for each; nothing
        where no job finished, or its folder does not hold Hydra's files any more.
    """
    folder, by_name = Path(folder), {job["job"]: job for job in jobs}
    best: dict[str, dict[str, Any]] = {}
    for row in summarize(jobs):
        if row["n"]:
            best.setdefault(row["data"], row)
    written = []
    for dataset, row in best.items():
        names = [name for name in row["jobs"] if by_name[name]["status"] == "finished"]
        config = experiment_of(folder / names[0], varied=tuple(row["setting"]))
        if config is None:
            continue
        path = folder / (BEST_FILE if len(best) == 1 else f"best_{re.sub(r'[^A-Za-z0-9-]+', '_', dataset)}.yaml")
        head = _head(path, row, names, objective_name([by_name[name] for name in names]), _typed(folder / names[0]))
        with atomic_path(path) as part:
            part.write_text("\n".join(["# @package _global_", *(f"# {line}".rstrip() for line in head), config]))
        written.append(path)
    return written


def experiment_of(job: str | Path, varied: Sequence[str] = ()) -> str | None:
    """The text of an experiment config that composes to a job's config.

    It names the groups that the job chose otherwise than ``conf/train.yaml`` does, and then the values that differ from
    those of these groups, whether they were typed or came from an experiment or a search.

    Args:
        job: the job's folder.
        varied: keys that the sweep varied: they are written also where the value is the default.

    Returns:
        The text; None where the folder has no ``.hydra``.
    """
    from omegaconf import OmegaConf

    config, hydra = Path(job) / ".hydra" / "config.yaml", Path(job) / ".hydra" / "hydra.yaml"
    if not config.is_file() or not hydra.is_file():
        return None
    wanted = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
    settings = OmegaConf.load(hydra).hydra
    choices = OmegaConf.to_container(settings.runtime.choices)
    choices = {key: value for key, value in choices.items() if key.split("@")[0].split("/")[0] not in NOT_GROUPS}
    chosen, base = _choose(choices, _search_path_words(job))
    values = _differences(base, wanted)
    for key in varied:
        _add(values, wanted, key.split("."))
    for key in NOT_KEYS:
        values.pop(key, None)
    if callbacks := values.pop("callbacks", None):
        own = wanted.get("callbacks") or {}
        if kept := {name: node for name, node in callbacks.items() if not _controls_the_job(own.get(name))}:
            values["callbacks"] = kept
    defaults = [{f"override /{group}": option} for group, option in chosen.items()]
    return OmegaConf.to_yaml(OmegaConf.create({**({"defaults": defaults} if defaults else {}), **values}))


def _search_path_words(job: str | Path) -> list[str]:
    """The overrides that say where the user's own configs lie."""
    from omegaconf import OmegaConf

    words = OmegaConf.load(Path(job) / ".hydra" / "hydra.yaml").hydra.overrides.hydra
    return [word for word in words if word.startswith("hydra.searchpath=") and not must_be_typed(word)]


def _typed(job: Path) -> list[str]:
    """The words that the user must type: where own configs lie, and which packages are trusted."""
    from omegaconf import OmegaConf

    trusted = OmegaConf.load(job / ".hydra" / "config.yaml").get("trusted")
    return [*_search_path_words(job), *([f"trusted=[{','.join(trusted)}]"] if trusted else [])]


def _head(path: Path, row: dict[str, Any], names: list[str], objective: str, where: list[str]) -> list[str]:
    source = SOURCES.get(row["simulated"], "unknown")
    score = number(row["mean"]) + (f" (mean of {row['n']} jobs, s.e.m. {number(row['sem'])})" if row["n"] > 1 else "")
    return [
        f"The best setting of a sweep: {objective} {score} on {row['data']} ({source} data)",
        f"From {path.parent.resolve().name}: {', '.join(names)}",
        "  " + " ".join(["python train.py", *map(shlex.quote, where), f"experiment={shlex.quote(relative(path))}"]),
    ]


def _controls_the_job(node: Any) -> bool:
    return isinstance(node, Mapping) and str(node.get("_target_")).startswith(NOT_CALLBACKS)


def _choose(choices: Mapping[str, Any], where: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The choices that ``conf/train.yaml`` does not make by itself, and the config that they give, not resolved."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    chosen: dict[str, Any] = {}
    with _config_loader() as loader:
        while True:
            words = [*where, *(f"{group}={_word(option)}" for group, option in chosen.items())]
            base = loader.load_configuration("train", overrides=words, run_mode=RunMode.RUN)
            there = base.hydra.runtime.choices
            other = {group: option for group, option in choices.items() if group in there and there[group] != option}
            if not (new := other.keys() - chosen.keys()):
                break
            # those inside of another group, such as a model's optimizer, may be the choices of that group: they wait
            depth = {group: group.partition("@")[2].count(".") for group in other}
            first = min(depth[group] for group in new)
            chosen |= {group: option for group, option in other.items() if depth[group] == first}
    with open_dict(base):
        del base["hydra"]
    return chosen, OmegaConf.to_container(base, resolve=False)


@contextmanager
def _config_loader() -> Iterator[ConfigLoader]:
    """Hydra's reader of ``conf/``: that of the sweep which runs, or a new one."""
    from hydra import initialize_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance().is_initialized()
    conf = CONF if "://" in CONF else f"file://{CONF}"
    with nullcontext() if running else initialize_config_search_path([conf]):
        yield GlobalHydra.instance().config_loader()


def _word(option: Any) -> str:
    return "null" if option is None else f"[{','.join(option)}]" if isinstance(option, list) else str(option)


def _differences(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``wanted`` that differ from those of ``base``, as nested dictionaries.

    A key that was deleted (``~model.masking``) is null: an experiment config can take nothing away.
    """
    found = {key: None for key, value in base.items() if key not in wanted and value is not None}
    for key, value in wanted.items():
        if key in base and type(base[key]) is type(value) and base[key] == value:
            continue
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            if deeper := _differences(base[key], value):
                found[key] = deeper
        else:
            found[key] = value
    return found


def _add(values: dict[str, Any], wanted: Mapping[str, Any], key: list[str]) -> None:
    """Add one key of ``wanted``; a group's name, such as ``model``, is no value."""
    name, *rest = key
    if name not in wanted or isinstance(wanted[name], Mapping) != bool(rest):
        return
    if not rest:
        values.setdefault(name, wanted[name])
    elif isinstance(values.setdefault(name, {}), dict):
        _add(values[name], wanted[name], rest)
        if not values[name]:
            del values[name]


# ---- read


def register_experiment_files(arguments: Sequence[str]) -> list[str]:
    """Let ``experiment=PATH.yaml`` name a file that lies anywhere.

    Hydra looks for options in its search path only. A file that is named is read here and stored as an option of the
    group ``experiment`` under its absolute path. That is what jobs of a sweep, in other processes too, find; the word
    that Hydra sees and notes has the absolute path, so that a run can be resumed from any folder.

    Args:
        arguments: the command line, without the program.

    Returns:
        The command line for Hydra.

    Raises:
        ConfigError: the file is not YAML, or has a path but is not there.
    """
    return [_registered(word) for word in arguments]


def _registered(word: str) -> str:
    key, equals, text = word.partition("=")
    if not equals or key.lstrip("+") != GROUP or ".yaml" not in text:
        return word
    options = [unquoted(option.strip()) for option in text.split(",")]
    return f"{key}={','.join(_option(option) for option in options)}"


def _option(option: str) -> str:
    path = Path(option)
    if not option.endswith(".yaml") or not (path.is_file() or "/" in option):
        return option
    if not path.is_file():
        if (config_folder(CONF) / GROUP / option).is_file():
            return option
        raise ConfigError(f"{GROUP}={option}: no such file; give a path, or the name of one in conf/{GROUP}")
    name = str(path.resolve())
    _store(path, name)
    return name if PLAIN_PATH.fullmatch(name) else quoted(name)


def _store(path: Path, name: str) -> None:
    import yaml
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    try:
        text = path.read_text()
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{GROUP}={path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{GROUP}={path}: an experiment config maps keys to values, such as `model: {{hidden: 32}}`")
    try:
        node = OmegaConf.load(path)  # which reads 1e-3 as a number, and refuses a key that comes twice
    except Exception as error:
        raise ConfigError(f"{GROUP}={path} cannot be read as a config: {' '.join(str(error).split())}") from None
    for group, value in content.items():
        if group in GROUPS and not (value is None or isinstance(value, dict)):
            raise ConfigError(
                f"{GROUP}={path}: {group} must map keys to values, but is {value!r}; a choice is made by "
                f"`defaults: [{{override /{group}: {value}}}]`"
            )
    package = re.search(r"^#\s*@package\s+(\S+)\s*$", text, re.MULTILINE)
    _check_shared(content, package[1] if package else "", f"{GROUP}={path}")
    folder, _, file = f"{GROUP}{name}".rpartition("/")
    ConfigStore.instance().store(
        name=file, group=folder, node=node, package=package[1] if package else None, provider=str(path), replace=True
    )


def _check_shared(content: dict[Any, Any], package: str, source: str) -> None:
    """Check that an experiment holds settings of a run only, and of Hydra's keys only the space of a sweep.

    Raises:
        ConfigError: naming what it may not have.
    """
    if must_be_typed(package) or package.split(".")[0] == "hydra":
        raise ConfigError(f"{source}: `@package {package}` is no place for an experiment; write `@package _global_`")
    check_keys([key for key in content if key != "hydra"], source)
    hydra = content.get("hydra") or {}
    sweeper = hydra.get("sweeper") if isinstance(hydra, dict) and set(hydra) == {"sweeper"} else None
    if hydra and not (isinstance(sweeper, dict) and set(sweeper) == {"params"}):
        raise ConfigError(f"{source}: of hydra's keys an experiment sets hydra.sweeper.params only; type the others")
    if where := next(_write_paths(content), None):
        raise ConfigError(f"{source}: {where} says where files are written, which no experiment does; type it")
    defaults = str(content.get("defaults") or "")
    if ".." in defaults or "@hydra" in defaults or "@trusted" in defaults:
        raise ConfigError(f"{source}: defaults name options of conf/ and their places in a run: {defaults[:100]}")


def _write_paths(node: Any, path: str = "") -> Iterator[str]:
    """The keys of nested dictionaries that say where files are written."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in WRITTEN:
            yield f"{path}.{key}".lstrip(".")
        yield from _write_paths(value, f"{path}.{key}".lstrip("."))
