"""Splits: no time that trains is validated on, nothing moves where windows are apart, training trials are limited."""

import logging

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from nwb_trials import load_nwb_trials
from runs import ROOT
from test_data_module import Fixed, make_trials
from test_nwb_trials import write

from neuro_lightning.data.checks.overlap import (
    Spans,
    count_overlapping,
    draw_blocks,
    drop_overlapping,
    overlapping_groups,
    overlaps,
)
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.identity import data_record
from neuro_lightning.data.memory import JOBS
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.splitting import draw_splits
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.settings.config import instantiate

# ---- the maths


@st.composite
def windows(draw):
    """Windows of one length or of several, at random, at a stride, or at few times."""
    n = draw(st.integers(2, 60))
    stride = draw(st.integers(1, 30))
    start = draw(
        st.one_of(
            st.lists(st.integers(0, 500), min_size=n, max_size=n),
            st.permutations(list(range(0, n * stride, stride))),
            st.lists(st.integers(0, 3), min_size=n, max_size=n),
        )
    )
    length = draw(st.one_of(st.integers(1, 60), st.lists(st.integers(1, 60), min_size=n, max_size=n)))
    start = np.array(start)
    return Spans(start, start + np.array(length))


def pairs(one: Spans, other: Spans) -> np.ndarray:
    """(B, B') bool by the definition: is there a sample that lies in both?"""
    samples = np.arange(max(one.stop.max(), other.stop.max()) + 1)
    inside = [(s.start[:, None] <= samples) & (samples < s.stop[:, None]) for s in (one, other)]
    return (inside[0].astype(int) @ inside[1].astype(int).T) > 0


@settings(max_examples=60, deadline=None)
@given(windows(), windows())
def test_overlaps_and_groups_equal_their_definition(one, other):
    np.testing.assert_array_equal(overlaps(one, other), pairs(one, other).any(1))
    reach = pairs(one, one)
    for _ in range(6):  # 2^6 links are enough for 60 windows
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    groups = overlapping_groups(one)
    np.testing.assert_array_equal(groups[:, None] == groups[None], reach)


@settings(max_examples=100, deadline=None)
@given(windows(), st.floats(0.05, 0.9), st.integers(0, 3))
def test_no_sample_of_a_later_part_is_in_an_earlier_one(spans, fraction, seed):
    validates = draw_blocks(spans, max(1, round(fraction * len(spans))), seed)
    parts = {"train": np.flatnonzero(~validates), "val": np.flatnonzero(validates), "test": np.array([0])}
    kept, duplicates, dropped = drop_overlapping(spans, parts)
    assert list(kept) == ["train", "val", "test"] and kept["test"].tolist() == [0]
    assert sum(map(len, kept.values())) + duplicates + dropped == len(spans) + 1
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if len(kept[one]) and len(kept[other]):
            assert not pairs(spans.take(kept[one]), spans.take(kept[other])).any()
    for part in kept.values():
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_windows_without_overlap_are_drawn_one_by_one(seed):
    start = np.random.default_rng(seed).permutation(41) * 10
    validates = draw_blocks(Spans(start, start + 10), 10, seed)
    order = np.random.default_rng([seed, 1]).permutation(41)
    assert np.flatnonzero(validates).tolist() == sorted(order[-10:].tolist())


def test_pairs_of_overlapping_windows_stay_in_one_split():
    start = (np.arange(40)[:, None] * 100 + [0, 5]).ravel()
    spans = Spans(start, start + 20)
    validates = draw_blocks(spans, 20, 0)
    assert validates.sum() == 20 and (validates[::2] == validates[1::2]).all() and count_overlapping(spans) == 80
    assert drop_overlapping(spans, {"train": np.flatnonzero(~validates), "val": np.flatnonzero(validates)})[2] == 0


def test_a_long_chain_is_drawn_in_blocks_and_few_windows_are_dropped():
    start = np.arange(585) * 100
    spans = Spans(start, start + 600)
    for seed in range(5):
        validates = draw_blocks(spans, 146, seed)
        asked = {"train": np.flatnonzero(~validates), "val": np.flatnonzero(validates)}
        parts, _, dropped = drop_overlapping(spans, asked)
        assert 120 <= validates.sum() <= 172 and 5 <= dropped <= 40 and len(parts["train"]) > 380
        assert np.flatnonzero(np.diff(validates.astype(int)) == 1).size > 0


# ---- NWB files


def bursts(end: float, seed: int = 0, n_units: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, end, round(20 * end))) for _ in range(n_units)]


