"""A trial on Ray Tune: a job of Hydra's that is trained from milestone to milestone. Imports Ray, but no torch.

Each step is a run of its own in the job's folder, which goes on from a checkpoint and rests at the next milestone. All
that a worker must know to take a trial over stands in the trial's config, so that a worker that is killed is replaced
by one that begins the same step again, and comes to the same.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

from neuro_lightning.settings.quoting import override
from neuro_lightning.sweeps.tune.journal import Result, Start, to_result

EPOCHS, SCORE, RESULT, KNOWN, JOB = "epochs", "score", "result", "known", "job"
FOLDER = ".tune"  # in the sweep's, for what nobody needs when it is over
KEPT = 2  # checkpoints of milestones in a trial's folder: the population may still ask for the one before


@dataclass(frozen=True)
class Plan:
    """What all trials share.

    Attributes:
        context: Hydra's, which composes a trial's config.
        config: the sweep's own.
        task: what is done with a job.
        singletons: Hydra's state in the sweep's process.
        cwd: the sweep's working directory, to which relative paths refer.
        path: where the sweep's process looks for modules.
        folder: the sweep's.
        overrides: those that every trial has.
        milestones: epochs at which a trial rests; the last is its end.
        moment: of the monitored score, which is reported: ``end`` (now) or ``value`` (the best so far).
    """

    context: Any
    config: Any
    task: Callable[..., Any]
    singletons: dict
    cwd: str
    path: Sequence[str]
    folder: str
    overrides: Sequence[str]
    milestones: Sequence[int]
    moment: str


def new_job(trial: int, values: dict[str, Any], start: Start, known: Result | None = None) -> dict[str, Any]:
    """What a worker must know of a trial.

    Args:
        trial: its number.
        values: its hyperparameters by key.
        start: what it goes on from.
        known: the result of its next step, if it was made before the sweep was killed.
    """
    return {"trial": trial, "values": values, "start": asdict(start), "known": known and asdict(known), "lost": 0}


class Trainable(tune.Trainable):
    """Ray's handle of a trial; its steps lead from milestone to milestone."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:
        """Take a trial over."""
        self.plan, self.job = plan, config[JOB]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial over in this process, in which everything is imported already."""
        self.job = new_config[JOB]
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next milestone."""
        job = self.job
        done = to_result(job["known"]) if job["known"] else _attempt(self.plan, job)
        if done.start is not None:
            self.job = with_start(job, done.start)
        known = job["known"] is not None
        return {EPOCHS: done.epochs, SCORE: done.score, RESULT: json.dumps(asdict(done)), KNOWN: known}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: checkpoints lie in the job's folder, and which one counts stands in the trial's config."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See above."""


def with_start(job: dict[str, Any], start: Start) -> dict[str, Any]:
    """The same trial, to go on from elsewhere."""
    return job | {"start": asdict(start), "known": None, "lost": 0}


def _attempt(plan: Plan, job: dict[str, Any]) -> Result:
    """A step; an error is a result like others, of a trial that failed."""
    start = Start(**job["start"])
    if job["lost"]:
        error = f"its worker died {job['lost']} times between epoch {start.epochs} and the next milestone"
        return Result(job["trial"], start.epochs, -math.inf, "failed", error=error)
    try:
        return train(plan, job["trial"], job["values"], start, next_milestone(plan.milestones, start.epochs))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Result(job["trial"], start.epochs, -math.inf, "failed", error=text)


def next_milestone(milestones: Sequence[int], epochs: int) -> int:
    """The first milestone after so many epochs; the last one, where all are behind."""
    return next((milestone for milestone in milestones if milestone > epochs), milestones[-1])


def train(plan: Plan, trial: int, values: dict[str, Any], start: Start, until: int, *more: str) -> Result:
    """Run a trial's job until a milestone.

    Args:
        plan: what all trials share.
        trial: its number.
        values: its hyperparameters by key.
        start: what it goes on from.
        until: the epoch at whose end it rests.
        more: further overrides.
    """
    os.chdir(plan.cwd)
    sys.path += [place for place in plan.path if place not in sys.path]
    folder = Path(plan.folder)
    overrides = [*plan.overrides, *(f"{key}={value}" for key, value in values.items())]
    overrides += [f"sweep.trial={trial}", f"sweep.until={until}", *more]
    if start.checkpoint is not None:
        checkpoint = folder / start.checkpoint
        if start.grafted:
            from neuro_lightning.sweeps.tune.graft import graft

            own = folder / start.own if start.own else None
            checkpoint = graft(checkpoint, own, folder / FOLDER / f"{trial}.ckpt")
        overrides.append(override("resume", checkpoint))
    output, error = run_job(plan, trial, overrides)
    return _result(plan, trial, output, until, error)


def run_job(plan: Plan, trial: int, overrides: Sequence[str]) -> tuple[Path, str | None]:
    """Run Hydra's job in its usual folder.

    Returns:
        The folder, and the error that ended the job, if one did.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job as hydra_job
    from hydra.core.utils import setup_globals
    from omegaconf import open_dict

    setup_globals()
    Singleton.set_state(plan.singletons)
    config = plan.context.config_loader.load_sweep_config(plan.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = trial
        config.hydra.sweep.dir = plan.folder
    HydraConfig.instance().set_config(config)
    done = hydra_job(
        hydra_context=plan.context, task_function=plan.task, config=config,
        job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
    )  # fmt: skip
    try:
        _ = done.return_value
        error = None
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Path(done.hydra_cfg.hydra.runtime.output_dir), error


def _result(plan: Plan, trial: int, output: Path, until: int, error: str | None) -> Result:
    from neuro_lightning.artifacts.records import FILE_NAME, read_record

    record = read_record(output) if (output / FILE_NAME).is_file() else {}
    status, found = record.get("status", "failed"), record.get("objective") or {}
    epochs = (record.get("checkpoints") or {}).get("epochs") or 0
    if status == "paused" and epochs < until:  # of the step before: this one failed before it began
        status = "failed"
    if status not in ("paused", "finished"):
        error = record.get("error") or error or f"it ended before epoch {until}; see {output.name}/*.log"
        return Result(trial, epochs, -math.inf, "diverged" if status == "diverged" else "failed", error=error)
    value = found.get(plan.moment)
    score = -math.inf if value is None else float(value) if found.get("mode") == "max" else -float(value)
    kept = _keep(output, epochs)
    return Result(trial, epochs, score, status, Start(epochs, str(kept.relative_to(plan.folder))))


def _keep(output: Path, epochs: int) -> Path:
    """Keep this milestone's checkpoint: ``last.ckpt`` will be written over by the next step, finished or not."""
    folder = output / "checkpoints"
    kept, part = folder / f"epoch_{epochs}.ckpt", folder / ".epoch.part"
    shutil.copyfile(folder / "last.ckpt", part)
    os.replace(part, kept)
    found = sorted(folder.glob("epoch_*.ckpt"), key=lambda path: int(path.stem.partition("_")[2]))
    for old in found[:-KEPT]:
        old.unlink()
    return kept
