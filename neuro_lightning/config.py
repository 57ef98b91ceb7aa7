"""Hydra's config made safe: one way to build objects, and a check that every key is consumed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from neuro_lightning.errors import ConfigError

# What a config may build. A shared config or a checkpoint can name nothing else, unless the user says
# `trusted=[my_package]`.
TARGETS = ("neuro_lightning.*", "torch.optim.*", "torch.nn.*", "torchmetrics.*", "pytorch_lightning.*")
# the top level of conf/train.yaml and conf/predict.yaml
TRAIN_KEYS = {
    "data", "model", "baselines", "trainer", "callbacks", "logger", "paths", "seed", "monitor", "mode", "refit",
    "resume", "sweep", "name", "tags", "trusted",
}  # fmt: skip
PREDICT_KEYS = {
    "ckpt", "checkpoint", "ensemble", "space", "ensemble_seed", "max_members", "shrinkage", "output", "file",
    "merge_into", "overwrite", "device", "evaluate", "log", "trusted", "data",
}  # fmt: skip
GIVEN = {"model": {"spec"}, "baselines.*": {"spec"}}  # arguments that the code adds to what the config says


def to_plain(cfg: DictConfig | ListConfig) -> Any:
    """A config as plain dictionaries and lists, every interpolation resolved.

    Raises:
        ConfigError: a key that must be given is not, or refers to one that does not exist.
    """
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} must be given, as in `{error.full_key}=...`") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {str(error).splitlines()[0]} ({error.full_key})") from None


def instantiate(cfg: Any, *, trusted: tuple[str, ...] | list[str] = (), **given: Any) -> Any:
    """Build the object that a config describes with ``_target_``; lists and dictionaries arrive as plain Python.

    Args:
        cfg: the config.
        trusted: further packages whose members may be built.
        given: arguments that the config cannot hold.

    Raises:
        ConfigError: the target lies outside the trusted packages, cannot be imported, or refuses a value.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    allowed = [*TARGETS, *(f"{package}.*" for package in trusted)]
    try:
        # what the code adds is given to the finished partial: Hydra would try to merge it into the config
        built = hydra.utils.instantiate(
            cfg, _convert_="all", _execution_whitelist_=allowed, **({"_partial_": True} if given else {})
        )
        return built(**given) if given else built
    except (TypeError, ValueError) as error:  # the object's own complaint, to which Hydra has added the key
        keys = [note.removeprefix("full_key: ") for note in getattr(error, "__notes__", []) if "full_key" in note]
        raise ConfigError(": ".join([*keys[:1], str(error)])) from error
    except InstantiationException as error:
        hint = "(to build from a package of your own, add trusted=[package])"
        raise ConfigError(f"{str(error).splitlines()[0]}\n{hint}") from None


def check_config(cfg: DictConfig, *, known: set[str]) -> None:
    """Refuse a config with a key that nothing consumes, before anything is built.

    Every ``_target_`` must import, and its keys must be arguments of what it names.

    Args:
        cfg: the composed config.
        known: the top-level keys.

    Raises:
        ConfigError: with one line for each problem.
    """
    problems = [f"{key}: no such key; the top level has {', '.join(sorted(known))}" for key in set(cfg) - known]
    for path, node in _targets(cfg, ""):
        problems += _check_target(path, node, cfg.get("trusted") or ())
    if problems:
        raise ConfigError("the config cannot be used:\n" + "\n".join(f"  {line}" for line in problems))


def _targets(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from _targets(node._get_node(key), f"{path}.{key}".lstrip("."))
    elif isinstance(node, ListConfig) and not node._is_none():
        for i in range(len(node)):
            yield from _targets(node._get_node(i), f"{path}[{i}]")


def _check_target(path: str, node: DictConfig, trusted: list[str] | tuple[str, ...]) -> list[str]:
    from hydra.utils import get_object

    name = node._target_
    prefixes = [pattern.removesuffix("*") for pattern in TARGETS] + [f"{package}." for package in trusted]
    if not name.startswith(tuple(prefixes)):
        return [f"{path}: {name} is not in a trusted package; add trusted=[{name.split('.')[0]}] if you trust it"]
    try:
        target = get_object(name)
    except Exception as error:
        return [f"{path}: {name} cannot be imported: {error}"]
    arguments = _arguments(target)
    keys = {key for key in node if not key.startswith("_")}
    problems = [
        f"{path}.{key}: {name.rsplit('.', 1)[-1]} takes no such argument; it takes {', '.join(arguments)}"
        for key in sorted(keys - set(arguments))
    ]
    if not node.get("_partial_"):
        missing = {k for k, p in arguments.items() if p.default is p.empty} - keys - _given(path)
        problems += [f"{path}: {name.rsplit('.', 1)[-1]} needs the key {key!r}" for key in sorted(missing)]
    return problems


def _given(path: str) -> set[str]:
    return set().union(*(names for pattern, names in GIVEN.items() if fnmatch(path, pattern)))


def _arguments(target: Any) -> dict[str, inspect.Parameter]:
    """What a class or function takes; ``**kwargs`` of a constructor stands for what its base classes take."""
    if not inspect.isclass(target):
        return _named(inspect.signature(target))
    arguments: dict[str, inspect.Parameter] = {}
    for cls in target.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        signature = inspect.signature(cls.__init__)
        arguments = {**_named(signature), **arguments}
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break
    arguments.pop("self", None)
    return arguments


def _named(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    return {k: p for k, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
