"""Which data a model was trained on: what differs is found by name, and trials that trained are known again."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, here
from test_nwb_trials import STARTS, random_spikes, write
from tiny import Tiny

from neuro_lightning.artifacts.old_names import update_identity
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.identity import identify, identity_of, trial_keys
from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.nlb.twin import write_twin
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.same_data import differences, find_training_trials, same_session
from neuro_lightning.data.twin_files import write_twin_files
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.models.base import CHECKPOINT_KEY
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.runs.predict import predict

BASE = [
    *(word for word in TINY if not word.startswith(("data=", "trainer.max_epochs"))),
    "data=nwb", "data.bin_ms=20", "trainer.max_epochs=1", "paths.cache=${paths.output_dir}/cache",
]  # fmt: skip
CONFIG = {"path": "a.nwb", "align": "go", "batch_size": 3, "seed": 0}


def recording(seed: int = 0, rows=(range(8), range(8, 12)), **values) -> Recording:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, (12, 10, 5)).astype(np.uint8)
    splits = {
        name: Trials(counts[list(part)], row=np.array(part)) for name, part in zip(("train", "val"), rows, strict=True)
    }
    return Recording("tiny", 5, splits, np.arange(5), **values)


def of_file(path, content: bytes = b"spikes", **values) -> Recording:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return recording(sources=[{"path": str(path), "size": len(content)}], **values)


def keys(one, other, **options) -> list[str]:
    return [found.key for found in differences(one, other, **options)]


def test_moved_data_are_the_same(tmp_path):
    one = identify(of_file(tmp_path / "a" / "x.nwb"), CONFIG)
    assert one["places"]["path"].startswith("/") and one["sources"][0]["sha256"]
    for path in (tmp_path / "b" / "x.nwb", tmp_path / "a" / "renamed.nwb"):
        other = identify(of_file(path), {**CONFIG, "path": str(path), "batch_size": 9, "new_key": 1})
        assert keys(one, other) == []


def test_differences_are_named(tmp_path):
    one = identify(of_file(tmp_path / "x.nwb"), CONFIG)
    assert keys(one, identify(of_file(tmp_path / "x.nwb", b"others"), CONFIG)) == ["the file"]
    assert keys(one, identify(of_file(tmp_path / "y.nwb", b"others"), CONFIG)) == ["the file"]
    same = of_file(tmp_path / "x.nwb")
    assert keys(one, identify(same, {**CONFIG, "align": "cue"})) == ["data.align"]
    assert keys(one, identify(replace(same, name="other"), CONFIG)) == ["name"]
    assert keys(one, identify(replace(same, simulated=True), CONFIG)) == ["simulated"]
    moved = of_file(tmp_path / "x.nwb", rows=(range(4, 12), range(4)))
    assert set(keys(one, identify(moved, CONFIG))) == {"the train split", "the val split"}
    assert keys(one, identify(moved, CONFIG), splits=False) == []


def test_split_options_are_compared_by_the_split_they_give(tmp_path):
    """Of one file the trials are compared; without a file another seed is another recording."""
    other_seed = {**CONFIG, "seed": 1}
    of_one_file = [identify(of_file(tmp_path / "x.nwb"), config) for config in (CONFIG, other_seed)]
    assert keys(*of_one_file, splits=False) == [] and keys(*of_one_file) == ["data.seed"]
    drawn = [identify(recording(seed), {**CONFIG, "seed": seed}) for seed in (0, 1)]
    assert keys(*drawn, splits=False) == ["data.seed"]
    assert keys(identify(recording(0), CONFIG), identify(recording(1), CONFIG)) == ["the train split", "the val split"]


def test_a_simulated_file_that_is_written_anew_is_the_same(tmp_path):
    one = identify(of_file(tmp_path / "x.nwb", simulated=True), CONFIG)
    assert keys(one, identify(of_file(tmp_path / "x.nwb", b"other bytes", simulated=True), CONFIG)) == []
    other = identify(of_file(tmp_path / "x.nwb", b"other bytes", seed=1, simulated=True), CONFIG)
    assert keys(one, other) == ["the file"]


def test_another_version_of_a_twin_is_other_data(tmp_path):
    """Its images have the same rows, and even the images may be the same."""
    trials = ImageTrials(images=np.zeros((4, 1, 2, 2), np.float32), responses=np.ones((4, 3)), row=np.arange(4))
    found = {}
    for version in (1, 2):
        folder = write_twin_files(tmp_path / str(version), {"twin": version}, lambda: ({"x": Path.touch}, {}))
        sources = [{"path": str(folder / "x"), "size": 0}]
        shown = Recording("uwndc19", 0, {"train": trials}, np.arange(3), kind="images", simulated=True, sources=sources)
        found[version] = identify(shown, CONFIG)
    assert [found[version]["twin"] for version in (1, 2)] == [1, 2]
    assert keys(found[1], found[2]) == ["the version of the simulated twin"] and keys(found[1], found[1]) == []
    old = update_identity({key: value for key, value in found[1].items() if key != "twin"})
    assert keys(old, found[1]) == [] and keys(old, found[2]) == ["the version of the simulated twin"]
    assert update_identity({**old, "name": "stringer_spontaneous", "twin": 3})["twin"] == 3


def test_trials_of_one_file_are_compared_by_row(tmp_path):
    one, changed = of_file(tmp_path / "x.nwb"), of_file(tmp_path / "x.nwb")
    changed.splits["val"].heldin[0] += 1
    assert keys(identify(one, CONFIG), identify(changed, CONFIG)) == []


@pytest.mark.parametrize("file", [True, False])
def test_training_trials_are_recognised(tmp_path, file):
    first = of_file(tmp_path / "x.nwb") if file else recording()
    other = replace(first, splits={"train": first.splits["train"], "val": first.splits["train"].take(np.arange(2, 5))})
    whole = {name: identify(each, CONFIG) for name, each in (("first", first), ("other", other))}
    assert find_training_trials(whole["first"], ["train"], whole["other"], "val").all()
    assert not find_training_trials(whole["first"], ["train"], whole["first"], "val").any()
    assert find_training_trials(whole["first"], ["train", "val"], whole["first"], "val").all(), "after a refit"


def test_rows_that_repeat_between_splits_are_not_compared():
    data = Tiny(n_train=37, n_val=11, poison={})
    identity = identify(data.recording, {})
    assert not find_training_trials(identity, ["train"], identity, "val").any()


def test_silent_trials_do_not_count_as_the_same():
    counts = np.zeros((3, 10, 5), np.uint8)
    counts[2] = 1
    found = trial_keys(Trials(counts))
    assert found[:2].tolist() == [0, 0] and found[2] != 0


def test_an_identity_is_kept_as_tensors_and_plain_values(tmp_path):
    identity = identify(of_file(tmp_path / "x.nwb"), CONFIG)
    torch.save(identity, tmp_path / "x.pt")
    again = torch.load(tmp_path / "x.pt", weights_only=True)
    assert keys(identity, again) == [] and again["config"] == CONFIG


# ---- a trained model meets files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on ``day1.nwb``, given by a path relative to the folder it was trained in."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder / "day1.nwb", random_spikes(), STARTS)
    with contextlib.chdir(folder):
        return here(folder / "run", base=[*BASE, "data.path=day1.nwb"])


def predicted(run, folder, *words):
    """The splits of what is predicted, with the trials' rows."""
    with initialize_config_dir(str(ROOT / "conf")):
        words = [f"ckpt={run.folder}", f"file={folder / 'p.h5'}", "output=predictions", *words]
        predict(compose("predict", overrides=words))
    with h5py.File(folder / "p.h5") as file:
        return {split: file[split]["row"][()].tolist() for split in file if split != "unit_ids"}


