"""A sweep's command line before Hydra sees it."""

import errno
import os

import pytest
from omegaconf import OmegaConf

from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.settings.conf_folder import CONF
from neuro_lightning.settings.options import check_options
from neuro_lightning.sweeps.arguments import sweep_arguments, write_command


def a_sweep(folder, task, hydra=()):
    folder.mkdir()
    OmegaConf.save({"hydra": {"overrides": {"task": list(task), "hydra": list(hydra)}}}, folder / "multirun.yaml")
    return folder


def test_a_sweep_is_resumed_under_its_own_command(tmp_path):
    searchpath = "hydra.searchpath=[file://my_conf]"
    was = [searchpath, "hydra.sweep.dir=old", "hydra.mode=MULTIRUN", "hydra/launcher=joblib"]
    folder = a_sweep(tmp_path / "s", ["model=gru", "seed=0,1", "+tags=[a]"], was)
    there = f"hydra.sweep.dir='{folder}'"
    own = ["-m", searchpath, "hydra/launcher=joblib", "model=gru", "seed=0,1", "+tags=[a]", there]
    assert sweep_arguments(["-m", f"sweep.resume={folder}"]) == own
    typed = sweep_arguments(["seed=0,1,2", "--multirun", f"sweep.resume='{folder}'", "tags=[b]"])
    assert typed == ["-m", *own[1:4], "seed=0,1,2", "tags=[b]", there], "what is typed now wins"


def test_what_cannot_be_resumed_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no sweep has begun there \(it has no multirun.yaml\)"):
        sweep_arguments(["-m", f"sweep.resume={tmp_path}"])
    with pytest.raises(ConfigError, match="add -m; a single run is resumed by resume="):
        sweep_arguments([f"sweep.resume={tmp_path}"])
    with pytest.raises(ConfigError, match="hydra/sweeper=tune: this setting was replaced"):
        sweep_arguments(["-m", f"sweep.resume={a_sweep(tmp_path / 'tuned', [], ['hydra/sweeper=tune'])}"])
    assert sweep_arguments(["-m", "sweep.resume=null", "seed=0,1"]) == ["-m", "seed=0,1"]


def test_a_sweeps_command_is_written_in_one_piece(tmp_path, monkeypatch):
    config = OmegaConf.create({"hydra": {"overrides": {"task": ["seed=0,1"], "hydra": []}}})
    write_command(config, tmp_path / "s")
    monkeypatch.setattr(type(tmp_path), "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_command(config, tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["multirun.yaml"]
    assert "seed=0,1" in sweep_arguments(["-m", f"sweep.resume={tmp_path / 's'}"]), "the one before is still there"
    (tmp_path / "s" / "multirun.yaml").open("w").close()
    with pytest.raises(DataError, match=r"multirun.yaml is damaged .* with hydra.sweep.dir="):
        sweep_arguments(["-m", f"sweep.resume={tmp_path / 's'}"])


def full_disk(path, text):
    path.open("w").close()
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("model.iterations=3", "model.iterations=choice(3)"),
        ("model.conv=[{filters: 4}]", "model.conv=choice([{filters: 4}])"),
        ("+model.new='a b'", "+model.new=choice('a b')"),
        ("model.iterations=3,4", None), ("~model.masking", None), ("data.seed=1", None), ("seed=2", None),
    ],
)  # fmt: skip
def test_keys_of_a_swept_group_wait_for_their_job(word, becomes):
    assert sweep_arguments(["-m", "model=plds,gpfa", word]) == ["-m", "model=plds,gpfa", becomes or word]
    assert sweep_arguments(["-m", "model=plds", word]) == ["-m", "model=plds", word], "one model: nothing to wait for"
    assert sweep_arguments(["model=plds,gpfa", word]) == ["model=plds,gpfa", word], "no sweep"


def test_a_sweep_is_not_taken_for_a_single_run():
    with pytest.raises(ConfigError, match="sweep=ndt_bayes is a sweep: add -m, as in: python train"):
        sweep_arguments(["data=lorenz", "sweep=ndt_bayes"])
    for words in (
        ["sweep=null"],
        ["--cfg", "job", "sweep=ndt_bayes"],
        ["-m", "sweep=ndt_bayes"],
        ["sweep=few", "resume=a"],
    ):
        assert sweep_arguments(words) == words


