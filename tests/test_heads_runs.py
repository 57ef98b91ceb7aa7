"""Heads in a run: scores, checkpoints, resume, other trials, two processes, predictions, sessions."""

import math
import shutil

import h5py
import numpy as np
import pytest
import torch
from networks import parts, spec_of
from runs import PLAIN, TINY, checkpoint, command_here, here, record, rows, same
from test_ddp import DESCENT, TWO
from test_sessions_predict import contents, predicted
from test_sessions_runs import BASE as SESSIONS
from test_sessions_runs import STEPS, assert_same_run
from tiny import Tiny

from neuro_lightning.contracts import call_network, run_network
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.models.loading import load_checkpoint

VELOCITY = "+head@model.heads.velocity=linear"
KIND = ["+head@model.heads.kind=class", "model.heads.kind.target=kind"]
SIZE = ["+head@model.heads.size=number", "model.heads.size.target=size"]
LABELLED = ["++data.labels=true", VELOCITY, *KIND, *SIZE]
ALONE = "loss@model.loss=none"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return here(tmp_path_factory.mktemp("heads") / "run", STEPS, *LABELLED).folder


def weights_of(folder, name="last.ckpt"):
    return {key: value for key, value in checkpoint(folder, name)["state_dict"].items() if ".heads." not in key}


def test_scores_are_logged_shown_and_kept(run, capsys):
    scores = ["head_velocity_r2", "head_kind_accuracy", "head_kind_chance", "head_size_r2"]
    metrics, last = record(run)["metrics"], rows(run)[-1]
    for name in scores:
        assert math.isfinite(metrics[f"val/{name}"]) and math.isfinite(metrics[f"test/{name}"])
        assert float(last[f"val/{name}"]) == pytest.approx(metrics[f"val/{name}"], rel=1e-5)
    assert float(last["train/head_velocity_loss"]) > 0 and record(run)["objective"]["name"] == "val/co_bps"


def test_unseen_classes_are_said_and_not_scored(tmp_path, capsys):
    here(tmp_path, *LABELLED, "trainer.max_epochs=1")
    said = capsys.readouterr().out
    assert "head kind is not scored on 1 of 11 val trials, whose kind no training trial has" in said
    assert "velocity R2" in said and "kind accuracy" in said and "kind chance" in said and "vel R2" in said


def test_a_head_without_weight_leaves_the_network_as_it_is(tmp_path):
    """Bit for bit: it draws no random numbers, and its loss reaches the network only by its weight."""
    bare = here(tmp_path / "bare").folder
    weightless = here(tmp_path / "weightless", VELOCITY, "model.heads.velocity.weight=0").folder
    assert same(weights_of(weightless), weights_of(bare))
    with_weight = here(tmp_path / "weight", VELOCITY).folder
    assert not same(weights_of(with_weight), weights_of(bare))


@pytest.mark.parametrize("moment", ["step5", "step8"])
def test_resumed_to_the_bit(run, tmp_path, moment):
    shutil.copytree(run, tmp_path / "whole")
    shutil.copytree(run.with_name("snapshots") / moment, tmp_path / "run")
    here(tmp_path / "run", STEPS, *LABELLED, f"resume={tmp_path}/run/checkpoints/{moment}.ckpt")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("poison", ["nan", "1e30"])
def test_behavior_of_other_trials_never_reaches_training_or_selection(run, tmp_path, poison):
    parts_of = [f"{split}.{name}" for split in ("val", "test") for name in ("behavior", "labels")]
    given = ",".join(f"{part}:{poison}" for part in parts_of)
    poisoned = here(tmp_path, *LABELLED, f"++data.poison={{{given}}}").folder
    for name in ("best.ckpt", "last.ckpt"):
        assert same(checkpoint(poisoned, name)["state_dict"], checkpoint(run, name)["state_dict"])
    before, after = record(run)["metrics"], record(poisoned)["metrics"]
    assert before["val/co_bps"] == after["val/co_bps"]
    assert before["val/head_velocity_r2"] != after["val/head_velocity_r2"], "the poison is there"


def test_decoding_alone_is_chosen_by_the_heads_score_and_leaves_the_readout(tmp_path, capsys):
    alone = here(tmp_path / "alone", VELOCITY, ALONE, "model.optimizer.lr=0.02", "trainer.max_epochs=12")
    assert "val/head_velocity_r2 takes the place of val/co_bps" in " ".join(capsys.readouterr().out.split())
    found = record(alone.folder)
    assert found["objective"]["name"] == "val/head_velocity_r2" and found["objective"]["mode"] == "max"
    assert alone.score == found["metrics"]["val/head_velocity_r2"] > 0.2
    best = max(float(row["val/head_velocity_r2"]) for row in rows(alone.folder) if row["val/head_velocity_r2"])
    assert alone.score == pytest.approx(best, rel=1e-5)
    first = here(tmp_path / "first", VELOCITY, ALONE, "trainer.max_epochs=1").folder
    readouts = [weights_of(folder)["net.readout.linear.weight"] for folder in (alone.folder, first)]
    assert same(*readouts), "nothing trains it"
    typed = here(tmp_path / "typed", VELOCITY, ALONE, "monitor=val/vel_r2", "trainer.max_epochs=1").folder
    assert record(typed)["objective"]["name"] == "val/vel_r2"
    with pytest.raises(ConfigError, match="nothing would be trained"):
        here(tmp_path / "nothing", ALONE)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
