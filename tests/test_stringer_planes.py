"""Planes, blocks, bins and parts of Stringer's spontaneous activity, with the published numbers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro_lightning.data.stringer.files import SpontaneousFile
from neuro_lightning.data.stringer.planes import (
    block_labels,
    downsample,
    draw_neurons,
    plane_labels,
    split_bins,
    windows,
)
from neuro_lightning.data.stringer.reader import Preparation, prepare
from neuro_lightning.errors import ConfigError, DataError

REAL = (1386, 1440, 1418, 1471, 1415, 1321, 1218, 1183, 1131)


def test_published_sizes():
    z = np.random.default_rng(0).permutation(np.repeat(-35.0 * np.arange(9)[::-1], REAL))
    labels = plane_labels(z)
    assert np.bincount(labels).tolist() == list(REAL) and labels[z.argmin()] == 0
    neurons, n_in = draw_neurons(labels)
    assert n_in == 1131 and {len(index) for index in neurons.values()} == {1131}
    assert downsample(np.zeros((2, 7018)), 2).shape == (2, 3509)
    assert split_bins(3509, 0.2, 0.0) == {"train": slice(0, 2807), "val": slice(2807, 3509)}
    assert [p.stop - p.start for p in split_bins(3509, 0.15, 0.15).values()] == [2456, 526, 527]


def test_published_blocks():
    """The edges of the published 3 x 3 blocks: 4, 339, 674, 1009 and 4, 340, 676, 1012."""
    x, y = np.array([4, 339, 340, 674, 675, 1010.0]), np.array([4, 339, 341, 675, 677, 1012.0])
    assert block_labels(x, y, 3).tolist() == [0, 0, 4, 4, 8, 8]
    assert block_labels(x, y[::-1], 3).tolist() == [2, 2, 4, 4, 6, 6]


def test_draws_are_seeded_and_nested():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 20, 25]))
    first, _ = draw_neurons(labels, seed=3)
    assert all((labels[index] == label).all() and len(set(index)) == 20 for label, index in first.items())
    again, _ = draw_neurons(labels, seed=3)
    other, _ = draw_neurons(labels, seed=4)
    fewer, _ = draw_neurons(labels, n=8, seed=3)
    assert all((first[k] == again[k]).all() and set(fewer[k]) < set(first[k]) for k in first)
    assert (first[0] != other[0]).any()
    held, n_in = draw_neurons(labels, heldout_fraction=0.25, seed=3)
    assert n_in == 15 and all(set(held[k]) == set(first[k]) for k in first)
    assert all((np.diff(held[k][:n_in]) > 0).all() and (np.diff(held[k][n_in:]) > 0).all() for k in held)


def test_impossible_draws_are_refused():
    labels = np.repeat([0, 1], [9, 5])
    with pytest.raises(ConfigError, match=r"neurons_per_plane=6: the least populated of the 2 groups has 5"):
        draw_neurons(labels, n=6)
    with pytest.raises(ConfigError, match=r"heldout_fraction=0\.9 of 5 neurons"):
        draw_neurons(labels, heldout_fraction=0.9)
    with pytest.raises(ConfigError, match=r"fewer data\.blocks"):
        draw_neurons(np.array([0, 0, 2, 2]))
    with pytest.raises(ConfigError) as error:
        draw_neurons(np.arange(10_000))  # data.blocks=100
    assert len(str(error.value)) < 150
    with pytest.raises(DataError, match="100 different depths"):
        plane_labels(np.arange(100.0))


def test_bins_and_splits():
    values = np.arange(14.0).reshape(2, 7)
    np.testing.assert_array_equal(downsample(values, 3), [[1, 4], [8, 11]])
    assert downsample(values, 1) is values
    for n, val, test, train in [(10, 0.3, 0.0, 7), (20, 0.1, 0.2, 14), (100, 0.28, 0.02, 70), (3510, 0.2, 0.0, 2808)]:
        parts = list(split_bins(n, val, test).values())
        assert parts[0] == slice(0, train) and parts[-1].stop == n
        assert all(a.stop == b.start for a, b in pairwise(parts))
    for val, test in [(0.0, 0.2), (0.6, 0.4), (-0.1, 0.2), ("a", 0.2)]:
        with pytest.raises(ConfigError, match=r"data\.val_fraction"):
            split_bins(50, val, test)


@pytest.mark.parametrize(("n", "val", "test", "train"), [(10, 0.3, 0.2, 5), (20, 0.15, 0.2, 13), (100, 0.4, 0.15, 45)])
def test_shares_that_mean_whole_bins_give_them(n, val, test, train):
    """Though 10 * (1 - 0.3 - 0.2) is 4.999... in floating point."""
    assert split_bins(n, val, test)["train"] == slice(0, train)


def test_heldout_neurons_lie_anywhere_in_the_file():
    labels = np.zeros(200, int)
    neurons, n_in = draw_neurons(labels, heldout_fraction=0.25)
    held = neurons[0][n_in:]
    assert held.min() < 40 and held.max() >= 160 and abs(held.mean() - 99.5) < 25
    fewer, n_fewer = draw_neurons(labels, heldout_fraction=0.1)
    assert set(fewer[0][n_fewer:]) < set(held)  # the last ones drawn


def test_windows():
    assert windows(10, None, None) == [slice(0, 10)]
    assert windows(10, 4, None) == [slice(0, 4), slice(4, 8)]
    assert [w.start for w in windows(10, 4, 3)] == [0, 3, 6]
    for size, stride in [(11, None), (1, None), (4, 0)]:
        with pytest.raises(ConfigError, match=r"data\.window"):
            windows(10, size, stride)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_frame_is_in_two_parts(data):
    """Every frame tells its own time: what a sample holds tells the frames that it was made of."""
    n, factor = data.draw(st.integers(40, 150), "bins"), data.draw(st.integers(1, 3), "downsample")
    window = data.draw(st.one_of(st.none(), st.integers(2, 6)), "window")
    stride = data.draw(st.one_of(st.none(), st.integers(1, 12)), "stride")
    test = data.draw(st.sampled_from([0.0, 0.2, 0.3]), "test")
    options = Preparation(
        downsample=factor, window=window, stride=stride, val_fraction=0.2, test_fraction=test, normalisation="none",
        blocks=data.draw(st.sampled_from([None, 2]), "blocks"), behavior_components=0, neurons_per_plane=2,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    xyz = np.stack([*rng.uniform(0, 100, (2, 60)), np.repeat([-30.0, -60.0], 30)])
    time = 4.0 ** np.arange(factor)[np.arange(n) % factor] + 1000.0 * (np.arange(n) // factor)
    file = SpontaneousFile(Path("a.npy"), np.tile(time, (60, 1)), xyz, {}, 400)
    splits = prepare(file, options).splits
    whole = (4.0 ** np.arange(factor)).mean()  # a bin is the mean of just its frames
    bins = {part: set(np.round((trials.heldin - whole) / 1000, 4).ravel().tolist()) for part, trials in splits.items()}
    assert set.union(*bins.values()) <= set(range(n // factor))
    assert sum(map(len, bins.values())) == len(set.union(*bins.values())) and min(map(len, bins.values())) >= 2
    assert max(bins["train"]) < min(bins["val"])
