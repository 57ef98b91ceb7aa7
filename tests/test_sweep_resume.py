"""Nothing is lost: a sweep that was killed, and went on, is the sweep that was left alone."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from runs import ROOT, TINY, checkpoint, command, command_here, record, rows, same, start

from neuro_lightning import cli
from neuro_lightning.artifacts.locks import locked_folder
from neuro_lightning.artifacts.sweep_jobs import job_settings
from neuro_lightning.errors import ConfigError, SubmissionError
from neuro_lightning.runs.resumed import readable_checkpoint
from neuro_lightning.sweeps.grid import in_their_folders
from neuro_lightning.sweeps.jobs import decide

SEEDS = [0, 1, 2]
SWEEP = ["-m", *TINY, "trainer.max_epochs=6", "trainer.check_val_every_n_epoch=2", f"seed={','.join(map(str, SEEDS))}"]


def table(folder):
    """The rows of sweep.csv, without what depends on the clock, on the sweep's folder and on what kills its jobs."""
    with open(folder / "sweep.csv", newline="") as file:
        found = list(csv.DictReader(file))
    left_out = ("seconds", "checkpoint", "callbacks.kill._target_", "callbacks.kill.points")
    return [{key: value for key, value in row.items() if key not in left_out} for row in found]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    done = command_here(folder, *SWEEP, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.mark.slow
def test_killed_four_times_and_resumed_it_ends_in_the_same_table(alone, tmp_path):
    """SIGKILL before the first checkpoint, in the resumed job, after the training of a job and within an epoch."""
    folder, points = tmp_path / "sweep", [[0, 1], [0, 11], [1, "end"], [2, 14]]
    kill = ["trusted=[tiny,launched]", "+callbacks.kill._target_=launched.KillOnce"]
    kill.append(f"+callbacks.kill.points={points}".replace("'", "").replace(" ", ""))
    arguments = [*SWEEP, *kill, "hydra.sweep.dir=sweep"]
    for seed, moment in points:
        killed = command(tmp_path, *arguments)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (folder / f"{seed}_tiny_gru" / f"killed-{moment}").exists()
        arguments = ["-m", "sweep.resume=sweep"]
    done = command_here(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert table(folder) == table(alone)
    for name in sorted(path.name for path in alone.glob("*_tiny_gru")):
        for what in ("state_dict", "optimizer_states"):
            assert same(checkpoint(folder / name)[what], checkpoint(alone / name)[what])
        assert rows(folder / name) == rows(alone / name)


def test_what_is_left_of_a_sweep_is_done_and_no_more(alone, tmp_path):
    """Finished jobs are left, one that failed is tried once more and then left, added values are done."""
    sweep = ["-m", *TINY, "seed=0,1", "+callbacks.fail={_target_:tiny.Fail,process:0,early:false}", "hydra.sweep.dir=s"]
    first = command_here(tmp_path, *sweep)
    assert "Traceback" in first.stdout + first.stderr, "what went wrong is told"
    failed = [record(path) for path in sorted((tmp_path / "s").glob("*_tiny_gru"))]
    assert [(r["status"], r["attempts"]) for r in failed] == [("failed", 1)] * 2
    done = command_here(tmp_path, "-m", "sweep.resume=s")
    assert "0_tiny_gru: failed, is tried once more" in done.stdout
    failed = [record(path) for path in sorted((tmp_path / "s").glob("*_tiny_gru"))]
    assert [(r["status"], r["attempts"]) for r in failed] == [("failed", 2)] * 2
    left = command_here(tmp_path, "-m", "sweep.resume=s", "seed=0,1,2")
    assert left.stdout.count("failed twice, left as it is") == 2
    assert record(tmp_path / "s" / "2_tiny_gru")["attempts"] == 1, "a new value is a new job, behind the others"
    assert {row["status"] for row in table(tmp_path / "s")} == {"failed"}


HOLD = """
import sys
from neuro_lightning import cli
from neuro_lightning.artifacts.locks import locked_folder
with locked_folder(sys.argv[1]) as acquired:
    print(acquired, flush=True)
    sys.stdin.read()
"""


def at_work_in(folder):
    """A process that trains there, as others see it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, **pipes)
    assert other.stdout.readline() == "True\n"
    return other


def test_a_job_that_another_process_trains_is_left_to_it(tmp_path):
    """A sweep that is resumed twice at once, or while workers of a killed one live on."""
    folder = tmp_path / "s" / "0_tiny_gru"
    with at_work_in(folder) as other:
        done = command_here(tmp_path, "-m", *TINY, "seed=0,1", "hydra.sweep.dir=s")
        assert done.returncode == 0, done.stderr
        assert "0_tiny_gru: left to another process, which trains it" in done.stdout
        assert not (folder / "run.json").exists() and record(tmp_path / "s" / "1_tiny_gru")["status"] == "finished"
        other.kill()  # the lock goes with the process, however that ends
    with locked_folder(folder) as acquired:
        assert acquired


@pytest.mark.slow
def test_a_search_waits_for_a_trial_that_another_process_trains(tmp_path):
    """What it tries next depends on how that comes out."""
    with at_work_in(tmp_path / "s" / "0_tiny_gru") as other:
        search = ["-m", "hydra/sweeper=bayes", *TINY, "model.layers=choice(1,2)", "hydra.sweeper.n_trials=1"]
        with start(tmp_path, *search, "hydra.sweep.dir=s") as process:
            said = next(line for line in process.stdout if "0_tiny_gru" in line)
            assert said == "0_tiny_gru: waits for another process, which trains it\n"
            assert not (tmp_path / "s" / "0_tiny_gru" / "run.json").exists()
            other.kill()
            process.communicate(timeout=120)
            assert process.returncode == 0
    assert record(tmp_path / "s" / "0_tiny_gru")["status"] == "finished"


def test_a_key_that_nobody_consumes_is_refused_before_the_first_job(tmp_path):
    """Also one that only some of the swept models have, and one behind a plus sign."""
    for words in (["+model.no_such=1,2"], ["model=gru,smoothing", "model.hidden=8"]):
        base = [word for word in TINY if not any(word.startswith(w.split("=")[0] + "=") for w in words)]
        refused = command_here(tmp_path, "-m", *base, *words, "hydra.sweep.dir=s")
        wrong = words[-1].split("=")[0].lstrip("+")
        assert refused.returncode == 1 and wrong.split(".")[-1] in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr and not list(tmp_path.glob("s/*/run.json"))
    both = command_here(tmp_path, "-m", *TINY, "model=smoothing,mean", "model.iterations=3", "hydra.sweep.dir=s")
    assert "error: " in both.stderr and "model=smoothing" in both.stderr, "the job that cannot be is named"


def test_a_full_disk_ends_the_sweep_with_one_line(tmp_path):
    """Every other job would meet the same; what is done is kept."""
    full = "+callbacks.full={_target_:tiny.FullDisk}"
    done = command_here(tmp_path, "-m", *TINY, full, "seed=0,1", "hydra.sweep.dir=s")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: the disk is full (last.ckpt could not be written): make room" in done.stderr
    assert "resume with: python train.py -m sweep.resume=s" in done.stderr
    assert [path.name for path in (tmp_path / "s").glob("*_tiny_gru")] == ["0_tiny_gru"]
    later = command_here(tmp_path, "-m", "sweep.resume=s", "+callbacks.full=null")
    assert later.returncode == 1 and "holds a job that is not of this sweep" in later.stderr


def test_a_full_disk_ends_a_run_with_the_words_that_resume_it(tmp_path):
    full = "+callbacks.full={_target_:tiny.FullDisk}"
    done = command_here(tmp_path, *TINY, full, "hydra.run.dir=r")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "make room, then resume with: python train.py resume=r" in done.stderr


def test_what_cannot_be_written_on_a_full_disk_is_named_once(monkeypatch):
    monkeypatch.setattr(cli, "_resume_words", lambda before: "")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error = SubmissionError("out.h5 cannot be written (No space left on device): choose another place")
    error.__cause__ = full
    assert cli._full_disk_message(error) == str(error)
    assert cli._full_disk_message(full) == "the disk is full: make room, then start it again"
    assert cli._full_disk_message(OSError(errno.EIO, "broken")) == ""


# ---- what becomes of a job


def a_job(folder, status, *, attempts=1, last=True, error=None, value=0.25, overrides=("model=gru", "seed=1")):
    (folder / "checkpoints").mkdir(parents=True)
    if last:
        (folder / "checkpoints" / "last.ckpt").touch()
    values = {"status": status, "attempts": attempts, "overrides": list(overrides), "error": error}
    (folder / "run.json").write_text(json.dumps(values | {"objective": {"value": value}}))
    return folder


CASES = {
    "finished": ({}, ("done", False)),
    "pruned": ({}, ("done", False)),
    "diverged": ({"value": None}, ("done", False)),
    "running": ({}, ("resume", True)),
    "interrupted": ({"last": False}, ("resume", False)),
    "paused": ({}, ("resume", True)),
    "failed": ({"error": "RuntimeError: no memory"}, ("retry", True)),
    "failed ": ({"error": "CheckpointError: damaged"}, ("retry", False)),
    "failed  ": ({"attempts": 2}, ("done", False)),
}


@pytest.mark.parametrize("status", CASES)
def test_what_becomes_of_a_job(tmp_path, status):
    given, (kind, goes_on) = CASES[status]
    folder = a_job(tmp_path / "1_a_b", status.strip(), **given)
    job = decide(folder, ["seed=1", "sweep.trial=1", "model=gru"])
    assert job.kind == kind and job.checkpoint == (folder / "checkpoints" / "last.ckpt" if goes_on else None)
    assert job.objective == (given.get("value", 0.25) if kind == "done" else None) and job.message.startswith("1_a_b: ")


def test_a_job_whose_checkpoints_are_all_unreadable_begins_anew(tmp_path, capsys):
    folder = a_job(tmp_path / "1_a_b", "interrupted")
    previous = folder / "checkpoints" / "last.previous.ckpt"
    previous.touch()
    for _ in range(2):  # both damaged; then the last one missing
        job = decide(folder, ["model=gru", "seed=1"])
        assert job.checkpoint.name == "last.ckpt" and readable_checkpoint(str(job.checkpoint), start_again=True) is None
        said = " ".join(capsys.readouterr().out.split())
        assert "last.ckpt" in said and said.endswith(": starting again from the beginning")
        job.checkpoint.unlink(missing_ok=True)
    previous.unlink()
    assert decide(folder, ["model=gru", "seed=1"]).message == "1_a_b: begins anew"
    folder = a_job(tmp_path / "2_a_b", "failed", error="CheckpointError: damaged")
    assert decide(folder, ["model=gru", "seed=1"]).message == "2_a_b: failed, is tried once more and begins anew"


def test_an_empty_or_torn_folder_begins_anew_and_another_job_is_refused(tmp_path):
    assert decide(tmp_path, ["seed=1"]).kind == "new"
    (tmp_path / "run.json").write_text('{"status": "fin')
    assert decide(tmp_path, ["seed=1"]).kind == "new"
    a_job(tmp_path / "job", "finished")
    with pytest.raises(ConfigError, match=r"holds another job, with seed=1 instead of seed=2"):
        decide(tmp_path / "job", ["model=gru", "seed=2"])
    assert job_settings(["+sweep.trial=3", "resume=x", "seed=1", "sweep.until=2"]) == ["seed=1"]


def test_every_job_finds_its_folder_again(tmp_path):
    jobs = [[f"model={m}", f"seed={s}"] for m in "ab" for s in "01"]
    for i, job in enumerate(jobs[:3]):
        (tmp_path / f"{i}_x_y" / ".hydra").mkdir(parents=True)
        OmegaConf.save([*job, "sweep.trial=7"], tmp_path / f"{i}_x_y" / ".hydra" / "overrides.yaml")
    wider = [[f"model={m}", f"seed={s}"] for s in "012" for m in "ab"]
    found = in_their_folders(wider, tmp_path)
    assert found[:3] == jobs[:3] and sorted(found) == sorted(wider)
    with pytest.raises(ConfigError, match="holds a job that is not of this sweep: model=b seed=0"):
        in_their_folders(jobs[:2], tmp_path)
    assert in_their_folders(jobs, tmp_path / "nowhere") == jobs


def test_a_job_whose_files_are_torn_stops_no_sweep(tmp_path):
    """Hydra's files are not written in one piece: a job that was killed meanwhile, or met a full disk, has half."""
    jobs = [[f"seed={s}"] for s in "0123"]
    for i, text in enumerate(("", "- seed=0", "- 'seed", "[")):
        (tmp_path / f"{i}_x_y" / ".hydra").mkdir(parents=True)
        (tmp_path / f"{i}_x_y" / ".hydra" / "overrides.yaml").write_text(text)
    (tmp_path / "0_x_y" / "run.json").write_text(json.dumps({"overrides": ["seed=3"]}))
    assert in_their_folders(jobs, tmp_path) == [["seed=3"], ["seed=0"], ["seed=1"], ["seed=2"]]


def test_an_interval_or_nothing_is_no_grid():
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    from neuro_lightning.sweeps.grid import Grid

    grid = Grid(max_batch_size=None)
    grid.loader = ConfigLoaderImpl(ConfigSearchPathImpl())
    with pytest.raises(ConfigError, match="a grid takes values, not an interval"):
        grid.jobs(["model.lr=interval(0, 1)"])
    with pytest.raises(ConfigError, match="no value to choose from"):
        grid.jobs(["seed=range(3,3)"])
    with pytest.raises(ConfigError, match="given twice"):
        grid.jobs(["seed=1,1"])
    assert len(grid.jobs(["seed=1,2", "model=a,b", "x=3"])) == 4
    both = [["y=2", "~x", "~z=1", "seed=1"], ["y=2", "~x", "~z=1", "seed=2"]]
    assert grid.jobs(["y=1", "~x", "y=2", "~z=1", "seed=1,2"]) == both, "a deleted key is deleted whatever it holds"
