import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro_lightning.artifacts.records import (
    PeakMemory,
    RunRecord,
    flat_overrides,
    git_state,
    read_record,
    stable_id,
    write_json,
)
from neuro_lightning.data.identity import data_record
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import DataError


def test_a_finished_run(tmp_path):
    record = RunRecord(tmp_path / "run")
    record.start(config={"model": {"hidden": 8}}, overrides=["seed=3"], seed=3)
    assert read_record(tmp_path / "run")["status"] == "running"
    record.update(metrics={"val/co_bps": 0.25}, checkpoints={"best": tmp_path / "best.ckpt"})
    record.close("finished", metrics={"test/co_bps": torch.tensor(0.5), "val/vel_r2": np.float32("nan")})

    saved = read_record(tmp_path / "run" / "run.json")
    assert saved["status"] == "finished" and saved["error"] is None
    assert saved["metrics"] == {"val/co_bps": 0.25, "test/co_bps": 0.5, "val/vel_r2": None}
    assert saved["checkpoints"] == {"best": str(tmp_path / "best.ckpt")}
    assert saved["config"] == {"model": {"hidden": 8}} and saved["seed"] == 3 and saved["overrides"] == ["seed=3"]
    assert saved["wall_s"] >= 0 and saved["peak_memory"]["rss_mb"] > 10
    assert saved["versions"]["torch"] == metadata.version("torch")
    assert set(saved["versions"]) == {
        "python",
        "torch",
        "pytorch_lightning",
        "hydra_core",
        "numpy",
        "neuro_lightning",
        "nlb_tools",
    }
    assert os.listdir(tmp_path / "run") == ["run.json"]


def test_a_failed_run_keeps_its_error(tmp_path):
    record = RunRecord(tmp_path)
    record.start(config={})
    record.fail(DataError("mc_rtt.nwb: truncated"))
    assert read_record(tmp_path)["status"] == "failed"
    assert read_record(tmp_path)["error"] == "DataError: mc_rtt.nwb: truncated"


def test_a_resumed_run_keeps_its_record(tmp_path):
    first = RunRecord(tmp_path)
    first.start(config={}, seed=1)
    first.update(wall_s=100.0, started="2020-01-01T00:00:00+00:00", run_id="abc", baseline={"val/co_bps": 0.1})
    second = RunRecord(tmp_path, resumed=True)
    second.start(config={}, seed=1)
    second.close("finished")
    saved = read_record(tmp_path)
    assert second.run_id == saved["run_id"] == "abc"
    assert saved["wall_s"] >= 100 and saved["started"].startswith("2020")
    assert saved["baseline"] == {"val/co_bps": 0.1}

    fresh = RunRecord(tmp_path)  # not resumed: an old result must not survive into a new run
    fresh.start(config={})
    assert "baseline" not in read_record(tmp_path) and read_record(tmp_path)["ended"] is None


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    RunRecord(tmp_path).start(config={})
    assert not (tmp_path / "run.json").exists()


def test_the_json_is_strict_and_whole(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": float("inf"), "b": np.arange(3), "c": {1: (float("nan"), torch.ones(2))}, "d": {7}})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [0, 1, 2],
        "c": {"1": [None, [1.0, 1.0]]},
        "d": [7],
    }
    with pytest.raises(RuntimeError):
        write_json(path, {"bad": Unwritable()})
    assert json.loads(path.read_text())["d"] == [7], "a failed write must leave the old file"
    assert os.listdir(tmp_path) == ["run.json"]


class Unwritable:
    def __str__(self):
        raise RuntimeError


def test_unreadable_records(tmp_path):
    with pytest.raises(DataError, match=r"no such file.*folder of a run"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(DataError, match="is damaged"):
        read_record(tmp_path)


def test_data_identity(tmp_path):
    file = tmp_path / "a.nwb"
    file.write_bytes(b"spikes")
    trials = Trials(heldin=np.zeros((3, 4, 5)))
    recording = Recording(
        "twin",
        5,
        {"train": trials, "val": trials},
        np.arange(5),
        simulated=True,
        sources=[{"path": str(file), "size": 6}, {"path": "gone.nwb", "size": 1, "sha256": "ff"}],
    )
    identity = data_record(recording, phase="val")
    known = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert identity["sources"] == [
        {"path": str(file), "size": 6, "sha256": known},
        {"path": str(Path("gone.nwb").absolute()), "size": 1, "sha256": "ff"},
    ]
    assert identity["simulated"] and identity["trials"] == {"train": 3, "val": 3}
    assert identity["params"] == {"phase": "val"}


def test_git_state(tmp_path):
    assert git_state(tmp_path) is None

    def git(*command):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *command],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "a")
    assert git_state(tmp_path)["dirty"] is False and len(git_state(tmp_path)["commit"]) == 40
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    (tmp_path / "installed").mkdir()  # untracked: not this repository's code
    (tmp_path / "installed" / "b.py").write_text("3")
    assert git_state(tmp_path / "installed") is None


def test_peak_memory_is_that_of_the_run():
    ballast = np.ones(30_000_000)
    large = PeakMemory()
    assert large.read()["rss_mb"] > ballast.nbytes / 1e6
    del ballast
    small = PeakMemory()
    if small.read()["of_process"]:
        pytest.skip("this system cannot forget an earlier peak")
    assert small.read()["rss_mb"] < large.read()["rss_mb"] + 1
    before = small.read()["rss_mb"]
    ballast = np.ones(30_000_000)
    assert small.read()["rss_mb"] > before + 0.9e-6 * ballast.nbytes


def test_stable_id(tmp_path):
    assert stable_id(tmp_path / "a") == stable_id(str(tmp_path / "b" / ".." / "a")) != stable_id(tmp_path / "b")


def test_flat_overrides():
    overrides = [
        "model=gru",
        "+model.hidden=8",
        "++seed=1",
        "~trainer.x",
        "optimizer.lr=1e-3",
        "data.simulate=true",
        "hydra.run.dir=a",
        "hydra/launcher=joblib",
        "name='a b'",
        "n=null",
    ]
    assert flat_overrides(overrides) == {
        "model": "gru",
        "model.hidden": 8,
        "seed": 1,
        "optimizer.lr": 1e-3,
        "data.simulate": True,
        "name": "a b",
        "n": None,
    }
