"""The values of a config against the types that constructors ask for, before anything is built."""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
Scalar = bool | int | float | str


def wrong_types(path: str, node: DictConfig, target: Any) -> list[str]:
    """A line for each value of a config that cannot be what the constructor asks for.

    Only what is certain is said: annotations that cannot be read, or that stand for any object, accept everything.

    Args:
        path: of the node in the config.
        node: what names the target, with its arguments.
        target: the class or function that is named.
    """
    hints, problems = _hints(target), []
    for key in node:
        if key.startswith("_") or key not in hints or OmegaConf.is_missing(node, key):
            continue
        try:
            value = node[key]
        except OmegaConfBaseException:  # said where the config is resolved
            continue
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not _matches(value, hints[key]):
            typed = _typed_key(node, key) or f"{path}.{key}".lstrip(".")
            given = "null" if value is None else value
            problems.append(
                f"{typed}={given}: must be {_describe_type(hints[key])}{_how_typed(typed, value, hints[key])}"
            )
    return problems


def constructors(target: Any) -> list[Callable]:
    """The functions that take the arguments of a target, the first one first.

    Args:
        target: a function; or a class, whose ``**kwargs`` stand for what its base classes take, and in a model with a
            ``network_class`` for what that takes.
    """
    if not inspect.isclass(target):
        return [target]
    network, found = getattr(target, "network_class", None), []
    for cls in target.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        if network is not None and not hasattr(cls, "network_class"):
            return [*found, network.__init__]
        found.append(cls.__init__)
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values()):
            break
    return found


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of what a class or function takes; of a constructor with ``**kwargs`` also its bases'."""
    functions = constructors(target)[::-1]
    found: dict[str, Any] = {}
    for function in functions:
        try:
            found |= typing.get_type_hints(inspect.unwrap(function))
        except Exception:  # an annotation that cannot be evaluated says nothing
            names = getattr(inspect.unwrap(function), "__annotations__", {})
            found = {name: hint for name, hint in found.items() if name not in names}
    return found


def _matches(value: Any, hint: Any) -> bool:
    """Whether a plain value can be of a type; True wherever the type says nothing of plain values."""
    if isinstance(value, dict) and "_target_" in value:
        return hint not in (int, float, bool, str)
    if hint is None:
        hint = type(None)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, part) for part in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is typing.Annotated:
        return _matches(value, arguments[0])
    if hint in SCALARS:
        accepted = int | float if hint is float else hint
        return isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
    if hint in (Path, os.PathLike) or origin is os.PathLike:
        return isinstance(value, str)
    kind = origin or hint
    if kind in (list, tuple, Sequence):
        if not isinstance(value, list):
            return False
        parts = [part for part in arguments if part is not Ellipsis]
        if kind is tuple and parts and Ellipsis not in arguments:
            return len(value) == len(parts) and all(map(_matches, value, parts))
        return not parts or all(_matches(item, parts[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, dict)
    if _is_object(kind):
        return not isinstance(value, Scalar) and value is not None
    return True


def _is_object(kind: Any) -> bool:
    """Whether a type stands for functions, dataclasses, or torch's modules and tensors, which no plain value is."""
    import torch

    if kind in (Callable, typing.Callable):
        return True
    return inspect.isclass(kind) and (is_dataclass(kind) or issubclass(kind, torch.nn.Module | torch.Tensor))


def _how_typed(key: str, value: Any, hint: Any) -> str:
    """How a part of the config is typed, where a plain value was given in its place; else nothing.

    Args:
        key: as it was typed.
        value: likewise.
        hint: what is asked for.
    """
    if _names_a_part(hint, value):
        return f"; groups are chosen as in {_group(key.rpartition('.')[2])}@{key}={value}"
    if inspect.isclass(hint) and is_dataclass(hint):
        return f"; its keys are typed one by one, as in {key}.{fields(hint)[0].name}=..."
    return ""


def _names_a_part(hint: Any, value: Any) -> bool:
    """Whether a name was given where a part of the config belongs, which a group holds."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if not isinstance(value, str) or not value.isidentifier() or not {bool, int, float, str}.isdisjoint(parts):
        return False
    return any(_is_object(typing.get_origin(part) or part) for part in parts)


def _group(key: str) -> str:
    return "model" if key == "net" else key


def _describe_type(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(map(_describe_type, arguments)))
        if "a number" in words and "a whole number" in words:
            words.remove("a whole number")
        return " or ".join(words)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    kind = origin or hint
    if kind in (list, tuple, Sequence):
        parts = [_describe_type(part) for part in arguments if part is not Ellipsis]
        return "a list" + (f", each {parts[0]}" if len(set(parts)) == 1 else "")
    if kind in (dict, Mapping):
        return "a mapping"
    if kind in (Path, os.PathLike):
        return "a path"
    return SCALARS.get(kind) or f"a part of its own ({getattr(kind, '__name__', kind)})"


def _typed_key(node: DictConfig, key: str) -> str | None:
    """Where a value that is taken from elsewhere was typed: ``a.b`` of ``${a.b}``."""
    raw = OmegaConf.to_container(node, resolve=False)[key]
    found = re.fullmatch(r"\$\{([A-Za-z_][\w.]*)\}", raw) if isinstance(raw, str) else None
    return found[1] if found else None
