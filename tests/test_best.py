import shlex
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from runs import ROOT, TINY, command, command_here, record, rows

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.results.best import BEST_FILE, experiment_of, register_experiment_files, write_best

LEFT_OUT = ("seed", "name", "tags", "resume", "sweep", "logger", "paths")


@pytest.fixture(autouse=True)
def own_store():
    """Files that a test registers are gone after it."""
    yield
    ConfigStore.instance().repo.pop("experiment", None)


def composed(*words):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", overrides=list(words), return_hydra_config=True)


def lay(folder, *words):
    """What Hydra leaves in a job's folder."""
    cfg = composed(*words)
    hydra = {"runtime": {"choices": cfg.hydra.runtime.choices}, "overrides": {"hydra": []}}
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"hydra": OmegaConf.to_container(OmegaConf.create(hydra))}),
                   folder / ".hydra" / "hydra.yaml")  # fmt: skip
    OmegaConf.save(without_hydra(cfg), folder / ".hydra" / "config.yaml")
    return without_hydra(cfg)


def without_hydra(cfg):
    return OmegaConf.create({key: cfg._get_node(key) for key in cfg if key != "hydra"})


def setting(cfg):
    return {k: v for k, v in OmegaConf.to_container(cfg, resolve=False).items() if k not in LEFT_OUT}


def done(folder, name, value, *words, data="x", mode="max", status="finished", simulated=True):
    write_json(folder / name / "run.json", {
        "status": status, "overrides": list(words), "data": {"name": data, "simulated": simulated},
        "objective": {"name": "val/co_bps", "value": value, "mode": mode},
    })  # fmt: skip


# ---- written


@pytest.mark.parametrize(
    "words",
    [
        ["model=gru"],
        ["model=ndt", "data=mc_maze", "model.layers=2", "trainer.max_epochs=7", "seed=3", "logger=csv"],
        ["experiment=ndt_ae_small", "data=mc_maze_small", "model.optimizer.lr=0.002", "++model.masking.rate=0.4"],
        ["experiment=uwndc19_winner", "augment@data.augment=[winner,rotation]", "callbacks.early_stopping.patience=9"],
        ["optimizer@model.optimizer=sam", "callbacks/average=ema", "baselines=null", "data.sizes.n_train=16"],
        ["model=core_readout", "data=antolik_v1", "trainer=debug", "scheduler@model.scheduler=none"],
    ],
)
def test_the_text_composes_to_the_jobs_config(tmp_path, words):
    wanted = lay(tmp_path / "job", *words)
    path = tmp_path / BEST_FILE
    path.write_text(f"# @package _global_\n{experiment_of(tmp_path / 'job')}")
    again = without_hydra(composed(*register_experiment_files([f"experiment={path}"])))
    assert setting(again) == setting(wanted)
    assert again.seed == 0 and "seed" not in OmegaConf.load(path)


def test_what_was_deleted_is_null(tmp_path):
    """An experiment config takes nothing away, and what is null is not built."""
    lay(tmp_path, "~model.masking", "~callbacks.figures", "~callbacks/average")
    config = OmegaConf.create(experiment_of(tmp_path))
    assert config == {"model": {"masking": None}, "callbacks": {"figures": None}}


def test_the_text_says_what_was_chosen_and_no_more(tmp_path):
    lay(tmp_path, "model=ndt", "model.layers=2", "scheduler@model.scheduler=none", "logger=csv", "seed=4", "tags=[a]")
    assert OmegaConf.create(experiment_of(tmp_path)) == {
        "defaults": [{"override /model": "ndt"}, {"override /scheduler@model.scheduler": "none"}],
        "model": {"layers": 2},
    }


def test_what_was_varied_is_written_also_where_it_is_the_default(tmp_path):
    """Else a default that changes would change what the file means."""
    lay(tmp_path, "model=gru", "model.layers=2")
    found = OmegaConf.create(experiment_of(tmp_path, varied=["model", "model.layers", "model.optimizer.lr", "nothing"]))
    assert found == {"model": {"layers": 2, "optimizer": {"lr": composed("model=gru").model.optimizer.lr}}}


def test_what_leads_a_job_through_a_search_is_no_part_of_its_setting(tmp_path):
    lay(tmp_path, "sweep.trial=3", "sweep.until=2", "+callbacks.prune._target_=neuro_lightning.callbacks.prune.Prune")
    assert OmegaConf.create(experiment_of(tmp_path)) == {}


def test_the_best_setting_is_that_of_the_best_mean(tmp_path):
    """The best single job is a lucky seed of another setting."""
    scores = {("4", 0): 0.9, ("4", 1): 0.1, ("8", 0): 0.6, ("8", 1): 0.7, ("16", 0): None}
    for number, ((hidden, seed), score) in enumerate(scores.items()):
        name, words = f"{number}_x_gru", ["model=gru", f"model.hidden={hidden}", f"seed={seed}"]
        lay(tmp_path / name, *words)
        done(tmp_path, name, score, *words, status="finished" if score is not None else "failed")
    assert write_best(tmp_path, collect(tmp_path)) == [tmp_path / BEST_FILE]
    text = (tmp_path / BEST_FILE).read_text()
    assert OmegaConf.load(tmp_path / BEST_FILE) == {"model": {"hidden": 8}}
    head = text.splitlines()[:4]
    assert head[0] == "# @package _global_"
    assert head[1] == (
        "# The best setting of a sweep: val/co_bps 0.6500 (mean of 2 jobs, s.e.m. 0.0500) on x (simulated data)"
    )
    assert head[2] == f"# From {tmp_path.name}: 2_x_gru, 3_x_gru" and f"experiment={tmp_path / BEST_FILE}" in head[3]


