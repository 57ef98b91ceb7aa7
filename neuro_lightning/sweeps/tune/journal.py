"""What a sweep on Ray Tune has come to, line by line: from it a sweep that was killed goes on.

Ray's own record of an experiment forgets what its schedulers know. Here every result is a line of ``tune.jsonl`` in
the sweep's folder, written before anything follows from it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.jobs import settings

FILE_NAME = "tune.jsonl"


@dataclass(frozen=True)
class Start:
    """What a trial goes on from.

    Attributes:
        epochs: that it has done.
        checkpoint: the file, relative to the sweep's folder; None begins anew.
        grafted: the checkpoint is another trial's: with its weights the trial's own records are kept.
        own: then the trial's own checkpoint, if there is one.
    """

    epochs: int = 0
    checkpoint: str | None = None
    grafted: bool = False
    own: str | None = None


@dataclass(frozen=True)
class Result:
    """What a trial came to at a milestone.

    Attributes:
        trial: its number.
        epochs: that it has done.
        score: the monitored score, turned so that more is better; minus infinity without one.
        status: paused, finished, failed, diverged, or pruned where the search stopped it.
        start: what it would go on from; None if it failed.
        error: of a trial that failed.
    """

    trial: int
    epochs: int
    score: float
    status: str
    start: Start | None = None
    error: str | None = None


class Journal:
    """The results of a sweep in the order in which they came.

    Args:
        folder: the sweep's.
        jobs: the overrides with which each trial begins. A journal of the first of them goes on with all.
        rules: of a population, whose generations follow from them and the results; empty without.

    Raises:
        ConfigError: the folder holds the journal of another sweep.
    """

    def __init__(self, folder: Path, jobs: Sequence[Sequence[str]], rules: str = "") -> None:
        self.path = folder / FILE_NAME
        self.results: list[Result] = []
        now = {"jobs": [settings(job) for job in jobs], "rules": rules}
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        read = [value for line in lines if (value := _parsed(line)) is not None]
        before = [value for value in read if not isinstance(value, Result)][-1:]
        if before:
            self._check(before[0], now)
        self.results = [value for value in read if isinstance(value, Result)]
        cut = bool(lines) and not lines[-1].endswith(b"\n")  # killed within a line
        if cut or before != [now]:
            with open(self.path, "a") as file:
                file.write(("\n" if cut else "") + (json.dumps(now) + "\n" if before != [now] else ""))

    def _check(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        jobs = [settings(job) for job in before["jobs"]]
        same = jobs == now["jobs"] and before["rules"] == now["rules"]
        more = not now["rules"] and jobs == now["jobs"][: len(jobs)]
        if not same and not more:
            raise ConfigError(
                f"{self.path.parent} holds another search, of {len(before['jobs'])} trials: go on with it by "
                "sweep.resume=DIR alone, or give this one a folder of its own (hydra.sweep.dir=...)"
            )

    def write(self, result: Result) -> None:
        """Add a line, on the disk before this returns."""
        values = asdict(result) | {"score": result.score if math.isfinite(result.score) else None}
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.results.append(result)


def _parsed(line: bytes) -> Result | dict[str, Any] | None:
    """A result, or the search that the journal is of; None for a line that is torn or damaged, which counts as lost."""
    try:
        values = json.loads(line)
        if "jobs" in values:
            return values if isinstance(values["jobs"], list) and isinstance(values["rules"], str) else None
        result = to_result(values)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    begin = result.start or Start()
    numbers = (result.trial, result.epochs, begin.epochs)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    texts = (result.status, result.error or "", begin.checkpoint or "", begin.own or "")
    kinds = isinstance(result.score, int | float) and all(isinstance(text, str) for text in texts)
    return result if whole and kinds else None


def to_result(values: dict[str, Any]) -> Result:
    """A result from the dictionary that :func:`dataclasses.asdict` made of it, if need be through JSON."""
    start = values["start"]
    score = -math.inf if values["score"] is None else values["score"]
    return replace(Result(**values), score=score, start=None if start is None else Start(**start))


def mark(folder: Path, result: Result) -> None:
    """Say in a trial's ``run.json`` what it cannot know: that the search stopped it, or that its worker died.

    Args:
        folder: the sweep's.
        result: of the trial.
    """
    from neuro_lightning.artifacts import records

    for path in folder.glob(f"{result.trial}_*/{records.FILE_NAME}"):
        record = records.read_record(path)
        if record.get("status") in ("running", "paused"):
            records.write_json(path, record | {"status": result.status, "error": result.error})
