"""A checkpoint opens safely, needs nothing but itself, and says of itself what is true."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, checkpoint, here, record, rows

from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.loading import load_checkpoint, read_checkpoint
from neuro_lightning.runs.evaluation import evaluate, network_predictor
from neuro_lightning.settings.config import instantiate

EMA = "+callbacks.ema={_target_:pytorch_lightning.callbacks.EMAWeightAveraging,decay:0.7}"


def tiny(**changes):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=TINY)
    cfg.data.update(changes)
    return instantiate(cfg.data, trusted=["tiny"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return here(tmp_path_factory.mktemp("run"), "model.optimizer.lr=0.05", "trainer.max_epochs=4")


def test_every_checkpoint_opens_without_trust_and_rebuilds_its_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tiny.Tiny.load", lambda self: pytest.fail("no data are needed"))
    inputs = torch.poisson(torch.ones(5, 12, 6))
    for name in ("best.ckpt", "last.ckpt"):
        content = checkpoint(run.folder, name)  # weights_only=True
        saved = load_checkpoint(run.folder / "checkpoints" / name)
        assert not saved.model.training and saved.spec.dataset == "tiny" and saved.data["n_train"] == 37
        assert saved.model.net.state_dict().keys() == {
            key.removeprefix("net.") for key in content["state_dict"] if key.startswith("net.")
        }
        for key, weight in saved.model.net.state_dict().items():
            assert torch.equal(weight, content["state_dict"][f"net.{key}"])
        rates = saved.model(inputs)["log_rates"]
        assert torch.equal(rates, load_checkpoint(run.folder / "checkpoints" / name).model(inputs)["log_rates"])
    assert load_checkpoint(run.folder).path.name == "best.ckpt", "a folder stands for its best checkpoint"


def test_the_objective_is_the_score_of_the_saved_checkpoint(run):
    """As returned, as in run.json, as logged at the best validation, and as computed anew from the file."""
    saved = load_checkpoint(run.folder)
    anew = evaluate(network_predictor(saved.model.net), tiny(), "val")
    assert anew["co_bps"] == run.score == record(run.folder)["objective"]["value"]
    assert record(run.folder)["metrics"]["val/co_bps"] == run.score
    logged = [float(row["val/co_bps"]) for row in rows(run.folder)]
    assert max(logged) == pytest.approx(run.score, rel=1e-6)
    row = rows(run.folder)[logged.index(max(logged))]
    for name, value in anew.items():
        assert float(row[f"val/{name}"]) == pytest.approx(value, rel=1e-5), name
    assert int(row["epoch"]) == read_checkpoint(run.folder)["epoch"]


def test_the_best_is_not_the_last(tmp_path):
    """Training with a rate that spoils the network: the score is that of the checkpoint, not of the last epoch."""
    run = here(tmp_path, "model.optimizer.lr=0.3", "trainer.max_epochs=6", "scheduler@model.scheduler=none")
    logged = [float(row["val/co_bps"]) for row in rows(tmp_path)]
    assert logged.index(max(logged)) < 5 and run.score == pytest.approx(max(logged), rel=1e-6)
    assert evaluate(network_predictor(load_checkpoint(tmp_path).model.net), tiny(), "val")["co_bps"] == run.score
    assert checkpoint(tmp_path, "last.ckpt")["global_step"] == 24, "and a resumed run does not begin at the best again"


def test_averaged_weights_are_what_is_saved_and_scored(tmp_path):
    plain = here(tmp_path / "plain", "model.optimizer.lr=0.05")
    averaged = here(tmp_path / "averaged", "model.optimizer.lr=0.05", EMA)
    content = checkpoint(averaged.folder, "last.ckpt")
    raw, mean = content["current_model_state"], content["state_dict"]
    weights = checkpoint(plain.folder, "last.ckpt")["state_dict"]
    assert all(torch.equal(raw[key], weights[key]) for key in weights), "averaging does not touch the training"
    assert not any(torch.equal(mean[key], raw[key]) for key in weights if key.startswith("net.core.gru.weight"))
    anew = evaluate(network_predictor(load_checkpoint(averaged.folder).model.net), tiny(), "val")
    assert anew["co_bps"] == averaged.score != plain.score
    logged = [float(row["val/co_bps"]) for row in rows(averaged.folder)]
    assert max(logged) == pytest.approx(averaged.score, rel=1e-6)


def test_a_run_that_diverges_is_worse_than_any_other(tmp_path):
    for monitor, worst in (("max", -math.inf), ("min", math.inf)):
        folder = tmp_path / monitor
        names = ["monitor=val/co_bps"] if monitor == "max" else ["monitor=val/loss", "mode=min"]
        run = here(folder, "model.optimizer.lr=1e9", "trainer.gradient_clip_val=null", *names)
        after = record(folder)
        assert run.score == worst and after["status"] == "diverged" and "never finite" in after["error"]
        assert after["objective"]["value"] is None, "JSON has no infinity, and no number is made up"


def test_damaged_and_foreign_files_are_one_error(run, tmp_path):
    whole = (run.folder / "checkpoints" / "best.ckpt").read_bytes()
    content = checkpoint(run.folder, "best.ckpt")
    recipe = content["neuro_lightning"]
    files = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a checkpoint",
        "flipped": whole[:5000] + bytes(1000) + whole[6000:],
    }
    contents = {
        "foreign": {"state_dict": content["state_dict"]},
        "tensor": torch.ones(3),
        "smaller": {**content, "neuro_lightning": {**recipe, "model": {**recipe["model"], "hidden": 5}}},
        "other neurons": {**content, "neuro_lightning": {**recipe, "spec": {**recipe["spec"], "n_in": 5}}},
        "no readout": {**content, "state_dict": {k: v for k, v in content["state_dict"].items() if "readout" not in k}},
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, data in contents.items():
        torch.save(data, tmp_path / name)
    for name in [*files, *contents]:
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"give a \.ckpt file or a run's folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_checkpoint_cannot_execute_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"neuro_lightning": Harm()}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "harm").exists()
