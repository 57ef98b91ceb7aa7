"""Short recordings train for a number of steps, unless a number of epochs is given."""

import math
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from runs import ROOT, checkpoint, here, record, rows

from neuro_lightning.runs.training_length import epochs_of_short_training
from neuro_lightning.settings.settings import TrainSettings


def length(n_trials, *words):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=["data=nwb", "data.path=a.nwb", "paths.output_dir=out", *words])
    batches = math.ceil(n_trials / cfg.data.batch_size)
    data = SimpleNamespace(
        least_steps=cfg.data.least_steps, count_training=lambda: n_trials, count_batches=lambda: batches
    )
    settings = TrainSettings.resolve(cfg)
    return settings.changed(epochs_of_short_training(settings, data)).trainer.max_epochs


def test_few_trials_take_more_epochs_and_many_take_as_many_as_ever(capsys):
    assert length(89) == 400 and "89 training trials are 2 steps in an epoch: 400 epochs in place of 100" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert length(64) == 800 and length(65) == 400 and length(448) == 115
    assert length(449) == length(5000) == 100 and " ".join(capsys.readouterr().out.split()).count("in place of") == 3
    assert length(89, "init=RUN") == 150 and "adapt.least_steps=300" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.max_epochs=7"], ["debug=limit"], ["experiment=few_trials"], ["trainer=debug"], ["sweep.trial=3"],
        ["data.least_steps=null"], ["model=smoothing"], ["+trainer.max_steps=50"],
    ],
)  # fmt: skip
def test_a_number_that_was_given_is_kept(words):
    given = {"trainer.max_epochs=7": 7, "debug=limit": 10, "experiment=few_trials": 200, "trainer=debug": 1}
    assert length(10, *words) == given.get(words[0], 100)


def test_other_datasets_keep_their_epochs():
    with initialize_config_dir(str(ROOT / "conf")):
        for data in ("lorenz", "mc_maze_small", "stringer_spontaneous", "uwndc19"):
            cfg = compose("train", overrides=[f"data={data}"])
            assert cfg.data.least_steps is None and cfg.trainer.max_epochs == 100


def test_the_longer_training_is_trained_recorded_and_resumed(tmp_path):
    words = ["trainer.max_epochs=${epochs}", "epochs=2", "++data.least_steps=11", "++data.batch_size=16"]
    here(tmp_path, *words)
    assert checkpoint(tmp_path)["global_step"] == 12 and record(tmp_path)["config"]["trainer"]["max_epochs"] == 4
    here(tmp_path, *words, "++data.least_steps=14", f"resume={tmp_path}/checkpoints/last.ckpt")
    assert checkpoint(tmp_path)["global_step"] == 15 and len({row["epoch"] for row in rows(tmp_path)}) == 5
