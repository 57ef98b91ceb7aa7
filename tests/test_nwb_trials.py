"""Any NWB file as a recording: windows, held-out neurons, splits, behavior, and another file of the same neurons."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from nwb_trials import apply_split, load_nwb_trials

from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.errors import ConfigError, DataError

N_TRIALS, N_UNITS, TRIAL_S, GAP_S = 20, 8, 0.3, 0.1
STARTS = np.round(np.arange(N_TRIALS) * (TRIAL_S + GAP_S), 6)


def write(path, spikes, starts, *, stops=None, ids=None, columns=None, intervals=None, heldout=None, series=None):
    """A small NWB file, written by pynwb."""
    import pynwb

    nwb = pynwb.NWBFile("a test", path.stem, datetime(2020, 1, 1, tzinfo=UTC))
    stops = starts + TRIAL_S if stops is None else stops
    for name in columns or {}:
        nwb.add_trial_column(name, name)
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        row = {name: values[k] for name, values in (columns or {}).items()}
        nwb.add_trial(start_time=float(start), stop_time=float(stop), **row)
    if heldout is not None:
        nwb.add_unit_column("heldout", "heldout")
    for unit, times in enumerate(spikes):
        extra = {} if heldout is None else {"heldout": bool(heldout[unit])}
        if intervals is not None:
            extra["obs_intervals"] = intervals[unit]
        nwb.add_unit(spike_times=np.asarray(times), id=int(unit if ids is None else ids[unit]), **extra)
    if series is not None:
        data, rate = series
        item = pynwb.TimeSeries("hand_vel", data=data, unit="mm/s", rate=rate, starting_time=0.0)
        nwb.create_processing_module("behavior", "behavior").add(item)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def random_spikes(seed=0, n_units=N_UNITS, end=STARTS[-1] + TRIAL_S):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, end, 200)).round(5) for _ in range(n_units)]


INTERVALS = [[[0.0, STARTS[-1] + TRIAL_S]]] * N_UNITS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nwb")


@pytest.fixture(scope="module")
def plain(folder):
    return write(folder / "plain.nwb", random_spikes(), STARTS, ids=10 + np.arange(N_UNITS), intervals=INTERVALS)


@pytest.fixture(scope="module")
def rich(folder):
    """Held-out marks, a split column with all three splits, conditions, behavior, an event time with a gap."""
    cue = STARTS + 0.1
    cue[3] = np.nan
    columns = {
        "cue_time": cue,
        "split": np.array(["train", "val", "train", "train", "test"] * 4),
        "side": np.array(["left", "right"] * 10),
    }
    time = np.arange(0, STARTS[-1] + TRIAL_S, 0.001)
    return write(
        folder / "rich.nwb",
        random_spikes(1),
        STARTS,
        ids=np.arange(N_UNITS) * 3,
        columns=columns,
        heldout=[0, 1, 0, 0, 0, 1, 0, 0],
        series=(np.stack([time, -time], 1), 1000.0),
        intervals=INTERVALS,
    )


def brute_force(times, start_ms, n_bins, bin_ms):
    """Counts of one trial, spike by spike."""
    counts = np.zeros(n_bins, int)
    for t in times:
        sample = int(np.floor(round(t * 1000, 6))) - start_ms
        if 0 <= sample < n_bins * bin_ms:
            counts[sample // bin_ms] += 1
    return counts


def test_counts_equal_brute_force(plain):
    recording = load_nwb_trials(plain, bin_ms=10, window_ms=(20, 220), forward_ms=50)
    nwb = open_nwb(plain)
    spikes = dict(zip(nwb.unit_ids.tolist(), nwb.spike_times, strict=True))
    n_in = recording.splits["train"].heldin.shape[2]
    total = 0
    for part in recording.splits.values():
        assert part.heldin.shape[1:] == (20, 6) and part.heldout_forward.shape[1:] == (5, 2)
        for k, row in enumerate(part.row):
            for n, unit in enumerate(recording.unit_ids.tolist()):
                expected = brute_force(spikes[unit], round(STARTS[row] * 1000) + 20, 25, 10)
                seen, ahead, m = (
                    (part.heldin, part.heldin_forward, n)
                    if n < n_in
                    else (part.heldout, part.heldout_forward, n - n_in)
                )
                np.testing.assert_array_equal(np.concatenate([seen[k, :, m], ahead[k, :, m]]), expected)
                total += expected.sum()
    assert total > 100


def test_info_notes_when_windows_start(folder, plain):
    """A spike 5 ms after each trial's event stands in the bin that begins at 0 ms."""
    options = {"align": "go", "window_ms": (-200, 80), "bin_ms": 20, "heldout_fraction": 0.0}
    path = write(folder / "go.nwb", [STARTS + 0.205] * 2, STARTS, columns={"go": STARTS + 0.2})
    found = load_nwb_trials(path, **options)
    assert found.info["window"] == {"start_ms": -200, "align": "go"}
    (bins,) = {tuple(np.flatnonzero(trial)) for trial in found.splits["train"].heldin[:, :, 0]}
    assert [found.info["window"]["start_ms"] + k * found.bin_ms for k in bins] == [0]
    assert apply_split(path, found.info).info["window"] == found.info["window"]
    assert load_nwb_trials(plain).info["window"] == {"start_ms": 0, "align": "start_time"}
    continuous = load_nwb_trials(plain, trials="continuous", window_ms=(0, 300))
    assert continuous.info["window"] == {}


