"""Runs in W&B's files: modes, resumes, summaries, artifacts."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_files import artifacts, build, history, no_account, read_wandb, run_record, summary  # noqa: F401

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.loggers.building import (
    close_loggers,
    log_artifact,
    log_checkpoint,
    log_predictions,
    log_summary,
)


def test_an_offline_run_has_config_history_and_summary(tmp_path, capfd):
    loggers = build(tmp_path, group="sweep", tags=["lorenz", "gru"], swept={"model.hidden": 8, "seed": 1})
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 and "offline (no API key" in lines[0]
    folder = lines[1].split("wandb sync ")[1]
    assert Path(folder).is_dir() and Path(folder).parent == tmp_path / "wandb"
    for step, score in enumerate([0.1, 0.3, 0.2]):
        for logger in loggers:
            logger.log_metrics({"val/co_bps": score, "val/loss": score, "train/loss": 1.0}, step=step)
    log_summary(loggers, {"test/co_bps": 0.4, "test/vel_r2": None, "val/co_bps": 0.3, "objective": float("inf"),
                          "status": "finished"})  # fmt: skip
    close_loggers(loggers)
    assert capfd.readouterr() == ("", ""), "W&B must not talk in the terminal"

    (records,) = read_wandb(tmp_path)
    run = run_record(records)
    assert (run.run_id, run.project, run.display_name) == ("abc", "p", "gru-lorenz-0")
    assert (run.run_group, run.job_type, list(run.tags)) == ("sweep", "train", ["lorenz", "gru"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["model"] == {"hidden": 8}
    assert {key: value for key, value in config.items() if key.startswith("sweep/")} == {
        "sweep/model.hidden": 8, "sweep/seed": 1,
    }  # fmt: skip
    rows = history(records)
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2]
    assert rows[1]["val/co_bps"] == 0.3 and rows[1]["train/loss"] == 1.0
    metrics = {
        r.metric.name or r.metric.glob_name: (i, r.metric) for i, r in enumerate(records) if r.HasField("metric")
    }
    first = next(i for i, record in enumerate(records) if record.HasField("history"))
    assert all(i < first for i, _ in metrics.values()), "axes and summaries are defined before the first value"
    assert metrics["val/loss"][1].summary.min and not metrics["val/loss"][1].summary.max
    assert metrics["val/co_bps"][1].summary.max and metrics["val/co_bps"][1].step_metric == "trainer/global_step"
    assert metrics["*"][1].step_metric == "trainer/global_step"
    found = summary(records)
    assert found["val/co_bps"] == {"max": 0.3} and found["val/loss"] == {"min": 0.1}, "the best, not the last"
    assert found["best/val/co_bps"] == 0.3 and found["test/co_bps"] == 0.4 and found["status"] == "finished"
    assert "test/vel_r2" not in found and "objective" not in found
    assert next(r.exit.exit_code for r in records if r.HasField("exit")) == 0


def test_two_jobs_in_one_process_are_two_runs(tmp_path):
    for job, code in (("a", 0), ("b", 1)):
        loggers = build(tmp_path / job, run_id=job)
        for logger in loggers:
            logger.log_metrics({"val/loss": 1.0}, step=0)
        close_loggers(loggers, exit_code=code)
    build(tmp_path / "c", run_id="c")  # never closed
    loggers = build(tmp_path / "d", run_id="d")
    close_loggers(loggers)
    runs = read_wandb(tmp_path)
    assert [run_record(records).run_id for records in runs] == ["a", "b", "c", "d"]
    codes = [[r.exit.exit_code for r in records if r.HasField("exit")] for records in runs]
    assert codes == [[0], [1], [0], [0]]
    assert [len(history(records)) for records in runs] == [1, 1, 0, 0]


def test_a_resumed_offline_run_holds_the_whole_history(tmp_path):
    for resumed, steps in ((None, (0, 1, 2, 3)), (2, (2, 3, 4))):
        loggers = build(tmp_path, resumed_step=resumed)
        for step in steps:
            for logger in loggers:
                logger.log_metrics({"val/loss": 1.0 + step}, step=step)
        close_loggers(loggers)
        time.sleep(1.1)  # W&B names a run's folder by the second
    first, second = read_wandb(tmp_path)
    assert run_record(first).run_id == run_record(second).run_id == "abc"
    assert [row["trainer/global_step"] for row in history(second)] == [0, 1, 2, 3, 4]
    assert [row["val/loss"] for row in history(second)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("environment", "mode", "line"),
    [
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}, "online", "offline (WANDB_MODE=offline)"),
        ({"WANDB_MODE": "disabled"}, "offline", "off (WANDB_MODE=disabled)"),
        ({"WANDB_API_KEY": "k" * 40}, "offline", "offline (logger.wandb.mode=offline)"),
        ({}, "online", "offline (no API key; wandb login stores one)"),
    ],
)
def test_which_mode(tmp_path, monkeypatch, capfd, environment, mode, line):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loggers = build(tmp_path, {"wandb": {"project": "p", "mode": mode}})
    close_loggers(loggers)
    out = capfd.readouterr().out
    assert out.startswith(f"W&B     {line}") and out.count("wandb sync") == ("offline" in line)
    assert len(loggers) == len(read_wandb(tmp_path)) == ("disabled" not in line)


@pytest.mark.parametrize(("place", "resumed"), [("environment", None), ("netrc", 3)])
def test_online_with_a_key_and_offline_without_a_connection(tmp_path, monkeypatch, capfd, place, resumed):
    import wandb

    if place == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    else:
        host = wandb.setup().settings.base_url.removeprefix("https://")
        (tmp_path / "netrc").write_text(f"machine {host} login user password {'k' * 40}\n")
        (tmp_path / "netrc").chmod(0o600)
    asked, init = [], wandb.init

    def no_network(**settings):
        asked.append((settings["mode"], settings.get("resume")))
        if settings["mode"] == "online":
            raise wandb.errors.CommError("the server did not answer\nin time")
        return init(**settings)

    monkeypatch.setattr(wandb, "init", no_network)
    close_loggers(build(tmp_path, resumed_step=resumed))
    # a new run in the same folder has the same id, and replaces the old one
    assert asked == [("online", None if resumed is None else "allow"), ("offline", None)]
    assert "W&B     offline (no connection: the server did not answer); upload with" in capfd.readouterr().out
    assert len(read_wandb(tmp_path)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are counted in /proc")
def test_offline_opens_no_sockets(tmp_path, monkeypatch):
    connected = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: connected.append(a) or pytest.fail("name look-up"))
    before = internet_sockets()
    loggers = build(tmp_path)
    for logger in loggers:
        logger.log_metrics({"val/loss": 1.0}, step=0)
    during = internet_sockets()
    close_loggers(loggers)
    assert not connected and during <= before


def internet_sockets():
    """The internet sockets of this process and its descendants (W&B's service is one), by inode."""
    families = ("tcp", "tcp6", "udp", "udp6")
    inodes = {line.split()[9] for name in families for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]}
    pids = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    parents = dict(zip(map(int, pids[::2]), map(int, pids[1::2]), strict=True))
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    held = set()
    for pid in family:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                held.add(target[8:-1])
    return held & inodes


