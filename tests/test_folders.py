"""A folder has one process at work in it, and no run is written over another unasked."""

import re

import pytest
from folder_holder import a_run
from omegaconf import OmegaConf
from runs import TINY as BASE
from runs import command_here, here, record
from test_h5_files import largest_file

from neuro_lightning.artifacts.folders import (
    ClaimFolder,
    check_room,
    claim_run_folder,
    claimed_run_folder,
    delete_run_files,
    kept_run_status,
)
from neuro_lightning.artifacts.locks import (
    FOLDER_LOCK,
    Lock,
)
from neuro_lightning.errors import ConfigError, FolderError
from neuro_lightning.sweeps.arguments import sweep_arguments

TINY = [*BASE, "trainer.max_epochs=1"]


@pytest.mark.parametrize(
    ("status", "files", "held"),
    [
        ("finished", [], "finished"), ("diverged", [], "diverged"), ("failed", [], ""), ("running", [], ""),
        ("failed", ["checkpoints/last.ckpt"], "failed"), ("interrupted", ["metrics.csv"], "interrupted"),
    ],
)  # fmt: skip
def test_which_runs_are_not_overwritten(tmp_path, status, files, held):
    assert kept_run_status(a_run(tmp_path, status, *files)) == held
    if held:
        with pytest.raises(FolderError, match=rf"holds a run already \({held}\): .*overwrite=true"):
            claim_run_folder(tmp_path)
        assert Lock(tmp_path / FOLDER_LOCK).acquire() is True, "who is refused lets go"
    else:
        with claimed_run_folder(tmp_path):
            pass


def test_status_of_a_folder_without_a_run_or_with_a_torn_record(tmp_path):
    assert kept_run_status(tmp_path) == ""
    (tmp_path / "run.json").write_text('{"status": "fin')
    assert kept_run_status(tmp_path) == ""
    (tmp_path / "metrics.csv").write_text("step\n0\n")
    assert kept_run_status(tmp_path) == "damaged"


def test_only_the_runs_own_files_are_replaced(tmp_path):
    own = ["metrics.csv", "checkpoints/best.ckpt", "figures/rates.png", ".hydra/config.yaml", "output.log"]
    foreign = ["notes.txt", "checkpoints/mine.txt", "figures/poster/a.png", ".hydra/x", "data.ckpt", "sub/run.json"]
    a_run(tmp_path, "finished", *own, *foreign)
    with claimed_run_folder(tmp_path, overwrite=True):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*foreign, FOLDER_LOCK}
    delete_run_files(a_run(tmp_path / "other", "finished", "checkpoints/last.ckpt"))
    assert not any((tmp_path / "other").iterdir())


