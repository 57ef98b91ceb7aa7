"""Searches on Ray Tune: population-based training, successive halving, or trials one by one.

Hydra's own override grammar is the search space, Hydra's own job folders are what is left. Nothing heavy is imported
until the sweep begins.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.overrides import again

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

    from neuro_lightning.sweeps.tune.halving import Halving
    from neuro_lightning.sweeps.tune.population import Population
    from neuro_lightning.sweeps.tune.space import Dimension

EXPLORE = "++callbacks.explore._target_=neuro_lightning.callbacks.explore.Explore"


@dataclass(frozen=True)
class Search:
    """A sweep that has been looked over.

    Attributes:
        fixed: overrides of every trial.
        space: dimensions by key.
        values: those with which each trial begins, by key.
        milestones: epochs at which trials rest; the last ends the training.
        config: a trial's, composed.
    """

    fixed: list[str]
    space: dict[str, Dimension]
    values: list[dict[str, Any]]
    milestones: list[int]
    config: DictConfig

    @property
    def jobs(self) -> list[list[str]]:
        """The overrides with which each trial begins."""
        return [[*self.fixed, *(f"{key}={value}" for key, value in values.items())] for values in self.values]


class Tune(Sweeper):
    """Hydra's sweeper on Ray Tune.

    Args:
        params: the space by key, as on the command line, which goes before it.
        trials: samples drawn from it, a population's size; each is combined with every value of tag(grid, ...).
        seed: of the draws.
        scheduler: the config of a ``Population`` or a ``Halving``; without, every trial is trained to its end.
        ray: arguments of :func:`neuro_lightning.sweeps.tune.cluster.cluster`.
        resources: of a trial, ``cpu`` and ``gpu``; shares of a GPU are allowed.
        max_failures: workers of a trial that may die between two milestones before it is given up.

    Attributes:
        scheduler: the object, once :meth:`search` has been called.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        trials: int = 20,
        seed: int = 0,
        scheduler: Mapping[str, Any] | None = None,
        ray: Mapping[str, Any] | None = None,
        resources: Mapping[str, float | None] | None = None,
        max_failures: int = 3,
    ) -> None:
        self.params, self.trials, self.seed = dict(params or {}), trials, seed
        self.ray, self.resources, self.max_failures = dict(ray or {}), dict(resources or {}), max_failures
        self.chosen = scheduler
        self.scheduler: Population | Halving | None = None
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Look the search over, then run it."""
        from neuro_lightning.sweeps.checks import refusals

        with refusals():
            from neuro_lightning.sweeps.tune.cluster import cluster, import_ray, share

            import_ray()
            search = self.search(arguments)
            folder = Path(self.config.hydra.sweep.dir).resolve()
            with cluster(**self.ray) as there:
                trainer = search.config.trainer
                devices = trainer.devices if isinstance(trainer.devices, int) else 1
                resources = share(self.resources, there, trainer.accelerator, devices)
                self._run(search, folder, resources)

    def search(self, arguments: list[str]) -> Search:
        """What the command line and the config ask for.

        Raises:
            ConfigError: it cannot be had; before anything is written or started.
        """
        from neuro_lightning.settings.config import instantiate
        from neuro_lightning.sweeps.checks import check_jobs
        from neuro_lightning.sweeps.tune.population import Population
        from neuro_lightning.sweeps.tune.space import read_space, sample

        if self.chosen:
            self.scheduler = instantiate(self.chosen)
        loader = self.hydra_context.config_loader
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        fixed, space = read_space(words, loader)
        if isinstance(self.scheduler, Population):
            self.scheduler.check(space)
            fixed.append(EXPLORE)
        values = sample(space, self.trials, self.seed)
        if isinstance(self.scheduler, Population):
            values = [drawn | {key: self.scheduler.initial[key] for key in self.scheduler.initial} for drawn in values]
        search = Search(fixed, space, values, [], DictConfig({}))
        check_jobs(loader, self.config, search.jobs)
        composed = loader.load_sweep_config(self.config, search.jobs[0])
        milestones = self._milestones(composed, space)
        return Search(fixed, space, values, milestones, composed)

    def _milestones(self, composed: DictConfig, space: Mapping[str, Any]) -> list[int]:
        from neuro_lightning.sweeps.tune.population import Population

        epochs, every = composed.trainer.max_epochs, composed.trainer.check_val_every_n_epoch
        if epochs in (None, -1) or any(key.startswith("trainer.max_") for key in space):
            raise ConfigError("trainer.max_epochs: trials are compared by their epochs; give one number for all")
        if self.scheduler is None:
            return [epochs]
        if not every:
            raise ConfigError("trainer.check_val_every_n_epoch: trials are compared at validations; give a number")
        if isinstance(self.scheduler, Population):
            self._check_population(composed)
        return self.scheduler.milestones(epochs, every)

    def _check_population(self, composed: DictConfig) -> None:
        if self.trials < 2:
            raise ConfigError(f"hydra.sweeper.trials={self.trials}: a population has 2 members or more")
        if "optimizer" not in composed.model:
            raise ConfigError("population-based training needs a model with an optimizer; this one has none")
        if composed.model.get("scheduler"):
            raise ConfigError(
                "population-based training steers the learning rate itself: give scheduler@model.scheduler=none"
            )
        for name, node in (composed.callbacks or {}).items():
            if node and str(node.get("_target_")).endswith(".EarlyStopping"):
                raise ConfigError(f"callbacks.{name}: members train for as long as each other; give ~callbacks.{name}")

    def _run(self, search: Search, folder: Path, resources: dict[str, float]) -> None:
        from neuro_lightning.sweeps.arguments import write_command
        from neuro_lightning.sweeps.tune.experiment import Experiment
        from neuro_lightning.sweeps.tune.journal import Journal
        from neuro_lightning.sweeps.tune.population import Population
        from neuro_lightning.sweeps.tune.trainable import FOLDER

        write_command(self.config, folder)
        rules = f"{self.scheduler}, seed {self.seed}" if isinstance(self.scheduler, Population) else ""
        journal = Journal(folder, search.jobs, rules)
        try:
            Experiment(self, search, folder, journal, resources).run()
        except KeyboardInterrupt:
            from neuro_lightning.report.table import relative

            command = f"python train.py -m sweep.resume={shlex.quote(relative(folder))}{again(self.config.trusted)}"
            print(f"interrupted. go on with: {command}", file=sys.stderr)
            sys.exit(130)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