def test_only_the_main_process_logs(tmp_path, monkeypatch, capfd):
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # which Lightning takes from there at its import
    loggers = build(tmp_path)
    for logger in loggers:
        logger.log_metrics({"val/loss": 1.0}, step=0)
    close_loggers(loggers)
    assert len(loggers) == 2 and capfd.readouterr().out == "" and os.listdir(tmp_path) == []


def test_metrics_where_less_is_better_have_their_lowest_value(tmp_path):
    loggers = build(tmp_path)
    for step, value in enumerate([0.5, 0.2, 0.9]):
        for logger in loggers:
            logger.log_metrics({f"val/{name}": value for name in ("rmse", "tp_corr", "corr")}, step=step)
            logger.log_metrics({"train/loss": value}, step=step)
    close_loggers(loggers)
    found = summary(read_wandb(tmp_path)[0])
    assert found["val/rmse"] == found["val/tp_corr"] == {"min": 0.2} and found["val/corr"] == {"max": 0.9}
    assert found["train/loss"] == 0.9


# ---- artifacts


@pytest.mark.parametrize(("keeps", "count"), [(True, 1), ("online", 0), (False, 0)])
def test_the_best_checkpoint_is_kept_where_that_is_asked_for(tmp_path, keeps, count):
    loggers = build(tmp_path, {"csv": {}, "wandb": {"project": "p", "mode": "offline", "checkpoint": keeps}})
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    log_checkpoint(loggers, tmp_path / "best.ckpt", {"name": "val/co_bps", "value": 0.3, "end": float("inf")})
    log_checkpoint(loggers, None, {})  # a run that kept none
    close_loggers(loggers)
    (records,) = read_wandb(tmp_path)
    found = artifacts(records)
    assert len(found) == count
    if found:
        assert (found[0].name, found[0].type, sorted(found[0].aliases)) == (
            "checkpoint-abc",
            "model",
            ["best", "latest"],
        )
        assert json.loads(found[0].metadata) == {"name": "val/co_bps", "value": 0.3, "end": None}
        assert [(file.path, file.size) for file in found[0].manifest.contents] == [("best.ckpt", 7)]


