"""Several steps in one batch of the trainer's are the same training, bit for bit."""

import shutil

import pytest
from runs import checkpoint, here, record, rows, same

from neuro_lightning.data.sampler import EpochBatches, Grouped
from neuro_lightning.models.base import PopulationModule

SETTINGS = ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "model.optimizer.lr=0.01"]


def learned(folder):
    content = checkpoint(folder)
    return [content["state_dict"], content["optimizer_states"], content["lr_schedulers"], content["global_step"]]


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    return here(tmp_path_factory.mktemp("one"), *SETTINGS).folder


@pytest.mark.parametrize("at_once", [3, 100])  # an epoch has four batches
def test_several_steps_at_once_give_the_same_bits(one_by_one, tmp_path, at_once, monkeypatch):
    taken, take = [], PopulationModule._take_steps
    monkeypatch.setattr(PopulationModule, "_take_steps", lambda self, b, i: taken.append(len(b)) or take(self, b, i))
    folder = here(tmp_path, *SETTINGS, f"data.steps_at_once={at_once}").folder
    assert taken == ([3, 1] if at_once == 3 else [4]) * 4, "they were taken together"
    assert same(learned(folder), learned(one_by_one))
    assert rows(folder) == rows(one_by_one)
    assert record(folder)["steps"] == record(one_by_one)["steps"] == 16
    assert 0 < record(folder)["ms_per_step"] < 1000


def test_with_an_optimizer_that_evaluates_twice(tmp_path):
    sam = ["optimizer@model.optimizer=sam", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"]
    one, many = (here(tmp_path / str(k), *sam, f"data.steps_at_once={k}").folder for k in (1, 3))
    assert same(learned(one), learned(many)) and rows(one) == rows(many)
    assert record(one)["steps"] == 8, "one step a batch, however often it is evaluated"


def test_a_resumed_run_ends_in_the_same_bits(one_by_one, tmp_path):
    half = here(tmp_path, *SETTINGS, "data.steps_at_once=3", "trainer.max_epochs=2", "scheduler@model.scheduler=none")
    whole = here(tmp_path / "whole", *SETTINGS, "data.steps_at_once=3", "scheduler@model.scheduler=none")
    shutil.copy(half.folder / "checkpoints" / "last.ckpt", tmp_path / "half.ckpt")
    resume = f"resume={tmp_path / 'half.ckpt'}"
    resumed = here(half.folder, *SETTINGS, "data.steps_at_once=3", "scheduler@model.scheduler=none", resume)
    assert same(learned(resumed.folder), learned(whole.folder))


def test_groups_hold_every_batch_once():
    batches = EpochBatches(23, 5, seed=1)
    groups = Grouped(batches, 2)
    groups.set_epoch(3)
    found = list(groups)
    assert [len(group) for group in found] == [2, 2, 1] and len(groups) == 3
    assert [batch for group in found for batch in group] == list(batches)
    assert sorted(trial for group in found for batch in group for trial in batch) == list(range(23))


def test_a_run_resumed_within_an_epoch_restores_its_number_of_steps(tmp_path):
    """Its checkpoint counts batches, not the trainer's groups of them."""
    words = [*SETTINGS, "trainer.check_val_every_n_epoch=1", "data.steps_at_once=3",
             "+callbacks.steps={_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',save_top_k:-1,"
             "auto_insert_metric_name:false,every_n_train_steps:1,filename:'step{step}'}"]  # fmt: skip
    here(tmp_path / "run", *words)
    assert checkpoint(tmp_path / "run", "step7.ckpt")["Tiny"] == {"epoch": 1, "batches": 3}
