"""Antolik V1: the real files' repeats, the twin in their layout, splits, pooled regions and scaling."""

import json
import shutil

import numpy as np
import pytest
import torch
from visual_twins import ANTOLIK

from neuro_lightning.data.antolik.datamodule import AntolikV1
from neuro_lightning.data.antolik.files import load_region, load_repeats, region_folder
from neuro_lightning.data.antolik.reader import draw_validation, load_antolik, pool
from neuro_lightning.data.antolik.twin import SIZES as SIZES_BY_DEFAULT
from neuro_lightning.data.antolik.twin import dog_filters, natural_images, rectified_mean, twin_folder, write_twin
from neuro_lightning.data.describe import describe
from neuro_lightning.data.images import ImageDataset
from neuro_lightning.data.sampler import EpochBatches
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional import explainable as ex
from neuro_lightning.metrics.collection import build_metrics

NAMES = ["raw_validation_set", "training_inputs", "training_set", "validation_inputs", "validation_set"]
REAL = {1: (10, 103, 1800), 2: (8, 55, 1260), 3: (12, 102, 1800)}


@pytest.fixture
def real(shared_data):
    if not (shared_data / "antolik2016").is_dir():
        pytest.skip("the real antolik2016 is not here")
    return shared_data / "antolik2016"


def module(root, **options) -> AntolikV1:
    return AntolikV1(root=str(root), simulate=True, twin=ANTOLIK, **options)


# ---- the real files


@pytest.mark.parametrize("region", REAL)
def test_repeats_of_the_real_regions(real, region):
    n_repeats, n_neurons, n_train = REAL[region]
    repeats = load_repeats(real / f"region{region}")
    assert repeats.shape == (50, n_repeats, n_neurons)
    assert 0.4 < (repeats == 0).mean() < 0.6 and 0.5 < repeats.mean() < 0.7
    found = ex.explainable(torch.from_numpy(repeats))
    assert 0.1 < float(found.fev.median()) < 0.3 and 0.25 < float(found.oracle.mean()) < 0.45
    assert np.load(real / f"region{region}" / "training_set.npy").shape == (n_train, n_neurons)


def test_missing_training_images_are_named_with_the_address(real):
    with pytest.raises(DataError, match=r"training_inputs.npy is missing in .*region1.*pcbi.1004927.s001.*antolik2016"):
        load_antolik(real.parent, [1])


def test_real_regions_with_made_up_training_images(real, tmp_path):
    """Everything but the training images is the recording's own."""
    for region in (1, 2):
        folder = tmp_path / "antolik2016" / "Data" / f"region{region}"  # as the zip unpacks
        shutil.copytree(real / f"region{region}", folder)
        images = np.random.default_rng(region).integers(0, 256, (REAL[region][2], 961))
        np.save(folder / "training_inputs.npy", images * 1e-6)
    recording = load_antolik(tmp_path, [1, 2])
    test = recording.splits["test"]
    assert not recording.simulated and test.rates is None and "dog" not in recording.info
    # the 50 images of regions 1 and 2 are the same: they are merged
    assert test.images.shape == (50, 1, 31, 31) and test.repeats.shape == (50, 10, 158)
    assert not np.isnan(test.responses).any() and np.isnan(test.repeats[:, 8:, 103:]).all()
    np.testing.assert_allclose(test.responses[:, :103], np.load(real / "region1" / "validation_set.npy"), atol=1e-9)
    np.testing.assert_allclose(test.responses[:, 103:], np.load(real / "region2" / "validation_set.npy"), atol=1e-9)


# ---- the twin


@pytest.mark.parametrize("region", REAL)
def test_the_twin_has_the_published_layout(antolik_root, real, region):
    folder = antolik_root / "antolik2016" / f"region{region}"
    assert sorted(path.stem for path in folder.glob("*.npy")) == NAMES
    for name in NAMES:
        with (folder / f"{name}.npy").open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        assert dtype.str == "<f8" and not fortran
        if (real / f"region{region}" / f"{name}.npy").is_file():
            published = np.load(real / f"region{region}" / f"{name}.npy", mmap_mode="r")
            assert published.dtype == dtype and published.ndim == len(shape)
            assert shape[:-1] == published.shape[:-1] or name == "training_set"
    images = np.load(folder / "training_inputs.npy")
    assert images.shape[1] == 961 and images.min() == 0 and images.max() == pytest.approx(255e-6)
    assert np.abs(images * 1e6 - np.round(images * 1e6)).max() < 1e-9
    for name in ("training_set", "raw_validation_set"):
        responses = np.load(folder / f"{name}.npy")
        assert responses.min() == 0 and 0.3 < (responses == 0).mean() < 0.6 and 0.35 < responses.mean() < 0.9


