"""Antolik V1: which options, twins and files are refused."""

import shutil

import numpy as np
import pytest
from visual_twins import ANTOLIK

from neuro_lightning.data.antolik.datamodule import AntolikV1
from neuro_lightning.data.antolik.reader import load_antolik
from neuro_lightning.data.antolik.twin import write_twin
from neuro_lightning.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": 4}, r"data.region must be 1, 2 or 3.*\[4\]"),
        ({"region": [1, 1]}, "data.region must be 1, 2 or 3"),
        ({"region": []}, "data.region must be 1, 2 or 3"),
        ({"region": "1"}, "data.region must be 1, 2 or 3"),
        ({"input_scale": "255"}, "data.input_scale must be one of zscore, zscore_each, raw255, none"),
        ({"response_scale": "max"}, "data.response_scale must be one of none, std"),
        ({"protocol": "paper"}, "data.protocol must be one of honest, thesis"),
        ({"val_fraction": 1.0}, "data.val_fraction must be above 0 and below 1"),
        ({"val_fraction": "some"}, "data.val_fraction must be above 0 and below 1, not 'some'"),
        ({"split_seed": -1}, "data.split_seed must be a whole number from 0 on, not -1"),
        ({"region": 4, "simulate": True}, r"data.region must be 1, 2 or 3.*\[4\]"),
    ],
)
def test_impossible_options_are_refused(antolik_root, options, message):
    with pytest.raises(ConfigError, match=message):
        AntolikV1(root=str(antolik_root), **options).load()


def test_impossible_twins_are_refused(tmp_path):
    for wrong in ({"train_images": 5}, {"neurons": 1}, {"dogs": 10}, {"noise": -1.0}):
        with pytest.raises(ConfigError, match="a twin of antolik_v1"):
            write_twin(tmp_path, [1], **(ANTOLIK | wrong))
    with pytest.raises(ConfigError, match=r"a twin of antolik_v1 has regions of 1, 2 and 3.*\[4\]"):
        write_twin(tmp_path, [4], **ANTOLIK)


def spoil(name: str, change):
    def spoiled(folder):
        path = folder / f"{name}.npy"
        np.save(path, change(np.load(path)), allow_pickle=True)

    return spoiled


def put(value):
    def change(array):
        array = array.copy()
        array.flat[3] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("training_set", put(np.nan)), "training_set.npy holds NaN"),
        (spoil("training_set", put(-1)), "training_set.npy holds negative values, down to -1"),
        (spoil("training_inputs", put(np.inf)), "training_inputs.npy holds NaN or infinite"),
        (spoil("training_inputs", lambda x: x * 1e6), "data.input_scale does the rescaling"),
        (spoil("validation_inputs", lambda x: x[:, :900]), "900 pixels an image where 31 x 31 make 961"),
        (
            spoil("training_inputs", lambda x: x[:-1]),
            "training_set.npy has the shape .60, 6., .* 59 images as in training_inputs.npy",
        ),
        (
            spoil("validation_inputs", lambda x: x[:40]),
            "validation_set.npy has the shape .50, 6., .* 40 images as in validation_inputs.npy",
        ),
        (
            spoil("training_set", lambda x: x[:, :4]),
            "validation_set.npy has the shape .50, 6., .* 4 neurons as in training_set.npy",
        ),
        (
            spoil("validation_set", lambda x: x[:, :4]),
            r"validation_set.npy has the shape \(50, 4\), .* 6 neurons as in training_set.npy",
        ),
        (
            spoil("raw_validation_set", lambda x: x.swapaxes(0, 1)),
            r"raw_validation_set.npy has the shape \(50, 10, 6\), .* 50 images as in",
        ),
        (spoil("raw_validation_set", lambda x: x[:7]), "is not the mean of raw_validation_set.npy over its 7 repeats"),
        (spoil("raw_validation_set", lambda x: x[0]), "repeats x images x neurons, but is float64"),
        (spoil("training_set", lambda x: x[:0]), "training_set.npy is empty"),
        (spoil("training_set", lambda x: x.astype(object)), "cannot be read: damaged"),
        (spoil("training_set", lambda x: x.astype(str)), "must be inferred spikes .*, images x neurons"),
        (lambda folder: (folder / "validation_set.npy").write_bytes(b"\x93NUMPY\x01\x00no"), "cannot be read: damaged"),
        (lambda folder: (folder / "validation_set.npy").unlink(), "validation_set.npy is missing in .*simulate=true"),
        (
            lambda folder: (folder / "truth.npz").write_bytes(b"PK\x03\x04"),
            "truth.npz cannot be read.*delete the folder",
        ),
        (lambda folder: shutil.rmtree(folder), "has no folder region1: download the zip .*pcbi.1004927.s001"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(antolik_copy, change, message):
    change(antolik_copy)
    with pytest.raises(DataError, match=message) as error:
        load_antolik(antolik_copy.parents[1], [1])
    assert "\n" not in str(error.value)


def test_recordings_and_simulations_are_not_pooled(antolik_root, antolik_copy):
    shutil.copytree(antolik_root / "antolik2016" / "region2", antolik_copy.with_name("region2"))
    (antolik_copy / "truth.npz").unlink()
    assert not load_antolik(antolik_copy.parents[1], [1]).simulated
    with pytest.raises(DataError, match=r"some of the regions .* are simulated"):
        load_antolik(antolik_copy.parents[1], [1, 2])


def test_pickles_are_never_opened(antolik_copy, tmp_path):
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (marker.write_text, ("x",))

    np.save(antolik_copy / "training_set.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        load_antolik(antolik_copy.parents[1], [1])
    assert not marker.exists()
