"""The front door in Python: the same files and numbers as the commands, and a process that is left as it was."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from runs import ROOT, checkpoint, record, same

import neuro_lightning as nl
from neuro_lightning import cli
from neuro_lightning.api.results import Table
from neuro_lightning.data.arrays.twin import simulated_images, simulated_spikes, simulated_traces
from neuro_lightning.data.synthetic.simulate import Sizes
from neuro_lightning.errors import ConfigError, DataError, FolderError, NeuroError

ARRAYS = simulated_spikes(0, Sizes(24, 8, 6, n_conditions=4, n_in=6, n_out=3, n_bins=12, bin_ms=20))
QUICK = ["trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=csv", "callbacks=minimal",
         "baselines=null", "data.batch_size=12"]  # fmt: skip
SMALL = [*QUICK, "model.hidden=6", "model.layers=1"]


def spikes(**changes):
    return nl.spikes(**{**ARRAYS, "bin_ms": 20, **changes})


def command(function, *arguments):
    """Run a command in this process, as the terminal would."""
    before, sys.argv = sys.argv, [f"{function.__name__}.py", *arguments]
    try:
        function()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("front")


@pytest.fixture(scope="module")
def run(folder):
    """A run made from Python."""
    with contextlib.chdir(folder):
        return nl.train("gru", spikes(), SMALL, seed=3, folder="python", verbose=False)


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_the_package_imports_nothing_heavy():
    heavy = ["torch", "pytorch_lightning", "hydra", "omegaconf", "pandas", "numpy", "matplotlib"]
    code = f"import sys, neuro_lightning as nl; nl.__version__; assert not set({heavy}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"train", "load", "sweep", "compare", "spikes", "traces", "images"} <= set(dir(nl))
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        nl.trane  # noqa: B018


# ---- the same as the commands


def test_a_run_is_that_of_the_command_bit_for_bit(run, folder):
    path = spikes().save(folder / "mine.npz")
    command(cli.train, "model=gru", "data=arrays", f"data.path={path}", *SMALL, "seed=3", "hydra.run.dir=typed")
    typed = nl.load("typed")
    assert same(checkpoint(run.folder, "best.ckpt")["state_dict"], checkpoint(typed.folder, "best.ckpt")["state_dict"])
    assert run.scores.to_dict() == typed.scores.to_dict() == record(run.folder)["metrics"]
    assert np.array_equal(run.rates("val"), typed.rates("val")) and run.status == typed.status == "finished"
    files = [{str(p.relative_to(r.folder)) for p in r.folder.rglob("*")} for r in (run, typed)]
    assert files[0] == files[1] and {"run.json", "metrics.csv", "output.log", ".hydra/overrides.yaml"} <= files[0]
    sources = [r.record["data"]["sources"][0]["sha256"] for r in (run, typed)]
    assert sources[0] == sources[1], "the arrays are one and the same file"


def test_rates_and_latents_are_those_that_predict_writes(run, folder):
    command(cli.predict, f"ckpt={run.folder}", "file=rates.h5")
    command(cli.predict, f"ckpt={run.folder}", "file=latents.h5", "output=latents")
    with h5py.File("rates.h5") as rates, h5py.File("latents.h5") as latents:
        assert rates["unit_ids"][()].tolist() == run.unit_ids.tolist()
        for split in ("train", "val", "test"):
            np.testing.assert_array_equal(run.rates(split), rates[f"{split}/predictions"][()])
            np.testing.assert_array_equal(run.latents(split), latents[f"{split}/latents"][()])
    assert nl.predict(run, {"file": "again.h5"}, verbose=False).read_bytes() == (folder / "rates.h5").read_bytes()
    with pytest.raises(ConfigError, match=r"rates.h5 is there already: give overwrite=true"):
        nl.predict([run.folder], ["file=rates.h5"], verbose=False)
    with pytest.raises(ConfigError, match="split='valid': these data have train, val, test"):
        run.rates("valid")


def test_new_counts_are_predicted_as_they_came(run):
    rows = run.data.recording.splits["val"].row
    new = ARRAYS["counts"][rows]
    np.testing.assert_array_equal(run.predict(new), run.rates("val"))
    np.testing.assert_array_equal(run.predict(new[..., run.unit_ids[:7]]), run.rates("val"))
    np.testing.assert_array_equal(run.predict(new[:, :, ::-1]) == run.rates("val"), False)
    for odd, message in (
        (new[:, :5], "new counts have 5 bins, but the model was trained on 12"),
        (new[..., :4], "new counts have 4 neurons; the model takes all 9, or the 7"),
        (new - 1.0, "new counts holds negative values"),
    ):
        with pytest.raises(DataError, match=message):
            run.predict(odd)


def test_own_numbers_of_neurons_do_not_change_the_columns():
    ids = np.array([40, 3, 77, 1, 9, 60, 5, 8, 2])
    own = nl.train("gru", spikes(unit_ids=ids), SMALL, folder="numbered", verbose=False)
    assert set(own.unit_ids) == set(ids)
    rows = own.data.recording.splits["val"].row
    np.testing.assert_array_equal(own.predict(ARRAYS["counts"][rows]), own.rates("val"))


def test_a_run_is_resumed_from_python_and_by_the_command(folder):
    steady = [*SMALL, "scheduler@model.scheduler=none"]
    once = nl.train("gru", spikes(), [*steady, "trainer.max_epochs=3"], folder="once", verbose=False)
    for name, go_on in (("from_python", True), ("by_command", False)):
        nl.train("gru", spikes(), [*steady, "trainer.max_epochs=1"], folder=name, verbose=False)
        if go_on:
            nl.train(resume=name, overrides=["trainer.max_epochs=3"], verbose=False)
        else:
            command(cli.train, f"resume={name}", "trainer.max_epochs=3")
        weights = [checkpoint(path)["state_dict"] for path in (folder / name, once.folder)]
        assert same(*weights) and nl.load(name).config["trainer"]["max_epochs"] == 3


def test_figures_are_drawn_where_the_run_has_none(run, monkeypatch):
    shown = []
    monkeypatch.setattr(pytest.importorskip("IPython.display"), "display", shown.append)
    assert not (run.folder / "figures").exists()
    figures = run.figures()
    assert {"rates", "neurons", "latents", "learning_curve", "decoding"} <= set(figures)
    assert all(path.parent == run.folder / "figures" and path.is_file() for path in figures.values())
    figures._ipython_display_()  # as a notebook does
    assert [image.data for image in shown] == [path.read_bytes() for path in figures.values()]
    assert "co_bps" in run._repr_html_() and "oracle" in run.table and "finished" in repr(run)


def test_data_can_be_looked_at_without_a_training(run):
    data = nl.dataset(spikes(), {"data.batch_size": 5})
    assert data.batch_size == 5 and data.spec == run.data.spec
    twin = nl.dataset("mc_rtt", {"data.simulate": True, "data.bin_ms": 20, "paths.data": "data"})
    assert twin.simulate and twin.options["bin_ms"] == 20
    with pytest.raises(ConfigError, match=r"data\.bin: no such key; there are batch_size, "):
        nl.dataset("lorenz", ["data.bin=3"])


# ---- the process is left as it was


def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    root = logging.getLogger()
    streams = sys.stdout, sys.stderr
    return sys.argv[:], streams, handlers, list(root.handlers), root.level, dict(os.environ), os.getcwd()


def test_a_dictionary_is_a_value_of_a_key():
    keys = {"data.sessions": {"one": "lorenz", "two": "lorenz"}, "data.sessions.two.session": 2}
    assert list(nl.dataset("sessions", keys).sessions) == ["one", "two"]
    with pytest.raises(ConfigError, match="letters, digits"):
        nl.dataset("sessions", {"data.sessions": {"one day": "lorenz"}})


def test_nothing_of_the_process_changes(capfd):
    with initialize_config_dir(str(ROOT / "conf")):
        before, hydra = state(), GlobalHydra.instance().hydra
        nl.train("smoothing", spikes(), QUICK, folder="quiet", verbose=False)
        assert capfd.readouterr() == ("", ""), "verbose=False prints nothing"
        nl.train("smoothing", spikes(), QUICK, folder="loud")
        printed = capfd.readouterr()
        assert printed.out.count("Scores on arrays") == 1 and not printed.err
        with pytest.raises(NeuroError):
            nl.train("cnn", spikes(), QUICK, folder="refused", verbose=False)
        assert state() == before and GlobalHydra.instance().hydra is hydra
        assert compose("train", ["model=ndt"]).model.layers == 4
    assert "Scores on arrays" in (nl.load("quiet").folder / "output.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "grru"}, ConfigError, "model=grru: no such option; did you mean 'gru'"),
        (
            {"overrides": ["trainer.max_epoch=3"]},
            ConfigError,
            "trainer.max_epoch: no such key; did you mean 'max_epochs'",
        ),
        ({"overrides": ["model.hiden=3"]}, ConfigError, "model.hiden: no such key; did you mean 'hidden'"),
        ({"overrides": "seed=3"}, ConfigError, r"give a list of words, \['seed=3'\]"),
        ({"overrides": {"seed": object()}}, ConfigError, "seed=.*: give text, a number"),
        (
            {"model": "cnn"},
            ConfigError,
            r"CNN cannot run on arrays \(spikes\): it takes images; take such as model=gru",
        ),
        ({"seed": -1}, ConfigError, "seed=-1: give a whole number from 0"),
        ({"folder": "python"}, FolderError, "holds a run already"),
        ({"resume": "nowhere"}, NeuroError, "resume=nowhere: no checkpoint, and no run's folder"),
    ],
)
def test_an_error_is_raised_in_one_line_and_not_printed(run, capfd, arguments, error, message):
    with pytest.raises(error, match=message) as refused:
        nl.train(**{"model": "gru", "data": spikes(), "verbose": False, **arguments})
    assert "\n" not in str(refused.value) and capfd.readouterr() == ("", "")


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("neuro_lightning.runs.train.build_model", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours") as failed:
        nl.train("gru", spikes(), SMALL, folder="broken", verbose=False)
    assert failed.traceback[-1].name == "broken" and "Traceback" not in capfd.readouterr().err
    assert record(nl.load("broken").folder)["status"] == "failed"


# ---- sweeps and comparisons


def test_a_sweep_is_a_table_of_runs_that_pair_by_seed(capfd):
    swept = nl.sweep(
        ["gru"], spikes(),
        {"trainer": "cpu", "trainer.max_epochs": 1, "logger": "csv", "callbacks": "minimal", "baselines": None,
         "data.batch_size": 12, "model.layers": 1, "model.hidden": [4, 6]},
        seeds=range(2), folder="swept", verbose=False,
    )  # fmt: skip
    assert not capfd.readouterr().out and len(swept.table) == len(swept.runs) == 4
    assert set(swept.table["model.hidden"]) == {4, 6} and set(swept.table["seed"]) == {0, 1}
    best = swept.table.sort_values("objective").iloc[-1]
    assert swept.best.folder.name == best["job"] and swept.best.scores["val/co_bps"] == best["val/co_bps"]
    assert isinstance(nl.load("swept"), nl.Sweep) and nl.load("swept").runs[0].scores.equals(swept.runs[0].scores)
    sizes = {n: [r for r in swept.runs if r.config["model"]["hidden"] == n] for n in (4, 6)}
    table = nl.compare({"four": sizes[4], "six": list(reversed(sizes[6]))})
    one, other = (np.array([r.scores["val/co_bps"] for r in sizes[n]]) for n in (4, 6))
    printed = str(pd.concat([table] * 4, axis=1, keys=[f"a long name {i}" for i in range(4)]).pipe(Table))
    assert "..." not in str(table) + str(swept.table) + printed and max(map(len, printed.splitlines())) <= 100
    assert all(str(value) in str(swept.table) for value in [*swept.table, *swept.table["checkpoint"]])
    row = table.loc["val/co_bps"]
    assert row["four"] == pytest.approx(one.mean()) and row["six difference"] == pytest.approx((other - one).mean())
    assert row["six sem"] == pytest.approx((other - one).std(ddof=1) / np.sqrt(2))


def test_only_runs_of_the_same_trials_are_compared(run):
    table = nl.compare([run, run.folder])
    assert (table.iloc[:, 2] == 0).all() and table.columns[0] == "GRU on arrays seed 3"
    other = nl.train("smoothing", spikes(split=None, seed=5), QUICK, folder="split", verbose=False)
    with pytest.raises(ConfigError, match=r"the val trials of .*split are others than those of .*python"):
        nl.compare([run, other])


# ---- data


def test_spike_times_are_the_histogram():
    rng = np.random.default_rng(0)
    units = [np.sort(rng.uniform(0, 100, 700)) for _ in range(4)]
    starts, stops = np.arange(1, 96, 4) + 0.02, np.arange(1, 96, 4) + 1.02
    clock = np.arange(0, 100, 0.01)
    data = nl.spikes(units, trials=(starts, stops), bin_ms=20, behavior=(clock, np.sin(clock)), seed=1)
    edges = np.arange(51) * 0.02
    expected = [[np.histogram(unit, start + edges)[0] for unit in units] for start in starts]
    np.testing.assert_array_equal(data.arrays["counts"], np.transpose(expected, (0, 2, 1)))
    assert np.abs(data.arrays["behavior"][:, :, 0] - np.sin(starts[:, None] + edges[:-1])).max() < 0.02
    np.testing.assert_allclose(data.arrays["times"], starts)
    around = nl.spikes(dict(zip([7, 3, 5, 9], units, strict=True)), trials=np.c_[starts, stops], bin_ms=20,
                       window_ms=[-40, 100], condition=np.arange(24) % 3)  # fmt: skip
    assert around.arrays["counts"].shape == (24, 7, 4) and around.arrays["unit_ids"].tolist() == [7, 3, 5, 9]
    np.testing.assert_array_equal(around.arrays["counts"][:, 2:, :], data.arrays["counts"][:, :5, :])
    for odd, message in (
        ([unit * 1000 for unit in units], "trials"),
        ([np.round(unit * 30000) for unit in units], "whole numbers"),
        ([unit[::-1] for unit in units], "unit 0 has spike times that run back"),
    ):
        with pytest.raises(DataError, match=message):
            nl.spikes(odd, trials=(starts, stops), bin_ms=20)
    with pytest.raises(DataError, match="spike times need trials"):
        nl.spikes(units, bin_ms=20)


def test_pynapple_objects_are_the_same_as_arrays():
    nap = pytest.importorskip("pynapple")
    rng = np.random.default_rng(0)
    units = {k: np.sort(rng.uniform(0, 100, 700)) for k in (4, 2, 8)}
    starts, stops, clock = np.arange(1, 96, 4.0), np.arange(1, 96, 4.0) + 1, np.arange(0, 100, 0.01)
    group = nap.TsGroup({k: nap.Ts(times) for k, times in units.items()})
    given = nl.spikes(group, trials=nap.IntervalSet(starts, stops), bin_ms=20, behavior=nap.Tsd(clock, np.sin(clock)))
    plain = nl.spikes({k: units[k] for k in group}, trials=(starts, stops), bin_ms=20, behavior=(clock, np.sin(clock)))
    for name, values in plain.arrays.items():
        np.testing.assert_array_equal(given.arrays[name], values)


def test_traces_and_images_train():
    arrays = simulated_traces(0, n_neurons=8, n_frames=600)
    data = nl.traces(arrays["traces"], rate_hz=10, behavior=arrays["behavior"], window=32, stride=None)
    traced = nl.train("gru", data, SMALL, folder="traced", verbose=False)
    assert traced.rates("val").shape == (1, 90, 8) and np.isfinite(traced.scores["val/mse"])
    with pytest.raises(ConfigError, match="predict takes spikes and images"):
        traced.predict(arrays["traces"])
    shown = simulated_images(0, n_images=80, n_neurons=6, side=8)
    data = nl.images(shown["images"], shown["responses"], rates=shown["rates"], seed=2)
    looked = nl.train("hsm", data, QUICK, folder="looked", verbose=False)
    rows = looked.data.recording.splits["test"].row
    np.testing.assert_array_equal(looked.predict(shown["images"][rows]), looked.rates("test"))
    with pytest.raises(DataError, match=r"new images have the shape \(2, 8, 9\)"):
        looked.predict(np.zeros((2, 8, 9)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nl.spikes(ARRAYS["counts"] + 0.5, bin_ms=20), "counts holds .*, but spike counts are whole numbers"),
        (lambda: nl.spikes([[[1, 2], [3]], [[4], [5]]], bin_ms=20), "counts is an array of Python objects"),
        (lambda: spikes(behavior=np.zeros((3, 12))), r"behavior has the shape \(3, 12, 1\)"),
        (lambda: nl.traces(np.zeros((4, 9)), rate_hz=0), "rate_hz=0: give frames per second"),
        (lambda: nl.images(np.zeros((4, 8, 8)), np.zeros((3, 2))), "responses has 3 rows for 4 images"),
        (lambda: nl.load("nowhere"), "nowhere is no run's folder: it has no run.json$"),
        (lambda: spikes(behaviour=np.zeros((3, 12))), "nl.spikes takes no 'behaviour'; did you mean 'behavior'"),
        (lambda: nl.images(np.ones((4, 8, 8)), np.ones((4, 2)), seeds=1), "nl.images takes no 'seeds'; .* 'seed'"),
        (lambda: nl.traces(np.ones((4, 9)), rate_hz=3, smooth=1), "nl.traces takes no 'smooth'; there are "),
        (lambda: spikes(bin_ms=0), "bin_ms holds 0, where bin widths in ms are at least 1$"),
        (lambda: spikes(split=np.zeros(3)), "split must be train, val or test, one for each of the trials, but is"),
        (lambda: nl.train("gru", ARRAYS["counts"]), r"^data is a ndarray: give a dataset's name, or nl.spikes\(...\)"),
        (lambda: nl.dataset(Path("mine.nwb")), "^data is a .*Path: .* {'data.path': 'FILE'}"),
        (
            lambda: nl.train("gru", "mine.nwb"),
            "^data=mine.nwb: no such option; a file of your own is data=nwb data.path",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_given(make, message):
    with pytest.raises(NeuroError, match=message):
        make()


def test_a_path_near_a_run_is_told_the_run(run):
    """A checkpoint in place of its run's folder, and a folder that holds runs."""
    with pytest.raises(ConfigError, match=f"give the folder of its run, {re.escape(str(run.folder))}$"):
        nl.load(run.checkpoint)
    with pytest.raises(ConfigError, match=r"no run.json; the newest run in it is \S+$"):
        nl.load(run.folder.parent)


def test_the_home_folder_is_filled_in(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.folder.parent))
    assert nl.load(f"~/{run.folder.name}").folder == run.folder
    with pytest.raises(FolderError, match="holds a run already"):
        nl.train("gru", spikes(), folder=f"~/{run.folder.name}", verbose=False)
