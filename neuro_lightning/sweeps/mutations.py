"""The UWNDC19 winner's way to an architecture: change one thing of a good network at a time, and look what helps.

``python train.py -m sweep=uwndc19_mutations seed=0,1,2``: each job is the model of the command line with one mutation
of the list in ``conf/sweep/uwndc19_mutations.yaml``, and ``sweep.csv`` names it in the column ``mutation``.

Source: repository apls777/kaggle-uw-neural-data-challenge, hp_tuning. There the base config was copied shallowly, so
that a mutation leaked into the trials after it; the batch normalization of an added layer was lost; and the change of
the last layer's dropout went to a key that nobody read. Here all three are as they were meant.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.quoting import quoted, unquoted
from neuro_lightning.sweeps.grid import Grid

Model = dict[str, Any]  # the model's config: lists `conv` and `dense`, a dictionary `logits`
Step = tuple[str, dict[str, Any]]  # a mutation's name and its arguments
LAYERS = ("conv", "dense", "logits")
OWN = tuple(f"model.{key}" for key in LAYERS)
GROUP = "mutation"
COMPOSE = "compose"
MUTATIONS: dict[str, Callable[..., None]] = {}


def _mutation(function: Callable[..., None]) -> Callable[..., None]:
    MUTATIONS[function.__name__] = function
    return function


# ---- the mutations; each changes a copy that :func:`mutate` has made


@_mutation
def base(model: Model) -> None:
    """Nothing: the model that all others are compared with."""


@_mutation
def toggle_batch_norm(model: Model, layer_id: int) -> None:
    """Add a convolutional layer's batch normalization, or take it away."""
    layer = _layer(model, "conv", layer_id)
    layer["batch_norm"] = not layer.get("batch_norm", False)


@_mutation
def add_conv_layer(
    model: Model, filters: int, kernel: int, padding: str = "same", dropout: float = 0, l2: float = 0,
    batch_norm: bool = False,
) -> None:  # fmt: skip
    """Append a convolutional layer."""
    layer = {"filters": filters, "kernel": kernel, "padding": padding, "dropout": dropout, "l2": l2}
    model["conv"].append({**layer, "batch_norm": batch_norm})


@_mutation
def delete_last_conv_layer(model: Model) -> None:
    """Take the last convolutional layer away."""
    if not model["conv"]:
        raise ConfigError("the model has no convolutional layer")
    model["conv"].pop()


@_mutation
def change_conv_layer(
    model: Model, layer_id: int, filters: int | None = None, kernel: int | None = None, padding: str | None = None,
    dropout: float | None = None, l2: float | None = None, batch_norm: bool | None = None,
) -> None:  # fmt: skip
    """Change settings of a convolutional layer."""
    changes = {"filters": filters, "kernel": kernel, "padding": padding, "dropout": dropout, "l2": l2}
    _change(_layer(model, "conv", layer_id), {**changes, "batch_norm": batch_norm})


@_mutation
def add_dense_layer(model: Model, units: int, dropout: float = 0, l2: float = 0) -> None:
    """Append a dense layer, before the output layer."""
    model["dense"].append({"units": units, "dropout": dropout, "l2": l2})


@_mutation
def change_dense_layer(
    model: Model, layer_id: int, units: int | None = None, dropout: float | None = None, l2: float | None = None
) -> None:
    """Change settings of a dense layer."""
    _change(_layer(model, "dense", layer_id), {"units": units, "dropout": dropout, "l2": l2})


@_mutation
def change_logits_layer(model: Model, dropout: float | None = None, l2: float | None = None) -> None:
    """Change settings of the output layer."""
    _change(model["logits"], {"dropout": dropout, "l2": l2})


def _layer(model: Model, kind: str, layer_id: Any) -> dict[str, Any]:
    layers = model[kind]
    if isinstance(layer_id, bool) or not isinstance(layer_id, int) or not 0 <= layer_id < len(layers):
        there = f"0 to {len(layers) - 1}" if layers else "none"
        raise ConfigError(f"layer_id={layer_id!r}: the model's {kind} layers are {there}")
    return layers[layer_id]


def _change(layer: dict[str, Any], changes: dict[str, Any]) -> None:
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise ConfigError(f"changes nothing; give one of {', '.join(changes)}")
    layer.update(given)


# ---- trials


def mutate(model: Mapping[str, Any], steps: Sequence[Step]) -> Model:
    """A model's config with mutations applied one after the other; the one that is given stays as it is.

    Args:
        model: with the lists ``conv`` and ``dense`` and the dictionary ``logits``.
        steps: names and arguments of mutations.

    Returns:
        The three of them, changed.

    Raises:
        ConfigError: the model has no such lists, a mutation or its arguments are unknown, a layer does not exist, or
            a value is out of its range.
    """
    if missing := [key for key in LAYERS if key not in model]:
        raise ConfigError(
            f"mutations change a model's lists of layers, and this one has no {missing[0]}: model=cnn has"
        )
    changed = copy.deepcopy({key: model[key] for key in LAYERS})
    changed = {
        "conv": list(changed["conv"] or ()),
        "dense": list(changed["dense"] or ()),
        "logits": dict(changed["logits"] or {}),
    }
    for name, arguments in steps:
        try:
            function = _function(name)
            try:
                inspect.signature(function).bind(changed, **arguments)
            except TypeError as error:
                known = ", ".join(list(inspect.signature(function).parameters)[1:]) or "none"
                raise ConfigError(f"{error}; its arguments are {known}") from None
            function(changed, **arguments)
            _check(changed)
        except ConfigError as error:
            raise ConfigError(f"mutation {step_name(name, arguments)}: {error}") from None
    return changed


