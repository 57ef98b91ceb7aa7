"""A trial's validations reach its study, whose pruner ends it; nothing else does."""

import math

import optuna
import pytest
from runs import TINY, checkpoint, here, record, same
from test_search import BAYES, search, study_of  # noqa: F401  a fixture among them

from neuro_lightning.artifacts.studies import open_storage
from neuro_lightning.callbacks.prune import Prune
from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.search import pruners

NAME = "study"


@pytest.fixture
def study(tmp_path):
    """Three good trials, and one to run."""
    made = optuna.create_study(study_name=NAME, storage=open_storage(str(tmp_path / "journal")), direction="maximize")
    for _ in range(3):
        trial = made.ask()
        for epoch in range(3):
            trial.report(0.5, epoch)
        made.tell(trial, 0.5)
    made.ask()
    return made


def prune(tmp_path, **others) -> str:
    given = {"trial": 3, "storage": str(tmp_path / "journal"), "study": NAME, "monitor": "val/co_bps", **others}
    text = ",".join(f"{key}:{value}" for key, value in given.items())
    return f"+callbacks.prune={{_target_:neuro_lightning.callbacks.prune.Prune,{text}}}"


MEDIAN = "{_target_:neuro_lightning.sweeps.search.pruners.median,_partial_:true,warmup:0,startup_trials:1}"


def test_a_hopeless_trial_ends_at_its_first_validation_and_a_good_one_does_not(study, tmp_path):
    bad = here(tmp_path / "bad", prune(tmp_path, pruner=MEDIAN))
    run = record(bad.folder)
    assert run["status"] == "pruned" and run["checkpoints"]["epochs"] == 1
    assert study.trials[3].intermediate_values == {0: pytest.approx(run["objective"]["value"])}
    assert bad.score == run["objective"]["value"] and checkpoint(bad.folder, "best.ckpt")["epoch"] == 0

    good = study.ask()
    better = here(tmp_path / "good", prune(tmp_path, trial=good.number, pruner=MEDIAN), "mode=min")
    assert record(better.folder)["status"] == "pruned", "the study's direction counts, not the run's"
    patient = MEDIAN.replace("warmup:0", "warmup:0.7")
    late = study.ask()
    assert record(here(tmp_path / "late", prune(tmp_path, trial=late.number, pruner=patient)).folder)["status"] == (
        "finished"
    ), "a last validation ends the run anyway"
    assert sorted(study.trials[late.number].intermediate_values) == [0, 1, 2]


def test_without_a_pruner_it_only_reports_and_changes_no_bit(study, tmp_path):
    run = here(tmp_path / "run", prune(tmp_path))
    alone = here(tmp_path / "alone")
    assert record(run.folder)["status"] == "finished" and len(study.trials[3].intermediate_values) == 3
    assert same(checkpoint(run.folder)["state_dict"], checkpoint(alone.folder)["state_dict"])


@pytest.mark.parametrize("where", ["outside", "done", "away"])
def test_a_run_without_a_trial_that_runs_goes_its_way(study, tmp_path, where, caplog):
    """Outside a search, when its trial is over, and when the study cannot be reached."""
    if where == "done":
        study.tell(3, 0.1)
    given = {"outside": {"trial": "null"}, "done": {}, "away": {"study": "gone"}}[where]
    run = here(tmp_path / "run", prune(tmp_path, pruner=MEDIAN, **given))
    assert record(run.folder)["status"] == "finished" and study.trials[3].intermediate_values == {}
    assert ("cannot be reached" in caplog.text) == (where == "away")


def test_what_was_reported_before_a_resume_is_not_reported_again(study, tmp_path):
    """The journal says the same step once, also when the run falls back to a checkpoint before it."""
    here(tmp_path / "run", prune(tmp_path), "sweep.until=2")
    study._storage.set_trial_intermediate_value(study.trials[3]._trial_id, 2, 0.125)  # reported, and then killed
    resumed = here(tmp_path / "run", prune(tmp_path), f"resume={tmp_path}/run/checkpoints/last.ckpt")
    assert record(resumed.folder)["status"] == "finished"
    values = study.trials[3].intermediate_values
    assert sorted(values) == [0, 1, 2] and values[2] == 0.125


