"""What a job leaves in W&B's files, offline: an upload shows just this."""

import json
import math
import os

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT, TINY, record, rows
from wandb_files import artifacts, history, no_account, read_wandb, run_record, summary  # noqa: F401

from neuro_lightning.artifacts.records import stable_id
from neuro_lightning.artifacts.sweep_jobs import varied_overrides
from neuro_lightning.loggers.sweep_run import log_sweep
from neuro_lightning.runs.predict import predict
from neuro_lightning.runs.train import train
from neuro_lightning.settings.config import check_config, to_plain
from neuro_lightning.settings.settings import TrainSettings


def job(folder, *overrides, group="searched"):
    """A job of a sweep in this process, logged to W&B."""
    words = [*TINY, "logger=wandb", *overrides]
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*words, f"paths.output_dir={folder}"])
    return train(cfg, [word for word in words if not word.startswith("hydra.")], group)


def begin(folder, *overrides):
    """What a sweeper writes before its first job."""
    folder.mkdir(parents=True)
    words = [*(word for word in TINY if not word.startswith("hydra.")), "logger=wandb", *overrides]
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": words}}}))


def only(folder):
    (records,) = read_wandb(folder)
    return records


def exit_code(records):
    return next(record.exit.exit_code for record in records if record.HasField("exit"))


def config_of(records):
    return {item.key: yaml.safe_load(item.value_json) for item in run_record(records).config.update}


def test_a_job_of_a_sweep(tmp_path):
    sweep, folder = tmp_path / "searched", tmp_path / "searched" / "3_tiny_gru"
    begin(sweep, "tags=[pilot]", "logger.wandb.checkpoint=true")
    score = job(folder, "tags=[pilot]", "logger.wandb.checkpoint=true", "model.hidden=5", "model.optimizer.lr=0.01",
                "sweep.trial=3", "seed=2")  # fmt: skip
    records = only(folder)
    run = run_record(records)
    assert (run.run_group, run.job_type, run.run_id) == ("searched", "train", stable_id(folder))
    assert (
        run.run_id == record(folder)["run_id"] and run.display_name == "3 model.hidden=5 model.optimizer.lr=0.01 seed=2"
    )
    assert sorted(run.tags) == ["gru", "pilot", "tiny"]
    config = config_of(records)
    assert {key: value for key, value in config.items() if key.startswith("sweep/")} == {
        "sweep/model.hidden": 5, "sweep/model.optimizer.lr": 0.01, "sweep/seed": 2,
    }  # fmt: skip
    assert config["model"]["hidden"] == 5
    sizes = {key.removeprefix("size/"): value for key, value in config.items() if key.startswith("size/")}
    assert sizes["parameters"] == record(folder)["parameters"] and sizes["train_trials"] == 37
    assert (sizes["heldin_neurons"], sizes["target_neurons"], sizes["val_trials"]) == (6, 4, 11)
    values = [float(row["val/co_bps"]) for row in rows(folder) if row["val/co_bps"]]
    assert [row["val/co_bps"] for row in history(records) if "val/co_bps" in row] == values
    found = summary(records)
    assert found["val/co_bps"] == {"max": max(values)}
    assert found["objective"] == found["best/val/co_bps"] == score and found["status"] == "finished"
    assert found["test/co_bps"] == record(folder)["metrics"]["test/co_bps"]
    (kept,) = artifacts(records)
    assert (kept.type, kept.name, sorted(kept.aliases)) == ("model", f"checkpoint-{run.run_id}", ["best", "latest"])
    assert kept.manifest.contents[0].size == (folder / "checkpoints" / "best.ckpt").stat().st_size
    assert exit_code(records) == 0


def scalars(values):
    return {name for name, value in values.items() if isinstance(value, int | float) and not name.startswith("_")}


