"""Stringer's spontaneous activity: normalisations, the recording, and its data module."""

import hashlib

import numpy as np
import pytest
import torch
from runs import here, record
from visual_twins import content

from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.stringer.datamodule import Spontaneous
from neuro_lightning.data.stringer.files import SpontaneousFile
from neuro_lightning.data.stringer.planes import fit_scaling
from neuro_lightning.data.stringer.reader import Preparation, denormalise, load_spontaneous, prepare
from neuro_lightning.errors import ConfigError, DataError

# ---- normalisation


def test_population_mean_is_one_in_every_bin(spontaneous):
    recording = prepare(spontaneous, Preparation())
    for trials in recording.splits.values():
        np.testing.assert_allclose(trials.heldin.mean(2), 1, atol=1e-6)


def test_the_population_mean_is_taken_before_bins_are_joined(spontaneous):
    """As published: bins in which the population is more active count no more than others."""
    recording = prepare(spontaneous, Preparation(downsample=3, planes=1))
    activity = np.asarray(spontaneous.activity[recording.info["neurons"]["1"]], np.float64)
    ratio = (activity / activity.mean(0))[:, :120].reshape(10, 40, 3)
    found = np.concatenate([part.heldin[0] for part in recording.splits.values()]).T
    np.testing.assert_allclose(found, ratio.mean(2), rtol=1e-5, atol=1e-6)
    joined = activity[:, :120].reshape(10, 40, 3).mean(2)
    assert np.abs(found - joined / joined.mean(0)).max() > 0.01


