"""``hydra/launcher=stacked``: which jobs of a sweep can be trained as one stack, and how they run in turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from neuro_lightning.artifacts.lines import say
from neuro_lightning.artifacts.output import WithoutBars
from neuro_lightning.artifacts.records import read_record_if_any
from neuro_lightning.runs.together import refuse_settings, rewind, train_together

# what may differ between the networks of a stack: it is each one's own, and not the network's
OF_MEMBER = {"model": ("members", "optimizer", "scheduler", "masking"), "data": ("shuffle_seed",),
             "trainer": ("max_epochs", "min_epochs", "gradient_clip_val")}  # fmt: skip
GOING_ON = ("running", "interrupted")  # jobs that are resumed from their last checkpoint
ALONE = "no other job has the same architecture and data"
SINGLE = "it is the only one now; a search hands over hydra.sweeper.n_jobs of them at a time"


@dataclass(frozen=True)
class StackedJob:
    """A job of the sweep.

    Attributes:
        number: in the sweep.
        config: composed, with ``hydra``.
        run: runs it.
    """

    number: int
    config: DictConfig
    run: Callable[[], JobReturn]

    @property
    def folder(self) -> Path:
        """Where it runs."""
        sweep = self.config.hydra.sweep
        return Path(sweep.dir) / str(sweep.subdir)


def run_stacked(
    context: HydraContext, task: TaskFunction, config: DictConfig, jobs: Sequence[Sequence[str]], first: int, most: int
) -> list[JobReturn]:
    """Run jobs of a sweep, those of one architecture on the same data as one stack, the others one by one.

    Args:
        context: Hydra's.
        task: what a job does.
        config: of the sweep.
        jobs: the overrides of each.
        first: the number of the first of them.
        most: jobs in a stack at most.

    Raises:
        KeyboardInterrupt: the user stopped the sweep; the jobs at work are recorded as interrupted.
    """
    setup_globals()
    Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
    composed = [_compose(context, task, config, job, number) for number, job in enumerate(jobs, start=first)]
    stacks, alone = group_jobs([job.config for job in composed], most)
    say_groups([len(stack) for stack in stacks], list(alone.values()))
    found: dict[int, Any] = {}
    for stack in stacks:
        members = [composed[i] for i in stack]
        rewind([job.folder for job in members if read_record_if_any(job.folder).get("status") in GOING_ON])
        returned = train_together([_shown(job, k == 0) for k, job in enumerate(members)], strict=False)
        found |= dict(zip(stack, returned, strict=True))
        if stop := next((each for each in returned if isinstance(each, BaseException)), None):
            raise stop
    for i in alone:
        found[i] = composed[i].run()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose, execution_whitelist=context.execution_whitelist)
    return [found[i] for i in range(len(jobs))]


def _compose(
    context: HydraContext, task: TaskFunction, config: DictConfig, job: Sequence[str], number: int
) -> StackedJob:
    composed = context.config_loader.load_sweep_config(config, list(job))
    with open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = str(number), number

    def run() -> JobReturn:
        return run_job(
            hydra_context=context, task_function=task, config=composed, job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip

    return StackedJob(number, composed, run)


def _shown(job: StackedJob, bar: bool) -> Callable[[], JobReturn]:
    """The job, with a progress bar for the first of a stack only."""

    def run() -> JobReturn:
        if not bar:
            sys.stdout = WithoutBars(sys.stdout)
        return job.run()

    return run


def group_jobs(configs: Sequence[DictConfig], most: int) -> tuple[list[list[int]], dict[int, str]]:
    """Which jobs are trained as one stack, by their numbers, and the reason of each that is trained alone.

    Args:
        configs: of the jobs.
        most: jobs in a stack at most.
    """
    by_key: dict[str, list[int]] = {}
    alone: dict[int, str] = {}
    for number, config in enumerate(configs):
        if (members := OmegaConf.select(config, "model.members")) not in (None, 1):
            alone[number] = f"model.members={members} is a stack already"
        elif reason := refuse_settings(config):
            alone[number] = reason
        else:
            by_key.setdefault(stack_key(config), []).append(number)
    stacks = [found[i : i + most] for found in by_key.values() for i in range(0, len(found), most)]
    alone |= {stack[0]: ALONE if len(configs) > 1 else SINGLE for stack in stacks if len(stack) == 1}
    return [stack for stack in stacks if len(stack) > 1], alone


def stack_key(config: DictConfig) -> str:
    """What the networks of a stack have in common: architecture and data, and on what they are trained.

    Rates of dropout are left out: each network has its own.
    """
    parts: Any = OmegaConf.to_container(config, resolve=False)
    for name, keys in OF_MEMBER.items():
        parts[name] = {key: value for key, value in parts[name].items() if key not in keys}
    common = {name: parts.get(name) for name in ("data", "trainer", "trusted", "init")}
    return json.dumps({**common, "model": without_dropout(parts["model"])}, sort_keys=True, default=str)


def without_dropout(node: Any) -> Any:
    """A plain config without the rates of dropout in it."""
    if isinstance(node, list):
        return [without_dropout(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: without_dropout(value) for key, value in node.items() if "dropout" not in str(key)}


def say_groups(stacks: Sequence[int], reasons: Sequence[str]) -> None:
    """Print how many jobs are trained together, and why others are not."""
    for size in stacks:
        say(f"{size} jobs are trained as one stack")
    for reason in dict.fromkeys(reasons):
        number = list(reasons).count(reason)
        say(f"{number} job{'s are' if number > 1 else ' is'} trained alone: {reason}")
