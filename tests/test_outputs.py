"""``predict.py`` for data without a benchmark: predictions and latents as h5, Kaggle's CSV, one-line refusals."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, command_here, here, record
from tiny import Tiny

from neuro_lightning.contracts import rates_of
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.errors import ConfigError, SubmissionError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.predict import predict
from neuro_lightning.runs.prediction import output_kind
from neuro_lightning.runs.prediction_files import target_file
from neuro_lightning.settings.settings import PredictSettings

TRUSTED = "trusted=[tiny,tiny_traces,pictures]"


def base(*words: str) -> list[str]:
    return [*(word for word in TINY if not word.startswith(("data=", "model", "trusted"))), TRUSTED, *words]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    here(folder / "traces", base=base("data=tiny_traces", "model=pca", "model.n_components=2"))
    here(folder / "pictures", base=base("data=pictures", "model=mean"))
    return folder


def written(*overrides: str):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=[TRUSTED, *overrides])
    return predict(cfg)


def test_latest_is_the_run_that_finished_last(runs, tmp_path):
    refused = command_here(tmp_path, "ckpt=latest", program="predict")
    said = "ckpt=latest: no run under outputs/ has finished; give ckpt=RUN, the folder of a run"
    assert refused.stderr == f"error: {said}\n"
    for age, name, status in ((3, "old", "finished"), (2, "new", "finished"), (1, "newest", "failed")):
        folder = shutil.copytree(runs / "traces", tmp_path / "outputs" / "x" / name)
        (folder / "run.json").write_text(json.dumps(record(folder) | {"status": status}))
        os.utime(folder / "run.json", (1e9 - age, 1e9 - age))
    done = command_here(tmp_path, "ckpt=latest", TRUSTED, program="predict")
    assert done.returncode == 0 and "ckpt=latest is outputs/x/new\n" in done.stdout, done.stderr
    assert (tmp_path / "outputs/x/new/predictions.h5").is_file()


def test_predictions_are_written_with_the_observed_targets(runs, tmp_path, capsys):
    path = written(f"ckpt={runs / 'traces'}", f"file={tmp_path / 'new' / 'predictions.h5'}")
    saved = load_checkpoint(runs / "traces", trusted=["tiny_traces"])
    with h5py.File(path) as file:
        assert set(file) == {"train", "val", "test", "unit_ids"}
        assert file.attrs["dataset"] == "tiny_traces" and file.attrs["simulated"] and file.attrs["kind"] == "traces"
        for split in ("train", "val", "test"):
            predictions, targets = file[split]["predictions"][()], file[split]["targets"][()]
            assert predictions.shape == targets.shape and predictions.shape[2] == 11
            assert np.isfinite(predictions).all() and np.isfinite(targets[..., :8]).all()
            own = rates_of(saved.model(torch.from_numpy(targets[..., :8])))
            np.testing.assert_allclose(predictions, own.numpy(), atol=1e-5)
        assert np.isnan(file["train/targets"][..., 8:]).any(), "what was not observed is NaN"
        assert file["train/condition"][()].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert "Scores on tiny_traces (simulated data)" in capsys.readouterr().out


def test_latents_are_written_into_the_folder_of_the_run(runs):
    path = written(f"ckpt={runs / 'traces'}", "output=latents")
    assert path == runs / "traces" / "latents.h5"
    with h5py.File(path) as file:
        assert {split: file[split]["latents"].shape for split in ("train", "val", "test")} == {
            "train": (7, 20, 2), "val": (1, 40, 2), "test": (1, 23, 2)
        }  # fmt: skip
        assert {"condition", "row"} <= set(file["val"])


def test_predictions_for_images_have_no_time_axis(runs, tmp_path):
    path = written(f"ckpt={runs / 'pictures'}", f"file={tmp_path / 'p.h5'}", "evaluate=false")
    with h5py.File(path) as file:
        assert file["val/predictions"].shape == file["val/targets"].shape == (10, 4)
        assert np.isnan(file["val/targets"][()]).any()


@pytest.mark.parametrize(
    ("run", "words", "error", "message"),
    [
        ("pictures", ["output=latents"], SubmissionError, "this model has no latents; output=predictions"),
        ("pictures", ["output=submission"], ConfigError, "pictures has no benchmark"),
        (
            "pictures",
            ["output=rates.h5"],
            ConfigError,
            r"rates.h5: give .* \(where it is written is file=PATH\)",
        ),
        ("pictures", ["merge_into=x.h5"], ConfigError, "merge_into joins submissions to the Neural Latents Benchmark"),
        ("traces", ["file=/proc/none/x.h5"], SubmissionError, "cannot be written .*file=PATH"),
    ],
)
def test_invalid_outputs_are_refused_in_one_line(runs, run, words, error, message):
    with pytest.raises(error, match=message) as refused:
        written(f"ckpt={runs / run}", *words)
    assert "\n" not in str(refused.value)


def test_latents_of_several_networks_are_refused(runs):
    with pytest.raises(ConfigError, match="the latents of several networks have no mean"):
        written(f"ckpt=[{runs / 'traces'},{runs / 'pictures'}]", "output=latents")


def test_predictions_of_one_run_are_written_into_its_folder(runs):
    assert written(f"ckpt={runs / 'pictures'}", "evaluate=false") == runs / "pictures" / "predictions.h5"


# ---- where files are written, and which are kept


def test_existing_files_are_not_overwritten(runs, tmp_path, monkeypatch):
    """Neither an earlier file nor the members file beside it."""
    monkeypatch.setattr("neuro_lightning.runs.predict.combine", None)  # it is refused before anything is predicted
    for name, words in (("p.h5", []), ("l.h5", ["output=latents"]), ("m.h5", [])):
        taken = tmp_path / (name if name != "m.h5" else "m.h5.json")
        taken.write_text("mine")
        with pytest.raises(ConfigError, match=rf"{taken.name} is there already: give overwrite=true to replace"):
            written(f"ckpt={runs / 'traces'}", f"file={tmp_path / name}", *words)
        assert taken.read_text() == "mine"


def test_overwrite_replaces_the_file_and_deletes_its_members_file(runs, tmp_path):
    (tmp_path / "p.h5").write_text("old")
    (tmp_path / "p.h5.json").write_text('{"pictures": {"members": []}}')
    path = written(f"ckpt={runs / 'pictures'}", f"file={tmp_path / 'p.h5'}", "overwrite=true", "evaluate=false")
    assert h5py.is_hdf5(path) and [file.name for file in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.parametrize("name", ["rates.npz", "rates.npy", "rates.mat", "rates", "rates.csv", "rates.h5.gz"])
def test_a_suffix_of_another_file_type_is_refused(runs, tmp_path, name):
    with pytest.raises(ConfigError, match=r"file=.*: the predictions of pictures are a \.h5 file; give file=NAME\.h5"):
        written(f"ckpt={runs / 'pictures'}", f"file={tmp_path / name}")
    with pytest.raises(ConfigError, match=r"the latents of tiny_traces are a \.h5 file"):
        written(f"ckpt={runs / 'traces'}", f"file={tmp_path / name}", "output=latents")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ckpt", "words", "wanted"),
    [
        ("run", [], "run/predictions.h5"),
        ("run/checkpoints/last.ckpt", [], "run/predictions_last.h5"),
        ("run", ["output=latents"], "run/latents.h5"),
        ("run", ["output=submission"], "run/submission_tiny_10ms.h5"),
        ("sweep", [], "sweep/predictions_tiny_mean_of_2.h5"),
        ("sweep", ["ensemble=top", "output=submission"], "sweep/submission_tiny_10ms_top_of_2.h5"),
        (["run", "run/checkpoints/last.ckpt"], [], "outputs/ensembles/predictions_tiny_mean_of_2.h5"),
    ],
)
def test_default_path_names_folder_and_content(tmp_path, spikes, monkeypatch, ckpt, words, wanted):
    monkeypatch.chdir(spikes)
    kind = next((word.split("=")[1] for word in words if word.startswith("output=")), None)
    data = Tiny(n_train=37, n_val=11, poison={})
    named = f"[{','.join(ckpt)}]" if isinstance(ckpt, list) else ckpt
    with initialize_config_dir(str(ROOT / "conf")):
        settings = PredictSettings.resolve(compose("predict", overrides=[f"ckpt={named}", *words]))
    members = find_members(settings.named)[0]
    assert target_file(settings, output_kind(kind, data.recording), data, members) == Path(wanted)


@pytest.fixture(scope="module")
def spikes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spikes")
    here(folder / "run", "trainer.max_epochs=1")
    for job in ("0_a", "1_b"):
        shutil.copytree(folder / "run", folder / "sweep" / job)
    (folder / "sweep" / "multirun.yaml").touch()
    return folder


def test_targets_of_spikes_include_forward_bins(spikes, tmp_path):
    path = written(f"ckpt={spikes / 'run'}", f"file={tmp_path / 'p.h5'}")
    trials = Tiny(n_train=37, n_val=11, poison={}).recording.splits["val"]
    with h5py.File(path) as file:
        targets, predictions = (file["val"][name][()] for name in ("targets", "predictions"))
        assert targets.shape == predictions.shape == (11, 15, 10)
    np.testing.assert_array_equal(targets[:, :12, 6:], trials.heldout)
    np.testing.assert_array_equal(targets[:, 12:, :6], trials.heldin_forward)


def test_merging_keeps_other_datasets(spikes, tmp_path, capsys):
    path, run = tmp_path / "s.h5", f"ckpt={spikes / 'run'}"
    with h5py.File(path, "w") as file:
        file["other/eval_rates_heldin"] = np.ones((2, 3, 4), np.float32)
        file["other/eval_rates_heldout"] = np.ones((2, 3, 1), np.float32)
    written(run, f"merge_into={path}", "evaluate=false")
    with h5py.File(path) as file:
        assert set(file) == {"other", "tiny_10"} and (file["other/eval_rates_heldin"][()] == 1).all()
    with pytest.raises(ConfigError, match=r"s\.h5 holds tiny_10 already: give overwrite=true to replace it"):
        written(run, f"merge_into={path}", "evaluate=false")
    with pytest.raises(ConfigError, match=r"s\.h5 is there already"):
        written(run, "output=submission", f"file={path}", "evaluate=false")
    written(run, f"merge_into={path}", "evaluate=false", "overwrite=true")
    with h5py.File(path) as file:
        assert set(file) == {"other", "tiny_10"}
    with pytest.raises(SubmissionError, match=r"none\.h5: no such file"):
        written(run, f"merge_into={tmp_path / 'none.h5'}", "evaluate=false")


def test_members_are_printed_before_they_predict(spikes, tmp_path, capsys):
    written(f"ckpt={spikes / 'sweep'}", f"file={tmp_path / 'p.h5'}", "evaluate=false")
    said = capsys.readouterr().out
    assert said.index("2 checkpoints:") < said.index("0_a") < said.index("1_b") < said.index("p.h5")
