"""Images whose responses are stored by presentation: which belong together, what is scored, and what is refused."""

import numpy as np
import pytest
import scipy.io
from hydra import compose, initialize_config_dir
from runs import ROOT, here, record
from test_arrays import SHORT

import neuro_lightning as nl
from neuro_lightning.artifacts.old_names import update_identity
from neuro_lightning.data.arrays.files import save_arrays
from neuro_lightning.data.arrays.images import MOST_REPEATS, ImageOptions, load_images
from neuro_lightning.data.arrays.presentations import join_list
from neuro_lightning.data.describe import describe
from neuro_lightning.errors import DataError

RNG = np.random.default_rng(0)
COUNTS = np.array([3, 1, 2, 5, 1, 4, 2, 2, 0, 3, 1, 2] * 3)  # presentations of each image; three were never shown
IMAGES = RNG.normal(size=(len(COUNTS), 6, 7)).astype(np.float32)
LIST = [RNG.gamma(2.0, size=(count, 4)).astype(np.float32) for count in COUNTS]
LIST[3][1, 2] = np.nan
ORDER = RNG.permutation(COUNTS.sum())  # as they were shown
SHOWN = np.repeat(np.arange(len(COUNTS)), COUNTS)[ORDER]
RESPONSES = np.concatenate(LIST)[ORDER]
ARRAYS = {"images": IMAGES, "responses": RESPONSES, "image_ids": SHOWN}


def load(tmp_path, **changes):
    arrays = {name: values for name, values in {**ARRAYS, **changes}.items() if values is not None}
    return load_images(save_arrays(tmp_path / "mine.npz", arrays), ImageOptions())


def test_where_the_neurons_lie(tmp_path):
    places = RNG.normal(size=(4, 3))
    assert load(tmp_path).unit_positions is None and describe(load(tmp_path)).unit_positions == ()
    for columns in (2, 3):
        found = load(tmp_path, unit_positions=places[:, :columns])
        np.testing.assert_array_equal(found.unit_positions, places[:, :2])
        assert describe(found).unit_positions == tuple(places[:, :2].ravel().tolist())
    for wrong, says in ((places[:, :1], "neurons x 2 or neurons x 3"), (places[:3], "with 4 neurons as in responses")):
        with pytest.raises(DataError, match=says):
            load(tmp_path, unit_positions=wrong)
    with pytest.raises(DataError, match="unit_positions"):
        load(tmp_path, unit_positions=np.where(places > 0, np.nan, places))


def same_recording(one, other):
    assert list(one.splits) == list(other.splits)
    for split, part in one.splits.items():
        theirs = other.splits[split].arrays()
        assert part.arrays().keys() == theirs.keys()
        for name, values in part.arrays().items():
            np.testing.assert_array_equal(values, theirs[name])


def test_presentations_of_an_image_are_its_repeats_and_stay_in_one_split(tmp_path):
    found = load(tmp_path)
    rows = np.concatenate([part.row for part in found.splits.values()])
    assert sorted(rows) == np.flatnonzero(COUNTS).tolist() and len(found.unit_ids) == 4
    assert any("3 images were not shown" in line for line in found.info["warnings"])
    for split, part in found.splits.items():
        for image, mean in zip(part.row, part.responses, strict=True):
            np.testing.assert_allclose(mean, np.nanmean(RESPONSES[image == SHOWN], 0), rtol=1e-6)
        if split == "train":
            assert part.repeats is None
            continue
        assert part.repeats.shape[1] == COUNTS[part.row].max()
        for image, repeats in zip(part.row, part.repeats, strict=True):
            kept = np.isfinite(repeats).any(1)
            assert kept.sum() == COUNTS[image] and kept[: COUNTS[image]].all()
            np.testing.assert_array_equal(repeats[kept], RESPONSES[image == SHOWN])


def test_a_list_cells_of_matlab_and_presentations_are_the_same_recording(tmp_path):
    by_list, image_ids = join_list(LIST)
    cells = np.empty(len(LIST), object)
    cells[:] = LIST
    scipy.io.savemat(tmp_path / "cells.mat", {"images": IMAGES, "responses": cells})
    one = load(tmp_path, responses=by_list, image_ids=image_ids)
    same_recording(one, load_images(tmp_path / "cells.mat", ImageOptions()))
    saved = nl.images(IMAGES, LIST).save(tmp_path / "list.npz")
    same_recording(one, load_images(saved, ImageOptions()))
    same_recording(one, load_images(nl.images(IMAGES, cells).save(tmp_path / "objects.npz"), ImageOptions()))
    assert nl.images(IMAGES, RESPONSES, image_ids=SHOWN).overrides(tmp_path)[0] == "data=images"


