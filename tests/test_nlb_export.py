"""The benchmark's recordings: their splits, errors, target groups, and the export to HDF5."""

import shutil

import h5py
import numpy as np
import pytest

from neuro_lightning.data.nlb import params as nlb_params
from neuro_lightning.data.nlb.__main__ import main
from neuro_lightning.data.nlb.params import NLB_DATASETS, find_files, get_params, group_name
from neuro_lightning.data.nlb.reader import draw_jitter, load_nlb
from neuro_lightning.data.nlb.targets import official_tensors, supplied_trials, target_group
from neuro_lightning.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    from neuro_lightning.data.nlb.twin import write_twin

    files = {}

    def get(dataset):
        if dataset not in files:
            files[dataset] = write_twin(dataset, tmp_path_factory.mktemp(dataset), n_trials=40, n_units=(8, 3))
        return files[dataset]

    return get


@pytest.fixture
def damaged(twin, tmp_path):
    """A copy of a dataset's train file, changed by a function of the open HDF5 file."""

    def make(dataset, change):
        path = tmp_path / "changed.nwb"
        shutil.copy(twin(dataset)[0], path)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def test_dataset_table_is_consistent():
    assert len(NLB_DATASETS) == 7
    for params in NLB_DATASETS.values():
        assert all(len(asset.sha256) == 64 and asset.size > 0 for asset in params.assets)
        assert all(params.window_ms % bin_ms == 0 for bin_ms in nlb_params.BIN_WIDTHS)
    assert len({asset.sha256 for params in NLB_DATASETS.values() for asset in params.assets}) == 14
    assert (group_name("mc_rtt", 5), group_name("mc_rtt", 20)) == ("mc_rtt", "mc_rtt_20")


def test_files_are_found_in_any_usual_layout(tmp_path):
    asset = get_params("mc_rtt").train
    missing = tmp_path / "000129" / asset.path
    assert find_files("mc_rtt", tmp_path)[0] == missing
    for path in (tmp_path / asset.name, tmp_path / "mc_rtt" / asset.name, tmp_path / asset.path, missing):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        assert find_files("mc_rtt", tmp_path)[0] == path


def test_splits_follow_the_trial_table(twin):
    train_path, test_path = twin("dmfc_rsg")
    val, test = (load_nlb("dmfc_rsg", train_path, test_path, phase=phase) for phase in ("val", "test"))
    assert set(val.splits) == {"train", "val"} and set(test.splits) == {"train", "val", "test"}
    assert not set(val.splits["train"].row) & set(val.splits["val"].row)
    for name in ("train", "val"):
        assert np.array_equal(val.splits[name].row, test.splits[name].row)
        assert (np.diff(val.splits[name].row) > 0).all()
        assert val.splits[name].heldin.dtype == np.uint8
    # the benchmark draws the jitter of all supplied trials at once, so it depends on the phase
    assert not np.array_equal(val.splits["val"].jitter, test.splits["val"].jitter)
    assert test.splits["test"].heldout is None and test.splits["test"].behavior is None
    both, held_back = supplied_trials(test)
    assert (np.diff(both.row) > 0).all() and len(both) == len(test.splits["train"]) + len(test.splits["val"])
    assert held_back is test.splits["test"]
    assert val.simulated and val.info["dropped"] == 0


def test_scored_spikes_of_dmfc(twin):
    """Held-out spikes are scored from set to go, at the end of the window, moved by the jitter."""
    recording = load_nlb("dmfc_rsg", twin("dmfc_rsg")[0], seed=3)
    val = recording.splits["val"]
    spikes = target_group(recording)["eval_spikes_heldout"]
    last = val.scored.shape[1] - 1 - np.argmax(val.scored[:, ::-1], axis=1)
    assert np.array_equal(last, val.scored.shape[1] - 1 - val.jitter)
    assert np.array_equal(~np.isnan(spikes[:, :, 0]), val.scored)
    assert np.array_equal(spikes[val.scored], val.heldout[val.scored])