@pytest.mark.parametrize("words", [pytest.param([], marks=pytest.mark.rare), [ALONE]], ids=["beside spikes", "alone"])
def test_two_processes_equal_one(tmp_path, words):
    """Though their batches know different shares of the behavior."""
    words = [*LABELLED, *words, "model.optimizer.lr=0.05"]
    two = here(tmp_path / "two", *DESCENT, *TWO, *words).folder
    one = here(tmp_path / "one", *DESCENT, *words).folder
    assert (record(two)["processes"], record(one)["processes"]) == (2, 1)
    for name, weight in checkpoint(one)["state_dict"].items():
        torch.testing.assert_close(checkpoint(two)["state_dict"][name], weight, rtol=1e-9, atol=1e-11)
    assert record(two)["metrics"] == pytest.approx(record(one)["metrics"], rel=1e-9)


def test_a_refit_trains_the_heads_on_both_splits(tmp_path):
    folder = here(tmp_path, *LABELLED, "refit=true").folder
    best, refit = (load_checkpoint(folder / "checkpoints" / f"{name}.ckpt").model.heads for name in ("best", "refit"))
    assert best.by_name["velocity"].mean.tolist() != refit.by_name["velocity"].mean.tolist()
    assert refit.by_name["kind"].classes == ("apart", "ball", "cup")


def test_predictions_hold_what_is_decoded_and_an_ensemble_its_mean(run, tmp_path):
    other = here(tmp_path / "other", *LABELLED, "seed=1").folder
    found = {}
    for name, ckpt in {"one": f"ckpt={run}", "two": f"ckpt={other}", "both": f"ckpt=[{run},{other}]"}.items():
        path = predicted(ckpt, "output=predictions", f"file={tmp_path / name}.h5")
        with h5py.File(path) as file:
            found[name] = contents(file)
            assert list(file["val/decoded/kind"].attrs["classes"]) == ["apart", "ball"]
    saved = load_checkpoint(run)
    data = Tiny(n_train=37, n_val=11, poison={}, labels=True)
    for split in ("train", "val", "test"):
        batch = data.dataset(split, evaluate=True)[list(range(data.count_trials(split)))]
        output = run_network(saved.model.net, batch)["heads"]
        np.testing.assert_allclose(found["one"][f"{split}/decoded/velocity"], output["velocity"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["one"][f"{split}/decoded/size"], output["size"], rtol=1e-5)
        np.testing.assert_allclose(found["one"][f"{split}/decoded/kind"], output["kind"].softmax(1), rtol=1e-4)
        for head_name in ("velocity", "kind", "size"):
            key = f"{split}/decoded/{head_name}"
            mean = (found["one"][key] + found["two"][key]) / 2
            np.testing.assert_allclose(found["both"][key], mean, rtol=1e-4, atol=1e-5)
    bare = here(tmp_path / "bare", "++data.labels=true").folder
    path = predicted(f"ckpt=[{run},{bare}]", "output=predictions", f"file={tmp_path / 'mixed'}.h5")
    with h5py.File(path) as file:
        assert not [name for name in contents(file) if "decoded" in name], "one member has no heads"


def test_sessions_share_heads_and_a_new_session_begins_with_them(tmp_path):
    folder = here(tmp_path / "several", VELOCITY, base=SESSIONS).folder
    metrics = record(folder)["metrics"]
    assert metrics["val/head_velocity_r2"] == pytest.approx(
        (metrics["val/head_velocity_r2/a"] + metrics["val/head_velocity_r2/b"]) / 2
    )
    nets = load_checkpoint(folder, trusted=["tiny_sessions"]).model.networks
    assert nets[0].heads is nets[1].heads and nets[0].heads.by_name["velocity"].weight.any()
    new = [word for word in TINY if not word.startswith(("data=", "trusted", "model"))]
    new += ["trusted=[tiny,tiny_sessions]", "data=tiny_session", "data.seed=5", "adapt.start=random"]
    adapted = here(tmp_path / "new", f"init={folder}", "adapt=stitch", "model.optimizer.lr=0", base=new).folder
    for name in ("weight", "mean", "std"):
        key = f"heads.by_name.velocity.{name}"
        assert same(checkpoint(adapted)["state_dict"][f"net.{key}"],
                    checkpoint(folder, "best.ckpt")["state_dict"][f"net.sessions.0.{key}"])  # fmt: skip
    left = here(tmp_path / "left", f"init={folder}", "+model.heads=null", "trainer.max_epochs=1", base=new).folder
    assert not [name for name in checkpoint(left)["state_dict"] if "heads" in name]


def test_an_initial_head_of_other_channels_is_refused(run, tmp_path):
    from neuro_lightning.runs.heads import carry_heads

    model, other = (load_checkpoint(run).model for _ in range(2))
    other.heads.by_name["kind"].classes = ("apart", "cup")
    with pytest.raises(CheckpointError, match="its head kind decodes other channels or classes"):
        carry_heads(model, other, "RUN")


def test_the_command_of_the_docs_runs(tmp_path):
    """With the head as typed, and with a column that the data do not have."""
    words = [w for w in TINY if w != "data=tiny"] + ["data=tiny", "trainer.max_epochs=1", VELOCITY]
    done = command_here(tmp_path, *words, *PLAIN, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    failed = command_here(tmp_path, *words, *KIND, f"hydra.run.dir={tmp_path / 'other'}")
    assert failed.returncode == 1 and "tiny has no label kind: give data.labels=[kind]" in failed.stderr


def test_a_network_alone_has_no_heads():
    net = GRUNet(spec_of(), hidden=4, layers=1, bidirectional=True, step_ms=None, layer_dropout=0.0, **parts())
    inputs = torch.zeros(2, 10, 5)
    assert "heads" not in call_network(net.eval(), {"inputs": inputs}) and "latents" not in net.train()(inputs)
