"""Responses to gratings: the twin's layout, what becomes of responses, the splits, what is refused, and a short run."""

import logging
import math
import os
import pickle

import numpy as np
import pytest
import torch
from runs import here, record, rows

from neuro_lightning.data.formats.safe_pickle import load_dict
from neuro_lightning.data.images import standardizer
from neuro_lightning.data.stringer_stimuli.datamodule import Orientations
from neuro_lightning.data.stringer_stimuli.orientations import load_orientations, split_trials
from neuro_lightning.data.stringer_stimuli.twin import write_orientations
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.orientation import render_gratings

pytestmark = pytest.mark.usefixtures("whole_mat_files")

RNG = np.random.default_rng(0)
KEYS = ["sresp", "istim", "stat", "u_spont", "v_spont", "mean_spont", "std_spont", "stimtimes", "frametimes",
        "camtimes", "xyz", "run", "info"]  # fmt: skip


def session(n=12, t=40, **changes):
    u, _ = np.linalg.qr(RNG.normal(size=(n, 5)))
    base = {
        "sresp": RNG.gamma(2, 3, (n, t)), "istim": RNG.uniform(0, 2 * np.pi, t), "u_spont": u,
        "mean_spont": RNG.uniform(1, 2, n), "std_spont": RNG.uniform(0.5, 3, n), "med": RNG.uniform(size=(n, 2)),
        "stat": np.array([{"npix": 3}] * n, object),
    }  # fmt: skip
    return {k: v for k, v in (base | changes).items() if v is not None}


def write(path, **arrays):
    np.save(path, arrays, allow_pickle=True)
    return path


def joined(recording, name="responses"):
    """An array of all trials in the file's order."""
    splits = recording.splits.values()
    order = np.argsort(np.concatenate([s.row for s in splits]))
    return np.concatenate([getattr(s, name) for s in splits])[order]


def zscored(arrays):
    return ((arrays["sresp"] - arrays["mean_spont"][:, None]) / arrays["std_spont"][:, None]).T


def test_z_scores_are_those_of_the_file(tmp_path):
    arrays = session()
    recording = load_orientations(write(tmp_path / "a.npy", **arrays), standardize=False)
    np.testing.assert_allclose(joined(recording), zscored(arrays), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(joined(recording, "angle"), arrays["istim"])
    assert not recording.simulated and recording.unit_ids.tolist() == list(range(12))
    assert recording.splits["train"].responses.dtype == np.float32


def test_standardized_by_the_training_trials_alone(tmp_path):
    arrays = session()
    plain = load_orientations(write(tmp_path / "a.npy", **arrays), standardize=False)
    found = load_orientations(tmp_path / "a.npy")
    train = found.splits["train"].responses
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)
    mean, std = plain.splits["train"].responses.mean(0), plain.splits["train"].responses.std(0)
    test = (plain.splits["test"].responses - mean) / (std + 1e-6)
    np.testing.assert_allclose(found.splits["test"].responses, test, atol=1e-5)
    arrays["sresp"][:, ::4] = 1e4  # test responses decide nothing that the training trials are
    np.testing.assert_array_equal(
        load_orientations(write(tmp_path / "b.npy", **arrays)).splits["train"].responses, train
    )


def test_removed_components_are_gone(tmp_path):
    arrays = session(n=30)
    path = write(tmp_path / "a.npy", **arrays)
    u, z = arrays["u_spont"], zscored(arrays)
    found = joined(load_orientations(path, remove_components=3, standardize=False))
    np.testing.assert_allclose(found, z - z @ u[:, :3] @ u[:, :3].T, atol=1e-4)
    assert abs(found @ u[:, :3]).max() < 1e-4 < abs(found @ u[:, 3:]).max()
    # columns that are not orthonormal span the same directions; a draw of neurons is taken after the projection
    skewed = write(tmp_path / "b.npy", **arrays | {"u_spont": u @ RNG.normal(size=(5, 5))})
    few = load_orientations(skewed, remove_components=5, standardize=False, neurons=7)
    assert len(few.unit_ids) == 7
    np.testing.assert_allclose(joined(few), (z - z @ u @ u.T)[:, few.unit_ids], atol=1e-4)


