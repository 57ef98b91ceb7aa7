"""UWNDC19: its twin in the published layout, and the data module."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT
from visual_twins import UWNDC19_FILES, lines

from neuro_lightning.data.describe import labelled
from neuro_lightning.data.uwndc19 import cells, twin
from neuro_lightning.data.uwndc19.datamodule import UWNDC19
from neuro_lightning.data.uwndc19.split import split_images
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.nn.augment import seed_transforms
from neuro_lightning.settings.config import check_config, instantiate

# ---- the twin has the published layout


def test_twin_has_the_published_layout(uwndc19_folder, uwndc19_challenge):
    stim = np.load(uwndc19_folder / "stim.npy", mmap_mode="r")
    assert stim.shape == (601, 80, 80, 3) and stim.dtype == np.float32
    assert stim.min() >= 0 and stim.max() <= 1
    text = (uwndc19_folder / "train.csv").read_bytes()
    assert b"\r" not in text and text.endswith(b"\n") and len(text.splitlines()) == 552
    train, sub = (list(csv.reader(lines(uwndc19_folder, name))) for name in ("train.csv", "sub.csv"))
    assert train[0] == sub[0] == ["Id", *twin.COLUMNS] and len(set(twin.COLUMNS)) == 18
    assert [int(row[0]) for row in train[1:]] == list(range(50, 601))
    assert [int(row[0]) for row in sub[1:]] == list(range(50))
    empty = np.array([[cell == "" for cell in row[1:]] for row in train[1:]])
    assert empty.sum(0).tolist() == [0, 0, *[400] * 7, *[1] * 7, 0, 0]
    assert not empty[:151].any() and (empty[151:550].sum(1) == 7).all() and empty[550].sum() == 14
    assert np.array_equal(np.isnan(uwndc19_challenge.responses), empty)


def test_twin_is_made_once_and_by_its_seed(uwndc19_folder, tmp_path):
    before = {name: (uwndc19_folder / name).stat().st_mtime_ns for name in UWNDC19_FILES}
    twin.write_uwndc19(uwndc19_folder, seed=0)
    assert {name: (uwndc19_folder / name).stat().st_mtime_ns for name in UWNDC19_FILES} == before
    twin.write_uwndc19(tmp_path, seed=1)
    assert (tmp_path / "train.csv").read_bytes() != (uwndc19_folder / "train.csv").read_bytes()
    twin.write_uwndc19(tmp_path, seed=0)  # another seed's files in the way are replaced
    assert all((tmp_path / name).read_bytes() == (uwndc19_folder / name).read_bytes() for name in UWNDC19_FILES[:3])
    with pytest.raises(ConfigError, match="simulate_seed must be a whole number from 0 on, not -1"):
        UWNDC19(root=str(tmp_path), simulate=True, simulate_seed=-1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.root"):
        twin.write_uwndc19(tmp_path / "file")


def test_twin_responses_are_drawn_around_their_truth(uwndc19_challenge):
    """Errors average out to zero, and no more is left of them than square roots of counts leave."""
    responses, rates = uwndc19_challenge.responses, uwndc19_challenge.rates[50:]
    error = responses - rates
    n = np.isfinite(error).sum(0)
    z = np.nanmean(error, 0) / (np.nanstd(error, 0) / np.sqrt(n))
    assert np.abs(z).max() < 4
    assert 0.3 < np.sqrt(np.nanmean(error**2)) < 0.6
    assert np.nanmin(responses) == 0 and rates.min() >= 0
    signal = rates.std(0)
    assert np.ptp(rates[:, 17]) == 0 and (signal[:17] > 0.15).all()  # nothing drives the last neuron


def test_mean_root_count_is_the_mean_of_root_counts():
    rng = np.random.default_rng(0)
    roots = np.array([0.0, 0.4, 1.0, 3.3, 11.0])
    gain = rng.gamma(1 / cells.GAIN_VARIANCE, cells.GAIN_VARIANCE, (200_000, 5))
    sampled = np.sqrt(rng.poisson(gain * roots**2))
    error = sampled.std(0) / np.sqrt(len(sampled))
    assert (np.abs(cells.mean_root_count(roots) - sampled.mean(0)) <= 4 * error + 1e-4).all()


def test_twin_can_be_predicted_from_its_images(uwndc19_challenge):
    """Ridge regression on 6 x 6 pixels and their contrasts beats each neuron's mean in most neurons."""
    images = torch.from_numpy(uwndc19_challenge.images[50:])
    pooled = torch.nn.functional.avg_pool2d(images, 8)
    contrast = (torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True) ** 2, 8)
                - torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8) ** 2).relu().sqrt()  # fmt: skip
    x = torch.cat([pooled, contrast], 1).flatten(1).double()
    x = (x - x.mean(0)) / x.std(0)
    train, val = split_images(uwndc19_challenge.responses, folds=5)
    better = []
    for neuron in range(18):
        y = torch.from_numpy(uwndc19_challenge.responses[:, neuron]).double()
        seen = train[np.isfinite(uwndc19_challenge.responses[train, neuron])]
        asked = val[np.isfinite(uwndc19_challenge.responses[val, neuron])]
        a, mean = x[seen], y[seen].mean()
        weights = torch.linalg.solve(a.T @ a + 300 * torch.eye(a.shape[1]), a.T @ (y[seen] - mean))
        better.append((((x[asked] @ weights + mean - y[asked]) ** 2).mean() / ((y[asked] - mean) ** 2).mean()).sqrt())
    assert np.mean(better) < 0.95 and np.mean(np.array(better) < 1) > 0.7
    assert better[17] > 0.95


