"""IBL BrainWideBench, TS2: windows, what is withheld, and its files, beside temporaldata."""

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from neuro_lightning.data.bwb.datamodule import BrainWideBench
from neuro_lightning.data.bwb.reader import load_session, open_session
from neuro_lightning.data.bwb.rules import held_out_units
from neuro_lightning.data.bwb.twin import write_twin
from neuro_lightning.data.bwb.windows import bin_spikes, window_starts
from neuro_lightning.data.describe import describe, make_dataset
from neuro_lightning.errors import ConfigError, DataError

td = pytest.importorskip("temporaldata")
SIZES = {"n_units": 20, "chunk_s": 14.0, "n_chunks": 5, "mean_rate_hz": 12.0}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_twin(tmp_path_factory.mktemp("bwb"), seed=3, n_sessions=2, **SIZES)


def read_alone(path):
    """The session as temporaldata reads it."""
    with h5py.File(path) as file:
        return td.Data.from_hdf5(file, lazy=False)


def changed(path, folder, change):
    """A copy of a file, with a change made to it."""
    copy = Path(shutil.copy(path, folder / path.name))
    with h5py.File(copy, "r+") as file:
        change(file)
    return copy


# ---- windows


@pytest.mark.parametrize("split", SPLITS)
def test_windows_spikes_and_times_are_those_that_temporaldata_reads(files, split):
    data = read_alone(files[0])
    recording = load_session(files[0], train_stride_ms=260, val_stride_ms=1000, test_stride_ms=20)
    step = {"train": 0.26, "val": 1.0, "test": 0.02}[split]
    inside = data.task_aligned_intervals.domain & getattr(data, f"ts2_{split}_domain")
    starts = np.sort(
        np.concatenate([window_starts(a, b, step, 1.0) for a, b in zip(inside.start, inside.end, strict=True)])
    )
    trials = recording.splits[split]
    times = dict(zip(*recording.info["times"], strict=True))
    assert [times[row] for row in trials.row.tolist()] == pytest.approx((starts + data.absolute_start).tolist(), abs=0)
    assert recording.unit_ids.tolist() == [unit.decode() if isinstance(unit, bytes) else unit for unit in data.units.id]
    for k in np.linspace(0, len(starts) - 1, 12).astype(int):
        window = data.slice(starts[k], starts[k] + 1.0)
        bins = np.floor(np.round(window.spikes.timestamps / 0.02, 6)).astype(int).clip(max=49)
        expected = np.zeros((50, len(data.units.id)), int)
        np.add.at(expected, (bins, window.spikes.unit_index), 1)
        assert np.array_equal(trials.heldin[k], expected)
    assert len(starts) == len(trials) > 5


def test_a_window_ends_with_its_interval_and_none_leaves_it():
    assert window_starts(0.0, 0.99, 0.02, 1.0).tolist() == []
    assert window_starts(5.0, 6.0, 0.02, 1.0).tolist() == [5.0]
    assert window_starts(5.0, 6.05, 0.02, 1.0) == pytest.approx([5.0, 5.02, 5.04, 5.05])
    starts = window_starts(0.37, 61.11, 0.5, 1.0)
    assert starts.max() + 1 == pytest.approx(61.11) and (starts >= 0.37).all()
    assert bin_spikes([np.array([0.02, 0.0399999999, 0.04, 0.0999])], 0.0, 5)[:, 0].tolist() == [0, 1, 2, 0, 1]


def test_splits_share_no_time(files):
    recording = load_session(files[0], train_stride_ms=20, test_stride_ms=20)
    times = dict(zip(*recording.info["times"], strict=True))
    spans = {s: np.array([times[row] for row in recording.splits[s].row.tolist()]) for s in SPLITS}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert np.abs(spans[one][:, None] - spans[other]).min() > 1.0


# ---- what is withheld


def test_held_out_units_follow_the_rule(files):
    data = read_alone(files[0])
    ids = [unit.decode() if isinstance(unit, bytes) else unit for unit in data.units.id]
    for split in ("val", "test"):
        order = sorted(ids, key=lambda unit: hashlib.sha256(f"ts2_co_smoothing_{split}:{unit}".encode()).hexdigest())
        own = held_out_units(ids, split)
        assert {ids[k] for k in np.flatnonzero(own)} == set(order[:2]) and own.sum() == 2
        assert np.array_equal(own, getattr(data.units, f"ts2_co_smoothing_is_held_out_{split}"))
    assert held_out_units(["a", "b", "c"], "val").sum() == 1


def test_withheld_units_are_no_input_and_alone_are_scored(files):
    recording = load_session(files[0])
    spec = describe(recording)
    assert (spec.n_in, spec.n_out, spec.n_bins, spec.partial, spec.deviance) == (20, 0, 50, True, True)
    for split in SPLITS:
        batch = make_dataset(recording.splits[split], spec, evaluate=split != "train")[[0, 2]]
        counts = torch.from_numpy(recording.splits[split].heldin[[0, 2]])
        assert torch.equal(batch["targets"], counts)
        if split == "train":
            assert batch["observed"].all() and batch["mask"].all() and torch.equal(batch["inputs"], counts)
            continue
        own = torch.from_numpy(held_out_units(recording.unit_ids.tolist(), split))
        assert torch.equal(batch["observed"], ~own.expand(2, 50, 20)) and torch.equal(
            batch["mask"], own.expand(2, 50, 20)
        )
        assert (batch["inputs"][..., own] == 0).all() and torch.equal(batch["inputs"][..., ~own], counts[..., ~own])


