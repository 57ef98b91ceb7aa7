"""Where a sweep's jobs run: the presets of ``conf/hydra/launcher``, on the launchers of Hydra's own plugins.

Added to the plugins: an error that names the extra of a missing package; one GPU for each job; jobs whose process was
killed are resumed from their last checkpoint; a SLURM job has as many tasks as the trainer has devices, and all of them
train what the first one decides. Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.overrides import check_launcher, trusted_override
from neuro_lightning.settings.quoting import override
from neuro_lightning.sweeps.checks import exit_on_error
from neuro_lightning.sweeps.devices import VISIBLE, Slot, devices_of, own_slot, slots, visible_gpus
from neuro_lightning.sweeps.results.job_lines import lines_of_distant_jobs

PLUGINS = ("hydra_plugins", "joblib", "ray", "submitit")  # packages that may be missing
RELAUNCHES = 2  # of what is left, after a process was killed


@dataclass(frozen=True)
class Task:
    """The task function of a job, in the process in which a launcher runs it.

    Attributes:
        function: Hydra's.
        folder: from which the command was started; relative paths count from there.
        places: GPUs for jobs, one place for each process; empty leaves them to the launcher.
        home: the process that launches; others are a launcher's workers.
    """

    function: TaskFunction
    folder: str
    places: tuple[Slot, ...] = ()
    home: int = field(default_factory=os.getpid)

    def __call__(self, cfg: DictConfig) -> Any:
        """Run the job."""
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        if self.places:
            os.environ[VISIBLE] = ",".join(own_slot(self.places, hydra.job.num))
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            from neuro_lightning.runs.worker import run_in_slurm_tasks

            return run_in_slurm_tasks(lambda: self.function(cfg), Path(hydra.runtime.output_dir))
        try:
            return self.function(cfg)
        except SystemExit as error:
            if os.getpid() == self.home:
                raise
            # an interrupted job, or one on a full disk, exits. Hydra's record of such a job cannot be sent to the
            # launching process, and the worker would wait for ever: raise an error that can be sent instead
            raise RuntimeError(f"the job left its process: {error}") from None


class _Preset(Launcher):
    """A launcher that passes its jobs on to the launcher of a plugin."""

    install = ""  # what pip installs for the plugin

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the context, the task and the config; Hydra calls this first."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and wait for them."""
        with exit_on_error(), interrupt_on_sigterm():
            check_launcher(self.config.hydra)
            try:
                return self._launch(job_overrides, initial_job_idx)
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] not in PLUGINS:
                    raise
                name = self.config.hydra.runtime.choices["hydra/launcher"]
                raise ConfigError(
                    f"hydra/launcher={name} needs a package that is not installed ({error.name}): "
                    f"pip install '{self.install}'"
                ) from None
            except KeyboardInterrupt:
                folder = shlex.quote(self.config.hydra.sweep.dir)
                trusted = trusted_override(self.config.get("trusted"))
                print(f"\ninterrupted; resume with: python train.py -m sweep.resume={folder}{trusted}", file=sys.stderr)
                sys.exit(130)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        raise NotImplementedError

    def _plugin(self, launcher: str, task: Task, settings: dict[str, Any]) -> Launcher:
        module, _, cls = launcher.rpartition(".")
        launcher = getattr(import_module(f"hydra_plugins.{module}"), cls)(**settings)
        launcher.setup(hydra_context=self.hydra_context, task_function=task, config=self.config)
        return launcher

    def _task(self, places: tuple[Slot, ...] = ()) -> Task:
        return Task(self.task_function, self.config.hydra.runtime.cwd, places)


