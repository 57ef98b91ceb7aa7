"""Networks that are trained as one are the runs that they would be alone."""

import dataclasses

import h5py
import numpy as np
import pytest
import tiny
import torch
from ensembles import combined, data_of, written
from runs import PLAIN, TINY, checkpoint, command_here, here, record, rows, same

import neuro_lightning as nl
from neuro_lightning.artifacts.checkpoint_files import member_folders
from neuro_lightning.contracts import DataSpec
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.stacked import StackedSteps, refuse_stack
from neuro_lightning.nn.stacked_adam import StackedAdam
from neuro_lightning.pages.run_page import run_page
from neuro_lightning.runs.prediction import score_rates

DOUBLE = "++trainer.precision=64-true"
NDT = ["model=ndt", "model.width=8", "model.layers=1", "model.attention_heads=2", DOUBLE]
OTHERS = [word for word in TINY if not word.startswith("model")]
CLIPPED = "trainer.gradient_clip_val=0.01"
WORDS = {"gru": (TINY, [DOUBLE, CLIPPED]), "ndt": (OTHERS, NDT)}  # with their masks and dropout
K = 3


def at(chosen, epoch, what):
    return f"+callbacks.{what}={{_target_:tiny.AtSeed,chosen:{chosen},epoch:{epoch},what:{what}}}"


@pytest.fixture
def sizes(monkeypatch):
    """How many networks each stack of steps held."""
    found, take = [], StackedSteps.take
    monkeypatch.setattr(StackedSteps, "take", lambda self, wanted: found.append(len(wanted)) or take(self, wanted))
    return found


def close(a, b, tolerance=1e-10):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)
    return a == b or abs(a - b) < tolerance


def learned(folder, name="last.ckpt"):
    content = checkpoint(folder, name)
    return [content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".hydra" not in path.parts}


def numbers(row):
    return np.array([float(value or "nan") for value in row.values()])


@pytest.fixture(scope="module", params=WORDS)
def stacked(request, tmp_path_factory):
    base, words = WORDS[request.param]
    base, folder = [*base, *words], tmp_path_factory.mktemp("run") / "run"
    return base, folder, here(folder, f"model.members={K}", "seed=4", "refit=true", base=base).score


def test_each_member_is_the_run_that_it_would_be_alone(stacked, tmp_path):
    base, folder, _ = stacked
    member, alone = folder / "members" / "2", tmp_path
    here(alone, "seed=6", "refit=true", base=base)
    for name in ("best.ckpt", "last.ckpt"):
        assert close(learned(member, name), learned(alone, name)), name
    assert close(checkpoint(member, "refit.ckpt")["state_dict"], checkpoint(alone, "refit.ckpt")["state_dict"])
    for mine, own in zip(rows(member), rows(alone), strict=True):
        assert mine.keys() == own.keys()
        np.testing.assert_allclose(numbers(mine), numbers(own), rtol=1e-6, atol=1e-7)  # written in single precision
    one, other = record(member), record(alone)
    assert one.keys() == other.keys() and one["config"]["model"] == other["config"]["model"]
    assert one["metrics"] == pytest.approx(other["metrics"], abs=1e-6)
    assert one["refit"]["steps"] == other["refit"]["steps"] and one["seed"] == other["seed"] == 6
    assert files(member) - {"output.log"} == files(alone)
    sizes = [(at / "checkpoints" / "last.ckpt").stat().st_size for at in (member, alone)]
    assert sizes[0] < 1.1 * sizes[1], "a row of the stack is not saved with the others"


@pytest.mark.parametrize("stacked", ["gru"], indirect=True)
def test_the_run_has_the_scores_of_the_mean_and_predict_writes_it(stacked, tmp_path):
    _, folder, score = stacked
    members = [member / "checkpoints" / "best.ckpt" for member in member_folders(folder)]
    rates, _ = combined(members)
    scores = score_rates(data_of(), rates, split="val")
    kept = record(folder)
    assert kept["status"] == "finished" and kept["objective"]["value"] == score == scores["co_bps"]
    assert kept["metrics"]["val/co_bps"] == score and kept["metrics"]["test/co_bps"] != score
    assert [each["seed"] for each in kept["members"].values()] == [4, 5, 6]
    assert kept["config"]["model"]["members"] == K
    path = written(f"ckpt={folder}", f"file={tmp_path / 'mean.h5'}", "checkpoint=best", "output=predictions")
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["test/predictions"][:], rates["test"], rtol=1e-6)
    assert find_members([folder])[0] == members
    written(f"ckpt={folder}", f"file={tmp_path / 'chosen.h5'}", "ensemble=greedy", "output=predictions")
    written(f"ckpt={members[1]}", f"file={tmp_path / 'one.h5'}", "output=predictions")


@pytest.mark.parametrize("stacked", ["gru"], indirect=True)
def test_the_page_of_the_run_has_the_scores_of_all_and_the_drawings_of_one(stacked):
    _, folder, score = stacked
    run = nl.load(folder)
    assert [member.record["seed"] for member in run.members.values()] == [4, 5, 6]
    page = run_page(run, latents=False)
    found = {row[1]: row[2] for row in page.sections[0].tables[0].rows if row[0] == "val"}
    assert found["mean of the networks"] == pytest.approx(score, abs=1e-4)
    own = {f"network {k}": run.members[k].record["metrics"]["val/co_bps"] for k in range(K)}
    assert {name: found[name] for name in own} == pytest.approx(own, abs=1e-4)
    assert "mean of 3 networks" in page.title and "network 0 alone" in page.sections[1].lines[0]
    with pytest.raises(CheckpointError, match=r"holds several networks, .* give one of them, .*members/0$"):
        run.rates("val")