def test_forecasting_sees_nine_tenths_of_a_window_and_is_scored_on_the_rest(files):
    recording = load_session(files[0], task="forecasting")
    spec = describe(recording)
    assert (spec.n_bins, spec.n_forward, spec.n_in, spec.n_out) == (45, 5, 20, 0)
    batch = make_dataset(recording.splits["val"], spec, evaluate=True)[[1]]
    assert batch["inputs"].shape == (1, 45, 20) and batch["observed"].all()
    assert batch["mask"][:, 45:].all() and not batch["mask"][:, :45].any()
    assert make_dataset(recording.splits["train"], spec, evaluate=False)[[1]]["mask"].all()


@pytest.mark.parametrize("task", ["co_smoothing", "forecasting"])
def test_what_is_predicted_reaches_no_input_and_evaluation_no_statistic(files, tmp_path, task):
    """Spikes that must not matter are tripled: of withheld units in their split, and all of them in val and test."""
    data, bench = read_alone(files[0]), open_session(files[0])

    def poison(units, split):
        def change(file):
            times, index = file["spikes/timestamps"][:], file["spikes/unit_index"][:]
            wanted = np.isin(index, units)
            domain = getattr(data, f"ts2_{split}_domain")
            inside = np.zeros(len(times), bool)
            for a, b in zip(domain.start, domain.end, strict=True):
                inside |= (times >= a) & (times < b)
            extra = np.flatnonzero(wanted & inside).repeat(2)
            order = np.argsort(np.concatenate([times, times[extra]]), kind="stable")
            for name, values in (("timestamps", times), ("unit_index", index)):
                del file[f"spikes/{name}"]
                file[f"spikes/{name}"] = np.concatenate([values, values[extra]])[order]

        return change

    plain = load_session(files[0], task=task)
    spec = describe(plain)
    for split in ("val", "test"):
        hidden = np.flatnonzero(bench.withheld[split])
        if task == "co_smoothing":
            other = load_session(changed(files[0], tmp_path, poison(hidden, split)), task=task)
            index = list(range(len(plain.splits[split])))
            one, two = (make_dataset(r.splits[split], spec, evaluate=True)[index] for r in (plain, other))
            assert torch.equal(one["inputs"], two["inputs"]) and not torch.equal(one["targets"], two["targets"])
        everywhere = load_session(changed(files[0], tmp_path, poison(np.arange(20), split)), task=task)
        assert describe(everywhere).mean_rates == spec.mean_rates
        assert np.array_equal(everywhere.splits["train"].heldin, plain.splits["train"].heldin)


# ---- files that are not the benchmark's


def set_build(file):
    file["brainset"].attrs["unit_filtering"] = "all_units"


def set_version(file):
    file["brainset"].attrs["derived_version"] = "9.9"


def drop_domain(file):
    del file["ts2_val_domain"]


def break_the_rule(file):
    file["units/ts2_co_smoothing_is_held_out_test"][:] = True


def shorten(file):
    file["ts2_test_domain/end"][:] = file["ts2_test_domain/start"][:] + 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_build, r"of the build all_units: TS2 takes selected_units"),
        (set_version, r"of version 9.9 of the benchmark's data, and this project knows 0.1.0"),
        (drop_domain, r"has no intervals ts2_val_domain"),
        (break_the_rule, r"held-out units of test are not those of the benchmark's rule"),
        (shorten, r"no window of a second lies in"),
    ],
)
def test_another_file_is_refused_in_one_line(files, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load_session(changed(files[0], tmp_path, change))


def test_files_of_pretraining_have_the_rule_alone(files, tmp_path):
    def drop(file):
        for split in ("val", "test"):
            del file[f"units/ts2_co_smoothing_is_held_out_{split}"]

    one, other = open_session(files[0]), open_session(changed(files[0], tmp_path, drop))
    assert all(np.array_equal(one.withheld[split], other.withheld[split]) for split in ("val", "test"))


def test_bad_settings_are_one_line(files, tmp_path):
    with pytest.raises(ConfigError, match=r"data.task=x: give co_smoothing or forecasting"):
        load_session(files[0], task="x")
    with pytest.raises(ConfigError, match=r"data.val_stride_ms=30: give a multiple"):
        load_session(files[0], val_stride_ms=30)
    common = {"cache_dir": str(tmp_path), "root": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"data.session is missing"):
        BrainWideBench(**common).load()
    place = "s3://brain-wide-bench/brainsets/selected_units/ibl_brain_wide_bench_2026/eval/abc.h5"
    command = f"aws s3 cp --no-sign-request {place} "
    with pytest.raises(DataError, match=command):
        BrainWideBench(**common, session="abc").load()
    with pytest.raises(DataError, match=r"data.session=all: no file in .*aws s3 cp"):
        BrainWideBench(**common, session="all").load()


def test_sessions_are_found_where_the_bucket_has_them(files, tmp_path):
    folder = tmp_path / "bwb/selected_units/ibl_brain_wide_bench_2026/eval"
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    config = {"root": str(tmp_path), "part": "eval"}
    found = sorted(folder / file.name for file in files)
    assert BrainWideBench.session_files({**config, "session": "all"}) == found
    assert BrainWideBench.session_files({**config, "session": [f.stem for f in found]}) == found
    assert BrainWideBench.session_files({**config, "session": found[1].stem}) == found[1:]
