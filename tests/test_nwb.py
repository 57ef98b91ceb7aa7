"""The NWB reader: what it reads from any file with units and trials, and how it says that a file is no good."""

import datetime
import os

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries

from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.errors import DataError

UNITS = {7: [0.25, 0.5, 1.0], 3: [], 12: [0.001, 2.0]}


def write_nwb(path, *, units=True, trials=True, extras=True):
    """A small NWB file; ``extras`` adds what not every file has."""
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    nwb = NWBFile(session_description="a test", identifier="t", session_start_time=start)
    if units:
        if extras:
            nwb.add_unit_column("heldout", "hidden")
        for number, times in UNITS.items():
            more = {"heldout": number == 12, "obs_intervals": [[0.0, 1.5], [1.75, 3.0]]} if extras else {}
            nwb.add_unit(id=number, spike_times=np.array(times, float), **more)
    if trials:
        if extras:
            nwb.add_trial_column("split", "split")
            nwb.add_trial_column("target_pos", "ragged", index=True)
        for i in range(4):
            more = {"split": "train", "target_pos": [1.0] * i} if extras else {}
            nwb.add_trial(start_time=0.5 * i, stop_time=0.5 * i + 0.4, **more)
    if extras:
        module = nwb.create_processing_module("behavior", "behavior")
        module.add(TimeSeries(name="hand_vel", data=np.arange(6.0).reshape(3, 2), unit="mm/s",
                              timestamps=[0.1, 0.2, 0.4], comments="columns=[x, y]"))  # fmt: skip
        for name in ("Hand", "Eye"):
            inner = [SpatialSeries(name="pos", data=np.zeros((3, 2)), reference_frame="0", rate=10.0)]
            inner += [SpatialSeries(name=f"only_{name}", data=np.zeros(3), reference_frame="0", rate=10.0)]
            module.add(Position(name=name, spatial_series=inner))
        nwb.add_acquisition(TimeSeries(name="pupil", data=np.arange(4), unit="a", rate=2.0, starting_time=1.0))
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    return write_nwb(tmp_path_factory.mktemp("nwb") / "rich.nwb")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_nwb(tmp_path_factory.mktemp("nwb") / "plain.nwb", extras=False)


def test_units_and_trials(rich):
    nwb = open_nwb(rich)
    assert nwb.unit_ids.tolist() == [7, 3, 12]
    assert nwb.heldout.tolist() == [False, False, True]
    assert [t.tolist() for t in nwb.spike_times] == [[0.25, 0.5, 1.0], [], [0.001, 2.0]]
    assert all(np.array_equal(k, [[0.0, 1.5], [1.75, 3.0]]) for k in nwb.obs_intervals)
    assert nwb.n_trials == 4
    assert nwb.end_time == 3.0
    assert nwb.column("split").tolist() == ["train"] * 4
    assert nwb.column("start_time").tolist() == [0.0, 0.5, 1.0, 1.5]
    assert "target_pos" not in nwb.trials
    assert not nwb.simulated


def test_what_a_file_need_not_have(plain):
    nwb = open_nwb(plain)
    assert not nwb.heldout.any()
    assert len(nwb.obs_intervals) == 3
    assert all(np.array_equal(k, [[0.0, 2.0]]) for k in nwb.obs_intervals)
    assert nwb.series_names == ()


def test_series(rich):
    nwb = open_nwb(rich)
    assert set(nwb.series_names) == {"hand_vel", "Hand/pos", "Hand/only_Hand", "Eye/pos", "Eye/only_Eye", "pupil"}
    hand = nwb.read_series("hand_vel")
    assert hand.columns == ("x", "y") and hand.rate is None
    assert hand.times.tolist() == [0.1, 0.2, 0.4] and hand.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    pupil = nwb.read_series("pupil")
    assert pupil.times.tolist() == [1.0, 1.5, 2.0, 2.5] and pupil.data.shape == (4, 1) and pupil.rate == 2.0
    assert nwb.read_series("only_Eye").data.shape == (3, 1)
    assert nwb.read_series("Hand/pos").data.shape == (3, 2)


@pytest.mark.parametrize("name, message", [("finger_vel", "no series 'finger_vel'.*hand_vel"),
                                           ("pos", "more than one.*Eye/pos.*Hand/pos")])  # fmt: skip
def test_no_such_series(rich, name, message):
    with pytest.raises(DataError, match=message):
        open_nwb(rich).read_series(name)


def test_no_such_column(rich):
    with pytest.raises(DataError, match=r"rich\.nwb.*no column 'go_time'.*start_time.*split"):
        open_nwb(rich).column("go_time")


@pytest.mark.parametrize("missing", ["units", "trials"])
def test_a_file_without(tmp_path, missing):
    path = write_nwb(tmp_path / "poor.nwb", extras=False, **{missing: False})
    with pytest.raises(DataError, match=f"poor.nwb has no {missing[:-1]}"):
        open_nwb(path)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_nwb(tmp_path / "nowhere.nwb")
    with pytest.raises(DataError, match="is a folder"):
        open_nwb(tmp_path)


def test_not_nwb(tmp_path):
    import h5py

    text, other = tmp_path / "text.nwb", tmp_path / "other.nwb"
    text.write_text("spikes")
    with h5py.File(other, "w") as file:
        file["train_data"] = np.zeros(3)
    for path in (text, other):
        with pytest.raises(DataError, match="not an NWB file"):
            open_nwb(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_cut_short(rich, tmp_path, share):
    whole = rich.read_bytes()
    path = tmp_path / "cut.nwb"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"cut\.nwb cannot be read"):
        open_nwb(path)


def test_flipped_bytes_give_a_data_error_or_nothing(rich, tmp_path):
    whole = rich.read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "flipped.nwb", 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole) // 2, size=200):
            damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            nwb = open_nwb(path)
            for name in nwb.series_names:
                nwb.read_series(name)
        except DataError as error:
            assert "flipped.nwb" in str(error)
            refused += 1
    assert refused > 0


def test_tables_that_contradict_themselves(rich, tmp_path):
    import h5py

    def damaged(name, change):
        path = tmp_path / f"{name}.nwb"
        path.write_bytes(rich.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def set_value(name, index, value):
        def change(file):
            file[name][index] = value

        return change

    cases = {
        "index": (set_value("units/spike_times_index", 0, 5), "do not fit their index"),
        "nan": (set_value("units/spike_times", 0, np.nan), "unit 7 has spike times that are not finite"),
        "interval": (set_value("units/obs_intervals", 0, np.nan), "obs_intervals"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(DataError, match=message):
            open_nwb(damaged(name, change))


def test_no_file_is_left_open(rich):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    open_nwb(rich).read_series("hand_vel")
    targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if
               os.path.exists(f"/proc/self/fd/{fd}")]  # fmt: skip
    assert str(rich) not in targets
