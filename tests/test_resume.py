"""A resumed run ends as if it had never been interrupted."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger
from runs import ROOT, TINY, checkpoint, command, command_here, here, record, rows, same

from neuro_lightning.artifacts.folders import claim_run_folder
from neuro_lightning.artifacts.locks import unlock_folder
from neuro_lightning.errors import CheckpointError, ConfigError, DataError, FolderError
from neuro_lightning.loggers.metrics_csv import MetricsCSV
from neuro_lightning.runs.resume import resume_arguments
from neuro_lightning.settings.quoting import quoted
from neuro_lightning.sweeps.arguments import resumed

KEEP = "_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',auto_insert_metric_name:false,save_top_k:-1"
# four steps an epoch, validation after every second: a checkpoint after each epoch, step and validation
EVERYWHERE = [
    f"+callbacks.ends={{{KEEP},save_on_train_epoch_end:true,filename:'end{{epoch}}'}}",
    f"+callbacks.steps={{{KEEP},every_n_train_steps:1,filename:'step{{step}}'}}",
    f"+callbacks.vals={{{KEEP},monitor:val/loss,filename:'val{{epoch}}'}}",
    "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2",
]  # fmt: skip
MOMENTS = [f"step{n}" for n in (1, 2, 4, 6, 8, 9, 12, 13, 15, 16)] + ["end0", "end1", "end2", "end3", "val1", "val3"]
SCHEDULES = {
    "cosine": ["scheduler@model.scheduler=cosine"],
    # nothing is ever better than the score of the true rates: the rate falls at every validation but the first
    "plateau": ["scheduler@model.scheduler=plateau", "model.scheduler.patience=0",
                "model.scheduler.monitor=val/oracle_co_bps"],
    "best": ["scheduler@model.scheduler=plateau", "model.scheduler.patience=0", "model.scheduler.restore_best=true",
             "model.scheduler.monitor=val/oracle_co_bps"],
}  # fmt: skip
# within the first epoch, within another, at a validation, and at the end; the moments between these are rare
QUICK = ("step1", "step6", "step8", "step16", "end0", "end1", "end3", "val1")
CASES = [
    *(pytest.param("cosine", moment, marks=[] if moment in QUICK else pytest.mark.rare) for moment in MOMENTS),
    ("plateau", "step7"), ("plateau", "end1"), ("plateau", "val1"), ("best", "val1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    """A run that nothing interrupted, and its folder as it was after every checkpoint."""
    overrides = [*EVERYWHERE, *SCHEDULES[request.param]]
    run = here(tmp_path_factory.mktemp("whole") / "run", *overrides)
    run.overrides = overrides
    run.final, run.rows, run.record = checkpoint(run.folder, "end3.ckpt"), rows(run.folder), record(run.folder)
    return run


@pytest.mark.parametrize(("whole", "moment"), CASES, indirect=["whole"])
def test_from_any_checkpoint_the_same_bits(whole, moment):
    """Dropout, hidden inputs, shuffling and schedules are on; every file is as it was at the interruption."""
    shutil.rmtree(whole.folder)
    shutil.copytree(whole.folder.with_name("snapshots") / moment, whole.folder)
    before = rows(whole.folder)
    score = here(whole.folder, *whole.overrides, f"resume='{whole.folder}/checkpoints/{moment}.ckpt'").score
    final = checkpoint(whole.folder, "end3.ckpt")
    assert len(before) < 4 or moment in ("step16", "val3", "end3"), "there was something left to do"
    assert same(final["state_dict"], whole.final["state_dict"])
    for what in ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step", "Tiny", "neuro_lightning"):
        assert same(final[what], whole.final[what]), what
    assert rows(whole.folder) == whole.rows, "every row once, as if written in one go"
    assert [row["step"] for row in whole.rows] == ["3", "7", "11", "15"] and all(
        row["train/loss"] for row in whole.rows
    )
    assert score == whole.score
    after = record(whole.folder)
    assert after["run_id"] == whole.record["run_id"] and after["started"] == whole.record["started"]
    assert after["metrics"] == whole.record["metrics"] and after["status"] == "finished"


@pytest.mark.parametrize("whole", ["plateau"], indirect=True)
def test_the_comparison_sees_a_difference(whole):
    early, late = (whole.folder.with_name("snapshots") / moment for moment in ("step15", "step16"))
    states = [checkpoint(folder, f"{folder.name}.ckpt") for folder in (early, late)]
    assert not same(states[0]["state_dict"], states[1]["state_dict"])
    assert not same(states[0]["optimizer_states"], states[1]["optimizer_states"])


@pytest.mark.slow
def test_killed_and_resumed_on_the_command_line(tmp_path):
    """SIGKILL in the second epoch, one step after a checkpoint."""
    steps = "+callbacks.checkpoint.every_n_train_steps=3"
    killed = command(tmp_path, *TINY, steps, "+callbacks.killer={_target_:tiny.Kill,step:7}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "outputs/tiny/gru").iterdir()
    assert record(folder)["status"] == "running" and len(rows(folder)) == 1
    resumed = command_here(tmp_path, "resume=latest", "callbacks.killer=null")
    assert resumed.returncode == 0, resumed.stderr
    whole = here(tmp_path / "whole", steps).folder
    for what in ("state_dict", "optimizer_states"):
        assert same(checkpoint(folder)[what], checkpoint(whole)[what])
    assert rows(folder) == rows(whole)
    assert record(folder)["status"] == "finished" and record(folder)["metrics"] == record(whole)["metrics"]
    assert [path.parent for path in tmp_path.glob("outputs/**/run.json")] == [folder], "it went on in its own folder"


def test_a_finished_run_can_be_given_more_epochs(tmp_path):
    """Without a schedule that knows the end, it becomes the longer run."""
    constant = "scheduler@model.scheduler=none"
    here(tmp_path / "run", constant, "trainer.max_epochs=2")
    here(tmp_path / "run", constant, "trainer.max_epochs=4", f"resume={tmp_path / 'run/checkpoints/last.ckpt'}")
    here(tmp_path / "whole", constant, "trainer.max_epochs=4")
    assert same(checkpoint(tmp_path / "run")["state_dict"], checkpoint(tmp_path / "whole")["state_dict"])
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_run_that_ended_between_two_regular_validations_is_resumed_with_no_step_too_many(tmp_path):
    words = ["scheduler@model.scheduler=none", "trainer.check_val_every_n_epoch=3"]
    again = f"resume={tmp_path / 'run/checkpoints/last.ckpt'}"
    here(tmp_path / "run", *words, "trainer.max_epochs=2")
    before = checkpoint(tmp_path / "run")
    here(tmp_path / "run", *words, "trainer.max_epochs=2", again)
    assert same(checkpoint(tmp_path / "run")["state_dict"], before["state_dict"])
    here(tmp_path / "run", *words, "trainer.max_epochs=4", again)
    here(tmp_path / "whole", *words, "trainer.max_epochs=4")
    run, whole = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole")
    assert run["global_step"] == whole["global_step"] == 2 * before["global_step"]
    assert same(run["state_dict"], whole["state_dict"])
    validated = [int(row["epoch"]) for row in rows(tmp_path / "run") if row["val/loss"]]
    assert validated == [1, 2, 3], "the usual interval holds again after the first epoch"


# ---- the command line


def a_run(folder: Path, *overrides: str) -> Path:
    for sub in ("checkpoints", ".hydra"):
        (folder / sub).mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in overrides) or "[]\n")
    return folder


def test_old_overrides_come_first_and_the_folder_stays(tmp_path):
    run = a_run(tmp_path / "run", "model=gru", "seed=3", "resume=old")
    found = resume_arguments([f"resume={run}", "trainer.max_epochs=9"])
    last = run / "checkpoints" / "last.ckpt"
    there = [f"hydra.run.dir='{run}'", "hydra.output_subdir=null", f"resume='{last}'"]
    assert found == ["model=gru", "seed=3", "trainer.max_epochs=9", *there]
    assert f"resume='{run / 'checkpoints/best.ckpt'}'" in resume_arguments([f"resume='{run}/checkpoints/best.ckpt'"])


def test_latest_is_the_checkpoint_written_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("b", "c", "a")):
        run = a_run(tmp_path / "outputs" / "lorenz" / "gru" / name)
        os.utime(run / "checkpoints" / "last.ckpt", (1000 + i, 1000 + i))
    assert f"hydra.run.dir='{tmp_path / 'outputs/lorenz/gru/a'}'" in resume_arguments(["resume=latest"])


def test_configs_of_ones_own_are_found_again(tmp_path):
    run = a_run(tmp_path / "run", "data=waves")
    settings = "['hydra.searchpath=[file://./my_conf]', hydra.mode=MULTIRUN, hydra.sweep.dir=there]"
    (run / ".hydra/hydra.yaml").write_text(f"hydra:\n  overrides:\n    hydra: {settings}\n")
    assert resume_arguments([f"resume={run}"])[:2] == ["hydra.searchpath=[file://./my_conf]", "data=waves"]


def test_a_mutation_of_an_earlier_version_keeps_its_layers(tmp_path):
    """Earlier versions named the changed layers ``+mutation=NAME``; the run's own config says what they are."""
    run = a_run(tmp_path / "run", "data=uwndc19", "model=cnn", "+mutation='conv.1 kernel 3'")
    with initialize_config_dir(str(ROOT / "conf")):
        changed = compose("train", overrides=["data=uwndc19", "model=cnn", "model.conv.1.kernel=3"])
    OmegaConf.save(changed, run / ".hydra" / "config.yaml")
    words = [word for word in resume_arguments([f"resume={run}"]) if not word.startswith("hydra.")]
    with initialize_config_dir(str(ROOT / "conf")):
        assert compose("train", overrides=words).model == changed.model


