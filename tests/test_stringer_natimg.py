"""Responses to natural images: the twin's layout, repeats, splits by image, what is refused, and a short run."""

import logging

import numpy as np
import pytest
import scipy.io
from runs import here, rows

from neuro_lightning.data.images import mean_over_repeats
from neuro_lightning.data.stringer_stimuli.datamodule import NaturalImages
from neuro_lightning.data.stringer_stimuli.natimg import (
    load_natimg,
    shrink,
    spontaneous_components,
    stack_repeats,
)
from neuro_lightning.data.stringer_stimuli.twin import SESSION, write_natimg
from neuro_lightning.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("whole_mat_files")

RNG = np.random.default_rng(0)
SIZE = (9, 13)
GREY = 21


def stimuli(n=6, images=GREY - 1, **changes):
    """Each image twice, and the grey screen now and then."""
    istim = RNG.permutation(np.concatenate([np.tile(np.arange(1, images + 1), 2), [images + 1] * 3]))
    base = {
        "resp": RNG.gamma(2, 2, (len(istim), n)), "istim": istim[:, None].astype(float),
        "spont": RNG.gamma(2, 2, (50, n)),
    }  # fmt: skip
    return {k: v for k, v in (base | changes).items() if v is not None}


def write(folder, stim, images=None, name="natimg2800_M1_2000-01-01.mat", med=None):
    folder.mkdir(exist_ok=True, parents=True)
    images = RNG.integers(0, 255, (*SIZE, GREY - 1)).astype(np.uint8) if images is None else images
    scipy.io.savemat(folder / name, {"stim": stim, "med": np.zeros((6, 3)) if med is None else med})
    scipy.io.savemat(folder / "images_natimg2800_all.mat", {"imgs": images})
    return folder / name, folder / "images_natimg2800_all.mat"


def load(paths, **options):
    return load_natimg(*paths, **{"remove_components": 0, "standardize": False, "downsample": 1} | options)


def joined(recording, name):
    splits = recording.splits.values()
    order = np.argsort(np.concatenate([s.row for s in splits]))
    return np.concatenate([getattr(s, name) for s in splits])[order]


def zscored(stim):
    return (stim["resp"] - stim["spont"].mean(0)) / (stim["spont"].std(0) + 1e-6)


