"""Trials of brainsets files: windows, masks, behavior and splits against temporaldata's own slices."""

from functools import partial

import h5py
import numpy as np
import pytest
import temporaldata as td
from brainset_files import (
    END,
    IDS,
    N_TRIALS,
    N_UNITS,
    ONCE,
    PAUSE,
    SILENT,
    STARTS,
    parts,
    spike_times,
    spikes_of,
    write,
)

from neuro_lightning.data.formats.brainset import open_brainset
from neuro_lightning.data.identity import identify
from neuro_lightning.data.same_data import find_training_trials
from neuro_lightning.data.spike_trials import trials
from neuro_lightning.errors import ConfigError, DataError

BIN = 10
WHOLE = {"heldout_fraction": 0, "split": "random"}


def load(path, table=None, **options):
    options = {"bin_ms": BIN, **options}
    return trials.load_trials(partial(open_brainset, path), name="brainset", trials=table, **options)


def everything(recording):
    """All splits' trials by their row: counts with held-out neurons after the others, what was observed, behavior."""
    found = {}
    for part in recording.splits.values():
        counts = part.heldin if part.heldout is None else np.concatenate([part.heldin, part.heldout], axis=2)
        for k, row in enumerate(part.row.tolist()):
            found[row] = (counts[k], None if part.observed is None else part.observed[k],
                          None if part.behavior is None else part.behavior[k])  # fmt: skip
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("brainset") / "awkward.h5", parts())


@pytest.fixture(scope="module")
def data(file):
    with h5py.File(file) as opened:
        return td.Data.from_hdf5(opened, lazy=False)


def changed(tmp_path, **changes):
    return write(tmp_path / "changed.h5", {**parts(), **changes})


def first_bin_s(times, offset_ms):
    """Where the first bin begins that is not before a time, s."""
    return np.ceil(np.round((times * 1000 + offset_ms) / BIN, 6)) * BIN / 1000


def sliced_counts(data, start, n_bins, ids):
    """(n_bins, N) counts of a window, by a slice."""
    part = data.slice(start, start + n_bins * BIN / 1000)
    counts = np.zeros((n_bins, len(ids)), int)
    place = {name: k for k, name in enumerate(ids)}
    for time, unit in zip(part.spikes.timestamps, part.spikes.unit_index, strict=True):
        counts[int(np.floor(time * 1000 / BIN)), place[part.units.id[unit]]] += 1
    return counts


def in_domain(data, start, stop):
    return any(a - 1e-9 <= start and stop <= b + 1e-9 for a, b in data.domain)


CUTS = [
    ("trials", {"window_ms": (0, 400)}, lambda d: d.trials.start, 0),
    ("trials", {"align": "cue_time", "window_ms": (-50, 250)}, lambda d: d.trials.cue_time, -50),
    ("phases.reach", {}, lambda d: d.phases.reach.start, 0),
    ("trials", {"heldout_fraction": 0.25, "window_ms": (0, 400), "min_spikes": 2}, lambda d: d.trials.start, 0),
]


@pytest.mark.parametrize(("table", "options", "events", "offset"), CUTS)
def test_windows_hold_what_a_slice_holds(file, data, table, options, events, offset):
    recording = load(file, table, **{**WHOLE, **options})
    found, ids = everything(recording), recording.unit_ids.tolist()
    assert sorted(ids) == sorted(IDS)
    n_bins = next(iter(found.values()))[0].shape[0]
    starts = first_bin_s(events(data), offset)
    expected = [k for k, s in enumerate(starts) if np.isfinite(s) and in_domain(data, s, s + n_bins * BIN / 1000)]
    assert (sorted(found) == expected and 0 < len(expected) < len(starts)) or table != "trials"
    rows, times = recording.info["times"]
    np.testing.assert_array_equal(times, events(data)[rows])
    total = 0
    for row in expected:
        counts = sliced_counts(data, starts[row], n_bins, ids)
        np.testing.assert_array_equal(found[row][0], counts)
        total += counts.sum()
    assert total > 50
    by_unit = sum(counts for counts, *_ in found.values()).sum(0)
    assert by_unit[ids.index(IDS[SILENT])] == 0 and by_unit[ids.index(IDS[ONCE])] <= 1
    assert not {IDS[SILENT], IDS[ONCE]} & set(recording.info["heldout_units"])