def test_split_and_heldout_are_seeded_disjoint_and_noted(plain):
    one, again, other = (load_nwb_trials(plain, seed=seed) for seed in (3, 3, 4))
    assert one.info == again.info and one.info["rows"] != other.info["rows"]
    assert any(load_nwb_trials(plain, seed=s).info["heldout_units"] != one.info["heldout_units"] for s in range(4, 8))
    rows = one.info["rows"]
    assert sorted(rows["train"] + rows["val"]) == list(range(N_TRIALS)) and len(rows["val"]) == 5
    assert rows["train"] == sorted(rows["train"]) == one.splits["train"].row.tolist()
    assert sorted(one.info["heldin_units"] + one.info["heldout_units"]) == list(range(10, 18))
    assert one.unit_ids.tolist() == one.info["heldin_units"] + one.info["heldout_units"]
    assert json.loads(json.dumps(one.info))["heldout_units"] == one.info["heldout_units"]


def test_chronological_split(plain):
    rows = load_nwb_trials(plain, split="chronological", val_fraction=0.2).info["rows"]
    assert rows["val"] == [16, 17, 18, 19] and rows["train"] == list(range(16))


def test_the_files_own_marks_are_used(rich):
    recording = load_nwb_trials(rich)
    assert recording.info["heldout_units"] == [3, 15]
    assert {name: len(part) for name, part in recording.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert recording.splits["val"].row.tolist() == [1, 6, 11, 16]
    assert "test" not in load_nwb_trials(rich, split="random").splits


def test_default_window_is_the_shortest_trial(folder, plain):
    assert load_nwb_trials(plain).splits["train"].heldin.shape[1] == 60
    assert load_nwb_trials(plain, forward_ms=100).splits["train"].heldin.shape[1] == 40
    stops = STARTS + TRIAL_S
    stops[7] -= 0.107
    path = write(folder / "short.nwb", random_spikes(), STARTS, stops=stops)
    assert load_nwb_trials(path).splits["train"].heldin.shape[1] == 38  # 193 ms


def test_behavior_is_the_series_at_the_bins_with_lag(rich):
    recording = load_nwb_trials(rich, behavior="hand_vel", lag_ms=40, bin_ms=5, window_ms=(0, 200))
    part = recording.splits["train"]
    expected = STARTS[part.row][:, None] + 0.04 + np.arange(40) * 0.005
    inside = slice(2, -3)  # the filter's ends see the recording's ends
    np.testing.assert_allclose(part.behavior[inside, :, 0], expected[inside], atol=2e-3)
    np.testing.assert_allclose(part.behavior[inside, :, 1], -expected[inside], atol=2e-3)
    assert recording.behavior_kind == "velocity"


def test_conditions_and_trials_without_alignment(rich):
    recording = load_nwb_trials(rich, align="cue_time", window_ms=(-50, 100), conditions=["side"])
    assert ["1 of 20 trials are left out" in line for line in recording.info["warnings"]] == [True]
    assert 3 not in recording.splits["train"].row and recording.info["dropped"] == 1
    for part in recording.splits.values():
        np.testing.assert_array_equal(part.condition, part.row % 2)
    assert recording.info["condition_values"] == [["left"], ["right"]]


def test_windows_outside_the_recording_are_dropped_or_an_error(plain):
    recording = load_nwb_trials(plain, window_ms=(-100, 100))
    assert ["1 of 20 trials" in line for line in recording.info["warnings"]] == [True]
    assert all(0 not in part.row for part in recording.splits.values())
    with pytest.raises(DataError, match=r"no trial's window.*data\.window_ms"):
        load_nwb_trials(plain, window_ms=(9000, 9100))


def test_trials_that_the_bins_alone_lose_are_told(folder):
    """Windows as long as the observed time fit where bins begin with them: in every third trial with bins of 30 ms."""
    spans = [np.stack([STARTS, STARTS + TRIAL_S], 1)] * N_UNITS
    path = write(folder / "spans.nwb", random_spikes(), STARTS, intervals=spans)

    def left_out(bin_ms, *window_ms):
        found = load_nwb_trials(path, bin_ms=bin_ms, window_ms=list(window_ms)).info["warnings"]
        return " ".join(line for line in found if "left out" in line)

    assert left_out(20, 0, 300) == ""
    assert re.search("13 of 20 trials are .* known; 13 of them are lost to data.bin_ms=30 alone", left_out(30, 0, 300))
    assert left_out(30, 0, 270) == "", "as the line says: a window shorter by a bin keeps them"
    path = write(folder / "plain_spans.nwb", random_spikes(), STARTS, intervals=INTERVALS)
    assert "1 of 20 trials" in (line := left_out(30, -30, 270)) and "alone" not in line, "the window was not recorded"


def test_unobserved_time_of_any_unit_drops_the_trial(folder):
    intervals = [[[s, s + TRIAL_S] for s in STARTS]] * (N_UNITS - 1)
    intervals.append([[s, s + TRIAL_S - (0.05 if k == 4 else 0)] for k, s in enumerate(STARTS)])
    path = write(folder / "gaps.nwb", random_spikes(), STARTS, intervals=intervals)
    kept = load_nwb_trials(path).info["rows"]
    assert sorted(kept["train"] + kept["val"]) == [k for k in range(N_TRIALS) if k != 4]
    kept = load_nwb_trials(path, units=range(N_UNITS - 1)).info["rows"]
    assert len(kept["train"] + kept["val"]) == N_TRIALS


def test_silent_units_stay_held_in(folder):
    spikes = random_spikes()
    silent = [0, 2, 3, 5, 7]
    for unit in silent:
        spikes[unit] = np.array([])
    path = write(folder / "silent.nwb", spikes, STARTS)
    for seed in range(5):
        assert not set(load_nwb_trials(path, seed=seed).info["heldout_units"]) & set(silent)
    with pytest.raises(DataError, match="8 units, 3 of them active"):
        load_nwb_trials(path, heldout_fraction=0.5)


def test_held_out_units_do_not_depend_on_validation_spikes(folder):
    """A unit that fires in validation trials alone counts as silent: looking there would be choosing by the labels."""
    spikes = random_spikes()
    last = STARTS[15]  # with a chronological quarter, the trials from here on validate
    quiet = range(4)
    for unit in quiet:
        spikes[unit] = spikes[unit][spikes[unit] > last]
    path = write(folder / "late.nwb", spikes, STARTS, intervals=INTERVALS)
    for seed in range(5):
        options = {"split": "chronological", "val_fraction": 0.25, "heldout_fraction": 0.5, "seed": seed}
        info = load_nwb_trials(path, **options).info
        assert info["rows"]["val"] == list(range(15, 20))
        assert not set(quiet) & set(info["heldout_units"])


def test_chosen_units_and_none_held_out(plain):
    recording = load_nwb_trials(plain, units=[17, 11, 12], heldout_fraction=0)
    assert recording.unit_ids.tolist() == [11, 12, 17] and recording.splits["train"].heldout is None


def test_a_file_without_val_column_is_split_at_random(folder):
    path = write(folder / "test.nwb", random_spikes(), STARTS, columns={"split": np.array(["test"] * N_TRIALS)})
    assert len(load_nwb_trials(path).splits["val"]) == 5
    with pytest.raises(DataError, match=r"split column needs train and val, but has test.*data\.split=random"):
        load_nwb_trials(path, split="column")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"align": "go_time"}, DataError, r"no column 'go_time'; it has id, start_time, stop_time"),
        ({"split": "column"}, DataError, "no column 'split'"),
        ({"conditions": ["side"]}, DataError, "no column 'side'"),
        ({"window_ms": (0, 4)}, DataError, "shorter than a bin of 5 ms"),
        ({"forward_ms": 300}, DataError, r"shorter than a bin.*data\.window_ms"),
        ({"val_fraction": 0.99}, DataError, "20 usable trials, too few"),
        ({"heldout_fraction": 0.97}, DataError, "too few to hold out 8"),
        ({"behavior": "finger_vel"}, DataError, "no series 'finger_vel'"),
        ({"units": [11, 99]}, DataError, r"no units 99 \(data\.units\); it has 10, 11"),
        ({"units": []}, DataError, r"data\.units names no unit"),
        ({"split": "sometimes"}, ConfigError, r"data\.split must be one of .*chronological.*not 'sometimes'"),
        ({"bin_ms": 0}, ConfigError, r"data\.bin_ms must be a whole number from 1 on, not 0"),
        ({"forward_ms": 7}, ConfigError, r"data\.forward_ms=7"),
        ({"val_fraction": 0}, ConfigError, r"data\.val_fraction must be above 0 and below 1, not 0"),
        ({"heldout_fraction": 1}, ConfigError, r"data\.heldout_fraction must be at least 0 and below 1, not 1"),
        ({"window_ms": (5,)}, ConfigError, r"data\.window_ms"),
    ],
)
def test_errors_say_what_to_mend(plain, options, error, message):
    with pytest.raises(error, match=message):
        load_nwb_trials(plain, **options)


