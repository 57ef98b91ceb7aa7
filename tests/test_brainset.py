"""The reader of brainsets files against temporaldata's own, and how it says that a file is no good."""

import h5py
import numpy as np
import pytest
import temporaldata as td
from brainset_files import END, IDS, N_TRIALS, N_UNITS, ONCE, PAUSE, SILENT, STARTS, parts, spike_times, write
from brainset_files import spikes_of as spikes
from test_nwb_trials import random_spikes
from test_nwb_trials import write as write_nwb

from neuro_lightning.data.brainset.twin import write_twin
from neuro_lightning.data.formats import brainset
from neuro_lightning.data.formats.brainset import open_brainset, read_attributes
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("brainset") / "awkward.h5", parts())


def changed(tmp_path, **changes):
    return write(tmp_path / "changed.h5", {**parts(), **changes})


def test_units_spikes_and_trials_equal_those_that_temporaldata_reads(file):
    found = open_brainset(file)
    with h5py.File(file) as opened:
        data = td.Data.from_hdf5(opened)
        np.testing.assert_array_equal(found.unit_ids, data.units.id)
        np.testing.assert_array_equal(found.units["firing_rate"], data.units.firing_rate)
        for unit, times in enumerate(found.spike_times):
            np.testing.assert_array_equal(times, data.spikes.timestamps[data.spikes.unit_index == unit])
        for name in ("start", "end", "cue_time", "choice"):
            np.testing.assert_array_equal(found.column(name), getattr(data.trials, name))
        np.testing.assert_array_equal(found.obs_intervals[0], np.stack([data.domain.start, data.domain.end], 1))
        np.testing.assert_array_equal(found.read_intervals("phases.reach")[:, 0], data.phases.reach.start)
    assert found.unit_ids.tolist() == IDS.tolist() and not found.heldout.any()
    assert len(found.spike_times[ONCE]) == 1 and len(found.spike_times[SILENT]) == 0
    assert "waveform" not in found.units and "pair" not in found.trials
    assert found.session == {"identifier": "awkward/session_0", "session_start_time": "2020-01-01",
                             "session_id": "session_0", "subject_id": "mouse"}  # fmt: skip
    assert not found.simulated and found.warnings == [] and found.absolute_start == 0
    assert {"id": "awkward", "derived_version": "1.0.0"}.items() <= read_attributes(file, "brainset").items()


def test_spikes_are_the_same_whatever_is_read_at_a_time(file, monkeypatch):
    whole = open_brainset(file)
    monkeypatch.setattr(brainset, "CHUNK", 7)
    for one, other in zip(whole.spike_times, open_brainset(file).spike_times, strict=True):
        np.testing.assert_array_equal(one, other)


def test_waveforms_and_series_that_nobody_asks_for_are_not_read(file, monkeypatch):
    read = []
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key, own=h5py.Dataset.__getitem__: (
        read.append(self.name), own(self, key))[1])  # fmt: skip
    open_brainset(file)
    assert {"/units/id", "/spikes/timestamps", "/domain/start"} <= set(read)
    assert not [name for name in read if name.startswith(("/units/waveform", "/wheel", "/cursor", "/spikes/amplitude"))]
    assert read.count("/spikes/timestamps") == 1


def test_series_of_both_kinds(file):
    found = open_brainset(file)
    assert set(found.series_names) == {"wheel.vel", "wheel.raw", "cursor.pos"}
    with h5py.File(file) as opened:
        data = td.Data.from_hdf5(opened, lazy=False)
    wheel, cursor = found.read_series("wheel.vel"), found.read_series("pos")
    np.testing.assert_array_equal(wheel.times, data.wheel.timestamps)
    np.testing.assert_array_equal(wheel.data, data.wheel.vel)
    assert wheel.rate == 50 and wheel.columns == ("vel_0", "vel_1") and found.read_series("raw").columns == ("raw",)
    np.testing.assert_array_equal(cursor.times, data.cursor.timestamps)
    np.testing.assert_array_equal(cursor.data, data.cursor.pos)
    with pytest.raises(DataError, match=r"has no series 'wheel.vol'; it has wheel.vel, "):
        found.read_series("wheel.vol")