def test_regions_of_one_animal_saw_the_same_repeated_images(antolik_root):
    first, second, third = (load_region(region_folder(antolik_root, k)).test.images for k in (1, 2, 3))
    assert (first == second).all() and not (first == third).all(1).any()


def test_the_same_seed_writes_the_same_twin_once(antolik_root, tmp_path):
    path = write_twin(tmp_path, [2], **ANTOLIK) / "region2" / "training_set.npy"
    assert (np.load(path) == np.load(antolik_root / "antolik2016" / "region2" / "training_set.npy")).all()
    written = path.stat().st_mtime_ns
    write_twin(tmp_path, [2], **ANTOLIK)
    assert path.stat().st_mtime_ns == written
    before = np.load(path)
    write_twin(tmp_path, [2], **ANTOLIK, seed=1)
    assert not np.array_equal(before, np.load(path))
    write_twin(tmp_path, [2], **(ANTOLIK | {"neurons": 20}))
    assert np.load(path).shape[1] == 11
    assert not list(tmp_path.rglob(".*"))  # nothing half-written is left


def test_true_means_are_the_expected_responses():
    drive = np.array([[0.01, 0.3, 2.0, 9.0]])
    noisy = np.maximum(0, drive + 2.5 * np.sqrt(drive) * np.random.default_rng(0).normal(size=(200_000, 4)))
    assert rectified_mean(drive, 2.5)[0] == pytest.approx(noisy.mean(0), rel=0.01)
    assert rectified_mean(drive, 0.0) == pytest.approx(drive)


def test_the_planted_filters_are_differences_of_gaussians():
    dog = np.array([[12.0, 20.0, 3.0, 8.0, 2.0, 1.5]])
    maps = dog_filters(dog).reshape(31, 31)
    assert np.unravel_index(maps.argmax(), maps.shape) == (20, 12)  # my is the row
    squared = (17 - 12.0) ** 2 + (21 - 20.0) ** 2
    centre = 2 / (2 * np.pi * 3) * np.exp(-squared / 6)
    assert maps[21, 17] == pytest.approx(centre - 1.5 / (2 * np.pi * 11) * np.exp(-squared / 22))
    assert maps.sum() == pytest.approx(2 - 1.5, abs=0.02)  # amplitudes are volumes


def test_the_true_means_reach_the_ceiling_and_follow_the_planted_units(tmp_path):
    write_twin(tmp_path, [1], train_images=300, neurons=12, dogs=3, noise=1.0)
    recording = load_antolik(tmp_path, [1])
    test, train = recording.splits["test"], recording.splits["train"]
    metrics = build_metrics(describe(recording), n_eval=len(test))
    batch = ImageDataset(test)[list(range(len(test)))]
    metrics.update({"rates": batch["rates"]}, batch)
    scores, ceilings = metrics.compute(), ex.ceilings(test.repeats)
    assert scores["feve"] == pytest.approx(1, abs=0.05) and scores["feve_neurons"] == 12
    assert scores["corr"] == pytest.approx(ceilings["corr"], abs=0.04)
    assert scores["rmse"] == pytest.approx(ceilings["rmse"], rel=0.15)
    assert scores["oracle_fraction"] == pytest.approx(ceilings["oracle_fraction"], abs=0.05)
    dog = np.array(recording.info["dog"])
    assert dog.shape == (3, 6) and (dog[:, :2] > 2).all() and (dog[:, :2] < 29).all()
    lgn = train.images.reshape(len(train), -1) @ dog_filters(dog).T
    assert lgn.std(0) == pytest.approx(1, abs=0.25)
    # a quadratic in the units explains most of the true means, one in as many others does not
    others = np.column_stack([dog[:, :2] * -1 + 30 + 3, dog[:, 2:]])
    share = [explained(u, train.rates) for u in (lgn, train.images.reshape(len(train), -1) @ dog_filters(others).T)]
    assert share[0] > 0.6 and share[1] < share[0] - 0.3


