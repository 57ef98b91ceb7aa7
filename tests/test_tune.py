"""Searches on a real Ray of their own: a population, successive halving, workers and sweeps that are killed."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import TINY, checkpoint, command, here, record, rows, same, start

from neuro_lightning import cli
from neuro_lightning.sweeps.tune.graft import graft
from neuro_lightning.sweeps.tune.journal import FILE_NAME, Journal, Start
from neuro_lightning.sweeps.tune.population import Generations, Member, Population
from neuro_lightning.sweeps.tune.space import Interval

pytest.importorskip("ray.tune")

TRUSTED = [word.replace("trusted=[tiny]", "trusted=[tiny,dying]") for word in TINY]
TUNE = ["-m", *TRUSTED, "hydra/sweeper=tune", "hydra.sweeper.ray.num_cpus=2", "hydra.sweep.dir=sweep"]
POPULATION = [
    *TUNE, "hydra/sweeper/scheduler=pbt", "hydra.sweeper.trials=4", "hydra.sweeper.scheduler.generation_epochs=2",
    "hydra.sweeper.scheduler.burn_in_epochs=2", "hydra.sweeper.scheduler.patience=2", "trainer.max_epochs=20",
    "hydra.sweeper.scheduler.improvement=1e9", "scheduler@model.scheduler=none",
    "model.optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.input_dropout=interval(0.0,0.5)",
    "+callbacks.die._target_=dying.DieOnce", "+callbacks.die.step=15", "+callbacks.die.mark=mark",
]  # fmt: skip
MEMBERS = [f"{i}_tiny_gru" for i in range(4)]


def refused(monkeypatch, capsys, folder: Path, *arguments: str) -> str:
    """What `train.py` says before it stops with exit status 1, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.train()
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith("error: "), stopped.value
    assert "Traceback" not in "".join(capsys.readouterr())
    return stopped.value.code


def left(folder: Path) -> dict:
    """What a sweep came to, but for what depends on the clock."""
    found = {}
    for name in sorted(path.parent.name for path in folder.glob("*/run.json")):
        values = record(folder / name)
        kept = {key: values[key] for key in ("status", "metrics", "objective", "steps")}
        best, last = checkpoint(folder / name, "best.ckpt"), checkpoint(folder / name)
        metrics = [{k: v for k, v in row.items() if "time" not in k} for row in rows(folder / name)]
        found[name] = [kept, values["config"]["model"], metrics, best["state_dict"], last["state_dict"]]
    return found