def test_jitter_keeps_the_interval_inside():
    tp = np.array([100.0, 1190, 1201, 1350.5, 1499, 1600] * 50)
    jitter = draw_jitter(tp, 1500, 5, seed=0)
    assert (jitter * 5 <= np.clip(1500 - tp, 0, 300)).all() and jitter.min() == 0 and 50 < jitter.max() <= 60
    assert np.array_equal(jitter, draw_jitter(tp, 1500, 5, seed=0))
    assert not np.array_equal(jitter, draw_jitter(tp, 1500, 5, seed=1))
    assert np.isnan(draw_jitter(np.array([np.nan]), 1500, 5, seed=0)).all()


def test_a_trial_that_cannot_be_aligned_is_left_out(damaged):
    def forget(file):
        split = file["intervals/trials/split"].asstr()[:]
        file["intervals/trials/move_onset_time"][np.flatnonzero(split == "train")[:2]] = np.nan

    whole = load_nlb("mc_maze_small", damaged("mc_maze_small", lambda file: None))
    less = load_nlb("mc_maze_small", damaged("mc_maze_small", forget))
    assert less.info["dropped"] == 2
    assert np.array_equal(less.splits["train"].heldin, whole.splits["train"].heldin[2:])


def test_a_unit_without_spikes(damaged):
    def silence(file):
        index = file["units/spike_times_index"]
        ends = index[:]
        times = file["units/spike_times"][:]
        kept = np.delete(times, np.arange(ends[0], ends[1]))
        ends[1:] -= ends[1] - ends[0]
        index[:] = ends
        del file["units/spike_times"]
        file["units/spike_times"] = kept
        for key, value in attributes.items():
            file["units/spike_times"].attrs[key] = value
        index.attrs["target"] = file["units/spike_times"].ref

    attributes = {}

    def change(file):
        attributes.update(file["units/spike_times"].attrs)
        silence(file)

    recording = load_nlb("mc_maze_small", damaged("mc_maze_small", change))
    totals = sum(s.heldin.sum((0, 1)).tolist().count(0) + s.heldout.sum((0, 1)).tolist().count(0)
                 for s in recording.splits.values())  # fmt: skip
    assert totals == 2
    assert np.isfinite(recording.psth).all()


def test_wrong_dataset(twin):
    for dataset, file in [("dmfc_rsg", "mc_maze_small"), ("mc_maze_small", "mc_rtt"), ("area2_bump", "mc_maze_small")]:
        with pytest.raises(DataError, match=f"is not a file of {dataset}.*has no column"):
            load_nlb(dataset, twin(file)[0])
    with pytest.raises(DataError, match="simulated-mc_maze_small twin, not one of mc_maze_large"):
        load_nlb("mc_maze_large", twin("mc_maze_small")[0])


def test_unit_counts_of_real_files_are_checked(twin, monkeypatch):
    """A real file of another maze session has the same columns, but other units."""
    from neuro_lightning.data.nlb import reader as tensors

    opened = tensors.open_nwb

    def as_if_real(path):
        nwb = opened(path)
        nwb.simulated = False
        return nwb

    monkeypatch.setattr(tensors, "open_nwb", as_if_real)
    with pytest.raises(DataError, match=r"8 held-in and 3 held-out units, but mc_maze_small .* has 107 and 35"):
        load_nlb("mc_maze_small", twin("mc_maze_small")[0])


def test_train_and_test_file_confused(twin, tmp_path):
    train_path, test_path = twin("mc_rtt")
    with pytest.raises(DataError, match="no held-out units: give the train file"):
        load_nlb("mc_rtt", test_path)
    with pytest.raises(DataError, match="needs mc_rtt's test file"):
        load_nlb("mc_rtt", train_path, phase="test")
    with pytest.raises(DataError, match="does not exist"):
        load_nlb("mc_rtt", train_path, test_path.parent / "nowhere.nwb", phase="test")
    with pytest.raises(DataError, match=r"train.*nwb has no usable trials of split test"):
        load_nlb("mc_rtt", train_path, train_path, phase="test")
    other = tmp_path / "other_units.nwb"
    shutil.copy(test_path, other)
    with h5py.File(other, "r+") as file:
        file["units/id"][0] = 98765
    with pytest.raises(DataError, match=r"other_units\.nwb does not belong to"):
        load_nlb("mc_rtt", train_path, other, phase="test")


def test_missing_column(damaged):
    def rename(file):
        trials = file["intervals/trials"]
        trials.move("move_onset_time", "onset")
        trials.attrs["colnames"] = ["onset" if c == "move_onset_time" else c for c in trials.attrs["colnames"]]

    with pytest.raises(DataError, match=r"changed\.nwb.*no column move_onset_time.*onset"):
        load_nlb("mc_maze_small", damaged("mc_maze_small", rename))