def test_nothing_to_resume_changes_nothing():
    for arguments in (["model=gru"], ["model=gru", "resume=null"], ["-m", "seed=0,1"]):
        assert resume_arguments(arguments) == arguments


def test_what_cannot_be_resumed_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no run under outputs/"):
        resume_arguments(["resume=latest"])
    with pytest.raises(CheckpointError, match="resume=nowhere: no checkpoint, and no run"):
        resume_arguments(["resume=nowhere"])
    with pytest.raises(ConfigError, match="cannot be combined with -m"):
        resume_arguments(["resume=nowhere", "-m"])
    (tmp_path / "lone.ckpt").touch()
    with pytest.raises(CheckpointError, match="not a run's folder"):
        resume_arguments(["resume=lone.ckpt"])
    for words in (["resume="], ["resume=''"]):
        with pytest.raises(ConfigError, match="resume= names no run"):
            resume_arguments(words)
    with pytest.raises(ConfigError, match=r"sweep\.resume= names no sweep"):
        resumed(["-m", "sweep.resume="])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("overrides.yaml", ""), ("overrides.yaml", "- model=gru\n- model.hid"), ("overrides.yaml", "model: gru\n"),
        ("overrides.yaml", "\0\0"), ("hydra.yaml", ""), ("hydra.yaml", "hydra:\n  run:\n"), ("hydra.yaml", "a: ["),
    ],
)  # fmt: skip
def test_a_damaged_command_is_not_taken_for_another(tmp_path, name, text):
    """As a power cut leaves it: without its overrides the run would go on as another one."""
    run = a_run(tmp_path / "run", "model=gru")
    (run / ".hydra" / name).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged \(.*overwrite=true"):
        resume_arguments([f"resume={run}"])


def test_checkpoints_may_lie_on_another_disk(tmp_path):
    run, scratch = a_run(tmp_path / "run", "model=gru"), tmp_path / "scratch"
    (run / "checkpoints").rename(scratch)
    (run / "checkpoints").symlink_to("../scratch")
    (tmp_path / "link").symlink_to("run")
    last = run / "checkpoints" / "last.ckpt"
    for name in (run, tmp_path / "link", last, tmp_path / "link" / "checkpoints" / "last.ckpt"):
        assert resume_arguments([f"resume={name}"])[-3::2] == [f"hydra.run.dir='{run}'", f"resume='{last}'"]
    claim_run_folder(run, resume=str(last))
    unlock_folder(run)
    with pytest.raises(CheckpointError, match="scratch is not a run's folder"):  # nothing there says whose they are
        resume_arguments([f"resume={scratch}/last.ckpt"])


def test_a_checkpoint_of_weights_alone_is_not_resumed(tmp_path):
    here(tmp_path, "trainer.max_epochs=1", "+callbacks.checkpoint.save_weights_only=true")
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds weights alone .*begin a new run .* init="):
        here(tmp_path, "trainer.max_epochs=2", f"resume={tmp_path}/checkpoints/last.ckpt")


def test_a_run_that_ended_before_its_first_checkpoint(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "running"}')
    (tmp_path / "metrics.csv").write_text("step\n0\n")
    with pytest.raises(CheckpointError, match=r"ended before its first checkpoint: .*overwrite=true"):
        resume_arguments([f"resume={tmp_path}"])
    with pytest.raises(FolderError, match=r"holds a run already \(running\): overwrite=true"):
        claim_run_folder(tmp_path)


def test_latest_takes_no_other_run_than_the_newest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "outputs" / "old")
    os.utime(tmp_path / "outputs/old/checkpoints/last.ckpt", (1000, 1000))
    (tmp_path / "outputs/new").mkdir()
    (tmp_path / "outputs/new/run.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the newest run, outputs/new, ended before its first checkpoint"):
        resume_arguments(["resume=latest"])


