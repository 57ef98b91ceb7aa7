"""Our tensors equal those of nlb_tools 0.0.4, the benchmark's own code, on the same files.

Counts, masks, indices and jitter are equal exactly, behavior and PSTHs to 1e-6.
"""

import itertools
import logging
from functools import lru_cache

import numpy as np
import pytest

from neuro_lightning.data.nlb.params import NLB_DATASETS, group_name
from neuro_lightning.data.nlb.reader import load_nlb, load_test_trials
from neuro_lightning.data.nlb.targets import official_tensors

make_tensors = pytest.importorskip("nlb_tools.make_tensors", reason="nlb_tools is not installed")

DATASETS = list(NLB_DATASETS)
BINS = (5, 20)
REAL = {"mc_maze_430": "mc_maze", "mc_maze_medium": "mc_maze_medium", "mc_maze_small": "mc_maze_small"}


@pytest.fixture(scope="module", autouse=True)
def sorted_clock():
    """Make nlb_tools sort its clock: with pandas 2 a series with missing samples leaves it in disorder.

    nlb_tools then counts the wrong rows without a word. Its PSTH code loads the file again, so the cure is in ``load``.
    """
    from nlb_tools.nwb_interface import NWBDataset

    original = NWBDataset.load

    def load(self, *args, **kwargs):
        data, *rest = original(self, *args, **kwargs)
        return data.sort_index(), *rest

    logging.disable(logging.WARNING)
    NWBDataset.load = load
    yield
    NWBDataset.load = original
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The train and the test file of a small simulated twin, written once for each dataset."""
    from neuro_lightning.data.nlb.twin import write_twin

    files = {}

    def get(dataset):
        if dataset not in files:
            folder = tmp_path_factory.mktemp(dataset)
            files[dataset] = write_twin(dataset, folder, n_trials=40, n_units=(9, 4))
        return files[dataset]

    return get


@lru_cache(maxsize=1)
def resampled(path, bin_ms):
    """nlb_tools' recording; tests follow each other by file, so the last one is worth keeping."""
    from nlb_tools.nwb_interface import NWBDataset

    dataset = NWBDataset(str(path))
    dataset.resample(bin_ms)
    return dataset


def reference(dataset, train_path, test_path, phase, bin_ms):
    """What nlb_tools makes of the files, in the layout of :func:`official_tensors`."""
    data = resampled(train_path, bin_ms)
    supplied = "train" if phase == "val" else ["train", "val"]
    common = {"save_file": False}
    tensors = make_tensors.make_train_input_tensors(
        data, dataset, supplied, include_behavior=True, include_forward_pred=True, **common
    )
    group = make_tensors.make_eval_target_tensors(data, dataset, supplied, "val", include_psth=True, **common)
    if phase == "test":  # the test trials' labels are in no file, so only the training side of the targets is known
        group = {name: {k: v for k, v in g.items() if not k.startswith("eval")} for name, g in group.items()}
        data = resampled.__wrapped__(test_path, bin_ms)
    tensors.update(make_tensors.make_eval_input_tensors(data, dataset, phase, **common))
    return {**tensors, **group}


def assert_equal(ours, theirs, name):
    if name.endswith("cond_idx"):
        assert len(ours) == len(theirs), name
        for mine, their in zip(ours, theirs, strict=True):
            assert np.array_equal(mine, np.asarray(their, np.int64)), name
        return
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, name
    tolerance = 1e-6 if name == "psth" or name.endswith("behavior") else 0.0
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), f"{name}: NaN elsewhere"
    assert np.nanmax(np.abs(ours - theirs), initial=0.0) <= tolerance, name


def twin_cases():
    """Bin width and phase are independent: two pairs of them are quick; the mazes' sessions have the same format."""
    quick = {"mc_maze_medium": [(5, "val")], "mc_maze_large": [(20, "test")]}
    for dataset in DATASETS:
        for case in itertools.product(BINS, ("val", "test")):
            rare = case not in quick.get(dataset, [(5, "val"), (20, "test")])
            yield pytest.param(dataset, *case, marks=pytest.mark.rare if rare else [])


@pytest.mark.parametrize(("dataset", "bin_ms", "phase"), twin_cases())
def test_twins(twin, dataset, phase, bin_ms):
    train_path, test_path = twin(dataset)
    theirs = reference(dataset, train_path, test_path, phase, bin_ms)
    ours = official_tensors(load_nlb(dataset, train_path, test_path, phase=phase, bin_ms=bin_ms))
    group = group_name(dataset, bin_ms)
    assert ours.keys() == theirs.keys()
    assert ours[group].keys() == theirs[group].keys()
    for name in ours.keys() - {group}:
        assert_equal(ours[name], theirs[name], name)
    for name in ours[group]:
        assert_equal(ours[group][name], theirs[group][name], name)
    assert ours["train_spikes_heldin"].sum() > 0
    assert ours["eval_spikes_heldin"].sum() > 0


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_observed_window_trains_and_validates(twin, dataset):
    info = load_nlb(dataset, twin(dataset)[0]).info
    assert info["overlap"]["observed"] == 0 and info["warnings"] == []
    assert (info["overlap"]["with_forward"] > 0) == (dataset == "mc_rtt")


def test_a_folder_with_both_files(twin):
    """nlb_tools may load both files as one long recording; the counts are the same."""
    train_path, test_path = twin("mc_maze_small")
    assert train_path.parent == test_path.parent
    data = resampled(train_path.parent, 5)
    ours = official_tensors(load_nlb("mc_maze_small", train_path, test_path, phase="test"))
    train = make_tensors.make_train_input_tensors(data, "mc_maze_small", ["train", "val"], save_file=False)
    test = make_tensors.make_eval_input_tensors(data, "mc_maze_small", "test", save_file=False)
    for name, value in {**train, **test}.items():
        assert_equal(ours[name], value, name)


# the large one is rare
@pytest.mark.parametrize("folder", [pytest.param("mc_maze_430", marks=pytest.mark.rare), *list(REAL)[1:]])
def test_real_test_files(shared_data, folder):
    paths = sorted((shared_data / "nlb" / folder).glob("*.nwb"))
    if not paths:
        pytest.skip(f"the real recording {folder} is not in {shared_data}")
    dataset = REAL[folder]
    data = resampled(paths[0], BINS[0])
    for bin_ms in BINS:
        data.resample(bin_ms)  # the second time from 5 to 20 ms, which leaves counts as they are
        theirs = make_tensors.make_eval_input_tensors(data, dataset, "test", save_file=False)["eval_spikes_heldin"]
        assert_equal(load_test_trials(dataset, paths[0], bin_ms=bin_ms).heldin, theirs, "eval_spikes_heldin")