# ---- the data module


def config(root, *overrides):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose(
            "train",
            overrides=["data=uwndc19", f"paths.data={root}", "data.simulate=true", "paths.output_dir=.", *overrides],
        )


def test_config(uwndc19_root):
    cfg = config(uwndc19_root)
    assert cfg.monitor == "val/rmse" and cfg.mode == "min"
    check_config(cfg, known=set(cfg))
    data = instantiate(cfg.data)
    data.prepare_data()
    assert {name: len(trials) for name, trials in data.recording.splits.items()} == {
        "train": 440, "val": 111, "test": 50,
    }  # fmt: skip
    winner = instantiate(config(uwndc19_root, "data.folds=null").data)
    assert [len(winner.recording.splits[name]) for name in ("train", "val", "test")] == [531, 20, 50]


def test_recording(uwndc19_root, uwndc19_challenge):
    data = UWNDC19(root=str(uwndc19_root), simulate=True, folds=None)
    recording, spec = data.recording, data.spec
    assert recording.kind == spec.kind == "images" and recording.simulated and spec.simulated and spec.true_rates
    assert spec.image_shape == (3, 48, 48) and spec.n_out == spec.n_neurons == 18 and spec.n_in == spec.n_repeats == 0
    assert recording.info["columns"] == list(twin.COLUMNS)
    split = recording.info["split"]
    for name in ("train", "val"):
        trials = recording.splits[name]
        assert trials.row.tolist() == split[name] and min(split[name]) >= 50
        for i in (0, len(trials) - 1):
            row = trials.row[i]
            np.testing.assert_array_equal(trials.images[i], uwndc19_challenge.images[row])
            np.testing.assert_array_equal(trials.responses[i], uwndc19_challenge.responses[row - 50])
            np.testing.assert_array_equal(trials.rates[i], uwndc19_challenge.rates[row])
    assert not set(split["train"]) & set(split["val"])
    train = recording.splits["train"]
    np.testing.assert_allclose(spec.mean_rates, np.nanmean(train.responses.astype(float), 0))
    assert [source["path"].rsplit("/", 1)[1] for source in recording.sources] == list(UWNDC19_FILES)


def test_test_images_cannot_be_scored(uwndc19_root, uwndc19_challenge):
    data = UWNDC19(root=str(uwndc19_root), simulate=True)
    test = data.recording.splits["test"]
    np.testing.assert_array_equal(test.images, uwndc19_challenge.images[:50])
    assert test.row.tolist() == list(range(50)) and np.isnan(test.responses).all()
    assert not labelled(test, data.spec) and labelled(data.recording.splits["val"], data.spec)
    assert set(data.references()) == {"val"}
    (batch,) = data.eval_dataloader("test")
    assert not batch["mask"].any() and batch["inputs"].shape == (50, 3, 48, 48)


def test_a_folder_without_truth_is_not_simulated(uwndc19_root, uwndc19_folder, tmp_path):
    (tmp_path / "uwndc19").mkdir()
    for name in UWNDC19_FILES[:3]:
        (tmp_path / "uwndc19" / name).symlink_to(uwndc19_folder / name)
    data = UWNDC19(root=str(tmp_path), image_size=16)
    assert not data.recording.simulated and not data.spec.true_rates and data.recording.splits["test"].rates is None
    assert data.spec.image_shape == (3, 16, 16)


def test_only_training_images_are_distorted(uwndc19_root):
    data = instantiate(config(uwndc19_root, "augment@data.augment=[winner,flips]", "seed=3").data)
    index = [5, 0, 7]
    batch = data.dataset("train", evaluate=False)[index]
    data.trainer = SimpleNamespace(training=True, current_epoch=2)
    distorted = data.on_after_batch_transfer(batch, 0)
    expected = batch["inputs"]
    for transform in seed_transforms(data.augment, 3):
        expected = transform(expected, torch.tensor(index), 2)
    assert torch.equal(distorted["inputs"], expected)
    assert not torch.equal(distorted["inputs"], batch["inputs"])
    assert all(torch.equal(distorted[key], batch[key]) for key in batch if key != "inputs")
    data.trainer.training = False
    assert data.on_after_batch_transfer(batch, 0) is batch


def test_nan_never_reaches_a_batch(uwndc19_root):
    data = UWNDC19(root=str(uwndc19_root), simulate=True, batch_size=200)
    seen = torch.zeros(18)
    for batch in data.train_dataloader():
        assert torch.isfinite(batch["targets"]).all()
        seen += batch["mask"].sum(0)
    observed = np.isfinite(data.recording.splits["train"].responses).sum(0)
    assert seen.tolist() == observed.tolist() and observed[2] < 130 < 439 <= observed[0]
