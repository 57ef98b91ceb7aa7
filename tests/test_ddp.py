"""Two processes train the model of one."""

import os
import signal
import subprocess

import pytest
import torch
from runs import PLAIN, TINY, checkpoint, command_here, here, record, rows, same

from neuro_lightning.errors import ConfigError, Interrupted
from neuro_lightning.runs.distributed import LAUNCH_VARIABLES, job_environment

# plain descent: adaptive steps would blow the last bit of a vanishing gradient up to a whole step
DESCENT = [*PLAIN, "model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.5"]
TWO = ["trainer=ddp_cpu", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1"]


def children_left(folder) -> str:
    """Processes of jobs in this folder that still run."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return "\n".join(
        line for line in found.splitlines() if "neuro_lightning.runs.worker" in line and str(folder) in line
    )


def assert_equal_runs(two, one):
    ours, theirs = checkpoint(two)["state_dict"], checkpoint(one)["state_dict"]
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-9, atol=1e-11)
    assert len(rows(two)) == len(rows(one)) == 3
    for row, wanted in zip(rows(two), rows(one), strict=True):
        assert row.keys() == wanted.keys()
        assert [float(value) for value in row.values()] == pytest.approx([float(v) for v in wanted.values()], rel=2e-6)
    assert record(two)["metrics"] == pytest.approx(record(one)["metrics"], rel=1e-9)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_two_processes_equal_one_in_every_job_of_a_sweep(tmp_path, capfd):
    """37 and 11 trials, NaN targets, 10 trials in a batch over both: the weights, log and scores of one process."""
    sweep = command_here(
        tmp_path, "-m", *TINY, *DESCENT, *TWO, "seed=0,1",
        f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweep.subdir=${hydra.job.num}",
    )  # fmt: skip
    assert sweep.returncode == 0, sweep.stderr
    said = "".join((tmp_path / "sweep" / str(seed) / "output.log").read_text() for seed in (0, 1))
    errors = sweep.stderr + capfd.readouterr().err
    assert "Traceback" not in errors + said and said.count("Scores on tiny") == 2, "one process speaks"
    assert said.count("reading the data") == said.count("starting 2 processes") == 2
    assert "sync_dist" not in errors
    for seed in (0, 1):
        two = tmp_path / "sweep" / str(seed)
        one = here(tmp_path / f"one{seed}", *DESCENT, f"seed={seed}")
        assert_equal_runs(two, one.folder)
        assert (record(two)["processes"], record(one.folder)["processes"]) == (2, 1)
        assert record(two)["seed"] == seed and record(two)["objective"]["value"] == pytest.approx(one.score, rel=1e-9)
    assert not same(checkpoint(tmp_path / "one0")["state_dict"], checkpoint(tmp_path / "one1")["state_dict"])
    assert not children_left(tmp_path)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_two_processes_resume_within_an_epoch(tmp_path):
    """Each process continues with its share of the remaining batches."""
    keep = "dirpath:'${paths.output_dir}/checkpoints',filename:step,every_n_train_steps:1,enable_version_counter:false"
    steps = f"+callbacks.steps={{_target_:neuro_lightning.callbacks.checkpoint.Checkpoint,{keep}}}"
    with pytest.raises(RuntimeError, match="has failed at work"):
        here(tmp_path / "two", *DESCENT, *TWO, steps, "+callbacks.fail={_target_:tiny.Fail,process:0,early:false}")
    assert checkpoint(tmp_path / "two", "step.ckpt")["Tiny"] == {"epoch": 0, "batches": 1}
    here(tmp_path / "two", *DESCENT, *TWO, steps, f"resume={tmp_path}/two/checkpoints/step.ckpt")
    assert_equal_runs(tmp_path / "two", here(tmp_path / "one", *DESCENT).folder)


@pytest.mark.slow
def test_a_model_without_gradients_runs_too(tmp_path):
    """And a second process that has to import everything itself."""
    chosen = [override for override in TINY if not override.startswith("model")]
    here(tmp_path, *TWO, "model=smoothing", base=chosen)
    assert record(tmp_path)["metrics"]["test/co_bps"] > 0.05 and record(tmp_path)["processes"] == 2


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
@pytest.mark.parametrize(("process", "early"), [pytest.param(0, False, marks=pytest.mark.rare), (1, False), (1, True)])
def test_a_process_that_fails_ends_the_job(tmp_path, process, early, capfd):
    """With a message, without hanging, and without a trace for the next job of this process."""
    before = {name: os.environ.get(name) for name in LAUNCH_VARIABLES}
    failing = f"+callbacks.fail={{_target_:tiny.Fail,process:{process},early:{str(early).lower()}}}"
    with pytest.raises(RuntimeError) as caught:
        here(tmp_path / "run", *TWO, failing)
    said = capfd.readouterr().err
    if process == 0:
        assert "process 0 has failed at work" in str(caught.value)
    else:
        assert "process 1 (exit status 1) of this job failed" in str(caught.value)
        assert f"process 1 has failed {'early' if early else 'at work'}" in said
    assert record(tmp_path / "run")["status"] == "failed"
    assert {name: os.environ.get(name) for name in LAUNCH_VARIABLES} == before
    assert not torch.distributed.is_initialized() and not children_left(tmp_path)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "process", "trainer"),
    [
        pytest.param("SIGTERM", 0, TWO, marks=pytest.mark.rare), ("SIGTERM", 0, []),
        ("SIGUSR1", 1, TWO), ("SIGUSR1", 0, []),
    ],
)  # fmt: skip
def test_what_the_system_sends_ends_all_processes_at_one_step(tmp_path, monkeypatch, number, process, trainer):
    """Whichever of them it reaches; the handlers are put back. After SIGUSR1 SLURM's job is queued again, once."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    if number == "SIGUSR1":
        for name, value in (("SLURM_JOB_ID", "79"), ("SLURM_ARRAY_JOB_ID", "77"), ("SLURM_ARRAY_TASK_ID", "2")):
            monkeypatch.setenv(name, value)
    told = f"{{_target_:tiny.Told,process:{process},number:{int(signal.Signals[number])}}}"
    with pytest.raises(Interrupted, match=r"interrupted; resume with: python train.py resume="):
        here(tmp_path / "run", *trainer, f"+callbacks.told={told}")
    assert record(tmp_path / "run")["status"] == "interrupted" and not children_left(tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 77_2\n" if number == "SIGUSR1" else "")


def test_several_processes_are_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.devices=4: .* trainer=ddp_cpu"):
        here(tmp_path, "trainer.devices=4")


def test_a_tpu_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^trainer: .*torch_xla.* try trainer=cpu$"):
        here(tmp_path, "trainer.accelerator=tpu")


def test_the_environment_is_put_back(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "7")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    threads = torch.get_num_threads()
    with pytest.raises(KeyError), job_environment(tmp_path):
        os.environ["LOCAL_RANK"], os.environ["RANK"] = "1", "1"
        torch.set_num_threads(threads + 1)
        raise KeyError
    assert os.environ["RANK"] == "7" and "LOCAL_RANK" not in os.environ and torch.get_num_threads() == threads


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_two_processes_see_the_same_distorted_images(tmp_path):
    """NaN responses, flips and rotations drawn per image and epoch: weights, log and scores of one process."""
    data = ["data=pictures", "trusted=[pictures]", "data.n_train=37", "data.n_val=11", "data.batch_size=10"]
    distorted = ["augment@data.augment=[flips,rotation]", "model.dense=[{units: 8}]", "model.logits={dropout: 0}"]
    model = ["model=cnn", "model.conv=[{filters: 4, kernel: 3, l2: 0.1}]", "++trainer.precision=64-true"]
    descent = ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.05", "scheduler@model.scheduler=none"]
    kept = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    base = [*kept, *data, *model, *distorted, *descent]
    two, one = here(tmp_path / "two", *TWO, base=base), here(tmp_path / "one", base=base)
    assert record(two.folder)["processes"] == 2
    assert_equal_runs(two.folder, one.folder)
    plain = here(tmp_path / "plain", "augment@data.augment=none", base=base)
    assert not same(checkpoint(plain.folder)["state_dict"], checkpoint(one.folder)["state_dict"])