def test_text_in_the_align_column_repeated_ids_and_all_units_held_out_are_refused(folder, rich):
    with pytest.raises(DataError, match="'side' holds no times"):
        load_nwb_trials(rich, align="side")
    twice = write(folder / "twice.nwb", random_spikes(), STARTS, ids=[1, 1, 2, 3, 4, 5, 6, 7])
    with pytest.raises(DataError, match="more than one unit has the id 1"):
        load_nwb_trials(twice)
    hidden = write(folder / "hidden.nwb", random_spikes(), STARTS, heldout=[1] * N_UNITS)
    with pytest.raises(DataError, match="all 8 units are marked"):
        load_nwb_trials(hidden)
    lone = write(folder / "lone.nwb", random_spikes(), STARTS[:1])
    with pytest.raises(DataError, match="1 usable trials"):
        load_nwb_trials(lone)


def test_another_file_with_units_in_another_order(folder, rich):
    """The same spikes, units shuffled and a stranger among them: the trained order comes back."""
    trained = load_nwb_trials(rich, window_ms=(0, 250), behavior="hand_vel", conditions=["side"])
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    spikes, ids = [random_spikes(1)[k] for k in order], (order * 3).tolist()
    path = write(folder / "other.nwb", [*spikes, np.array([0.1])], STARTS, ids=[*ids, 99])
    saved = json.loads(json.dumps(trained.info))  # as it comes out of a checkpoint
    other = apply_split(path, saved)
    test = other.splits["test"]
    assert list(other.splits) == ["test"] and len(test) == N_TRIALS
    assert other.unit_ids.tolist() == trained.unit_ids.tolist()
    for part in trained.splits.values():
        np.testing.assert_array_equal(test.heldin[part.row], part.heldin)
        np.testing.assert_array_equal(test.heldout[part.row], part.heldout)
    assert test.behavior is None and test.condition is None and other.behavior_kind == "none"
    same = apply_split(rich, saved).splits["test"]
    assert same.behavior.shape == (N_TRIALS, 50, 2)
    np.testing.assert_array_equal(same.condition, same.row % 2)


