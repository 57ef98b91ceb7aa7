"""The docs' main commands, as a user types them, from a recording to a scored submission."""

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import h5py
import hydra
import numpy as np
import pytest
from hydra import initialize_config_dir
from runs import command_here

from neuro_lightning import cli
from neuro_lightning.artifacts.metrics_csv import read_metrics
from neuro_lightning.errors import NeuroError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.predict import predict as run_predict
from neuro_lightning.runs.train import train as run_train

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["logger=csv", "callbacks=minimal", "trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
         "model.hidden=8", "model.layers=1"]  # fmt: skip


def compose(name, overrides):
    with initialize_config_dir(version_base=None, config_dir=str(ROOT / "conf")):
        return hydra.compose(name, overrides=list(overrides))


def train(folder, run, *overrides):
    with contextlib.chdir(folder):
        return run_train(compose("train", [*QUICK, f"paths.output_dir={run}", *overrides]), overrides)


def predict(folder, *overrides):
    """What the command prints."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        run_predict(compose("predict", overrides))
    return printed.getvalue()


def module(folder, name, *words):
    """What ``python -m`` prints."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        assert import_module(name).main(words) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained runs on simulated twins: one without, one with decode groups."""
    folder = tmp_path_factory.mktemp("road")
    twin = ["data.simulate=true", "data.bin_ms=20"]
    train(folder, "maze", "data=mc_maze_small", *twin)
    train(folder, "bump", "data=area2_bump", *twin)
    return folder


@pytest.mark.slow
def test_a_submission_of_two_datasets_scores_as_the_runs_said(runs):
    shown = predict(runs, "ckpt=maze", "file=submission.h5")
    predict(runs, "ckpt=bump", "merge_into=submission.h5")
    with h5py.File(runs / "submission.h5") as file:
        assert set(file) == {"mc_maze_small_20", "area2_bump_20"}
        assert all(
            array.dtype == np.float32 and array.compression == "gzip" for array in file["mc_maze_small_20"].values()
        )
    which = ["--dataset", "area2_bump", "--root", "data/simulated/seed_0", "--phase", "val", "--bin-ms", "20"]
    module(runs, "neuro_lightning.data.nlb.__main__", *which, "--out", "targets.h5")
    scored = module(runs, "neuro_lightning.submission.score", "targets.h5", "submission.h5", "--json", "s.json")
    assert "area2_bump_20_split" in scored
    (entry,) = json.loads((runs / "s.json").read_text())
    said = json.loads((runs / "bump" / "run.json").read_text())["metrics"]
    for official, ours in (("co-bps", "co_bps"), ("vel R2", "vel_r2"), ("psth R2", "psth_r2"), ("fp-bps", "fp_bps")):
        assert entry["area2_bump_20_split"][official] == pytest.approx(said[f"val/{ours}"], abs=1e-6)
        maze = json.loads((runs / "maze" / "run.json").read_text())["metrics"][f"val/{ours}"]
        assert f"{maze:.3f}" in shown or f"{maze:.4f}" in shown, "predict.py scores validation trials at once"


@pytest.mark.slow
def test_several_checkpoints_give_the_mean_of_their_rates(runs):
    for name, ckpt in (("best", "maze/checkpoints/best.ckpt"), ("last", "maze/checkpoints/last.ckpt"),
                       ("mean", "[maze/checkpoints/best.ckpt,maze/checkpoints/last.ckpt]")):  # fmt: skip
        predict(runs, f"ckpt={ckpt}", f"file={name}.h5", "evaluate=false")
    rates = {}
    for name in ("best", "last", "mean"):
        with h5py.File(runs / f"{name}.h5") as file:
            rates[name] = file["mc_maze_small_20/eval_rates_heldout"][()]
    np.testing.assert_allclose(rates["mean"], (rates["best"] + rates["last"]) / 2, rtol=1e-5)
    with pytest.raises(NeuroError, match=r"bump/.* and .*maze/.* cannot be taken together, .*: name is area2_bump"):
        predict(runs, "ckpt=[maze,bump]", "file=x.h5")
    assert not (runs / "x.h5").exists()