def test_every_logger_gets_the_same(tmp_path, capfd):
    """Scalars, final values, lines and hyperparameters have the same names; W&B has tables and the console, too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "output.log").write_text("what was printed\n")
    job(tmp_path, "++logger.tensorboard={}", f"++logger.all={{_target_:tiny.Recorder,folder:'{tmp_path}'}}", group=None)
    records, events = only(tmp_path), EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = json.loads((tmp_path / "recorded.json").read_text())
    drawn, final = history(records), summary(records)
    names = set().union(*map(scalars, drawn)) | scalars(final)
    names = {name for name in names if not name.startswith(("neurons/", "trainer/"))}
    assert set(told["metrics"]) == set(events.Tags()["scalars"]) == names
    hyperparameters = {key: value for key, value in config_of(records).items() if key != "_wandb"}
    assert told["hyperparameters"].keys() == hyperparameters.keys() and "size/parameters" in hyperparameters

    scores = record(tmp_path)
    line = [(row["trainer/global_step"], row["oracle/val/co_bps"]) for row in drawn if "oracle/val/co_bps" in row]
    oracle = pytest.approx(scores["oracle"]["val"]["co_bps"])
    assert line == [(0, oracle), (scores["steps"], oracle)], "a line over the whole run"
    assert final["oracle/test/co_bps"] == pytest.approx(scores["oracle"]["test"]["co_bps"])
    assert final["mean_rate/val/co_bps"] == 0.0
    assert "oracle/val/co_bps" not in rows(tmp_path)[0], "metrics.csv has the run's own numbers"
    rates = [float(row["train/lr"]) for row in rows(tmp_path) if row["train/lr"]]
    assert len(rates) == 3 and rates[0] > 0
    (table,) = (tmp_path / "wandb").rglob("files/media/table/**/*.table.json")
    kept = json.loads(table.read_text())
    assert kept["columns"] == ["unit", "spikes", "rate (Hz)", "bits/spike"] and len(kept["data"]) == 4
    assert [row[3] for row in kept["data"]] == sorted((row[3] for row in kept["data"]), reverse=True)
    (console,) = (tmp_path / "wandb").glob("offline*/files/output.log")
    assert console.read_text() == "what was printed\n" and "wandb:" not in capfd.readouterr().err
    assert "output.log" in str([record.files for record in records if record.HasField("files")]), "it is uploaded"


def test_a_sweeps_table_is_a_run_of_its_group(tmp_path):
    options = {"project": "p", "entity": None, "mode": "offline", "checkpoint": True}
    log_sweep(tmp_path / "swept", options, ["job", "objective"], [["0_j", 0.5], ["1_j", None]])
    records = only(tmp_path / "swept")
    run = run_record(records)
    assert (run.display_name, run.run_group, run.job_type, run.project) == ("swept table", "swept", "sweep", "p")
    (table,) = (tmp_path / "swept").rglob("files/media/table/**/*.table.json")
    assert json.loads(table.read_text())["data"] == [["0_j", 0.5], ["1_j", None]] and exit_code(records) == 0


def test_a_job_that_fails_is_closed_as_failed_and_the_next_is_another_run(tmp_path):
    fail = ["+callbacks.fail._target_=tiny.Fail", "+callbacks.fail.process=0", "+callbacks.fail.early=false"]
    with pytest.raises(RuntimeError, match="failed at work"):
        job(tmp_path / "0_j", *fail)
    job(tmp_path / "1_j", "trainer.max_epochs=1")
    first, second = only(tmp_path / "0_j"), only(tmp_path / "1_j")
    assert (exit_code(first), exit_code(second)) == (1, 0)
    assert run_record(first).run_id != run_record(second).run_id
    assert run_record(first).run_group == run_record(second).run_group == "searched"
    assert "status" not in summary(first) and not artifacts(first) and not artifacts(second)


def test_a_paused_job_is_resumed_as_the_same_run(tmp_path):
    """The last file holds the whole history: synchronized after the others, it is the picture of an unbroken run."""
    whole, rested = tmp_path / "whole", tmp_path / "rested"
    job(whole, "logger.wandb.checkpoint=true")
    job(rested, "sweep.until=1", "logger.wandb.checkpoint=true")
    os.rename(rested / "wandb", tmp_path / "first")  # W&B names a run's folder by the second
    first = only(tmp_path / "first")
    assert exit_code(first) == 0 and summary(first)["status"] == "paused" and not artifacts(first)
    job(rested, f"resume={rested / 'checkpoints' / 'last.ckpt'}", "logger.wandb.checkpoint=true")
    second, unbroken = only(rested), only(whole)
    assert run_record(first).run_id == run_record(second).run_id == stable_id(rested)

    def told(records):
        numbers = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in by_step(records)]
        return [{key: value for key, value in row.items() if not math.isnan(value)} for row in numbers]

    # three epochs, and both ends of the lines that stay where they are
    assert told(second) == told(unbroken) and len(told(second)) == 5
    for key in ("val/co_bps", "objective", "best/val/co_bps", "status"):
        assert summary(second)[key] == summary(unbroken)[key]
    assert len(artifacts(second)) == 1


def by_step(records):
    """The history as W&B draws it: one point for each global step."""
    points = {}
    for row in history(records):
        points.setdefault(row["trainer/global_step"], {}).update(row)
    return [points[step] for step in sorted(points)]


def test_what_a_sweep_varies(tmp_path):
    begin(tmp_path / "s", "model.hidden=4,5", "fast=true")
    words = ["data=tiny", "model=gru", "model.hidden=4", "+fast=True", "++new=1", "sweep.trial=3", "resume=x"]
    assert varied_overrides(tmp_path / "s" / "0_j", words) == {"model.hidden": 4, "new": 1}
    assert varied_overrides(tmp_path / "elsewhere" / "0_j", ["a=1", "sweep.trial=3"]) == {"a": 1}


# ---- conf/wandb_sweep.yaml


def sample(parameter):
    """One value of a parameter, as W&B's controller would send it."""
    if "values" in parameter:
        return parameter["values"][-1]
    low, high = parameter["min"], parameter["max"]
    assert parameter["distribution"] in ("uniform", "log_uniform_values") and 0 < low < high
    return math.sqrt(low * high)


