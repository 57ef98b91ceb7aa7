"""CutMix: what is pasted where, and what becomes of the responses."""

import pytest
import torch
from runs import TESTS, here, record

from neuro_lightning.contracts import full_mask, is_full
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.augment import seed_transforms
from neuro_lightning.nn.cutmix import CutMix, rectangles


def flat(n: int = 400, size: tuple[int, int] = (8, 12)) -> dict:
    """Image i has the value i everywhere, and so have all responses to it."""
    values = torch.arange(float(n))
    return {
        "inputs": values[:, None, None, None].expand(n, 1, *size).clone(),
        "targets": values[:, None].expand(n, 3).clone(),
        "mask": full_mask((n, 3)),
        "index": torch.arange(n),
    }


def mixed(batch: dict, p: float = 1.0, seed: int = 0, epoch: int = 0) -> dict:
    return seed_transforms([CutMix(p)], seed)[0].change_batch(batch, epoch)


def test_a_response_is_the_mean_over_the_pixels():
    batch = flat()
    found = mixed(batch)
    torch.testing.assert_close(found["targets"], found["inputs"].mean((1, 2, 3))[:, None].expand(-1, 3))
    changed = (found["inputs"] != batch["inputs"]).flatten(1)
    assert changed.any(1).float().mean() > 0.95 and changed.float().mean() > 0.3
    assert is_full(found["mask"]) and torch.equal(found["index"], batch["index"])
    # each image is pasted into one other, and never into itself
    pasted = [set(image.unique().tolist()) - {float(i)} for i, image in enumerate(found["inputs"])]
    sources = [next(iter(values)) for values in pasted if values]
    assert max(map(len, pasted)) == 1 and len(set(sources)) == len(sources)


def test_rectangles_by_hand():
    draws = torch.tensor([[0.75, 0.5, 0.5], [0.0, 0.0, 0.0], [0.9999999, 0.5, 0.5], [0.75, 0.0, 0.99]])
    found = rectangles(4, 8, draws)
    assert torch.equal(found[0].nonzero().T, torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([2, 3, 4, 5])).T)
    assert found[1, :2, :4].all() and found[1].sum() == 8  # a whole image around the corner: a quarter is inside
    assert not found[2].any()  # all of the image stays
    assert found[3, :1, 6:].all() and found[3].sum() == 2
    many = rectangles(64, 64, torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)))
    # sides of s: the expected part of [-s/2, s/2] around a uniform centre in [0, 1] is s - s^2 / 4; s^2 is uniform
    wanted = 1 / 2 - 0.5 * (2 / 5) + (1 / 16) * (1 / 3)
    assert many.float().mean().item() == pytest.approx(wanted, abs=0.01)


def test_unknown_responses_stay_unknown_and_reach_nothing():
    batch = flat(40)
    batch["mask"] = torch.ones(40, 3, dtype=torch.bool)
    batch["mask"][::2, 1] = False
    batch["targets"] = torch.where(batch["mask"], batch["targets"], torch.nan)  # poison
    found = mixed(batch, p=0.5)
    assert found["targets"][found["mask"]].isfinite().all()
    torch.testing.assert_close(found["targets"][:, 0], found["inputs"].mean((1, 2, 3)))
    untouched = (found["inputs"] == batch["inputs"]).flatten(1).all(1)
    assert untouched.any() and torch.equal(found["mask"][untouched], batch["mask"][untouched])
    assert not (found["mask"] & ~batch["mask"]).any()
    assert (found["mask"] != batch["mask"]).any()  # known, but mixed with an unknown one


def test_the_share_of_images_and_the_draws():
    batch = flat()
    share = (mixed(batch, p=0.3)["inputs"] != batch["inputs"]).flatten(1).any(1).float().mean()
    assert 0.2 < share < 0.4
    assert torch.equal(mixed(batch, p=0)["inputs"], batch["inputs"])
    first = mixed(batch, 0.5, seed=1, epoch=2)["inputs"]
    assert torch.equal(first, mixed(batch, 0.5, seed=1, epoch=2)["inputs"])
    assert not torch.equal(first, mixed(batch, 0.5, seed=1, epoch=3)["inputs"])
    assert not torch.equal(first, mixed(batch, 0.5, seed=2, epoch=2)["inputs"])
    alone = {name: value[:1] for name, value in batch.items()}
    assert torch.equal(mixed(alone)["targets"], alone["targets"])  # with nothing to be mixed with
    with_repeats = mixed({**batch, "repeats": torch.zeros(400, 2, 3), "rates": batch["targets"]})
    assert set(with_repeats) == set(batch)


def test_it_is_for_training_batches(tmp_path):
    words = [
        f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[pictures]", "data=pictures", "model=core_readout",
        "trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=none", "callbacks=minimal",
        "baselines=null", "model.core.first_kernel=5", "model.core.channels=4", "model.core.layers=2",
    ]  # fmt: skip
    scores = []
    for name, word in (("plain", "none"), ("mixed", "cutmix")):
        here(tmp_path / name, f"augment@data.augment={word}", base=words)
        scores.append(record(tmp_path / name)["metrics"])
    assert scores[0] != scores[1] and all(value == value for value in scores[1].values())


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ConfigError, match=r"CutMix: p=1\.5 must lie in \[0, 1\]"):
        CutMix(1.5)
