"""Stringer's spontaneous activity: files, planes, normalisations, splits, and a twin with a planted dimension."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import here, record
from scipy.io import loadmat, savemat

from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.stringer.datamodule import Spontaneous
from neuro_lightning.data.stringer.files import SpontaneousFile, find_file, read_spontaneous
from neuro_lightning.data.stringer.planes import (
    block_labels,
    downsample,
    draw_neurons,
    fit_scaling,
    plane_labels,
    split_bins,
    windows,
)
from neuro_lightning.data.stringer.reader import Preparation, denormalise, load_spontaneous, prepare
from neuro_lightning.data.stringer.twin import NEURONS, simulate, write_twin
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.svca import random_half, svca

pytestmark = pytest.mark.usefixtures("whole_mat_files")

REAL = (1386, 1440, 1418, 1471, 1415, 1321, 1218, 1183, 1131)
SMALL = {"neurons": (14, 12, 10), "n_bins": 121, "n_latents": 3}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return write_twin(tmp_path_factory.mktemp("twin"), seed=1, **SMALL)


@pytest.fixture
def file(twin):
    return read_spontaneous(twin[0])


def write_mat_twin(path, **sizes):
    """The simulated recording in the layout of the original files: Fsp, med, stat and the struct beh."""
    twin, _ = simulate(**sizes)
    face, mask = twin["beh_svd_time"], twin["beh_svd_mask"]
    beh = {
        "face": {"motionSVD": face, "motionMask": mask, "avgframe": mask[..., 0]},
        "whisker": {"motionSVD": face[:, :10]},
        "eye": {"motionSVD": face[:, :10]},
        "pupil": {"area": twin["pupilArea"], "com": twin["pupilCOM"]},
        "runSpeed": twin["run"],
    }
    stat = np.zeros((len(twin["stat"]), 1), [("npix", object), ("iplane", object), ("redcell", object)])
    for row, neuron in zip(stat, twin["stat"], strict=True):
        row[0] = (100.0, float(neuron["iplane"] + 1), 0.0)
    content = {"Fsp": twin["sresp"], "med": twin["xyz"].T, "stat": stat, "beh": beh}
    savemat(path, content)
    return path


def content(path) -> dict[str, np.ndarray]:
    return np.load(path, allow_pickle=True).item()


# ---- golden values of the real recording


def test_published_sizes():
    z = np.random.default_rng(0).permutation(np.repeat(-35.0 * np.arange(9)[::-1], REAL))
    labels = plane_labels(z)
    assert np.bincount(labels).tolist() == list(REAL) and labels[z.argmin()] == 0
    neurons, n_in = draw_neurons(labels)
    assert n_in == 1131 and {len(index) for index in neurons.values()} == {1131}
    assert downsample(np.zeros((2, 7018)), 2).shape == (2, 3509)
    assert split_bins(3509, 0.2, 0.0) == {"train": slice(0, 2807), "val": slice(2807, 3509)}
    assert [p.stop - p.start for p in split_bins(3509, 0.15, 0.15).values()] == [2456, 526, 527]


def test_published_blocks():
    """The edges of the published 3 x 3 blocks: 4, 339, 674, 1009 and 4, 340, 676, 1012."""
    x, y = np.array([4, 339, 340, 674, 675, 1010.0]), np.array([4, 339, 341, 675, 677, 1012.0])
    assert block_labels(x, y, 3).tolist() == [0, 0, 4, 4, 8, 8]
    assert block_labels(x, y[::-1], 3).tolist() == [2, 2, 4, 4, 6, 6]


# ---- drawing, binning, splitting


def test_draws_are_seeded_and_nested():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 20, 25]))
    first, _ = draw_neurons(labels, seed=3)
    assert all((labels[index] == label).all() and len(set(index)) == 20 for label, index in first.items())
    again, _ = draw_neurons(labels, seed=3)
    other, _ = draw_neurons(labels, seed=4)
    fewer, _ = draw_neurons(labels, n=8, seed=3)
    assert all((first[k] == again[k]).all() and set(fewer[k]) < set(first[k]) for k in first)
    assert (first[0] != other[0]).any()
    held, n_in = draw_neurons(labels, heldout_fraction=0.25, seed=3)
    assert n_in == 15 and all(set(held[k]) == set(first[k]) for k in first)
    assert all((np.diff(held[k][:n_in]) > 0).all() and (np.diff(held[k][n_in:]) > 0).all() for k in held)


def test_impossible_draws_are_refused():
    labels = np.repeat([0, 1], [9, 5])
    with pytest.raises(ConfigError, match=r"neurons_per_plane=6: the least populated of the 2 groups has 5"):
        draw_neurons(labels, n=6)
    with pytest.raises(ConfigError, match=r"heldout_fraction=0\.9 of 5 neurons"):
        draw_neurons(labels, heldout_fraction=0.9)
    with pytest.raises(ConfigError, match=r"fewer data\.blocks"):
        draw_neurons(np.array([0, 0, 2, 2]))
    with pytest.raises(ConfigError) as error:
        draw_neurons(np.arange(10_000))  # data.blocks=100
    assert len(str(error.value)) < 150
    with pytest.raises(DataError, match="100 different depths"):
        plane_labels(np.arange(100.0))


def test_bins_and_splits():
    values = np.arange(14.0).reshape(2, 7)
    np.testing.assert_array_equal(downsample(values, 3), [[1, 4], [8, 11]])
    assert downsample(values, 1) is values
    for n, val, test, train in [(10, 0.3, 0.0, 7), (20, 0.1, 0.2, 14), (100, 0.28, 0.02, 70), (3510, 0.2, 0.0, 2808)]:
        parts = list(split_bins(n, val, test).values())
        assert parts[0] == slice(0, train) and parts[-1].stop == n
        assert all(a.stop == b.start for a, b in pairwise(parts))
    for val, test in [(0.0, 0.2), (0.6, 0.4), (-0.1, 0.2), ("a", 0.2)]:
        with pytest.raises(ConfigError, match=r"data\.val_fraction"):
            split_bins(50, val, test)


@pytest.mark.parametrize(("n", "val", "test", "train"), [(10, 0.3, 0.2, 5), (20, 0.15, 0.2, 13), (100, 0.4, 0.15, 45)])
def test_shares_that_mean_whole_bins_give_them(n, val, test, train):
    """Though 10 * (1 - 0.3 - 0.2) is 4.999... in floating point."""
    assert split_bins(n, val, test)["train"] == slice(0, train)


def test_heldout_neurons_lie_anywhere_in_the_file():
    labels = np.zeros(200, int)
    neurons, n_in = draw_neurons(labels, heldout_fraction=0.25)
    held = neurons[0][n_in:]
    assert held.min() < 40 and held.max() >= 160 and abs(held.mean() - 99.5) < 25
    fewer, n_fewer = draw_neurons(labels, heldout_fraction=0.1)
    assert set(fewer[0][n_fewer:]) < set(held)  # the last ones drawn


def test_windows():
    assert windows(10, None, None) == [slice(0, 10)]
    assert windows(10, 4, None) == [slice(0, 4), slice(4, 8)]
    assert [w.start for w in windows(10, 4, 3)] == [0, 3, 6]
    for size, stride in [(11, None), (1, None), (4, 0)]:
        with pytest.raises(ConfigError, match=r"data\.window"):
            windows(10, size, stride)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_frame_is_in_two_parts(data):
    """Every frame tells its own time: what a sample holds tells the frames that it was made of."""
    n, factor = data.draw(st.integers(40, 150), "bins"), data.draw(st.integers(1, 3), "downsample")
    window = data.draw(st.one_of(st.none(), st.integers(2, 6)), "window")
    stride = data.draw(st.one_of(st.none(), st.integers(1, 12)), "stride")
    test = data.draw(st.sampled_from([0.0, 0.2, 0.3]), "test")
    options = Preparation(
        downsample=factor, window=window, stride=stride, val_fraction=0.2, test_fraction=test, normalisation="none",
        blocks=data.draw(st.sampled_from([None, 2]), "blocks"), behavior_components=0, neurons_per_plane=2,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    xyz = np.stack([*rng.uniform(0, 100, (2, 60)), np.repeat([-30.0, -60.0], 30)])
    time = 4.0 ** np.arange(factor)[np.arange(n) % factor] + 1000.0 * (np.arange(n) // factor)
    file = SpontaneousFile(Path("a.npy"), np.tile(time, (60, 1)), xyz, {}, 400)
    splits = prepare(file, options).splits
    whole = (4.0 ** np.arange(factor)).mean()  # a bin is the mean of just its frames
    bins = {part: set(np.round((trials.heldin - whole) / 1000, 4).ravel().tolist()) for part, trials in splits.items()}
    assert set.union(*bins.values()) <= set(range(n // factor))
    assert sum(map(len, bins.values())) == len(set.union(*bins.values())) and min(map(len, bins.values())) >= 2
    assert max(bins["train"]) < min(bins["val"])


# ---- normalisation


def test_population_mean_is_one_in_every_bin(file):
    recording = prepare(file, Preparation())
    for trials in recording.splits.values():
        np.testing.assert_allclose(trials.heldin.mean(2), 1, atol=1e-6)


def test_the_population_mean_is_taken_before_bins_are_joined(file):
    """As published: bins in which the population is more active count no more than others."""
    recording = prepare(file, Preparation(downsample=3, planes=1))
    activity = np.asarray(file.activity[recording.info["neurons"]["1"]], np.float64)
    ratio = (activity / activity.mean(0))[:, :120].reshape(10, 40, 3)
    found = np.concatenate([part.heldin[0] for part in recording.splits.values()]).T
    np.testing.assert_allclose(found, ratio.mean(2), rtol=1e-5, atol=1e-6)
    joined = activity[:, :120].reshape(10, 40, 3).mean(2)
    assert np.abs(found - joined / joined.mean(0)).max() > 0.01


def test_statistics_of_the_training_part(file):
    train = prepare(file, Preparation(normalisation="zscore")).splits["train"].heldin
    np.testing.assert_allclose(train.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(1), 1, atol=1e-5)
    train = prepare(file, Preparation(normalisation="divide_by_mean")).splits["train"].heldin
    np.testing.assert_allclose(train.mean(1), 1, atol=1e-5)
    raw = prepare(file, Preparation(normalisation="none", downsample=1, planes=1))
    index = raw.info["neurons"]["1"]
    np.testing.assert_array_equal(raw.splits["train"].heldin[0].T, file.activity[index, : 121 - 36 - 1])


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore", "divide_by_mean", "none"])
def test_normalisations_can_be_undone(file, kind):
    activity = np.array(file.activity[:10], np.float64)
    activity[2], activity[:, 5] = 0, 0  # a silent neuron, a silent bin
    scaling = fit_scaling(activity, kind, n_in=8, n_train=60)
    values = scaling.apply(activity)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(scaling.inverse(values), activity, atol=1e-9)
    recording = prepare(file, Preparation(normalisation=kind, downsample=1, planes=2))
    start, stop = recording.info["bins"]["val"]
    undone = denormalise(recording.splits["val"].heldin[0], recording.info, 2, start)
    expected = file.activity[recording.info["neurons"]["2"], start:stop].T
    np.testing.assert_allclose(undone, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore", "divide_by_mean", "none"])
@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_training_part_does_not_depend_on_validation_and_test(file, kind, value):
    options = Preparation(normalisation=kind, behavior_components=2)
    clean = prepare(file, options)
    first = 2 * clean.info["bins"]["train"][1]
    poisoned = np.array(file.activity)
    poisoned[:, first:] = value
    file.activity, file.behavior = poisoned, {k: np.array(v, np.float64) for k, v in file.behavior.items()}
    for values in file.behavior.values():
        values[first:] = value
    with np.errstate(all="ignore"):
        found = prepare(file, options)
    for name in ("heldin", "behavior", "condition"):
        np.testing.assert_array_equal(getattr(found.splits["train"], name), getattr(clean.splits["train"], name))
    assert not np.array_equal(found.splits["val"].heldin, clean.splits["val"].heldin)


@pytest.mark.parametrize("kind", ["layer_pop_mean", "zscore"])
def test_heldout_neurons_never_reach_the_input(file, kind):
    options = Preparation(normalisation=kind, heldout_fraction=0.3)
    clean = prepare(file, options)
    n_in = clean.info["n_in"]
    assert n_in == 7 and clean.splits["val"].heldout.shape[2] == 3
    file.activity = np.array(file.activity)
    for index in clean.info["neurons"].values():
        file.activity[index[n_in:]] = 1e6
    found = prepare(file, options)
    for split in clean.splits:
        np.testing.assert_array_equal(found.splits[split].heldin, clean.splits[split].heldin)


# ---- the recording


def test_samples(twin):
    path, truth = twin
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


def test_behavior(file):
    recording = prepare(file, Preparation(behavior_components=3))
    names = recording.info["behavior"]
    assert names == ["running", "pupil_area", "pupil_com_0", "pupil_com_1", "face_0", "face_1", "face_2"]
    train = recording.splits["train"].behavior
    assert train.shape == (3, 42, 7) and (train[0] == train[2]).all()
    np.testing.assert_allclose(train[0].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train[0].std(0), 1, atol=1e-5)
    area = file.behavior["pupil_area"][:84, 0].reshape(42, 2).mean(1)
    assert np.corrcoef(area, train[0][:, 1])[0, 1] == pytest.approx(1, abs=1e-6)
    file.behavior["pupil_area"] = np.array(file.behavior["pupil_area"])
    file.behavior["pupil_area"][4] = np.nan  # a blink stays unknown
    splits = prepare(file, Preparation()).splits
    train = splits["train"].behavior
    assert np.isnan(train[:, 2, 1]).all() and np.isnan(train).sum() == 3
    batch = TrialDataset(splits["train"], n_out=0, n_forward=0, evaluate=False)[[1]]
    assert batch["behavior"].isnan().nonzero().tolist() == [[0, 2, 1]]
    file.behavior = {}
    assert prepare(file, Preparation()).splits["train"].behavior is None


def test_behavior_of_a_window_is_that_of_its_bins(file):
    whole = prepare(file, Preparation()).splits["train"].behavior[0]
    train = prepare(file, Preparation(window=8, stride=5)).splits["train"]
    assert len(train.behavior) == len(train.row) == 21
    for start, behavior in zip(train.row, train.behavior, strict=True):
        np.testing.assert_array_equal(behavior, whole[start : start + 8])


def test_one_plane_and_blocks(file):
    every, one = prepare(file, Preparation()), prepare(file, Preparation(planes=2))
    np.testing.assert_array_equal(one.splits["val"].heldin[0], every.splits["val"].heldin[2])
    assert one.splits["val"].decode_mask.shape == (1, 1) and one.splits["val"].condition.tolist() == [2]
    assert one.unit_ids.tolist() == one.info["neurons"]["2"] and every.unit_ids.tolist() == list(range(10))
    x, y = (file.xyz[axis][one.info["neurons"]["2"]] for axis in (0, 1))
    board = ((x // 60 + y // 60) % 2 == 0).astype(int).tolist()
    assert 3 <= sum(board) <= 7 and one.info["half"]["2"] == board == every.info["half"]["2"]
    near = SpontaneousFile(file.path, file.activity, file.xyz * [[0.01], [0.01], [1]], {}, 1200)  # all on one square
    assert sum(prepare(near, Preparation()).info["half"]["0"]) == 5
    blocks = prepare(file, Preparation(blocks=2))
    assert blocks.info["planes"] == [0, 1, 2, 3] and sum(blocks.info["neurons_in_file"]) == 36
    middle = (file.xyz[0].min() + file.xyz[0].max()) / 2
    assert (file.xyz[0][blocks.info["neurons"]["1"]] < middle).all()
    assert (file.xyz[0][blocks.info["neurons"]["2"]] >= middle).all()


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
def test_impossible_options_are_refused(file, options, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        prepare(file, Preparation(**options))


# ---- files


def test_the_twin_has_the_published_layout(twin):
    data = content(twin[0])
    assert list(data) == ["sresp", "run", "beh_svd_time", "beh_svd_mask", "stat", "pupilArea", "pupilCOM", "xyz"]
    shapes = {key: value.shape for key, value in data.items()}
    assert shapes == {
        "sresp": (36, 121), "run": (121, 1), "beh_svd_time": (121, 1000), "beh_svd_mask": (24, 32, 1000),
        "stat": (36,), "pupilArea": (121, 1), "pupilCOM": (121, 2), "xyz": (3, 36),
    }  # fmt: skip
    assert len(NEURONS) == 9 and NEURONS[-1] == min(NEURONS)
    assert (data["sresp"] >= 0).all() and 0.05 < (data["sresp"] == 0).mean() < 0.6
    assert np.bincount(plane_labels(data["xyz"][2])).tolist() == [14, 12, 10]
    assert data["stat"][3]["med"][::-1] == data["xyz"][:2, 3].tolist()


def test_a_twin_is_written_once(tmp_path):
    sizes = {"neurons": (4, 3), "n_bins": 30}
    path, truth = write_twin(tmp_path, seed=2, **sizes)
    stamp = path.stat().st_mtime_ns
    assert write_twin(tmp_path, seed=2, **sizes) == (path, truth) and path.stat().st_mtime_ns == stamp
    first = content(path)["sresp"]
    np.testing.assert_array_equal(first, simulate(seed=2, **sizes)[0]["sresp"])
    write_twin(tmp_path, seed=3, **sizes)
    assert (content(path)["sresp"] != first).any()
    truth.write_bytes(b"half")  # a killed writer
    write_twin(tmp_path, seed=2, **sizes)
    np.testing.assert_array_equal(content(path)["sresp"], first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stringer_spontaneous.npy", "truth.npz"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_twin(tmp_path / "file", **sizes)


def test_behavior_of_original_files_whose_fields_have_no_names(tmp_path, file):
    """By their places: face, whisker, eye, pupil and running speed; a face begins with motion, a pupil with area."""
    rng = np.random.default_rng(0)
    n_bins = file.activity.shape[1]
    area, com, svd, run = (rng.normal(size=(n_bins, k)) for k in (1, 2, 4, 1))

    def cell(*values):
        found = np.empty((1, len(values)), object)
        found[0] = values
        return found

    beh = cell(cell(svd, rng.normal(size=(3, 3, 4))), np.zeros((1, 1)), np.zeros((1, 1)), cell(area, com), run)
    savemat(tmp_path / "spont.mat", {"Fsp": file.activity, "med": file.xyz.T, "beh": beh})
    found = read_spontaneous(tmp_path / "spont.mat").behavior
    for name, values in {"running": run, "pupil_area": area, "pupil_com": com, "face": svd}.items():
        np.testing.assert_array_equal(found[name], values)


def test_planted_dimension_is_recovered():
    twin, truth = simulate(seed=0, n_latents=6, neurons=(100,) * 4, drift=0, state=0)
    activity = torch.from_numpy(twin["sresp"])
    activity = (activity - activity.mean(1, keepdim=True)) / activity.std(1, keepdim=True)
    ratio = svca(activity, random_half(400)).ratio
    assert ratio[:6].min() > 0.8 and ratio[6:].abs().max() < 0.25
    # activity is about its expectation, and the latent variables explain that
    assert np.corrcoef(twin["sresp"].mean(1), truth["rates"].mean(1))[0, 1] > 0.99
    rates = truth["rates"] - truth["rates"].mean(1, keepdims=True)
    left = rates - rates @ truth["latents"] @ np.linalg.pinv(truth["latents"])
    assert (left**2).sum() < 0.05 * (rates**2).sum()


def test_original_mat_files_are_read_alike(tmp_path, twin):
    npy, mat = read_spontaneous(twin[0]), read_spontaneous(write_mat_twin(tmp_path / "spont.mat", seed=1, **SMALL))
    np.testing.assert_array_equal(mat.activity, npy.activity)
    np.testing.assert_array_equal(mat.xyz, npy.xyz)
    assert list(mat.behavior) == list(npy.behavior) and (mat.bin_ms, npy.bin_ms) == (400, 1200)
    for name, values in npy.behavior.items():
        np.testing.assert_array_equal(mat.behavior[name], values)
    assert read_spontaneous(tmp_path / "spont.mat", bin_ms=330).bin_ms == 330
    a, b = (prepare(source, Preparation()) for source in (npy, mat))
    np.testing.assert_array_equal(a.splits["val"].heldin, b.splits["val"].heldin)


def test_variants_of_the_behavior_struct(tmp_path):
    path = write_mat_twin(tmp_path / "spont.mat", **SMALL)
    file = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    beh = file["beh"][0, 0]
    expected = beh["runSpeed"]
    pupil = {"area": beh["pupil"][0, 0]["area"], "com": beh["pupil"][0, 0]["com"]}
    cell = np.empty((1, 5), object)  # fields without names: face, whisker, eye, pupil, runSpeed
    cell[0] = [{"motionSVD": beh["face"][0, 0]["motionSVD"]}, {"x": 1.0}, {"x": 1.0}, pupil, expected]
    below = {"face": {"motionSVD": beh["face"][0, 0]["motionSVD"]}, "pupil": {**pupil, "runSpeed": expected}}
    for variant in (cell, below):
        savemat(path, {**file, "beh": variant})
        behavior = read_spontaneous(path).behavior
        assert list(behavior) == ["running", "pupil_area", "pupil_com", "face"]
        np.testing.assert_array_equal(behavior["running"], expected)
    savemat(path, {"Fsp": file["Fsp"], "xyz": file["med"].T})
    assert read_spontaneous(path).behavior == {}


def edit(key, change):
    def apply(data):
        data[key] = change(np.array(data[key]))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("xyz"), r"lacks xyz\. Expected: sresp, xyz"),
        (edit("sresp", lambda v: v[:-1]), r"xyz has the shape \(3, 36\), but it must be 3 x N with N = 35 as in sresp"),
        (edit("sresp", lambda v: v * np.nan), "sresp holds NaN"),
        (edit("sresp", lambda v: v + 1e30), r"sresp holds 1e\+30, where numbers lie between"),
        (edit("xyz", lambda v: v[:2]), r"xyz has the shape \(2, 36\)"),
        (edit("run", lambda v: v[:-3]), r"run has the shape \(118, 1\), but it must be T x 1 with T = 121"),
        (edit("sresp", lambda v: v.astype(str)), "sresp must be numbers, N x T"),
    ],
)
def test_damaged_dictionaries(tmp_path, twin, change, message):
    data = content(twin[0])
    change(data)
    path = tmp_path / "stringer_spontaneous.npy"
    np.save(path, data, allow_pickle=True)
    with pytest.raises(DataError, match=rf"^{path}:? {message}"):
        read_spontaneous(path)


def test_negative_activity_is_legal_but_not_divided_by_its_mean(tmp_path, twin):
    """dF/F goes below zero."""
    data = content(twin[0])
    data["sresp"] = np.array(data["sresp"]) - 1
    np.save(tmp_path / "dff.npy", data, allow_pickle=True)
    file = read_spontaneous(tmp_path / "dff.npy")
    assert file.activity.min() == -1
    with pytest.raises(ConfigError, match=r"layer_pop_mean divides by a mean .* down to -1 .*normalisation=zscore"):
        prepare(file, Preparation())
    assert np.isfinite(prepare(file, Preparation(normalisation="zscore")).splits["train"].heldin).all()


def test_traces_of_suite2p(tmp_path):
    """A plain array of neurons x frames, with the files that lie beside it."""
    spks = np.random.default_rng(0).gamma(2, 2, (6, 90)).astype(np.float32)
    np.save(tmp_path / "spks.npy", spks)
    with pytest.raises(DataError, match=r"suite2p's traces, 6 neurons x 90 frames.*data\.bin_ms=MILLISECONDS"):
        read_spontaneous(tmp_path / "spks.npy")
    alone = read_spontaneous(tmp_path / "spks.npy", bin_ms=33)
    assert alone.bin_ms == 33 and not alone.xyz.any()
    np.save(tmp_path / "iscell.npy", np.column_stack([[1, 0, 1, 1, 1, 1], np.linspace(0, 1, 6)]))
    stat = np.array([{"med": [10 + k, 20.0], "iplane": k % 2, "ypix": np.arange(3)} for k in range(6)], object)
    np.save(tmp_path / "stat.npy", stat, allow_pickle=True)
    np.save(tmp_path / "ops.npy", {"fs": 20.0, "nplanes": 2}, allow_pickle=True)
    file = read_spontaneous(tmp_path / "spks.npy")
    np.testing.assert_array_equal(file.activity, spks[[0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(file.xyz, [[20] * 5, [10, 12, 13, 14, 15], [0, 0, 1, 0, 1]])
    assert file.bin_ms == 50
    recording = prepare(file, Preparation(downsample=1))
    assert recording.splits["train"].heldin.shape[2] == 2 and recording.info["planes"] == [0, 1]
    np.save(tmp_path / "iscell.npy", np.ones((5, 2)))
    with pytest.raises(DataError, match=r"iscell\.npy tells of 5 regions"):
        read_spontaneous(tmp_path / "spks.npy")


def test_damaged_mat_files(tmp_path):
    path = tmp_path / "spont.mat"
    savemat(path, {"Fsp": np.ones((4, 9))})
    with pytest.raises(DataError, match=r"lacks Fsp .* or med .*it has: Fsp"):
        read_spontaneous(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=r"spont\.mat"):
        read_spontaneous(path)
    with pytest.raises(DataError, match="is not there"):
        read_spontaneous(tmp_path / "none.mat")


def test_a_missing_file_names_its_address(tmp_path):
    with pytest.raises(DataError, match=r"curl .*stringer/stringer_spontaneous\.npy https://osf\.io/dpqaj/download"):
        find_file(None, tmp_path)
    with pytest.raises(DataError, match=r"mine\.npy is not there"):
        find_file(tmp_path / "mine.npy", tmp_path)


# ---- the data module


def module(tmp_path, **options) -> Spontaneous:
    return Spontaneous(root=str(tmp_path), cache_dir=str(tmp_path / "cache"), **options)


def test_data_module_and_cache(tmp_path, twin):
    found = module(tmp_path, path=str(twin[0]), behavior_components=0, heldout_fraction=0.2)
    spec = found.spec
    assert (spec.kind, spec.n_in, spec.n_out, spec.n_bins, spec.bin_ms) == ("traces", 8, 2, 42, 2400)
    assert (spec.decode_groups, spec.behavior_dim, spec.behavior_kind, spec.true_rates) == (3, 4, "none", False)
    batch = found.dataset("val", evaluate=True)[[0, 2]]
    assert batch["inputs"].shape == (2, 9, 8) and batch["targets"].shape == (2, 9, 10)
    assert batch["targets"].dtype == torch.float32 and batch["condition"].tolist() == [0, 2]
    again = module(tmp_path, path=str(twin[0]), behavior_components=0, heldout_fraction=0.2)
    assert again.recording.info == found.recording.info and again.spec == spec
    np.testing.assert_array_equal(again.recording.splits["val"].heldin, found.recording.splits["val"].heldin)
    right = hashlib.sha256(twin[0].read_bytes()).hexdigest()
    assert module(tmp_path, path=str(twin[0]), sha256=right).recording.sources[0]["sha256"] == right
    with pytest.raises(DataError, match=r"has the SHA-256 .*data\.sha256 says 00"):
        _ = module(tmp_path, path=str(twin[0]), sha256="0" * 64).recording


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