def test_every_fourth_trial_is_test_and_the_rest_is_divided(tmp_path):
    index = split_trials(101, 0.2, seed=0)
    assert index["test"].tolist() == list(range(0, 101, 4))
    everything = np.concatenate(list(index.values()))
    assert len(everything) == 101 == len(set(everything.tolist()))
    assert len(index["val"]) == 15 and all((np.diff(part) > 0).all() for part in index.values())
    assert split_trials(101, 0.2, seed=0)["val"].tolist() == index["val"].tolist()
    assert split_trials(101, 0.2, seed=1)["val"].tolist() != index["val"].tolist()
    recording = load_orientations(write(tmp_path / "a.npy", **session()), val_fraction=0.2)
    assert (recording.splits["test"].row % 4 == 0).all() and len(recording.splits["val"]) == 6


def test_images_are_the_gratings(tmp_path):
    arrays = session()
    trials = load_orientations(write(tmp_path / "a.npy", **arrays), size=(10, 14), cycles_per_degree=0.1).splits["test"]
    assert trials.images.shape == (10, 1, 10, 14)
    angle = torch.from_numpy(np.rad2deg(arrays["istim"][::4]))
    expected = render_gratings(angle, (10, 14), degrees_per_pixel=2.0, cycles_per_degree=0.1)
    np.testing.assert_array_equal(trials.images, expected)


def test_a_seeded_draw_of_neurons(tmp_path):
    path = write(tmp_path / "a.npy", **session())
    whole, few = load_orientations(path, standardize=False), load_orientations(path, standardize=False, neurons=5)
    assert len(set(few.unit_ids.tolist())) == 5 and (np.diff(few.unit_ids) > 0).all()
    np.testing.assert_array_equal(joined(few), joined(whole)[:, few.unit_ids])
    assert load_orientations(path, neurons=100).unit_ids.tolist() == list(range(12))
    assert any(load_orientations(path, neurons=5, seed=s).unit_ids.tolist() != few.unit_ids.tolist() for s in (1, 2, 3))


def test_sessions_may_have_other_shapes(tmp_path):
    """A column of angles, single precision, activity after the last grating, no u_spont, and silent neurons."""
    arrays = session(u_spont=None)
    plain = load_orientations(write(tmp_path / "a.npy", **arrays), standardize=False)
    longer = np.concatenate([arrays["sresp"], np.ones((12, 3))], axis=1).astype(np.float32)
    other = arrays | {"istim": arrays["istim"][:, None], "sresp": longer, "mean_spont": arrays["mean_spont"][:, None]}
    found = load_orientations(write(tmp_path / "gratings_static_X_1.npy", **other), standardize=False)
    np.testing.assert_allclose(joined(found), joined(plain), rtol=1e-5, atol=1e-5)


def test_silent_neurons_are_left_out(tmp_path, caplog):
    arrays = session()
    arrays["std_spont"][[2, 5]] = 0
    path = write(tmp_path / "a.npy", **arrays)
    with caplog.at_level(logging.WARNING):
        found = load_orientations(path, remove_components=2, standardize=False)
    assert found.unit_ids.tolist() == [i for i in range(12) if i not in (2, 5)] and found.info["n_silent"] == 2
    assert "2 neurons without spontaneous activity (std_spont)" in caplog.text and np.isfinite(joined(found)).all()
    with pytest.raises(DataError, match=r"no neuron has spontaneous activity \(std_spont\)"):
        load_orientations(write(path, **session(std_spont=np.zeros(12))))


