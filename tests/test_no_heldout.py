"""Data of which no neuron is held out: what chooses the checkpoint, what is scored, what is written."""

import math

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT, TINY, here, record, rows
from test_nwb_trials import STARTS, random_spikes, write

from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.describe import labelled
from neuro_lightning.data.recording import Trials
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.models.smoothing import FLOOR, SmoothingNet
from neuro_lightning.runs.predict import predict
from neuro_lightning.settings.settings import TrainSettings

ALL_IN = ["+data.heldout=false"]


def written(*words):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=["trusted=[tiny]", *words])
    path = predict(cfg)
    with h5py.File(path) as file:
        return file["test/predictions"][()]


def test_the_forward_bins_choose_where_there_are_some(tmp_path, capsys):
    run = here(tmp_path, *ALL_IN, "scheduler@model.scheduler=plateau", "callbacks=default")
    shown, found = " ".join(capsys.readouterr().out.split()), record(tmp_path)
    assert found["objective"]["name"] == "val/fp_bps" and run.score == found["metrics"]["val/fp_bps"]
    assert "No neurons are held out: val/fp_bps, forward prediction" in shown
    assert max(float(row["val/fp_bps"]) for row in rows(tmp_path) if row["val/fp_bps"]) == pytest.approx(run.score)
    saved = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert [key for key in saved["callbacks"] if "val/fp_bps" in key], "the checkpoint callback follows"
    assert saved["neuro_lightning"]["model"]["scheduler"]["monitor"] == "val/fp_bps"
    assert (tmp_path / "figures/learning_curve.png").is_file() and (tmp_path / "figures/rates.png").is_file()


def test_a_run_is_refitted_resumed_and_predicted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*ALL_IN, "+data.forward=false", "refit=true"]
    here(tmp_path / "a", *words)
    assert record(tmp_path / "a")["refit"]["metrics"]["test/bps"] < 1
    again = here(tmp_path / "a", *words, f"resume={tmp_path}/a/checkpoints/last.ckpt", "trainer.max_epochs=4")
    assert math.isfinite(again.score) and record(tmp_path / "a")["objective"]["name"] == "val/bps"
    here(tmp_path / "b", *ALL_IN, "+data.forward=false", "seed=1")
    capsys.readouterr()
    rates = written("ckpt=[a/checkpoints/best.ckpt,b/checkpoints/best.ckpt]", "ensemble=top", "file=rates.h5")
    assert rates.shape == (11, 12, 10)
    assert "bits/spike" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"no neurons of tiny are held out.*output=predictions"):
        written("ckpt=a", "output=submission", "file=no.h5")


def test_a_monitor_of_ones_own_is_kept_and_one_that_is_not_there_refused(tmp_path):
    assert here(tmp_path, *ALL_IN, "monitor=val/vel_r2").score == record(tmp_path)["metrics"]["val/vel_r2"]
    for word in ("monitor=val/oracle_co_bps", "callbacks.figures.monitor=val/foo", "model.scheduler.monitor=val/foo",
                 "model.scheduler.monitor=train/loss"):  # fmt: skip
        key = word.split("=")[0]
        with pytest.raises(ConfigError, match=rf"{key}=.*: it is not logged; there are val/loss, val/"):
            here(tmp_path / "no", *ALL_IN, "scheduler@model.scheduler=plateau", "callbacks=default", word)
    with pytest.raises(ConfigError, match="mode=maximum: give max"):
        here(tmp_path / "no", "mode=maximum")


@pytest.mark.parametrize("words", [["sizes.n_out=0"], ["sizes.n_out=0", "sizes.n_forward=5"]])
def test_simulated_spikes(tmp_path, words):
    sizes = ["sizes.n_train=20", "sizes.n_val=8", "sizes.n_test=0", "sizes.n_conditions=4", "sizes.n_in=8"]
    words = [f"data.{word}" for word in [*sizes, *words]]
    base = ["data=lorenz", *(word for word in TINY if not word.startswith(("data=", "baselines=")))]
    run = here(tmp_path, *words, "trainer.max_epochs=1", base=base)
    assert record(tmp_path)["objective"]["name"] == ("val/fp_bps" if len(words) == 7 else "val/bps")
    assert math.isfinite(run.score) and math.isfinite(record(tmp_path)["baselines"]["smoothing"]["val"]["bps"])


@pytest.mark.parametrize("style", ["lfads", "lfads_torch", "nwb"])
def test_files(tmp_path, style):
    rng = np.random.default_rng(0)
    path = tmp_path / ("a.nwb" if style == "nwb" else "a.h5")
    if style == "nwb":
        write(path, random_spikes(), STARTS)
    else:
        with h5py.File(path, "w") as file:
            for part, n in (("train", 12), ("valid", 6)):
                counts = rng.poisson(0.5, (n, 20, 6)).astype(np.float32)
                names = ["data"] if style == "lfads" else ["encod_data", "recon_data"]
                file.update({f"{part}_{name}": counts for name in names})
    base = [f"data={'nwb' if style == 'nwb' else 'lfads_h5'}", *(word for word in TINY if not word.startswith("data="))]
    words = [f"data.path={path}", "data.heldout_fraction=0", "trainer.max_epochs=1", f"paths.cache={tmp_path}/cache"]
    here(tmp_path / "run", *words, base=base)
    found = record(tmp_path / "run")
    assert found["objective"]["name"] == "val/bps" and found["status"] == "finished"
    with pytest.raises((ConfigError, DataError), match="heldout_fraction"):
        here(tmp_path / "no", *words, "data.heldout_fraction=-0.1", base=base)


def test_the_baseline_does_not_copy_the_count_that_it_predicts():
    counts = np.random.default_rng(0).poisson(0.5, (20, 30, 5)).astype(np.uint8)
    net = SmoothingNet(5, 5, 0)
    net.fit(TrialDataset(Trials(counts), n_out=0, n_forward=0, evaluate=False), sd_bins=[1.0, 3.0], alpha=[0.1])
    inputs = torch.from_numpy(counts).float()
    changed = inputs.clone()
    changed[:, 7] += 5
    rates, others = net(inputs)["log_rates"], net(changed)["log_rates"]
    torch.testing.assert_close(rates[:, 7], others[:, 7])
    assert (rates[:, 6] != others[:, 6]).any() and rates.exp().min() >= FLOOR * 0.99


def test_hidden_labels_stay_hidden():
    """The benchmark's test trials lack held-out neurons that the training trials have: nothing to score."""
    from neuro_lightning.contracts import DataSpec

    trials = Trials(np.zeros((2, 3, 4), np.uint8))
    assert labelled(trials, DataSpec("x", n_in=4)) and not labelled(trials, DataSpec("x", n_in=4, n_out=2))


def test_only_what_watches_co_smoothing_is_changed():
    from neuro_lightning.contracts import DataSpec
    from neuro_lightning.runs.monitors import monitor_without_heldout

    parts = {"model": {"scheduler": {"monitor": "val/loss"}}, "callbacks": {"a": {"monitor": "${monitor}"}, "b": None}}
    cfg = OmegaConf.create({"monitor": "val/co_bps", **parts})
    settings = TrainSettings.resolve(cfg)
    assert not monitor_without_heldout(settings, DataSpec("x", n_in=4, n_out=2))
    assert not monitor_without_heldout(settings, DataSpec("x", kind="images", n_out=2))
    changed = settings.changed(monitor_without_heldout(settings, DataSpec("x", n_in=4)))
    assert changed.callbacks.a.monitor == changed.monitor == "val/bps" and settings.monitor == "val/co_bps"
    assert changed.model.scheduler.monitor == "val/loss"