def test_statistics_of_the_training_part(spontaneous):
    train = prepare(spontaneous, Preparation(normalisation="zscore")).splits["train"].heldin
    np.testing.assert_allclose(train.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(1), 1, atol=1e-5)
    train = prepare(spontaneous, Preparation(normalisation="divide_by_mean")).splits["train"].heldin
    np.testing.assert_allclose(train.mean(1), 1, atol=1e-5)
    raw = prepare(spontaneous, Preparation(normalisation="none", downsample=1, planes=1))
    index = raw.info["neurons"]["1"]
    np.testing.assert_array_equal(raw.splits["train"].heldin[0].T, spontaneous.activity[index, : 121 - 36 - 1])


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore", "divide_by_mean", "none"])
def test_normalisations_can_be_undone(spontaneous, kind):
    activity = np.array(spontaneous.activity[:10], np.float64)
    activity[2], activity[:, 5] = 0, 0  # a silent neuron, a silent bin
    scaling = fit_scaling(activity, kind, n_in=8, n_train=60)
    values = scaling.apply(activity)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(scaling.inverse(values), activity, atol=1e-9)
    recording = prepare(spontaneous, Preparation(normalisation=kind, downsample=1, planes=2))
    start, stop = recording.info["bins"]["val"]
    undone = denormalise(recording.splits["val"].heldin[0], recording.info, 2, start)
    expected = spontaneous.activity[recording.info["neurons"]["2"], start:stop].T
    np.testing.assert_allclose(undone, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore", "divide_by_mean", "none"])
@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_training_part_does_not_depend_on_validation_and_test(spontaneous, kind, value):
    options = Preparation(normalisation=kind, behavior_components=2)
    clean = prepare(spontaneous, options)
    first = 2 * clean.info["bins"]["train"][1]
    poisoned = np.array(spontaneous.activity)
    poisoned[:, first:] = value
    spontaneous.activity, spontaneous.behavior = (
        poisoned,
        {k: np.array(v, np.float64) for k, v in spontaneous.behavior.items()},
    )
    for values in spontaneous.behavior.values():
        values[first:] = value
    with np.errstate(all="ignore"):
        found = prepare(spontaneous, options)
    for name in ("heldin", "behavior", "condition"):
        np.testing.assert_array_equal(getattr(found.splits["train"], name), getattr(clean.splits["train"], name))
    assert not np.array_equal(found.splits["val"].heldin, clean.splits["val"].heldin)


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore"])
def test_heldout_neurons_never_reach_the_input(spontaneous, kind):
    options = Preparation(normalisation=kind, heldout_fraction=0.3)
    clean = prepare(spontaneous, options)
    n_in = clean.info["n_in"]
    assert n_in == 7 and clean.splits["val"].heldout.shape[2] == 3
    spontaneous.activity = np.array(spontaneous.activity)
    for index in clean.info["neurons"].values():
        spontaneous.activity[index[n_in:]] = 1e6
    found = prepare(spontaneous, options)
    for split in clean.splits:
        np.testing.assert_array_equal(found.splits[split].heldin, clean.splits[split].heldin)


# ---- the recording


def test_samples(spontaneous_twin):
    path, truth = spontaneous_twin
    recording = load_spontaneous(path, Preparation(normalisation="none", window=8, stride=5), truth=truth)
    assert recording.kind == "traces" and recording.bin_ms == 2400 and recording.simulated
    train, val, test = (recording.splits[name] for name in ("train", "val", "test"))
    assert recording.info["bins"] == {
        "train": [0, 42],
        "val": [42, 51],
        "test": [51, 60],
    }  # of 121 bins one is left over
    assert train.heldin.shape == (3 * 7, 8, 10) and val.heldin.shape == (3, 9, 10) and train.heldin.dtype == np.float32
    assert train.row.tolist() == [0, 5, 10, 15, 20, 25, 30] * 3 and val.row.tolist() == [42] * 3
    assert train.condition.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert (train.decode_mask.argmax(1) == train.condition).all() and train.decode_mask.sum() == 21
    neurons = recording.info["neurons"]["1"]
    expected = np.load(path.parent / "truth.npz")["rates"][neurons][:, 2 * 15 : 2 * 23].reshape(10, 8, 2).mean(2)
    np.testing.assert_allclose(train.rates[7 + 3], expected.T, rtol=1e-5)
    activity = content(path)["sresp"][neurons][:, 2 * 51 : 2 * 60].reshape(10, 9, 2).mean(2)
    np.testing.assert_allclose(test.heldin[1], activity.T, rtol=1e-5)
    assert recording.sources[0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recording.sources[0]["size"] == path.stat().st_size


def test_behavior(spontaneous):
    recording = prepare(spontaneous, Preparation(behavior_components=3))
    names = recording.info["behavior"]
    assert names == ["running", "pupil_area", "pupil_com_0", "pupil_com_1", "face_0", "face_1", "face_2"]
    train = recording.splits["train"].behavior
    assert train.shape == (3, 42, 7) and (train[0] == train[2]).all()
    np.testing.assert_allclose(train[0].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train[0].std(0), 1, atol=1e-5)
    area = spontaneous.behavior["pupil_area"][:84, 0].reshape(42, 2).mean(1)
    assert np.corrcoef(area, train[0][:, 1])[0, 1] == pytest.approx(1, abs=1e-6)
    spontaneous.behavior["pupil_area"] = np.array(spontaneous.behavior["pupil_area"])
    spontaneous.behavior["pupil_area"][4] = np.nan  # a blink stays unknown
    splits = prepare(spontaneous, Preparation()).splits
    train = splits["train"].behavior
    assert np.isnan(train[:, 2, 1]).all() and np.isnan(train).sum() == 3
    batch = TrialDataset(splits["train"], n_out=0, n_forward=0, evaluate=False)[[1]]
    assert batch["behavior"].isnan().nonzero().tolist() == [[0, 2, 1]]
    spontaneous.behavior = {}
    assert prepare(spontaneous, Preparation()).splits["train"].behavior is None


def test_behavior_of_a_window_is_that_of_its_bins(spontaneous):
    whole = prepare(spontaneous, Preparation()).splits["train"].behavior[0]
    train = prepare(spontaneous, Preparation(window=8, stride=5)).splits["train"]
    assert len(train.behavior) == len(train.row) == 21
    for start, behavior in zip(train.row, train.behavior, strict=True):
        np.testing.assert_array_equal(behavior, whole[start : start + 8])


def test_one_plane_and_blocks(spontaneous):
    every, one = prepare(spontaneous, Preparation()), prepare(spontaneous, Preparation(planes=2))
    np.testing.assert_array_equal(one.splits["val"].heldin[0], every.splits["val"].heldin[2])
    assert one.splits["val"].decode_mask.shape == (1, 1) and one.splits["val"].condition.tolist() == [2]
    assert one.unit_ids.tolist() == one.info["neurons"]["2"] and every.unit_ids.tolist() == list(range(10))
    x, y = (spontaneous.xyz[axis][one.info["neurons"]["2"]] for axis in (0, 1))
    board = ((x // 60 + y // 60) % 2 == 0).astype(int).tolist()
    assert 3 <= sum(board) <= 7 and one.info["half"]["2"] == board == every.info["half"]["2"]
    near = SpontaneousFile(
        spontaneous.path, spontaneous.activity, spontaneous.xyz * [[0.01], [0.01], [1]], {}, 1200
    )  # all on one square
    assert sum(prepare(near, Preparation()).info["half"]["0"]) == 5
    blocks = prepare(spontaneous, Preparation(blocks=2))
    assert blocks.info["planes"] == [0, 1, 2, 3] and sum(blocks.info["neurons_in_file"]) == 36
    middle = (spontaneous.xyz[0].min() + spontaneous.xyz[0].max()) / 2
    assert (spontaneous.xyz[0][blocks.info["neurons"]["1"]] < middle).all()
    assert (spontaneous.xyz[0][blocks.info["neurons"]["2"]] >= middle).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planes": 3}, "data.planes=3: the recording has 3; use all, or a number from 0 to 2"),
        ({"planes": "first"}, "data.planes='first'"),
        ({"normalisation": "minmax"}, "data.normalisation must be one of layer_pop_mean, zscore, "),
        ({"downsample": 0}, "data.downsample must be a whole number from 1 on, not 0"),
        ({"downsample": None}, "data.downsample must be"),
        ({"window": 2.5}, "data.window must be a whole number"),
        ({"window": 50}, "data.window=50"),
    ],
)
def test_impossible_options_are_refused(spontaneous, options, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        prepare(spontaneous, Preparation(**options))


# ---- the data module


def module(tmp_path, **options) -> Spontaneous:
    return Spontaneous(root=str(tmp_path), cache_dir=str(tmp_path / "cache"), **options)


def test_data_module_and_cache(tmp_path, spontaneous_twin):
    found = module(tmp_path, path=str(spontaneous_twin[0]), behavior_components=0, heldout_fraction=0.2)
    spec = found.spec
    assert (spec.kind, spec.n_in, spec.n_out, spec.n_bins, spec.bin_ms) == ("traces", 8, 2, 42, 2400)
    assert (spec.decode_groups, spec.behavior_dim, spec.behavior_kind, spec.true_rates) == (3, 4, "none", False)
    batch = found.dataset("val", evaluate=True)[[0, 2]]
    assert batch["inputs"].shape == (2, 9, 8) and batch["targets"].shape == (2, 9, 10)
    assert batch["targets"].dtype == torch.float32 and batch["condition"].tolist() == [0, 2]
    again = module(tmp_path, path=str(spontaneous_twin[0]), behavior_components=0, heldout_fraction=0.2)
    assert again.recording.info == found.recording.info and again.spec == spec
    np.testing.assert_array_equal(again.recording.splits["val"].heldin, found.recording.splits["val"].heldin)
    right = hashlib.sha256(spontaneous_twin[0].read_bytes()).hexdigest()
    assert module(tmp_path, path=str(spontaneous_twin[0]), sha256=right).recording.sources[0]["sha256"] == right
    with pytest.raises(DataError, match=r"has the SHA-256 .*data\.sha256 says 00"):
        _ = module(tmp_path, path=str(spontaneous_twin[0]), sha256="0" * 64).recording


def test_training_on_the_simulated_twin(tmp_path):
    """From the command's overrides to scores with a ceiling, and the twin where the house keeps its twins."""
    data = tmp_path / "data"
    run = here(
        tmp_path / "run", "data=stringer_spontaneous", "data.simulate=true", f"paths.data={data}",
        f"paths.cache={data}/cache", "model=mean", "trainer=cpu", "trainer.max_epochs=1", "logger=csv",
        "data.window=null", "data.stride=null",
        "callbacks=minimal", "++trainer.enable_progress_bar=false", "baselines=null", base=[],
    )  # fmt: skip
    assert (data / "simulated/stringer_spontaneous/seed_0/stringer_spontaneous.npy").is_file()
    found = record(run.folder)
    assert found["data"]["simulated"] is True
    ceiling = found["references"]["svca"]["val"]["variance"]
    twin = module(data, simulate=True, normalisation="layer_pop_mean")
    val = twin.recording.splits["val"]
    centred = val.heldin - val.heldin.mean(1, keepdims=True)
    true = 1 - ((val.heldin - val.rates) ** 2).sum() / (centred**2).sum()
    shared = twin.reference_scores("val")["svca"]["variance"]
    assert 0.75 * true < ceiling < true and ceiling == pytest.approx(shared, abs=1e-6)
    # gains drift, so that the training part differs
    assert 0.75 * true < twin.reference_scores("train")["svca"]["variance"] < 1.2 * true
    noise = np.random.default_rng(0).gamma(1.0, size=twin.recording.splits["train"].heldin.shape)
    twin.recording.splits["train"].heldin[:], twin._shared = noise, {}
    assert abs(twin.reference_scores("train")["svca"]["variance"]) < 0.05  # tested on bins that it was not found in
    assert twin.spec.n_in == 67 and twin.spec.simulated and twin.spec.true_rates
