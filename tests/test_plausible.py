"""Times, marks and counts that are not what they should be: refused by name, or told with a number."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from nwb_trials import load_nwb_trials
from test_nwb_trials import N_TRIALS, N_UNITS, STARTS, TRIAL_S, random_spikes, write

from neuro_lightning.data import binning
from neuro_lightning.data.checks import plausible
from neuro_lightning.data.formats.columns import read_yes_no
from neuro_lightning.data.formats.intervals import merge_intervals
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.formats.spike_recording import Series
from neuro_lightning.errors import DataError, NeuroError
from neuro_lightning.functional.ridge import decode_folds

END = STARTS[-1] + TRIAL_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


def rows(recording):
    return sorted(row for part in recording.info["rows"].values() for row in part)


@pytest.mark.parametrize(
    ("spikes", "starts", "options", "message"),
    [
        (lambda t: np.where(t < 4, t, t - 4), lambda s: s, {}, "unit 0 has spike times that run back"),
        (lambda t: t * 1000, lambda s: s, {}, "are no seconds|not on one clock"),
        (lambda t: np.round(t * 30000), lambda s: s, {}, "whole numbers.*sampling rate"),
        (lambda t: t + 1.6e9, lambda s: s, {}, "would last .* days"),
        (lambda t: t, lambda s: s * 1000, {"window_ms": (0, 300)}, "not on one clock"),
        (lambda t: t, lambda s: s * 0, {"window_ms": (0, 300)}, "all 20 trials start at 0 s"),
    ],
)
def test_times_of_another_clock_or_unit_are_refused(folder, spikes, starts, options, message):
    path = write(folder / "clock.nwb", [spikes(t) for t in random_spikes()], starts(STARTS))
    with pytest.raises(DataError, match=message):
        load_nwb_trials(path, **options)


def test_slightly_unordered_spike_times_are_sorted_with_a_warning(folder):
    spikes = random_spikes()
    expected = load_nwb_trials(write(folder / "sorted.nwb", spikes, STARTS))
    k = int(np.flatnonzero((np.diff(spikes[2]) > 0) & (np.diff(spikes[2]) < 0.04))[0])
    spikes[2][[k, k + 1]] = spikes[2][[k + 1, k]]
    found = load_nwb_trials(write(folder / "unsorted.nwb", spikes, STARTS))
    np.testing.assert_array_equal(found.splits["train"].heldin, expected.splits["train"].heldin)
    assert ["1 of 200 spike times" in line for line in found.info["warnings"]] == [True]


@pytest.mark.parametrize("shift", [-20.0, 1.6e9])
def test_a_recording_that_begins_far_from_zero_is_the_same(folder, shift):
    """Also before zero, and without a row of samples from zero on."""
    time = np.arange(0, END, 0.001)
    series = (np.stack([np.sin(time), np.cos(time)], 1), 1000.0)
    spikes = [np.floor(t * 1000) / 1000 + 0.0005 for t in random_spikes()]
    plain = load_nwb_trials(write(folder / "zero.nwb", spikes, STARTS, series=series), behavior="hand_vel")
    path = write(folder / "far.nwb", [t + shift for t in spikes], STARTS + shift, series=series)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/hand_vel/starting_time"][()] = shift
    far = load_nwb_trials(path, behavior="hand_vel", window_ms=(0, 300))
    assert rows(plain) == list(range(N_TRIALS)) and rows(far) == rows(plain)[: len(rows(far))]
    assert len(rows(far)) >= N_TRIALS - 1  # a double of POSIX seconds may lose the last millisecond
    assert (np.concatenate([p.row for p in far.splits.values()]) >= 0).all()
    if len(rows(far)) < N_TRIALS:
        return
    for part in ("train", "val"):
        np.testing.assert_array_equal(far.splits[part].heldin, plain.splits[part].heldin)
        np.testing.assert_allclose(far.splits[part].behavior[1:-1], plain.splits[part].behavior[1:-1], atol=1e-3)
    assert (shift < 1e9) == (far.info["warnings"] == [])


def test_invalid_times_and_reversed_trials_are_left_out(folder):
    import pynwb

    path = write(folder / "invalid.nwb", random_spikes(), STARTS)
    with pynwb.NWBHDF5IO(str(path), "a") as io:
        nwb = io.read()
        nwb.add_invalid_time_interval(start_time=STARTS[3] + 0.1, stop_time=STARTS[5] + 0.01)
        io.write(nwb)
    assert rows(load_nwb_trials(path)) == [k for k in range(N_TRIALS) if k not in (3, 4, 5)]
    stops = STARTS + TRIAL_S
    stops[7] = STARTS[7] - 1
    recording = load_nwb_trials(write(folder / "reversed.nwb", random_spikes(), STARTS, stops=stops))
    assert rows(recording) == [k for k in range(N_TRIALS) if k != 7] and len(recording.info["warnings"]) == 1
    assert "1 of 20 trials end before they start (ids 7)" in recording.info["warnings"][0]
    with pytest.raises(DataError, match="20 of 20 trials end before"):
        load_nwb_trials(write(folder / "all.nwb", random_spikes(), STARTS, stops=STARTS - 1))


def test_trials_whose_starts_run_back_are_warned_of(folder):
    starts = STARTS.copy()
    starts[[4, 5, 11, 12]] = starts[[5, 4, 12, 11]]
    recording = load_nwb_trials(write(folder / "back.nwb", random_spikes(), starts))
    assert rows(recording) == list(range(N_TRIALS)) and len(recording.info["warnings"]) == 1
    assert "starts run back 2 times in the table (from 2 to 1.6 s)" in recording.info["warnings"][0]


def test_observed_intervals_in_any_order_and_overlapping(folder):
    pieces = [[4.0, END], [0.0, 2.5], [2.0, 4.0]]
    path = write(folder / "pieces.nwb", random_spikes(), STARTS, intervals=[pieces] * N_UNITS)
    assert rows(load_nwb_trials(path)) == list(range(N_TRIALS)) and open_nwb(path).end_time == END
    path = write(folder / "backward.nwb", random_spikes(), STARTS, intervals=[[[END, 0.0]]] * N_UNITS)
    with pytest.raises(DataError, match=r"unit 0: 1 of 1 stop before they start"):
        load_nwb_trials(path)
    intervals = np.array([[0, 1], [1, 2], [1.5, 1.7], [3, 4.0]])
    assert merge_intervals(intervals).tolist() == [[0, 2], [3, 4]]


def test_cue_times_within_the_trial_are_refused(folder):
    starts = STARTS + 100
    spikes = [t + 100 for t in random_spikes()]
    path = write(folder / "cue.nwb", spikes, starts, columns={"cue": np.full(N_TRIALS, 0.1)})
    with pytest.raises(DataError, match="cue lies far outside its trial for 20 of 20"):
        load_nwb_trials(path, align="cue", window_ms=(0, 100))


@pytest.mark.parametrize(
    "words", [("True", "False"), ("yes", "no"), ("held-out", "held-in"), (1.0, 0.0), (True, False)]
)
def test_yes_and_no_in_every_spelling(words):
    values = np.array([words[1], words[0], words[1]])
    assert read_yes_no(values, np.arange(3), "x").tolist() == [False, True, False]


@pytest.mark.parametrize("values", [[np.nan, 1.0], ["maybe", "yes"], [2, 0]])
def test_values_that_are_neither_yes_nor_no_are_refused(values):
    with pytest.raises(DataError, match=r"for unit 7.*write True or False"):
        read_yes_no(np.array(values), np.array([7, 8]), "x")


@pytest.mark.parametrize("words", [("False", "True"), (0, 1), (0.0, 1.0), (False, True)])
def test_flags_of_the_benchmark_in_every_spelling(words):
    """Text that says False is no outlier."""
    from neuro_lightning.data.nlb import reader as tensors

    flag = np.array([words[0], words[1], words[0]])
    columns = {"is_outlier": flag, "is_short": flag[::-1], "ts": np.array([480.0, 560.0, 640.0])}
    nwb = SimpleNamespace(path="a.nwb", trials={"id": np.arange(3)}, column=lambda name: columns[name])
    session = SimpleNamespace(nwb=nwb, params=SimpleNamespace(behavior_columns=("is_short", "ts")))
    windows = SimpleNamespace(row=np.array([0, 1, 2]))
    behavior = tensors._interval(session, windows)
    np.testing.assert_array_equal(behavior, [[0, 480], [np.nan, np.nan], [0, 640]])
    columns["is_outlier"] = np.array(["False", "maybe", "True"])
    with pytest.raises(DataError, match=r"a\.nwb: the trials' column 'is_outlier' is 'maybe' for trial 1 "):
        tensors._interval(session, windows)


def test_a_gap_in_any_channel_is_not_decoded():
    behavior = torch.zeros(10, 4, 2)
    behavior[3, 1, 1], behavior[4, 2, 0], behavior[5, 0, 1] = torch.nan, torch.nan, torch.inf
    left_out = [row[:2] for row in (decode_folds(behavior) < 0).nonzero().tolist()]
    assert left_out == [[3, 1], [4, 2], [5, 0]]


@pytest.mark.parametrize("channel", [0, 1])
def test_velocity_is_decoded_where_all_channels_are_known(folder, channel):
    """Gaps in one channel leave these bins out, and the score is that of the rest, whichever channel has them."""
    from neuro_lightning.data.dataset import TrialDataset
    from neuro_lightning.metrics.decoding import VelocityR2

    time = np.arange(0, END, 0.001)
    values = np.stack([np.sin(time), np.cos(time)], 1)
    for begin in range(50, len(time) - 60, 400):
        values[begin : begin + 50, channel] = np.nan
    path = write(folder / f"gap{channel}.nwb", random_spikes(), STARTS, series=(values, 1000.0))
    recording = load_nwb_trials(path, behavior="hand_vel")
    mix = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    metric, unknown = VelocityR2(3, 2), 0
    for part, update in (("train", metric.update_train), ("val", metric.update)):
        trials = recording.splits[part]
        batch = TrialDataset(trials, n_out=trials.heldout.shape[2], n_forward=0, evaluate=part == "val")[
            list(range(len(trials)))
        ]
        unknown += int(batch["behavior"].isnan().sum())
        update(batch["behavior"].nan_to_num() @ mix, batch["behavior"], batch["decode_fold"])
    assert unknown > 0 and float(metric.compute()) > 0.99


def test_repeated_and_paired_times_keep_their_values():
    times = np.repeat(np.arange(0, 0.4, 0.02), 2)
    for jitter in (0.0, 1e-6):
        paired = times + np.tile([0, jitter], 20)
        grid = binning.series_on_samples(Series(paired, paired[:, None], ("x",)), 380)
        assert np.isfinite(grid).all()
        np.testing.assert_allclose(grid[:, 0], np.arange(380) / 1000, atol=1e-4)


def test_duplicate_units_are_warned_of_and_dropped(folder):
    spikes = random_spikes()
    rng = np.random.default_rng(1)
    spikes[5] = np.sort(rng.choice(spikes[2], 120, replace=False) + rng.uniform(-1e-4, 1e-4, 120))
    path = write(folder / "twice.nwb", spikes, STARTS, ids=np.arange(N_UNITS) + 10)
    told = load_nwb_trials(path)
    assert len(told.unit_ids) == N_UNITS
    [line] = told.info["warnings"]
    assert "1 pairs of units share far more" in line and "12 and 15" in line
    assert sorted(load_nwb_trials(path, drop_duplicates=True).unit_ids.tolist()) == [10, 11, 12, 13, 14, 16, 17]


def test_units_that_burst_together_are_no_duplicates():
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 100, 60)
    spikes = [np.sort((centers[:, None] + rng.normal(0, 0.02, (60, 8))).ravel()) for _ in range(6)]
    assert plausible.duplicate_units(spikes) == []
    counts = rng.poisson(np.repeat(rng.gamma(1, 0.3, 3000)[:, None], 6, axis=1))
    assert plausible.duplicate_columns(counts) == []
    assert [pair[:2] for pair in plausible.duplicate_columns(np.c_[counts, counts[:, 1]])] == [(1, 6)]


def test_no_pair_of_a_chain_of_duplicates_is_kept():
    keep = plausible.keep_one_of_each_pair([(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)], np.array([5, 9, 9, 4]))
    assert keep.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("values", "step"),
    [([0, 5, 200], "5"), ([0, 1, 3], None), ([0, 6.6667, 20], "6.6667"), ([0, 0], None), ([0, 2], "2")],
)
def test_rates_are_not_counts(values, step):
    line = plausible.multiples_warning([np.array(values)])
    assert line is None if step is None else f"multiples of {step} " in line


def test_another_table_or_none(folder):
    import pynwb

    path = write(folder / "tables.nwb", random_spikes(), STARTS)
    with pynwb.NWBHDF5IO(str(path), "a") as io:
        nwb = io.read()
        table = pynwb.epoch.TimeIntervals("recognition_table", "inside a module")
        for start in STARTS[::2]:
            table.add_interval(start_time=start, stop_time=start + 0.2)
        nwb.create_processing_module("tables", "x").add(table)
        io.write(nwb)
    recording = load_nwb_trials(path, trials="recognition_table")
    assert len(rows(recording)) == 10 and recording.splits["train"].heldin.shape[1] == 40
    with pytest.raises(DataError, match=r"no table of intervals 'cues'; it has .*recognition_table.*continuous"):
        load_nwb_trials(path, trials="cues")
    windows = load_nwb_trials(path, trials="continuous", window_ms=(0, 250))
    total = sum(int(p.heldin.sum()) + int(p.heldout.sum()) for p in windows.splits.values())
    n = len(rows(windows))
    assert n == int((END - 0.1) / 0.25) + 0 or n == int(END / 0.25)
    assert total > 0.9 * 200 * N_UNITS * n * 0.25 / END and windows.info["warnings"] == []
    with pytest.raises(NeuroError, match=r"data\.window_ms=\[0,LENGTH\]"):
        load_nwb_trials(path, trials="continuous")


def test_a_clock_that_restarts_in_a_signal_and_events_out_of_order(folder):
    time = np.arange(0, END, 0.01)
    path = write(folder / "series.nwb", random_spikes(), STARTS, series=(np.zeros(len(time)), 100.0))

    def times(values):
        with h5py.File(path, "r+") as file:
            group = file["processing/behavior/hand_vel"]
            for name in ("starting_time", "timestamps"):
                if name in group:
                    del group[name]
            group["timestamps"] = values
            group["timestamps"].attrs.update({"interval": 1, "unit": "seconds"})
        return open_nwb(path)

    with pytest.raises(DataError, match="clock of series 'hand_vel' begins anew"):
        times(np.where(time < 4, time, time - 4)).read_series("hand_vel")
    shuffled = np.random.default_rng(0).permutation(time)
    nwb = times(shuffled)
    assert (np.diff(nwb.read_series("hand_vel").times) >= 0).all() and "run backwards" in nwb.warnings[0]
    with pytest.raises(DataError, match="no values in the trials' windows; its times are"):
        times(time + 1000)
        load_nwb_trials(path, behavior="hand_vel")


def test_files_that_are_whole_but_not_what_is_expected(folder):
    old, pointer, linked = (folder / f"{name}.nwb" for name in ("old", "pointer", "linked"))
    with h5py.File(old, "w") as file:
        file["nwb_version"] = "NWB-1.0.6"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    write(linked, random_spikes(), STARTS)
    with h5py.File(linked, "r+") as file:
        del file["units/spike_times"]
        file["units/spike_times"] = h5py.ExternalLink("raw.h5", "/spikes")
    for path, message in ((old, "NWB 1.x file"), (pointer, "pointer of git-annex"), (linked, "raw.h5, which is not")):
        with pytest.raises(DataError, match=message):
            open_nwb(path)
    locked = write(folder / "locked.nwb", random_spikes(), STARTS)
    from neuro_lightning.data.formats.unreadable import why_unreadable

    assert "locked" in why_unreadable(locked, BlockingIOError(11, "unable to lock file"))


def test_text_of_fixed_length_in_an_unused_column(folder):
    path = write(folder / "text.nwb", random_spikes(), STARTS, columns={"note": np.array(["x"] * N_TRIALS)})
    with h5py.File(path, "r+") as file:
        attributes = dict(file["intervals/trials/note"].attrs)
        del file["intervals/trials/note"]
        kind = h5py.string_dtype("utf-8", 8)
        file.create_dataset("intervals/trials/note", data=np.array(["é".encode()] * N_TRIALS, dtype=kind))
        file["intervals/trials/note"].attrs.update(attributes)
    assert open_nwb(path).column("note").tolist() == ["é"] * N_TRIALS


def test_damaged_values_give_the_same_or_plausible_data_or_one_line(folder):
    """Seeded: single values of any dataset are replaced by what files hold when something went wrong."""
    source = write(folder / "whole.nwb", random_spikes(), STARTS, intervals=[[[0.0, END]]] * N_UNITS,
                   heldout=[0, 1, 0, 0, 0, 1, 0, 0], series=(np.zeros((3000, 2)), 400.0))  # fmt: skip
    whole, path, outcomes = source.read_bytes(), folder / "fuzz.nwb", set()
    rng = np.random.default_rng(0)
    with h5py.File(source, "r") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if getattr(item, "shape", None) else None)
    for _ in range(14):
        path.write_bytes(whole)
        name = names[rng.integers(len(names))]
        with h5py.File(path, "r+") as file:
            data = file[name]
            place = tuple(int(rng.integers(n)) for n in data.shape)
            if data.dtype.kind in "fiu":
                odd = [np.nan, np.inf, -1e30, 1e30, 1e9, -5.0, 0.0] if data.dtype.kind == "f" else [0, 1, 127]
                data[place] = odd[rng.integers(len(odd))]
            else:
                del file[name]
        try:
            recording = load_nwb_trials(path, behavior="hand_vel")
        except NeuroError as error:
            assert "\n" not in str(error) and "fuzz.nwb" in str(error)
            outcomes.add("refused")
        else:
            assert recording.splits["train"].heldin.max() < 50 and len(recording.splits["val"])
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_rates_in_an_h5_are_warned_of(tmp_path):
    from neuro_lightning.data.lfads_h5.reader import load_lfads_h5

    counts = np.random.default_rng(0).poisson(1.0, (2, 12, 20, 8))
    for factor in (1, 5):
        with h5py.File(tmp_path / "rates.h5", "w") as file:
            file["train_data"], file["valid_data"] = factor * counts
        lines = load_lfads_h5(tmp_path / "rates.h5").info.get("warnings", [])
        assert any("multiples of 5 " in line for line in lines) == (factor == 5)