def explained(units: np.ndarray, rates: np.ndarray) -> float:
    """Share of the rates' variance that rectified, squared and multiplied units explain linearly."""
    pairs = [units[:, i] * units[:, j] for i in range(units.shape[1]) for j in range(i, units.shape[1])]
    x = np.column_stack([np.ones(len(units)), units, np.maximum(units, 0), *pairs])
    residual = rates - x @ np.linalg.lstsq(x, rates, rcond=None)[0]
    return 1 - residual.var() / (rates - rates.mean(0)).var()


# ---- splits, pooling, scaling


def test_load_one_region(antolik_root):
    data = AntolikV1(root=str(antolik_root), region=1)
    data.prepare_data()
    spec, splits = data.spec, data.recording.splits
    assert spec.kind == "images" and spec.image_shape == (1, 31, 31) and spec.n_repeats == 10 and spec.simulated
    assert spec.n_neurons == 6 and spec.true_rates and spec.unit_ids == (1000, 1001, 1002, 1003, 1004, 1005)
    assert {name: len(trials) for name, trials in splits.items()} == {"train": 51, "val": 9, "test": 50}
    assert sorted([*splits["train"].row, *splits["val"].row]) == list(range(60))
    assert splits["val"].repeats is None and splits["test"].repeats.shape == (50, 10, 6)
    raw = np.load(antolik_root / "antolik2016" / "region1" / "training_set.npy")
    np.testing.assert_allclose(splits["train"].responses, raw[splits["train"].row])
    assert data.recording.info["val_rows"] == splits["val"].row.tolist()
    assert set(data.ceilings("test")) >= {"corr", "feve", "rmse"} and data.ceilings("val") == {}
    json.dumps(data.recording.info)  # plain values
    assert sorted(data.references()) == ["test", "val"]
    batch = next(iter(data.eval_dataloader("test")))
    assert batch["inputs"].shape == (50, 1, 31, 31) and batch["repeats"].shape == (50, 10, 6)
    assert torch.allclose(batch["targets"], batch["repeats"].mean(1), atol=1e-6)


def test_the_data_module_simulates_below_its_root(tmp_path):
    data = module(tmp_path, region=[3], simulate_seed=4)
    assert data.recording.simulated and data.spec.n_neurons == 6 and data.spec.unit_ids[0] == 3000
    # jobs of other sizes beside this one have folders of their own
    folder = tmp_path / "simulated" / "antolik_v1" / "seed_4_train_images-60_neurons-6_dogs-2" / "antolik2016"
    assert "no animal" in (folder / "README").read_text() and (folder / "region3" / "truth.npz").is_file()


def test_twins_of_other_sizes_have_folders_of_their_own():
    assert twin_folder(3, {}) == twin_folder(3, SIZES_BY_DEFAULT) == "seed_3"
    assert twin_folder(3, {"noise": 1}) == "seed_3_noise-1"
    with pytest.raises(ConfigError, match=r"unknown keys.*images"):
        twin_folder(3, {"images": 5})


def test_validation_is_a_seeded_draw(antolik_root):
    rows = {seed: load_antolik(antolik_root, [1], split_seed=seed).splits["val"].row.tolist() for seed in (0, 1)}
    assert rows[0] == load_antolik(antolik_root, [1]).splits["val"].row.tolist() != rows[1]
    assert len(load_antolik(antolik_root, [1], val_fraction=0.5).splits["val"]) == 30


def test_identical_images_stay_together():
    images = natural_images(np.random.default_rng(0), 12)[[*range(12), *range(12), 3, 3]] * 1e-6
    validates = draw_validation(images, 0.25, seed=0)
    assert validates[:12].sum() == 3 and (validates[:12] == validates[12:24]).all()
    assert (validates[24:] == validates[3]).all()


def test_the_thesis_validates_with_the_repeated_images(antolik_root):
    recording = load_antolik(antolik_root, [1], protocol="thesis", val_fraction=0.3)
    assert list(recording.splits) == ["train", "val"] and len(recording.splits["train"]) == 60
    assert recording.splits["val"].repeats.shape == (50, 10, 6)


def test_published_steps_an_epoch():
    """1800 images in batches of 16: the last, partial one is not left out."""
    assert len(EpochBatches(1800, 16)) == 113 == len(list(EpochBatches(1800, 16)))


