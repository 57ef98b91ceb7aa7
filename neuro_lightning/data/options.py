"""Data modules that pass options on to a reader: each option, its type and its default are written down once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import is_dataclass
from typing import Any


def takes_options_of(reader: Callable, *, without: Collection[str] = ()) -> Callable[[type], type]:
    """Class decorator: the constructor also takes a reader's keyword-only arguments, and keeps them in ``options``.

    ``options`` is a dictionary, or an instance where the reader is a dataclass. Signature and annotations of the
    constructor name them all; configs are checked by these.

    Args:
        reader: a function, or a dataclass with ``kw_only=True``.
        without: arguments that are no options.
    """
    parameters, hints = inspect.signature(reader).parameters, typing.get_type_hints(reader)
    options = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in without}

    def decorate(cls: type) -> type:
        constructor = cls.__init__
        signature, own_hints = inspect.signature(constructor), typing.get_type_hints(constructor)
        *own, rest = (p.replace(annotation=own_hints.get(p.name, p.annotation)) for p in signature.parameters.values())

        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
            values = {name: keywords.pop(name, p.default) for name, p in options.items()}
            self.options = reader(**values) if is_dataclass(reader) else values
            constructor(self, *arguments, **keywords)

        __init__.__signature__ = signature.replace(parameters=[*own, *options.values(), rest])
        __init__.__annotations__ = own_hints | {name: hints[name] for name in options}
        __init__.__doc__ = constructor.__doc__
        cls.__init__ = __init__
        return cls

    return decorate