def journal_of(folder: Path) -> tuple[list[list[str]], list]:
    """The overrides with which each trial began, and the results in the order in which they came."""
    head = json.loads((folder / FILE_NAME).read_text().splitlines()[0])
    return head["jobs"], Journal(folder, **head).results


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path, monkeypatch):
    """Whatever a test has started has ended with it, Ray's daemons too."""
    monkeypatch.setenv("NEURO_TEST", mark := str(tmp_path))
    yield
    until = time.monotonic() + 30
    while (found := marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not found


def marked(mark: str) -> list[str]:
    """The processes that were started with this mark in their environment, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"NEURO_TEST={mark}".encode() in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append((path.parent / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The population that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "mark").touch()
    done = command(folder, *POPULATION, "hydra.sweeper.ray.num_cpus=1", timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "sweep", done.stdout


@pytest.mark.slow
def test_a_population_trains_in_generations_and_leaves_hydras_folders(alone):
    folder, said = alone
    assert sorted(path.parents[1].name for path in folder.glob("*/.hydra/overrides.yaml")) == MEMBERS
    values = [record(folder / name) for name in MEMBERS]
    assert [value["status"] for value in values] == ["finished"] * 4
    assert all(value["metrics"]["val/co_bps"] == value["objective"]["value"] for value in values)
    assert all(value["checkpoints"]["epochs"] == 6 for value in values)  # it rested when two generations told enough
    for name, value in zip(MEMBERS, values, strict=True):
        assert value["checkpoints"]["best"] == str(folder / name / "checkpoints" / "best.ckpt")
        assert sorted(path.name for path in (folder / name / "checkpoints").iterdir()) == [
            "best.ckpt", "last.ckpt", "last.previous.ckpt"]  # fmt: skip
        assert [int(row["epoch"]) for row in rows(folder / name) if row["val/co_bps"]] == list(range(6))
    with open(folder / "sweep.csv", newline="") as file:
        assert [row["job"] for row in csv.DictReader(file)] == MEMBERS
    assert said.count("generation ") == 3 and "has not improved over 2 generations" in said
    assert "Ray" not in said and len(said.splitlines()) < 60


@pytest.mark.slow
def test_losers_go_on_from_their_winners_with_values_of_their_own(alone):
    """What each member has at the end is what follows from the journal by the rules."""
    folder, _ = alone
    jobs, results = journal_of(folder)
    began = [{key: float(value) for key, value in (word.split("=") for word in job[-2:])} for job in jobs]
    assert list(began[0]) == ["model.optimizer.lr", "model.input_dropout"]
    space = {"model.optimizer.lr": Interval(1e-3, 1e-1, log=True), "model.input_dropout": Interval(0.0, 0.5)}
    settings = Population(2, 2, patience=2, improvement=1e9, width={"default": 0.2})
    members = [Member(number, values, Start()) for number, values in enumerate(began)]
    generations = Generations(settings, space, members, seed=0, last=20)
    grafted = set()
    for result in results:
        generations.report(result)
        grafted |= {member.number for member in members if member.start.grafted}
    assert generations.over and 2 <= len(grafted) <= 4
    for name, member in zip(MEMBERS, members, strict=True):
        model = record(folder / name)["config"]["model"]
        assert model["optimizer"]["lr"] == member.values["model.optimizer.lr"]
        assert model["input_dropout"] == member.values["model.input_dropout"]
        [state] = checkpoint(folder / name)["optimizer_states"]
        assert state["param_groups"][0]["lr"] == model["optimizer"]["lr"], "and it is in force"


@pytest.mark.slow
def test_a_worker_is_killed_and_then_the_sweep_and_nothing_differs(alone, tmp_path):
    """SIGKILL to the first worker that comes to a step of the second generation, and later to the sweep itself."""
    folder, _ = alone
    journal = tmp_path / "sweep" / FILE_NAME
    with start(tmp_path, *POPULATION) as process:
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() < begun + 240:
            if journal.is_file() and journal.read_bytes().count(b"\n") >= 1 + 6:
                break
            time.sleep(0.05)
        alive = process.poll() is None
        process.kill()
        assert alive, process.communicate()
        process.communicate()
    assert (tmp_path / "mark").exists(), "a worker was killed"
    done = command(tmp_path, "-m", "sweep.resume=sweep", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "from generation 2" in done.stdout
    assert same(left(tmp_path / "sweep"), left(folder))


@contextlib.contextmanager
def head(folder: Path):
    """The address of a cluster's head with one CPU, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    ray += ["--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={80 * 2**20}"]
    with open(folder / "head.log", "w") as log:
        process = subprocess.Popen(ray, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 60
            while "Ray runtime started" not in (said := (folder / "head.log").read_text()):
                assert process.poll() is None and time.monotonic() < until, said
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_halving_on_a_cluster_stops_the_worse_trials_and_gives_up_those_whose_workers_die(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    halving = [
        *TUNE, "hydra/sweeper/scheduler=asha", "hydra.sweeper.scheduler.grace=0.25", "hydra.sweeper.scheduler.factor=2",
        "trainer.max_epochs=8", "hydra.sweeper.max_failures=1",
        "hydra.sweeper.trials=5", "hydra.sweeper.seed=31", "model.hidden=6,7",
        "model.optimizer.lr=tag(log,interval(1e-5,1e-1))",
        "+callbacks.die._target_=dying.DieAlways", "+callbacks.die.hidden=7",
    ]  # fmt: skip
    with head(tmp_path) as address:
        done = command(tmp_path, *halving, f"hydra.sweeper.ray.address={address}", timeout=300)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "sweep"
    results = journal_of(folder)[1]
    last = {result.trial: result for result in results}
    assert len(last) == 5 and sum(result.status == "failed" for result in last.values()) == 1
    for trial, result in last.items():
        values = record(folder / f"{trial}_tiny_gru")
        if values["config"]["model"]["hidden"] == 7:
            assert result.status == "failed" and "its worker died 2 times" in result.error
            assert values["status"] == "failed" and "its worker died" in values["error"]
        else:
            assert result.status == values["status"]
            epochs = values["checkpoints"]["epochs"]
            assert (epochs == 8) == (values["status"] == "finished") and epochs in (2, 4, 8)
            assert (folder / f"{trial}_tiny_gru" / "checkpoints" / "best.ckpt").is_file()
    survivors = [result for result in last.values() if result.status != "failed"]
    assert {result.status for result in survivors} == {"finished", "pruned"}
    for stopped in (result for result in survivors if result.status == "pruned"):
        rivals = [r.score for r in results if r.epochs == stopped.epochs and r.start and r.trial != stopped.trial]
        assert stopped.score < max(rivals)


# ---- what moves in an exploit, without Ray


def test_weights_and_moments_are_the_donors_and_the_rest_is_the_runs_own(tmp_path):
    explore = "++callbacks.explore._target_=neuro_lightning.callbacks.explore.Explore"
    values = ["scheduler@model.scheduler=none", "trainer.max_epochs=8", "model.optimizer.weight_decay=0.02"]
    winner = here(tmp_path / "winner", *values, "sweep.until=2", "model.optimizer.lr=3e-2", "seed=1").folder
    loser = here(
        tmp_path / "loser", *values, "sweep.until=2", "model.optimizer.lr=1e-5", "model.input_dropout=0.1"
    ).folder
    files = [folder / "checkpoints" / "last.ckpt" for folder in (winner, loser)]
    path = graft(*files, loser / "grafted.ckpt")
    import torch

    donor, mine, grafted = (torch.load(file, weights_only=True) for file in (*files, path))
    for part in ("state_dict", "optimizer_states", "loops", "global_step"):
        assert same(grafted[part], donor[part]) and (
            part == "loops" or not same(donor[part], mine[part]) or part == "global_step"
        )
    [key] = [key for key in mine["callbacks"] if key.startswith("Checkpoint")]
    assert same(grafted["callbacks"][key], mine["callbacks"][key])
    assert not same(grafted["callbacks"][key], donor["callbacks"][key])

    moved = [*values, "sweep.until=4", "model.optimizer.lr=7e-3", "model.input_dropout=0.2", f"resume='{path}'"]
    moved += ["model.optimizer.weight_decay=0.05"]
    here(loser, *moved, explore)
    [state] = checkpoint(loser)["optimizer_states"]
    assert state["param_groups"][0]["lr"] == 7e-3 and state["param_groups"][0]["weight_decay"] == 0.05
    assert int(state["state"][0]["step"]) == checkpoint(loser)["global_step"] > donor["global_step"]
    assert checkpoint(loser)["neuro_lightning"]["model"]["input_dropout"] == 0.2
    assert record(loser)["checkpoints"]["best"] == str(loser / "checkpoints" / "best.ckpt")
    assert [int(row["epoch"]) for row in rows(loser) if row["val/co_bps"]] == [0, 1, 2, 3]

    here(tmp_path / "forgetful", *moved)  # without the callback the donor's rate stays
    assert checkpoint(tmp_path / "forgetful")["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-2


def test_a_run_with_no_checkpoint_of_its_own_does_not_take_the_donors_best_for_its_own(tmp_path):
    values = ["scheduler@model.scheduler=none", "trainer.max_epochs=8"]
    winner = here(tmp_path / "winner", *values, "sweep.until=2").folder
    path = graft(winner / "checkpoints" / "last.ckpt", None, tmp_path / "grafted.ckpt")
    other = here(tmp_path / "other", *values, "sweep.until=4", f"resume='{path}'").folder
    assert record(other)["checkpoints"]["best"] == str(other / "checkpoints" / "best.ckpt")


# ---- bad input


def test_what_cannot_be_searched_is_refused_before_anything_starts(monkeypatch, capsys, tmp_path):
    def says(*arguments, plain=False):
        words = [word for word in TUNE if not (plain and word.startswith("model"))]
        return refused(monkeypatch, capsys, tmp_path, *words, *arguments)

    space, pbt = "model.optimizer.lr=interval(1e-4,1e-2)", "hydra/sweeper/scheduler=pbt"
    assert "nothing to search" in says()
    assert "no number lies between" in says("model.optimizer.lr=interval(1e-2,1e-4)")
    assert "whole numbers" in says("model.hidden=tag(int,interval(1.5,4))")
    assert "optimiser" in says("model.optimiser.lr=interval(1e-4,1e-2)")
    assert "colour" in says(space, "+model.colour=1,2")
    assert "scheduler@model.scheduler=none" in says(space, pbt, "trainer.max_epochs=200")
    assert "moves numbers within an interval" in says("model.hidden=4,6", pbt, "scheduler@model.scheduler=none")
    assert "give one number for all" in says("trainer.max_epochs=2,3")
    assert "trials=0" in says(space, "hydra.sweeper.trials=0")
    assert "generation_epoch" in says(space, pbt, "+hydra.sweeper.scheduler.generation_epoch=3")
    assert "this one has none" in says(pbt, "model=fa", "trainer.gradient_clip_val=interval(0.1,1)", plain=True)
    assert {path.name for path in (tmp_path / "sweep").glob("*")} <= {".lock"}


def test_an_address_at_which_no_ray_answers_is_refused_soon(monkeypatch, capsys, tmp_path):
    space = "model.optimizer.lr=interval(1e-4,1e-2)"
    with socket.socket() as closed, socket.socket() as mute, socket.socket() as other:
        for one in (closed, mute, other):
            one.bind(("127.0.0.1", 0))
        mute.listen()
        ports = [one.getsockname()[1] for one in (closed, mute)]
        monkeypatch.setattr("neuro_lightning.sweeps.tune.cluster.PATIENCE_S", 0.5)
        for address in [f"127.0.0.1:{port}" for port in ports]:
            said = refused(monkeypatch, capsys, tmp_path, *TUNE, space, f"hydra.sweeper.ray.address={address}")
            assert f"hydra.sweeper.ray.address={address}: no Ray answers there" in said
    for address in ("somewhere", "ray://head:10001"):
        said = refused(monkeypatch, capsys, tmp_path, *TUNE, space, f"hydra.sweeper.ray.address='{address}'")
        assert f"hydra.sweeper.ray.address={address}: give host:port" in said
    assert {path.name for path in (tmp_path / "sweep").glob("*")} <= {".lock"}


@pytest.mark.parametrize("failures", [2, 3])
def test_a_ray_that_is_slow_to_start_is_started_again(monkeypatch, failures):
    import ray

    from neuro_lightning.errors import ConfigError
    from neuro_lightning.sweeps.tune.cluster import cluster

    calls = []

    def init(**arguments):
        calls.append(arguments["address"])
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    if failures == 3:
        with pytest.raises(ConfigError, match="no Ray could be started on this machine: The current"), cluster():
            pass
    else:
        with cluster() as there:
            assert there == {"CPU": 1.0}
    assert calls == ["local"] * 3


def test_without_ray_the_extra_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(monkeypatch, capsys, tmp_path, *TUNE, "model.optimizer.lr=interval(1e-4,1e-2)")
    assert "neuro_lightning[ray]" in said


def test_a_trial_cannot_ask_for_more_than_there_is():
    from neuro_lightning.errors import ConfigError
    from neuro_lightning.sweeps.tune.cluster import share

    there = {"CPU": 4.0, "GPU": 2.0}
    assert share({"cpu": 2, "gpu": 0.5}, there, "gpu", 1) == {"cpu": 2.0, "gpu": 0.5}
    assert share({"cpu": 1, "gpu": None}, there, "auto", 1) == {"cpu": 1.0, "gpu": 1.0}
    assert share({"cpu": 1, "gpu": None}, there, "cpu", 2) == {"cpu": 1.0, "gpu": 0.0}
    assert share({}, {"CPU": 1.0}, "auto", 1) == {"cpu": 1.0, "gpu": 0.0}
    for asked, name in (({"cpu": 8}, "cpu=8"), ({"gpu": 3}, "gpu=3")):
        with pytest.raises(ConfigError, match=f"resources.{name}"):
            share(asked, there, "gpu", 1)
