"""UWNDC19: its twin, reader, splits and data module. The golden values are those of the published files and winner."""

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT

from neuro_lightning.data.describe import labelled
from neuro_lightning.data.uwndc19 import cells, twin
from neuro_lightning.data.uwndc19.datamodule import UWNDC19
from neuro_lightning.data.uwndc19.reader import read_challenge
from neuro_lightning.data.uwndc19.split import fold_numbers, split_images, winner_split
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.nn.augment import seed_transforms
from neuro_lightning.settings.config import check_config, instantiate

FILES = ("stim.npy", "train.csv", "sub.csv", "truth.npz")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with the twin in its place."""
    root = tmp_path_factory.mktemp("data")
    twin.write_uwndc19(root / "simulated" / "uwndc19" / "seed_0")
    return root


@pytest.fixture(scope="module")
def folder(root):
    return root / "simulated" / "uwndc19" / "seed_0"


@pytest.fixture(scope="module")
def challenge(folder):
    return read_challenge(folder, image_size=48)


@pytest.fixture
def copy(folder, tmp_path):
    """Links to the twin's files, to be replaced one at a time."""
    for name in FILES:
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def lines(folder, name="train.csv"):
    return (folder / name).read_text().splitlines()


# ---- the twin has the published layout


def test_twin_has_the_published_layout(folder, challenge):
    stim = np.load(folder / "stim.npy", mmap_mode="r")
    assert stim.shape == (601, 80, 80, 3) and stim.dtype == np.float32
    assert stim.min() >= 0 and stim.max() <= 1
    text = (folder / "train.csv").read_bytes()
    assert b"\r" not in text and text.endswith(b"\n") and len(text.splitlines()) == 552
    train, sub = (list(csv.reader(lines(folder, name))) for name in ("train.csv", "sub.csv"))
    assert train[0] == sub[0] == ["Id", *twin.COLUMNS] and len(set(twin.COLUMNS)) == 18
    assert [int(row[0]) for row in train[1:]] == list(range(50, 601))
    assert [int(row[0]) for row in sub[1:]] == list(range(50))
    empty = np.array([[cell == "" for cell in row[1:]] for row in train[1:]])
    assert empty.sum(0).tolist() == [0, 0, *[400] * 7, *[1] * 7, 0, 0]
    assert not empty[:151].any() and (empty[151:550].sum(1) == 7).all() and empty[550].sum() == 14
    assert np.array_equal(np.isnan(challenge.responses), empty)


def test_twin_is_made_once_and_by_its_seed(folder, tmp_path):
    before = {name: (folder / name).stat().st_mtime_ns for name in FILES}
    twin.write_uwndc19(folder, seed=0)
    assert {name: (folder / name).stat().st_mtime_ns for name in FILES} == before
    twin.write_uwndc19(tmp_path, seed=1)
    assert (tmp_path / "train.csv").read_bytes() != (folder / "train.csv").read_bytes()
    twin.write_uwndc19(tmp_path, seed=0)  # another seed's files in the way are replaced
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in FILES[:3])
    with pytest.raises(ConfigError, match="simulate_seed must be a whole number from 0 on, not -1"):
        UWNDC19(root=str(tmp_path), simulate=True, simulate_seed=-1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.root"):
        twin.write_uwndc19(tmp_path / "file")


def test_twin_responses_are_drawn_around_their_truth(challenge):
    """Errors average out to zero, and no more is left of them than square roots of counts leave."""
    responses, rates = challenge.responses, challenge.rates[50:]
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


def test_twin_can_be_predicted_from_its_images(challenge):
    """Ridge regression on 6 x 6 pixels and their contrasts beats each neuron's mean in most neurons."""
    images = torch.from_numpy(challenge.images[50:])
    pooled = torch.nn.functional.avg_pool2d(images, 8)
    contrast = (torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True) ** 2, 8)
                - torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8) ** 2).relu().sqrt()  # fmt: skip
    x = torch.cat([pooled, contrast], 1).flatten(1).double()
    x = (x - x.mean(0)) / x.std(0)
    train, val = split_images(challenge.responses, folds=5)
    better = []
    for neuron in range(18):
        y = torch.from_numpy(challenge.responses[:, neuron]).double()
        seen = train[np.isfinite(challenge.responses[train, neuron])]
        asked = val[np.isfinite(challenge.responses[val, neuron])]
        a, mean = x[seen], y[seen].mean()
        weights = torch.linalg.solve(a.T @ a + 300 * torch.eye(a.shape[1]), a.T @ (y[seen] - mean))
        better.append((((x[asked] @ weights + mean - y[asked]) ** 2).mean() / ((y[asked] - mean) ** 2).mean()).sqrt())
    assert np.mean(better) < 0.95 and np.mean(np.array(better) < 1) > 0.7
    assert better[17] > 0.95


