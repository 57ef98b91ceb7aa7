import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from neuro_lightning.artifacts.metrics_csv import read_metrics
from neuro_lightning.artifacts.records import write_json
from neuro_lightning.errors import ConfigError
from neuro_lightning.loggers.building import (
    MetricsCSV,
    build_loggers,
    close_loggers,
    log_artifact,
    log_checkpoint,
    log_figure,
    log_predictions,
    log_summary,
)

CONF = Path(__file__).parent.parent / "conf" / "logger"


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path, tmp_path_factory):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.getbasetemp()))  # of artifacts before their upload


def build(folder, options=None, **settings):
    options = {"csv": {}, "wandb": {"project": "p", "entity": None, "mode": "auto"}} if options is None else options
    settings = {"config": {"model": {"hidden": 8}}, "name": "gru-lorenz-0", "run_id": "abc"} | settings
    return build_loggers(options, output_dir=folder, **settings)


def read_wandb(folder, seconds=60):
    """The records of every .wandb file under ``folder``, oldest first; W&B's service may still be writing them."""
    paths = sorted(Path(folder).rglob("*.wandb"), key=lambda path: path.parent.name)
    end = time.monotonic() + seconds
    while True:
        runs = [parse_wandb(path.read_bytes()) for path in paths]
        if all(records and any(r.HasField("exit") for r in records) for records in runs) or time.monotonic() > end:
            return runs
        time.sleep(0.05)


