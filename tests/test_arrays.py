"""Arrays from files: what is read, how it is split, what is refused, and that the command trains on it."""

import h5py
import numpy as np
import pytest
import scipy.io
from runs import here, record

from neuro_lightning.api.in_process import run_predict
from neuro_lightning.data.arrays.files import read_arrays, save_arrays, write_arrays
from neuro_lightning.data.arrays.images import ImageOptions, load_images
from neuro_lightning.data.arrays.spikes import SHAPES, SpikeOptions, load_spikes
from neuro_lightning.data.arrays.traces import load_traces
from neuro_lightning.data.arrays.twin import simulated_images, simulated_spikes, simulated_traces
from neuro_lightning.data.stringer.reader import Preparation
from neuro_lightning.errors import ConfigError, DataError

SHORT = ["trainer=cpu", "trainer.max_epochs=1", "logger=csv", "callbacks=minimal", "baselines=null"]
RNG = np.random.default_rng(0)


def counts(*shape):
    return RNG.poisson(0.5, shape)


def write(path, **arrays):
    return save_arrays(path / "mine.npz", {"counts": counts(20, 8, 6), "bin_ms": np.array(20), **arrays})


# ---- spikes


def test_counts_behavior_and_conditions_follow_their_trials(tmp_path):
    arrays = simulated_spikes(0)
    arrays["condition"] = np.array([f"target {k}" for k in arrays["condition"]])
    recording = load_spikes(save_arrays(tmp_path / "mine.npz", arrays), SpikeOptions(n_forward=4))
    assert {name: len(part) for name, part in recording.splits.items()} == {"train": 160, "val": 40, "test": 40}
    assert recording.simulated and recording.bin_ms == 20 and len(recording.info["heldout_units"]) == 10
    for split, part in recording.splits.items():
        rows = part.row
        assert (arrays["split"][rows] == split).all() and (np.diff(rows) > 0).all()
        whole = arrays["counts"][rows][:, :, recording.unit_ids]
        np.testing.assert_array_equal(np.concatenate([part.heldin, part.heldout], 2), whole[:, :36])
        np.testing.assert_array_equal(np.concatenate([part.heldin_forward, part.heldout_forward], 2), whole[:, 36:])
        np.testing.assert_array_equal(part.behavior, arrays["behavior"][rows, :36])
        np.testing.assert_array_equal(part.rates, arrays["rates"][rows][:, :, recording.unit_ids])
        named = np.array(recording.info["condition_values"])[part.condition]
        assert (named == arrays["condition"][rows]).all()
    assert recording.unit_ids[-10:].tolist() == recording.info["heldout_units"]


def test_npy_and_mat_hold_the_same_recording(tmp_path):
    values, behavior = counts(20, 8, 6), RNG.normal(size=(20, 8, 2))
    split = np.array(["train"] * 14 + ["val"] * 4 + ["test"] * 2)
    arrays = {"counts": values, "behavior": behavior, "split": split, "times": np.arange(20.0)}
    npz = load_spikes(save_arrays(tmp_path / "mine.npz", arrays), SpikeOptions(bin_ms=10))
    for name, stored in (("text.mat", split), ("cells.mat", split.astype(object))):
        scipy.io.savemat(tmp_path / name, {**arrays, "split": stored, "times": np.arange(20.0)[:, None]})
        mat = load_spikes(tmp_path / name, SpikeOptions(bin_ms=10))
        for part in ("train", "val", "test"):
            np.testing.assert_array_equal(mat.splits[part].heldin, npz.splits[part].heldin)
            np.testing.assert_array_equal(mat.splits[part].behavior, npz.splits[part].behavior)
    np.save(tmp_path / "mine.npy", values)
    npy = load_spikes(tmp_path / "mine.npy", SpikeOptions(bin_ms=10))
    both = [np.concatenate([part.heldin, part.heldout], 2) for part in npy.splits.values()]
    rows = np.concatenate([part.row for part in npy.splits.values()])
    np.testing.assert_array_equal(np.concatenate(both), values[rows][:, :, npy.unit_ids])


def test_marked_neurons_are_held_out_and_none_where_none_is_asked_for(tmp_path):
    marks, ids = np.array([0, 1, 0, 0, 1, 0]), np.array([7, 3, 5, 11, 2, 0])
    path = write(tmp_path, heldout=marks, unit_ids=ids)
    assert load_spikes(path, SpikeOptions()).unit_ids.tolist() == [7, 5, 11, 0, 3, 2]
    none = load_spikes(write(tmp_path), SpikeOptions(heldout_fraction=0))
    assert none.splits["train"].heldout is None and none.unit_ids.tolist() == list(range(6))


