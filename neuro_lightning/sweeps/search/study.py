"""Opens the study of a search, and samples it so that an interrupted search makes the same choices."""

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

OF = "neuro_lightning"  # the study's attribute with its settings
ONE_SEQUENCE = ("GridSampler", "QMCSampler")  # samplers whose seed orders all trials of a study


class SeededSampler(BaseSampler):
    """A sampler whose randomness depends on the seed and the trial's number alone.

    Optuna's samplers draw from a generator that is lost with its process, so that a resumed search would choose other
    trials than an uninterrupted one, or the same ones again. Here each trial has a generator of its own: its values
    depend on the seed, its number and the trials before it.

    Args:
        build: makes the sampler from a seed.
        seed: of the search.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build, self._seed = build, seed
        self._inner = build(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        if type(self._inner).__name__ not in ONE_SEQUENCE:
            self._inner = self._build(int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Call the wrapped sampler."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Call the wrapped sampler."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """Call the wrapped sampler."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Call the wrapped sampler, but not a grid's, which would stop Optuna's own loop."""
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
        of: settings of the study by key; all searches that share it must have the same.

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
