"""Sums of an epoch's losses: a step counts once, and an interrupted epoch goes on from its checkpoint."""

import torch

from neuro_lightning.models.epoch_sums import EpochSums


def values(loss, count, kl):
    return {"count": torch.tensor(count), "loss": torch.tensor(loss), "kl": torch.tensor(kl)}


def test_a_step_that_is_evaluated_twice_counts_once():
    sums = EpochSums()
    for loss in (6.0, 60.0):  # SAM evaluates a batch at two places
        found = sums.add(values(loss, 3.0, 1.0), (0, 0))
        assert float(found["loss"]) == loss
    sums.add(values(4.0, 1.0, 2.0), (0, 1))
    assert sums.end() == {"loss": 10 / 4, "kl": 3 / 2}
    assert sums.end() == {} and sums.to_dict() == {"steps": 0}


def test_an_interrupted_epoch_goes_on():
    whole, before, after = EpochSums(), EpochSums(), EpochSums()
    for step in range(3):
        for one in (whole, before if step < 2 else after):
            if one is after:
                after.load(before.to_dict())
            one.add(values(0.1 * step, 2.0, 0.3), (0, step))
    assert after.end() == whole.end()
