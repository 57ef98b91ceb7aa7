"""The command of a search: seeds, retries, resuming after a kill, and what is refused before the first job."""

import csv
import sys
import time
from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.trial import TrialState
from runs import ROOT, TINY, checkpoint, record, same, start

from neuro_lightning import cli
from neuro_lightning.artifacts.studies import open_storage

LR = "model.optimizer.lr=tag(log,interval(1e-3,1e-1))"
BAYES = ["-m", *TINY, "hydra/sweeper=bayes", "hydra.sweep.dir=sweep"]
MORE = ["hydra.sweeper.custom_search_space=test_search.more", "trusted=[tiny,test_search]"]


@pytest.fixture
def search(tmp_path, monkeypatch, capfd):
    """``python train.py -m ...`` in this process and a folder of its own: what it said, and its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[str, object]:
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *arguments])
        status: object = 0
        try:
            cli.train()
        except SystemExit as error:
            status = error.code
        finally:
            GlobalHydra.instance().clear()
        said = capfd.readouterr()
        return said.out + said.err + (status if isinstance(status, str) else ""), status

    return run


def study_of(folder, name="tiny_gru"):
    return optuna.load_study(study_name=name, storage=open_storage(str(folder / "study.journal")))


def outcomes(study):
    """What a study came to, but for times and owners."""
    return [(trial.number, trial.state, trial.params, trial.values) for trial in study.trials]


def table(folder):
    with open(folder / "sweep.csv", newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("seconds", "checkpoint")} for row in found]


def test_a_trials_score_is_the_mean_over_its_seeds(search, tmp_path):
    """Each seed is a job; a first seed that fails spares the others; resumed with other seeds it is another search."""
    words = ["model.layers=choice(1,2)", "data.batch_size=choice(10,0)", "hydra/sweeper/sampler=grid"]
    said, status = search(
        *BAYES, *words, "hydra.sweeper.seeds=2", "seed=3", "trainer.max_epochs=1", "hydra.sweeper.n_trials=4"
    )
    assert status == 0, said
    assert len(study_of(tmp_path / "sweep").trials) == 4, "the grid has no more"
    folder, trials = tmp_path / "sweep", study_of(tmp_path / "sweep").trials
    for trial in trials:
        jobs = sorted(folder.glob(f"{trial.number}_*"))
        if trial.params["data.batch_size"] == 0:
            assert trial.state is TrialState.FAIL and len(jobs) == 1
            continue
        found = [record(job) for job in jobs]
        assert [run["seed"] for run in found] == [3, 4] and jobs[1].name.endswith("_seed4")
        scores = [run["objective"]["value"] for run in found]
        assert trial.value == sum(scores) / 2 and scores[0] != scores[1]
        assert list(trial.intermediate_values.values()) == [pytest.approx(scores[0])], "only the first seed reports"
    rows = [row for row in table(folder) if row["status"] == "finished"]
    assert len(rows) == 4 and all(row["seeds_n"] == "2" and float(row["seeds_sem"]) > 0 for row in rows)
    said, status = search("-m", "sweep.resume=sweep", "hydra.sweeper.seeds=3")
    assert status != 0 and "hydra.sweeper.seeds: 2 there, 3 here" in said, said
    before = outcomes(study_of(folder))
    assert search("-m", "sweep.resume=sweep")[1] == 0
    assert outcomes(study_of(folder))[:4] == before, "nothing is done twice"


def test_a_search_over_models_and_numbers_keeps_study_folders_and_records_together(search, tmp_path):
    """Folders have the trials' numbers; a job that fails is a failed trial, is tried once more, and stops nobody."""
    models = ["model=choice(gru,smoothing)", "hydra.sweeper.sampler.seed=1", "data.batch_size=choice(10,0)"]
    typed = [word for word in BAYES if not word.startswith("model")]
    said, status = search(*typed, *models, "hydra.sweeper.n_trials=6", "hydra/sweeper/sampler=random")
    assert status == 0, said
    folder = tmp_path / "sweep"
    trials = study_of(folder).trials
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert (
        len(trials) == 6 and 0 < len(failed) < 6 and {trial.params["model"] for trial in trials} == {"gru", "smoothing"}
    )
    for trial in trials:
        run = record(folder / f"{trial.number}_tiny_{trial.params['model']}")
        assert run["config"]["data"]["batch_size"] == trial.params["data.batch_size"]
        assert (run["status"], trial.state.name) in {("finished", "COMPLETE"), ("failed", "FAIL")}
        assert trial.value == (run.get("objective") or {}).get("value")
    best = OmegaConf.load(folder / "optimization_results.yaml")
    assert best.best_value == max(trial.value for trial in trials if trial.value is not None)

    said, status = search("-m", "sweep.resume=sweep", "hydra.sweeper.n_jobs=3")
    assert [trial.number for trial in failed] == [0, 3, 4], "their folders are not in a row"
    after = study_of(folder).trials
    assert status == 0 and len(after) == 6 + len(failed), said
    assert [trial.user_attrs["retry_of"] for trial in after[6:]] == [trial.number for trial in failed]
    assert len(list(folder.glob("*/run.json"))) == 6, "each in the folder where it failed"
    assert all(record(folder / trial.user_attrs["job"])["attempts"] == 2 for trial in after[6:])