@pytest.mark.slow
def test_the_test_phase_predicts_the_hidden_trials(runs):
    shown = predict(runs, "ckpt=maze", "data.phase=test", "file=test.h5")
    assert "nothing to score" in shown
    with h5py.File(runs / "test.h5") as file:
        shapes = {name: array.shape for name, array in file["mc_maze_small_20"].items()}
    with h5py.File(runs / "submission.h5" if (runs / "submission.h5").exists() else runs / "best.h5") as file:
        val = {name: array.shape for name, array in file["mc_maze_small_20"].items()}
    assert shapes["train_rates_heldin"][0] == val["train_rates_heldin"][0] + val["eval_rates_heldin"][0]
    assert shapes["eval_rates_heldout"][1:] == val["eval_rates_heldout"][1:]


@pytest.mark.slow
def test_real_recordings_and_another_file_of_the_same_units(shared_data, tmp_path):
    recording = shared_data / "nlb" / "mc_maze_430" / "sub-Jenkins_ses-full_desc-test_ecephys.nwb"
    train(tmp_path, "run", "data=nwb", f"data.path={recording}", "baselines=null")
    shown = predict(tmp_path, "ckpt=run")
    assert (tmp_path / "run" / "predictions.h5").is_file(), "no benchmark takes a submission of it"
    assert "recorded data" in shown and "co-bps" in shown
    other = tmp_path / "other.nwb"
    some_trials(recording, other, keep=40)
    with pytest.raises(NeuroError, match=r"numbers of units count anew in every session"):
        predict(tmp_path, "ckpt=run", f"data.path={other}", "file=other.h5")
    predict(tmp_path, "ckpt=run", f"data.path={other}", "file=other.h5", "data.same_units=true", "output=predictions")
    trained = load_checkpoint(tmp_path / "run").info["rows"]
    with h5py.File(tmp_path / "other.h5") as file:  # the trials that it shares with the other are known again
        for split in ("train", "val"):
            assert file[f"{split}/row"][()].tolist() == [row for row in trained[split] if row < 40]
        assert file["train/predictions"].shape[1:] == (140, 137) and "test" not in file
    small = next((shared_data / "nlb" / "mc_maze_small").glob("*.nwb"))
    with pytest.raises(NeuroError, match=r"lacks .* units that the model was trained on"):
        predict(tmp_path, "ckpt=run", f"data.path={small}", "file=no.h5")
    assert not (tmp_path / "no.h5").exists()