def test_trials_that_share_time_or_content_stay_on_one_side(tmp_path):
    long = counts(100, 6)
    windows = np.stack([long[k * 4 : k * 4 + 8] for k in range(20)])  # every trial shares half its bins with the next
    timed = load_spikes(write(tmp_path, counts=windows, times=np.arange(20) * 0.08), SpikeOptions(seed=1))
    untimed = load_spikes(write(tmp_path, counts=windows), SpikeOptions(split="chronological"))
    for recording in (timed, untimed):
        rows = {split: set(part.row.tolist()) for split, part in recording.splits.items()}
        assert not any({k - 1, k, k + 1} & rows["train"] for k in rows["val"])
        assert any("left out" in line for line in recording.info["warnings"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"counts": counts(20, 8, 6) + 0.5}, r"mine.npz: counts holds .*\.5, but spike counts are whole numbers"),
        ({"counts": counts(20, 8, 6) - 1}, "mine.npz: counts holds negative values, down to -1"),
        ({"counts": np.full((20, 8, 6), np.nan)}, "counts holds NaN or infinite values"),
        ({"counts": counts(20, 8)}, r"counts must be spike counts, trials x bins x neurons, but is int64 .* \(20, 8\)"),
        ({"counts": np.full((20, 8, 6), None)}, "an array of object .* numbers or text are expected"),
        ({"behavior": np.zeros((20, 7, 2))}, r"behavior .* must be trials x bins x channels with 8 bins as in counts"),
        ({"condition": np.zeros(19)}, r"condition has the shape \(19,\), .* with 20 trials as in counts"),
        ({"split": np.array(["train"] * 19 + ["valid"])}, "split holds 'valid'; it may hold train, val and test"),
        ({"split": np.array(["train"] * 20)}, "split column needs train and val, but has train"),
        ({"times": np.zeros(20)}, "too few to train and to validate"),
        ({"unit_ids": np.zeros(6)}, "unit_ids holds a number twice"),
        ({"heldout": np.ones(6)}, "all 6 units are marked as held out"),
        ({"behaviour": np.zeros((20, 8, 2))}, "has no array 'behaviour'; did you mean 'behavior'"),
        ({"bin_ms": np.array(2.5)}, "bin_ms holds 2.5, but bin widths in ms"),
    ],
)  # fmt: skip
def test_invalid_arrays_are_refused_in_one_line(tmp_path, arrays, message):
    path = tmp_path / "mine.npz"
    np.savez(path, **{"counts": counts(20, 8, 6), "bin_ms": np.array(20), **arrays})
    with pytest.raises(DataError, match=message) as refused:
        load_spikes(path, SpikeOptions())
    assert "\n" not in str(refused.value) and "mine.npz" in str(refused.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    np.savez(tmp_path / "other.npz", spikes=counts(20, 8, 6))
    with pytest.raises(DataError, match="no array 'spikes'; did you mean 'counts'"):
        read_arrays(tmp_path / "other.npz", tuple(SHAPES))
    content = write(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut.npz cannot be read: damaged, cut short"):
        read_arrays(tmp_path / "cut.npz", tuple(SHAPES))
    with pytest.raises(DataError, match=r"gone.npz is not there"):
        read_arrays(tmp_path / "gone.npz", tuple(SHAPES))
    with pytest.raises(DataError, match=r"give a file of arrays, .npz, .npy or .mat"):
        read_arrays(tmp_path / "mine.csv", tuple(SHAPES))
    with pytest.raises(ConfigError, match=r"data.bin_ms=10: .* 20 ms wide"):
        load_spikes(write(tmp_path), SpikeOptions(bin_ms=10))
    np.save(tmp_path / "mine.npy", counts(20, 8, 6))
    with pytest.raises(ConfigError, match=r"does not say how wide its bins are: give data.bin_ms"):
        load_spikes(tmp_path / "mine.npy", SpikeOptions())


def test_the_same_arrays_are_one_file(tmp_path):
    arrays = {"counts": counts(4, 3, 2), "bin_ms": np.array(20)}
    one = write_arrays(tmp_path, "spikes", arrays)
    content = one.read_bytes()
    one.unlink()
    assert write_arrays(tmp_path, "spikes", dict(reversed(arrays.items()))) == one
    assert sorted(read_arrays(one, tuple(SHAPES))) == ["bin_ms", "counts"] and len(content) == one.stat().st_size
    assert write_arrays(tmp_path, "spikes", {**arrays, "counts": arrays["counts"] + 1}) != one


# ---- traces and images


def test_traces_are_split_in_time_and_z_scored_by_the_training_part(tmp_path):
    arrays = simulated_traces(0, n_neurons=12, n_frames=1000)
    path = save_arrays(tmp_path / "mine.npz", arrays)
    recording = load_traces(path, Preparation(normalisation="zscore", downsample=1, heldout_fraction=0.25, window=64))
    assert recording.kind == "traces" and recording.bin_ms == 100 and recording.simulated
    train = arrays["traces"][:, :700]
    scaled = (arrays["traces"] - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)
    val = recording.splits["val"]
    both = np.concatenate([val.heldin, val.heldout], 2)[0]
    np.testing.assert_allclose(both, scaled[recording.unit_ids, 700:850].T, atol=1e-5)
    assert val.heldout.shape[2] == 3 and val.behavior.shape == (1, 150, 2)
    with pytest.raises(DataError, match=r"traces must be traces, neurons x frames, but is .* \(2, 3, 4\)"):
        load_traces(save_arrays(tmp_path / "odd.npz", {"traces": np.zeros((2, 3, 4))}), Preparation())
    turned = {"traces": np.random.default_rng(0).normal(size=(200, 30)), "bin_ms": 100}
    turned = save_arrays(tmp_path / "turned.npz", turned)
    with pytest.raises(ConfigError, match=r"data\.window=64.* 200 neurons in 30 frames; give neurons x frames"):
        load_traces(turned, Preparation(normalisation="zscore", downsample=1, window=64))


def test_images_with_repeats_and_missing_responses(tmp_path):
    arrays = simulated_images(0, n_images=60, n_neurons=5)
    arrays["responses"][3, :, 2] = np.nan
    arrays["responses"][4, 1, 2] = np.nan
    arrays["images"][7] = arrays["images"][8]
    recording = load_images(save_arrays(tmp_path / "mine.npz", arrays), ImageOptions())
    parts = recording.splits
    rows = np.concatenate([part.row for part in parts.values()])
    assert sorted(rows) == list(range(60)) and sum({7, 8} <= set(part.row) for part in parts.values()) == 1
    responses = np.concatenate([part.responses for part in parts.values()])[np.argsort(rows)]
    assert np.isnan(responses[3, 2]) and responses[4, 2] == arrays["responses"][4, [0, 2], 2].mean()
    assert parts["train"].images.mean() == pytest.approx(0, abs=1e-5) and parts["test"].repeats.shape[1] == 3
    with pytest.raises(DataError, match=r"responses has 59 rows for 60 images: .* or image_ids"):
        load_images(save_arrays(tmp_path / "odd.npz", arrays | {"responses": np.zeros((59, 5))}), ImageOptions())
    split = np.array(["train"] * 8 + ["val"] * 30 + ["test"] * 22)
    with pytest.raises(DataError, match=r"image 8 \(val\) is the same as image 7 \(train\)"):
        load_images(save_arrays(tmp_path / "odd.npz", arrays | {"split": split}), ImageOptions())


@pytest.mark.parametrize(("data", "model"), [("arrays", "gru"), ("array_traces", "gru"), ("images", "hsm")])
def test_the_twins_train(tmp_path, data, model):
    where = [f"paths.data={tmp_path / 'data'}", f"paths.cache={tmp_path / 'cache'}", "data.simulate=true"]
    small = ["model.hidden=6"] if model == "gru" else []
    run = here(tmp_path / "run", f"data={data}", f"model={model}", *where, *small, base=SHORT)
    found = record(run.folder)
    assert found["status"] == "finished" and np.isfinite(run.score) and found["data"]["simulated"]
    assert found["data"]["sources"][0]["path"].startswith(str(tmp_path / "data" / "simulated" / "arrays"))
    with pytest.raises(ConfigError, match=r"data.path=FILE must name a file of arrays"):
        here(tmp_path / "none", f"data={data}", f"model={model}", *where[:2], *small, base=SHORT)


def test_another_file_of_the_same_neurons_is_predicted(tmp_path, capfd):
    """Its trials come out as they would from the file that trained the model, whatever the order of its neurons."""
    values, ids, width = RNG.poisson(2.0, (40, 8, 6)), np.array([11, 5, 7, 2, 9, 3]), np.array(20)
    split = np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    path = save_arrays(tmp_path / "mine.npz", {"counts": values, "split": split, "unit_ids": ids, "bin_ms": width})
    run = here(tmp_path / "run", f"data.path={path}", base=["data=arrays", "model=gru", *SHORT]).folder
    other, order = counts(5, 8, 6), [3, 1, 0, 5, 4, 2]

    def predicted(name, **arrays):
        path = save_arrays(tmp_path / f"{name}.npz", {"bin_ms": width, **arrays})
        return run_predict([f"ckpt={run}", f"data.path={path}", f"file={tmp_path / name}.h5"])

    own = run_predict([f"ckpt={run}", f"file={tmp_path / 'own.h5'}"])
    mixed = np.concatenate([values[:2], values[32:]])[..., order]
    with h5py.File(own) as own, h5py.File(predicted("mixed", counts=mixed, unit_ids=ids[order])) as found:
        np.testing.assert_array_equal(found["test/predictions"], own["test/predictions"])
        np.testing.assert_array_equal(found["train/predictions"], own["train/predictions"][:2])
    said = capfd.readouterr().out
    assert "2 of its 10 trials trained the model" in said and "by unit_ids or by columns" in said
    with pytest.raises(DataError, match="holds 5 neurons, which are not the 6 of the file"):
        predicted("fewer", counts=other[..., :5])
    with pytest.raises(DataError, match="which are not the 6"):  # no ids: columns 0 to 5
        predicted("columns", counts=other)
    with pytest.raises(DataError, match="its trials have 7 bins, those that trained the model 8"):
        predicted("short", counts=other[:, :7], unit_ids=ids)
    with pytest.raises(ConfigError, match="bins are 10 ms wide"):
        predicted("wide", counts=other, unit_ids=ids, bin_ms=np.array(10))