def test_repeats_are_the_presentations_in_their_order(tmp_path):
    stim = stimuli()
    recording = load(write(tmp_path, stim))
    repeats, z = joined(recording, "repeats"), zscored(stim)
    assert repeats.shape == (20, 2, 6) and joined(recording, "row").tolist() == list(range(20))
    for image in range(20):
        shown = np.flatnonzero(stim["istim"][:, 0] == image + 1)
        np.testing.assert_allclose(repeats[image], z[shown], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(joined(recording, "responses"), repeats.mean(1), atol=1e-6)


def test_where_the_neurons_lie(tmp_path):
    med, stim = RNG.uniform(0, 900, (6, 3)), stimuli()
    found = load(write(tmp_path, stim, med=med), neurons=3)
    np.testing.assert_array_equal(found.unit_positions, med[found.unit_ids, :2])
    for unclear in (med[:5], np.full((6, 3), np.nan), np.empty((0, 0))):
        assert load(write(tmp_path, stim, med=unclear)).unit_positions is None


def test_splits_are_by_image_and_disjoint(tmp_path):
    paths = write(tmp_path, stimuli())
    recording = load(paths, val_fraction=0.2, test_fraction=0.25)
    parts = {name: set(split.row.tolist()) for name, split in recording.splits.items()}
    assert {k: len(v) for k, v in parts.items()} == {"train": 11, "val": 4, "test": 5}
    assert len(set.union(*parts.values())) == 20
    assert all(split.repeats.shape[1] == 2 for split in recording.splits.values())
    again = load(paths, val_fraction=0.2, test_fraction=0.25)
    assert again.splits["val"].row.tolist() == recording.splits["val"].row.tolist()
    assert load(paths, seed=1).splits["val"].row.tolist() != load(paths).splits["val"].row.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_images_of_two_numbers_that_are_the_same_stay_on_one_side(tmp_path, seed):
    images = RNG.integers(0, 255, (*SIZE, GREY - 1)).astype(np.uint8)
    images[:, :, 10:] = images[:, :, :10]
    images[0, 0, 10:] += 1  # outside what is used
    paths = write(tmp_path, stimuli(), images)
    recording = load(paths, val_fraction=0.25, test_fraction=0.25, crop=[1, 9, 0, 13], seed=seed)
    parts = [set(split.row.tolist()) for split in recording.splits.values()]
    assert all({(row + 10) % 20 for row in part} == part for part in parts) and len(set.union(*parts)) == 20
    assert "10 images are the same as an earlier one" in recording.info["warnings"][0]


def test_images_shown_a_different_number_of_times_leave_nan(tmp_path):
    stim = stimuli()
    once, more = stim["istim"][:, 0] == 3, np.flatnonzero(stim["istim"][:, 0] == GREY)[0]
    stim["istim"][np.flatnonzero(once)[0]] = GREY
    stim["istim"][more] = 5
    recording = load(write(tmp_path, stim))
    repeats, z = joined(recording, "repeats"), zscored(stim)
    count = np.isfinite(repeats).all(2).sum(1)
    assert repeats.shape[1] == 3 and count[2] == 1 and count[4] == 3 and set(np.delete(count, [2, 4])) == {2}
    np.testing.assert_allclose(
        joined(recording, "responses")[4], z[stim["istim"][:, 0] == 5].mean(0), rtol=1e-5, atol=1e-5
    )


def test_images_that_were_not_shown_are_left_out(tmp_path):
    stim = stimuli()
    stim["istim"][stim["istim"] == 7] = GREY
    images, rates = RNG.integers(0, 255, (*SIZE, GREY - 1)).astype(np.uint8), RNG.gamma(2, 2, (6, GREY - 1))
    np.savez(tmp_path / "truth.npz", rates=rates)
    recording = load(write(tmp_path, stim, images), truth=tmp_path / "truth.npz")
    row = joined(recording, "row")
    assert row.tolist() == [i for i in range(20) if i != 6]
    # those after it keep their own pixels and true rates
    pixels = joined(recording, "images")[:, 0] * recording.info["image_std"] + recording.info["image_mean"]
    np.testing.assert_allclose(pixels, images.transpose(2, 0, 1)[row], atol=1e-3)
    expected = zscored(stim | {"resp": rates.T})[row]
    np.testing.assert_allclose(joined(recording, "rates"), expected, rtol=1e-4, atol=1e-4)


def test_nan_responses_stay_unobserved(tmp_path):
    stim = stimuli()
    first, second = np.flatnonzero(stim["istim"][:, 0] == 4)
    stim["resp"][first, 2] = np.nan
    recording = load(write(tmp_path, stim))
    repeats, z = joined(recording, "repeats"), zscored(stim)
    assert np.argwhere(np.isnan(repeats)).tolist() == [[3, 0, 2]]
    np.testing.assert_allclose(joined(recording, "responses")[3, 2], z[second, 2], rtol=1e-5)
    # it takes no part in the projection, and costs the other neurons nothing
    projected = joined(load(write(tmp_path, stim), remove_components=2), "repeats")
    assert np.argwhere(np.isnan(projected)).tolist() == [[3, 0, 2]]
    stim["resp"][first, 2] = stim["spont"][:, 2].mean()
    whole = joined(load(write(tmp_path, stim), remove_components=2), "repeats")
    np.testing.assert_allclose(np.where(np.isnan(projected), whole, projected), whole, atol=1e-5)


def test_spontaneous_components_are_taken_out(tmp_path):
    stim = stimuli(n=40)
    recording = load(write(tmp_path, stim), remove_components=8)
    z = (stim["spont"] - stim["spont"].mean(0)) / (stim["spont"].std(0) + 1e-6)
    u = np.linalg.svd(z, full_matrices=False)[2][:8].T
    repeats = joined(recording, "repeats")
    assert abs(repeats @ u).max() < 1e-4
    plain = joined(load(write(tmp_path, stim)), "repeats")
    np.testing.assert_allclose(repeats, plain - plain @ u @ u.T, atol=1e-4)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_components_are_those_of_the_svd(shape):
    z = RNG.normal(size=shape)
    z -= z.mean(0)
    expected, found = np.linalg.svd(z, full_matrices=False)[2][:4].T, spontaneous_components(z, 4)
    np.testing.assert_allclose(abs(expected.T @ found), np.eye(4), atol=1e-8)


def test_standardized_by_the_training_images(tmp_path):
    stim = stimuli()
    recording = load(write(tmp_path, stim), standardize=True)
    train, plain = recording.splits["train"], load(write(tmp_path, stim)).splits
    np.testing.assert_allclose(train.repeats.mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(train.repeats.std((0, 1)), 1, atol=1e-5)
    mean, std = plain["train"].repeats.mean((0, 1)), plain["train"].repeats.std((0, 1))
    expected = (plain["test"].responses - mean) / std
    np.testing.assert_allclose(recording.splits["test"].responses, expected, atol=1e-4)


def test_images_are_standardized_by_the_training_ones(tmp_path):
    images = RNG.integers(0, 255, (*SIZE, GREY - 1)).astype(np.uint8)
    recording = load(write(tmp_path, stimuli(), images))
    train = recording.splits["train"]
    assert train.images.shape == (16, 1, *SIZE) and train.images.dtype == np.float32
    assert abs(train.images.mean()) < 1e-6 and abs(train.images.std() - 1) < 1e-6
    info, test = recording.info, recording.splits["test"]
    pixels = images.transpose(2, 0, 1)[test.row]
    np.testing.assert_allclose(test.images[:, 0] * info["image_std"] + info["image_mean"], pixels, atol=1e-3)


def test_shrink_is_the_mean_of_squares():
    images = RNG.integers(0, 255, (3, 9, 14)).astype(np.uint8)
    np.testing.assert_array_equal(shrink(images, None, 1), images)
    found = shrink(images, None, 4)  # 9 rows: one is cut off below; 14 columns: one on either side
    assert found.shape == (3, 2, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[1, 1, 2], images[1, 4:8, 9:13].mean())
    np.testing.assert_allclose(shrink(images, (1, 7, 2, 8), 3)[2, 1, 0], images[2, 4:7, 2:5].mean())


def test_stack_repeats_and_their_mean():
    row, repeats = stack_repeats(np.array([4, 1, 4, 9, 4]), np.arange(10.0).reshape(5, 2))
    assert row.tolist() == [1, 4, 9]
    np.testing.assert_array_equal(repeats[1], [[0, 1], [4, 5], [8, 9]])
    np.testing.assert_array_equal(repeats[2], [[6, 7], [np.nan, np.nan], [np.nan, np.nan]])
    repeats[0] = np.nan
    np.testing.assert_array_equal(mean_over_repeats(repeats), [[np.nan, np.nan], [4, 5], [6, 7]])


def test_silent_neurons_and_a_draw(tmp_path, caplog):
    stim = stimuli(n=10)
    stim["spont"][:, 3] = 0
    paths = write(tmp_path, stim)
    with caplog.at_level(logging.WARNING):
        recording = load(paths, remove_components=2)
    assert 3 not in recording.unit_ids and len(recording.unit_ids) == 9 and "1 neurons without" in caplog.text
    few = load(paths, remove_components=2, neurons=4)
    assert len(few.unit_ids) == 4 and 3 not in few.unit_ids and recording.info["n_recorded"] == 10
    place = np.searchsorted(recording.unit_ids, few.unit_ids)
    np.testing.assert_array_equal(joined(few, "responses"), joined(recording, "responses")[:, place])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spont": None}, "stim must be a struct with the fields resp, istim, spont, but is a struct with resp, istim"),
        ({"istim": np.ones((40, 1))}, r"resp has the shape \(43, 6\)"),
        ({"istim": np.full((43, 1), 1.5)}, "whole numbers from 1 on"),
        ({"istim": np.zeros((43, 1))}, "whole numbers from 1 on"),
        ({"istim": np.ones((43, 1))}, "the grey screen"),
        ({"spont": np.ones((50, 5))}, r"spont has the shape \(50, 5\)"),
        ({"spont": np.ones((50, 6))}, r"no neuron has spontaneous activity \(stim.spont\)"),
        ({"spont": np.full((50, 6), np.nan)}, "spont holds NaN"),
        ({"resp": np.full((43, 6), np.inf)}, "resp holds infinite"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    paths = write(tmp_path, stimuli(**changes))
    with pytest.raises(DataError, match=message) as caught:
        load(paths)
    assert str(paths[0]) in str(caught.value) and "\n" not in str(caught.value)


def test_files_of_different_recordings_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has 33 images, but .* numbers 20 and the grey screen \(21\)"):
        load(write(tmp_path, stimuli(), RNG.normal(size=(*SIZE, 33))))
    with pytest.raises(DataError, match="19 of 20 images are the same"):
        load(write(tmp_path, stimuli(), np.ones((*SIZE, 20))))
    with pytest.raises(DataError, match="imgs must be numbers, H x W x n"):
        load(write(tmp_path, stimuli(), np.ones((9, 20))))
    recording, images = write(tmp_path, stimuli())
    with pytest.raises(DataError, match=r"has no variable stim or med\. It has: imgs"):
        load((images, images))
    with pytest.raises(DataError, match="stim must be a struct"):
        scipy.io.savemat(tmp_path / "flat.mat", {"stim": np.ones(3)})
        load((tmp_path / "flat.mat", images))
    recording.write_bytes(recording.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read: damaged"):
        load((recording, images))
    recording.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(500))
    with pytest.raises(DataError, match=r"is a MATLAB 7\.3 file"):
        load((recording, images))
    with pytest.raises(DataError, match="is not there"):
        load((tmp_path / "none.mat", images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove_components": 7}, "data.remove_components must be a whole number from 0 to 6"),
        ({"neurons": -1}, "data.neurons"),
        ({"val_fraction": 0.0}, "data.val_fraction must be above 0"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "of 20 leaves nothing to train on"),
        ({"crop": (0, 10, 0, 13)}, r"data.crop=\[0, 10, 0, 13\] must be .* bottom <= 9"),
        ({"crop": (0, 1, 2)}, r"data.crop=\[0, 1, 2\] must be \[top, bottom, left, right\]"),
        ({"crop": (0, 1.5, 0, 2)}, r"data.crop=\[0, 1.5, 0, 2\] must be"),
        ({"seed": -1}, "data.seed must be a whole number from 0 on"),
        ({"downsample": 10}, "data.downsample must be a whole number from 1 to 9"),
        ({"downsample": 0}, "data.downsample"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, stimuli()), **options)


# ---- the twin and the data module


def module(root, **options):
    return NaturalImages(root=str(root), cache_dir=str(root / "cache"), **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_twin_has_the_real_files_layout(root):
    path, images, _ = write_natimg(root / "twin", n_neurons=8, n_images=40)
    assert path.name == f"natimg2800_{SESSION}.mat" and images.name == "images_natimg2800_all.mat"
    stim = scipy.io.loadmat(path)["stim"][0]  # as the authors' README opens it
    assert [stim[name][0].shape for name in ("resp", "istim", "spont")] == [(84, 8), (84, 1), (200, 8)]
    shown, count = np.unique(stim["istim"][0], return_counts=True)
    assert shown.tolist() == list(range(1, 42)) and set(count[:-1]) == {2}
    other = scipy.io.loadmat(path)
    assert other["med"].shape == (8, 3) and {"redcell", "npix"} <= set(other["stat"].dtype.names)
    assert scipy.io.loadmat(images)["imgs"].shape == (68, 270, 40)
    before = images.stat().st_mtime_ns
    assert write_natimg(root / "twin", n_neurons=8, n_images=40)[1].stat().st_mtime_ns == before
    again = scipy.io.loadmat(write_natimg(root / "again", n_neurons=8, n_images=40)[0])["stim"][0]
    np.testing.assert_array_equal(again["resp"][0], stim["resp"][0])


def test_simulated_responses_have_the_true_rates_as_their_mean(root):
    data = module(root, simulate=True, remove_components=4)
    spec, train = data.spec, data.recording.splits["train"]
    assert spec.kind == "images" and spec.simulated and spec.true_rates
    assert not spec.angle_period and spec.n_repeats == 2
    assert spec.n_neurons == 200 and spec.image_shape == (1, 17, 67)
    slope = (train.rates * train.responses).sum() / (train.rates**2).sum()
    assert abs((train.responses - train.rates).mean()) < 0.02 and abs(slope - 1) < 0.05
    residual = train.repeats - train.rates[:, None]  # independent in the two presentations
    assert abs(np.mean(residual[:, 0] * residual[:, 1])) < 0.05 * np.var(residual)
    found = data.ceilings("val")
    assert 0 < found["corr"] < 1 and "angle_deg" not in found


def test_missing_files_name_their_address(tmp_path):
    with pytest.raises(DataError, match=r"natimg2800_<mouse>_<date>.mat is neither in .*6845348.*data.simulate=true"):
        _ = module(tmp_path).recording
    _, images = write(tmp_path / "stringer_natimg", stimuli())
    images.unlink()
    with pytest.raises(DataError, match=r"images_natimg2800_all.mat is neither in"):
        _ = module(tmp_path).recording


def test_the_only_session_is_taken_and_others_by_name(tmp_path):
    first, images = write(tmp_path / "stringer_natimg", stimuli())
    options = {"remove_components": 0, "downsample": 1}
    assert module(tmp_path, **options).recording.sources[0]["path"] == str(first)
    second, _ = write(tmp_path / "stringer_natimg", stimuli(), name="natimg2800_M2_2000-01-02.mat")
    with pytest.raises(DataError, match=r"natimg2800_M1_2000-01-01.mat, natimg2800_M2_.*choose one with data.session="):
        _ = module(tmp_path, **options).recording
    for session in ("M2_2000-01-02", second.name, str(second)):
        data = module(tmp_path, session=session, **options)
        assert data.files() == (second, images) and data.spec.n_neurons == 6


def test_a_run(tmp_path, root):
    run = here(
        tmp_path / "run", "trainer.max_epochs=8",
        base=["data=stringer_natimg", "data.simulate=true", f"paths.data={root}", f"paths.cache={root}/cache",
              "data.neurons=40", "data.crop=[0,68,0,136]", "model=core_readout", "loss@model.loss=mse",
              "model.output=identity", "readout@model.readout=factorised", "model.core.channels=8",
              "model.core.layers=1", "trainer=cpu", "trainer.check_val_every_n_epoch=8", "logger=csv",
              "callbacks=minimal", "++trainer.enable_progress_bar=false", "baselines=null"],
    )  # fmt: skip
    last = rows(run.folder)[-1]
    assert np.isfinite(run.score) and {"val/feve", "val/cc_norm", "val/rates_corr"} <= set(last)
    assert "val/angle_deg" not in last