def test_a_score_that_is_no_number_ends_the_trial_and_never_becomes_one(study, tmp_path):
    run = here(
        tmp_path / "run", prune(tmp_path, pruner=MEDIAN), "model.optimizer.lr=1e30", "trainer.gradient_clip_val=0"
    )
    reported = study.trials[3].intermediate_values
    assert reported and all(math.isnan(value) for value in reported.values())
    assert record(run.folder)["objective"]["value"] is None and record(run.folder)["checkpoints"]["epochs"] == 1


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_two_processes_stop_together(study, tmp_path):
    run = here(tmp_path / "run", prune(tmp_path, pruner=MEDIAN), "trainer=ddp_cpu", "trainer.max_epochs=3",
               "trainer.check_val_every_n_epoch=1")  # fmt: skip
    assert record(run.folder)["status"] == "pruned" and record(run.folder)["processes"] == 2
    assert len(study.trials[3].intermediate_values) == 1


@pytest.mark.slow
def test_a_search_stops_its_bad_trials_early(search, tmp_path):  # noqa: F811
    """A learning rate at which nothing is learned costs a few epochs, and is told as pruned."""
    words = ["model.optimizer.lr=choice(0.05,1e-9)", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=5"]
    words += ["trainer.max_epochs=12", "hydra.sweeper.pruner.startup_trials=2", "hydra.sweeper.sampler.seed=3"]
    said, status = search(*BAYES, *words)
    assert status == 0, said
    trials = study_of(tmp_path / "sweep").trials
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned and {trial.params["model.optimizer.lr"] for trial in pruned} == {1e-9}
    for trial in pruned:
        run = record(tmp_path / "sweep" / trial.user_attrs["job"])
        assert run["status"] == "pruned" and run["checkpoints"]["epochs"] < 12
        assert len(trial.intermediate_values) == run["checkpoints"]["epochs"]
    assert study_of(tmp_path / "sweep").best_params == {"model.optimizer.lr": 0.05}


# ---- pruners


def judged(pruner, curves, own):
    """Whether a pruner ends the last curve, at each of its epochs."""
    study = optuna.create_study(study_name=NAME, direction="maximize", pruner=pruner)
    for curve in curves:
        trial = study.ask()
        for epoch, value in enumerate(curve):
            trial.report(value, epoch)
            trial.should_prune()
        study.tell(trial, curve[-1])
    trial, found = study.ask(), []
    for epoch, value in enumerate(own):
        trial.report(value, epoch)
        found.append(trial.should_prune())
    return found


CURVES = [[0.1 * epoch + 0.01 * n for epoch in range(8)] for n in range(6)]


def test_the_median_waits_for_its_warmup_and_its_first_trials():
    bad = [-1.0] * 8
    assert judged(pruners.median(8, warmup=0.5, startup_trials=3), CURVES, bad) == [False] * 4 + [True] * 4
    assert not any(judged(pruners.median(8, warmup=0.0, startup_trials=7), CURVES, bad))
    middle = CURVES[2]
    assert any(judged(pruners.median(8, warmup=0.0), CURVES, middle))
    assert not any(judged(pruners.median(8, warmup=0.0, percentile=90), CURVES, middle))


@pytest.mark.filterwarnings("ignore:PatientPruner is experimental")
def test_the_patient_one_stops_none_that_improves():
    rising = [-1.0 + 0.01 * epoch for epoch in range(8)]
    assert not any(judged(pruners.patient(8, patience=2, warmup=0.0), CURVES, rising))
    assert judged(pruners.patient(8, patience=2, warmup=0.0), CURVES, rising[::-1])[-1]


def test_rungs_keep_the_best_trials():
    halving, hyperband = pruners.halving(8, first=0.125, reduction=2), pruners.hyperband(8, first=0.125, reduction=2)
    assert judged(halving, CURVES, [-1.0] * 8)[:2] == [False, True], "the first rung is an eighth of eight epochs"
    assert not any(judged(halving, CURVES, [2.0] * 8))
    assert any(judged(hyperband, CURVES * 4, [-1.0] * 8)) and not any(judged(hyperband, CURVES * 4, [2.0] * 8))


def test_bad_settings_name_their_key():
    with pytest.raises(ConfigError, match=r"pruner\.warmup=2"):
        pruners.median(8, warmup=2)
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=-1"):
        pruners.hyperband(-1)
    assert Prune(None, "nowhere", "none", "val/co_bps").ended is None and TINY