def test_training_images_that_are_tested_are_dropped(antolik_copy):
    images = np.load(antolik_copy / "training_inputs.npy")
    images[[7, 30]] = np.load(antolik_copy / "validation_inputs.npy")[[2, 4]]
    np.save(antolik_copy / "training_inputs.npy", images)
    recording = load_antolik(antolik_copy.parents[1], [1])
    assert recording.info["dropped_images"] == 2
    assert not {7, 30} & {*recording.splits["train"].row, *recording.splits["val"].row}
    assert "2 of 60 training images are among the repeated images, and are left out" in recording.info["warnings"][0]
    thesis = load_antolik(antolik_copy.parents[1], [1], protocol="thesis")
    assert len(thesis.splits["train"]) == 60 and "2 of 60 training images" in thesis.info["warnings"][0]


def test_pooled_regions_have_a_block_mask(antolik_root):
    recording = load_antolik(antolik_root, [1, 2, 3])
    spec, splits = describe(recording), recording.splits
    assert spec.n_neurons == 6 + 3 + 6 and spec.n_repeats == 12
    assert spec.unit_ids == (*range(1000, 1006), *range(2000, 2003), *range(3000, 3006))
    assert len(splits["train"]) + len(splits["val"]) == 60 + 42 + 60
    shown = ~np.isnan(splits["train"].responses)
    for block in ([True] * 6 + [False] * 9, [False] * 6 + [True] * 3 + [False] * 6, [False] * 9 + [True] * 6):
        assert (shown == block).all(1).any()
    assert set(shown.sum(1)) == {6, 3}
    assert (np.isnan(splits["train"].rates) == ~shown).all()
    # 50 images for regions 1 and 2, 50 others for region 3
    test = splits["test"]
    assert test.repeats.shape == (100, 12, 15)
    assert (~np.isnan(test.repeats)).sum((0, 1)).tolist() == [500] * 6 + [400] * 3 + [600] * 6
    for region, columns in ((1, slice(0, 6)), (2, slice(6, 9)), (3, slice(9, 15))):
        alone = load_antolik(antolik_root, [region]).splits["test"]
        rows = slice(50, None) if region == 3 else slice(50)
        np.testing.assert_allclose(test.responses[rows, columns], alone.responses)
        pooled, single = (ex.explainable(torch.from_numpy(y)) for y in (test.repeats[..., columns], alone.repeats))
        assert torch.allclose(pooled.cc_max, single.cc_max, equal_nan=True)
    mean = np.nanmean(splits["train"].responses, axis=0)
    assert spec.mean_rates == pytest.approx(mean.tolist())


def test_identical_training_images_are_merged_one_to_one(antolik_root):
    first, second = (load_region(region_folder(antolik_root, k)).train for k in (1, 2))
    second.images[:4] = first.images[[5, 5, 9, 10]]  # the second 5 has no partner
    merged = pool([first, second])
    assert len(merged) == 60 + 42 - 3
    np.testing.assert_array_equal(merged.repeats[5, 0], [*first.repeats[5, 0], *second.repeats[0, 0]])
    np.testing.assert_array_equal(merged.repeats[60, 0, 6:], second.repeats[1, 0])
    assert np.isnan(merged.repeats[60, 0, :6]).all() and merged.row[60] == 1 and merged.row[9] == 9


def test_input_scales(antolik_root):
    raw = np.load(antolik_root / "antolik2016" / "region1" / "training_inputs.npy")
    splits = {
        scale: load_antolik(antolik_root, [1], input_scale=scale).splits for scale in ("zscore", "raw255", "none")
    }
    train = splits["none"]["train"]
    np.testing.assert_allclose(train.images.reshape(-1, 961), raw[train.row], rtol=1e-6)
    assert splits["raw255"]["train"].images.max() == 255
    rows = raw[train.row]
    scored = (raw[splits["none"]["val"].row] - rows.mean()) / rows.std()
    np.testing.assert_allclose(splits["zscore"]["val"].images.reshape(-1, 961), scored, atol=1e-5)
    each = load_antolik(antolik_root, [1], input_scale="zscore_each").splits
    for trials in each.values():
        assert trials.images.mean() == pytest.approx(0, abs=1e-5) and trials.images.std() == pytest.approx(1, abs=1e-5)


def test_responses_in_units_of_their_deviation(antolik_root):
    plain, scaled = (load_antolik(antolik_root, [1, 2], response_scale=scale) for scale in ("none", "std"))
    train = scaled.splits["train"]
    assert np.nanstd(train.responses, axis=0) == pytest.approx(1)
    unit = np.array(scaled.info["response_scale"]["unit"])
    for name in ("responses", "repeats", "rates"):
        found, expected = (getattr(recording.splits["test"], name) for recording in (scaled, plain))
        np.testing.assert_allclose(found * unit, expected, rtol=1e-5)
