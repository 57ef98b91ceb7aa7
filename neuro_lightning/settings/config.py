"""Hydra's config made safe: one way to build objects, and a check that every key is consumed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.registry import KINDS, derives, find_target, is_out_of_place
from neuro_lightning.settings.types import constructors, wrong_types

ARGUMENTS_FROM_CODE = {
    "model": {"spec"},
    "baselines.*": {"spec"},
}  # arguments that the code adds to what the config says
# read by the code itself before a thing is built, see Settings.resolve
READ_APART = {"model": {"members"}}
# Hydra's words that would change how a target is called
FORBIDDEN_KEYS = ("_args_", "_recursive_", "_convert_", "_isolate_", "_execution_whitelist_")
# what a config may read of the environment: resolved values land in run.json, in checkpoints and on W&B
READABLE_VARIABLES = re.compile(
    r"NEURO_\w+|HOME|USER|LOGNAME|HOSTNAME|PWD|TMPDIR|SCRATCH|WORK|DATA|CUDA_VISIBLE_DEVICES|RAY_ADDRESS"
    r"|SLURM_(JOB|ARRAY|NODE|PROC|LOCAL|TASK|SUBMIT|CPUS|GPUS|NTASKS|TMP)\w*|WANDB_(SWEEP_ID|RUN_ID|PROJECT|ENTITY|MODE)"
)
SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CRED|AUTH")


def _read_environment(name: str, *default: Any) -> Any:
    """The resolver ``${oc.env:NAME,default}`` for variables that hold no secrets."""
    if not READABLE_VARIABLES.fullmatch(str(name)) or SECRET.search(str(name)):
        raise ConfigError(
            f"${{oc.env:{name}}} could write a secret into run.json and checkpoints: configs read variables named "
            "NEURO_... (and HOME, USER, SCRATCH, TMPDIR, SLURM's); or give the value on the command line"
        )
    return oc.env(name, *default)


OmegaConf.register_resolver("oc.env", _read_environment, replace=True, annotation_validation="off")


def to_plain(cfg: DictConfig | ListConfig, *, complete: bool = True) -> Any:
    """A config as plain dictionaries and lists, every interpolation resolved.

    Args:
        cfg: the config.
        complete: refuse values that must still be given; else they stay ``???``.

    Raises:
        ConfigError: a key that must be given is not, or refers to one that does not exist.
    """
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=complete)
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
        ConfigError: the target may not be built, cannot be imported, or refuses a value.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    if "spec" in given and OmegaConf.is_config(cfg) and READ_APART["model"] & set(cfg):  # a model as it was composed
        plain = {key: value for key, value in to_plain(cfg, complete=False).items() if key not in READ_APART["model"]}
        cfg = OmegaConf.create({"model": plain}).model
    # Hydra may call these and nothing else, whatever its own whitelist says or an interpolation gives the second time
    names = [
        node["_target_"]
        for _, node in _target_nodes(to_plain(cfg, complete=False) if OmegaConf.is_config(cfg) else cfg, "")
    ]
    for name in names:
        find_target(name, trusted or ())
    allowed = hydra.utils.execution_whitelist(names, reset=True)
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
        raise ConfigError(str(error).splitlines()[0]) from None


def _target_nodes(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any] | DictConfig]]:
    """The nodes that name a target, of plain dictionaries and lists or of a config, whose interpolations stay.

    Raises:
        ConfigError: a node has one of Hydra's words that change how a target is called.
    """
    if isinstance(node, dict | DictConfig):
        for word in FORBIDDEN_KEYS:
            if word in node:
                raise ConfigError(f"{path}.{word}: no config may have this key; name the arguments".lstrip("."))
        if "_target_" in node:
            yield path, node
        for key in node:
            if _holds_value(node, key):
                yield from _target_nodes(node[key], f"{path}.{key}".lstrip("."))
    elif isinstance(node, list | tuple | ListConfig):
        for i in range(len(node)):
            if _holds_value(node, i):
                yield from _target_nodes(node[i], f"{path}[{i}]")


def _holds_value(node: Any, key: Any) -> bool:
    """Whether a node holds the value itself: it is neither missing nor taken from elsewhere."""
    return not (
        OmegaConf.is_config(node) and (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key))
    )


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
    trusted = cfg.get("trusted") or ()
    problems += check_targets(cfg, trusted) or check_types(cfg, trusted)
    if problems:
        raise ConfigError("the config cannot be used:\n" + "\n".join(f"  {line}" for line in problems))


def check_plain(saved: dict[str, Any]) -> list[str]:
    """What is wrong with configs that were resolved when they were saved, a line for each.

    Args:
        saved: config by key; each must name a target, and nothing in it may ask for more to be looked up.
    """
    whole = {key for key, node in saved.items() if isinstance(node, dict) and "_target_" in node}
    problems = [f"{key}: no config with a _target_" for key in saved if key not in whole]
    return problems + [
        f"{path}: an interpolation, which saved configs do not have" for path in _find_interpolations(saved, "")
    ]


def _find_interpolations(node: Any, path: str) -> Iterator[str]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from _find_interpolations(value, f"{path}.{key}".lstrip("."))
    if isinstance(node, str) and "${" in node:
        yield path


def check_targets(cfg: DictConfig | dict[str, Any], trusted: list[str] | tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the targets of a config and with their keys, a line for each.

    Args:
        cfg: with keys such as ``model`` and ``data``, which say what kind of object is theirs.
        trusted: packages of the user's own.
    """
    try:
        nodes = list(_target_nodes(cfg, ""))
    except ConfigError as error:
        return [str(error)]
    return [line for path, node in nodes for line in _check_target(path, node, trusted)]