def _function(name: str) -> Callable[..., None]:
    if name not in MUTATIONS:
        raise ConfigError(f"no such mutation; there are {', '.join(MUTATIONS)} and {COMPOSE}")
    return MUTATIONS[name]


def _check(model: Model) -> None:
    from neuro_lightning.nn.conv import ConvLayer, DenseLayer

    for i, values in enumerate(model["conv"]):
        ConvLayer.parse(values, f"conv[{i}]")
    for i, values in enumerate(model["dense"]):
        DenseLayer.parse(values, f"dense[{i}]")
    DenseLayer.parse({"units": 1, **model["logits"]}, "logits")


def step_name(name: str, arguments: Mapping[str, Any]) -> str:
    """A mutation and its arguments in one word, ``toggle_batch_norm-layer_id=0``."""
    text = {True: "true", False: "false"}
    values = (f"{key}={text[value] if isinstance(value, bool) else value}" for key, value in arguments.items())
    return "-".join([name, *values])


def expand(mutations: Any, source: str = "mutations") -> dict[str, list[Step]]:
    """The trials of a list of mutations, by name.

    Args:
        mutations: mutation -> list of grids, each argument -> value or list of values. The Cartesian product of each
            grid gives its trials, one mutation each. Under ``compose``, a list of such mutations to be applied one
            after the other: the product over all of their grids gives its trials.
        source: where it stands, for errors.

    Returns:
        For each trial its steps; a trial that is listed twice is there once.

    Raises:
        ConfigError: it is not such a mapping, or names an unknown mutation.
    """
    example = "such as `toggle_batch_norm: [{layer_id: [0, 1]}]`"
    if not isinstance(mutations, Mapping) or not mutations:
        raise ConfigError(f"{source} must map mutations to lists of grids, {example}")
    trials: list[list[Step]] = []
    for name, grids in mutations.items():
        if not isinstance(grids, list) or not grids:
            raise ConfigError(f"{source}: {name} needs a list of grids, {example}")
        for grid in grids:
            if name == COMPOSE:
                trials += [list(steps) for steps in itertools.product(*_sequence(grid, source))]
            else:
                trials += [[step] for step in _grid(name, grid, source)]
    return {"+".join(step_name(*step) for step in steps): steps for steps in trials}


def _sequence(steps: Any, source: str) -> list[list[Step]]:
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) and len(step) == 1 for step in steps):
        raise ConfigError(
            f"{source}: {COMPOSE} needs lists of mutations, such as "
            "`- [{delete_last_conv_layer: {}}, {add_dense_layer: {units: [128, 256]}}]`"
        )
    return [_grid(name, grid, source) for step in steps for name, grid in step.items()]


def _grid(name: str, grid: Any, source: str) -> list[Step]:
    try:
        _function(name)
    except ConfigError as error:
        raise ConfigError(f"{source}: {name}: {error}") from None
    if not isinstance(grid, Mapping):
        raise ConfigError(f"{source}: a grid of {name} must map arguments to lists of values, not {grid!r}")
    values = [value if isinstance(value, list) else [value] for value in grid.values()]
    return [(name, dict(zip(grid, chosen, strict=True))) for chosen in itertools.product(*values)]


# ---- the sweep


class Mutations(Grid):
    """The model of the command line with one mutation in each job.

    Each mutation becomes an option of the config group ``mutation``, of this process and of those that it hands jobs
    to; ``sweep.csv`` has it as a column.

    Args:
        mutations: see :func:`expand`.
        shuffle: seed of the order of the mutations: what a sweep has done when it is stopped is a fair sample.
        max_batch_size: see :class:`Grid`.
        params: likewise.
    """

    def __init__(
        self,
        mutations: DictConfig,
        shuffle: int = 123,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.mutations, self.shuffle = mutations, shuffle

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each job.

        Raises:
            ConfigError: there is not one model, or a mutation cannot be applied to it.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        trials = expand(OmegaConf.to_container(self.mutations, resolve=True), "hydra.sweeper.mutations")
        overrides = OverridesParser.create().parse_overrides(list(arguments))
        swept = [override for override in overrides if override.is_sweep_override()]
        if several := next((override for override in swept if override.key_or_group in ("model", "experiment")), None):
            raise ConfigError(f"{several.input_line}: mutations are of one model; give one value")
        if several := next((override for override in swept if override.key_or_group.startswith(OWN)), None):
            raise ConfigError(f"{several.input_line}: the mutations change these layers; give one value")
        # the layers are in the mutated model: given again they would undo the mutation
        kept = [override.input_line for override in overrides if not override.key_or_group.startswith(OWN)]
        model = self.config.model
        layers = {key: OmegaConf.to_container(model, resolve=True)[key] for key in LAYERS if key in model}
        names = list(trials)
        random.Random(self.shuffle).shuffle(names)
        for name in names:
            register(name, mutate(layers, trials[name]))
        return super().jobs([*kept, f"+{GROUP}={','.join(map(quoted, names))}"])


def register(name: str, model: Mapping[str, Any]) -> None:
    """Make a mutated model an option of the config group ``mutation``."""
    from hydra.core.config_store import ConfigStore

    layers = {key: model[key] for key in LAYERS}
    ConfigStore.instance().store(name=name, node={"model": layers}, group=GROUP, package="_global_")


def restore(folder: Path, overrides: Sequence[str]) -> None:
    """Let the mutation of a job that goes on by itself be known again, from the config that it was run with.

    Args:
        folder: the job's.
        overrides: the job's.
    """
    names = [unquoted(word.split("=", 1)[1]) for word in overrides if word.startswith(f"+{GROUP}=")]
    if names:
        register(names[-1], OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml").model))