def parse_wandb(data):
    """A log of blocks of 32 KiB after a header of 7 bytes; chunks with 7 bytes of header, of which 3 say how long."""
    from wandb.proto import wandb_internal_pb2

    at, parts, records = 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + length > len(data):
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def history(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


def summary(records):
    found = {}
    for record in records:
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def artifacts(records):
    return [record.artifact for record in records if record.HasField("artifact")]


def run_record(records):
    return next(record.run for record in records if record.WhichOneof("record_type") == "run")


# ---- metrics.csv


def test_metrics_csv_has_one_row_for_each_step(tmp_path):
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=4)
    logger.log_metrics({"val/co_bps": torch.tensor(0.25), "epoch": 0}, step=4)
    logger.log_metrics({"epoch": 1, "train/loss": 1 / 3}, step=9)
    logger.log_metrics({"val/co_bps": float("nan")}, step=9)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,epoch,train/loss,val/co_bps\n4,0,0.5,0.25\n9,1,0.3333333333333333,nan\n"
    )
    columns = read_metrics(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(columns["step"], [4, 9])
    np.testing.assert_array_equal(columns["val/co_bps"], [0.25, np.nan])
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_resumed_run_appends_without_the_steps_after_its_checkpoint(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def log(logger, steps):
        for step in steps:
            logger.log_metrics({"epoch": step // 2, "train/loss": 1 / (step + 1)}, step=step)
            if step % 2:
                logger.log_metrics({"epoch": step // 2, "val/co_bps": step / 10}, step=step)

    log(MetricsCSV(whole), range(10))
    log(MetricsCSV(parts), range(7))
    with open(parts / "metrics.csv", "a") as file:
        file.write("7,3,0.1")  # the process was killed while it wrote
    log(MetricsCSV(parts, resumed_step=4), range(4, 10))
    assert (parts / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()

    MetricsCSV(parts)  # a new run in the same folder starts a new file
    assert (parts / "metrics.csv").read_text() == "step,epoch\n"


def test_a_resumed_run_completes_the_last_row(tmp_path):
    first = MetricsCSV(tmp_path)
    first.log_metrics({"val/co_bps": 0.1, "epoch": 0}, step=3)
    second = MetricsCSV(tmp_path, resumed_step=4)
    second.log_metrics({"train/loss": 2.0, "epoch": 0}, step=3)  # logged after the checkpoint was saved
    second.log_metrics({"train/loss": 1.0, "epoch": 1}, step=7)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "step,epoch,val/co_bps,train/loss\n3,0,0.1,2.0\n7,1,,1.0\n"


class Toy(pl.LightningModule):
    """A regression that logs as our models do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val/loss", (self.layer(batch[0]) ** 2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, epochs, resume=None):
    step = None if resume is None else torch.load(resume, weights_only=True)["global_step"]
    logger = MetricsCSV(folder, resumed_step=step)
    checkpoints = pl.callbacks.ModelCheckpoint(
        dirpath=folder, filename="{epoch}", save_top_k=-1, auto_insert_metric_name=False
    )
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=[logger],
        callbacks=[checkpoints],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer.fit(Toy(), data, data, ckpt_path=resume, weights_only=True)
    return (folder / "metrics.csv").read_text()


def test_lightning_writes_the_same_file_with_and_without_a_stop(tmp_path):
    whole = fit(tmp_path / "whole", 4)
    assert [line.split(",")[0] for line in whole.splitlines()] == ["step", "2", "5", "8", "11"]
    fit(tmp_path / "parts", 3)  # one epoch more than the checkpoint below knows
    assert fit(tmp_path / "parts", 4, resume=tmp_path / "parts" / "1.ckpt") == whole


# ---- W&B


def test_an_offline_run_holds_everything(tmp_path, capfd):
    loggers = build(tmp_path, group="sweep", tags=["lorenz", "gru"], swept={"model.hidden": 8, "seed": 1})
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 and "offline (no API key" in lines[0]
    folder = lines[0].split("wandb sync ")[1]
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
    assert out.startswith(f"W&B: {line}") and out.count("\n") == 1
    assert len(loggers) == len(read_wandb(tmp_path)) == ("disabled" not in line)


@pytest.mark.parametrize(("place", "resumed"), [("environment", None), ("netrc", 3)])
def test_a_key_means_online_and_a_dead_line_offline(tmp_path, monkeypatch, capfd, place, resumed):
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
    assert "W&B: offline (no connection: the server did not answer); upload with" in capfd.readouterr().out
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


def test_other_processes_stay_silent(tmp_path, monkeypatch, capfd):
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


# ---- figures, TensorBoard, configs


def test_figures_reach_wandb_and_tensorboard(tmp_path):
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"csv": {}, "wandb": {"project": "p", "entity": None, "mode": "auto"}, "tensorboard": {}}
    loggers = build(tmp_path, options)
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().plot([0, 1])
    figure.savefig(tmp_path / "rates.png")
    log_figure(loggers, "figures/rates", tmp_path / "rates.png", step=7)
    log_figure(loggers, "figures/curve", tmp_path / "rates.png", step=8)
    loggers[2].log_metrics({"val/loss": 1.0}, step=7)
    close_loggers(loggers)

    rows = history(read_wandb(tmp_path)[0])
    assert [row["trainer/global_step"] for row in rows] == [7, 8]
    assert rows[0]["figures/rates/width"] == 100
    assert len(list(tmp_path.rglob("media/images/figures/*.png"))) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert (events.Images("figures/curve")[0].width, events.Images("figures/curve")[0].step) == (100, 8)
    assert events.Scalars("val/loss")[0].value == 1.0
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch\n"


@pytest.mark.parametrize(("kind", "count"), [("csv", 1), ("wandb", 2), ("tensorboard", 2), ("none", 0)])
def test_the_configs(tmp_path, kind, count):
    own = yaml.safe_load((CONF / f"{kind}.yaml").read_text())
    defaults = own.pop("defaults", [])
    options = {k: v for name in defaults for k, v in yaml.safe_load((CONF / f"{name}.yaml").read_text()).items()} | own
    loggers = build(tmp_path, options)
    assert len(loggers) == count and (tmp_path / "metrics.csv").exists() == (kind != "none")
    close_loggers(loggers)


def test_tensorboard_has_hyperparameters_and_final_values(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    loggers = build(tmp_path, {"tensorboard": {}}, config={"model": {"hidden": 8}, "tags": ["a"], "name": None})
    loggers[0].log_metrics({"val/co_bps": 0.1}, step=3)
    log_summary(loggers, {"val/co_bps": 0.3, "test/co_bps": 0.25, "objective": 0.3, "status": "finished", "x": None})
    close_loggers(loggers)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val/co_bps")] == pytest.approx([0.1])
    for name, value in {"best/val/co_bps": 0.3, "test/co_bps": 0.25, "objective": 0.3}.items():
        assert events.Scalars(name)[0].value == pytest.approx(value)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert HParamsPluginData.FromString(content).session_start_info.hparams["model/hidden"].number_value == 8


class OwnLogger(Logger):
    name, version = "own", 0

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def log_hyperparams(self, params):
        self.seen.append(params)

    def log_metrics(self, metrics, step=None):
        self.seen.append(metrics)


def test_any_logger_that_a_config_may_build(tmp_path):
    here = __name__
    options = {"mine": {"_target_": f"{here}.OwnLogger", "folder": str(tmp_path)}}
    with pytest.raises(ConfigError, match="not in a trusted package"):
        build(tmp_path, options)
    (logger,) = build(tmp_path, options, config={"trusted": [here], "seed": 3})
    log_summary([logger], {"val/loss": 1.0, "status": "finished"})
    close_loggers([logger])
    assert logger.folder == str(tmp_path) and logger.seen == [{"trusted": [here], "seed": 3}, {"best/val/loss": 1.0}]


@pytest.mark.parametrize(
    ("kind", "module", "package"), [("mlflow", "mlflow", "mlflow"), ("comet", "comet_ml", "comet-ml")]
)
def test_a_missing_package_is_named_for_pip(tmp_path, kind, module, package):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with initialize_config_module("conf", version_base=None):
        cfg = compose("train", [f"logger={kind}", f"paths.output_dir={tmp_path}"])
    options = OmegaConf.to_container(cfg.logger, resolve=True)
    assert kind == "comet" or str(tmp_path) in str(options[kind])  # Comet is told by its environment
    with pytest.raises(ConfigError, match=f"logger.{kind} needs a package: pip install {package}$"):
        build(tmp_path, options)


def test_wrong_options(tmp_path):
    with pytest.raises(ConfigError, match=r"logger.wnb: no such logger; there are csv, wandb, tensorboard"):
        build(tmp_path, {"wnb": {}})
    with pytest.raises(
        ConfigError, match=r"logger.wandb.projekt: no such option; it takes project, entity, mode, checkp"
    ):
        build(tmp_path, {"wandb": {"projekt": "a"}})
    with pytest.raises(ConfigError, match=r"logger.wandb.mode=on: no such mode"):
        build(tmp_path, {"wandb": {"mode": "on"}})
    with pytest.raises(ConfigError, match=r"logger.wandb.checkpoint=best: give online, true or false"):
        build(tmp_path, {"wandb": {"checkpoint": "best"}})