def test_whole_trials_are_masked_after_their_ends(file, data):
    ends = STARTS + 0.4 + 0.01 * (np.arange(N_TRIALS) % 4)
    path = write(file.parent / "unequal.h5", {**parts(), "trials": td.Interval(start=STARTS, end=ends)})
    recording = load(path, "trials", window_ms="trial", **WHOLE)
    found, start = everything(recording), first_bin_s(STARTS, 0)
    n_bins = np.floor(np.round((ends - start) * 1000 / BIN, 6)).astype(int)
    assert len(np.unique(n_bins)) > 1
    for row, (counts, observed, _) in found.items():
        np.testing.assert_array_equal(observed.all(1), np.arange(len(counts)) < n_bins[row])
        np.testing.assert_array_equal(observed.any(1), observed.all(1))
        expected = sliced_counts(data, start[row], n_bins[row], recording.unit_ids.tolist())
        np.testing.assert_array_equal(counts[: n_bins[row]], expected)
        assert not counts[n_bins[row] :].any()
    assert N_TRIALS - 1 not in found, "the recording ends in the last trial"


def test_a_trial_across_the_gap_is_kept_where_it_was_recorded(file, data):
    options = {"window_ms": (0, 500), **WHOLE}
    found = everything(load(file, "trials", partial_units=True, **options))
    across = [k for k, s in enumerate(first_bin_s(STARTS, 0)) if any(s < edge < s + 0.5 for edge in (*PAUSE, END))]
    assert len(across) == 3 and not set(across) & set(everything(load(file, "trials", **options)))
    for row, (counts, observed, _) in found.items():
        at = first_bin_s(STARTS, 0)[row] + np.arange(50) * BIN / 1000
        recorded = [in_domain(data, a, a + BIN / 1000) for a in at.round(3)]
        np.testing.assert_array_equal(observed, np.repeat(np.array(recorded)[:, None], N_UNITS, 1))
        assert not counts[~observed].any() and (row in across) == (not all(recorded))


def test_consecutive_windows_go_through_the_domain(file, data, tmp_path):
    recording = load(file, "continuous", window_ms=(0, 500), **WHOLE)
    rows, times = recording.info["times"]
    expected = [*np.arange(0, 7, 0.5), *np.arange(9, 13, 0.5)]
    assert sorted(times) == expected and recording.info["window"] == {}
    found = everything(recording)
    for row, time in zip(rows, times, strict=True):
        expected = sliced_counts(data, time, 50, recording.unit_ids.tolist())
        np.testing.assert_array_equal(found[row][0], expected)
    without = load(changed(tmp_path, trials=None), **WHOLE)
    assert len(everything(without)) == 11 and "it has no trials: windows of 1000 ms" in without.info["warnings"][0]


def test_behavior_is_interpolated_in_its_domain_and_unknown_elsewhere(file, data):
    options = {"bin_ms": 1, "window_ms": (0, 400), "behavior": ["wheel.vel", "cursor.pos"], **WHOLE}
    recording = load(file, "trials", **options)
    known_rows = 0
    for row, (*_, behavior) in everything(recording).items():
        at = np.round(STARTS[row] + np.arange(400) / 1000, 3)
        assert behavior.shape == (400, 4)
        for channels, series, field, end in (
            (slice(0, 2), data.wheel, "vel", 499 / 50), (slice(2, 4), data.cursor, "pos", END),
        ):  # fmt: skip
            expected = np.stack([np.interp(at, series.timestamps, v) for v in getattr(series, field).T], 1)
            known = at <= end + 1e-9 if field == "vel" else at <= series.timestamps[-1] + 1e-9
            np.testing.assert_array_equal(np.isfinite(behavior[:, channels]).all(1), known)
            np.testing.assert_allclose(behavior[known, channels], expected[known], atol=1e-9)
            known_rows += int(known.any())
    assert known_rows > 20 and any("'wheel.vel' is known in" in line for line in recording.info["warnings"])
    lines = [line for line in recording.info["warnings"] if "cursor.pos" in line]
    assert not lines
    assert load(file, "trials", **{**options, "behavior": "raw"}).splits["train"].behavior.shape[2] == 1
    late = STARTS[N_TRIALS - 3 :]
    with pytest.raises(DataError, match=r"'wheel\.vel' has no values in the trials' windows"):
        path = write(file.parent / "late.h5", {**parts(), "trials": td.Interval(start=late, end=late + 0.4)})
        load(path, "trials", behavior="wheel.vel", **WHOLE)
    with pytest.raises(DataError, match=r"has no series 'wheel\.torque'; it has "):
        load(file, "trials", behavior="wheel.torque", **WHOLE)


