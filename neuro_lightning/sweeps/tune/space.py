"""Hydra's override grammar as Ray Tune's search space.

==============================  ==========================================
``key=a,b`` ``choice(a,b)``     one of them
``range(1,10,2)``               one of its values
``interval(0.1,0.5)``           any number between
``int(interval(1,7))``          a whole number, both ends included
``tag(log,interval(..))``       evenly on a logarithmic scale
``tag(int,interval(1,7))``      the same
``tag(grid,choice(a,b))``       all of them, each with every sample
==============================  ==========================================

Everything else is fixed, and handed on as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuro_lightning.errors import ConfigError

TAGS = {"log", "int", "grid"}
DIGITS = 6  # of a sampled number: what is typed again by hand is the same trial


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included.

    Attributes:
        low: the lower end.
        high: the upper end.
        log: evenly on a logarithmic scale.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def inside(self, value: float) -> float:
        """The number of this interval that is nearest."""
        value = round(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A few values, as they are written in an override.

    Attributes:
        values: the values.
        grid: each of them is tried with every sample.
    """

    values: tuple[str, ...]
    grid: bool = False


Dimension = Interval | Choice


def read_space(overrides: Sequence[str], loader: Any = None) -> tuple[list[str], dict[str, Dimension]]:
    """Divide overrides into what is fixed and what is searched; the last word on a key counts.

    Args:
        overrides: as on the command line.
        loader: Hydra's config loader.

    Returns:
        The fixed overrides, and the dimensions by key.

    Raises:
        ConfigError: a dimension is empty or contradicts itself, or is of a kind that a search cannot have.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    fixed: dict[str, str] = {}
    space: dict[str, Dimension] = {}
    for override in parsed:
        key = override.input_line if override.is_delete() else override.get_key_element()
        fixed.pop(key, None), space.pop(key, None)
        if override.is_sweep_override():
            space[key] = _dimension(override)
        else:
            fixed[key] = override.input_line
    return list(fixed.values()), space


def _dimension(override: Any) -> Dimension:
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    sweep, line = override.value(), override.input_line
    tags = set(getattr(sweep, "tags", ()))
    if unknown := tags - TAGS:
        raise ConfigError(f"{line}: no such tag: {', '.join(sorted(unknown))}; there are {', '.join(sorted(TAGS))}")
    if getattr(sweep, "shuffle", False):
        raise ConfigError(f"{line}: a search draws its values itself; leave shuffle out")
    if override.is_interval_sweep():
        return _interval(sweep, tags, line)
    if not isinstance(sweep, ChoiceSweep | RangeSweep):
        raise ConfigError(f"{line}: glob chooses files, which a search cannot draw from; list the options: key=a,b")
    if wrong := tags - {"grid"}:
        raise ConfigError(f"{line}: tag({', '.join(sorted(wrong))}) is for intervals, not for a list of values")
    if isinstance(sweep, RangeSweep) and sweep.step == 0:
        raise ConfigError(f"{line}: a range needs a step other than 0")
    values = tuple(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{line}: no value to choose from")
    return Choice(values, "grid" in tags)


def _interval(sweep: Any, tags: set[str], line: str) -> Interval:
    low, high = sweep.start, sweep.end
    whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))
    if "grid" in tags:
        raise ConfigError(f"{line}: tag(grid) is for a list of values: an interval has no end of them")
    if whole and (low != int(low) or high != int(high)):
        raise ConfigError(f"{line}: whole numbers between ends that are not: give whole ends, or leave tag(int) out")
    if not low < high:
        raise ConfigError(f"{line}: no number lies between {low} and {high}; give the lower end first")
    if "log" in tags and low <= 0:
        raise ConfigError(f"{line}: a logarithmic scale begins above 0, not at {low}")
    low, high = (int(low), int(high)) if whole else (float(low), float(high))
    return Interval(low, high, "log" in tags, whole)


def sample(space: Mapping[str, Dimension], n: int, seed: int) -> list[dict[str, Any]]:
    """Draw trials with Ray's own sampler: the same ones for the same seed.

    Args:
        space: dimensions by key.
        n: samples; each is combined with every value of the grids.
        seed: of the draw.

    Returns:
        The values of each trial by key, as an override writes them.

    Raises:
        ConfigError: there is nothing to search, or no trial is asked for.
    """
    import numpy as np
    from ray.tune.search.variant_generator import generate_variants

    if not space:
        raise ConfigError(
            "nothing to search: give intervals or lists of values, such as model.optimizer.lr='interval(1e-4,1e-2)'"
        )
    if n < 1:
        raise ConfigError(f"hydra.sweeper.trials={n}: give 1 or more")
    # dots in keys would be read as nested dictionaries
    domains = {str(i): to_ray(dimension) for i, dimension in enumerate(space.values())}
    random = np.random.RandomState(seed)
    drawn = [values for _ in range(n) for _, values in generate_variants(domains, random_state=random)]
    return [
        {key: _rounded(dimension, values[str(i)]) for i, (key, dimension) in enumerate(space.items())}
        for values in drawn
    ]


def to_ray(dimension: Dimension) -> Any:
    """A dimension as Ray's search space has it."""
    from ray import tune

    if isinstance(dimension, Choice):
        return (tune.grid_search if dimension.grid else tune.choice)(list(dimension.values))
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.whole:  # Ray's upper end is not included
        return (tune.lograndint if log else tune.randint)(low, high + 1)
    return (tune.loguniform if log else tune.uniform)(low, high)


def _rounded(dimension: Dimension, value: Any) -> Any:
    return dimension.inside(value) if isinstance(dimension, Interval) else value
