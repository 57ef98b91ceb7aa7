"""A search's study: opened, told from others, and sampled so that it can be interrupted without a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from neuro_lightning.artifacts.studies import first_line, open_storage, quiet_optuna, shown
from neuro_lightning.errors import ConfigError

OF = "neuro_lightning"  # the study's attribute that says what it is of
ONE_SEQUENCE = ("GridSampler", "QMCSampler")  # whose seed says an order that is common to all trials


class SeededSampler(BaseSampler):
    """A sampler whose randomness depends on the seed and the trial's number alone.

    Optuna's samplers draw from a generator that dies with its process, so that a search that is resumed would choose
    other trials than one left alone, or the same ones again. Here each trial has a generator of its own: what it
    becomes is a function of the seed, its number, and the trials before it.

    Args:
        build: makes the sampler from a seed.
        seed: of the search.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build, self._seed = build, seed
        self._inner = build(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin this trial's own randomness."""
        if type(self._inner).__name__ not in ONE_SEQUENCE:
            self._inner = self._build(int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """As the sampler within."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """As the sampler within."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """As the sampler within."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """As the sampler within, but for a grid's, which would end a loop of Optuna's own."""
        if type(self._inner).__name__ != "GridSampler":
            self._inner.after_trial(study, trial, state, values)


def open_study(
    storage: str, name: str, *, mode: str, sampler: BaseSampler, pruner: Any, of: Mapping[str, Any]
) -> tuple[Study, BaseStorage]:
    """The study of this name, made when it is not there, and the storage in which it lies.

    Args:
        storage: see :func:`~neuro_lightning.artifacts.studies.open_storage`.
        name: several searches may live in one storage under different names.
        mode: ``max`` or ``min``.
        sampler: what chooses trials.
        pruner: Optuna's, or None; some samplers ask it which trials to learn from.
        of: what the study is of, by key; all who share it must agree.

    Raises:
        ConfigError: the storage cannot be used, or holds another study under this name.
    """
    opened = open_storage(storage)
    direction = {"max": "maximize", "min": "minimize"}[mode]
    try:
        with quiet_optuna():
            study = optuna.create_study(
                storage=opened, study_name=name, direction=direction, sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(), load_if_exists=True,
            )  # fmt: skip
            before, trials = study.user_attrs.get(OF), study.get_trials(deepcopy=False)
    except Exception as error:
        raise ConfigError(
            f"hydra.sweeper.storage={shown(storage)} cannot be used: it is damaged or no study's ({first_line(error)})"
        ) from None
    if before is None and not trials:
        study.set_user_attr(OF, dict(of))
        return study, opened
    if differences := list(_differences(before or {}, of)):
        raise ConfigError(
            f"hydra.sweeper.storage={shown(storage)} holds another study named {name}:\n  "
            + "\n  ".join(differences)
            + "\n  give this search a name (hydra.sweeper.study_name=...) or a folder of its own"
        )
    return study, opened


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*before, *now])
    return [f"{key}: {before.get(key, 'none')} there, {now.get(key, 'none')} here" for key in keys
            if before.get(key) != now.get(key)]  # fmt: skip