def tables():
    """Trial tables whose windows overlap in time, each with the options it is read by."""
    rng = np.random.default_rng(0)
    stride, apart = np.arange(0.5, 19, 0.1), np.arange(0.5, 24, 0.6)
    column = {"split": np.array((["train"] * 3 + ["val"]) * (len(apart) // 4) + ["test"] * (len(apart) % 4))}
    twice = np.concatenate([apart, apart[:5]])
    return {
        "stride": (stride, {}, {"bin_ms": 20}),
        "stride, shuffled": (rng.permutation(stride), {}, {"bin_ms": 20, "seed": 1}),
        "stride, in order": (stride, {}, {"bin_ms": 20, "split": "chronological"}),
        "forward": (apart, {}, {"window_ms": (0, 600), "forward_ms": 200}),
        "forward, in order": (apart, {}, {"window_ms": (0, 600), "forward_ms": 200, "split": "chronological"}),
        "before the start": (apart, {}, {"window_ms": (-300, 400)}),
        "column": (apart, column, {"window_ms": (0, 600), "forward_ms": 20}),
        "twice": (twice, {}, {"window_ms": (0, 500)}),
        "pairs": (np.sort(np.concatenate([apart[::2], apart[::2] + 0.2])), {}, {}),
        "at random": (np.sort(rng.uniform(0.5, 24, 40)), {}, {"window_ms": (0, 100)}),
    }


def check_apart(path, starts, options) -> Recording:
    """Read a file, and count from its spike times what each window must hold, spike by spike."""
    recording = load_nwb_trials(path, heldout_fraction=0.5, **options)
    begin, stop = options.get("window_ms", (0, 600))
    bin_ms = options.get("bin_ms", 5)
    length = ((stop - begin) // bin_ms * bin_ms + options.get("forward_ms", 0)) / 1000
    times = np.concatenate(open_nwb(path).spike_times)
    first = np.ceil(np.round((starts * 1000 + begin) / bin_ms, 6)) * bin_ms / 1000
    found = {}
    for part, trials in recording.splits.items():
        found[part] = set()
        for k, row in enumerate(trials.row.tolist()):
            spikes = times[(times >= first[row] - 1e-9) & (times < first[row] + length - 1e-9)]
            arrays = (trials.heldin, trials.heldout, trials.heldin_forward, trials.heldout_forward)
            assert sum(int(a[k].sum()) for a in arrays if a is not None) == len(spikes)
            found[part] |= set(spikes.tolist())
    assert found["train"] and found["val"]
    assert not found["train"] & found["val"] and not found.get("test", set()) & (found["train"] | found["val"])
    return recording


@pytest.mark.parametrize("name", tables())
def test_no_validation_spike_lies_in_a_training_window(tmp_path, name):
    starts, columns, options = tables()[name]
    path = write(tmp_path / "a.nwb", bursts(26.0), starts, stops=starts + 0.6, columns=columns)
    recording = check_apart(path, starts, options)
    overlap = recording.info["overlap"]
    assert overlap["overlapping"] + overlap["duplicates"] > 0
    assert sum("run back" not in line for line in recording.info["warnings"]) == 1


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_no_validation_spike_is_in_a_training_window_of_random_tables(tmp_path_factory, data):
    n, bin_ms = data.draw(st.integers(8, 40), "trials"), data.draw(st.sampled_from([1, 5, 20]), "bin_ms")
    starts = data.draw(st.lists(st.integers(300, 9000), min_size=n, max_size=n), "starts")
    options = {
        "bin_ms": bin_ms,
        "window_ms": (data.draw(st.sampled_from([-200, 0])), data.draw(st.sampled_from([45, 120, 500]), "stop")),
        "forward_ms": bin_ms * data.draw(st.integers(0, 3), "forward"),
        "split": data.draw(st.sampled_from(["random", "chronological", "column"]), "split"),
        "val_fraction": data.draw(st.sampled_from([0.1, 0.25, 0.5]), "val_fraction"),
    }
    parts = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=n - 2, max_size=n - 2), "parts")
    path = tmp_path_factory.mktemp("any") / "a.nwb"
    write(path, bursts(11.0), starts := np.array(starts) / 1000, columns={"split": ["train", "val", *parts]})
    try:
        check_apart(path, starts, options)
    except DataError as error:
        assert any(text in str(error) for text in ("would be left", "too few", "one and the same time"))


def test_chronological_split_goes_by_time_not_by_row(tmp_path):
    starts = np.random.default_rng(0).permutation(np.arange(0.5, 12, 0.3))
    path = write(tmp_path / "a.nwb", bursts(13.0), starts)
    rows = load_nwb_trials(path, split="chronological", bin_ms=20).info["rows"]
    assert starts[rows["val"]].min() > starts[rows["train"]].max() + 0.3 - 1e-9


def test_the_number_of_trials_left_out_is_reported(tmp_path, caplog):
    starts = np.arange(0.5, 24, 0.6)
    twice = write(tmp_path / "a.nwb", bursts(26.0), np.concatenate([starts, starts[:5]]))
    info = load_nwb_trials(twice).info
    assert "5 of 45 trials are left out, since they are listed twice" in info["warnings"][-1]
    assert set(info["rows"]["train"]) | set(info["rows"]["val"]) == set(range(40))
    column = {"split": np.array(["train"] * 30 + ["val"] * 10)}
    ahead = write(tmp_path / "b.nwb", bursts(26.0), starts, columns=column)
    info = load_nwb_trials(ahead, window_ms=(0, 600), forward_ms=100).info
    assert "1 trials are left out, since they share time" in info["warnings"][0]
    assert info["rows"]["train"] == list(range(29)) and info["rows"]["val"] == list(range(30, 40))
    apart = write(tmp_path / "c.nwb", bursts(26.0), starts).with_name("c.nwb")
    assert load_nwb_trials(apart).info["warnings"] == []
    data = Fixed(Recording("a", 5, {"train": make_trials()}, np.arange(7), info={"warnings": ["said once"]}))
    with caplog.at_level(logging.WARNING):
        assert data.recording is data.recording
    assert [record.getMessage() for record in caplog.records].count("said once") == 1


@pytest.mark.parametrize("split", ["random", "chronological"])
@pytest.mark.parametrize("starts", [np.full(30, 0.5), np.linspace(0.1, 0.4, 30)], ids=["one time", "relative"])
def test_times_of_the_trial_in_place_of_the_session_are_refused(tmp_path, split, starts):
    path = write(tmp_path / "a.nwb", bursts(3.0), starts, stops=starts + 0.6)
    with pytest.raises(DataError, match=r"data\.align|since the session's start"):
        load_nwb_trials(path, split=split)


# ---- fewer training trials


def dataset(name: str, *overrides: str):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[f"data={name}", "paths.output_dir=.", *overrides])
    return instantiate(cfg.data)


def limited(n, seed=0, **values):
    trials = {"train": make_trials(60), "val": make_trials(9, seed=1)}
    info = {"rows": {"train": list(range(60)), "val": list(range(9))}}
    recording = Recording("a", 5, trials, np.arange(7), info=info, **values)
    return Fixed(recording, train_trials=n, train_trials_seed=seed).recording, recording


def test_training_trials_are_limited_in_nested_draws_and_noted():
    few, whole = limited(25)
    more, _ = limited(50)
    rows = [set(r.splits["train"].row.tolist()) for r in (few, more)]
    assert len(rows[0]) == 25 and len(rows[1]) == 50 and rows[0] < rows[1]
    assert set(limited(25, seed=1)[0].splits["train"].row.tolist()) != rows[0]
    assert few.splits["val"] is whole.splits["val"] and len(whole.splits["train"]) == 60
    assert few.info["train_trials"] == {"asked": 25, "used": 25, "of": 60, "seed": 0, "rows": sorted(rows[0])}
    assert few.info["rows"] == {"train": sorted(rows[0]), "val": list(range(9))}
    assert whole.info["rows"]["train"] == list(range(60)) and "train_trials" not in limited(None)[0].info


def test_train_trials_do_not_change_the_shared_recording(monkeypatch):
    """Jobs of a sweep share what they read; another file than the model was trained on is served whole."""
    JOBS.clear()
    fixed, read = limited(None)[1], []
    monkeypatch.setattr(Fixed, "load", lambda self: read.append(1) or self.fixed)
    for n in (25, 50, None):
        data = Fixed(fixed, train_trials=n)
        data.share_recording({"name": "a", "train_trials": n, "train_trials_seed": 0})
        assert len(data.recording.splits["train"]) == (n or 60)
        noted = data_record(data.recording)
        assert noted["trials"] == {"train": n or 60, "val": 9} and ("train_trials" in noted["split"]) == (n is not None)
    assert len(read) == 1
    JOBS.clear()
    other = Fixed(fixed, train_trials=25)
    other.serves_other_file = True
    assert len(other.recording.splits["train"]) == 60


def test_spikes_and_images_take_the_limit(tmp_path):
    data = dataset("lorenz", "data.sizes={n_train:30,n_val:5,n_test:5,n_in:6,n_out:2,n_bins:8}", "data.train_trials=7")
    assert {name: len(part) for name, part in data.recording.splits.items()} == {"train": 7, "val": 5, "test": 5}
    twin = ("data.simulate=true", f"paths.data={tmp_path}")
    images = [dataset("uwndc19", *twin, f"data.train_trials={n}").recording for n in (7, 9)]
    few, more = (set(recording.splits["train"].row.tolist()) for recording in images)
    assert len(few) == 7 and few < more and images[0].splits["val"].row.tolist() == images[1].splits["val"].row.tolist()


def test_more_training_trials_than_there_are_and_impossible_numbers(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(limited(61)[0].splits["train"]) == 60
    assert "train_trials=61: a has 60 training trials" in caplog.text
    for n, seed in ((0, 0), (2.5, 0), (True, 0), (5, -1)):
        with pytest.raises(ConfigError, match=r"data\.train_trials"):
            limited(n, seed)
    with pytest.raises(ConfigError, match="no trials"):
        limited(5, kind="traces")


def test_draws_of_splits_depend_on_the_seed():
    first, again, other = (draw_splits(40, {"val": 0.25, "test": 0.25}, seed) for seed in (0, 0, 1))
    for part in ("train", "val", "test"):
        assert first[part].tolist() == again[part].tolist() != other[part].tolist()