def check_types(cfg: DictConfig, trusted: list[str] | tuple[str, ...] = ()) -> list[str]:
    """A line for each value of a config that cannot be what its target asks for; see :func:`check_targets`."""
    nodes = [(path, node, find_target(node["_target_"], trusted)) for path, node in _target_nodes(cfg, "")]
    return list(dict.fromkeys(line for node in nodes for line in wrong_types(*node)))


def _check_target(path: str, node: dict[str, Any], trusted: list[str] | tuple[str, ...]) -> list[str]:
    try:
        target = find_target(node["_target_"], trusted)
    except ConfigError as error:
        return [f"{path}: {error}"]
    name = node["_target_"].rpartition(".")[2]
    if is_out_of_place(node["_target_"], path, trusted):
        return [f"{path}: {node['_target_']} is nothing that {path.partition('.')[0]} is made of"]
    for pattern, base in KINDS.items():
        if fnmatch(path, pattern) and path.count(".") == pattern.count(".") and not derives(target, base):
            return [f"{path}: {name} is no {base.rpartition('.')[2]}, which this key holds"]
    arguments = arguments_of(target)
    keys = {key for key in node if not str(key).startswith("_")} - READ_APART.get(path, set())
    problems = [
        f"{path}.{key}: {name} takes no such argument; it takes {', '.join(arguments)}"
        for key in sorted(keys - set(arguments))
    ]
    if not node.get("_partial_"):
        missing = {k for k, p in arguments.items() if p.default is p.empty} - keys - _arguments_from_code(path)
        problems += [f"{path}: {name} needs the key {key!r}" for key in sorted(missing)]
    return problems


def _arguments_from_code(path: str) -> set[str]:
    return set().union(*(names for pattern, names in ARGUMENTS_FROM_CODE.items() if fnmatch(path, pattern)))


def arguments_of(target: Any) -> dict[str, inspect.Parameter]:
    """What a class or function takes; ``**kwargs`` of a constructor stands for what its base classes take."""
    arguments: dict[str, inspect.Parameter] = {}
    for function in constructors(target):
        arguments = {**_named_parameters(inspect.signature(function)), **arguments}
    own = ("self", "names") if hasattr(target, "network_class") else ("self",)  # the model names what is read out
    return {name: parameter for name, parameter in arguments.items() if name not in own}


def _named_parameters(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    return {k: p for k, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