def test_a_relative_path_is_the_file_that_trained(run, tmp_path, monkeypatch):
    write(tmp_path / "day1.nwb", random_spikes(5), STARTS)
    monkeypatch.chdir(tmp_path)
    found = predicted(run, tmp_path)
    identity = read_checkpoint(run.folder)[CHECKPOINT_KEY]["identity"]
    assert found == {split: part["rows"].tolist() for split, part in identity["trials"].items()}


def test_a_replaced_file_is_refused_and_its_trials_stay_what_they_were(run, tmp_path, caplog):
    """The run's own file, cut anew: sorted spikes have moved, and the table has a new first trial."""
    before = (run.folder.parent / "day1.nwb").read_bytes()
    try:
        path = write(run.folder.parent / "day1.nwb", random_spikes(9), np.r_[0.02, STARTS[2:]])
        with pytest.raises(CheckpointError, match=r"trained on other data: the file was .*day1\.nwb \(SHA-256 "):
            predicted(run, tmp_path)
        with pytest.raises(CheckpointError, match=r"cannot be resumed with these data: the file was .*day1\.nwb"):
            here(run.folder, f"resume={run.folder / 'checkpoints/last.ckpt'}", base=[*BASE, f"data.path={path}"])
        found = predicted(run, tmp_path, f"data.path={path}")
    finally:
        (run.folder.parent / "day1.nwb").write_bytes(before)
    trials = read_checkpoint(run.folder)[CHECKPOINT_KEY]["identity"]["trials"]
    old = {split: {row - 1 for row in part["rows"].tolist() if row > 1} for split, part in trials.items()}
    assert set(found["train"]) - {0} == old["train"] and set(found["val"]) - {0} == old["val"]
    assert "test" not in found and "trained the model" in caplog.text


