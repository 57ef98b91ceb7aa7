"""Whole runs on brainsets files: one, several, mixed with NWB, another day, another file of the session."""

import h5py
import numpy as np
import pytest
import temporaldata as td
from brainset_files import END, IDS, parts, write
from runs import TINY, here, record
from test_nwb_trials import STARTS, random_spikes
from test_nwb_trials import write as write_nwb
from test_sessions_predict import predicted

from neuro_lightning.data.brainset.datamodule import Brainset
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.settings.quoting import override

BASE = [
    *(word for word in TINY if not word.startswith(("data=", "trusted"))), "trainer.max_epochs=1",
    "model.hidden=6", "paths.cache=${paths.output_dir}/cache",
]  # fmt: skip
ONE = ["data=brainset", "data.bin_ms=20", "data.window_ms=[0,400]"]
KEYS = ("bin_ms=20", "window_ms=[0,200]")


def trained(folder, path, *words):
    return here(folder, *ONE, *words, override("data.path", path), base=BASE).folder


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Two parts of one session as files, and a run on the first."""
    folder = tmp_path_factory.mktemp("halves")
    with h5py.File(write(folder / "whole.h5", parts())) as opened:
        data = td.Data.from_hdf5(opened, lazy=False)
        for name, (start, stop) in {"first": (0.0, 9.0), "second": (9.0, END)}.items():
            with h5py.File(folder / f"{name}.h5", "w") as file:
                data.slice(start, stop).to_hdf5(file)
    run = trained(folder / "run", folder / "first.h5", "data.split=random", "data.behavior=cursor.pos",
                  "readin@model.readin=linear")  # fmt: skip
    return folder, run


def test_another_part_of_the_session_is_predicted_by_the_names_of_units(halves):
    folder, run = halves
    spec = load_checkpoint(run).spec
    assert sorted(spec.unit_ids) == sorted(IDS) and record(run)["data"]["name"] == "brainset"
    path = predicted(f"ckpt={run}", override("data.path", folder / "second.h5"))
    with h5py.File(path) as file:
        assert file["unit_ids"].asstr()[:].tolist() == list(spec.unit_ids)
        assert set(file) == {"unit_ids", "test"} and len(file["test/predictions"]) == 6
    everything = predicted(f"ckpt={run}", override("data.path", folder / "whole.h5"), "file=" + str(folder / "all.h5"))
    with h5py.File(everything) as file:
        assert {"train", "val", "test"} <= set(file)
        assert len(file["train/predictions"]) == 9, "training trials are known by their time in the session"


def test_a_run_on_another_part_begins_with_the_weights_of_the_units_of_the_same_names(halves, tmp_path, capsys):
    folder, run = halves
    words = [override("data.path", folder / "second.h5"), "data.split=random", "data.heldout_fraction=0.5"]
    here(tmp_path / "more", f"init={run}", *ONE, *words, base=BASE)
    assert "read-in and readout of 8 units by their ids" in capsys.readouterr().out


def test_another_days_file_is_refused_unless_its_units_were_matched(halves, tmp_path):
    _, run = halves
    other = override("data.path", write(tmp_path / "other.h5", parts(1)))
    with pytest.raises(DataError, match=r"session awkward/session_1 of .*data\.same_units=true"):
        predicted(f"ckpt={run}", other)
    assert predicted(f"ckpt={run}", other, "data.same_units=true", "file=" + str(tmp_path / "x.h5")).is_file()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    words = ["data=brainset", "data.simulate=true", "data.simulate_sessions=2", "data.bin_ms=20", "data.batch_size=32",
             "data.behavior=cursor.vel", "readin@model.readin=linear",
             override("paths.data", folder / "data")]  # fmt: skip
    return folder, here(folder / "run", *words, base=BASE).folder


def test_simulated_sessions_are_trained_on_together(several):
    folder, run = several
    spec = load_checkpoint(run).spec
    assert [part.session for part in spec.parts] == ["1", "2"] and spec.simulated
    assert all(part.unit_ids[0].startswith(f"day{part.session}/") for part in spec.parts)
    assert {"val/co_bps/1", "val/vel_r2/2"} <= set(record(run)["metrics"])
    with h5py.File(predicted(f"ckpt={run}", "file=" + str(folder / "rates.h5"))) as file:
        assert file["2/unit_ids"].asstr()[0].startswith("day2/")


def test_a_new_day_starts_with_the_core_and_knows_units_by_their_names(several, tmp_path, capsys):
    folder, run = several
    files = next((folder / "data" / "simulated" / "brainset").iterdir())
    day = [*ONE, override("data.path", files / "day_1.h5"), "data.split=random", "data.seed=5"]
    with pytest.raises(Exception, match="have trained its core"):
        here(tmp_path / "leak", f"init={run}", *day, base=BASE)
    path = write(tmp_path / "new.h5", parts(2))
    here(tmp_path / "new", f"init={run}", *ONE, override("data.path", path), base=BASE)
    assert "read-in and readout begin" in capsys.readouterr().out


def test_brainsets_and_nwb_files_are_trained_on_together(tmp_path):
    write_nwb(tmp_path / "b.nwb", random_spikes(), STARTS)
    words = ["data=sessions", "+data@data.sessions.a=brainset", "+data@data.sessions.b=nwb",
             override("data.sessions.a.path", write(tmp_path / "a.h5", parts())),
             override("data.sessions.b.path", tmp_path / "b.nwb"),
             *(f"data.sessions.{name}.{key}" for name in "ab" for key in KEYS)]  # fmt: skip
    run = here(tmp_path / "run", *words, base=BASE).folder
    ids = [part.unit_ids for part in load_checkpoint(run).spec.parts]
    assert all(isinstance(unit, str) for unit in ids[0]) and all(isinstance(unit, int) for unit in ids[1])


def test_a_recording_comes_from_the_cache_as_it_was_read(tmp_path):
    path = write(tmp_path / "a.h5", parts())
    one, two = (Brainset(path, root=".", cache_dir=tmp_path, window_ms=(0, 400)).recording for _ in range(2))
    assert one.unit_ids.dtype.kind == "U" and len(list(tmp_path.glob("recording-*.npz"))) == 1
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, two.arrays()[name])
    assert one.info == two.info


def test_without_a_file_a_line_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"data\.path is missing"):
        here(tmp_path, "data=brainset", base=BASE)
    with pytest.raises(ConfigError, match=r"data\.simulate_sessions must be"):
        here(tmp_path, "data=brainset", "data.simulate=true", "data.simulate_sessions=0", base=BASE)
