"""Checkpoints and run folders that version 0.1.0 wrote still open, predict and resume; see old_runs/README.md.

A change that renames a class, a module or a key of these files needs a translation where they are read.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from runs import command_here, record, rows

from neuro_lightning.artifacts.old_names import update_override
from neuro_lightning.artifacts.records import read_record
from neuro_lightning.contracts import rates_of, run_network
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.options import check_options

OLD = Path(__file__).resolve().parent / "old_runs"
FOLDERS = sorted(path.parent.name for path in OLD.glob("*/run.json"))
RESUMABLE = ("gru", "lfads", "nwb")
DIGEST = "cc708eeb2c57b5822f4b67763ac81bab98f7c2d73e1854903093e6e07a8f496d"  # of all files but README.md
NUMBERS = 24  # of a model's outputs that are kept


def numbers_of(saved) -> np.ndarray:
    """Some of the rates that a model predicts from a fixed input: three trials of spikes, traces or grey levels."""
    spec = saved.spec
    shape = (3, *spec.image_shape) if spec.kind == "images" else (3, spec.n_bins, spec.n_in)
    inputs = (torch.arange(np.prod(shape)) * 7 % 5).reshape(shape).float()
    if spec.kind == "spikes":
        inputs = (inputs == 4).float()
    output = run_network(saved.model.net, {"inputs": inputs, "condition": torch.tensor([0, 1, 2])})
    values = rates_of(output).flatten().double().numpy()
    return values[np.linspace(0, len(values) - 1, NUMBERS).astype(int)]


@pytest.fixture(scope="module")
def expected():
    with np.load(OLD / "outputs.npz") as file:
        return dict(file)


def test_the_files_are_as_they_were_written(expected):
    """No search and replace over the repository has changed them."""
    digest = hashlib.sha256()
    for path in sorted(path for path in OLD.rglob("*") if path.is_file() and path.suffix != ".md"):
        digest.update(f"{path.relative_to(OLD).as_posix()}\n".encode() + path.read_bytes())
    assert digest.hexdigest() == DIGEST
    assert len(FOLDERS) >= 35 and sorted(expected) == FOLDERS


@pytest.mark.parametrize("name", FOLDERS)
def test_the_checkpoint_gives_the_stored_outputs(name, expected):
    saved = load_checkpoint(OLD / name)
    np.testing.assert_allclose(numbers_of(saved), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_run_folder_and_its_data_can_be_read(name):
    """The recorded run is finished, and the checkpoint's data config builds a data module of today."""
    saved, run = load_checkpoint(OLD / name), read_record(OLD / name)
    assert run["status"] == "finished" and run["config"]["monitor"] in run["metrics"]
    data = instantiate(OmegaConf.create(saved.data), trusted=())
    assert data.batch_size == run["config"]["data"]["batch_size"]
    assert saved.identity["name"] == saved.spec.dataset and not saved.identity["older"]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder to work in, with a copy of an old run and of the recordings that the old runs read."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD / "recordings", tmp_path / "recordings")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(OLD / name, tmp_path / name))

    return copy


@pytest.mark.parametrize("name", RESUMABLE)
def test_an_old_run_predicts_with_the_score_of_its_record(name, copied):
    """The data are found to be those that trained it, and score on them as they did."""
    folder = copied(name)
    changes = ["data.cache_dir=cache"] if "cache_dir" in load_checkpoint(folder).data else []
    said = command_here(
        Path(), f"ckpt={folder.name}", "output=predictions", "file=rates.h5", *changes, program="predict"
    )
    scores = record(folder)["metrics"]
    score = scores.get("test/co_bps", scores["val/co_bps"])  # predictions are scored on the last labelled split
    assert Path("rates.h5").is_file() and f"{score:.4f}" in said.stdout, said


def test_the_models_of_an_old_sweep_predict_together(copied):
    folder = copied("sweep")
    said = command_here(Path(), f"ckpt={folder.name}", "file=rates.h5", program="predict")
    assert Path("rates.h5").is_file() and "2 checkpoints" in said.stdout, said


def test_an_old_sweep_is_resumed_with_nothing_left_to_do(copied):
    """Both jobs are found to be finished, and the table has the same scores."""
    folder = copied("sweep")
    jobs = sorted(folder.glob("*/run.json"))
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in jobs]
    table = (folder / "sweep.csv").read_text()
    said = command_here(Path(), "-m", f"sweep.resume={folder.name}")
    assert said.returncode == 0 and (folder / "sweep.csv").read_text() == table, said
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in jobs]


@pytest.mark.parametrize("name", RESUMABLE)
def test_an_old_run_is_resumed(name, copied):
    """It trains a third epoch in its own folder, under its own config."""
    folder = copied(name)
    before = record(folder)
    changes = ["paths.cache=cache"] if "cache_dir" in before["config"]["data"] else []
    said = command_here(Path(), f"resume={folder.name}", "trainer.max_epochs=3", *changes)
    after = record(folder)
    assert (after["status"], after["run_id"]) == ("finished", before["run_id"]), said
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2"]
    assert read_record(OLD / name)["metrics"] == before["metrics"], "the fixture itself is left as it is"


def test_keys_that_have_moved_into_groups_are_translated():
    """What an old run was started with, and a key that is typed today."""
    ndt, gru = "neuro_lightning.models.ndt.NDT", "neuro_lightning.models.gru.GRU"
    assert update_override("model.layer_dropout=0.3", ndt) == "model.dropout.layers=0.3"
    assert update_override("++model.reach_ms=[20,80]", ndt) == "++model.attention.reach_ms=[20,80]"
    assert update_override("model.inputs.linear_embedder=false", ndt) == "model.readin.width=null"
    assert update_override("model.input_dropout=0.3", gru) == "model.readin.dropout=0.3"
    for word, model in (("model.layer_dropout=0.3", gru), ("model.width=3", ndt), ("data.reach_ms=1", ndt)):
        assert update_override(word, model) == word
    with pytest.raises(ConfigError, match=r"^model.contrast has moved: write model.contrast.weight=0.1$"):
        check_options(["model=stndt", "model.contrast=0.1"], "conf")
    with pytest.raises(ConfigError, match=r"^model.init_bias_mean has moved: write model.readout.start_at_mean=false$"):
        check_options(["model=lstm_autoencoder", "model.init_bias_mean=false"], "conf")
    check_options(["model=gru", "model.layer_dropout=0.1"], "conf")