@pytest.mark.parametrize("stacked", ["gru"], indirect=True)
def test_members_that_end_cost_nothing_more_and_change_no_other(stacked, tmp_path, sizes):
    base, whole, _ = stacked
    here(tmp_path, f"model.members={K + 1}", "seed=4", at(5, 0, "spoil"), at(6, 1, "stop"), base=base)
    assert sizes == [4, 4, 2], "the one of seed 5 takes an epoch more, which shows that it has diverged"
    status = {seed: record(tmp_path / "members" / str(seed - 4))["status"] for seed in (4, 5, 6, 7)}
    assert status == {4: "finished", 5: "diverged", 6: "finished", 7: "finished"}
    assert record(tmp_path)["status"] == "finished" and len(find_members([tmp_path])[0]) == 3
    assert close(learned(tmp_path / "members" / "0"), learned(whole / "members" / "0"))


def test_a_callback_that_asks_for_gradients_sees_them(tmp_path, monkeypatch):
    taken, step = [], StackedAdam.step
    monkeypatch.setattr(StackedAdam, "step", lambda self: taken.append(1) or step(self))
    short = ["trainer.max_epochs=1", "model.members=2"]
    here(tmp_path / "at_once", *short)
    assert len(taken) == record(tmp_path / "at_once" / "members" / "0")["steps"]
    norms = tiny.SeesGradients.norms
    norms.clear()
    here(tmp_path / "apart", *short, "+callbacks.sees._target_=tiny.SeesGradients")
    assert len(norms) == 2 * len(taken) and all(norm > 0 for norm in norms)
    one, other = (learned(tmp_path / name / "members" / "1") for name in ("at_once", "apart"))
    assert close(one, other, 1e-5)


DROPOUT = ["trainer.max_epochs=4", "scheduler@model.scheduler=plateau"]


def test_a_resumed_run_ends_in_the_same_bits(tmp_path):
    """The power is cut when the first member has saved a checkpoint that the second has not: both go a step back."""
    whole = tmp_path / "whole"
    here(whole, "model.members=2", *DROPOUT, at(1, 2, "copy"))
    copy = tmp_path / "copy"
    steps = [checkpoint(member)["global_step"] for member in member_folders(copy)]
    assert steps == [12, 8] and record(copy)["status"] == "running"
    here(copy, "model.members=2", *DROPOUT, f"resume={copy}")
    for a, b in zip(member_folders(copy), member_folders(whole), strict=True):
        assert same(learned(a), learned(b)) and same(learned(a, "best.ckpt"), learned(b, "best.ckpt"))
        assert rows(a) == rows(b)
    assert record(copy)["metrics"] == record(whole)["metrics"] and record(copy)["status"] == "finished"


def test_a_member_that_fails_leaves_the_others(tmp_path, capsys):
    here(tmp_path, "model.members=2", *PLAIN, at(1, 1, "fail"))
    assert [record(member)["status"] for member in member_folders(tmp_path)] == ["finished", "failed"]
    assert record(tmp_path)["status"] == "finished" and "members/1: failed: RuntimeError" in capsys.readouterr().out


REFUSED = {
    "model=smoothing": "not trained in steps",
    "optimizer@model.optimizer=sam": "SAM sees each batch several times",
    "++trainer.max_steps=3": "trainer.max_steps=3",
    "trainer.precision=bf16-mixed": "trainer.precision=bf16-mixed",
    "trainer=ddp_cpu": "trainer.devices=",
    "model.members=0": "give a whole number",
    "trusted=[pictures] model=core_readout data=pictures": "model.members: BatchNorm2d cannot be stacked",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_stacked_is_refused_in_a_line(words, tmp_path):
    with pytest.raises(ConfigError, match=REFUSED[words]) as error:
        here(tmp_path, base=[*OTHERS, "model=gru", "model.members=2", *words.split()])
    assert "\n" not in str(error.value)


def test_unequal_trials_and_sessions_are_refused():
    spec = DataSpec("x", n_in=1, n_out=1, n_bins=2, partial=True)
    assert "unequal length" in refuse_stack(None, spec)
    assert "several sessions" in refuse_stack(None, dataclasses.replace(spec, partial=False, sessions=(spec,)))


def test_the_command_trains_resumes_and_replaces_members(tmp_path):
    words = [*TINY, "model.members=2", "hydra.run.dir=run", "trainer.max_epochs=1"]
    first = command_here(tmp_path, *words)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    begun = lines.index("training 2 networks as one, of seeds 0 to 1")
    assert [line.split()[0] for line in lines[begun + 1 :] if line.strip() and line[0] != " "][:4] == [
        "model",
        "data",
        "device",
        "network",
    ]
    again = command_here(tmp_path, *words)
    assert again.returncode and "holds a run already" in again.stderr
    assert command_here(tmp_path, *words, "overwrite=true", "model.hidden=4").returncode == 0
    longer = command_here(tmp_path, "resume=run", "trusted=[tiny]", "trainer.max_epochs=2")
    assert longer.returncode == 0, longer.stderr
    alone = command_here(tmp_path, "resume=run/members/1", "trusted=[tiny]", "trainer.max_epochs=3")
    assert alone.returncode == 0, alone.stderr
    assert [record(tmp_path / "run" / "members" / k)["steps"] for k in "01"] == [8, 12]
