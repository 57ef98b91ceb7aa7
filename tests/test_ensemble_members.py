"""Which models ``ckpt=...`` means, and which of them may be averaged."""

import shutil
from pathlib import Path

import pytest
from ensembles import changed, combined, members_of, written
from runs import TINY, here
from test_nwb_trials import STARTS, random_spikes, write

from neuro_lightning.ensemble.members import find_members
from neuro_lightning.errors import CheckpointError
from neuro_lightning.models.base import CHECKPOINT_KEY


def test_members_are_a_sweep_s_finished_jobs(ensemble_sweep):
    found, remarks = find_members([ensemble_sweep])
    assert found == members_of(ensemble_sweep)
    assert remarks == ["3_tiny_gru is left out: failed: RuntimeError: out of memory", "4_tiny_gru is left out: running"]


def test_checkpoint_named_twice_counts_once(ensemble_sweep):
    found, remarks = find_members([ensemble_sweep / "1_tiny_gru", str(members_of(ensemble_sweep)[1]), ensemble_sweep])
    assert found == [members_of(ensemble_sweep)[i] for i in (1, 0, 2)]
    assert sum("is named twice: it counts once" in remark for remark in remarks) == 2


def test_error_without_any_member(ensemble_sweep, tmp_path):
    with pytest.raises(CheckpointError, match=r"give a .ckpt file, a run's folder .* or a sweep's folder"):
        find_members([tmp_path])
    shutil.copytree(ensemble_sweep / "4_tiny_gru", tmp_path / "sweep" / "0_tiny_gru")
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(CheckpointError, match="none of its 1 jobs finished with a checkpoint"):
        find_members([tmp_path / "sweep"])


def test_folder_of_unrelated_runs_is_refused(ensemble_sweep, tmp_path):
    folder = shutil.copytree(ensemble_sweep, tmp_path / "lorenz" / "gru")
    (folder / "multirun.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"gru is no sweep's folder .* give a list, ckpt=\[.*0_tiny_gru,"):
        find_members([folder])
    with pytest.raises(CheckpointError, match=rf"the newest run in it: python predict.py ckpt={folder}/._tiny_gru$"):
        find_members([folder.parent])
    assert find_members([folder / "0_tiny_gru", folder / "1_tiny_gru"])[0] == [
        folder / f"{i}_tiny_gru" / "checkpoints" / "best.ckpt" for i in range(2)
    ]


def edited(ensemble_sweep, tmp_path, change) -> Path:
    """The first member with another content of its description."""
    return changed(members_of(ensemble_sweep)[0], tmp_path / "o.ckpt", lambda content: change(content[CHECKPOINT_KEY]))


@pytest.mark.parametrize("method", ["mean", "stack"])
def test_models_of_other_data_are_refused(ensemble_sweep, tmp_path, method):
    def sized(recipe):
        recipe["identity"]["config"]["n_val"] = 12

    def shorn(recipe):  # as of an older version
        del recipe["identity"]
        recipe["data"]["n_val"] = 12

    def other_rates(recipe):
        del recipe["identity"]
        recipe["spec"]["mean_rates"][0] += 0.01

    def other_file(recipe):
        recipe["identity"].update(name="tiny2")

    size = r"data\.n_val is 1[12]"
    changes = {sized: size, shorn: size, other_file: "name is tiny", other_rates: "the training trials' mean rate is"}
    for change, key in changes.items():
        with pytest.raises(
            CheckpointError, match=rf"ckpt and .*\.ckpt cannot be taken together, their data differ: {key}"
        ) as refused:
            combined([edited(ensemble_sweep, tmp_path, change), *members_of(ensemble_sweep)], method=method)
        assert "ensemble=" not in str(refused.value), "no other mode is right"
    harmless = edited(ensemble_sweep, tmp_path, lambda recipe: recipe["identity"]["config"].update(batch_size=3))
    combined([harmless, members_of(ensemble_sweep)[1]], method=method)


def test_refit_cannot_select_members(ensemble_sweep, tmp_path, caplog):
    other = edited(ensemble_sweep, tmp_path, lambda recipe: recipe.update(fitted_on=["train", "val"]))
    with pytest.raises(CheckpointError, match=r"o\.ckpt was trained on the val trials, .* give checkpoint=best"):
        combined([other, *members_of(ensemble_sweep)], method="stack")
    assert combined([other, *members_of(ensemble_sweep)])[1] is None, "a mean is allowed, its gain not told"
    assert "which would be too optimistic" in caplog.text


def test_older_checkpoint_is_compared_by_its_config(ensemble_sweep, tmp_path, caplog):
    old = edited(ensemble_sweep, tmp_path, lambda recipe: recipe.pop("identity"))
    combined([old, *members_of(ensemble_sweep)], method="top")
    assert "1 of 4 checkpoints are of an older version" in caplog.text


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Runs on one file whose held-out neurons are marked, split in several ways, and on a copy of it."""
    folder = tmp_path_factory.mktemp("splits")
    base = [*(word for word in TINY if not word.startswith(("data=", "trainer.max_epochs"))), "data=nwb",
            "trainer.max_epochs=1", f"paths.cache={folder}", "data.bin_ms=20"]  # fmt: skip
    write(folder / "a.nwb", random_spikes(), STARTS, heldout=[1, 1, *[0] * 6])
    write(folder / "b.nwb", random_spikes(1), STARTS, heldout=[1, 1, *[0] * 6])
    shutil.copy(folder / "a.nwb", folder / "copy.nwb")
    runs = {"first": [], "seed": ["data.seed=1"], "val_fraction": ["data.val_fraction=0.5"],
            "train_trials": ["data.train_trials=9"], "copy": [f"data.path={folder / 'copy.nwb'}"],
            "recording": [f"data.path={folder / 'b.nwb'}"]}  # fmt: skip
    for name, words in runs.items():
        here(folder / name, base=[*base, f"data.path={folder / 'a.nwb'}", *words])
    return folder


@pytest.mark.parametrize("method", ["mean", "greedy"])
def test_members_trained_on_validation_trials_of_others_are_refused(splits, tmp_path, method):
    def predict_from(*names):
        words = [f"ckpt=[{','.join(str(splits / name) for name in names)}]", f"file={tmp_path / names[1]}.h5"]
        return written(*words, f"ensemble={method}", "evaluate=false", "overwrite=true")

    for names in (("first", "seed"), ("seed", "first"), ("val_fraction", "first")):
        key = names[0] if names[1] == "first" else names[1]
        with pytest.raises(CheckpointError, match=rf"trained on \d+ of the \d+ val trials of .*\(data\.{key} is "):
            predict_from(*names)
    with pytest.raises(CheckpointError, match=r"has other val trials than .*first.*\(data\.val_fraction is 0\.5 and 0"):
        predict_from("first", "val_fraction")
    with pytest.raises(CheckpointError, match=r"cannot be taken together, .*: the file is .*[ab]\.nwb \(SHA-256 "):
        predict_from("first", "recording")
    predict_from("first", "copy")
    predict_from("first", "train_trials")