def test_the_printed_command_is_one_that_a_shell_reads(tmp_path):
    folder = tmp_path / "O'Brien's $1 (b)"
    words = ["model=gru", "model.hidden=4", "seed=0"]
    lay(folder / "0_x_gru", *words)
    done(folder, "0_x_gru", 0.5, *words)
    (path,) = write_best(folder, collect(folder))
    (line,) = (line for line in path.read_text().splitlines() if "python train.py" in line)
    assert shlex.split(line.removeprefix("#"))[-1] == f"experiment={path}"


def test_less_is_better_where_the_objective_is_an_error(tmp_path):
    for number, (hidden, score) in enumerate([(4, 0.5), (8, 0.2)]):
        lay(tmp_path / f"{number}_j", f"model.hidden={hidden}")
        done(tmp_path, f"{number}_j", score, f"model.hidden={hidden}", mode="min", simulated=False)
    write_best(tmp_path, collect(tmp_path))
    assert OmegaConf.load(tmp_path / BEST_FILE).model.hidden == 8
    assert "0.2000 on x (recorded data)" in (tmp_path / BEST_FILE).read_text()


def test_each_dataset_has_its_best(tmp_path):
    for number, (data, hidden, score) in enumerate([("a", 4, 9.0), ("a", 8, 8.0), ("b/c", 4, 0.1), ("b/c", 8, 0.2)]):
        lay(tmp_path / f"{number}_j", f"model.hidden={hidden}")
        done(tmp_path, f"{number}_j", score, f"data={data}", f"model.hidden={hidden}", data=data)
    paths = write_best(tmp_path, collect(tmp_path))
    assert [path.name for path in paths] == ["best_a.yaml", "best_b_c.yaml"]
    assert [OmegaConf.load(path).model.hidden for path in paths] == [4, 8]


def test_nothing_is_written_of_jobs_that_did_not_finish_or_left_no_config(tmp_path):
    done(tmp_path, "0_j", None, "model.hidden=4", status="failed")
    done(tmp_path, "1_j", 0.5, "model.hidden=8", status="pruned")
    assert write_best(tmp_path, collect(tmp_path)) == []
    done(tmp_path, "2_j", 0.5, "model.hidden=9")
    assert write_best(tmp_path, collect(tmp_path)) == []


# ---- read


def test_a_file_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/best.yaml").write_text("# made by hand\n# @package _global_\nseed: 7\n")
    for word in ("experiment=sub/best.yaml", "experiment=./sub/../sub/best.yaml", "experiment='sub/best.yaml'"):
        (found,) = register_experiment_files([word])
        assert found == f"experiment={tmp_path}/sub/best.yaml"
        assert composed(found).seed == 7
    found = register_experiment_files(["-m", "experiment=sub/best.yaml,ndt_ae", "model=gru"])
    assert found == ["-m", f"experiment={tmp_path}/sub/best.yaml,ndt_ae", "model=gru"]
    shutil.copy("sub/best.yaml", "odd = name.yaml")
    (found,) = register_experiment_files(["experiment='odd = name.yaml'"])
    assert found == f"experiment='{tmp_path}/odd = name.yaml'" and composed(found).seed == 7


def test_the_file_is_read_anew_each_time(tmp_path):
    path = tmp_path / "a.yaml"
    for seed in (1, 2):
        path.write_text(f"# @package _global_\nseed: {seed}\n")
        assert composed(*register_experiment_files([f"experiment={path}"])).seed == seed


@pytest.mark.parametrize(
    "word",
    ["experiment=ndt_ae", "experiment=ndt_ae.yaml", "model=a/b.yaml", "data.path=x.yaml", "experiment=null", "-m",
     "--cfg", "experiment", "experiment=glob(*)"],
)  # fmt: skip
def test_other_words_stay_as_they_are(word):
    assert register_experiment_files([word]) == [word]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"experiment=.*a.yaml: no such file; give a path, or the name of one in conf/experiment"),
        ("- 1\n", r"experiment=.*a.yaml: an experiment config maps keys to values"),
        ("a: [", r"experiment=.*a.yaml is not YAML"),
        ("just words", r"experiment=.*a.yaml: an experiment config maps keys"),
        ("", r"experiment=.*a.yaml: an experiment config maps keys"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        register_experiment_files([f"experiment={tmp_path / 'a.yaml'}"])


# ---- both, with train.py


@pytest.mark.slow
def test_the_best_setting_of_a_sweep_trains_again(tmp_path):
    """To the same bit, from another folder; and in the processes of a sweep over its seeds."""
    swept = command_here(tmp_path, "-m", *TINY, "model.hidden=4,5", "hydra.sweep.dir=swept")
    assert swept.returncode == 0, swept.stderr
    path = tmp_path / "swept" / BEST_FILE
    assert f"experiment=swept/{BEST_FILE}" in swept.stdout
    best = next(job["job"] for job in collect(tmp_path / "swept") if job["job"] in path.read_text())

    search = [word for word in TINY if word.startswith(("hydra.searchpath=", "trusted="))]
    text = path.read_text()
    assert "'trusted=[tiny]' experiment=" in text and "\ntrusted" not in text, "the user says it, and no file"
    again = command(tmp_path / "elsewhere", "-m", *search, "experiment=../swept/best.yaml", "seed=0", "logger=csv",
                    "hydra/launcher=processes", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=again")  # fmt: skip
    assert again.returncode == 0, again.stderr
    jobs = collect(tmp_path / "elsewhere" / "again")
    assert [job["status"] for job in jobs] == ["finished"]
    first = tmp_path / "elsewhere" / "again" / jobs[0]["job"]
    assert record(first)["objective"] == record(tmp_path / "swept" / best)["objective"]
    assert rows(first) == rows(tmp_path / "swept" / best)
