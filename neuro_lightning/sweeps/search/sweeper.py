"""The sweeper that searches with Optuna, with studies that are shared, resumed and pruned.

It takes the keys of Hydra's own Optuna sweeper and adds what a long search needs. The study lies in a file, several
processes share it and its budget, and a killed search is resumed to the same result. A job's folder has its trial's
number, and the study is told what its ``run.json`` says: a job that failed or diverged is a failed trial, not a trial
with a bad score. Nothing heavy is imported before a search begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from neuro_lightning.artifacts.lines import MARGIN, say
from neuro_lightning.artifacts.records import read_record
from neuro_lightning.artifacts.studies import quiet_optuna
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.overrides import check_keys
from neuro_lightning.settings.quoting import quoted
from neuro_lightning.settings.registry import find_target
from neuro_lightning.sweeps.base import BaseSweeper, has_ended, job_folder
from neuro_lightning.sweeps.search.owner import Owner
from neuro_lightning.sweeps.search.space import read_space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    from neuro_lightning.sweeps.search.trials import Trials

UNDONE = ("running", "interrupted", "paused")  # jobs without an outcome yet
# keys in which processes that share a study, and its trials over time, may differ
HERE = (
    "data.root", "data.cache_dir", "data.download", "data.eval_batch_size", "logger*", "paths*", "callbacks*", "name",
    "tags", "trusted", "trainer", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy*",
    "trainer.enable_*", "trainer.log_every_n_steps", "hydra*",
)  # fmt: skip


class Search(BaseSweeper):
    """Chooses each trial's settings from the scores of those before it.

    Args:
        n_trials: of the study in all, whoever runs them.
        n_jobs: trials that are launched together, in a launcher that runs jobs at once.
        sampler: Optuna's, ``hydra/sweeper/sampler=...``; without a seed it has the run's.
        pruner: what stops bad trials early, ``hydra/sweeper/pruner=...``.
        storage: a file, or the URL of any of Optuna's storages.
        study_name: of the study in its storage.
        params: the space, overrides in Hydra's grammar by key; the command line comes after it.
        custom_search_space: a function of the config and Optuna's trial that suggests more.
        seeds: jobs of a trial, each with another seed; the trial's score is their mean.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        sampler: Any,
        pruner: Any,
        storage: str,
        study_name: str,
        params: Mapping[str, Any] | None,
        custom_search_space: str | None,
        seeds: int = 1,
    ) -> None:
        self.n_trials, self.n_jobs, self.sampler, self.pruner = n_trials, n_jobs, sampler, pruner
        self.seeds = seeds
        self.storage, self.study_name = str(storage), str(study_name)
        self.params, self.custom_search_space = params, custom_search_space

    def propose(self, arguments: Sequence[str]) -> list[list[str]]:
        """A few trials in which every choice of every key occurs."""
        for key in ("n_trials", "n_jobs", "seeds"):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"hydra.sweeper.{key}={value}: give a whole number from 1 on")
        self.space = read_space(self.params, arguments)
        return self.space.examples()

    def count_jobs(self, jobs: Sequence[Sequence[str]]) -> int | None:
        """Of every trial one for each seed; pruned trials have fewer."""
        return self._count_trials() * self.seeds

    def _count_trials(self) -> int:
        if not self._by_grid():
            return self.n_trials
        return min(self.n_trials, math.prod(map(len, self.space.grid().values())))

    def open(self) -> None:
        """Open the study."""
        from neuro_lightning.sweeps.search.study import SeededSampler, open_study

        self.extend, build = self._extension(), self._builder()
        seed = self.sampler.get("seed")
        seed = self.config.get("seed") if seed is None else seed
        if not isinstance(seed, int) or seed < 0:
            raise ConfigError(
                f"seed={seed}: the search's randomness needs a whole number, hydra.sweeper.sampler.seed=0"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with quiet_optuna():
            pruner = instantiate(self.pruner)(self.config.trainer.max_epochs) if self.pruner else None
        self.study, self.stored = open_study(
            self.storage, self.study_name, mode=self.config.mode, sampler=SeededSampler(build, seed), pruner=pruner,
            of=self._identity(),
        )  # fmt: skip

    def run(self) -> None:
        """Run trials until the study has enough, and write the best one."""
        from neuro_lightning.sweeps.search.trials import Trials

        n_trials = self._count_trials()
        private = self.folder in Path(self.storage).resolve().parents
        with closing(Owner(self.folder)) as owner:
            trials = Trials(
                self.study, self.stored, self.space.searched, n_trials, owner, private=private, extend=self.extend
            )
            while batch := trials.next(self.n_jobs):
                self._launch(trials, batch)
        self._write_best()

    def _builder(self) -> Callable[[int], BaseSampler]:
        """A function that makes the sampler from a seed."""
        from hydra.errors import HydraException

        settings = OmegaConf.to_container(self.sampler, resolve=True)

        def build(seed: int) -> BaseSampler:
            with quiet_optuna():
                made = instantiate(OmegaConf.create({**settings, "seed": seed}))
                return made(self.space.grid()) if self._by_grid() else made

        try:
            build(0)
        except (HydraException, ImportError, ConfigError) as error:
            raise ConfigError(f"hydra.sweeper.sampler: {str(error).splitlines()[0]}") from None
        return build

    def _by_grid(self) -> bool:
        return str(self.sampler.get("_target_")).endswith(".GridSampler")

    def _identity(self) -> dict[str, str]:
        """The settings of the study: all processes that share it must have the same."""
        choices, searched = self.config.hydra.runtime.choices, {key.lstrip("+") for key in self.space.searched}
        groups = ("data", "model", "experiment")
        parts = {key: str(choices.get(key)) for key in groups if key not in searched}
        for word in self.space.fixed:
            key, _, value = word.lstrip("+").partition("=")
            if key not in groups and not any(fnmatch(key, pattern) for pattern in HERE):
                parts[key] = value
        if self.seeds > 1:
            parts["hydra.sweeper.seeds"] = str(self.seeds)
        return {"monitor": self.config.monitor, "mode": self.config.mode, **parts, **self.space.written}

    def _extension(self) -> Callable[[Trial], None] | None:
        """A function that suggests further values for a trial, if the user has one."""
        if not self.custom_search_space:
            return None
        try:
            function = find_target(self.custom_search_space, self.config.get("trusted") or ())
        except ConfigError as error:
            raise ConfigError(f"hydra.sweeper.custom_search_space: {error}") from None
        fixed = {word.split("=", 1)[0] for word in self.space.fixed}

        def extend(trial: Trial) -> None:
            function(self.config, trial)
            if both := sorted(fixed & set(trial.params)):
                raise ConfigError(f"{both[0]} is fixed, and {self.custom_search_space} searches it: leave out one")

        return extend

    def _launch(self, trials: Trials, batch: list[Trial]) -> None:
        """Run a batch of trials and tell the study how each ended.

        With several seeds the first one decides whether a trial is worth the others.
        """
        records: dict[int, list[dict]] = {trial.number: [] for trial in batch}
        broken = self._run_jobs([(trial, 0) for trial in batch], records)
        going = [trial for trial in batch if [r.get("status") for r in records[trial.number]] == ["finished"]]
        broken += self._run_jobs([(trial, index) for trial in going for index in range(1, self.seeds)], records)
        for trial in batch:
            record = mean_record(records[trial.number])
            if record["status"] in UNDONE:
                say(f"trial {trial.number} is {record['status']}: a search that is resumed continues it")
            else:
                trials.tell(trial, record, record["job"])
        for returned in broken:
            _ = returned.return_value  # raises what the job raised

    def _run_jobs(self, wanted: list[tuple[Trial, int]], records: dict[int, list[dict]]) -> list:
        """Run jobs, each a trial and the index of its seed, and add their records to those of their trials.

        Returns:
            What Hydra says of jobs that did not come to an end.
        """
        from neuro_lightning.sweeps.search.trials import folder_number

        if not wanted:
            return []
        first = folder_number(wanted[0][0])
        jobs = [self._job(trial, index, first + place) for place, (trial, index) in enumerate(wanted)]
        broken = []
        for (trial, _), returned in zip(wanted, self.launcher.launch(jobs, initial_job_idx=first), strict=True):
            record: dict[str, Any] = {"status": "running"}
            if has_ended(returned):
                folder = job_folder(returned)
                try:
                    record = read_record(folder) | {"job": folder.name}
                except DataError as error:
                    record = {"status": "failed", "error": str(error), "job": folder.name}
            else:  # no fault of its settings: it is left to a later search
                broken.append(returned)
            records[trial.number].append(record)
        return broken

    def _job(self, trial: Trial, index: int, place: int) -> list[str]:
        """A job's overrides; its folder has the trial's number, and the seed where it is not the first one."""
        from neuro_lightning.sweeps.search.trials import folder_number

        check_keys(trial.params, f"trial {trial.number} of {self.storage}")
        words, number = [*self.space.overrides(trial.params), f"sweep.trial={trial.number}"], folder_number(trial)
        name = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)["subdir"]
        name = name.replace("${hydra.job.num}", str(number))
        if self.seeds > 1:
            seed = self.config.seed + index
            words.append(f"seed={seed}")
            name += f"_seed{seed}" if index else ""
        if index and "prune" in (self.config.callbacks or {}):
            words.append("callbacks.prune.trial=null")  # the study sees the first seed's validations
        if index or number != place:
            words.append(f"hydra.sweep.subdir={quoted(name)}")
        return words

    def _write_best(self) -> None:
        """Log the best trial, and leave it where Hydra's sweepers leave it."""
        states = [trial.state.name.lower() for trial in self.study.get_trials(deepcopy=False)]
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        trials = f"{len(states)} trials (hydra.sweeper.n_trials={self.n_trials})"
        say(f"study   {self.study_name}: {counts}; {trials}", MARGIN)
        if "complete" in states:
            best = self.study.best_trial
            found = {"name": "optuna", "best_params": best.params, "best_value": best.value}
            OmegaConf.save(OmegaConf.create(found), self.folder / "optimization_results.yaml")
            say(f"best    trial {best.number}, {self.config.monitor} {best.value:.4f}")


def mean_record(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of a trial: with the mean score of its seeds, or that of the first seed without a score.

    Args:
        records: the ``run.json`` of each seed's job.
    """
    values = [(record.get("objective") or {}).get("value") for record in records]
    for record, value in zip(records, values, strict=True):
        if record.get("status") != "finished" or value is None:
            return record
    return {**records[0], "objective": {"value": math.fsum(values) / len(values)}}