def test_a_trial_is_of_the_split_that_contains_its_whole_window(file, data):
    recording = load(file, "trials", window_ms=(0, 400), forward_ms=50)
    start, stop = first_bin_s(STARTS, 0), first_bin_s(STARTS, 0) + 0.45
    rows = recording.info["rows"]
    for name, domain in (("train", data.train_domain), ("val", data.valid_domain), ("test", data.test_domain)):
        within = [k for k in range(N_TRIALS) if in_domain(data, start[k], stop[k])
                  and any(a <= start[k] and stop[k] <= b + 1e-9 for a, b in domain)]  # fmt: skip
        assert rows[name] == within and within
    (line,) = [line for line in recording.info["warnings"] if "across an edge" in line]
    outside = N_TRIALS - recording.info["dropped"] - sum(map(len, rows.values()))
    assert outside == 1 and f"{outside} of {N_TRIALS - recording.info['dropped']} trials" in line
    assert "test" not in load(file, "trials", window_ms=(0, 400), split="random").splits


def test_an_edge_is_exact(tmp_path):
    starts = np.arange(N_TRIALS) * 0.25
    table = td.Interval(start=starts, end=starts + 0.2)
    edges = {"train_domain": td.Interval(start=np.array([0.0]), end=np.array([3.2])),
             "val_domain": td.Interval(start=np.array([3.25]), end=np.array([6.0])),
             "valid_domain": None, "test_domain": None}  # fmt: skip
    path = changed(tmp_path, trials=table, domain=td.Interval(start=0.0, end=END), **edges)
    rows = load(path, "trials", window_ms=(0, 200)).info["rows"]
    assert rows == {"train": list(range(13)), "val": list(range(13, 24))}
    edges["train_domain"] = td.Interval(start=np.array([0.0]), end=np.array([3.199]))
    rows = load(changed(tmp_path, trials=table, domain=td.Interval(start=0.0, end=END), **edges), "trials",
                window_ms=(0, 200)).info["rows"]  # fmt: skip
    assert rows["train"] == list(range(12))


def test_other_names_of_domains_and_missing_ones(tmp_path):
    own = {name.replace("_domain", "_own"): value for name, value in parts().items() if "domain" in name}
    content = {"train_domain": None, "valid_domain": None, **own, "domain": parts()["domain"]}
    path = changed(tmp_path, **content)
    assert set(load(path, "trials", domains="*_own", window_ms=(0, 400)).splits) == {"train", "val", "test"}
    found = load(path, "trials", window_ms=(0, 400))
    assert set(found.splits) == {"train", "val"}
    assert (
        "has no train_domain and no val_domain or valid_domain or validation_domain, so that test_domain"
        in " ".join(found.info["warnings"])
    )
    with pytest.raises(DataError, match=r"has no train_domain.*data\.split=domain cannot be.*train_own"):
        load(path, "trials", split="domain", window_ms=(0, 400))
    with pytest.raises(DataError, match=r"no trial's window lies inside train_own"):
        load(path, "trials", domains="*_own", align="cue_time", window_ms=(-5000, 1000))
    with pytest.raises(ConfigError, match=r"data\.domains=ts2"):
        load(path, "trials", domains="ts2")
    with pytest.raises(DataError, match=r"no column 'choise'; it has id, "):
        load(path, "trials", domains="*_own", align="choise")
    with pytest.raises(DataError, match=r"'choice' holds no times"):
        load(path, "trials", domains="*_own", align="choice", window_ms=(0, 100))
    with pytest.raises(DataError, match=r"has no units probe9/unit 1 \(data\.units\); it has probe0/unit 0"):
        load(path, "trials", domains="*_own", units=["probe9/unit 1"])
    assert load(path, "trials", domains="*_own", units=IDS[:4].tolist()).unit_ids.dtype.kind == "U"


def poisoned(content, unit=None, times=None):
    """The content with twenty spikes more of some units in some times (start, stop)."""
    rng = np.random.default_rng(5)
    spikes = spike_times()
    for k in range(N_UNITS) if unit is None else unit:
        more = rng.uniform(*(times or (0.0, PAUSE[0])), 20)
        spikes[k] = np.sort(np.concatenate([spikes[k], more]))
    return {**content, "spikes": spikes_of(spikes)}


