"""A population on launchers: generations, copies, workers and sweeps that are killed, and what is refused."""

import contextlib
import csv
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from runs import TINY, checkpoint, command, command_here, here, record, rows, same, start
from test_launchers import children

from neuro_lightning import cli
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.sweeps.population import Population
from neuro_lightning.sweeps.population_sweeper import (
    STATE_FILE,
    PopulationSweeper,
    State,
    merge_checkpoint_state,
    read_state,
    write_state,
)
from neuro_lightning.sweeps.search.space import read_space

TRUSTED = [word.replace("trusted=[tiny]", "trusted=[tiny,dying]") for word in TINY]
SWEEP = ["-m", *TRUSTED, "hydra/sweeper=population", "hydra.sweep.dir=sweep"]
SPACE = ["model.optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.readin.dropout=interval(0.0,0.5)"]
POPULATION = [
    *SWEEP, *SPACE, "hydra.sweeper.n_trials=4", "hydra.sweeper.generation_epochs=2", "hydra.sweeper.burn_in_epochs=2",
    "hydra.sweeper.patience=2", "trainer.max_epochs=20", "hydra.sweeper.improvement=1e9",
    "scheduler@model.scheduler=none", "+callbacks.die._target_=dying.DieOnce", "+callbacks.die.step=15",
    "+callbacks.die.mark=mark",
]  # fmt: skip
MEMBERS = [f"{i}_tiny_gru" for i in range(4)]
PROCESSES = ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"]


def left(folder: Path) -> dict:
    """What a sweep came to, without what depends on the clock."""
    found = {}
    for name in sorted(path.parent.name for path in folder.glob("*/run.json")):
        values = record(folder / name)
        kept = {key: values[key] for key in ("status", "metrics", "objective", "steps")}
        best, last = checkpoint(folder / name, "best.ckpt"), checkpoint(folder / name)
        metrics = [{k: v for k, v in row.items() if "time" not in k} for row in rows(folder / name)]
        found[name] = [kept, values["config"]["model"], metrics, best["state_dict"], last["state_dict"]]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The population that was not interrupted, in one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "mark").touch()
    done = command_here(folder, *POPULATION)
    assert done.returncode == 0, done.stderr
    return folder / "sweep", done.stdout


@pytest.mark.slow
def test_a_population_trains_in_generations_and_leaves_the_usual_folders(alone):
    folder, said = alone
    assert [words in said for words in ("1 of 40", "4 of 40", "12 of 40", "12 of 12")] == [
        True
    ] * 4 and "HYDRA" not in said
    assert sorted(path.parents[1].name for path in folder.glob("*/.hydra/overrides.yaml")) == MEMBERS
    values = [record(folder / name) for name in MEMBERS]
    assert [value["status"] for value in values] == ["finished"] * 4
    assert all(value["metrics"]["val/co_bps"] == value["objective"]["value"] for value in values)
    assert all(value["checkpoints"]["epochs"] == 6 for value in values), "it ended when two generations were enough"
    for name, value in zip(MEMBERS, values, strict=True):
        assert value["checkpoints"]["best"] == str(folder / name / "checkpoints" / "best.ckpt")
        files = sorted(path.name for path in (folder / name / "checkpoints").iterdir())
        assert files == ["best.ckpt", "last.ckpt", "last.previous.ckpt"]
        assert [int(row["epoch"]) for row in rows(folder / name) if row["val/co_bps"]] == list(range(6))
    with open(folder / "sweep.csv", newline="") as file:
        assert [row["job"] for row in csv.DictReader(file)] == MEMBERS
    assert not (folder / ".population").exists()
    assert said.count("generation ") == 3 and "has not improved over 2 generations" in said
    assert len(said.splitlines()) < 60