# ---- reading


def test_crop_and_order(folder, challenge):
    stim = np.load(folder / "stim.npy", mmap_mode="r")
    assert challenge.images.shape == (601, 3, 48, 48) and challenge.images.dtype == np.float32
    np.testing.assert_array_equal(challenge.images[77], stim[77, 16:64, 16:64].transpose(2, 0, 1))
    assert np.array_equal(read_challenge(folder).images[600], stim[600].transpose(2, 0, 1))
    odd = read_challenge(folder, image_size=49).images
    assert odd.shape[2:] == (49, 49)
    with open(folder / "train.csv") as file:
        row = list(csv.DictReader(file))[7]
    assert challenge.columns == list(twin.COLUMNS)
    np.testing.assert_allclose(challenge.responses[7], [float(row[name]) for name in challenge.columns], rtol=1e-6)


def test_windows_line_ends_a_byte_order_mark_and_nan_are_read(copy, challenge):
    text = "\r\n".join(lines(copy)) + "\r\n"
    replace(copy / "train.csv", b"\xef\xbb\xbf" + text.replace(",,", ",nan,").encode())
    np.testing.assert_array_equal(read_challenge(copy, image_size=48).responses, challenge.responses)


@pytest.mark.parametrize("name", FILES[:3])
def test_missing_files_name_their_address(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=rf"has no {name}: .*https://www\.kaggle\.com/c/uwndc19"):
        read_challenge(copy)


def test_a_missing_folder_names_the_missing_files(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/uwndc19 has no stim\.npy, train\.csv, sub\.csv"):
        UWNDC19(root=str(tmp_path)).prepare_data()


def edit(row, cell=None, value=None, drop=False, swap=None, text=None):
    """A change of a table's lines; ``row`` counts from the header, 0."""

    def change(table):
        cells = table[row].split(",")
        if cell is not None:
            cells[cell] = value
        table[row] = ",".join(cells) if text is None else text
        if swap is not None:
            table[row], table[swap] = table[swap], table[row]
        return table[:row] + table[row + 1 :] if drop else table

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("train.csv", edit(3, swap=9), "line 4: the Id is '58' where 52 was expected; the Ids must be 50 to 600"),
        ("train.csv", edit(5, 0, "50"), "line 6: the Id is '50' where 54 was expected"),
        ("train.csv", edit(5, 0, "601"), "line 6: the Id is '601' where 54 was expected"),
        ("train.csv", edit(1, 0, "0"), "line 2: the Id is '0' where 50 was expected"),
        ("train.csv", edit(5, drop=True), "line 6: the Id is '55' where 54 was expected"),
        ("train.csv", lambda table: table[:-1], "has 550 rows, expected 551"),
        ("train.csv", edit(5, 0, "54.0"), "line 6: the Id is '54.0' where 54 was expected"),
        ("train.csv", edit(5, 3, "much"), "line 6, column 11_06_18_0_0: 'much' is no number"),
        ("train.csv", edit(5, 3, "-0.5"), "cannot be -0.5"),
        ("train.csv", edit(5, 3, "inf"), "cannot be inf"),
        ("train.csv", edit(5, 3, "121"), "cannot be 121"),
        ("train.csv", edit(5, text="54,1,2"), "line 6: 3 cells, expected 19"),
        ("train.csv", edit(0, 0, "id"), "header must be Id"),
        ("train.csv", edit(0, 2, "10_1_2018_0_0"), "must differ.*10_1_2018_0_0"),
        ("train.csv", edit(0, text="Id,a,b"), "with 3 columns"),
        ("train.csv", lambda table: [",".join([r.split(",")[0], "", *r.split(",")[2:]]) if i else r
                                     for i, r in enumerate(table)], "10_1_2018_0_0 has no response at all"),
        ("train.csv", lambda table: [], "header must be Id"),
        ("sub.csv", edit(0, 4, "other"), "differs from that of train.csv at neuron column 4"),
        ("sub.csv", edit(3, swap=9), "line 4: the Id is '8' where 2 was expected"),
    ],
)  # fmt: skip
def test_bad_tables(copy, name, change, says):
    replace(copy / name, "\n".join(change(lines(copy, name))).encode())
    with pytest.raises(DataError, match=says) as error:
        read_challenge(copy)
    assert name in str(error.value)


