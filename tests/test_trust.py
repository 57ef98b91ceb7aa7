"""Files that somebody else wrote set no trust, no environment and no commands, and write no secrets down."""

import json
import os
import shutil
import subprocess
from contextvars import ContextVar
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from runs import command_here, here

from neuro_lightning.artifacts.records import git_state
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.prediction import data_for_checkpoint
from neuro_lightning.runs.resume import resume_arguments
from neuro_lightning.settings import overrides
from neuro_lightning.settings.config import to_plain
from neuro_lightning.settings.overrides import (
    add_trusted_packages,
    check_environment,
    check_keys,
    check_launcher,
    check_trusted,
    config_folders_from_file,
    must_be_typed,
    overrides_from_file,
    trusted_override,
)
from neuro_lightning.settings.registry import HYDRA_NAMES
from neuro_lightning.sweeps.arguments import sweep_arguments
from neuro_lightning.sweeps.checks import check_jobs
from neuro_lightning.sweeps.results.best import register_experiment_files

# ---- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return here(tmp_path_factory.mktemp("run"), "trainer.max_epochs=1").folder / "checkpoints" / "best.ckpt"


def changed(trained, path, key, value):
    content = torch.load(trained, weights_only=True)
    recipe = content["neuro_lightning"]
    place = recipe
    for part in key.split(".")[:-1]:
        place = place[part]
    place[key.split(".")[-1]] = value
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model._target_", "pytorch_lightning.cli.instantiate_class", "is none of the classes"),
        ("model._target_", "my_lab.Net", r"add trusted=\[my_lab\] on the command line"),
        ("model._target_", "torch.optim.Adam", "Adam is no PopulationModule"),
        ("model._target_", "neuro_lightning.data.nwb.datamodule.NWB", "nothing that model is made of"),
        ("model.optimizer", {"_target_": "neuro_lightning.artifacts.records.git_state"}, "is none of the classes"),
        ("model.masking", {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "."}, "nothing that model"),
        ("model.masking", {"_target_": "torch.load", "f": "x", "weights_only": False}, "is none of the classes"),
        ("model.hiden", 3, "(?s)takes no such argument.*a newer version may have written it"),
        ("model.hidden", "${oc.env:HOME}", "model.hidden: an interpolation"),
        ("model._args_", [1], "no config may have this key"),
        ("model", "gru", "no config with a _target_"),
        ("model", None, "no config with a _target_"),
    ],
)
def test_a_checkpoint_builds_models_only(trained, tmp_path, key, value, message):
    with pytest.raises((ConfigError, CheckpointError), match=message) as caught:
        load_checkpoint(changed(trained, tmp_path / "a.ckpt", key, value), trusted=["tiny"])
    assert "a.ckpt" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data._target_", "shutil.rmtree", "not in a trusted package"),
        ("data._target_", "neuro_lightning.models.gru.GRU", "nothing that data is made of"),
        ("data._target_", "tiny.Kill", "Kill is no PopulationDataModule"),
        ("data.poison", {"a": {"_target_": "torch.nn.Identity"}}, "nothing that data is made of"),
        ("data.poison", {"a": "${oc.env:HOME}"}, "data.poison.a: an interpolation"),
        ("data.trusted", ["shutil"], "takes no such argument"),
    ],
)
def test_a_checkpoint_builds_no_other_data(trained, tmp_path, key, value, message):
    saved = load_checkpoint(changed(trained, tmp_path / "a.ckpt", key, value), trusted=["tiny"])
    with pytest.raises(ConfigError, match=message):
        data_for_checkpoint(saved, {}, ["tiny"])


