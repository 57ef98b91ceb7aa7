"""Same seed, same bits."""

import json

import numpy as np
import pytest
import torch
from runs import TINY, checkpoint, command_here, here, record, rows, same

from neuro_lightning.models.loading import load_checkpoint


def trained(folder):
    return checkpoint(folder, "best.ckpt")["state_dict"], checkpoint(folder)["optimizer_states"], rows(folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return here(tmp_path_factory.mktemp("first"), "seed=5")


def test_same_seed_same_bits(first, tmp_path):
    torch.rand(7), np.random.rand(7)  # whatever ran before does not matter
    again = here(tmp_path / "again", "seed=5")
    assert same(trained(first.folder), trained(again.folder)) and first.score == again.score
    inputs = torch.poisson(torch.ones(5, 12, 6))
    rates = [load_checkpoint(run.folder).model(inputs)["log_rates"] for run in (first, again)]
    assert torch.equal(*rates)
    assert record(first.folder)["metrics"] == record(again.folder)["metrics"]


@pytest.mark.parametrize("changed", ["seed=6", "data.shuffle_seed=6", "callbacks.seeds.seed=6"])
def test_another_seed_another_result(first, tmp_path, changed):
    """Weights, order of trials and dropout each have a part in it."""
    other = here(tmp_path, "seed=5", changed)
    assert not same(trained(first.folder)[0], trained(other.folder)[0])


def test_without_noise_the_seed_of_the_steps_changes_nothing(tmp_path):
    """The counterpart of the test above: it compares what it says."""
    quiet = ["model.masking=null", "model.readin.dropout=0", "model.layer_dropout=0", "model.readout.dropout=0"]
    one = here(tmp_path / "one", *quiet)
    other = here(tmp_path / "other", *quiet, "callbacks.seeds.seed=6")
    assert same(trained(one.folder), trained(other.folder))


def test_a_sweeps_jobs_do_not_know_of_each_other(tmp_path):
    """The last job of a process equals the same run alone; a job that fails does not end the sweep."""
    sweep = command_here(
        tmp_path, "-m", *TINY, "model.hidden=7,-1,6", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}"
    )
    assert sweep.returncode == 0, sweep.stderr
    alone = here(tmp_path / "alone").folder
    assert same(trained(tmp_path / "sweep" / "2"), trained(alone))
    assert record(tmp_path / "sweep" / "2")["metrics"] == record(alone)["metrics"]
    assert record(tmp_path / "sweep" / "1")["status"] == "failed"
    assert json.loads((tmp_path / "sweep" / "1" / "run.json").read_text())["error"]


def test_the_last_epoch_is_validated_whatever_the_others(tmp_path):
    """Else the end of training would have no score, and its last epochs no chance to be chosen."""
    folder = here(tmp_path, "trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2").folder
    assert [int(row["epoch"]) for row in rows(folder) if row["val/co_bps"]] == [1, 3, 4]
    assert record(folder)["objective"]["end"] == float([row["val/co_bps"] for row in rows(folder)][-1])