def write_stim(path, shape=(601, 80, 80, 3), dtype=np.float16, **values):
    path.unlink()
    stim = np.lib.format.open_memmap(path, "w+", dtype, shape)  # zeros that take no space
    for value in values.values():
        stim[100, 40, 40, 1] = value
    stim.flush()


@pytest.mark.parametrize(
    ("stim", "says"),
    [
        ({"shape": (551, 80, 80, 3)}, r"the shape is \(551, 80, 80, 3\), expected \(601, 80, 80, 3\)"),
        ({"shape": (601, 3, 80, 80)}, "expected .*rows, height, width, RGB"),
        ({"dtype": np.uint8, "value": 200}, "uint8.* divide 8-bit images by 255"),
        ({"value": 255.0}, "reach from 0 to 255"),
        ({"value": -1.0}, "reach from -1 to 0"),
        ({"value": np.nan}, "reach from nan to nan"),
    ],
)
def test_bad_images(copy, stim, says):
    write_stim(copy / "stim.npy", **stim)
    with pytest.raises(DataError, match=says):
        read_challenge(copy)


@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04"])
def test_damaged_files(copy, content):
    replace(copy / "stim.npy", content)
    with pytest.raises(DataError, match=r"stim\.npy"):
        read_challenge(copy)


def test_code_in_a_file_is_not_run(copy, tmp_path_factory):
    trap = tmp_path_factory.mktemp("trap") / "sprung"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    (copy / "stim.npy").unlink()
    np.save(copy / "stim.npy", np.array([Trap()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"stim\.npy cannot be read"):
        read_challenge(copy)
    assert not trap.exists()


def test_damaged_truth_and_table(copy):
    replace(copy / "truth.npz", b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"truth\.npz cannot be read"):
        read_challenge(copy, image_size=8)
    replace(copy / "train.csv", b"Id,\xff\xfe")
    with pytest.raises(DataError, match=r"train\.csv cannot be read"):
        read_challenge(copy)


@pytest.mark.parametrize("size", [0, 81, 48.0, True])
def test_impossible_crop(folder, size):
    with pytest.raises(ConfigError, match=r"data\.image_size"):
        read_challenge(folder, image_size=size)


# ---- splits


def test_winners_split(challenge):
    train, val = split_images(challenge.responses, folds=None)
    assert len(train) == 531 and len(val) == 20
    assert sorted([*train, *val]) == list(range(551))
    complete = np.isfinite(challenge.responses).all(1)
    assert complete.sum() == 151 and complete[val].all()
    # the rest of the complete rows comes first, both parts in the order of the winner's generator
    assert complete[train[:131]].all() and not complete[train[131:]].any()
    order = np.random.RandomState(130).permutation(551).tolist()
    for part in (val, train[:131], train[131:]):
        assert np.all(np.diff([order.index(row) for row in part]) > 0)
    assert order.index(train[0]) > order.index(val[-1])
    other, _ = split_images(challenge.responses, folds=None, split_seed=112233)
    assert set(other) != set(train)


def test_winners_split_by_hand():
    """permutation(6) of seed 0 is 5 2 1 3 0 4; rows 1 and 5 are incomplete."""
    observed = np.ones((6, 2), bool)
    observed[[1, 5], 0] = False
    assert np.random.RandomState(0).permutation(6).tolist() == [5, 2, 1, 3, 0, 4]
    train, val = winner_split(observed, 2, seed=0)
    assert val.tolist() == [2, 3] and train.tolist() == [0, 4, 5, 1]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_validate_each_image_once_and_share_the_missing_responses(challenge, folds):
    parts = [split_images(challenge.responses, folds=folds, fold=fold) for fold in range(folds)]
    assert sorted(np.concatenate([val for _, val in parts])) == list(range(551))
    complete = np.isfinite(challenge.responses).all(1)
    for train, val in parts:
        assert sorted([*train, *val]) == list(range(551))
        assert abs(len(val) - 551 / folds) < 1 and abs(complete[val].sum() - 151 / folds) <= 1
    again = split_images(challenge.responses, folds=folds, fold=0)[1]
    other = split_images(challenge.responses, folds=folds, fold=0, split_seed=1)[1]
    assert np.array_equal(again, parts[0][1]) and set(again) != set(other)


def test_folds_share_each_pattern_of_missing_responses_equally():
    observed = np.random.default_rng(0).random((60, 3)) < 0.5
    numbers = fold_numbers(observed, 4, seed=0)
    for pattern in np.unique(observed, axis=0):
        counts = np.bincount(numbers[(observed == pattern).all(1)], minlength=4)
        assert np.ptp(counts) <= 1
    assert np.bincount(numbers).tolist() == [15] * 4


def test_images_with_few_responses_can_be_left_out(challenge):
    for folds in (None, 5):
        train, val = split_images(challenge.responses, folds=folds, min_responses=5)
        assert sorted([*train, *val]) == list(range(550))  # row 550 has four responses
    train, val = split_images(challenge.responses, folds=None, min_responses=18)
    assert len(train) == 131 and len(val) == 20


@pytest.mark.parametrize("folds", [None, 5])
def test_identical_images_stay_on_one_side_of_the_split(root, tmp_path, folds):
    folder = tmp_path / "uwndc19"
    shutil.copytree(root / "simulated" / "uwndc19" / "seed_0", folder)
    images = np.load(folder / "stim.npy")
    copies = [(50 + k, 600 - k) for k in range(1, 40)]  # Ids; the last rows have missing responses, the first have none
    for one, other in copies:
        images[other, 16:64, 16:64] = images[one, 16:64, 16:64]  # in the pixels that are used
    np.save(folder / "stim.npy", images)
    validated, plain = [], []
    for fold in range(folds or 1):
        data = UWNDC19(root=str(tmp_path), folds=folds, fold=fold)
        train, val = (data.recording.splits[name] for name in ("train", "val"))
        assert "39 images are the same as an earlier one" in data.recording.info["warnings"][0]
        assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in val.images}
        validated += val.row.tolist()
        plain.append(len(train) + len(val))
    if folds:
        assert sorted(validated) == list(range(50, 601)) and plain == [551] * 5
    else:
        assert len(validated) == 20 and plain[0] == 551 - sum(len({*pair} & {*validated}) == 1 for pair in copies)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"folds": 1}, "data.folds must be a whole number from 2 to 551, not 1"),
        ({"folds": 552}, "data.folds .* not 552"),
        ({"folds": 5, "fold": 5}, "data.fold must be a whole number from 0 to 4, not 5"),
        ({"folds": 5, "fold": -1}, "data.fold .* not -1"),
        ({"folds": None, "eval_size": 152}, "data.eval_size .* to 151 .*shown to all.*not 152"),
        ({"folds": None, "eval_size": 0}, "data.eval_size .* not 0"),
        ({"folds": 5, "min_responses": 19}, "data.min_responses .* not 19"),
        ({"folds": 5, "split_seed": -1}, "data.split_seed .* not -1"),
        ({"folds": 2.5}, "data.folds .* not 2.5"),
    ],
)
def test_impossible_splits(challenge, options, says):
    with pytest.raises(ConfigError, match=says):
        split_images(challenge.responses, **options)