def test_a_resumed_run_deletes_nothing_but_its_own_checkpoints(tmp_path):
    """Which file the best one before was is said by the checkpoint that is resumed."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    from neuro_lightning.callbacks.checkpoint import Checkpoint

    assert hasattr(ModelCheckpoint, "_should_remove_checkpoint"), "Lightning asks another method what it may delete"
    folder, trainer = tmp_path / "run" / "checkpoints", SimpleNamespace(ckpt_path=None)
    for other in (tmp_path / "precious", folder / "folder.ckpt"):
        other.mkdir(parents=True)
    checkpoints = Checkpoint(dirpath=folder)
    for name in ("old.ckpt", "../checkpoints/old.ckpt"):
        assert checkpoints._should_remove_checkpoint(trainer, str(folder / name), str(folder / "new.ckpt"))
    for name in ("../../precious", "../../precious/a.ckpt", "folder.ckpt", "notes.txt", "..", "new.ckpt"):
        assert not checkpoints._should_remove_checkpoint(trainer, str(folder / name), str(folder / "new.ckpt")), name
    for name in ("s3://bucket/a.ckpt", "file:///precious.ckpt", "memory://a.ckpt"):
        assert not checkpoints._should_remove_checkpoint(trainer, name, str(folder / "new.ckpt"))


# ---- words of a run's folder, a sweep's, a study


@pytest.mark.parametrize(
    "word",
    [
        "trusted=[shutil]", "+trusted=[shutil]", "++trusted.0=shutil", "trusted[0]=shutil", "~trusted",
        "paths@trusted=x",
        "hydra.job.env_set.LD_PRELOAD=a.so", "+hydra.job.env_set={GIT_CONFIG_COUNT:1}", "hydra.job={env_set:{A:b}}",
        "hydra.callbacks.x._target_=os.system", "hydra.job_logging.root=x", "hydra.hydra_logging.handlers.a.class=x",
        "hydra.launcher.setup=[evil]", "hydra.launcher={setup:[evil]}", "hydra.launcher.remote.runtime_env.pip=[evil]",
        "hydra.launcher.address=evil:6379", "hydra.searchpath=[pkg://evil]",
        "hydra.launcher._target_=x.Y", "--experimental-rerun=evil.pickle", "--config-dir=evil", "-m",
    ],
)  # fmt: skip
def test_what_decides_which_code_runs_is_typed(tmp_path, word):
    assert must_be_typed(word)
    with pytest.raises(ConfigError, match="type them again") as caught:
        overrides_from_file(["model=gru", word], ["resume=there"], "there")
    assert word.split("=")[-1].strip("[]") in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert overrides_from_file(["model=gru", word], [word], "there") == ["model=gru"], "the typed one stays alone"


@pytest.mark.parametrize(
    "word",
    ["model=gru", "trainer.max_epochs=3", "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "seed=0,1",
     "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=3", "hydra/sweeper=bayes", "hydra.sweep.dir=a",
     "hydra.searchpath=[file://./my_conf]", "hydra.run.dir=a", "data.path=trusted.nwb", "model.trusted_only=1"],
)  # fmt: skip
def test_settings_may_come_from_a_file(word):
    assert overrides_from_file([word], [], "there") == [word]


def test_a_resumed_run_is_trusted_anew(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("- model=linear\n- trusted=[my_lab]\n")
    with pytest.raises(ConfigError, match=r"type them again, 'trusted=\[my_lab\]'"):
        resume_arguments([f"resume={tmp_path}"])
    found = resume_arguments([f"resume={tmp_path}", "trusted=[my_lab]"])
    assert found[:2] == ["model=linear", "trusted=[my_lab]"]


def test_a_resumed_sweep_is_trusted_anew(tmp_path):
    before = {"hydra": ["hydra.launcher.setup=[touch HARM]"], "task": ["model=linear", "trusted=[my_lab]"]}
    (tmp_path / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": before}}))
    resumed = ["-m", f"sweep.resume={tmp_path}"]
    with pytest.raises(ConfigError, match=r"'hydra.launcher.setup=\[touch HARM\]' 'trusted=\[my_lab\]'"):
        sweep_arguments(resumed)
    found = sweep_arguments([*resumed, "trusted=[my_lab]", "hydra.launcher.setup=null"])
    assert found[1:4] == ["model=linear", "trusted=[my_lab]", "hydra.launcher.setup=null"]


def test_configs_that_a_sweeps_folder_names_bring_no_commands(monkeypatch):
    preset = {"setup": None, "srun_args": ["--kill-on-bad-exit=1"], "additional_parameters": {"requeue": True}}
    evil = {**preset, "setup": ["touch HARM"]}

    def check(launcher, *words):
        check_launcher(OmegaConf.create({"launcher": launcher, "overrides": {"hydra": words}}))

    where = "hydra.searchpath=[file://theirs]"
    assert config_folders_from_file([where, "seed=1"], []) == [where]
    monkeypatch.setattr(overrides, "CONFIG_FOLDERS", ContextVar("folders", default=(where,)))
    check(preset, where)
    check(evil, where, "hydra.launcher.setup=[touch HARM]")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.setup is of configs .* type hydra\.searchpath="):
        check(evil, where)
    monkeypatch.setattr(overrides, "CONFIG_FOLDERS", ContextVar("folders", default=("model=../../theirs",)))
    with pytest.raises(ConfigError, match="type model="):
        check(evil)
    assert config_folders_from_file(["model=../../theirs"], []) == ["model=../../theirs"]
    assert not config_folders_from_file([where], [where])  # the user's own configs
    monkeypatch.undo()
    check(evil, where)


def test_configs_that_a_sweeps_folder_names_choose_our_launchers_only():
    from hydra.core.plugins import Plugins

    from neuro_lightning.cli import _register_plugins

    known = Plugins.instance().class_name_to_class
    before = dict(known)
    with _register_plugins(["hydra.searchpath=[file://theirs]"]):
        left = dict(known)
    assert known == before  # a sweep that this process runs next has all launchers again
    assert "neuro_lightning.sweeps.launchers.Slurm" in left and "neuro_lightning.sweeps.grid.Grid" in left
    gone = set(before) - set(left)
    assert any(name.startswith("hydra_plugins.") for name in gone) and not any(".launchers." in name for name in gone)


def test_the_command_that_resumes_says_whom_to_trust(monkeypatch):
    monkeypatch.delenv("NEURO_TRUSTED", raising=False)
    assert trusted_override(["a", "b"]) == " 'trusted=[a,b]'"
    assert trusted_override([]) == trusted_override(None) == ""


def test_the_environment_variable_is_as_good_as_typed(monkeypatch):
    monkeypatch.setenv("NEURO_TRUSTED", "my_lab, other")
    assert add_trusted_packages(["-m", "seed=0,1"]) == ["-m", "trusted=[my_lab,other]", "seed=0,1"]
    assert add_trusted_packages(["--cfg", "job"]) == ["--cfg", "job", "trusted=[my_lab,other]"]
    assert add_trusted_packages(["trusted=[a]", "seed=0"]) == ["trusted=[a]", "seed=0"]
    monkeypatch.delenv("NEURO_TRUSTED")
    assert add_trusted_packages(["seed=0"]) == ["seed=0"]


def test_a_space_that_a_file_brings_has_no_such_keys():
    config = OmegaConf.create({"hydra": {"sweeper": {"params": {"+trusted": "[shutil]"}}}})
    with pytest.raises(ConfigError, match=r"hydra.sweeper.params: \+trusted is never taken from a file"):
        check_jobs(None, config, [["+trusted=[shutil]"]])
    with pytest.raises(ConfigError, match=r"trial 3 of study: hydra\.job\.env_set\.A"):
        check_keys({"model.hidden": 3, "hydra.job.env_set.A": "b"}, "trial 3 of study")


def test_a_trial_of_somebodys_study_has_no_such_keys():
    from neuro_lightning.sweeps.search.sweeper import Search

    search = Search(1, 1, None, None, "study.journal", "a", None, None, None)
    search.space = SimpleNamespace(overrides=lambda params: [], fixed=[])
    with pytest.raises(ConfigError, match=r"trial 0 of study\.journal: trusted is never taken"):
        search._job(SimpleNamespace(params={"trusted": "[shutil]"}, number=0), 0, 0)
    for name in ("neuro_lightning.artifacts.records.git_state", "shutil.rmtree"):
        search.custom_search_space, search.config = name, OmegaConf.create({"trusted": []})
        with pytest.raises(ConfigError, match="custom_search_space"):
            search._extension()


def test_a_composed_config_trusts_what_was_typed():
    check_trusted([], ["model=gru"])
    check_trusted(["my_lab"], ["model=gru", "trusted=[my_lab]"])
    with pytest.raises(ConfigError, match=r"trusted is set in a file.*'trusted=\[shutil\]'"):
        check_trusted(["shutil"], ["model=gru"])
    check_environment({"A": "b"}, ["hydra.job.env_set.A=b"])
    with pytest.raises(ConfigError, match=r"hydra.job.env_set is set in a file \(GIT_CONFIG_COUNT\)"):
        check_environment({"GIT_CONFIG_COUNT": "1"}, ["hydra.run.dir=a"])


# ---- experiments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trusted: [shutil]", "trusted is never taken from a file"),
        ("hydra: {job: {env_set: {LD_PRELOAD: a.so}}}", "hydra.sweeper.params only"),
        ("hydra: {sweeper: {params: {a: '1'}}, callbacks: {x: {_target_: os.system}}}", "hydra.sweeper.params only"),
        ("hydra: {launcher: {setup: [touch HARM]}}", "hydra.sweeper.params only"),
        ("hydra: {sweeper: {custom_search_space: os.system}}", "hydra.sweeper.params only"),
        ("hydra: [1]", "hydra must map keys to values|hydra.sweeper.params only"),
        ("# @package hydra\ncallbacks: {x: {_target_: os.system}}", "no place for an experiment"),
        ("# @package hydra.job.env_set\nLD_PRELOAD: a.so", "no place for an experiment"),
        ("paths: {output_dir: elsewhere}", "paths.output_dir says where files are written"),
        ("callbacks: {checkpoint: {dirpath: elsewhere}}", "callbacks.checkpoint.dirpath says where files are written"),
        ("defaults: [/../../tmp/evil]", "defaults name options of conf/"),
        ("defaults: [/masking@hydra.job.env_set: random]", "defaults name options of conf/"),
        ("model: !!python/object/apply:os.system [touch HARM]", "is not YAML"),
        ("model: !evil {a: 1}", "is not YAML"),
    ],
)
def test_an_experiment_is_settings(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text if text.startswith("#") else f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        register_experiment_files(["experiment=a.yaml"])
    assert len(str(caught.value).splitlines()) == 1 and os.listdir(tmp_path) == ["a.yaml"]


@pytest.mark.slow
def test_an_experiment_of_a_config_folder_sets_no_trust_and_no_environment(tmp_path, monkeypatch):
    """Such a file may say more than one named by its path; nothing of it has happened when it is refused."""
    monkeypatch.setenv("NEURO_TRUSTED", "")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    target = tmp_path / "precious"
    target.mkdir()
    texts = {
        "trust": f"trusted: [shutil]\ncallbacks: {{x: {{_target_: shutil.rmtree, path: {target}}}}}",
        "environment": "hydra: {job: {env_set: {GIT_CONFIG_COUNT: '1'}}}",
        "callback": "hydra: {callbacks: {x: {_target_: neuro_lightning.artifacts.records.git_state}}}",
    }
    says = {"trust": "trusted is set in a file", "environment": "env_set is set in a file", "callback": "git_state"}
    for name, text in texts.items():
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
        words = ["hydra.searchpath=[file://conf]", f"experiment={name}", "logger=csv", "hydra.run.dir=out"]
        done = command_here(tmp_path, *words)
        assert done.returncode != 0 and says[name] in done.stderr, done.stderr
        assert target.is_dir() and not (tmp_path / "out/run.json").exists()


# ---- Hydra's own part


@pytest.mark.parametrize(
    "handler",
    [
        {"()": "os.system", "command": "touch HARM"},
        {"()": "neuro_lightning.artifacts.records.git_state"},
        {"()": "hydra.utils.instantiate", "config": {"_target_": "os.system"}},
        {"class": "logging.handlers.SocketHandler", "host": "evil", "port": 1},
        {"class": "logging.StreamHandler", "stream": "ext://os.environ"},
        {"class": "logging.StreamHandler", "stream": "ext://neuro_lightning.artifacts.records.subprocess"},
    ],
)
def test_hydras_logging_makes_known_handlers_only(tmp_path, monkeypatch, handler):
    from hydra.core.utils import configure_log

    monkeypatch.chdir(tmp_path)
    config = {"version": 1, "handlers": {"a": handler}, "root": {"handlers": ["a"]}, "disable_existing_loggers": False}
    with pytest.raises(Exception, match=r"[Ww]hitelist|Unable to configure|authoriz"):
        configure_log(OmegaConf.create(config), execution_whitelist=list(HYDRA_NAMES))
    assert not list(tmp_path.iterdir())


def test_hydras_callbacks_are_known():
    from hydra._internal.callbacks import Callbacks

    for name in (
        "neuro_lightning.artifacts.records.git_state",
        "hydra.utils.instantiate",
        "os.system",
        "logging.FileHandler",
    ):
        config = OmegaConf.create({"hydra": {"callbacks": {"x": {"_target_": name}}}})
        with execution_whitelist(HYDRA_NAMES), pytest.raises(Exception, match=name.rpartition(".")[2]):
            Callbacks(config)


# ---- the environment and git


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "NEURO_API_KEY", "GITHUB_TOKEN", "X"])
def test_no_secret_is_read(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    for text in (f"${{oc.env:{name}}}", f"a${{oc.env:{name},b}}", f"${{oc.decode:${{oc.env:{name}}}}}"):
        with pytest.raises(ConfigError, match="could write a secret") as caught:
            to_plain(OmegaConf.create({"data": {"path": text}}))
        assert "hunter2" not in str(caught.value)


def test_other_variables_are_read(monkeypatch):
    monkeypatch.setenv("NEURO_DATA", "/data")
    monkeypatch.delenv("NEURO_CACHE", raising=False)
    texts = {"a": "${oc.env:NEURO_DATA,x}", "b": "${oc.env:NEURO_CACHE,${.a}/cache}", "c": "${oc.env:HOME}"}
    assert to_plain(OmegaConf.create(texts)) == {"a": "/data", "b": "/data/cache", "c": os.environ["HOME"]}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_git_starts_nobodys_programs(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    harm = tmp_path / "harm"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {harm}\n")
    program.chmod(0o755)
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "a")
    git("config", "core.fsmonitor", str(program))
    hook = tmp_path / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    shutil.copy(program, hook)
    settings = {"alias.ls-files": f"!{program}", "core.fsmonitor": str(program), "core.pager": str(program)}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for i, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{i}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{i}", value)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    assert not harm.exists()