def test_a_search_resumed_with_other_settings_is_refused(search, tmp_path):
    """Another budget, logger or machine is no other search; other epochs, data or another space are."""
    words = [*BAYES, LR, "trainer.max_epochs=1", "hydra.sweeper.n_trials=1"]
    said, status = search(*words)
    assert status == 0, said
    for word, named in {
        "trainer.max_epochs=2": "trainer.max_epochs: 1 there, 2 here",
        "data.n_train=30": "data.n_train: none there, 30 here",
        "model.optimizer.lr=interval(0,1)": "model.optimizer.lr: tag(log,interval(1e-3,1e-1)) there, interval(0",
        "model.layers=choice(1,2)": "model.layers: none there, choice(1,2) here",
    }.items():
        said, status = search("-m", "sweep.resume=sweep", word)
        assert status != 0 and "another study named tiny_gru" in said and named in said, said
    assert len(list(tmp_path.glob("sweep/*/run.json"))) == 1
    said, status = search("-m", "sweep.resume=sweep", "hydra.sweeper.n_trials=2", "logger=none")
    assert status == 0 and len(study_of(tmp_path / "sweep").trials) == 2, said


@pytest.mark.parametrize("name", ["NSGAII", "NSGAIII"])
def test_genetic_samplers_are_optunas(search, tmp_path, name):
    said, status = search(*BAYES, LR, f"hydra/sweeper/sampler={name.lower()}", "hydra.sweeper.n_trials=1")
    assert status == 0 and len(study_of(tmp_path / "sweep").trials) == 1, said
    sampler = OmegaConf.load(tmp_path / "sweep" / "multirun.yaml").hydra.sweeper.sampler
    assert sampler._target_ == f"optuna.samplers.{name}Sampler" and sampler.population_size == 50


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "nothing to search"),
        (["model.hiden=range(1,3)"], "hiden"),
        (["model=choice(gru,gruu)"], "gruu"),
        ([LR, "hydra.sweeper.n_trials=0"], "n_trials=0"),
        ([LR, "hydra.sweeper.direction=minimize"], "this setting was replaced; give mode=max or mode=min"),
        ([LR, "hydra/sweeper/sampler=grid"], "not an interval"),
        ([LR, "hydra.sweeper.pruner.warmup=7"], "warmup=7"),
        ([LR, "hydra.sweeper.custom_search_space=no.such.thing"], "add trusted=[no]"),
        ([LR, "hydra.sweeper.custom_search_space=tiny.nothing"], "tiny.nothing"),
        ([LR, "model.layers=1", *MORE], "model.layers is fixed"),
        ([LR, "hydra.sweeper.storage=sqlite:////no/such/folder/a.db"], "cannot be opened"),
        ([LR, "seed=0,1"], "a search chooses settings, and a seed is none"),
        ([LR, "hydra.sweeper.seeds=0"], "seeds=0"),
        ([LR, "model.layers=tag(int,interval(1.5,4))"], "whole numbers"),
    ],
)
def test_what_cannot_be_searched_is_one_error_before_the_first_job(search, tmp_path, words, wrong):
    said, status = search(*BAYES, *words)
    assert status not in (0, None) and said.count("error:") == 1 and wrong in said and "Traceback" not in said
    assert not list(tmp_path.glob("sweep/*/run.json"))


def more(config, trial):
    """What a user's own function suggests, by the config."""
    trial.suggest_int("model.layers", config.model.layers + 1, 4)