def test_held_out_units_and_later_splits_reach_no_input(tmp_path, file):
    options = {"window_ms": (0, 400), "heldout_fraction": 0.25}
    plain = load(file, "trials", **options)
    heldout = [IDS.tolist().index(name) for name in plain.info["heldout_units"]]
    other = load(write(tmp_path / "a.h5", poisoned(parts(), heldout)), "trials", **options)
    assert other.info["heldout_units"] == plain.info["heldout_units"]
    for split, part in plain.splits.items():
        np.testing.assert_array_equal(part.heldin, other.splits[split].heldin)
    assert any((part.heldout != other.splits[split].heldout).any() for split, part in plain.splits.items())
    later = load(write(tmp_path / "b.h5", poisoned(parts(), times=(4.0, 7.0))), "trials", **options)
    assert later.info["heldout_units"] == plain.info["heldout_units"]
    for name in ("heldin", "heldout"):
        np.testing.assert_array_equal(getattr(plain.splits["train"], name), getattr(later.splits["train"], name))
    assert (plain.splits["val"].heldin != later.splits["val"].heldin).any()


def test_another_file_is_cut_as_the_first_by_the_names_of_units(tmp_path, file):
    options = {"heldout_fraction": 0.25, "behavior": "wheel.vel", "conditions": ["choice"]}
    trained = load(file, "trials", window_ms=(0, 400), **options)
    order = np.random.default_rng(3).permutation(N_UNITS)
    times = spike_times(1)
    content = {**parts(1), "units": td.ArrayDict(id=IDS[order]), "spikes": spikes_of([times[k] for k in order])}
    path = write(tmp_path / "other.h5", {**content, "wheel": None})
    other = trials.apply_split(partial(open_brainset, path), trained.info, name="brainset")
    assert other.unit_ids.tolist() == trained.unit_ids.tolist() and other.splits["test"].behavior is None
    straight = load(write(tmp_path / "straight.h5", parts(1)), "trials", window_ms=(0, 400), **WHOLE)
    place = [straight.unit_ids.tolist().index(name) for name in other.unit_ids]
    mine, theirs = everything(other), everything(straight)
    assert set(mine) == set(theirs)
    for row, (counts, *_) in mine.items():
        np.testing.assert_array_equal(counts, theirs[row][0][:, place])
    units = td.ArrayDict(id=np.array([*IDS[:-1], "stranger"]))
    lacking = write(tmp_path / "lacking.h5", {**parts(), "units": units})
    with pytest.raises(DataError, match=r"lacks 1 of the .*\(probe1/unit 7\)"):
        trials.apply_split(partial(open_brainset, lacking), load(file, "trials", **WHOLE).info, name="brainset")


def test_two_parts_of_a_session_are_compared_by_their_time_in_it(tmp_path, file, data):
    """A training trial is found again in a slice whose clock begins anew."""
    with h5py.File(tmp_path / "part.h5", "w") as opened:
        data.slice(9.0, END).to_hdf5(opened)
    options = {"window_ms": (0, 400), **WHOLE}
    whole, part = load(file, "trials", **options), load(tmp_path / "part.h5", "trials", **options)
    np.testing.assert_allclose(part.info["times"][1], STARTS[17:23])
    mine, theirs = identify(whole, {}), identify(part, {})
    for trial in theirs["trials"].values():
        trial["keys"][:] = 0  # by times alone
    seen = np.concatenate([find_training_trials(mine, ["train", "val"], theirs, split) for split in theirs["trials"]])
    assert seen.all() and len(seen) > 4


def mat_trials(starts, lengths):
    return td.Interval(start=starts, end=starts + lengths)