def test_a_series_is_unknown_outside_of_its_domain(tmp_path):
    times = np.delete(np.arange(10) / 10, [4, 5])
    gappy = td.RegularTimeSeries.from_gappy_timeseries(times, sampling_rate=10.0, raw=np.arange(8), gap_value=-1)
    domain = td.Interval(start=np.array([0.0, 0.6]), end=np.array([0.3, 0.9]))
    narrow = td.IrregularTimeSeries(timestamps=np.arange(10) / 10, raw=np.arange(10.0), domain=domain)
    found = open_brainset(changed(tmp_path, wheel=gappy, cursor=narrow))
    known = np.isfinite(found.read_series("wheel.raw").data[:, 0])
    np.testing.assert_array_equal(known, gappy.index_mask())
    assert np.isfinite(found.read_series("cursor.raw").data[:, 0]).tolist() == [True] * 4 + [False] * 2 + [True] * 4


def test_a_file_need_not_have_trials_units_or_marks(tmp_path):
    found = open_brainset(changed(tmp_path, trials=None, units=None, session=None, subject=None, brainset=None))
    assert found.table == "continuous" and found.n_trials == 0
    assert found.unit_ids.tolist() == list(range(N_UNITS)) and found.unit_ids.dtype == np.int64
    assert set(found.session.values()) == {None}
    marked = td.ArrayDict(unit_number=np.arange(N_UNITS), heldout=np.arange(N_UNITS) < 2)
    found = open_brainset(changed(tmp_path, units=marked), "phases.reach")
    assert found.heldout.tolist() == [True] * 2 + [False] * 6 and found.n_trials == N_TRIALS // 2
    assert open_brainset(changed(tmp_path, units=td.ArrayDict(id=np.arange(N_UNITS) + 5))).unit_ids[0] == 5


def test_the_observed_times_are_what_both_domains_have_in_common(tmp_path):
    narrow = td.Interval(start=np.array([0.5, 6.0]), end=np.array([5.0, 12.0]))
    found = open_brainset(changed(tmp_path, spikes=spikes(spike_times(), narrow)))
    assert found.obs_intervals[0].tolist() == [[0.5, 5.0], [6.0, PAUSE[0]], [PAUSE[1], 12.0]]
    apart = td.Interval(start=20.0, end=21.0)
    with pytest.raises(DataError, match=r"domain and spikes\.domain have no time in common"):
        open_brainset(changed(tmp_path, spikes=spikes(spike_times(), apart)))


def test_a_domain_that_only_says_when_spikes_came_does_not_count(tmp_path):
    times = spike_times()
    joined = np.sort(np.concatenate(times))
    inside = [joined[slice(*np.searchsorted(joined, [s, s + 0.5]))] for s in STARTS[:10]]
    made = td.Interval(start=np.array([t[0] for t in inside]), end=np.array([t[-1] for t in inside]))
    found = open_brainset(changed(tmp_path, spikes=spikes(times, made)))
    assert found.obs_intervals[0].tolist() == [[0.0, PAUSE[0]], [PAUSE[1], END]]


def test_a_slice_of_a_session_knows_where_it_begins(tmp_path, file):
    with h5py.File(file) as opened:
        part = td.Data.from_hdf5(opened, lazy=False).slice(9.0, END)
    with h5py.File(tmp_path / "part.h5", "w") as opened:
        part.to_hdf5(opened)
    found = open_brainset(tmp_path / "part.h5")
    assert found.absolute_start == 9.0
    np.testing.assert_allclose(found.spike_times[0] + 9.0, [t for t in spike_times()[0] if t >= 9.0])


def damage(path, edit):
    with h5py.File(path, "a") as file:
        edit(file)