def test_equal_numbers_of_repeats_are_scored_as_an_array_of_repeats_is(tmp_path):
    dense = RNG.gamma(2.0, size=(len(COUNTS), 3, 4)).astype(np.float32)
    rows = RNG.permutation(len(COUNTS) * 3)
    one = load(tmp_path, responses=dense, image_ids=None)
    responses, image_ids = dense.reshape(-1, 4)[rows], (np.arange(len(COUNTS) * 3) // 3)[rows]
    other = load(tmp_path, responses=responses, image_ids=image_ids)
    for split, part in one.splits.items():
        np.testing.assert_array_equal(part.row, other.splits[split].row)
        np.testing.assert_allclose(part.responses, other.splits[split].responses, rtol=1e-6)
    np.testing.assert_array_equal(np.sort(one.splits["test"].repeats, 1), np.sort(other.splits["test"].repeats, 1))


def test_splits_may_be_said_of_images_or_of_presentations(tmp_path):
    of_images = np.array(["train", "train", "val", "test"] * 9)
    one, other = load(tmp_path, split=of_images), load(tmp_path, split=of_images[SHOWN])
    same_recording(one, other)
    assert (of_images[one.splits["val"].row] == "val").all()


def test_a_grey_screen_does_not_fill_the_memory(tmp_path):
    often = np.concatenate([SHOWN, np.full(200, 0)])
    split = np.array(["test" if k == 0 else "val" if k % 3 else "train" for k in range(len(COUNTS))])
    responses = np.concatenate([RESPONSES, np.ones((200, 4), np.float32)])
    found = load(tmp_path, responses=responses, image_ids=often, split=split)
    assert found.splits["test"].repeats.shape == (1, MOST_REPEATS, 4) and found.splits["val"].repeats.shape[1] == 4
    np.testing.assert_allclose(found.splits["test"].responses, found.splits["test"].repeats.mean(1), rtol=1e-6)
    assert any("more than 50 times" in line for line in found.info["warnings"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": SHOWN + 1}, "image_ids run from 1 to 36, but images count from 0: subtract 1"),
        ({"image_ids": np.where(SHOWN == 2, 36, SHOWN)}, "image_ids holds 36, but there are 36 images, 0 to 35"),
        ({"image_ids": SHOWN - 1}, "image_ids holds -1, but there are 36 images"),
        ({"image_ids": SHOWN + 0.5}, r"image_ids holds \d+.5, but the images' rows are whole numbers"),
        ({"image_ids": SHOWN[1:]}, r"image_ids .*77.* for each of the presentations with 78 presentations as in"),
        ({"image_ids": None}, "responses has 78 rows for 36 images: .* image_ids with the image of each row"),
        ({"responses": RESPONSES[:, None]}, r"responses must be responses, presentations x neurons, but is .*78, 1, 4"),
        ({"split": np.array(["train", "val"] * 39)}, r"split puts presentations of image \d+ into train and val"),
        ({"split": np.array(["train"] * 30)}, r"split .*30.* one for each of the images with 36 images"),
        ({"images": np.zeros((36, 5, 5, 3))}, r"shape \(36, 5, 5, 3\); channels come before the pixels: images.transp"),
        ({"istim": SHOWN, "image_ids": None}, "has no array 'istim'; did you mean 'image_ids'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, changes, message):
    with pytest.raises(DataError, match=message) as refused:
        load(tmp_path, **changes)
    assert "\n" not in str(refused.value) and "mine.npz" in str(refused.value)


def test_lists_that_do_not_fit_are_one_line():
    with pytest.raises(DataError, match="responses to image 2 are of 3 neurons, those before of 4"):
        nl.images(IMAGES, [*LIST[:2], LIST[2][:, :3], *LIST[3:]])
    with pytest.raises(DataError, match="responses to image 1 must be numbers, repeats x neurons, but are <U1"):
        nl.images(IMAGES, [LIST[0], np.array(["a"]), *LIST[2:]])
    with pytest.raises(DataError, match="leave image_ids out beside it"):
        nl.images(IMAGES, LIST, image_ids=SHOWN)
    with pytest.raises(DataError, match="a list without any response"):
        nl.images(IMAGES[:2], [np.empty((0, 4)), np.empty((0, 3))])


def test_the_command_trains_on_unequal_repeats_and_scores_against_their_ceiling(tmp_path):
    path = save_arrays(tmp_path / "mine.npz", ARRAYS)
    run = here(tmp_path / "run", f"data.path={path}", base=["data=images", "model=hsm", *SHORT])
    found = record(run.folder)
    assert found["status"] == "finished" and found["data"]["name"] == "images"
    assert {"corr", "feve"} <= {name.partition("/")[2] for name in found["metrics"]}


def test_the_earlier_name_is_the_same_dataset():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        old, new = (compose("train", [f"data={name}"]) for name in ("array_images", "images"))
    assert old == new
    identity = {"name": "array_images", "sessions": {"one": {"name": "array_images"}, "two": {"name": "nwb"}}}
    today = update_identity(identity)
    assert today["name"] == today["sessions"]["one"]["name"] == "images" and today["sessions"]["two"]["name"] == "nwb"