def test_the_latest_sweep_and_the_sweep_of_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no sweep has begun in multirun/"):
        sweep_arguments(["-m", "sweep.resume=latest"])
    (tmp_path / "multirun").mkdir()
    for i, name in enumerate(("b", "c", "a")):
        os.utime(a_sweep(tmp_path / "multirun" / name, [f"seed={i}"]) / "multirun.yaml", (1000 + i, 1000 + i))
    assert sweep_arguments(["-m", "sweep.resume=latest"])[1:] == ["seed=2", f"hydra.sweep.dir='{tmp_path}/multirun/a'"]
    with pytest.raises(DataError, match=r"; 3_x_gru is a job of .*/multirun/a"):
        sweep_arguments(["-m", "sweep.resume=multirun/a/3_x_gru"])


def test_rays_address_has_a_short_name():
    words = ["-m", "hydra/launcher=ray_cluster", "ray.address=head:6379"]
    assert sweep_arguments(words) == [*words[:2], "hydra.launcher.address=head:6379"]


def test_a_mistake_is_left_for_hydra_to_name():
    wrong = ["-m", "model=plds,gpfa", "model.iterations=[3"]
    assert sweep_arguments(wrong) == wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "seed=0", "1", "2"], "'1' is no override"), (["seed=0", "1"], "'1' is no override"),
        (["-m", "--cfg", "job"], "leave out -m"),
        (["-m", "hydra/sweeper=tune"], "was replaced; give hydra/sweeper=population"),
        (["-m", "hydra.sweeper.trials=4"], "was replaced; give hydra.sweeper.n_trials="),
    ],
)  # fmt: skip
def test_words_that_hydra_would_answer_with_a_traceback(words, message):
    with pytest.raises(ConfigError, match=message):
        sweep_arguments(words)
    assert sweep_arguments(["--cfg", "job", "~logger", "seed=1"]) == ["--cfg", "job", "~logger", "seed=1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.hidden=[1"], r"^model\.hidden=\[1: Hydra cannot read this override \(.*quotes"),
        (["-m", "=3"], "^=3: Hydra cannot read this override .it has no key"),
        (["model=grru"], "^model=grru: no such option; did you mean 'gru'[?] there are cnn, .*gru"),
        (["-m", "data=mc_mze,mc_maze", "seed=0,1"], "^data=mc_mze: no such option; did you mean 'mc_maze'"),
        (["-m", "model=choice(gru,nddt)"], "^model=nddt: .* did you mean 'ndt'"),
        (["+experiment=mc_maze_43"], "experiment=mc_maze_43: .* did you mean 'mc_maze_430'"),
        (["optimizer@model.optimizer=adamww"], "optimizer@model.optimizer=adamww: .* did you mean 'adamw'"),
        (["callbacks/average=emma"], "did you mean 'ema'"),
        (["logger=[csv,wandbb]"], "logger=wandbb: .* did you mean 'wandb'"),
        (["-m", "hydra/launcher=slrum"], "did you mean 'slurm'"),
        (["model=transformer_of_mine"], "no such option; there are cnn, "),
    ],
)  # fmt: skip
def test_a_choice_that_is_no_option_gets_a_guess(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_options(words, CONF)
    assert "\n" not in str(caught.value) and "_hsm" not in str(caught.value)


def test_choices_that_hydra_knows_pass(tmp_path):
    from neuro_lightning.sweeps.results.best import register_experiment_files

    (tmp_path / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    words = [f"+experiment={tmp_path / 'mine.yaml'}", "model=gru", "data=mc_maze.yaml", "-m", "logger=[csv,wandb]"]
    check_options(register_experiment_files(words), CONF)
    check_options(["~callbacks/average=emma", "~logger", "seed=1", "model.hidden=8", "hydra/launcher=basic"], CONF)
    check_options(["trainer.max_epochs=3", "logger={}", "model=${oc.env:MODEL}", "--cfg", "job"], CONF)
    for place in ("hydra.searchpath=[file://mine]", "--config-dir=mine"):  # where the option may lie
        check_options([place, "model=grru"], CONF)