def test_another_file_without_the_held_out_units(folder, plain):
    trained = load_nwb_trials(plain)
    keep = [unit - 10 for unit in trained.info["heldin_units"]]
    spikes = random_spikes()
    path = write(folder / "heldin.nwb", [spikes[k] for k in keep], STARTS, ids=[k + 10 for k in keep])
    other = apply_split(path, trained.info)
    assert other.splits["test"].heldout is None and len(other.unit_ids) == N_UNITS
    path = write(folder / "fewer.nwb", [spikes[k] for k in keep[1:]], STARTS, ids=[k + 10 for k in keep[1:]])
    with pytest.raises(DataError, match=rf"lacks 1 of the 6 units.*\({keep[0] + 10}\).*data\.path"):
        apply_split(path, trained.info)


# ---- the real files


def real(shared_data, name):
    (path,) = (shared_data / "nlb" / name).glob("*.nwb")
    return path


@pytest.mark.parametrize(
    ("name", "trials", "units", "spikes"),
    [("mc_maze_430", 430, 137, 172_310), ("mc_maze_medium", 100, 114, 32_324), ("mc_maze_small", 100, 107, 32_897)],
)
def test_real_files_are_whole(shared_data, name, trials, units, spikes):
    recording = load_nwb_trials(real(shared_data, name))
    parts = recording.splits.values()
    assert sum(len(part) for part in parts) == trials and len(recording.unit_ids) == units
    assert {part.heldin.shape[1] for part in parts} == {140}
    assert sum(int(part.heldin.sum()) + int(part.heldout.sum()) for part in parts) == spikes
    assert not recording.simulated and len(recording.sources[0]["sha256"]) == 64
    assert recording.info["warnings"] == []


