"""A search on Ray, from its journal to its last score. Imports Ray: only the sweeper imports this."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from hydra.core.singleton import Singleton
from ray import tune

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.tune.display import Display
from neuro_lightning.sweeps.tune.journal import Journal, Start, mark
from neuro_lightning.sweeps.tune.population import Generations, Member, Population
from neuro_lightning.sweeps.tune.schedulers import BinaryTournament, Over, Singly, SuccessiveHalving
from neuro_lightning.sweeps.tune.trainable import FOLDER, JOB, Plan, Trainable, new_job, train

if TYPE_CHECKING:
    from neuro_lightning.sweeps.tune.sweeper import Search, Tune

ATTEMPTS = 2  # of a trial that failed, the second when the sweep is resumed


class Experiment:
    """One search.

    Args:
        sweeper: its settings.
        search: what it looks for.
        folder: the sweep's.
        journal: what it has come to before.
        resources: of a trial.
    """

    def __init__(
        self, sweeper: Tune, search: Search, folder: Path, journal: Journal, resources: dict[str, float]
    ) -> None:
        self.search, self.folder, self.journal, self.resources = search, folder, journal, resources
        self.settings, self.max_failures, self.seed = sweeper.scheduler, sweeper.max_failures, sweeper.seed
        config = search.config
        self.display = Display(config.monitor, config.mode, len(search.values), search.milestones[-1])
        self.plan = Plan(
            context=sweeper.hydra_context,
            config=sweeper.config,
            task=sweeper.task_function,
            singletons=Singleton.get_state(),
            cwd=os.getcwd(),
            path=[place for place in sys.path if place],
            folder=str(folder),
            overrides=search.fixed,
            milestones=search.milestones,
            moment="end" if isinstance(self.settings, Population) else "value",
        )

    def run(self) -> None:
        """Go on from the journal until all is done.

        Raises:
            ConfigError: every trial failed.
        """
        if isinstance(self.settings, Population):
            self._population()
        else:
            self._trials()
        for kept in self.folder.glob("*/checkpoints/epoch_*.ckpt"):
            kept.unlink()
        last = {result.trial: result for result in self.journal.results}
        if all(result.status == "failed" for result in last.values()):
            raise ConfigError(f"every trial failed, such as trial {min(last)}: {last[min(last)].error}")

    def _trials(self) -> None:
        jobs = self._open()
        for result in {result.trial: result for result in self.journal.results}.values():
            if result.status in ("pruned", "failed"):
                mark(self.folder, result)
        arguments = (self.journal, self.display, self.max_failures)
        if self.settings is None:
            scheduler = Singly(*arguments)
        else:
            scheduler = SuccessiveHalving(self.settings, self.search.milestones, *arguments)
        every = len(self.search.values)
        self.display.begin(f"{every} trials" if len(jobs) == every else f"{len(jobs)} of {every} trials are left")
        if jobs:
            self._fit(jobs, scheduler)

    def _open(self) -> list[dict[str, Any]]:
        """The trials that are not done, each where it stands."""
        jobs = []
        for trial, values in enumerate(self.search.values):
            results = [result for result in self.journal.results if result.trial == trial]
            starts = [result.start for result in results if result.start is not None]
            failures = sum(result.status == "failed" for result in results)
            done = bool(results) and results[-1].status in ("finished", "pruned", "diverged")
            if not done and failures < ATTEMPTS:
                jobs.append(new_job(trial, values, starts[-1] if starts else Start()))
        return jobs

    def _population(self) -> None:
        members = [Member(number, dict(values), Start()) for number, values in enumerate(self.search.values)]
        generations = Generations(self.settings, self.search.space, members, self.seed, self.search.milestones[-1])
        for result in self.journal.results:
            generations.report(result)
        known = generations.results
        jobs = [new_job(m.number, m.values, m.start, known.get(m.number)) for m in generations.members]
        begun = f" from generation {len(generations.best) + 1}" if generations.best else ""
        self.display.begin(f"a population of {len(jobs)}{begun}")
        if not generations.over:
            scheduler = BinaryTournament(generations, self.journal, self.display, self.max_failures)
            self._fit(jobs, scheduler, stop=Over(generations))
        self._finish(generations)

    def _fit(self, jobs: list[dict[str, Any]], scheduler: Any, stop: Any = None) -> None:
        trainable = tune.with_resources(tune.with_parameters(Trainable, plan=self.plan), self.resources)
        tuner = tune.Tuner(
            trainable,
            param_space={JOB: tune.grid_search(jobs)},
            tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(self.folder / FOLDER),
                failure_config=tune.FailureConfig(max_failures=-1),  # the scheduler counts
                stop=stop,
                verbose=0,
            ),
        )
        tuner.fit()

    def _finish(self, generations: Generations) -> None:
        """Score the members' best checkpoints, where the training ended before all its epochs were done."""
        from neuro_lightning.artifacts.records import read_record

        task = ray.remote(max_retries=self.max_failures, **_for_tasks(self.resources))(train)
        plan, left = ray.put(self.plan), []
        for member in generations.members:
            if member.start.checkpoint is None:
                continue
            job = self.folder / Path(member.start.checkpoint).parts[0]
            if read_record(job)["status"] not in ("finished", "failed", "diverged"):
                epochs = member.start.epochs
                left.append(
                    task.remote(
                        plan, member.number, member.values, member.start, epochs, f"trainer.max_epochs={epochs}"
                    )
                )
        ray.get(left)


def _for_tasks(resources: dict[str, float]) -> dict[str, float]:
    return {"num_cpus": resources["cpu"], "num_gpus": resources["gpu"]}