def test_a_folder_on_a_full_disk_is_refused(tmp_path):
    with largest_file(1000), pytest.raises(FolderError, match=r"cannot be written \(File too large\): choose another"):
        check_room(tmp_path)
    check_room(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_half_written_is_deleted(tmp_path):
    own, mine = "checkpoints/.last.0ab1.part.ckpt", ["checkpoints/last.ckpt", "checkpoints/.keep", ".a.part.ckpt"]
    with claimed_run_folder(a_run(tmp_path, "failed", own, *mine), resume=str(tmp_path / mine[0])):
        assert not (tmp_path / own).exists() and all((tmp_path / name).is_file() for name in mine)


def test_resuming_from_another_folder_does_not_overwrite_a_run(tmp_path):
    a_run(tmp_path / "a", "finished", "checkpoints/last.ckpt")
    with claimed_run_folder(tmp_path / "a", resume=str(tmp_path / "a/checkpoints/last.ckpt")):
        pass
    with pytest.raises(FolderError, match="holds a run already"):
        claim_run_folder(tmp_path / "a", resume=str(tmp_path / "b/checkpoints/last.ckpt"))


def test_train_called_twice_into_one_folder(tmp_path):
    here(tmp_path / "run", *TINY[-1:])
    before = (tmp_path / "run" / "run.json").read_text()
    with pytest.raises(FolderError, match=r"run holds a run already \(finished\)"):
        here(tmp_path / "run", "model.hidden=7", *TINY[-1:])
    assert (tmp_path / "run" / "run.json").read_text() == before
    (tmp_path / "run" / "notes.txt").touch()
    here(tmp_path / "run", "model.hidden=7", "overwrite=true", *TINY[-1:])
    assert record(tmp_path / "run")["config"]["model"]["hidden"] == 7 and (tmp_path / "run" / "notes.txt").exists()


# ---- what Hydra calls


def config_of(run="outputs/a/${now:%Y}", sweep="multirun/${now:%Y}", typed=(), sweeper="Grid", **keys):
    from hydra.core.utils import setup_globals

    setup_globals()
    return OmegaConf.create({
        "hydra": {
            "run": {"dir": str(run)}, "sweep": {"dir": str(sweep)}, "output_subdir": ".hydra",
            "overrides": {"task": list(typed), "hydra": []}, "sweeper": {"_target_": f"x.{sweeper}"},
        }, "resume": None, "overwrite": False, **keys,
    })  # fmt: skip


def test_runs_that_start_in_the_same_second_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = ClaimFolder(), ClaimFolder()
    a, b = config_of(), config_of()
    first.on_run_start(a)
    second.on_run_start(b)
    assert b.hydra.run.dir == f"{a.hydra.run.dir}_2" and (tmp_path / b.hydra.run.dir / FOLDER_LOCK).is_file()
    first.on_run_end(a)
    second.on_run_end(b)
    assert Lock(tmp_path / b.hydra.run.dir / FOLDER_LOCK).acquire() is True


def test_a_named_folder_is_used_as_it_is(tmp_path, other_process):
    other_process(tmp_path / "run")
    with pytest.raises(SystemExit, match=r"^error: .*run is in use by process"):
        ClaimFolder().on_run_start(config_of(tmp_path / "run"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit, match="is in use by process"):  # two resume= at once
        ClaimFolder().on_run_start(config_of(tmp_path / "run", resume=str(last)))
    a_run(tmp_path / "done", "finished", ".hydra/config.yaml")
    with pytest.raises(SystemExit, match=r"holds a run already \(finished\)"):
        ClaimFolder().on_run_start(config_of(tmp_path / "done"))
    assert (tmp_path / "done" / "run.json").is_file()
    callback = ClaimFolder()
    callback.on_run_start(config := config_of(tmp_path / "done", overwrite=True))
    assert not (tmp_path / "done" / "run.json").exists()
    a_run(tmp_path / "done", "running", ".hydra/config.yaml", "metrics.csv")  # as Hydra and the run go on
    with claimed_run_folder(tmp_path / "done", overwrite=True):
        assert (tmp_path / "done" / ".hydra" / "config.yaml").is_file(), "cleared once"
    callback.on_run_end(config)


def test_processes_started_together_need_a_name_and_the_first_one_claims_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"error: 2 processes were started together.*hydra\.run\.dir=FOLDER"):
        ClaimFolder().on_run_start(config_of())
    config = config_of(a_run(tmp_path / "run"))
    ClaimFolder().on_run_start(config)
    assert config.hydra.output_subdir is None and not (tmp_path / "run" / FOLDER_LOCK).exists()


def test_sweeps_that_start_in_the_same_second_get_different_folders(tmp_path, monkeypatch):
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "set_config", lambda config: None)
    callbacks, configs = [ClaimFolder(), ClaimFolder()], [config_of(), config_of()]
    for callback, config in zip(callbacks, configs, strict=True):
        callback.on_multirun_start(config)
    a, b = (config.hydra.sweep.dir for config in configs)
    assert b == f"{a}_2" and configs[1].hydra.overrides.hydra == [f"hydra.sweep.dir='{b}'"]
    for callback, config in zip(callbacks, configs, strict=True):
        callback.on_multirun_end(config)


def test_a_sweep_shares_its_folder_with_itself_only(tmp_path, other_process):
    other_process(tmp_path / "s", "model=gru", "seed=0,1")
    with pytest.raises(SystemExit, match=r"^error: .*s: another sweep is at work there \(process \d+ on"):
        ClaimFolder().on_multirun_start(config_of(sweep=tmp_path / "s", typed=["model=ndt", "seed=0,1"]))
    for typed, sweeper in ((["seed=0,1", "model=gru"], "Grid"), (["model=ndt"], "Search")):  # a search has its study
        callback, config = ClaimFolder(), config_of(sweep=tmp_path / "s", typed=typed, sweeper=sweeper)
        callback.on_multirun_start(config)
        callback.on_multirun_end(config)


def test_overwrite_is_for_one_run():
    with pytest.raises(ConfigError, match="overwrite=true is for a single run"):
        sweep_arguments(["-m", "seed=0,1", "overwrite=true"])


def test_two_commands_in_one_folder(tmp_path):
    """Two runs of the same second, and a second run of the same name."""
    fixed = "hydra.run.dir='out/${now:%Y}'"  # a clock that stands still
    for seed in (1, 2):
        done = command_here(tmp_path, *TINY, fixed, f"seed={seed}")
        assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "out").iterdir())
    assert re.fullmatch(r"\d{4}", folders[0].name) and folders[1].name == f"{folders[0].name}_2"
    assert {record(folder)["seed"] for folder in folders} == {1, 2}
    assert all("mean rate" in (folder / "output.log").read_text() for folder in folders)
    for folder in folders:
        assert f"seed={record(folder)['seed']}" in (folder / ".hydra" / "overrides.yaml").read_text()
    named = f"hydra.run.dir={folders[0]}"
    before = (folders[0] / ".hydra" / "overrides.yaml").read_text()
    refused = command_here(tmp_path, *TINY, named, "seed=3")
    assert refused.returncode == 1 and "holds a run already" in refused.stderr and "Traceback" not in refused.stderr
    assert (folders[0] / ".hydra" / "overrides.yaml").read_text() == before, "nothing was touched"