def test_predict_on_a_part_of_the_real_recording_and_refuse_another(shared_data, folder):
    source = real(shared_data, "mc_maze_430")
    trained = load_nwb_trials(source)
    nwb = open_nwb(source)
    start, stop = nwb.trials["start_time"][100:130], nwb.trials["stop_time"][100:130]
    spikes = [t[(t >= start[0]) & (t < stop[-1])] - start[0] for t in nwb.spike_times]
    intervals = [[[0.0, stop[-1] - start[0]]]] * len(spikes)
    path = write(
        folder / "part.nwb", spikes, start - start[0], stops=stop - start[0], ids=nwb.unit_ids, intervals=intervals
    )
    other = apply_split(path, trained.info).splits["test"]
    assert other.heldin.shape == (30, 140, 103) and other.heldout.shape == (30, 140, 34)
    checked = 0
    for part in trained.splits.values():
        for k, row in enumerate(part.row):
            if 100 <= row < 130:
                np.testing.assert_array_equal(other.heldin[row - 100], part.heldin[k])
                np.testing.assert_array_equal(other.heldout[row - 100], part.heldout[k])
                checked += 1
    assert checked == 30
    with pytest.raises(DataError, match=r"lacks \d+ of the 103 units.*same neurons"):
        apply_split(real(shared_data, "mc_maze_small"), trained.info)