def pipeline(name):
    """The layout that one of torch_brain's pipelines writes, small."""
    rng = np.random.default_rng(1)
    starts, lengths = np.arange(20) * 1.3 + 0.2, rng.uniform(0.8, 1.1, 20).round(3)
    trial = mat_trials(starts, lengths)
    end = float(starts[-1] + 2)
    times = [np.sort(rng.uniform(0.05, end - 0.05, 300)) for _ in range(6)]
    edges = np.linspace(0, end, 11)
    tenths = [td.Interval(start=edges[k:][:1], end=edges[k + 1 :][:1]) for k in range(10)]
    blocks = {"train_domain": td.Interval(start=edges[:8], end=edges[1:9]), "valid_domain": tenths[8],
              "test_domain": tenths[9]}  # fmt: skip
    by_trials = dict(zip(("train_domain", "valid_domain", "test_domain"),
                         trial.split([0.6, 0.2, 0.2], shuffle=True, random_seed=42), strict=True))  # fmt: skip
    ids = {"id": np.array([f"group_1/elec{k}/unit_{k}" for k in range(6)]), "unit_number": np.arange(6)}
    t = np.arange(0, end, 0.01)
    cursor = td.IrregularTimeSeries(timestamps=t, vel=np.stack([np.sin(t), np.cos(t)], 1), domain="auto")
    if name == "pei":
        joined = np.concatenate(times)
        auto = td.Interval(start=float(joined.min()), end=float(joined.max()))
        hand = td.RegularTimeSeries(sampling_rate=1000.0, domain_start=0.0, vel=rng.normal(size=(round(end * 1000), 2)))
        return {"units": td.ArrayDict(**ids), "spikes": spikes_of(times, auto), "trials": trial, "hand": hand,
                "domain": auto | trial, **by_trials}, "hand.vel"  # fmt: skip
    if name == "perich":
        held = by_trials["valid_domain"] | by_trials["test_domain"]
        phases = td.Data(reach_period=trial, random_period=cursor.domain.difference(trial), domain="auto")
        return {"units": td.ArrayDict(**ids), "spikes": spikes_of(times, cursor.domain), "trials": trial,
                "cursor": cursor, "movement_phases": phases, "domain": cursor.domain, **by_trials,
                "train_domain": cursor.domain.difference(held.dilate(0.05))}, "cursor.vel"  # fmt: skip
    if name == "churchland":
        inside = [np.concatenate([u[(u >= a) & (u < b)] for a, b in trial]) for u in times]
        return {"units": td.ArrayDict(**ids), "spikes": spikes_of(inside, trial), "trials": trial, "cursor": cursor,
                "domain": cursor.domain | trial, **by_trials}, "cursor.vel"  # fmt: skip
    if name == "odoherty":
        units = td.ArrayDict(**ids, average_waveform=np.zeros((6, 48)))
        spikes = spikes_of(times, cursor.domain, waveforms=np.zeros((sum(map(len, times)), 48)))
        return {"units": units, "spikes": spikes, "cursor": cursor, "domain": cursor.domain, **blocks}, "cursor.vel"
    if name == "flint":
        inside = [np.concatenate([u[(u >= a) & (u < b)] for a, b in trial]) for u in times]
        joined = np.sort(np.concatenate(inside))
        cut = [joined[(joined >= a) & (joined < b)] for a, b in trial]
        own = td.Interval(start=np.array([c[0] for c in cut]), end=np.array([c[-1] for c in cut]))
        at = np.concatenate([np.arange(a, b, 0.1) for a, b in trial])
        hand = td.IrregularTimeSeries(timestamps=at, vel=rng.normal(size=(len(at), 2)), domain=trial)
        return {"units": td.ArrayDict(**ids), "spikes": spikes_of(inside, own), "trials": trial, "hand": hand,
                "domain": trial, **by_trials}, "hand.vel"  # fmt: skip
    stretches = mat_trials(np.arange(14) * 2.0, np.full(14, 1.7))
    inside = [np.concatenate([u[(u >= a) & (u < b)] for a, b in stretches]) for u in times]
    split = dict(zip(by_trials, stretches.split([0.6, 0.2, 0.2], shuffle=True, random_seed=42), strict=True))
    return {"units": td.ArrayDict(id=ids["id"], location=np.repeat(["mec", "hc"], 3)), "domain": stretches,
            "spikes": spikes_of(inside, stretches), **split}, None  # fmt: skip


@pytest.mark.parametrize("name", ["pei", "perich", "churchland", "odoherty", "flint", "vollan"])
def test_each_pipelines_layout_opens_without_a_word_more(tmp_path, name):
    content, behavior = pipeline(name)
    path = write(tmp_path / f"{name}.h5", content)
    recording = load(path, bin_ms=20, behavior=behavior)
    sizes = {split: len(part) for split, part in recording.splits.items()}
    assert set(sizes) == {"train", "val", "test"} and sum(sizes.values()) >= (12 if name != "vollan" else 10), sizes
    assert sum(int(part.heldin.sum()) for part in recording.splits.values()) > 300
    if behavior:
        known = np.isfinite(recording.splits["train"].behavior)
        assert known.mean() > 0.8
