"""The study of a search: sampled anew after an interruption, in any storage, and shared by processes."""

import subprocess
import sys

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState
from runs import ROOT

from neuro_lightning.artifacts.studies import open_storage
from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.search.owner import Owner
from neuro_lightning.sweeps.search.space import read_space
from neuro_lightning.sweeps.search.study import SeededSampler, open_study
from neuro_lightning.sweeps.search.trials import Trials

OF = {"monitor": "val/co_bps", "data": "tiny"}


def opened(path, seed=0, **others):
    build = others.pop("build", lambda s: TPESampler(seed=s, n_startup_trials=3, multivariate=True))
    sampler = SeededSampler(build, seed)
    return open_study(str(path), "name", mode="max", sampler=sampler, pruner=None, of=OF | others)[0]


SEARCHED = read_space({}, ["x=interval(-1,1)", "k=choice(1,2,3)"]).searched


def ask_and_tell(study):
    trial = study.ask(SEARCHED)
    study.tell(trial, -((trial.params["x"] - 0.3) ** 2) + trial.params["k"])
    return trial.params


@pytest.mark.parametrize("sampler", [TPESampler, RandomSampler])
def test_a_study_opened_anew_for_every_trial_is_the_study_left_open(tmp_path, sampler):
    def build(seed):
        return sampler(seed=seed)

    whole = opened(tmp_path / "whole", build=build)
    left = [ask_and_tell(whole) for _ in range(14)]
    anew = [ask_and_tell(opened(tmp_path / "anew", build=build)) for _ in range(14)]
    assert anew == left and len({str(params) for params in left}) == 14
    other = opened(tmp_path / "other", seed=1, build=build)
    assert [ask_and_tell(other) for _ in range(14)] != left


def test_a_storage_of_another_study_is_refused_naming_what_differs(tmp_path):
    opened(tmp_path / "study", x="interval(0,1)")
    opened(tmp_path / "study", x="interval(0,1)")
    with pytest.raises(ConfigError, match=r"another study named name") as caught:
        opened(tmp_path / "study", x="interval(0,2)", data="other")
    assert "x: interval(0,1) there, interval(0,2) here" in str(caught.value)
    assert "data: tiny there, other here" in str(caught.value) and "monitor" not in str(caught.value)
    strange = optuna.create_study(study_name="strange", storage=open_storage(str(tmp_path / "study")))
    strange.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ConfigError, match="monitor: none there, val/co_bps here"):
        open_study(str(tmp_path / "study"), "strange", mode="min", sampler=RandomSampler(), pruner=None, of=OF)


@pytest.mark.parametrize(
    "where", ["sqlite:////no/such/folder/a.db", "postgresql://me:secret@127.0.0.1:1/x", "what://x"]
)
def test_a_storage_that_cannot_be_reached_is_one_line_without_its_password(where):
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.storage=") as caught:
        open_study(where, "name", mode="max", sampler=RandomSampler(), pruner=None, of=OF)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_storage_whose_package_is_missing_names_it(monkeypatch):
    import sqlalchemy

    def missing(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")

    monkeypatch.setattr(sqlalchemy.engine, "create_engine", missing)
    with pytest.raises(ConfigError, match=r"needs a package that is not installed: psycopg2"):
        open_storage("postgresql://me:secret@127.0.0.1:1/x")


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "study").write_text("not\na\njournal\n")
    with pytest.raises(ConfigError, match="cannot be opened"):
        opened(tmp_path / "study")
    with pytest.raises(ConfigError, match="cannot be opened"):
        opened(tmp_path)


def test_a_journal_with_a_torn_last_line_can_be_continued(tmp_path):
    """As a power cut leaves it; Optuna would glue the next line to the torn one, and read it never again."""
    ask_and_tell(opened(tmp_path / "study"))
    whole = (tmp_path / "study").read_bytes()
    (tmp_path / "study").write_bytes(whole + b'{"op_code":4,"work')
    assert len(opened(tmp_path / "study").trials) == 1
    ask_and_tell(opened(tmp_path / "study"))
    assert len(opened(tmp_path / "study").trials) == 2


