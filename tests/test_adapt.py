"""A core that another run has trained, with new data: what moves when, which weights follow, and what is refused."""

import shutil

import pytest
import torch
from runs import TINY, checkpoint, here, record, same
from torch import nn

from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.adaptation import Adaptation, copy_units, keep_batch_statistics
from neuro_lightning.models.loading import load_checkpoint

SIZES = "{n_train: 12, n_val: 4, n_test: 0, n_conditions: 3, n_in: 6, n_out: 2, n_bins: 12, mean_rate_hz: 60.0}"
LORENZ = [word for word in TINY if word not in ("data=tiny", "trusted=[tiny]")]
FAMILY = [
    *LORENZ, "data=lorenz_sessions", "~data.sessions.three", "~data.sessions.four", "data.least_steps=null",
    *(f"data.sessions.{name}.sizes={SIZES}" for name in ("one", "two")),
]  # fmt: skip
NEW = [*LORENZ, "data=lorenz", "data.session=7", f"data.sizes={SIZES}", "data.batch_size=6"]

SNAPSHOTS = [
    "trusted=[tiny]",
    "+callbacks.steps={_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',every_n_train_steps:1,"
    "save_top_k:-1,auto_insert_metric_name:false,filename:'step{step}'}",
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return here(tmp_path_factory.mktemp("pretrained") / "run", base=FAMILY).folder


def adapted(folder, source, *overrides, base=NEW):
    return here(folder, f"init={source}", *overrides, base=base).folder


def weights(folder, name="last.ckpt"):
    return {key.removeprefix("net."): value for key, value in checkpoint(folder, name)["state_dict"].items()}


def core_of(folder, name="best.ckpt"):
    """Weights of the core by name; of several sessions, of the first."""
    return {
        key.rpartition("core.")[2]: value
        for key, value in weights(folder, name).items()
        if key.startswith(("core.", "sessions.0.core."))
    }


# ---- which weights move, and how fast


def test_in_which_epochs_the_core_trains():
    assert [Adaptation(core_from=0.25).core_trains(epoch, 10) for epoch in (0, 2, 3, 9)] == [False, False, True, True]
    assert Adaptation(core_from=0.0).core_trains(0, 10) and not Adaptation(core_from=1.0).core_trains(9, 10)
    assert Adaptation(core_from=0.5).core_trains(0, None) and not Adaptation(core_from=1.0).core_trains(5, None)


@pytest.mark.parametrize(("adapt", "moves"), [("stitch", False), ("full", True)])
def test_stitching_leaves_the_core_and_full_adaptation_does_not(tmp_path, pretrained, adapt, moves):
    folder = adapted(tmp_path / "run", pretrained, f"adapt={adapt}")
    before, after = core_of(pretrained), core_of(folder, "last.ckpt")
    assert before.keys() == after.keys() and len(before) == 16
    assert all(torch.equal(before[name], after[name]) != moves for name in before)


@pytest.mark.parametrize(("core_from", "moves"), [(0.9, False), (0.6, True)])
def test_gradual_adaptation_moves_the_core_from_its_epoch_on(tmp_path, pretrained, core_from, moves):
    """Of 3 epochs, the core trains in none or in the last one."""
    folder = adapted(tmp_path / "run", pretrained, f"adapt.core_from={core_from}")
    assert same(core_of(pretrained), core_of(folder, "last.ckpt")) != moves


def test_the_cores_learning_rate_is_a_share(tmp_path, pretrained):
    folder = adapted(tmp_path / "run", pretrained, "adapt=full", "adapt.core_lr=0.1", "scheduler@model.scheduler=none")
    others, core = checkpoint(folder)["optimizer_states"][0]["param_groups"]
    assert core["lr"] == pytest.approx(0.1 * others["lr"]) and len(core["params"]) == 16


def test_batch_statistics_of_a_core_stay(tmp_path):
    core = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    core.train()
    keep_batch_statistics(core)
    before = core[1].running_mean.clone()
    core(torch.randn(4, 1, 8, 8) + 5)
    assert torch.equal(core[1].running_mean, before) and core[0].training


# ---- where read-in and readout begin


@pytest.mark.parametrize("start", ["random", "conditions", "average"])
def test_a_start_is_what_was_asked_for(tmp_path, capsys, pretrained, start):
    """A learning rate of almost nothing shows the weights of the beginning."""
    still = ["model.optimizer.lr=1e-12", "trainer.max_epochs=1"]
    folder = adapted(tmp_path / "run", pretrained, f"adapt.start={start}", *still)
    out = capsys.readouterr().out
    said = " ".join(out[out.index("init ") :].split())
    words = {"random": "at random", "conditions": "the shared conditions", "average": "the average over all trials"}
    assert f"read-in and readout begin {'' if start == 'random' else 'with '}{words[start]}" in said
    random = adapted(tmp_path / "random", pretrained, "adapt.start=random", *still)
    for name in ("readin.linear.weight", "readout.linear.weight"):
        close = torch.allclose(weights(folder)[name], weights(random)[name], atol=1e-6)
        assert close == (start == "random"), name


def test_auto_says_why_it_begins_at_random(tmp_path, capsys, pretrained):
    adapted(tmp_path / "run", pretrained, "data.seed=1", "trainer.max_epochs=1")
    assert "begin at random (no two conditions" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match=r"adapt\.start=conditions: no two conditions.*adapt\.start=random"):
        adapted(tmp_path / "other", pretrained, "data.seed=1", "adapt.start=conditions")
    with pytest.raises(ConfigError, match=r"adapt\.start=middle: give auto"):
        adapted(tmp_path / "none", pretrained, "adapt.start=middle")


