import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import slurm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT, TINY, checkpoint, command, here, record, same, start

from neuro_lightning.sweeps import devices, launchers
from neuro_lightning.sweeps.devices import devices_of, slots, visible_gpus
from neuro_lightning.sweeps.launchers import LAUNCHERS, Gpus, Processes, RayCluster, Slurm, gpus_wanted

PRESETS = sorted((ROOT / "conf" / "hydra" / "launcher").glob("*.yaml"))
SWEEP = [*TINY, "trusted=[tiny,launched]", "hydra.sweep.dir=here"]
PLACE = "+callbacks.place._target_=launched.Place"
KILL = ["+callbacks.kill._target_=launched.KillOnce", "+callbacks.kill.points=[[1,5]]"]


# ---- the presets


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_has_a_line_that_runs_and_settings_that_its_launcher_takes(path):
    [line] = re.findall(r"^#   python train\.py (.*)$", path.read_text(), re.M)
    words = [word for word in line.split() if word != "-m" and "range(" not in word]
    assert f"hydra/launcher={path.stem}" in words
    with initialize_config_dir(str(ROOT / "conf")):
        config = compose("train", overrides=words, return_hydra_config=True)
    settings = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    target = settings.pop("_target_")
    cls = next(cls for cls in LAUNCHERS if target == f"{cls.__module__}.{cls.__name__}")
    launcher = cls(**settings)
    if cls is not Slurm:  # which hands them on to submitit: the sbatch script is tested below
        assert settings.keys() == set(cls.__init__.__code__.co_varnames[1 : cls.__init__.__code__.co_argcount])
    assert isinstance(launcher, launchers._Preset)