@pytest.mark.slow
def test_losers_continue_from_their_winners_with_perturbed_values(alone):
    """The members' last values follow from their scores by the rules."""
    folder, _ = alone
    settings = Population(2, 2, patience=2, improvement=1e9, width={"default": 0.2})
    space = read_space({}, SPACE).searched
    curves = [[float(row["val/co_bps"]) for row in rows(folder / name) if row["val/co_bps"]] for name in MEMBERS]
    state = json.loads((folder / STATE_FILE).read_text())
    assert state["best"][-1] == max(curve[-1] for curve in curves) and len(state["best"]) == 3
    for name, values in zip(MEMBERS, state["values"], strict=True):
        model = record(folder / name)["config"]["model"]
        assert model["optimizer"]["lr"] == values["model.optimizer.lr"]
        assert model["readin"]["dropout"] == values["model.readin.dropout"]
        [optimizer] = checkpoint(folder / name)["optimizer_states"]
        assert optimizer["param_groups"][0]["lr"] == model["optimizer"]["lr"], "and it is in force"
    sweeper = PopulationSweeper(4, 0, {}, 2, 2, {}, {"default": 0.2}, 2, 1e9)
    sweeper.space = read_space({}, SPACE)
    values, copied = sweeper._first_values(), set()
    for generation, epoch in ((1, 1), (2, 3)):  # the members' last epochs in each, counted from 0
        scores = [curve[epoch] for curve in curves]
        values, taken = settings.next_values(values, scores, space, f"0, generation {generation}")
        copied |= set(taken)
    assert values == state["values"] and 2 <= len(copied) <= 4


@pytest.mark.slow
def test_a_worker_is_killed_and_then_the_sweep_and_nothing_differs(alone, tmp_path):
    """SIGKILL to the first worker that comes to a step of the second generation, and later to the sweep itself."""
    folder, _ = alone
    state = tmp_path / "sweep" / STATE_FILE
    with start(tmp_path, *POPULATION, *PROCESSES) as process:
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() < begun + 120:
            if (tmp_path / "mark").exists() and state.is_file():
                epochs = [json.loads(path.read_text()).get("status") for path in tmp_path.glob("sweep/*/run.json")]
                if len(json.loads(state.read_text())["best"]) == 1 and "running" in epochs:
                    break
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        workers = children(process.pid)
        process.kill()
        process.wait()
    for worker in workers:  # which would live on for a while
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    assert (tmp_path / "mark").exists(), "a worker was killed"
    done = command(tmp_path, "-m", "sweep.resume=sweep")
    assert done.returncode == 0, done.stderr
    assert "from generation 2" in done.stdout
    assert same(left(tmp_path / "sweep"), left(folder))