def test_standardizer_ignores_what_was_not_observed():
    values = RNG.normal(size=(20, 2, 3)) * [1, 2, 3]
    values[::2, 1, 0] = np.nan
    mean, std = standardizer(values)
    np.testing.assert_allclose(mean, np.nanmean(values, axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(std, np.nanstd(values, axis=(0, 1)) + 1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"istim": None}, "lacks istim"),
        ({"sresp": np.ones((12, 39))}, r"sresp has the shape \(12, 39\)"),
        ({"sresp": np.ones(40)}, "sresp must be numbers, N x T"),
        ({"std_spont": np.ones(11)}, r"std_spont has the shape \(11,\)"),
        ({"std_spont": -np.ones(12)}, "std_spont holds negative values"),
        ({"mean_spont": np.full(12, np.nan)}, "mean_spont holds NaN"),
        ({"sresp": np.full((12, 40), np.inf)}, "sresp holds NaN or infinite"),
        (
            {"istim": np.linspace(0, 359, 40)},
            "from 0 to 2 pi, but goes from 0 to 359: these seem to be degrees",
        ),
        ({"istim": np.linspace(-3, 3, 40)}, r"from 0 to 2 pi, but goes from -3 to 3$"),
        ({"istim": np.ones(6), "sresp": np.ones((12, 6))}, "6 trials, too few"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "bad.npy", **session(**changes))
    with pytest.raises(DataError, match=message) as caught:
        load_orientations(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove_components": 6}, "data.remove_components must be a whole number from 0 to 5"),
        ({"remove_components": -1}, "data.remove_components"),
        ({"neurons": 0}, "data.neurons must be a whole number from 1 on, or null for all neurons, not 0"),
        ({"val_fraction": 1.0}, "data.val_fraction must be above 0 and below 1"),
        ({"val_fraction": 0.99}, "leaves nothing to train on"),
        ({"val_fraction": "a"}, "data.val_fraction must be above 0 and below 1, not 'a'"),
        ({"size": (32,)}, "data.size must be two"),
        ({"cycles_per_degree": 0.3}, "more than half a cycle a pixel"),
        ({"degrees_per_pixel": 0}, "must be above 0"),
        ({"period": 90}, "data.period must be 180"),
        ({"period": 360}, "data.period=360 with data.phase=0.0 draws opposite directions as the same image"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        load_orientations(write(tmp_path / "a.npy", **session()), **options)


def test_missing_components_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no u_spont to take components from: set data\.remove_components=0"):
        load_orientations(write(tmp_path / "a.npy", **session(u_spont=None)), remove_components=2)


class Evil:
    """What it is pickled to runs a command when numpy loads it."""

    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder):
        self.folder = folder


def test_a_file_that_carries_code_is_refused_unread(tmp_path):
    target = tmp_path / "executed"
    path = write(tmp_path / "a.npy", **session(stat=np.array([Evil(str(target))] * 12, object)))
    with pytest.raises(DataError, match=r"asks for (posix|os|nt)\.mkdir"):
        load_orientations(path)
    assert not target.exists()
    with pytest.raises(FileExistsError):  # it would have
        for _ in range(2):
            pickle.loads(pickle.dumps(Evil(str(target))))


# ---- the twin and the data module


def module(root, **options):
    return Orientations(root=str(root), cache_dir=str(root / "cache"), **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_twin_has_the_real_files_layout(root):
    path, truth = write_orientations(root / "twin", n_neurons=40, n_trials=60)
    arrays = load_dict(path, KEYS)
    shapes = {key: value.shape for key, value in arrays.items()}
    assert shapes == {
        "sresp": (40, 60), "istim": (60,), "stat": (40,), "u_spont": (40, 40), "v_spont": (40, 400),
        "mean_spont": (40,), "std_spont": (40,), "stimtimes": (60,), "frametimes": (1087,), "camtimes": (1020,),
        "xyz": (3, 40), "run": (60,), "info": (),
    }  # fmt: skip
    dtypes = {key: value.dtype.str for key, value in arrays.items()}
    assert [dtypes[k] for k in ("sresp", "istim", "u_spont", "stimtimes", "run")] == ["<f8", "<f8", "<f8", "<i8", "<f4"]
    assert arrays["sresp"].min() >= 0 and set(arrays["stat"][0]) >= {"npix", "iplane"}
    np.testing.assert_allclose(arrays["u_spont"].T @ arrays["u_spont"], np.eye(40), atol=1e-10)
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert write_orientations(root / "twin", n_neurons=40, n_trials=60)[0].stat().st_mtime_ns == before[0]
    other, _ = write_orientations(root / "other", n_neurons=40, n_trials=60)
    assert other.read_bytes() == before[1]
    write_orientations(root / "other", n_neurons=40, n_trials=60, seed=1)
    assert other.read_bytes() != before[1]
    with np.load(truth) as file:
        assert file["rates"].shape == (40, 60) and not [f for f in root.rglob("*.tmp")]


def test_simulated_responses_have_the_true_rates_as_their_mean(root):
    data = module(root, simulate=True, remove_components=4)
    spec, train = data.spec, data.recording.splits["train"]
    assert spec.kind == "images" and spec.simulated and spec.true_rates
    assert spec.angle_period == 180 and spec.n_repeats == 0
    assert spec.n_neurons == spec.n_out == 300 and spec.image_shape == (1, 32, 32)
    assert {k: len(v) for k, v in data.recording.splits.items()} == {"train": 405, "val": 45, "test": 150}
    residual = train.responses - train.rates
    slope = (train.rates * train.responses).sum() / (train.rates**2).sum()
    assert abs(residual.mean()) < 0.02 and abs(slope - 1) < 0.05
    batch = data.dataset("val", evaluate=True)[list(range(45))]
    assert batch["mask"].all() and batch["angle"].max() > math.pi


def test_reference_scores_hold_the_linear_decoder(root):
    data = module(root, simulate=True)
    found, fitted = (data.reference_scores(split)["linear decoder"]["angle_deg"] for split in ("test", "train"))
    assert 0 < fitted < found < 5


def test_missing_files_name_their_address(tmp_path):
    with pytest.raises(DataError, match=r"stringer_orientations.npy is neither in .*osf.io/ny4ut.*data.simulate=true"):
        _ = module(tmp_path).recording
    with pytest.raises(DataError, match=r"gratings_static_GT1_2019_04_17_1.npy is neither .*janelia.8279387"):
        _ = module(tmp_path, file="gratings_static_GT1_2019_04_17_1.npy").recording
    with pytest.raises(DataError, match=r"/nowhere/x.npy is not there: fetch it"):
        _ = module(tmp_path, file="/nowhere/x.npy").recording


@pytest.mark.parametrize("folder", ["stringer_orientations", "stringer", "."])
def test_files_are_found(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    path = write(tmp_path / folder / "stringer_orientations.npy", **session())
    for data in (module(tmp_path), module(tmp_path / "elsewhere", file=str(path))):
        assert data.spec.n_neurons == 12 and not data.spec.simulated and not data.spec.true_rates
        assert data.recording.sources[0]["path"] == str(path)


def test_a_run(tmp_path, root):
    run = here(
        tmp_path / "run", "trainer.max_epochs=20",
        base=["data=stringer_orientations", "data.simulate=true", f"paths.data={root}", f"paths.cache={root}/cache",
              "data.size=[16,16]", "data.neurons=100", "model=core_readout", "loss@model.loss=mse",
              "model.output=identity", "readout@model.readout=dense", "model.core.channels=8",
              "model.core.layers=1", "trainer=cpu", "trainer.check_val_every_n_epoch=20", "logger=csv",
              "callbacks=minimal", "++trainer.enable_progress_bar=false", "baselines=null"],
    )  # fmt: skip
    last = rows(run.folder)[-1]
    assert run.score > 0.1 and float(last["val/angle_deg"]) < 20 and float(last["val/rates_corr"]) > 0.3
    assert record(run.folder)["data"]["simulated"] is True