# ---- the data module


def config(root, *overrides):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose(
            "train",
            overrides=["data=uwndc19", f"paths.data={root}", "data.simulate=true", "paths.output_dir=.", *overrides],
        )


def test_config(root):
    cfg = config(root)
    assert cfg.monitor == "val/rmse" and cfg.mode == "min"
    check_config(cfg, known=set(cfg))
    data = instantiate(cfg.data)
    data.prepare_data()
    assert {name: len(trials) for name, trials in data.recording.splits.items()} == {
        "train": 440, "val": 111, "test": 50,
    }  # fmt: skip
    winner = instantiate(config(root, "data.folds=null").data)
    assert [len(winner.recording.splits[name]) for name in ("train", "val", "test")] == [531, 20, 50]


def test_recording(root, challenge):
    data = UWNDC19(root=str(root), simulate=True, folds=None)
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
            np.testing.assert_array_equal(trials.images[i], challenge.images[row])
            np.testing.assert_array_equal(trials.responses[i], challenge.responses[row - 50])
            np.testing.assert_array_equal(trials.rates[i], challenge.rates[row])
    assert not set(split["train"]) & set(split["val"])
    train = recording.splits["train"]
    np.testing.assert_allclose(spec.mean_rates, np.nanmean(train.responses.astype(float), 0))
    assert [source["path"].rsplit("/", 1)[1] for source in recording.sources] == list(FILES)


