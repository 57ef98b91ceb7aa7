"""The settings of one run: composed by Hydra, resolved and checked once, and never changed afterwards."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from omegaconf import DictConfig, OmegaConf, open_dict

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.config import READ_APART, check_config, to_plain
from neuro_lightning.settings.types import wrong_types

NOT_IN_CONFIG = {"source", "config", "overrides", "group"}  # fields that are no keys of the config


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the settings of both commands have in common.

    A field that holds a mapping is a read-only DictConfig with every interpolation resolved; a list is a plain list.

    Attributes:
        source: the composed config, whose interpolations are resolved again when a setting changes.
        config: the same, resolved, as plain dictionaries and lists, which are not to be changed.
        trusted: packages of the user's own that configs may build from.
    """

    source: DictConfig = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    trusted: list[str]

    @classmethod
    def config_keys(cls) -> set[str]:
        """The top-level keys of the config."""
        return {each.name for each in fields(cls)} - NOT_IN_CONFIG

    @classmethod
    def resolve(cls, cfg: DictConfig, **given: Any) -> Self:
        """The settings of a composed config.

        Args:
            cfg: the composed config; it is copied.
            given: fields that no config holds.

        Raises:
            ConfigError: a key that must be given is not, or refers to one that does not exist.
        """
        source = copy.deepcopy(cfg)
        for path, keys in READ_APART.items():
            if OmegaConf.is_config(node := source.get(path)):
                with open_dict(node):
                    for key in keys:
                        node.pop(key, None)
        config = to_plain(source)
        nodes = OmegaConf.create(config)
        OmegaConf.set_readonly(nodes, True)
        values = {key: config.get(key) for key in cls.config_keys()}
        values |= {key: nodes[key] for key, value in values.items() if isinstance(value, dict)}
        values["trusted"] = values["trusted"] or []
        return cls(source=source, config=config, **values, **given)

    def check(self) -> None:
        """Refuse settings that nothing reads, or that cannot be what their class asks for.

        Raises:
            ConfigError: with one line for each problem.
        """
        check_config(self.source, known=self.config_keys())
        if problems := wrong_types("", self.source, type(self)):
            raise ConfigError("\n".join(problems))


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """The settings of ``train.py``; ``conf/train.yaml`` says what each means.

    Attributes:
        overrides: what was typed, for the records.
        group: the sweep that the run belongs to.
    """

    data: DictConfig
    model: DictConfig
    baselines: DictConfig | None
    trainer: DictConfig
    callbacks: DictConfig | None
    logger: DictConfig | None
    paths: DictConfig
    sweep: DictConfig
    seed: int
    epochs: int
    monitor: str
    mode: str
    k_shot: list[int]
    refit: bool
    init: str | None
    adapt: DictConfig
    resume: str | None
    overwrite: bool
    name: str | None
    tags: list[str]
    overrides: Sequence[str] = ()
    group: str | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.paths.output_dir)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """The same settings with other values, and whatever refers to them.

        Args:
            values: by dotted key, such as ``trainer.max_epochs``.
        """
        source = copy.deepcopy(self.source)
        for key, value in values.items():
            OmegaConf.update(source, key, value, force_add=True)
        return self.resolve(source, overrides=self.overrides, group=self.group)

    def check(self) -> None:
        """As :meth:`Settings.check`, and the seed."""
        super().check()
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed}: give a whole number from 0 to {2**32 - 1}")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """The settings of ``predict.py``; ``conf/predict.yaml`` says what each means."""

    data: DictConfig
    ckpt: str | list[str]
    checkpoint: str
    session: str | None
    ensemble: Literal["mean", "top", "greedy", "stack", "per_neuron"]
    space: Literal["rate", "log_rate"]
    ensemble_seed: int
    max_members: int
    shrinkage: float
    similar_trials: float
    output: str | None
    file: str | None
    label: str | None
    ground_truth: bool
    merge_into: str | None
    overwrite: bool
    device: str
    evaluate: bool
    log: bool

    def check(self) -> None:
        """As :meth:`Settings.check`, and the values of the keys."""
        super().check()
        for name, least in (("ensemble_seed", 0), ("max_members", 1), ("shrinkage", 0)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name}={getattr(self, name)}: give a number from {least} on")
        check_share("similar_trials", self.similar_trials)

    @property
    def named(self) -> list[str]:
        """What the user named as ``ckpt``, as a list."""
        return self.ckpt if isinstance(self.ckpt, list) else [self.ckpt]


def check_share(name: str, value: float) -> None:
    """Refuse a share that is below 0, or 1 and more.

    Raises:
        ConfigError: naming it.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{name}={value}: give a share from 0 to below 1, such as 0.25")
