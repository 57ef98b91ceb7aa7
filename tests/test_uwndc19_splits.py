"""UWNDC19: the winner's split and folds. The golden values are those of the winner."""

import shutil

import numpy as np
import pytest

from neuro_lightning.data.uwndc19.datamodule import UWNDC19
from neuro_lightning.data.uwndc19.split import fold_numbers, split_images, winner_split
from neuro_lightning.errors import ConfigError


def test_winners_split(uwndc19_challenge):
    train, val = split_images(uwndc19_challenge.responses, folds=None)
    assert len(train) == 531 and len(val) == 20
    assert sorted([*train, *val]) == list(range(551))
    complete = np.isfinite(uwndc19_challenge.responses).all(1)
    assert complete.sum() == 151 and complete[val].all()
    # the rest of the complete rows comes first, both parts in the order of the winner's generator
    assert complete[train[:131]].all() and not complete[train[131:]].any()
    order = np.random.RandomState(130).permutation(551).tolist()
    for part in (val, train[:131], train[131:]):
        assert np.all(np.diff([order.index(row) for row in part]) > 0)
    assert order.index(train[0]) > order.index(val[-1])
    other, _ = split_images(uwndc19_challenge.responses, folds=None, split_seed=112233)
    assert set(other) != set(train)


def test_winners_split_by_hand():
    """permutation(6) of seed 0 is 5 2 1 3 0 4; rows 1 and 5 are incomplete."""
    observed = np.ones((6, 2), bool)
    observed[[1, 5], 0] = False
    assert np.random.RandomState(0).permutation(6).tolist() == [5, 2, 1, 3, 0, 4]
    train, val = winner_split(observed, 2, seed=0)
    assert val.tolist() == [2, 3] and train.tolist() == [0, 4, 5, 1]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_validate_each_image_once_and_share_the_missing_responses(uwndc19_challenge, folds):
    parts = [split_images(uwndc19_challenge.responses, folds=folds, fold=fold) for fold in range(folds)]
    assert sorted(np.concatenate([val for _, val in parts])) == list(range(551))
    complete = np.isfinite(uwndc19_challenge.responses).all(1)
    for train, val in parts:
        assert sorted([*train, *val]) == list(range(551))
        assert abs(len(val) - 551 / folds) < 1 and abs(complete[val].sum() - 151 / folds) <= 1
    again = split_images(uwndc19_challenge.responses, folds=folds, fold=0)[1]
    other = split_images(uwndc19_challenge.responses, folds=folds, fold=0, split_seed=1)[1]
    assert np.array_equal(again, parts[0][1]) and set(again) != set(other)


def test_folds_share_each_pattern_of_missing_responses_equally():
    observed = np.random.default_rng(0).random((60, 3)) < 0.5
    numbers = fold_numbers(observed, 4, seed=0)
    for pattern in np.unique(observed, axis=0):
        counts = np.bincount(numbers[(observed == pattern).all(1)], minlength=4)
        assert np.ptp(counts) <= 1
    assert np.bincount(numbers).tolist() == [15] * 4


def test_images_with_few_responses_can_be_left_out(uwndc19_challenge):
    for folds in (None, 5):
        train, val = split_images(uwndc19_challenge.responses, folds=folds, min_responses=5)
        assert sorted([*train, *val]) == list(range(550))  # row 550 has four responses
    train, val = split_images(uwndc19_challenge.responses, folds=None, min_responses=18)
    assert len(train) == 131 and len(val) == 20


@pytest.mark.parametrize("folds", [None, 5])
def test_identical_images_stay_on_one_side_of_the_split(uwndc19_folder, tmp_path, folds):
    copy = tmp_path / "uwndc19"
    shutil.copytree(uwndc19_folder, copy)
    images = np.load(copy / "stim.npy")
    copies = [(50 + k, 600 - k) for k in range(1, 40)]  # Ids; the last rows have missing responses, the first have none
    for one, other in copies:
        images[other, 16:64, 16:64] = images[one, 16:64, 16:64]  # in the pixels that are used
    np.save(copy / "stim.npy", images)
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
def test_impossible_splits(uwndc19_challenge, options, says):
    with pytest.raises(ConfigError, match=says):
        split_images(uwndc19_challenge.responses, **options)