@pytest.fixture
def wandb_sweep():
    return yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())


def test_the_example_drives_train(wandb_sweep, monkeypatch):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    values = {key: sample(parameter) for key, parameter in wandb_sweep["parameters"].items()}
    sent = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    sent |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [wandb_sweep["program"]]}
    command = []
    for word in create_sweep_command(wandb_sweep["command"]):
        whole = word.startswith("${") and word.endswith("}")  # as the agent does it
        command += sent[word[2:-1]] if whole else [word]
    assert command[:3] == ["/usr/bin/env", "python", "train.py"] and (ROOT / command[2]).is_file()
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "xyz")
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=command[3:], return_hydra_config=True)
    assert cfg.hydra.run.dir == "multirun/wandb_abc/xyz"
    for key, value in values.items():
        assert OmegaConf.select(cfg, key) == value, f"{key} is not swept"
    job = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in ("hydra", "paths")])
    check_config(job, known=TrainSettings.config_keys())
    assert "wandb" in cfg.logger


def test_the_example_optimizes_what_runs_report(wandb_sweep):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=["data=lorenz", "model=gru", "paths.output_dir=x"])
    assert {"max": "maximize", "min": "minimize"}[to_plain(cfg)["mode"]] == wandb_sweep["metric"]["goal"]
    assert wandb_sweep["metric"]["name"] == "objective"  # see test_a_job_of_a_sweep
    assert wandb_sweep["method"] in ("bayes", "random", "grid") and wandb_sweep["project"] == cfg.logger.wandb.project


def test_predictions_are_kept_when_asked(tmp_path):
    """``predict.py log=true``: an artifact with its scores, in a run of its own."""
    job(tmp_path / "sweep" / "0_tiny_gru")
    for word in ("false", "true"):
        with initialize_config_dir(str(ROOT / "conf")):
            overrides = [f"ckpt={tmp_path}/sweep/0_tiny_gru", "trusted=[tiny]", f"log={word}"]
            path = predict(compose("predict", overrides=[*overrides, f"file={tmp_path / word / 'rates.h5'}"]))
        assert (path.parent / "wandb").is_dir() == (word == "true")
    records = only(tmp_path / "true")
    assert run_record(records).job_type == "predict" and [a.type for a in artifacts(records)] == ["predictions"]
    scores = record(tmp_path / "sweep/0_tiny_gru")["metrics"]
    assert summary(records)["test/co_bps"] == pytest.approx(scores["test/co_bps"])
