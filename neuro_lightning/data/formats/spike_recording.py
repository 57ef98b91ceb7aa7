"""Spike times, trials and continuous series of one recording, whatever file they come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.errors import DataError


@dataclass(frozen=True)
class Series:
    """A continuous recording, such as the hand's velocity.

    Attributes:
        times: (S,) the samples' times in s.
        data: (S, K) the samples, in the file's own unit (its ``conversion`` is not applied).
        columns: (K,) the channels' names.
        rate: samples per second where the file says so, None where it gives each sample's time.
        conversion: what to multiply ``data`` with for the physical unit.
        offset: what to add then.
        warnings: lines on what was mended.
    """

    times: np.ndarray
    data: np.ndarray
    columns: tuple[str, ...]
    rate: float | None = None
    conversion: float = 1.0
    offset: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass
class SpikeRecording:
    """The units and trials of a file, and a way to its continuous series.

    Attributes:
        path: the file.
        unit_ids: (U,) int64 or text, the units' numbers or names.
        heldout: (U,) bool, the units that the file marks as held out; all False where it does not say.
        spike_times: U arrays of sorted spike times in s; a unit without spikes has an empty one.
        obs_intervals: U arrays (k, 2) of the start and stop, in s, of the times in which spikes were recorded, by
            their start; the whole recording where the file does not say.
        trials: the scalar columns of the trial table, each (B,): ``id``, ``start_column`` and ``stop_column`` (s),
            and others.
        table: the name of the table of trials; ``continuous`` for none.
        start_column: what the file calls the trials' starts.
        stop_column: what it calls their ends.
        units: scalar columns of the units' table, each (U,), where the format gives them.
        interval_names: intervals that the file names, such as ``train_domain``, where the format gives them.
        interval_reader: reads one of ``interval_names``, (k, 2) start and stop in s by their start.
        series_names: the continuous series. One that is inside of another object is named ``container/series`` or
            ``container.series``, as the format has it.
        series_reader: reads one of ``series_names``.
        simulated: whether the file says that it is simulated.
        session: what the file says of which session it is: ``identifier``, ``session_start_time``, ``session_id`` and
            ``subject_id``, None where it does not say.
        invalid_times: (k, 2) start and stop, in s, of times that the file says not to use, by their start.
        absolute_start: where the file's time zero lies in the session, s, for a file that is a part of one.
        warnings: lines on what looks odd or was corrected, for the log.
    """

    path: Path
    unit_ids: np.ndarray
    heldout: np.ndarray
    spike_times: list[np.ndarray]
    obs_intervals: list[np.ndarray]
    trials: dict[str, np.ndarray]
    table: str = "trials"
    start_column: str = "start_time"
    stop_column: str = "stop_time"
    units: dict[str, np.ndarray] = field(default_factory=dict)
    interval_names: tuple[str, ...] = ()
    interval_reader: Callable[[str], np.ndarray] | None = None
    series_names: tuple[str, ...] = ()
    series_reader: Callable[[str], Series] | None = None
    simulated: bool = False
    session: dict[str, Any] = field(default_factory=dict)
    invalid_times: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    absolute_start: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str | None) -> None:
        """Keep a line on what looks odd, once."""
        if line and f"{self.path}: {line}" not in self.warnings:
            self.warnings.append(f"{self.path}: {line}")

    @property
    def n_trials(self) -> int:
        """Rows of the trial table."""
        return len(self.trials[self.start_column])

    @property
    def end_time(self) -> float:
        """The end of the last observed interval of any unit, in s."""
        return max((float(k[:, 1].max()) for k in self.obs_intervals if len(k)), default=0.0)

    def column(self, name: str) -> np.ndarray:
        """(B,) one column of the trial table.

        Raises:
            DataError: the trial table has no scalar column of that name.
        """
        if name not in self.trials:
            raise DataError(f"{self.path}: the trial table has no column {name!r}; it has {', '.join(self.trials)}")
        return self.trials[name]

    def find_series(self, name: str) -> list[str]:
        """The series of a name, or those whose last part it is where none has it as a whole."""
        ends = (f"/{name}", f".{name}")
        return [name] if name in self.series_names else [n for n in self.series_names if n.endswith(ends)]

    def read_series(self, name: str) -> Series:
        """Read one continuous series, all of it.

        Args:
            name: one of ``series_names``, or the last part of one where no two end alike.

        Raises:
            DataError: there is no such series, or it cannot be read.
        """
        matches = self.find_series(name)
        if len(matches) != 1:
            trouble = "has no series" if not matches else "has more than one series that ends in"
            raise DataError(f"{self.path} {trouble} {name!r}; {closest_names(name, self.series_names)}")
        series = self.series_reader(matches[0])
        for line in series.warnings:
            self.warn(line)
        return series

    def read_intervals(self, name: str) -> np.ndarray:
        """(k, 2) start and stop in s of the intervals of a name, by their start.

        Raises:
            DataError: there are none of that name, or they are no intervals.
        """
        if name not in self.interval_names:
            near = closest_names(name, self.interval_names)
            raise DataError(f"{self.path} has no intervals {name!r}; {near}")
        return self.interval_reader(name)


def closest_names(name: str, names: Sequence[str]) -> str:
    """Words on which names there are, those first that look like ``name``.

    Example:
        >>> closest_names("trails", ["domain", "trials"])
        'it has trials, domain'
        >>> closest_names("trails", [])
        'it has none'
    """
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    listed = [*near, *(other for other in names if other not in near)]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return f"it has {', '.join(listed[:20]) or 'none'}{more}"