def test_copied_weights_follow_the_units_numbers():
    target, source = torch.zeros(4, 2), torch.arange(6.0).view(3, 2)
    assert copy_units(target, source, [7, 8, 9, 10], [9, 3, 7]) == 2
    assert target.tolist() == [[4, 5], [0, 0], [0, 1], [0, 0]]


def test_known_units_keep_their_weights(tmp_path, capsys, pretrained):
    """Other trials of a session that has trained: `same_units` says that the numbers mean the same neurons."""
    still = ["model.optimizer.lr=1e-12", "trainer.max_epochs=1", "adapt.same_units=true"]
    folder = adapted(tmp_path / "run", pretrained, *still, "data.session=2", "data.sizes.n_val=6")
    assert "8 units by their ids" in " ".join(capsys.readouterr().out.split())
    before, after = weights(pretrained, "best.ckpt"), weights(folder)
    names = list(load_checkpoint(pretrained).spec.sessions)
    number = [part.session for part in names].index("two")
    for name in ("readin.linear.weight", "readin.linear.bias", "readout.linear.weight", "readout.linear.bias"):
        torch.testing.assert_close(after[name], before[f"sessions.{number}.{name}"], rtol=0, atol=1e-6)


# ---- settings, and what is refused


def test_settings_of_the_model_are_those_of_the_run_but_for_what_is_typed(tmp_path, pretrained):
    folder = adapted(tmp_path / "run", pretrained, "model.layer_dropout=0.1")
    config = record(folder)["config"]["model"]
    assert config["hidden"] == 6 and config["readin"]["width"] == "auto" and config["layer_dropout"] == 0.1
    with pytest.raises(CheckpointError, match=r"its core does not fit this model"):
        adapted(tmp_path / "other", pretrained, "model.hidden=8", "model.layers=3", base=[*NEW, "model.hidden=8"])
    with pytest.raises(ConfigError, match=r"is a GRU, whose core fits no NDT"):
        here(tmp_path / "ndt", f"init={pretrained}", "model=ndt", base=[w for w in NEW if "model" not in w])


def test_one_recording_with_a_linear_read_in_can_be_a_start(tmp_path, pretrained):
    single = here(tmp_path / "single", "readin@model.readin=linear", base=[*NEW, "data.session=5"]).folder
    folder = adapted(tmp_path / "run", single, "adapt=stitch", "adapt.start=conditions")
    assert same(core_of(single), core_of(folder, "last.ckpt"))
    plain = here(tmp_path / "plain", base=NEW).folder
    with pytest.raises(CheckpointError, match=r"readin@model\.readin=linear, whose core knows no neurons"):
        adapted(tmp_path / "no", plain, base=[*NEW, "data.sizes.n_in=5"])


def test_trials_that_trained_the_core_are_not_scored(tmp_path, pretrained):
    base = [*NEW, "data.session=1", "data.sizes.n_train=8"]
    with pytest.raises(CheckpointError, match=r"4 val trials of lorenz have trained its core"):
        adapted(tmp_path / "run", pretrained, base=base)
    with pytest.raises(CheckpointError, match=r"init=.*nowhere: no checkpoint"):
        adapted(tmp_path / "none", tmp_path / "nowhere")


def test_a_resumed_adaptation_ends_with_the_same_bits(tmp_path, pretrained, capsys):
    """Interrupted before its core trains, of which only the first start reads the other run."""
    words = ["adapt.core_from=0.5", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", *SNAPSHOTS]
    folder = adapted(tmp_path / "run", pretrained, *words)
    whole = checkpoint(folder, "step8.ckpt")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "snapshots" / "step3", folder)
    capsys.readouterr()
    adapted(folder, pretrained, *words, f"resume='{folder}/checkpoints/step3.ckpt'")
    assert "read-in and readout" not in " ".join(capsys.readouterr().out.split())
    resumed = checkpoint(folder, "step8.ckpt")
    assert same(resumed["state_dict"], whole["state_dict"])
    assert same(resumed["optimizer_states"], whole["optimizer_states"])


def test_the_refit_of_a_resumed_adaptation_begins_with_the_trained_core(tmp_path, pretrained):
    words = ["adapt=stitch", *SNAPSHOTS]
    folder = adapted(tmp_path / "run", pretrained, *words)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "snapshots" / "step3", folder)
    adapted(folder, pretrained, *words, "refit=true", f"resume='{folder}/checkpoints/step3.ckpt'")
    assert same(core_of(pretrained), core_of(folder, "refit.ckpt"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("adapt.core_lr=x", "adapt.core_lr=x: must be a number"),
        ("adapt.core_lr=-1", "adapt.core_lr=-1 must be above 0"),
        ("adapt.core_from=2", "adapt.core_from=2: a share of the training"),
        ("adapt.start=there", "adapt.start=there: give random, conditions or average|adapt.start=there: give auto"),
        ("+adapt.foo=1", "adapt.foo: Adaptation takes no such argument"),
    ],
)
def test_what_adapt_cannot_be_is_one_line(tmp_path, pretrained, word, message):
    with pytest.raises(ConfigError, match=message):
        adapted(tmp_path / "run", pretrained, word)


def test_a_recipe_whose_model_settings_do_not_count_says_so(tmp_path, capsys, pretrained):
    folder = adapted(tmp_path / "run", pretrained, "experiment=few_trials", "trainer.max_epochs=1")
    assert "what experiment=few_trials says of the model does not count" in " ".join(capsys.readouterr().out.split())
    assert record(folder)["config"]["model"]["readout"] == record(pretrained)["config"]["model"]["readout"]