def test_window_outside_the_recording(damaged):
    def late(file):
        split = file["intervals/trials/split"].asstr()[:]
        file["intervals/trials/move_onset_time"][np.flatnonzero(split == "val")[0]] += 1e5

    with pytest.raises(DataError, match=r"window of trial \d+ .*not inside the observed recording.*1 of"):
        load_nlb("mc_maze_small", damaged("mc_maze_small", late))


@pytest.mark.parametrize("bin_ms", [0, 7, 30, 400])
def test_bin_width_must_divide_the_windows(twin, bin_ms):
    with pytest.raises(ConfigError, match=f"data.bin_ms={bin_ms} does not divide"):
        load_nlb("mc_rtt", twin("mc_rtt")[0], bin_ms=bin_ms)


def test_unknown_names(twin):
    with pytest.raises(ConfigError, match=r"no dataset 'mc_maize'.*mc_maze"):
        load_nlb("mc_maize", twin("mc_rtt")[0])
    with pytest.raises(ConfigError, match=r"data\.phase must be one of val, test, not 'train'"):
        load_nlb("mc_rtt", twin("mc_rtt")[0], phase="train")


@pytest.mark.parametrize("phase, bin_ms", [("val", 5), ("test", 20)])
def test_export(twin, tmp_path, capsys, phase, bin_ms):
    train_path, test_path = twin("dmfc_rsg")
    root = tmp_path / "data"
    root.mkdir()
    params = get_params("dmfc_rsg")
    shutil.copy(train_path, root / params.train.name)
    shutil.copy(test_path, root / params.test.name)
    out = tmp_path / "deep" / "tensors.h5"
    arguments = ["--dataset", "dmfc_rsg", "--root", str(root), "--phase", phase, "--bin-ms", str(bin_ms)]
    assert main([*arguments, "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    tensors = official_tensors(load_nlb("dmfc_rsg", train_path, test_path, phase=phase, bin_ms=bin_ms))
    targets = tensors.pop(group_name("dmfc_rsg", bin_ms))
    with h5py.File(out) as file:
        group = file[group_name("dmfc_rsg", bin_ms)]
        assert set(file) == {*tensors, group.name.strip("/")} and set(group) == set(targets)
        assert file["train_spikes_heldin"].dtype == np.float32
        assert group["train_jitter"].dtype == np.int32 and file["train_spikes_heldin"].compression == "gzip"
        for stored, made in [(file, tensors), (group, targets)]:
            for name, value in made.items():
                if isinstance(value, list):
                    assert all(np.array_equal(a, b) for a, b in zip(stored[name][:], value, strict=True))
                else:
                    assert np.array_equal(stored[name][:], value.astype(stored[name].dtype), equal_nan=True)
    assert [p.name for p in out.parent.iterdir()] == ["tensors.h5"]


def test_export_says_what_is_missing(tmp_path, capsys):
    out = tmp_path / "tensors.h5"
    assert main(["--dataset", "mc_rtt", "--root", str(tmp_path), "--out", str(out)]) == 1
    assert "sub-Indy_desc-train_behavior+ecephys.nwb does not exist" in capsys.readouterr().err
    assert not out.exists()


def test_an_interrupted_export_leaves_nothing(tmp_path):
    from neuro_lightning.data.nlb.export import write_h5

    out = tmp_path / "tensors.h5"
    out.write_bytes(b"old")
    with pytest.raises(ValueError):
        write_h5(out, {"good": np.zeros(3), "bad": np.array(["a", 1], object)})
    assert out.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["tensors.h5"]
    with pytest.raises(DataError, match="cannot be written"):
        write_h5(out / "below_a_file.h5", {"good": np.zeros(3)})


def test_export_of_a_twin_says_so(tmp_path, capsys):
    arguments = ["--dataset", "mc_rtt", "--root", str(tmp_path / "data"), "--simulate"]
    assert main([*arguments, "--out", str(tmp_path / "tensors.h5")]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    with h5py.File(tmp_path / "tensors.h5") as file:
        assert file["mc_rtt/eval_behavior"].shape[2] == 2 and "psth" not in file["mc_rtt"]
