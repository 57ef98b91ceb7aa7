"""``predict.py`` for data without a benchmark: predictions and latents as h5, Kaggle's CSV, one-line refusals."""

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, here

from neuro_lightning.checkpoint import load_checkpoint
from neuro_lightning.contracts import rates_of
from neuro_lightning.errors import ConfigError, SubmissionError
from neuro_lightning.run import predict

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


def test_predictions_stand_beside_what_was_observed(runs, tmp_path, capsys):
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


def test_latents_go_into_the_runs_folder(runs):
    path = written(f"ckpt={runs / 'traces'}", "output=latents")
    assert path == runs / "traces" / "latents.h5"
    with h5py.File(path) as file:
        assert {split: file[split]["latents"].shape for split in ("train", "val", "test")} == {
            "train": (7, 20, 2), "val": (1, 40, 2), "test": (1, 23, 2)
        }  # fmt: skip
        assert {"condition", "row"} <= set(file["val"])


def test_images_have_no_bins(runs, tmp_path):
    path = written(f"ckpt={runs / 'pictures'}", f"file={tmp_path / 'p.h5'}", "evaluate=false")
    with h5py.File(path) as file:
        assert file["val/predictions"].shape == file["val/targets"].shape == (10, 4)
        assert np.isnan(file["val/targets"][()]).any()


@pytest.mark.parametrize(
    ("run", "words", "error", "message"),
    [
        ("pictures", ["output=latents"], SubmissionError, "this model has no latents; output=predictions"),
        ("pictures", ["output=submission"], ConfigError, "nobody takes submissions for pictures"),
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
def test_what_cannot_be_is_one_line(runs, run, words, error, message):
    with pytest.raises(error, match=message) as refused:
        written(f"ckpt={runs / run}", *words)
    assert "\n" not in str(refused.value)


def test_latents_of_several_networks_are_refused(runs):
    with pytest.raises(ConfigError, match="the latents of several networks have no mean"):
        written(f"ckpt=[{runs / 'traces'},{runs / 'pictures'}]", "output=latents")


def test_predictions_of_one_run_lie_beside_it(runs):
    assert written(f"ckpt={runs / 'pictures'}", "evaluate=false") == runs / "pictures" / "predictions.h5"


def test_an_ending_that_says_something_else_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"the predictions of pictures are a .h5 file; give file=NAME.h5"):
        written(f"ckpt={runs / 'pictures'}", f"file={tmp_path / 'p.csv'}")
    assert not list(tmp_path.iterdir())