@pytest.mark.slow
@pytest.mark.rare
def test_a_population_in_jobs_of_submitit_ends_as_in_one_process(alone, tmp_path):
    folder, _ = alone
    (tmp_path / "mark").touch()
    done = command(tmp_path, *POPULATION, "hydra/launcher=submitit_local", timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("generation ") == 3
    assert same(left(tmp_path / "sweep"), left(folder))


# ---- what is copied


def test_weights_and_moments_are_the_donors_and_the_rest_is_the_runs_own(tmp_path):
    explore = "++callbacks.explore._target_=neuro_lightning.callbacks.explore.Explore"
    values = ["scheduler@model.scheduler=none", "trainer.max_epochs=8", "model.optimizer.weight_decay=0.02"]
    winner = here(tmp_path / "winner", *values, "sweep.until=2", "model.optimizer.lr=3e-2", "seed=1").folder
    lost = ["sweep.until=2", "model.optimizer.lr=1e-5", "model.readin.dropout=0.1"]
    loser = here(tmp_path / "loser", *values, *lost).folder
    files = [folder / "checkpoints" / "last.ckpt" for folder in (winner, loser)]
    path = loser / "merged.ckpt"
    merge_checkpoint_state(*files, path)
    import torch

    donor, mine, merged = (torch.load(file, weights_only=True) for file in (*files, path))
    for part in ("state_dict", "optimizer_states", "loops", "global_step"):
        assert same(merged[part], donor[part])
    assert not same(donor["state_dict"], mine["state_dict"])
    [key] = [key for key in mine["callbacks"] if key.startswith("Checkpoint")]
    assert same(merged["callbacks"][key], mine["callbacks"][key])
    assert not same(merged["callbacks"][key], donor["callbacks"][key])

    moved = [*values, "sweep.until=4", "model.optimizer.lr=7e-3", "model.readin.dropout=0.2", f"resume='{path}'"]
    moved += ["model.optimizer.weight_decay=0.05"]
    here(loser, *moved, explore)
    [state] = checkpoint(loser)["optimizer_states"]
    assert state["param_groups"][0]["lr"] == 7e-3 and state["param_groups"][0]["weight_decay"] == 0.05
    assert int(state["state"][0]["step"]) == checkpoint(loser)["global_step"] > donor["global_step"]
    assert checkpoint(loser)["neuro_lightning"]["model"]["readin"]["dropout"] == 0.2
    assert record(loser)["checkpoints"]["best"] == str(loser / "checkpoints" / "best.ckpt")
    assert [int(row["epoch"]) for row in rows(loser) if row["val/co_bps"]] == [0, 1, 2, 3]

    here(tmp_path / "without", *moved)  # without the callback the donor's rate stays
    assert checkpoint(tmp_path / "without")["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-2


def test_a_run_without_a_checkpoint_of_its_own_does_not_take_the_donors_best_for_its_own(tmp_path):
    values = ["scheduler@model.scheduler=none", "trainer.max_epochs=8"]
    winner = here(tmp_path / "winner", *values, "sweep.until=2").folder
    path = tmp_path / "merged.ckpt"
    merge_checkpoint_state(winner / "checkpoints" / "last.ckpt", tmp_path / "nothing.ckpt", path)
    other = here(tmp_path / "other", *values, "sweep.until=4", f"resume='{path}'").folder
    assert record(other)["checkpoints"]["best"] == str(other / "checkpoints" / "best.ckpt")


# ---- what is refused


def refused(monkeypatch, capsys, folder: Path, *arguments: str) -> str:
    """What `train.py` says before it stops with exit status 1, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.train()
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith("error: "), stopped.value
    assert "Traceback" not in "".join(capsys.readouterr())
    return stopped.value.code


def test_what_a_population_cannot_search_is_refused_before_the_first_job(monkeypatch, capsys, tmp_path):
    def says(*arguments, plain=False):
        words = [word for word in SWEEP if not (plain and word.startswith("model"))]
        return refused(monkeypatch, capsys, tmp_path, *words, *arguments)

    space, constant = "model.optimizer.lr=interval(1e-4,1e-2)", "scheduler@model.scheduler=none"
    assert "nothing to search" in says()
    assert "smaller one" in says("model.optimizer.lr=interval(1e-2,1e-4)")
    assert "optimiser" in says("model.optimiser.lr=interval(1e-4,1e-2)")
    assert "scheduler@model.scheduler=none" in says(space, "trainer.max_epochs=200")
    assert "there is no tournament" in says(space, constant)
    assert "moves numbers within an interval" in says("model.layers=1,2", constant)
    assert "give one number for all" in says("++trainer.max_steps=range(2,9)", constant)
    assert "n_trials=1" in says(space, "hydra.sweeper.n_trials=1")
    assert "generation_epoch" in says(space, "+hydra.sweeper.generation_epoch=3")
    assert "this one has none" in says("model=fa", "trainer.gradient_clip_val=interval(0.1,1)", plain=True)
    assert {path.name for path in (tmp_path / "sweep").glob("*")} <= {".lock"}


def test_the_state_of_a_population_is_read_back_and_another_ones_is_refused(tmp_path):
    path, space, identity = tmp_path / STATE_FILE, read_space({}, ["lr=interval(0.0,1.0)"]), {"rules": "a"}
    assert read_state(path, identity, space, 2) is None
    state = State([{"lr": 0.1}, {"lr": 1e-17}], [1, None], [0.30000000000000004, None])
    write_state(path, identity, state)
    assert read_state(path, identity, space, 2) == state
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    with pytest.raises(ConfigError, match="holds another population"):
        read_state(path, {"rules": "b"}, space, 2)
    for values in ([{"lr": "1 trusted=[os]"}, {"lr": 1.0}], [{"trusted": 1.0}, {"lr": 1.0}], [{"lr": math.nan}] * 2):
        write_state(path, identity, State(values, [1, None], [0.5]))
        with pytest.raises(DataError, match="is damaged"):
            read_state(path, identity, space, 2)