def test_a_moved_file_is_the_same(run, tmp_path, caplog):
    moved = tmp_path / "moved.nwb"
    moved.write_bytes((run.folder.parent / "day1.nwb").read_bytes())
    assert set(predicted(run, tmp_path, f"data.path={moved}")) == {"train", "val"}
    assert not caplog.text, "it is not another one"
    other = write(tmp_path / "day2.nwb", random_spikes(7), STARTS)
    several = SimpleNamespace(folder=f"[{run.folder},{run.folder}/checkpoints/last.ckpt]")
    with pytest.raises(ConfigError, match=r"ensemble=top: the validation trials of the file that trained .*day2\.nwb"):
        predicted(several, tmp_path, f"data.path={other}", "data.same_units=true", "ensemble=top", "overwrite=true")


def test_units_of_another_day_are_not_matched_by_number(run, tmp_path, caplog):
    other = write(tmp_path / "day2.nwb", random_spikes(7), STARTS)
    with pytest.raises(DataError, match=r"session day2 of 2020.*the model of session day1 .* data\.same_units=true"):
        predicted(run, tmp_path, f"data.path={other}")
    assert predicted(run, tmp_path, f"data.path={other}", "data.same_units=true") == {"test": list(range(20))}
    assert "taken for the same by their numbers alone" in caplog.text
    with pytest.raises(ConfigError, match=r"data\.same_units=true is about another file's units"):
        predicted(run, tmp_path, "data.same_units=true")


def test_training_trials_are_recognised_in_a_renamed_file(run, tmp_path):
    """Exported again as a session of its own: what the trials hold tells."""
    copy = write(tmp_path / "export.nwb", random_spikes(), STARTS)
    found = predicted(run, tmp_path, f"data.path={copy}", "data.same_units=true")
    trials = read_checkpoint(run.folder)[CHECKPOINT_KEY]["identity"]["trials"]
    assert found == {split: part["rows"].tolist() for split, part in trials.items()}


@pytest.fixture
def old(run, tmp_path):
    """The run as an earlier version would have left it, in a folder of its own."""
    folder = Path(shutil.copytree(run.folder, tmp_path / "old"))
    shutil.copy(run.folder.parent / "day1.nwb", tmp_path / "day1.nwb")
    for path in (folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        content[CHECKPOINT_KEY].pop("identity")
        for name in ("times", "session"):
            content[CHECKPOINT_KEY]["info"].pop(name)
        content[CHECKPOINT_KEY]["data"]["path"] = str(tmp_path / "day1.nwb")
        torch.save(content, path)
    return SimpleNamespace(folder=folder)


def test_an_older_checkpoint_opens_without_an_identity(old, tmp_path, capsys):
    assert set(predicted(old, tmp_path)) == {"train", "val"}
    said = "is of an older version: the content of the file that trained it is not known"
    assert " ".join(capsys.readouterr().out.split()).count(said) == 1


def test_an_older_checkpoints_rates_and_rows_are_compared(old, tmp_path):
    write(tmp_path / "day1.nwb", random_spikes(3), STARTS)
    with pytest.raises(CheckpointError, match="trained on other data: the training trials' mean rate was 0"):
        predicted(old, tmp_path)
    for path in (old.folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        rows = content[CHECKPOINT_KEY]["info"]["rows"]
        rows["train"][:2], rows["val"][:2] = rows["val"][:2], rows["train"][:2]
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"trained on 2 of the 5 val trials that it is to predict: the split"):
        predicted(old, tmp_path)


@pytest.mark.parametrize("identity", [None, [], {"name": "x"}, {"trials": {"train": 1}}])
def test_a_damaged_identity_is_one_line(run, identity):
    recipe = read_checkpoint(run.folder)[CHECKPOINT_KEY]
    whole = {**recipe["identity"], **identity} if isinstance(identity, dict) and "trials" in identity else identity
    with pytest.raises(CheckpointError, match="description of its data is damaged"):
        identity_of({**recipe, "identity": whole})
    assert identity_of(recipe)["older"] is False


def test_twins_of_two_seeds_are_two_sessions(tmp_path):
    files = [write_twin("mc_maze_small", tmp_path / str(k), seed=k, n_trials=8, n_units=(4, 2)) for k in (0, 1)]
    (one, own_test), (other, _) = ([open_nwb(path).session for path in pair] for pair in files)
    assert same_session(one, own_test) and not same_session(one, other)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"session_id": None}, True),
        ({"identifier": "b"}, True),  # written again, of the same session by name, subject and start
        ({"identifier": "b", "session_id": None}, False),
        ({"session_start_time": "2020-01-02"}, False),
        ({"identifier": None, "session_id": None}, False),
    ],
)
def test_what_makes_a_session_the_same(change, same):
    one = {"identifier": "a", "session_start_time": "2020-01-01", "session_id": "s", "subject_id": "J"}
    assert same_session(one, one | change) is same and same_session(one | change, one) is same
    assert not same_session(one, None) and not same_session({}, {})
