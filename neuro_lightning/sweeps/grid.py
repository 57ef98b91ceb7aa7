"""The default sweeper: every combination of the values given, as Hydra's own, and more careful.

All jobs are checked before the first begins, and in a folder that holds the sweep already (``sweep.resume=DIR``) every
job finds its own folder again, also when values have been added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from neuro_lightning.artifacts.records import read_record
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.sweeps.jobs import settings


class Grid(Sweeper):
    """Every combination of the values given.

    Args:
        max_batch_size: jobs that are handed to the launcher at a time; None hands over all.
        params: overrides as on the command line, which they precede, by key.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, and make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Check all jobs, then launch them."""
        from neuro_lightning.sweeps.arguments import write_command
        from neuro_lightning.sweeps.checks import check_jobs, refusals

        with refusals():
            jobs = self.jobs([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
            folder = Path(self.config.hydra.sweep.dir)
            jobs = in_their_folders(jobs, folder)
            check_jobs(self.hydra_context.config_loader, self.config, jobs)
        write_command(self.config, folder)
        size = self.max_batch_size or len(jobs)
        return [self.launcher.launch(jobs[i : i + size], initial_job_idx=i) for i in range(0, len(jobs), size)]

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each job.

        Raises:
            ConfigError: a key is given an interval, no value at all, or one of them twice.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(list(arguments))
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line}: a grid takes values, not an interval; a search takes intervals: "
                    "hydra/sweeper=bayes"
                )
        choices = {o.get_key_element(): _words(o) for o in overrides}  # of a key given twice, the last word
        jobs = [list(job) for job in product(*choices.values())]
        if not jobs:
            empty = [o.input_line for o in overrides if o.is_sweep_override() and not list(o.sweep_string_iterator())]
            raise ConfigError(f"{' and '.join(empty)}: no value to choose from")
        if len({tuple(job) for job in jobs}) < len(jobs):
            raise ConfigError("a value is given twice, which would make the same job twice: name every value once")
        return jobs


def _words(override: Override) -> list[str]:
    """An override as each job has it, one for each of its values."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    if override.is_delete() and "=" not in override.input_line:  # `~key=null` would delete nothing but a null
        return [override.input_line]
    return [f"{key}={override.get_value_element_as_str()}"]


def in_their_folders(jobs: list[list[str]], folder: Path) -> list[list[str]]:
    """The jobs in an order in which each has the number that its folder has, those without a folder last.

    Args:
        jobs: overrides of each.
        folder: the sweep's, which may not be there yet.

    Raises:
        ConfigError: the folder holds a job that is not among them.
    """
    left = {frozenset(settings(job)): job for job in jobs}
    placed: dict[int, list[str]] = {}
    for path in folder.glob("*/.hydra/overrides.yaml"):
        number, _, _ = path.parents[1].name.partition("_")
        if not number.isdigit() or (words := _overrides_of(path.parents[1])) is None:
            continue
        before = frozenset(settings(words))
        if (job := left.pop(before, None)) is None:
            raise ConfigError(
                f"{path.parents[1]} holds a job that is not of this sweep: {' '.join(sorted(before))}\n"
                "  repeat the sweep's own overrides (sweep.resume=DIR alone does), or give it a folder of its own"
            )
        placed[int(number)] = job
    rest = iter(left.values())
    ordered = [placed.pop(i, None) or next(rest, None) for i in range(len(jobs))]
    if placed or None in ordered:
        raise ConfigError(f"{folder} lacks jobs between others: give the sweep a folder of its own")
    return ordered


def _overrides_of(job: Path) -> list[str] | None:
    """What a job's folder says that it is; None if it was killed, or the disk was full, before that was written."""
    import yaml

    try:  # written in one piece, which Hydra's own files are not
        words = read_record(job).get("overrides")
    except DataError:
        words = None
    if words is None:
        try:
            words = yaml.safe_load((job / ".hydra" / "overrides.yaml").read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            words = None
    return words if isinstance(words, list) else None
