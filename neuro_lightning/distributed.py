"""Several processes on one machine, right also inside a sweep.

Lightning starts the other processes of a run by repeating its command line. Inside a Hydra sweep that line is the
sweep's, so a second process would sweep again by itself, sample other hyperparameters, and the two would train one
model together without a word. Here the children are handed the resolved config of *this* job instead, so that all
processes of a job train the same thing in the same folder, and the environment is put back when the job ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

LAUNCH_VARIABLES = (
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
)
JOB_FILE = ".job.json"


class JobLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of a job with the job's own resolved config.

    Args:
        cluster_environment: where ranks and addresses come from.
        num_processes: processes on this machine.
        num_nodes: machines.
        job: the file with the job's resolved config.
    """

    def __init__(self, cluster_environment: Any, num_processes: int, num_nodes: int, job: Path) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self.job = job

    def _call_children_scripts(self) -> None:
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
        command = [sys.executable, "-m", "neuro_lightning.distributed", str(self.job)]
        self.procs = [
            subprocess.Popen(
                command,
                env={**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": search},
                stdout=subprocess.DEVNULL,  # one process speaks for the job; errors are heard from all
            )
            for rank in range(1, self.num_processes)
        ]


class JobDDPStrategy(DDPStrategy):
    """Lightning's DDP whose processes all run one job's config.

    Args:
        job: the file that :func:`write_job` wrote.
        process_group_backend: ``gloo`` on CPU, ``nccl`` on GPUs; None lets torch choose.
        find_unused_parameters: for networks in which a step leaves parameters out.
    """

    def __init__(
        self, job: str, process_group_backend: str | None = None, find_unused_parameters: bool = False
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, find_unused_parameters=find_unused_parameters)
        self.job = Path(job)

    def _configure_launcher(self) -> None:
        self._launcher = JobLauncher(self.cluster_environment, self.num_processes, self.num_nodes, self.job)


def write_job(folder: Path, config: dict[str, Any], overrides: list[str]) -> None:
    """Leave the job's resolved config where the other processes find it."""
    (folder / JOB_FILE).write_text(json.dumps({"config": config, "overrides": overrides}))


@contextmanager
def job_environment() -> Iterator[None]:
    """Undo what a distributed job leaves in the environment, so that the next job of a sweep starts clean."""
    before = {name: os.environ.get(name) for name in LAUNCH_VARIABLES}
    try:
        yield
    finally:
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def is_main_process() -> bool:
    """Whether this process speaks for the job: it prints, writes and logs."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) == 0 and (
        int(os.environ.get("NODE_RANK", os.environ.get("SLURM_NODEID", 0))) == 0
    )


def _child(job: str) -> None:
    """Run a job's config as one of its processes."""
    from omegaconf import OmegaConf

    from neuro_lightning.run import train

    content = json.loads(Path(job).read_text())
    train(OmegaConf.create(content["config"]), content["overrides"])


if __name__ == "__main__":
    _child(sys.argv[1])
