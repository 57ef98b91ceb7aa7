"""What all sweepers share: they propose jobs, and the chosen Hydra launcher runs them."""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from neuro_lightning.artifacts.lines import announce
from neuro_lightning.artifacts.sweep_progress import begin_progress
from neuro_lightning.display.table import relative
from neuro_lightning.sweeps.arguments import write_command
from neuro_lightning.sweeps.checks import check_jobs, exit_on_error


class BaseSweeper(Sweeper):
    """A sweeper that checks its jobs before the first one starts, and leaves its command in the sweep's folder.

    A subclass has three steps: :meth:`propose`, :meth:`open` and :meth:`run`.
    """

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Refuse a key that the sweeper does not have in one line, where Hydra would show a traceback."""
        if unknown := settings.keys() - inspect.signature(cls.__init__).parameters:
            sys.exit(f"error: hydra.sweeper.{min(unknown)}: the sweeper {cls.__name__} has no such key")
        return super().__new__(cls)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Build the launcher; Hydra calls this before :meth:`sweep`."""
        from hydra.core.plugins import Plugins

        self.config, self.loader = config, hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir).resolve()
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Check everything, then run the jobs."""
        with exit_on_error():
            jobs = self.propose(arguments)
            total = self.count_jobs(jobs)
            announce("sweep", f"{f'{total} jobs in ' if total else ''}{relative(self.folder)}")
            announce("", "each prints into its own output.log, and is a line here when it ends")
            check_jobs(self.loader, self.config, jobs)
            self.open()
            write_command(self.config, self.folder)
            begin_progress(self.folder, total)
            self.run()

    @abstractmethod
    def propose(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of the jobs, or of example jobs in which every choice of every key occurs.

        Args:
            arguments: the command line.

        Raises:
            ConfigError: what cannot be swept.
        """

    def count_jobs(self, jobs: Sequence[Sequence[str]]) -> int | None:
        """How many jobs there will be, None where that is not known; those of :meth:`propose` unless it says else."""
        return len(jobs)

    def open(self) -> None:
        """Open what an earlier attempt has left in the sweep's folder.

        Raises:
            ConfigError: it is of another sweep.
        """

    @abstractmethod
    def run(self) -> None:
        """Launch the jobs."""


def has_ended(returned: JobReturn) -> bool:
    """Whether a job came to its end, with a score or with an error that was recorded."""
    return returned.status is JobStatus.COMPLETED


def job_folder(returned: JobReturn) -> Path:
    """The folder of a job."""
    return Path(returned.hydra_cfg.hydra.runtime.output_dir)