def test_any_file_of_a_run(tmp_path):
    loggers = build(tmp_path)
    (tmp_path / "rates.h5").write_bytes(b"12345")
    log_artifact(loggers, tmp_path / "rates.h5", name="rates", kind="predictions", metadata={"n": 2})
    close_loggers(loggers)
    (found,) = artifacts(read_wandb(tmp_path)[0])
    assert (found.name, found.type, list(found.aliases)) == ("rates", "predictions", ["latest"])


@pytest.mark.parametrize("in_sweep", [True, False])
def test_predictions_are_a_run_of_their_own_in_the_group(tmp_path, in_sweep):
    """Under the training's id they would replace it when both are synchronized."""
    sweep = tmp_path / "sweep"
    members = [sweep / name / "checkpoints" / "best.ckpt" for name in ("0_a", "1_b")]
    for i, member in enumerate(members):
        member.parent.mkdir(parents=True)
        config = {"logger": {"csv": {}, "wandb": {"project": "q", "mode": "offline", "checkpoint": True}}}
        write_json(member.parents[1] / "run.json", {"run_id": f"id{i}", "config": config, "data": {"name": "mc_rtt"}})
    if in_sweep:
        (sweep / "multirun.yaml").write_text("hydra: {}")
    path = tmp_path / "submission.h5"
    path.write_bytes(b"rates")
    log_predictions(path, members, {"val/co_bps": 0.4, "members": 2})
    (records,) = read_wandb(tmp_path / "wandb")
    run = run_record(records)
    assert (run.job_type, run.project, run.display_name, list(run.tags)) == ("predict", "q", path.name, ["mc_rtt"])
    assert run.run_group == ("sweep" if in_sweep else "") and run.run_id not in ("id0", "id1")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["runs"] == ["id0", "id1"] and config["checkpoints"] == [str(member) for member in members]
    (found,) = artifacts(records)
    assert (found.name, found.type) == ("predictions-submission", "predictions")
    assert json.loads(found.metadata) == {"val/co_bps": 0.4, "members": 2}
    assert summary(records)["best/val/co_bps"] == 0.4
    assert next(r.exit.exit_code for r in records if r.HasField("exit")) == 0
    assert not (tmp_path / "metrics.csv").exists()
