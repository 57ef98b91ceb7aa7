"""The default sweeper: every combination of the values given.

All jobs are checked before the first one starts, and in a folder that holds the sweep already (``sweep.resume=DIR``)
every job finds its own folder again, also when values have been added.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.records import read_record_if_any
from neuro_lightning.artifacts.sweep_jobs import job_overrides, job_settings
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.quoting import to_override
from neuro_lightning.sweeps.base import BaseSweeper


class Grid(BaseSweeper):
    """Runs a job for every combination of the values given.

    Args:
        max_batch_size: jobs that are handed to the launcher at a time; None hands over all.
        params: overrides by key, as on the command line, which comes after them.
        grids: several grids one after another: the parameters that each has beside those of ``params`` and of the
            command line; None is one grid.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
        grids: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.max_batch_size, self.params, self.grids = max_batch_size, params or {}, grids

    def propose(self, arguments: Sequence[str]) -> list[list[str]]:
        """All jobs, in the order of their folders."""
        self.proposed = in_their_folders(self.jobs(arguments), self.folder)
        return self.proposed

    def run(self) -> None:
        """Launch the jobs, at most ``max_batch_size`` at a time."""
        size = self.max_batch_size or len(self.proposed)
        for first in range(0, len(self.proposed), size):
            self.launcher.launch(self.proposed[first : first + size], initial_job_idx=first)

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each job.

        Args:
            arguments: the command line.

        Raises:
            ConfigError: a key is given an interval, no value at all, or one of them twice.
        """
        shared = [f"{key}={to_override(value)}" for key, value in self.params.items()]
        jobs = []
        for grid in self.grids or [{}]:
            own = [f"{key}={to_override(value)}" for key, value in grid.items()]
            jobs += self._combinations([*shared, *arguments, *own])
        if len({tuple(job) for job in jobs}) < len(jobs):
            raise ConfigError("a value is given twice, which would make the same job twice: name every value once")
        return jobs

    def _combinations(self, words: Sequence[str]) -> list[list[str]]:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        values: dict[str, list[str]] = {}
        for override in OverridesParser.create(config_loader=self.loader).parse_overrides(list(words)):
            key, line = override.get_key_element(), override.input_line
            if not override.is_sweep_override():
                whole = override.is_delete() and "=" not in line  # as `~key=null` it would delete nothing but a null
                values[key] = [line if whole else f"{key}={override.get_value_element_as_str()}"]
                continue
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{line}: a grid takes values, not an interval; a search takes intervals: hydra/sweeper=bayes"
                )
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not values[key]:
                raise ConfigError(f"{line}: no value to choose from")
        return [list(job) for job in itertools.product(*values.values())]


def in_their_folders(jobs: list[list[str]], folder: Path) -> list[list[str]]:
    """The jobs in an order in which each has the number that its folder has, those without a folder last.

    Args:
        jobs: overrides of each.
        folder: the sweep's, which may not be there yet.

    Raises:
        ConfigError: the folder holds a job that is not among them.
    """
    left = {frozenset(job_settings(job)): job for job in jobs}
    placed: dict[int, list[str]] = {}
    for path in folder.glob("*/.hydra/overrides.yaml"):
        number, _, _ = path.parents[1].name.partition("_")
        words = job_overrides(path.parents[1], read_record_if_any(path.parents[1]))
        if not number.isdigit() or words is None:
            continue
        before = frozenset(job_settings(words))
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