def test_a_function_of_the_users_suggests_more(search, tmp_path):
    said, status = search(*BAYES, LR, *MORE, "hydra.sweeper.n_trials=1")
    [trial] = study_of(tmp_path / "sweep").trials
    assert status == 0 and trial.params["model.layers"] in (3, 4), said
    assert record(tmp_path / "sweep/0_tiny_gru")["config"]["model"]["layers"] == trial.params["model.layers"]


@pytest.mark.slow
def test_a_search_that_was_killed_and_resumed_equals_an_uninterrupted_one(search, tmp_path):
    """SIGKILL while the third trial trains: the same trials, table and weights."""
    words = [*BAYES, LR, "model.layers=choice(1,2)", "hydra.sweeper.n_trials=4", "trainer.max_epochs=8"]
    words += ["hydra.sweeper.sampler.n_startup_trials=2"]
    killed = tmp_path / "killed"
    with start(killed, *words) as process:
        until = time.monotonic() + 120
        while not (killed / "sweep/2_tiny_gru/checkpoints/last.ckpt").is_file() and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    trials = study_of(killed / "sweep").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert search(*words)[1] == 0
    assert search("-m", f"sweep.resume={killed}/sweep")[1] == 0
    alone, resumed = tmp_path / "sweep", killed / "sweep"
    assert outcomes(study_of(resumed)) == outcomes(study_of(alone))
    assert [trial.intermediate_values for trial in study_of(resumed).trials] == [
        trial.intermediate_values for trial in study_of(alone).trials
    ]
    assert table(resumed) == table(alone) and len(table(alone)) == 4
    for name in (f"{number}_tiny_gru" for number in range(4)):
        assert same(checkpoint(resumed / name)["state_dict"], checkpoint(alone / name)["state_dict"])


@pytest.mark.slow
def test_two_processes_share_one_file_and_its_budget(search, tmp_path):
    words = [*BAYES, LR, "hydra.sweeper.n_trials=7", "hydra/sweeper/pruner=none"]
    with start(tmp_path, *words) as process:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("sweep/*/run.json")) and time.monotonic() < until:
            time.sleep(0.01)
        said, status = search(*words)
        _, error = process.communicate(timeout=120)
    assert status == 0 and process.returncode == 0, said + error
    trials = study_of(tmp_path / "sweep").trials
    assert len(trials) == 7 and all(trial.state is TrialState.COMPLETE for trial in trials)
    assert len({trial.user_attrs["owner"] for trial in trials}) == 2
    assert len({trial.params["model.optimizer.lr"] for trial in trials}) == 7
    for trial in trials:
        run = record(tmp_path / "sweep" / f"{trial.number}_tiny_gru")
        assert run["objective"]["value"] == trial.value
        assert run["config"]["model"]["optimizer"]["lr"] == trial.params["model.optimizer.lr"]


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_both_processes_of_a_trial_train_the_same_configuration(search, tmp_path):
    """Optuna and DDP: the second process would sample other settings if it ran the search."""
    watch = f"+callbacks.watch={{_target_:test_search.Watch,folder:{tmp_path}}}"
    words = ["trainer=ddp_cpu", "trainer.max_epochs=2", "trusted=[tiny,test_search]", "model.layers=choice(1,2)"]
    said, status = search(*BAYES, *words, LR, watch, "hydra.sweeper.n_trials=2")
    assert status == 0, said
    trials = study_of(tmp_path / "sweep").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    for trial in trials:
        seen = [(tmp_path / f"{trial.number}_{rank}.txt").read_text() for rank in (0, 1)]
        assert seen[0] == seen[1]
        lr, layers, folder = seen[0].split()
        assert (float(lr), int(layers)) == (trial.params["model.optimizer.lr"], trial.params["model.layers"])
        assert folder == f"{trial.number}_tiny_gru" and record(tmp_path / "sweep" / folder)["processes"] == 2
    assert len(list((tmp_path / "sweep").glob("*/run.json"))) == 2


class Watch(pl.Callback):
    """Notes what each process of a job trains."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_start(self, trainer, pl_module) -> None:
        job = Path(trainer.checkpoint_callback.dirpath).parent.name
        config = pl_module.recipe["model"]
        text = f"{config['optimizer']['lr']!r} {config['layers']} {job}"
        (Path(self.folder) / f"{job.split('_')[0]}_{trainer.global_rank}.txt").write_text(text)