@pytest.mark.parametrize("where", ["{}/study", "sqlite:///{}/study.db"])
def test_any_storage_holds_the_same_study(tmp_path, where):
    study = opened(where.format(tmp_path))
    assert ask_and_tell(study) == ask_and_tell(opened(tmp_path / "another"))
    assert opened(where.format(tmp_path)).trials[0].params == study.trials[0].params


# ---- who runs which trial


def trials_of(folder, n_trials=3, **others):
    owner = Owner(folder)
    study = opened(folder / "study")
    return Trials(study, open_storage(str(folder / "study")), SEARCHED, n_trials, owner, **others), owner


def test_a_killed_owner_has_ended_and_a_running_one_has_not(tmp_path):
    program = (
        "import sys, time; from neuro_lightning.sweeps.search.owner import Owner;"
        "o = Owner(sys.argv[1]); print(o.name, flush=True); time.sleep(60)"
    )
    us = Owner(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        name = process.stdout.readline().strip()
        alive = us.has_ended(name)
        process.kill()
    assert not alive and us.has_ended(name)
    assert not us.has_ended(us.name) and not us.has_ended("of_another_folder") and not us.has_ended(None)


def test_trials_of_a_killed_process_run_first(tmp_path):
    """Under their numbers and with their values, also when it died before it had noted whose they are."""
    died, owner = trials_of(tmp_path)
    first = died.next(1)[0]
    died.study.ask()  # nobody's
    owner.close()
    left, owner = trials_of(tmp_path)
    batch = left.next(3)
    assert [trial.number for trial in batch] == [0, 1, 2] and batch[0].params == first.params
    assert batch[1].params.keys() == SEARCHED.keys()
    assert left.next(1) == [], "the study has as many as it is to have"
    shared, _ = trials_of(tmp_path)
    assert shared.next(1) == [], "their owner lives"
    owner.close()
    assert [trial.number for trial in shared.next(9)] == [0, 1, 2]


def test_two_machines_together_run_no_more_than_n_trials(tmp_path, monkeypatch):
    """Between counting and asking the other one has asked: the trial beyond the budget never runs."""
    trials, _ = trials_of(tmp_path, n_trials=2, private=False)
    count = trials._counted

    def late(before=None):
        if before is None:
            trials.study.ask()
            return 1
        return count(before)

    assert len(trials.next(1)) == 1
    monkeypatch.setattr(trials, "_counted", late)
    assert trials.next(1) == []
    monkeypatch.undo()
    assert [trial.state.name for trial in trials.study.trials] == ["RUNNING", "RUNNING", "FAIL"]
    assert trials.next(1) == [] and trials._counted() == 2


def test_the_study_is_told_how_each_job_ended(tmp_path):
    """A score is a score, and nothing else is: no number stands for a failure."""
    trials, owner = trials_of(tmp_path, n_trials=5)
    given = trials.next(5)
    given[1].report(0.25, 3)
    told = [
        {"status": "finished", "objective": {"value": 0.5}},
        {"status": "pruned", "objective": {"value": 0.25}},
        {"status": "diverged", "objective": {"value": None}},
        {"status": "failed", "error": "RuntimeError: no luck\nat all"},
        {"status": "finished", "objective": {"value": None}},
    ]
    said = [trials.tell(trial, told, f"job{trial.number}") for trial, told in zip(given, told, strict=True)]
    assert said == ["finished", "pruned", "diverged", "failed", "diverged"]
    states = [trial.state for trial in trials.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, *[TrialState.FAIL] * 3]
    assert [trial.value for trial in trials.study.trials] == [0.5, 0.25, None, None, None]
    assert trials.study.trials[3].user_attrs["error"] == "RuntimeError: no luck"
    assert trials.next(5) == [], "the same process does not try again"
    owner.close()

    again, owner = trials_of(tmp_path, n_trials=5)
    [retry] = again.next(5)
    assert retry.user_attrs["retry_of"] == 3 and retry.params == given[3].params
    again.tell(retry, {"status": "failed", "error": "again"}, "job3")
    owner.close()
    last, _ = trials_of(tmp_path, n_trials=6)
    [new] = last.next(9)
    assert new.number == 6 and "retry_of" not in new.user_attrs, "tried once more, and not counted twice"