def some_trials(source: Path, target: Path, keep: int) -> None:
    """Another recording of the same units: the first trials of ``source``."""
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile

    from neuro_lightning.data.formats.nwb import open_nwb

    nwb = open_nwb(source)
    end = nwb.trials["stop_time"][keep - 1]
    file = NWBFile("a part", "part", datetime(2020, 1, 1, tzinfo=UTC))
    for unit, times, intervals in zip(nwb.unit_ids, nwb.spike_times, nwb.obs_intervals, strict=True):
        file.add_unit(id=int(unit), spike_times=times[times <= end], obs_intervals=intervals[:keep])
    for k in range(keep):
        file.add_trial(start_time=nwb.trials["start_time"][k], stop_time=nwb.trials["stop_time"][k])
    with NWBHDF5IO(target, "w") as io:
        io.write(file)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=nwb"], "data.path must be given"),
        (["data=nwb", "data.path=nothing.nwb"], "nothing.nwb"),
        (["data=mc_rtt", "data.download=false"], "sub-Indy_desc-train_behavior+ecephys.nwb"),
        (["data=mc_rtt", "data.simulate=true", "data.bin_ms=7"], "bin_ms"),
        (["trainer=gpu", "trainer.devices=99"], "try trainer=cpu"),
        (["model.masking.rate=2"], "model.masking: masking.rate must lie in [0, 1)"),
        (["seed=abc"], "seed=abc: must be a whole number"),
        (["+model.hiden=3"], "model.hiden: GRU takes no such argument"),
        (["monitor=val/vel_r3"], "monitor=val/vel_r3: it is not logged"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(tmp_path, overrides, message):
    with pytest.raises(NeuroError, match=re.escape(message)):
        train(tmp_path, "run", *overrides)
    assert not (tmp_path / "run" / "checkpoints").exists()


SMALL = ["data.sizes.n_train=40", "data.sizes.n_val=10", "data.sizes.n_test=10", "data.sizes.n_conditions=10"]


@pytest.mark.parametrize("mode", ["fast", "limit", "overfit", "profile"])
def test_every_debug_mode_runs(tmp_path, mode):
    words = [f"debug={mode}", "paths.output_dir=run", *SMALL, "data.batch_size=16", "model.hidden=8"]
    words += ["trainer.max_epochs=50"] * (mode == "overfit")
    with contextlib.chdir(tmp_path):
        run_train(compose("train", words), words)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished" and record["checkpoints"]["best"]
    if mode == "overfit":  # the same batch again and again
        losses = read_metrics(tmp_path / "run" / "metrics.csv")["train/loss"]
        losses = losses[np.isfinite(losses)]
        assert losses[-10:].mean() < losses[:10].mean() - 0.005


def test_a_run_shorter_than_its_validation_interval_is_validated_at_its_end(tmp_path):
    train(tmp_path, "run", *SMALL, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=5")
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_a_chaotic_network_trains(tmp_path):
    score = train(tmp_path, "run", "data=chaotic_rnn", *SMALL)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert score == record["metrics"]["val/co_bps"] and record["oracle"]["val"]["rates_r2"] > 0.999


def test_an_lfads_file_trains_and_is_predicted(shared_data, tmp_path):
    file = shared_data / "lorenz" / "lfads_lorenz.h5"
    train(tmp_path, "run", "data=lfads_h5", f"data.path={file}", "baselines=null")
    assert "simulated data" in predict(tmp_path, "ckpt=run", "file=rates.h5", "output=submission")
    with h5py.File(tmp_path / "rates.h5") as written:
        assert written["lfads_h5_10/eval_rates_heldout"].shape == (160, 100, 15)
    with pytest.raises(NeuroError, match="cannot be predicted from another file"):
        predict(tmp_path, "ckpt=run", "data.path=other.h5", "file=no.h5")


@pytest.mark.parametrize(("mode", "worst"), [("max", float("-inf")), ("min", float("inf"))])
def test_a_failed_job_of_a_sweep_is_its_worst(mode, worst):
    def fails():
        raise NeuroError("no data")

    assert cli._report_errors(fails, sweep=True, worst=cli._worst_objective(mode)) == worst
    with pytest.raises(SystemExit, match="error: no data"):
        cli._report_errors(fails, sweep=False)


@pytest.mark.parametrize("sweep", [True, False])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, sweep, capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    (tmp_path / "file").touch()

    def in_a_library():
        try:
            (tmp_path / "file" / "figures").mkdir(parents=True)
        except OSError as error:
            raise RuntimeError("not saved") from error

    def read_only():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "file" / "figures"))

    for job in (in_a_library, read_only):
        if sweep:
            assert cli._report_errors(job, sweep=True, worst=-1.0) == -1.0
            said = capsys.readouterr().err.strip()
        else:
            with pytest.raises(SystemExit) as ended:
                cli._report_errors(job, sweep=False)
            said = str(ended.value)
        assert re.fullmatch(rf"error: {tmp_path}/file.* cannot be written .*hydra\.run\.dir.*paths\.cache.*", said)
    with pytest.raises(ValueError, match="no place"):  # what is not about a place stays as it is
        cli._report_errors(lambda: int("no place"), sweep=False)


def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path):
    train(tmp_path, "run", *SMALL)
    before = (tmp_path / "run" / "run.json").read_text()
    last = "resume=run/checkpoints/last.ckpt"
    for overrides, message in ((["trainer.max_epochs=1"], "has trained 2 epochs already"), (["model.hidden=9"], "fit")):
        with pytest.raises(NeuroError, match=message):
            train(tmp_path, "run", *SMALL, last, *overrides)
        assert (tmp_path / "run" / "run.json").read_text() == before


def test_an_interrupted_run_says_how_it_is_resumed(tmp_path):
    words = [sys.executable, str(ROOT / "train.py"), *QUICK, *SMALL, "trainer.max_epochs=100000", "hydra.run.dir=run"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "python train.py resume=run" in error and "Traceback" not in error
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    done = command_here(tmp_path, "data=nwb", "data.path=nothing.nwb", "logger=csv")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "nothing.nwb" in done.stderr
