"""The searches as Ray Tune's schedulers. Imports Ray: only the sweeper imports this."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.stopper import Stopper

from neuro_lightning.sweeps.tune.display import Display
from neuro_lightning.sweeps.tune.halving import Halving
from neuro_lightning.sweeps.tune.journal import Journal, Result, mark, to_result
from neuro_lightning.sweeps.tune.population import Generations
from neuro_lightning.sweeps.tune.trainable import EPOCHS, JOB, KNOWN, RESULT, SCORE, with_start


class Patient:
    """A scheduler's part that gives a trial up whose workers die again and again.

    Attributes:
        added: how often each trial was put on the list: once, and once for every worker that died.
        max_failures: how many of them may die in a step.
    """

    added: Counter
    max_failures: int

    def count(self, trial: Any) -> None:
        """A trial was put on the list."""
        number = job_of(trial)["trial"]
        self.added[number] += 1
        if (lost := self.added[number] - 1) > self.max_failures:
            trial.set_config({JOB: job_of(trial) | {"lost": lost}})  # its next worker says so and trains no more


class Singly(Patient, FIFOScheduler):
    """Trials one after the other, none compared with another.

    Args:
        journal: where results are noted.
        display: shows what follows from them.
        max_failures: workers of a trial that may die.
    """

    def __init__(self, journal: Journal, display: Display, max_failures: int) -> None:
        super().__init__()
        self.journal, self.display, self.max_failures, self.added = journal, display, max_failures, Counter()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Count how often."""
        self.count(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note the result; the trial is over."""
        done = _result(result)
        self.journal.write(done)
        if done.status == "failed":
            mark(self.journal.path.parent, done)
        self.display.result(done)
        return TrialScheduler.STOP


class SuccessiveHalving(Patient, AsyncHyperBandScheduler):
    """Ray's ASHA, which forgets nothing when the sweep is killed.

    Args:
        settings: see there.
        milestones: epochs at which trials are compared, and the end of the training.
        journal: where results are noted; those in it count.
        display: shows what follows from them.
        max_failures: workers of a trial that may die.
    """

    def __init__(
        self, settings: Halving, milestones: list[int], journal: Journal, display: Display, max_failures: int
    ) -> None:  # fmt: skip
        super().__init__(
            time_attr=EPOCHS, metric=SCORE, mode="max", max_t=milestones[-1], grace_period=milestones[0],
            reduction_factor=settings.factor,
        )  # fmt: skip
        self.journal, self.display, self.max_failures, self.added = journal, display, max_failures, Counter()
        for before in journal.results:
            for milestone, recorded in self._brackets[0]._rungs:
                if milestone == before.epochs and before.start is not None:
                    recorded[f"trial {before.trial}"] = before.score

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Count how often."""
        super().on_trial_add(tune_controller, trial)
        self.count(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note the result and what becomes of the trial."""
        done = _result(result)
        decision = TrialScheduler.STOP
        if done.start is not None:
            decision = super().on_trial_result(tune_controller, trial, result)
        if done.status == "finished":  # early, it may be
            decision = TrialScheduler.STOP
        elif decision == TrialScheduler.STOP and done.status == "paused":
            done = replace(done, status="pruned")
        self.journal.write(done)
        if done.status in ("pruned", "failed"):
            mark(self.journal.path.parent, done)
        self.display.result(done)
        if decision != TrialScheduler.STOP:  # where another worker would go on, should this one die
            self.added[done.trial] = 1
            trial.set_config({JOB: with_start(job_of(trial), done.start)})
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: its last result has been counted."""


class BinaryTournament(Patient, PopulationBasedTraining):
    """Ray's synchronous population-based training, with AutoLFADS's tournament in place of its quantiles.

    What a trial goes on from stands in its config, not in a checkpoint of Ray's: a loser whose own checkpoint is
    still on its way when it is handed its winner's would else go on from its own.

    Args:
        generations: the population.
        journal: where results are noted.
        display: shows what follows from them.
        max_failures: workers of a trial that may die in a generation.
    """

    def __init__(self, generations: Generations, journal: Journal, display: Display, max_failures: int) -> None:
        settings = generations.settings
        super().__init__(
            time_attr=EPOCHS, metric=SCORE, mode="max", perturbation_interval=settings.generation_epochs,
            burn_in_period=settings.burn_in_epochs, custom_explore_fn=_unchanged, log_config=False, synch=True,
        )  # fmt: skip
        self.generations, self.journal, self.display = generations, journal, display
        self.max_failures, self.added = max_failures, Counter()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Count how often."""
        super().on_trial_add(tune_controller, trial)
        self.count(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note the result; with the last one of a generation hold the tournament. Every trial rests in between."""
        done = _result(result)
        if result.get(KNOWN):
            return TrialScheduler.PAUSE
        self.journal.write(done)
        if done.status == "failed":
            mark(self.journal.path.parent, done)
        results = [*self.generations.results.values(), done]
        taken = self.generations.report(done)
        if taken is not None:
            self.display.generation(self.generations, results, taken)
            self._hand_out(tune_controller)
        return TrialScheduler.PAUSE

    def _hand_out(self, tune_controller: Any) -> None:
        """Tell every trial what it goes on from, and with which hyperparameters."""
        members = {member.number: member for member in self.generations.members}
        self.added = Counter(dict.fromkeys(members, 1))
        for trial in tune_controller.get_trials():
            member = members[job_of(trial)["trial"]]
            trial.set_config({JOB: with_start(job_of(trial), member.start) | {"values": member.values}})

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that has not done this generation."""
        if self.generations.over:
            return None
        ready = [
            trial
            for trial in tune_controller.get_trials()
            if trial.status in (trial.PENDING, trial.PAUSED) and job_of(trial)["trial"] not in self.generations.results
        ]
        return min(ready, key=lambda trial: job_of(trial)["trial"], default=None)


class Over(Stopper):
    """Ends the experiment when the population trains no further generation.

    Args:
        generations: the population.
    """

    def __init__(self, generations: Generations) -> None:
        self.generations = generations

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether it is over."""
        return self.generations.over is not None


def job_of(trial: Any) -> dict[str, Any]:
    """What a worker must know of a trial, from Ray's."""
    return trial.config[JOB]


def _result(result: dict[str, Any]) -> Result:
    return to_result(json.loads(result[RESULT]))


def _unchanged(config: dict[str, Any]) -> dict[str, Any]:
    return config  # Ray asks for a way to explore; ours is the population's own