@pytest.mark.parametrize("missing", ["hydra_plugins.hydra_ray_launcher.ray_launcher", "ray"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        SystemExit, match=r"^error: hydra/launcher=ray_cluster needs .*pip install 'neuro_lightning\[ray\]'"
    ):
        ready(RayCluster(), "ray_cluster").launch([["seed=0"]], 0)


def ready(launcher, name, **trainer):
    config = {
        "trainer": {"accelerator": "cpu", "devices": 1, **trainer},
        "hydra": {"sweep": {"dir": "here"}, "runtime": {"cwd": ".", "choices": {"hydra/launcher": name}}},
    }
    launcher.setup(hydra_context=None, task_function=None, config=OmegaConf.create(config))
    return launcher


# ---- one GPU for each job


def test_places_are_all_gpus_before_any_is_shared():
    assert slots(["0", "1"]) == [("0",), ("1",)]
    assert slots(["0", "1"], jobs_per_gpu=2) == [("0",), ("1",), ("0",), ("1",)]
    assert slots(["a", "b", "c"], each=2) == [("a", "b")]
    assert slots(["0"], each=2) == []


@pytest.mark.parametrize(
    ("given", "found"), [(None, 1), (1, 1), (3, 3), ("2", 2), ("auto", 8), (-1, 8), ([0, 5], 2), ("-1", 8)]
)
def test_devices_of_a_trainer(given, found):
    assert devices_of(OmegaConf.create({"devices": given}), everything=8) == found


def test_gpus_are_asked_for_where_the_trainer_wants_them(monkeypatch):
    monkeypatch.setattr(devices, "_count", lambda: 0)
    ask = lambda here, **trainer: gpus_wanted(OmegaConf.create(trainer), here=here)  # noqa: E731
    assert ask(True, accelerator="gpu", devices=2) == 2
    assert ask(True, accelerator="cpu", devices=2) == 0
    assert ask(True, accelerator="auto", devices=1) == 0
    assert ask(False, accelerator="auto", devices=1) == 1  # a login node has none and says nothing of the others
    monkeypatch.setattr(devices, "_count", lambda: 2)
    assert ask(True, accelerator="auto", devices=1) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    assert visible_gpus() == ["3", "GPU-5"]


CLAIM = """
import sys
from pathlib import Path
from neuro_lightning.sweeps.devices import own_slot
places = [("0",), ("1",)]
print(own_slot(places, number=3, folder=Path(sys.argv[1]))[0], own_slot(places, number=0)[0], flush=True)
sys.stdin.read()
"""


def claimant(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return process, process.stdout.readline().split()


def test_a_gpu_belongs_to_a_process_until_it_ends_however(tmp_path):
    first, of_first = claimant(tmp_path)
    second, of_second = claimant(tmp_path)
    third, of_third = claimant(tmp_path)
    try:
        assert [of_first, of_second] == [["0", "0"], ["1", "1"]]  # asked again it is the same
        assert of_third == ["1", "1"]  # none is free: shared, by the job's number
        first.kill()
        first.wait()
        fourth, of_fourth = claimant(tmp_path)
        fourth.kill()
        fourth.wait()
        assert of_fourth == ["0", "0"]
    finally:
        for process in (first, second, third):
            process.kill()
            process.wait()


def test_without_a_gpu_jobs_run_on_the_cpu_and_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(devices, "_count", lambda: 0)
    monkeypatch.setattr(Processes, "_run", lambda self, jobs, first, at_once, threads, places=(): (at_once, places))
    monkeypatch.setattr(launchers, "cores", lambda: 6)
    assert ready(Gpus(threads=2), "gpus")._launch([["seed=0"]], 0) == (3, ())
    assert capsys.readouterr().err == "hydra/launcher=gpus: torch finds no GPU here: the jobs run on the CPU\n"
    monkeypatch.setattr(devices, "_count", lambda: 4)
    assert ready(Gpus(), "gpus", devices=2)._launch([["seed=0"]], 0) == (2, [("0", "1"), ("2", "3")])
    with pytest.raises(SystemExit, match=r"error: trainer.devices=8: the machine has 4 GPU\(s\)"):
        ready(Gpus(), "gpus", devices=8).launch([["seed=0"]], 0)


# ---- jobs, by each launcher


def placed(folder: Path) -> list[dict]:
    return [json.loads((path / "place.json").read_text()) for path in sorted(folder.glob("*_tiny_gru"))]


def check_jobs_are_those_of_one_process(tmp_path, folder, seeds):
    """Whatever ran them, to the bit."""
    for seed in seeds:
        alone = here(tmp_path / f"alone{seed}", f"seed={seed}")
        job = folder / f"{seed}_tiny_gru"
        assert record(job)["status"] == "finished" and record(job)["objective"]["value"] == alone.score
        assert same(checkpoint(job)["state_dict"], checkpoint(alone.folder)["state_dict"])


@pytest.mark.slow
def test_processes_share_the_cores_and_a_killed_one_is_replaced(tmp_path):
    done = command(tmp_path, "-m", *SWEEP, "hydra/launcher=processes", "hydra.launcher.n_jobs=2", "seed=0,1,2", *KILL)
    assert done.returncode == 0, done.stderr
    assert "its jobs are resumed from their last checkpoints" in done.stderr and "Traceback" not in done.stderr
    assert "Sweep: 3 of 3 jobs finished" in done.stdout
    places = placed(tmp_path / "here")
    assert all(place["threads"] == 1 and place["wait"] == "PASSIVE" for place in places)
    assert os.getpid() not in {place["pid"] for place in places}
    assert (tmp_path / "here" / "1_tiny_gru" / "killed-5").exists()
    check_jobs_are_those_of_one_process(tmp_path, tmp_path / "here", [0, 1, 2])


@pytest.mark.slow
def test_a_sweep_that_is_interrupt_on_sigterm_leaves_no_process_behind(tmp_path):
    """SIGTERM to all of them, as from a scheduler: workers do not live on, and every job can be resumed."""
    words = ["hydra/launcher=processes", "hydra.launcher.n_jobs=2", "seed=0,1", "trainer.max_epochs=100000"]
    with start(tmp_path, "-m", *SWEEP, *words, fresh_workers=True) as sweep:
        until = time.monotonic() + 240
        while len(list(tmp_path.glob("here/*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        ours = [sweep.pid, *children(sweep.pid)]
        assert len(ours) >= 3, "the sweep, and a worker for each job"
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        _, said = sweep.communicate(timeout=60)
    until = time.monotonic() + 30
    while (left := [pid for pid in ours if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert sweep.returncode == 130 and "interrupted; resume with: python train.py -m sweep.resume=here" in said
    assert all(record(path)["status"] in ("interrupted", "running") for path in (tmp_path / "here").glob("*_tiny_gru"))


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [process for child in map(int, found) for process in (child, *children(child))]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.slow
def test_each_process_keeps_its_gpu_for_all_of_its_jobs(tmp_path):
    names = [f"GPU-{os.getpid()}-{i}" for i in range(2)]
    done = command(
        tmp_path, "-m", *SWEEP, "hydra/launcher=gpus", f"hydra.launcher.gpus=[{','.join(names)}]", "seed=0,1,2,3,4",
        "trainer.max_epochs=1", PLACE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    places = placed(tmp_path / "here")
    assert len(places) == 5
    of_process = {place["pid"]: {other["gpus"] for other in places if other["pid"] == place["pid"]} for place in places}
    assert len(of_process) == 2 and sorted(map(sorted, of_process.values())) == [[names[0]], [names[1]]]


@pytest.mark.slow
@pytest.mark.rare  # Ray's own processes take most of it; loky's workers are killed and replaced in a quick test
def test_ray_runs_jobs_and_again_those_whose_process_was_killed(tmp_path):
    done = command(
        tmp_path, "-m", *SWEEP, "hydra/launcher=ray_cluster", "seed=0,1", *KILL,
        "+hydra.launcher.init={num_cpus: 2, object_store_memory: 1e8}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sweep: 2 of 2 jobs finished" in done.stdout and "authentication" not in done.stderr
    places = placed(tmp_path / "here")
    assert all(place["cwd"] == str(tmp_path) and place["threads"] == 1 for place in places)
    assert (tmp_path / "here" / "1_tiny_gru" / "killed-5").exists()
    check_jobs_are_those_of_one_process(tmp_path, tmp_path / "here", [0, 1])


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "ray://127.0.0.1:9"])
def test_an_address_where_no_ray_answers_is_named(address):
    pytest.importorskip("ray")
    with pytest.raises(SystemExit, match=f"^error: hydra.launcher.address={address}: no Ray answers there"):
        ready(RayCluster(address=address), "ray_cluster").launch([["seed=0"]], 0)


@pytest.mark.slow
@pytest.mark.rare  # the tests with SLURM use the same package
def test_submitit_runs_jobs_on_this_machine(tmp_path):
    done = command(tmp_path, "-m", *SWEEP, "hydra/launcher=submitit_local", "seed=0,1", PLACE)
    assert done.returncode == 0, done.stderr
    assert "Sweep: 2 of 2 jobs finished" in done.stdout
    assert len({place["pid"] for place in placed(tmp_path / "here")}) == 2


# ---- SLURM


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A SLURM of one machine; its jobs end with the test."""
    for name, value in slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "slurm"
    for group in (tmp_path / "slurm").glob("group-*"):
        os.killpg(int(group.read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_a_slurm_job_has_a_task_for_each_device_and_they_train_as_one(tmp_path, cluster):
    done = command(
        tmp_path, "-m", *SWEEP, "trainer=ddp_cpu", "hydra/launcher=slurm", "hydra.launcher.partition=short", "seed=0",
        "hydra.launcher.setup=[hostname]", "trainer.max_epochs=1", PLACE, fresh_workers=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = slurm.flags(cluster / "submitted-1000.sh")
    assert asked["ntasks-per-node"] == "2" and asked["nodes"] == "1" and "gpus-per-node" not in asked
    assert asked["partition"] == "short" and "requeue" in asked and asked["signal"] == "USR2@120"
    assert "srun --unbuffered" in (cluster / "submitted-1000.sh").read_text()
    job = record(tmp_path / "here" / "0_tiny_gru")
    assert (job["status"], job["processes"]) == ("finished", 2)
    # nothing is left to do, and the second task learns of it
    again = command(tmp_path, "-m", "sweep.resume=here", "hydra.launcher.setup=[hostname]")
    assert again.returncode == 0, again.stderr
    assert (cluster / "submitted-2000.sh").exists()
    assert record(tmp_path / "here" / "0_tiny_gru") == job


@pytest.mark.slow
def test_a_slurm_job_out_of_time_is_queued_again_and_resumed(tmp_path, cluster):
    sweep = start(tmp_path, "-m", *SWEEP, "trainer.max_epochs=20", "hydra/launcher=slurm", "seed=0,1")
    folder = tmp_path / "here" / "0_tiny_gru"
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int((cluster / "tasks-1000").read_text()), signal.SIGUSR2)  # what SLURM sends before the time is over
    out, error = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, error
    assert "Sweep: 2 of 2 jobs finished" in out
    assert (cluster / "requeued-1000_0-0").exists() and not list(cluster.glob("requeued-1000_1-*"))
    assert slurm.flags(cluster / "submitted-1000.sh")["array"] == "0-1%2"
    alone = here(tmp_path / "alone", "seed=0", "trainer.max_epochs=20")
    assert record(folder)["objective"]["value"] == alone.score
    assert same(checkpoint(folder)["state_dict"], checkpoint(alone.folder)["state_dict"])


def test_slurm_asks_for_the_gpus_of_the_trainer(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        Slurm,
        "_plugin",
        lambda self, name, task, settings: asked.update(settings) or SimpleNamespace(launch=lambda *_: []),
    )
    ready(Slurm(partition="gpu"), "slurm", accelerator="gpu", devices=4, num_nodes=2).launch([["seed=0"]], 0)
    assert asked == {"partition": "gpu", "tasks_per_node": 4, "nodes": 2, "gpus_per_node": 4}
    ready(Slurm(gpus_per_node=1), "slurm", devices=2).launch([["seed=0"]], 0)
    assert asked["gpus_per_node"] == 1 and asked["tasks_per_node"] == 2
    with pytest.raises(
        SystemExit, match="error: trainer=cpu and trainer=ddp_cpu: SLURM gives all jobs of a sweep the same"
    ):
        ready(Slurm(), "slurm").launch([["trainer=cpu"], ["trainer=ddp_cpu"]], 0)


def test_without_slurm_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="error: hydra/launcher=slurm: there is no SLURM here"):
        ready(Slurm(submitit_folder=str(tmp_path)), "slurm").launch([["seed=0"]], 0)
