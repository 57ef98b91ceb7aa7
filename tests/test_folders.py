"""A folder has one process at work in it, and no run is written over another unasked."""

import io
import json
import logging
import re
import subprocess
import sys
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from runs import ROOT, command_here, here, record
from runs import TINY as BASE

from neuro_lightning import cli
from neuro_lightning.artifacts.folders import (
    ClaimFolder,
    claim_run_folder,
    claimed_run_folder,
    delete_run_files,
    kept_run_status,
)
from neuro_lightning.artifacts.locks import (
    FOLDER_LOCK,
    Lock,
    lock_folder,
    locked,
    locked_folder,
    new_folder,
    unlock_folder,
)
from neuro_lightning.artifacts.output import copy_output
from neuro_lightning.errors import ConfigError, FolderError
from neuro_lightning.ranks import count_launched_processes, is_main_process, main_process_only
from neuro_lightning.runs.resume import resume_requeued_job
from neuro_lightning.settings.quoting import typed_value
from neuro_lightning.sweeps.arguments import sweep_arguments

TINY = [*BASE, "trainer.max_epochs=1"]
HOLD = """
import sys
from neuro_lightning.artifacts.locks import lock_folder
print(lock_folder(sys.argv[1], command=sys.argv[2:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    """Start processes that are at work in a folder, as others see it."""
    started = []

    def begin(folder, *words):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *words], cwd=ROOT, **pipes)
        started.append(other)
        assert other.stdout.readline() == "True\n"
        return other

    yield begin
    for process in started:
        process.kill()
        process.communicate()


# ---- locks


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path, other_process):
    other = other_process(tmp_path / "run")
    assert not lock_folder(tmp_path / "run") and not lock_folder(tmp_path / "run", timeout_s=0.1)
    with pytest.raises(FolderError, match=rf"run is in use by process {other.pid} on \S+, since 20\S+: wait for"):
        claim_run_folder(tmp_path / "run")
    other.kill()
    assert lock_folder(tmp_path / "run", timeout_s=10.0)
    unlock_folder(tmp_path / "run")


def test_a_process_may_enter_its_own_folder_again(tmp_path):
    with locked_folder(tmp_path) as acquired, locked_folder(tmp_path / ".") as again:
        assert acquired and again and Lock(tmp_path / FOLDER_LOCK).acquire() is False
    assert Lock(tmp_path / FOLDER_LOCK).acquire() is True


def test_who_waits_is_told_so_and_a_removed_lock_is_one_lock(tmp_path):
    said = []
    with locked(tmp_path / "x.lock", remove=True) as acquired:
        assert acquired and Lock(tmp_path / "x.lock").acquire(0.06, lambda: said.append("waits")) is False
    assert said == ["waits"] and not (tmp_path / "x.lock").exists()


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    import errno

    lock = Lock(tmp_path / "a.lock")
    monkeypatch.setattr(lock, "_lock", SimpleNamespace(acquire=lambda **k: raises(OSError(errno.ENOLCK, "no locks"))))
    assert lock.acquire() is None


def raises(error):
    raise error


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=r"file.* cannot be written \(.*choose another folder"):
        claim_run_folder(tmp_path / "file" / "run")
    with pytest.raises(FolderError, match=r"choose another folder with hydra\.run\.dir"):
        new_folder(tmp_path / "file" / "run")


def _make(path, queue):
    queue.put(new_folder(path).name)


def test_processes_that_ask_at_once_get_folders_of_their_own(tmp_path):
    context = get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path / "a" / "run", queue)) for _ in range(6)]
    for process in processes:
        process.start()
    names = {queue.get(timeout=20) for _ in processes}
    for process in processes:
        process.join()
    assert names == {"run", *(f"run_{i}" for i in range(2, 7))}


# ---- what a folder holds


def a_run(folder, status="finished", *files):
    for name in ("run.json", *files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"status": status}))
    return folder


@pytest.mark.parametrize(
    ("status", "files", "held"),
    [
        ("finished", [], "finished"), ("diverged", [], "diverged"), ("failed", [], ""), ("running", [], ""),
        ("failed", ["checkpoints/last.ckpt"], "failed"), ("interrupted", ["metrics.csv"], "interrupted"),
    ],
)  # fmt: skip
def test_what_is_worth_keeping(tmp_path, status, files, held):
    assert kept_run_status(a_run(tmp_path, status, *files)) == held
    if held:
        with pytest.raises(FolderError, match=rf"holds a run already \({held}\): resume=.*overwrite=true"):
            claim_run_folder(tmp_path)
        assert Lock(tmp_path / FOLDER_LOCK).acquire() is True, "who is refused lets go"
    else:
        with claimed_run_folder(tmp_path):
            pass


def test_a_folder_without_a_run_or_with_a_torn_one(tmp_path):
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


def test_a_checkpoint_of_another_folder_is_no_reason_to_write_over_a_run(tmp_path):
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


def test_runs_begun_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = ClaimFolder(), ClaimFolder()
    a, b = config_of(), config_of()
    first.on_run_start(a)
    second.on_run_start(b)
    assert b.hydra.run.dir == f"{a.hydra.run.dir}_2" and (tmp_path / b.hydra.run.dir / FOLDER_LOCK).is_file()
    first.on_run_end(a)
    second.on_run_end(b)
    assert Lock(tmp_path / b.hydra.run.dir / FOLDER_LOCK).acquire() is True


def test_a_folder_that_is_named_is_the_one_that_is_meant(tmp_path, other_process):
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


def test_sweeps_begun_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
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


def test_on_the_command_line(tmp_path):
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


# ---- a job that SLURM runs again


def test_a_job_that_is_queued_again_goes_on_in_its_folder(tmp_path, monkeypatch):
    folder, words = tmp_path / "it's a run", ["model=gru", f"hydra.run.dir={tmp_path}/it's a run"]
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume_requeued_job(words) == words, "nothing is there yet"
    a_run(folder, "interrupted", "metrics.csv")

    def noted(**values):
        (folder / "run.json").write_text(json.dumps({"status": "interrupted", "slurm_job": "77", **values}))

    noted()
    assert resume_requeued_job(words) == [*words, "overwrite=true"], "interrupted before its first checkpoint"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    for status in ("interrupted", "running"):  # the second was killed
        noted(status=status)
        *same, resume = resume_requeued_job(words)
        assert same == words and typed_value([resume], "resume") == str(folder)
    assert resume_requeued_job([*words, "resume=latest"]) == [*words, "resume=latest"]
    assert resume_requeued_job(words[:1]) == words[:1]
    for others in ({"slurm_job": "78"}, {"slurm_job": None}, {"status": "finished"}, {"status": "failed"}):
        noted(**others)
        assert resume_requeued_job(words) == words, others
    noted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert resume_requeued_job(words) == words


def test_an_interrupt_before_there_is_a_run_is_one_line(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "add_trusted_packages", interrupted)
    for command_ in (cli.train, cli.predict):
        with pytest.raises(SystemExit) as ended:
            command_()
        assert ended.value.code == 130 and capsys.readouterr().err == "interrupted.\n"


# ---- output.log


def test_what_a_run_prints_is_kept_in_its_folder_as_a_terminal_shows_it(tmp_path, monkeypatch):
    terminal, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])  # others, of earlier tests, may be closed
    with copy_output(tmp_path):
        print("\x1b[1;32mgreen\x1b[0m table ✓")
        for share in (10, 50):
            sys.stdout.write(f"\r\x1b[2Ktraining {share} %\r")
        sys.stdout.write("\r\x1b[2Ktraining 100 %\r\n")
        print("warning: few trials", file=sys.stderr)
        logging.getLogger("any").warning("logged")
        sys.stdout.write("no end")
        late = sys.stderr
    print("after", file=late)  # by what has kept the stream
    text = (tmp_path / "output.log").read_text()
    assert text == "green table ✓\ntraining 100 %\nwarning: few trials\nlogged\nno end\n"
    assert (sys.stdout, sys.stderr, handler.stream) == (terminal, errors, terminal)
    assert "\x1b[1;32mgreen" in terminal.getvalue() and "\rtraining" not in text
    assert errors.getvalue() == "warning: few trials\nafter\n"
    for error, said in ((SystemExit("error: no"), "error: no\n"), (SystemExit(0), ""), (ValueError("x"), "Traceback")):
        before = (tmp_path / "output.log").read_text()
        with pytest.raises(type(error)), copy_output(tmp_path):
            raise error
        after = (tmp_path / "output.log").read_text()
        assert after.startswith(before + said) and (said or after == before), "a resumed run's output follows"


def test_a_bar_is_one_line_in_the_file(tmp_path, monkeypatch):
    from test_tables import fit

    from neuro_lightning.callbacks.progress import FitProgress

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with copy_output(tmp_path):
        fit(FitProgress(), max_epochs=4)
    lines = (tmp_path / "output.log").read_text().splitlines()
    assert sum("training" in line for line in lines) == 1 and "\x1b" not in "".join(lines), lines
    assert "\x1b[" in terminal.getvalue()


# ---- the main process


@pytest.mark.parametrize(
    ("environment", "main", "together"),
    [
        ({}, True, 1),
        ({"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "8"}, False, 8),  # torchrun, second node
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, True, 8),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, 1),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False, 1),  # started by a task of SLURM's
        ({"SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "8"}, False, 8),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, True, 1),  # a batch script
    ],
)
def test_one_process_of_all_machines_is_the_main_one(monkeypatch, environment, main, together):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is main and count_launched_processes() == together
    assert main_process_only(lambda: "spoke")() == ("spoke" if main else None)


def test_nothing_else_decides_which_process_is_the_main_one():
    """Lightning's own answers differ where there are several machines or launchers."""
    others = re.compile(r"rank_zero_only(?!=False)|is_global_zero")
    found = [p.name for p in (ROOT / "neuro_lightning").rglob("*.py") if others.search(p.read_text())]
    assert found == []