def test_test_images_cannot_be_scored(root, challenge):
    data = UWNDC19(root=str(root), simulate=True)
    test = data.recording.splits["test"]
    np.testing.assert_array_equal(test.images, challenge.images[:50])
    assert test.row.tolist() == list(range(50)) and np.isnan(test.responses).all()
    assert not labelled(test, data.spec) and labelled(data.recording.splits["val"], data.spec)
    assert set(data.references()) == {"val"}
    (batch,) = data.eval_dataloader("test")
    assert not batch["mask"].any() and batch["inputs"].shape == (50, 3, 48, 48)


def test_a_folder_without_truth_is_not_simulated(root, folder, tmp_path):
    (tmp_path / "uwndc19").mkdir()
    for name in FILES[:3]:
        (tmp_path / "uwndc19" / name).symlink_to(folder / name)
    data = UWNDC19(root=str(tmp_path), image_size=16)
    assert not data.recording.simulated and not data.spec.true_rates and data.recording.splits["test"].rates is None
    assert data.spec.image_shape == (3, 16, 16)


def test_only_training_images_are_distorted(root):
    data = instantiate(config(root, "augment@data.augment=[winner,flips]", "seed=3").data)
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


def test_nan_never_reaches_a_batch(root):
    data = UWNDC19(root=str(root), simulate=True, batch_size=200)
    seen = torch.zeros(18)
    for batch in data.train_dataloader():
        assert torch.isfinite(batch["targets"]).all()
        seen += batch["mask"].sum(0)
    observed = np.isfinite(data.recording.splits["train"].responses).sum(0)
    assert seen.tolist() == observed.tolist() and observed[2] < 130 < 439 <= observed[0]