DAMAGE = [
    (lambda f: f.attrs.pop("object"), "HDF5 file, but not a brainsets file"),
    (lambda f: f.__delitem__("spikes"), "has no spikes, so there is nothing to model in it; it has "),
    (lambda f: f.move("spikes/unit_index", "spikes/unit"), "spikes must be an IrregularTimeSeries"),
    (lambda f: f["spikes/unit_index"].__setitem__(3, 99), "unit_index holds 99, but there are 8 units"),
    (lambda f: f["spikes/unit_index"].__setitem__(3, -1), "unit_index holds -1"),
    (lambda f: f["spikes/timestamps"].__setitem__(0, np.nan), "spike times that are not finite"),
    (lambda f: f["domain/end"].__setitem__(0, -5.0), "domain: 1 of 2 stop before they start"),
    (lambda f: f.__delitem__("trials/end"), "trials has no column end of numbers"),
    (lambda f: f["trials"].create_dataset("x", data=np.zeros(3)), "columns of trials differ in length.*x 3"),
    (lambda f: f["spikes/timestamps"].__setitem__(slice(None), f["spikes/timestamps"][:] * 1e6), "would last"),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE, ids=[message[:20] for _, message in DAMAGE])
def test_a_damaged_file_is_one_line(tmp_path, edit, message):
    path = changed(tmp_path)
    damage(path, edit)
    with pytest.raises(DataError, match=message) as error:
        open_brainset(path, "trials")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_brainsets_file(tmp_path, file):
    with pytest.raises(DataError, match="does not exist: a brainsets file"):
        open_brainset(tmp_path / "nowhere.h5")
    with pytest.raises(DataError, match="is a folder"):
        open_brainset(tmp_path)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DataError, match="damaged, cut short or not a brainsets file"):
        open_brainset(tmp_path / "text.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged, cut short or not a brainsets file"):
        open_brainset(cut)
    nwb = write_nwb(tmp_path / "session.nwb", random_spikes(), np.arange(3.0))
    with pytest.raises(DataError, match=r"is an NWB file.*data=nwb"):
        open_brainset(nwb)
    with pytest.raises(DataError, match=r"is a brainsets file.*data=brainset"):
        open_nwb(file)


def test_no_such_intervals(file):
    with pytest.raises(DataError, match=r"no intervals 'trails'; it has trials, .*data\.trials=continuous"):
        open_brainset(file, "trails")
    with pytest.raises(DataError, match=r"'wheel' is a RegularTimeSeries, not intervals"):
        open_brainset(file, "wheel")
    with pytest.raises(DataError, match=r"no intervals 'phases\.rich'; it has phases\.reach"):
        open_brainset(file).read_intervals("phases.rich")


def test_calcium_traces_are_refused_in_a_line(tmp_path):
    calcium = td.RegularTimeSeries(sampling_rate=30.0, domain_start=0.0, df_over_f=np.zeros((30, 4)))
    with pytest.raises(DataError, match=r"calcium traces \(calcium_traces\.df_over_f\).*data=array_traces"):
        open_brainset(changed(tmp_path, spikes=None, units=None, calcium_traces=calcium))


def test_twins_have_the_layout_and_are_written_once(tmp_path):
    files = write_twin(tmp_path, n_sessions=2, n_trials=20, n_units=6)
    assert [path.name for path in files] == ["day_1.h5", "day_2.h5"]
    times = [path.stat().st_mtime_ns for path in files]
    assert write_twin(tmp_path, n_sessions=2, n_trials=20, n_units=6) == files
    assert [path.stat().st_mtime_ns for path in files] == times
    one, two = map(open_brainset, files)
    assert one.simulated and not set(one.unit_ids) & set(two.unit_ids) and one.session != two.session
    assert {"movement_phases.reach_period", "train_domain", "valid_domain"} <= set(one.interval_names)
    assert one.column("end")[-1] > one.end_time and len(one.obs_intervals[0]) == 2
    with pytest.raises(ConfigError, match="at least 1 session, 10 trials"):
        write_twin(tmp_path, n_trials=2)


def test_without_temporaldata_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "temporaldata", None)
    with pytest.raises(DataError, match="pip install temporaldata"):
        write_twin(tmp_path)