@pytest.mark.parametrize("name", ["O'Brien's", 'a "b"', "a, b=c", "${seed}", "back\\", "[x]"])
def test_hydra_reads_every_path_as_it_is(tmp_path, name):
    run = a_run(tmp_path / name)
    with initialize_config_dir(str(ROOT / "conf")):
        for value in (str(run), quoted(str(run))):
            words = resume_arguments([f"resume={value}"])
            assert compose("train", overrides=words[-1:]).resume == str(run / "checkpoints" / "last.ckpt")


def test_a_copied_run_keeps_its_own_best(tmp_path):
    """It neither overwrites it with a worse one, nor takes the original's file for its own, nor misses a lost one."""
    words = ["scheduler@model.scheduler=none"]
    run = here(tmp_path / "run", *words)
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    content, best = checkpoint(copy), (copy / "checkpoints/best.ckpt").read_bytes()
    (state,) = (value for name, value in content["callbacks"].items() if "Checkpoint" in name)
    assert str(tmp_path) not in str(state) and state["best_model_path"] == "best.ckpt"
    shutil.rmtree(run.folder)
    worse = [*words, "trainer.max_epochs=4", "model.optimizer.lr=30", "callbacks.explore._target_="
             "neuro_lightning.callbacks.explore.Explore"]  # fmt: skip
    worse[-1] = "+" + worse[-1]
    again = here(copy, *worse, f"resume={copy}/checkpoints/last.ckpt")
    assert (copy / "checkpoints/best.ckpt").read_bytes() == best and again.score == run.score
    assert record(copy)["checkpoints"]["best"] == str(copy / "checkpoints/best.ckpt")
    (copy / "checkpoints/best.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"best\.ckpt is gone"):
        here(copy, *words, "trainer.max_epochs=5", f"resume={copy}/checkpoints/last.ckpt")
    assert (copy / "checkpoints/best.ckpt").is_file()


def test_a_damaged_checkpoint_is_one_error_and_harms_nothing(tmp_path):
    here(tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    before = rows(tmp_path / "run"), record(tmp_path / "run")
    whole = checkpoint(tmp_path / "run")["state_dict"]
    last.write_bytes(last.read_bytes()[:1000])
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    here(copy, f"resume={copy}/checkpoints/last.ckpt")
    assert same(checkpoint(copy)["state_dict"], whole) and rows(copy) == before[0], "from the one before it"
    last.with_name("last.previous.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read as a checkpoint; it is damaged"):
        here(tmp_path / "run", f"resume={last}")
    assert rows(tmp_path / "run") == before[0]
    assert record(tmp_path / "run") == before[1], "a refused attempt is no part of the run's record"


def test_a_checkpoint_of_another_model_or_of_other_data_is_one_error(tmp_path):
    here(tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not fit"):
        here(tmp_path / "other", "model.hidden=7", f"resume={tmp_path / 'run/checkpoints/last.ckpt'}")
    with pytest.raises(CheckpointError, match=r"with these data: data\.n_train was 37 and is 36;"):
        here(tmp_path / "third", "data.n_train=36", f"resume={tmp_path / 'run/checkpoints/last.ckpt'}")


def test_an_error_late_in_a_resumed_run_is_its_own(tmp_path, monkeypatch):
    """The record that was found, of a finished run, no longer says what lies in the folder."""

    def fails(*_):
        raise DataError("no trials to score")

    here(tmp_path / "run")
    monkeypatch.setattr("neuro_lightning.runs.outcome.score_best", fails)
    with pytest.raises(DataError, match="no trials to score"):
        here(tmp_path / "run", "trainer.max_epochs=4", f"resume={tmp_path}/run/checkpoints/last.ckpt")
    said = record(tmp_path / "run")
    assert said["status"] == "failed" and "no trials to score" in said["error"]
    assert said["config"]["trainer"]["max_epochs"] == 4


@pytest.mark.parametrize("call", ["log_metrics", "log_hyperparams", "finalize"])
def test_a_logger_that_fails_warns_once_but_metrics_csv_ends_the_run(tmp_path, monkeypatch, call):
    def fails(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(TensorBoardLogger, call, fails)
    with pytest.warns(UserWarning) as said:
        here(tmp_path / "run", "+logger.tensorboard={}", "trainer.max_epochs=2")
    failed = [str(w.message) for w in said if "failed; the run continues" in str(w.message)]
    assert len(failed) == 1 and failed[0].startswith("TensorBoardLogger failed")
    assert record(tmp_path / "run")["status"] == "finished" and len(rows(tmp_path / "run")) == 2
    if call == "log_metrics":
        monkeypatch.setattr(MetricsCSV, call, fails)
        with pytest.raises(OSError, match="no connection"):
            here(tmp_path / "other", "trainer.max_epochs=1")


def test_a_folder_of_any_name_is_trained_in_and_resumed(tmp_path):
    folder = tmp_path / "O'Brien's [run], a=b"
    here(folder, "trainer.max_epochs=1")
    (folder / ".hydra").mkdir()
    (folder / ".hydra/overrides.yaml").write_text("[]")
    words = resume_arguments([f"resume={folder}", "trainer.max_epochs=2"])
    here(folder, *(word for word in words if not word.startswith("hydra.")))
    assert record(folder)["status"] == "finished" and checkpoint(folder)["global_step"] == 8
