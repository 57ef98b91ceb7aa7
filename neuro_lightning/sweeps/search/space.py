"""Reads the space of a search from Hydra's override grammar: what is searched, and what is fixed in every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.quoting import to_override

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """What a search chooses from.

    Attributes:
        searched: Optuna's distribution of each key.
        written: the same as the user wrote it.
        fixed: overrides that every trial has.
    """

    searched: dict[str, BaseDistribution]
    written: dict[str, str]
    fixed: list[str]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """A trial's overrides."""
        return [*self.fixed, *(f"{key}={to_override(value)}" for key, value in values.items())]

    def examples(self) -> list[list[str]]:
        """Overrides of a few example trials in which every choice of every key occurs."""
        from optuna.distributions import CategoricalDistribution

        first: dict[str, Any] = {}
        others: list[tuple[str, Any]] = []
        for key, distribution in self.searched.items():
            if isinstance(distribution, CategoricalDistribution):
                first[key] = distribution.choices[0]
                others += [(key, choice) for choice in distribution.choices[1:]]
            else:
                first[key] = distribution.low
        return [self.overrides(first), *(self.overrides({**first, key: value}) for key, value in others)]

    def grid(self) -> dict[str, list[Any]]:
        """The values of every key, for Optuna's grid.

        Raises:
            ConfigError: a key has an interval, of which a grid knows no values.
        """
        values = {}
        for key, found in self.searched.items():
            if hasattr(found, "choices"):
                values[key] = list(found.choices)
            elif found.step is None:
                raise ConfigError(f"{key}={self.written[key]}: a grid takes values, not an interval")
            else:
                low, step = Decimal(str(found.low)), Decimal(str(found.step))
                count = int((Decimal(str(found.high)) - low) / step) + 1
                values[key] = [type(found.low)(low + i * step) for i in range(count)]
        return values


def read_space(params: Mapping[str, Any] | None, typed: Sequence[str]) -> Space:
    """The space of ``hydra.sweeper.params`` and of the command line, which replaces keys of the former.

    Args:
        params: overrides by key.
        typed: overrides from the command line.

    Raises:
        ConfigError: nothing or the seed is searched, a key is both fixed and searched, or its values make no sense
            together.
    """
    given = _parsed([f"{key}={to_override(value)}" for key, value in (params or {}).items()])
    wanted = _parsed(typed)
    repeated = {key for key in wanted if len(wanted[key]) > 1 and any(o.is_sweep_override() for o in wanted[key])}
    if repeated:
        both = " and ".join(override.input_line for override in wanted[min(repeated)])
        raise ConfigError(f"{min(repeated)} is given twice, {both}: search it or fix it")
    overrides = [o for key, found in {**given, **wanted}.items() for o in found]
    searched = {o.get_key_element(): o for o in overrides if o.is_sweep_override()}
    space = Space(
        searched={key: _distribution(override) for key, override in searched.items()},
        written={key: override.input_line.split("=", 1)[1] for key, override in searched.items()},
        fixed=[override.input_line for override in overrides if not override.is_sweep_override()],
    )
    if not space.searched:
        raise ConfigError(
            "there is nothing to search: choose a space (sweep=ndt_bayes), or give some keys one, as in "
            "'model.optimizer.lr=tag(log,interval(1e-4,1e-2))' or 'model.layers=choice(1,2,3)'"
        )
    if "seed" in space.searched:
        raise ConfigError(
            f"seed={space.written['seed']}: a search chooses settings, and a seed is none; with "
            "hydra.sweeper.seeds=3 each trial's score is the mean over three seeds"
        )
    return space


def _parsed(words: Sequence[str]) -> dict[str, list[Any]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found: dict[str, list[Any]] = {}
    for word in words:
        try:
            [override] = OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            raise ConfigError(f"{word}: {_parser_message(error)}") from None
        found.setdefault(override.get_key_element().lstrip("+~"), []).append(override)
    return found


def _parser_message(error: Exception) -> str:
    """The first telling line of the parser's error message."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line.strip("^ ") and not line.startswith(("Error ", "See http"))]
    text = lines[0] if lines else type(error).__name__
    return "null has no place in choice(...): write null,1,2" if "NoneType is incompatible" in text else text


def _distribution(override: Any) -> BaseDistribution:
    """Optuna's distribution of an override."""
    from hydra.core.override_parser.types import RangeSweep, Transformer
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    line, sweep = override.input_line, override.value()
    if override.is_interval_sweep():
        return _interval(sweep.start, sweep.end, set(sweep.tags), line)
    values = list(override.sweep_iterator(transformer=Transformer.encode))
    if not values:
        raise ConfigError(f"{line}: give at least one value to choose from")
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers:
        kind = IntDistribution if all(isinstance(value, int) for value in values) else FloatDistribution
        return kind(min(values), max(values), step=type(values[0])(abs(sweep.step)))
    kinds = {_kind(value) for value in values} - {"null"}
    if len(kinds) > 1:
        raise ConfigError(f"{line}: {' and '.join(sorted(kinds))} among the choices of one key; give one kind")
    return CategoricalDistribution(values)


def _interval(low: float, high: float, tags: set[str], line: str) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if low > high:
        raise ConfigError(f"{line}: an interval's first number is the smaller one")
    if "log" in tags and low <= 0:
        raise ConfigError(f"{line}: a logarithmic interval begins above 0")
    if "int" in tags and low == int(low) and high == int(high):
        low, high = int(low), int(high)
    whole = isinstance(low, int) and isinstance(high, int)
    if "int" in tags and not whole:
        raise ConfigError(f"{line}: whole numbers between ends that are not: give whole ends, or leave tag(int) out")
    return (IntDistribution if whole else FloatDistribution)(low, high, log="log" in tags)


def _kind(value: Any) -> str:
    if value is None or value == "null":
        return "null"
    if isinstance(value, bool) or value in ("true", "false"):
        return "true or false"
    return "numbers" if isinstance(value, int | float) else "words"
