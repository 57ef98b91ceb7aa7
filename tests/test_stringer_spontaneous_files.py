"""Stringer's spontaneous activity: its files, and a twin with a planted dimension."""

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat
from visual_twins import SPONTANEOUS, content

from neuro_lightning.data.stringer.files import find_file, read_spontaneous
from neuro_lightning.data.stringer.planes import plane_labels
from neuro_lightning.data.stringer.reader import Preparation, prepare
from neuro_lightning.data.stringer.twin import NEURONS, simulate, write_twin
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.svca import random_half, svca

pytestmark = pytest.mark.usefixtures("whole_mat_files")


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


def test_the_twin_has_the_published_layout(spontaneous_twin):
    data = content(spontaneous_twin[0])
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


def test_behavior_of_original_files_whose_fields_have_no_names(tmp_path, spontaneous):
    """By their places: face, whisker, eye, pupil and running speed; a face begins with motion, a pupil with area."""
    rng = np.random.default_rng(0)
    n_bins = spontaneous.activity.shape[1]
    area, com, svd, run = (rng.normal(size=(n_bins, k)) for k in (1, 2, 4, 1))

    def cell(*values):
        found = np.empty((1, len(values)), object)
        found[0] = values
        return found

    beh = cell(cell(svd, rng.normal(size=(3, 3, 4))), np.zeros((1, 1)), np.zeros((1, 1)), cell(area, com), run)
    savemat(tmp_path / "spont.mat", {"Fsp": spontaneous.activity, "med": spontaneous.xyz.T, "beh": beh})
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


def test_original_mat_files_are_read_alike(tmp_path, spontaneous_twin):
    npy, mat = (
        read_spontaneous(spontaneous_twin[0]),
        read_spontaneous(write_mat_twin(tmp_path / "spont.mat", seed=1, **SPONTANEOUS)),
    )
    np.testing.assert_array_equal(mat.activity, npy.activity)
    np.testing.assert_array_equal(mat.xyz, npy.xyz)
    assert list(mat.behavior) == list(npy.behavior) and (mat.bin_ms, npy.bin_ms) == (400, 1200)
    for name, values in npy.behavior.items():
        np.testing.assert_array_equal(mat.behavior[name], values)
    assert read_spontaneous(tmp_path / "spont.mat", bin_ms=330).bin_ms == 330
    a, b = (prepare(source, Preparation()) for source in (npy, mat))
    np.testing.assert_array_equal(a.splits["val"].heldin, b.splits["val"].heldin)


def test_variants_of_the_behavior_struct(tmp_path):
    path = write_mat_twin(tmp_path / "spont.mat", **SPONTANEOUS)
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
def test_damaged_dictionaries(tmp_path, spontaneous_twin, change, message):
    data = content(spontaneous_twin[0])
    change(data)
    path = tmp_path / "stringer_spontaneous.npy"
    np.save(path, data, allow_pickle=True)
    with pytest.raises(DataError, match=rf"^{path}:? {message}"):
        read_spontaneous(path)


def test_negative_activity_is_legal_but_not_divided_by_its_mean(tmp_path, spontaneous_twin):
    """dF/F goes below zero."""
    data = content(spontaneous_twin[0])
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