class Processes(_Preset):
    """Runs many small jobs at the same time on this machine's cores.

    Args:
        n_jobs: how many at a time; None for as many as the cores allow.
        threads: cores of each.
    """

    install = "hydra-joblib-launcher>=1.4.0rc3"

    def __init__(self, n_jobs: int | None = None, threads: int = 1) -> None:
        self.n_jobs, self.threads = n_jobs, threads

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        return self._run(jobs, first, self.n_jobs or max(1, cores() // self.threads), self.threads)

    def _run(
        self, jobs: Sequence[Sequence[str]], first: int, at_once: int, threads: int, places: Sequence[Slot] = ()
    ) -> Sequence[JobReturn]:
        """Launch; if a process was killed launch again: jobs that are done are not done twice."""
        at_once = min(at_once, len(jobs))
        settings = {"n_jobs": at_once, "inner_max_num_threads": threads, "backend": "loky", "batch_size": 1}
        task = self._task(tuple(places))
        launcher = self._plugin("hydra_joblib_launcher.joblib_launcher.JoblibLauncher", task, settings)
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        for left in reversed(range(RELAUNCHES + 1)):
            try:
                return launcher.launch(jobs, first)
            except TerminatedWorkerError:
                then = "its jobs are resumed from their last checkpoints" if left else "giving up"
                print(f"a process that ran jobs was killed (out of memory?): {then}", file=sys.stderr, flush=True)
        raise ConfigError(
            "processes that run jobs are killed again and again: fewer at a time may fit into the memory "
            f"(hydra.launcher.n_jobs=...); resume with sweep.resume={shlex.quote(self.config.hydra.sweep.dir)}"
        )


class Gpus(Processes):
    """Runs each job on a GPU of its own, or as many as its trainer has devices, on this machine.

    Without a GPU the jobs run on the CPU, as with :class:`Processes`.

    Args:
        gpus: which; None for all that this process may use.
        jobs_per_gpu: jobs that share one.
        threads: cores of each job; None shares them out.
    """

    def __init__(
        self, gpus: Sequence[int | str] | None = None, jobs_per_gpu: int = 1, threads: int | None = None
    ) -> None:
        self.gpus, self.jobs_per_gpu, self.threads = gpus, jobs_per_gpu, threads

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        gpus = visible_gpus() if self.gpus is None else [str(gpu) for gpu in self.gpus]
        if not gpus:
            print("hydra/launcher=gpus: torch finds no GPU here: the jobs run on the CPU", file=sys.stderr, flush=True)
            threads = self.threads or 1
            return self._run(jobs, first, max(1, cores() // threads), threads)
        each = devices_of(self.config.trainer, len(gpus))
        places = slots(gpus, each, self.jobs_per_gpu)
        if not places:
            raise ConfigError(f"trainer.devices={each}: the machine has {len(gpus)} GPU(s) for hydra/launcher=gpus")
        return self._run(jobs, first, len(places), self.threads or max(1, cores() // len(places)), places)


class RayCluster(_Preset):
    """Runs jobs on Ray: one that this command starts and stops on this machine, or a cluster that runs already.

    The machines of a cluster must see the folder from which the command is started.

    Args:
        address: of a running cluster, ``host:port`` or ``auto``; None starts a Ray of this command's own.
        num_cpus: cores of a job.
        num_gpus: GPUs of a job, also a part of one; None takes what its trainer asks for, and none where this
            machine has none and the trainer says ``auto``.
        max_retries: how often a job whose process was killed is resumed from its last checkpoint.
        init: more arguments of ``ray.init``.
        remote: more arguments of ``ray.remote``.
    """

    install = "neuro_lightning[ray]"

    def __init__(
        self, address: str | None = None, num_cpus: float = 1, num_gpus: float | None = None, max_retries: int = 3,
        init: DictConfig | None = None, remote: DictConfig | None = None,
    ) -> None:  # fmt: skip
        self.address, self.num_cpus, self.num_gpus, self.max_retries = address, num_cpus, num_gpus, max_retries
        self.init, self.remote = init or {}, remote or {}

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        wanted = gpus_wanted(self.config.trainer) if self.num_gpus is None else self.num_gpus
        # without an address Ray would take whatever cluster it finds on this machine
        # what jobs print lies in their folders, and Ray would put a worker's number before each line
        shown = bool(OmegaConf.select(self.config, "hydra.callbacks.sweep_table.verbose"))
        init = {"address": self.address or "local", "log_to_driver": shown, "logging_level": "warning", **self.init}
        if self.address is None:
            init = {"include_dashboard": False, **init}
            # what Ray itself chooses for a cluster of its own, with a long warning unless it is asked for
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        remote = {"num_cpus": self.num_cpus, "num_gpus": wanted, "max_retries": self.max_retries, **self.remote}
        settings = OmegaConf.create({"init": init, "remote": remote})
        launcher = self._plugin("hydra_ray_launcher.ray_launcher.RayLauncher", self._task(), {"ray": settings})
        import ray
        from ray.exceptions import WorkerCrashedError

        # a worker may live in another folder: the jobs' folders are named from the root
        folder = Path(self.config.hydra.sweep.dir).resolve()
        jobs = [[*job, override("hydra.sweep.dir", folder)] for job in jobs]
        if not ray.is_initialized() and self.address not in (None, "auto", "local"):
            check_reachable(self.address)
        try:
            with nullcontext() if shown else lines_of_distant_jobs(folder):
                return launcher.launch(jobs, first)
        except ConnectionError as error:
            raise ConfigError(
                f"hydra.launcher.address={self.address}: {' '.join(str(error).split())}; "
                "set RAY_AUTH_MODE=token if it asks for a token"
            ) from None
        except WorkerCrashedError:
            raise ConfigError(
                f"a job's process was killed {self.max_retries + 1} times (out of memory?): resume with "
                f"sweep.resume={shlex.quote(self.config.hydra.sweep.dir)}"
            ) from None  # Ray is stopped at the command's end: a search launches many times


class Slurm(_Preset):
    """Submits each job to SLURM from a login node and waits for them.

    A job that runs out of time, or is preempted, is queued again and resumed from its last checkpoint.

    Args:
        gpus_per_node: None takes what the trainer asks for.
        settings: further arguments of submitit's SLURM launcher; see ``conf/hydra/launcher/slurm.yaml``.
    """

    install = "neuro_lightning[slurm]"

    def __init__(self, gpus_per_node: int | None = None, **settings: Any) -> None:
        self.gpus_per_node, self.settings = gpus_per_node, settings

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        trainer = self.config.trainer
        swept = {word for job in jobs for word in job if word.lstrip("+").startswith(("trainer=", "trainer.devices="))}
        if len({word.split("=")[0] for word in swept}) < len(swept):
            raise ConfigError(f"{' and '.join(sorted(swept))}: SLURM gives all jobs of a sweep the same devices")
        devices = devices_of(trainer)  # a task for each: Lightning takes SLURM's tasks for its processes
        gpus = self.gpus_per_node if self.gpus_per_node is not None else gpus_wanted(trainer, here=False)
        settings = {
            **self.settings, "tasks_per_node": devices, "nodes": trainer.get("num_nodes") or 1,
            "gpus_per_node": gpus or None,
        }  # fmt: skip
        launcher = self._plugin("hydra_submitit_launcher.submitit_launcher.SlurmLauncher", self._task(), settings)
        try:
            with lines_of_distant_jobs(self.config.hydra.sweep.dir):
                return launcher.launch(jobs, first)
        except RuntimeError as error:
            if "srun" not in str(error):
                raise
            raise ConfigError("hydra/launcher=slurm: there is no SLURM here; start it on a login node") from None


class Stacked(_Preset):
    """Trains jobs of one architecture on the same data as one stacked network, in this process.

    They may differ in their seeds and in numbers of the training (learning rate, weight decay, dropout, masking,
    epochs). All other jobs run one by one.

    Args:
        most: jobs in a stack at most; None for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        from neuro_lightning.sweeps.stacked import run_stacked  # with torch, which takes seconds

        if self.most is not None and self.most < 1:
            raise ConfigError(f"hydra.launcher.most={self.most}: give 1 or more, or null for all")
        return run_stacked(self.hydra_context, self._task(), self.config, jobs, first, self.most or len(jobs))


LAUNCHERS = (Processes, Gpus, RayCluster, Slurm, Stacked)


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM as an interrupt: a command that was only killed would leave its workers running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus_wanted(trainer: DictConfig, *, here: bool = True) -> int:
    """GPUs that one machine must have for a job.

    Args:
        trainer: the config's ``trainer``.
        here: whether the GPUs of this machine tell what ``accelerator: auto`` means; else it asks for one.
    """
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and (not here or visible_gpus())):
        return devices_of(trainer)
    return 0


def check_reachable(address: str) -> None:
    """Check that something listens at an address: Ray would try for minutes.

    Raises:
        ConfigError: nothing does.
    """
    import socket

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"hydra.launcher.address={address}: no Ray answers there ({error}); `ray status` on its head node shows it"
        ) from None
