"""The schedule that waits for a plateau: back to the best weights, and an end."""

import pytest
import torch
from runs import here, record, rows
from torch import nn

from neuro_lightning.errors import ConfigError
from neuro_lightning.optim import plateau

PLATEAU = [
    "scheduler@model.scheduler=plateau", "model.scheduler.patience=0", "model.scheduler.factor=0.1",
    "model.scheduler.monitor=val/oracle_co_bps",  # never better than at first
]  # fmt: skip


def steered(**settings):
    """One weight that grows by one before each score, and its schedule."""
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    made = plateau(optimizer, 10, monitor="val/corr", mode="max", **settings)
    return weight, optimizer, made["scheduler"]


def path(scores, **settings):
    """(weight, learning rate) after each score."""
    weight, optimizer, schedule = steered(**settings)
    found = []
    for score in scores:
        weight.data += 1
        schedule.step(score)
        found.append((weight.item(), optimizer.param_groups[0]["lr"]))
    return found, schedule


def test_a_plateau_lowers_the_rate_and_can_restore_the_best_weights():
    scores = [0.1, 0.3, 0.2, 0.2, 0.4, 0.1, 0.1]
    plain, schedule = path(scores, factor=0.5, patience=1)
    assert plain == [(1, 1), (2, 1), (3, 1), (4, 0.5), (5, 0.5), (6, 0.5), (7, 0.25)] and not schedule.finished
    restored, schedule = path(scores, factor=0.5, patience=1, restore_best=True, rounds=2)
    assert restored == [(1, 1), (2, 1), (3, 1), (2, 0.5), (3, 0.5), (4, 0.5), (3, 0.25)]
    assert schedule.finished


def test_the_rate_stays_above_its_least_and_plateaus_count_there_too():
    found, schedule = path([0.5, 0.1, 0.1, 0.1], factor=0.1, patience=0, min_lr=0.05, rounds=3, restore_best=True)
    assert found == [(1, 1.0), (1, pytest.approx(0.1)), (1, 0.05), (1, 0.05)] and schedule.finished


def test_small_gains_are_none():
    for mode, threshold, better in (("abs", 0.01, False), ("abs", 1e-6, True), ("rel", 0.1, False)):
        found, _ = path([0.5, 0.505], factor=0.1, patience=0, threshold=threshold, threshold_mode=mode)
        assert (found[-1][1] == 1) == better


def test_its_state_is_saved_with_the_best_weights():
    weight, _, schedule = steered(factor=0.5, patience=0, restore_best=True)
    weight.data += 1
    schedule.step(0.5)
    state = schedule.state_dict()
    other_weight, _, other = steered(factor=0.5, patience=0, restore_best=True)
    other.load_state_dict(state)
    other_weight.data += 7
    other.step(0.1)
    assert other_weight == 1 and other.plateaus == 1


def trained_epochs(folder):
    return [int(row["epoch"]) for row in rows(folder) if row.get("train/loss")]


def test_a_training_ends_after_its_last_plateau(tmp_path):
    run = here(tmp_path, *PLATEAU, "model.scheduler.rounds=2", "trainer.max_epochs=9")
    assert trained_epochs(run.folder) == [0, 1, 2] and record(run.folder)["status"] == "finished"
    before = rows(run.folder)
    here(
        run.folder,
        *PLATEAU,
        "model.scheduler.rounds=2",
        "trainer.max_epochs=9",
        f"resume='{run.folder}/checkpoints/last.ckpt'",
    )
    assert rows(run.folder) == before and trained_epochs(run.folder) == [0, 1, 2]


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"scheduler\.rounds=0 must be 1 at least"):
        steered(rounds=0)
    with pytest.raises(ConfigError, match=r"restore_best=true goes back to weights that were validated"):
        here(tmp_path, *PLATEAU, "model.scheduler.restore_best=true", "callbacks/average=ema")
