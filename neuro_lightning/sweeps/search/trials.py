"""Chooses the trials that this process runs: those of processes that ended, those that failed, and new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from neuro_lightning.artifacts.studies import quiet_optuna, running_trial
from neuro_lightning.sweeps.search.owner import Owner

STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}  # all else has failed
RETRY_OF = "retry_of"
SURPLUS = "surplus"  # a trial beyond the budget, asked by two processes in different folders at once: it never runs


class Trials:
    """Returns trials to run until the study has its number of trials.

    Args:
        study: may be shared with other processes.
        storage: in which it lies.
        searched: each key's distribution.
        n_trials: of the study in all processes; a trial that is tried again counts once.
        owner: this process.
        private: whether the study belongs to the owner's folder alone.
        extend: suggests more for a trial; None adds nothing.
    """

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        searched: Mapping[str, BaseDistribution],
        n_trials: int,
        owner: Owner,
        *,
        private: bool = True,
        extend: Callable[[Trial], None] | None = None,
    ) -> None:
        self.study, self.storage, self.searched, self.n_trials = study, storage, searched, n_trials
        self.owner, self.private, self.extend = owner, private, extend
        self._failed = [trial.number for trial in self._all() if self._may_retry(trial)]

    def next(self, most: int) -> list[Trial]:
        """At most ``most`` trials to run now; none when there is nothing left to do."""
        with self.owner.exclusive(), quiet_optuna():
            found = self._abandoned()[:most]
            while len(found) < most and self._failed:
                found += self._retry(self._failed.pop(0))
            while len(found) < most and self._counted() < self.n_trials:
                trial = self.study.ask()
                if self._counted(before=trial.number) >= self.n_trials:  # another process asked at the same time
                    trial.set_user_attr(SURPLUS, True)
                    self.study.tell(trial, state=TrialState.FAIL)
                    break
                found.append(trial)
            for trial in found:
                trial.set_user_attr("owner", self.owner.name)
                self._suggest_values(trial)
            return found

    def tell(self, trial: Trial, record: Mapping[str, Any], job: str) -> str:
        """Tell the study the outcome of a trial, and return its status.

        Args:
            trial: one that was given out.
            record: its job's ``run.json``.
            job: the name of the job's folder.
        """
        status, value = record.get("status"), (record.get("objective") or {}).get("value")
        state = STATES.get(str(status), TrialState.FAIL)
        if state is TrialState.COMPLETE and value is None:
            state, status = TrialState.FAIL, "diverged"
        trial.set_user_attr("job", job)
        trial.set_user_attr("status", status)
        if record.get("error"):
            trial.set_user_attr("error", str(record["error"]).strip().splitlines()[0])
        with quiet_optuna():
            values = {"values": value} if state is TrialState.COMPLETE else {}
            self.study.tell(trial, state=state, skip_if_finished=True, **values)
        return str(status)

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _counted(self, before: float = math.inf) -> int:
        """How many trials with smaller numbers count."""
        return sum(not {RETRY_OF, SURPLUS} & set(trial.user_attrs) and trial.number < before for trial in self._all())

    def _abandoned(self) -> list[Trial]:
        """Running trials whose process has ended."""
        running = [trial for trial in self._all() if trial.state is TrialState.RUNNING]
        left = [trial.number for trial in running if self._is_abandoned(trial.user_attrs.get("owner"))]
        return [running_trial(self.study, self.storage, number) for number in left]

    def _is_abandoned(self, owner: str | None) -> bool:
        if owner is None:  # its process ended before it wrote its name
            return self.private
        return self.owner.has_ended(owner)

    def _may_retry(self, trial: FrozenTrial) -> bool:
        attributes = trial.user_attrs
        failed = trial.state is TrialState.FAIL and attributes.get("status") != "diverged"
        return failed and RETRY_OF not in attributes and self.owner.has_ended(attributes.get("owner"))

    def _retry(self, number: int) -> list[Trial]:
        """A trial with the settings of a failed one; none if there is one already."""
        if any(trial.user_attrs.get(RETRY_OF) == number for trial in self._all()):
            return []
        failed = self._all()[number]
        attributes = {RETRY_OF: number, "owner": self.owner.name}
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=failed.params, distributions=failed.distributions,
                user_attrs=attributes,
            )
        )  # fmt: skip
        [added] = [trial for trial in self._all() if trial.user_attrs.get(RETRY_OF) == number]
        return [running_trial(self.study, self.storage, added.number)]

    def _suggest_values(self, trial: Trial) -> None:
        for key, distribution in self.searched.items():
            suggest(trial, key, distribution)
        if self.extend is not None:
            self.extend(trial)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Let a trial choose a key's value, unless it has one already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
        return
    function = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    function(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def folder_number(trial: Trial) -> int:
    """The number of a trial's job: its own, or that of the failed one that it tries again."""
    return trial.user_attrs.get(RETRY_OF, trial.number)
