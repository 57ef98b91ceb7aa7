"""Several processes on one machine, right also inside a sweep.

Lightning starts the other processes of a run by repeating its command line. Inside a Hydra sweep that line is the
sweep's, so a second process would sweep again by itself, sample other hyperparameters, and the two would train one
model together without an error. Here the other processes read the resolved config of *this* job instead, so that all
processes of a job train the same thing in the same folder, and the environment is put back when the job ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import DDPStrategy

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.contracts import DataSpec
from neuro_lightning.private_names import process_launcher, share_threads
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.monitors import trains_heads_only
from neuro_lightning.settings.settings import TrainSettings

LAUNCH_VARIABLES = (
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
    "OMP_NUM_THREADS",
)
JOB_FILE = ".job.json"
READY = "NEURO_LIGHTNING_READY"  # names the file that a process writes when it has reached the training
GRACE_S = 60.0  # for the first process to notice by itself that another one has failed


@dataclass
class Job:
    """A run in one or several processes.

    Attributes:
        file: holds the run's resolved settings, for the other processes.
        processes: the others that this one has started.
    """

    file: Path
    processes: list[subprocess.Popen] = field(default_factory=list)


class JobLauncher(process_launcher()):
    """Starts the other processes of a job with the job's own resolved config.

    Attributes:
        job: that is run; set before the launch.
    """

    job: Job

    def launch(self, function: Callable, *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the other processes and call the function in all of them.

        Raises:
            RuntimeError: another process failed; its own error is printed above.
        """
        if self.cluster_environment.creates_processes_externally:
            if ready := os.environ.pop(READY, None):  # once: a refit is launched after the training
                Path(ready).touch()
            share_threads(self.num_processes)
            return function(*args, **kwargs)
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        with tempfile.TemporaryDirectory() as folder:
            ready = [Path(folder) / str(rank) for rank in range(1, self.num_processes)]
            self._start(ready)
            while not all(file.exists() for file in ready):  # those who fail before they meet are not waited for
                self._check()
                time.sleep(0.05)
        share_threads(self.num_processes)
        over = threading.Event()
        threading.Thread(target=self._watch, args=[over], daemon=True).start()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if _is_communication_error(error):  # another process has failed; on a busy machine it may take long to end
                self._check(timeout_s=GRACE_S)
            raise
        finally:
            over.set()

    def _start(self, ready: list[Path]) -> None:
        self._check_can_spawn_children()
        cluster = self.cluster_environment
        os.environ.update(
            MASTER_ADDR=cluster.main_address,
            MASTER_PORT=str(cluster.main_port),
            NODE_RANK=str(cluster.node_rank()),
            LOCAL_RANK=str(cluster.local_rank()),
            WORLD_SIZE=str(self.num_processes * self.num_nodes),
        )
        search = os.pathsep.join(path or os.getcwd() for path in sys.path)
        command = [sys.executable, "-m", "neuro_lightning.runs.worker", str(self.job.file)]
        for rank, file in enumerate(ready, start=1):
            own = {"LOCAL_RANK": str(rank), "PYTHONPATH": search, READY: str(file)}
            # only the main process prints; errors of all are shown
            others = {name: value for name, value in os.environ.items() if name != "RANK"}  # that is ours
            process = subprocess.Popen(command, env={**others, **own}, stdout=subprocess.DEVNULL)
            self.procs.append(process)
            self.job.processes.append(process)

    def _check(self, timeout_s: float = 0.0) -> None:
        """Raise if another process has failed, or does so within some seconds."""
        until = time.monotonic() + timeout_s
        while not (failed := self._failed()) and time.monotonic() < until:
            time.sleep(0.1)
        if failed:
            raise RuntimeError(f"{failed} of this job failed: its own error is printed above") from None

    def _failed(self) -> str:
        codes = {rank: process.poll() for rank, process in enumerate(self.procs, start=1)}
        failed = [f"process {rank} (exit status {code})" for rank, code in codes.items() if code]
        return " and ".join(failed)

    def _watch(self, over: threading.Event) -> None:
        """End a job that would wait forever for a process that has failed."""
        while not over.wait(1.0):
            if (failed := self._failed()) and not over.wait(GRACE_S):
                print(
                    f"error: {failed} of this job failed: its own error is printed above", file=sys.stderr, flush=True
                )
                os._exit(1)


def _is_communication_error(error: Exception) -> bool:
    """Whether the exchange between processes has failed, not this process by itself."""
    import torch

    return isinstance(error, torch.distributed.DistError) or bool(
        re.search("gloo|nccl|closed by peer", str(error), re.IGNORECASE)
    )


class JobDDPStrategy(DDPStrategy):
    """Lightning's DDP whose processes all run one job's config.

    Args:
        process_group_backend: ``gloo`` on CPU, ``nccl`` on GPUs; None lets torch choose.
        find_unused_parameters: for networks in which a step leaves parameters out.
    """

    def __init__(self, process_group_backend: str | None = None, find_unused_parameters: bool = False) -> None:
        super().__init__(process_group_backend=process_group_backend, find_unused_parameters=find_unused_parameters)

    def configure_ddp(self) -> None:
        """Wrap the model for the exchange of gradients, if it has any: closed-form models have none."""
        if any(weight.requires_grad for weight in self.model.parameters()):
            super().configure_ddp()

    def _configure_launcher(self) -> None:
        self._launcher = JobLauncher(self.cluster_environment, self.num_processes, self.num_nodes)


def strategy_for_sessions(settings: TrainSettings, spec: DataSpec) -> dict[str, bool]:
    """The key to change where a step leaves weights out: those of other recordings than the batch's, or the readout."""
    strategy = settings.trainer.get("strategy")
    ours = f"{JobDDPStrategy.__module__}.{JobDDPStrategy.__qualname__}"
    left_out = bool(spec.sessions) or trains_heads_only(settings)
    if not left_out or not isinstance(strategy, Mapping) or strategy.get("_target_") != ours:
        return {}
    return {"trainer.strategy.find_unused_parameters": True}


def write_job_settings(settings: TrainSettings, job: Job) -> None:
    """Leave the job's resolved settings where the other processes find them."""
    if is_main_process():
        values = {"config": settings.config, "overrides": list(settings.overrides), "launch": slurm_attempt()}
        write_job_file(job.file, values)


def write_job_file(path: Path, values: dict[str, Any]) -> None:
    """Write the file of a job in one piece: other processes wait for it."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(values))


def read_job_file(path: Path) -> dict[str, Any]:
    """What :func:`write_job_settings` wrote; empty before that."""
    return json.loads(path.read_text()) if path.is_file() else {}


def slurm_attempt() -> str | None:
    """A name of this attempt at a SLURM job, the same in all its processes; None outside of SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    return job and f"{job}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


@contextmanager
def job_environment(folder: Path) -> Iterator[Job]:
    """A job in a run's folder; undo what it leaves behind, so that the next job of a sweep starts clean."""
    import torch

    before, threads = {name: os.environ.get(name) for name in LAUNCH_VARIABLES}, torch.get_num_threads()
    job, timeout_s = Job(folder / JOB_FILE), 0.0
    try:
        yield job
        timeout_s = GRACE_S
    finally:
        _end_processes(job, timeout_s)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _end_processes(job: Job, timeout_s: float) -> None:
    """Let the other processes finish, but not longer than this."""
    until = time.monotonic() + timeout_s
    for process in job.processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
