"""Batches: what is in them, in which order, and on which process."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold

from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.sampler import EpochBatches, Shards
from neuro_lightning.errors import DataError


def make_trials(n=7, bins=5, forward=2, n_in=4, n_out=3, seed=0):
    rng = np.random.default_rng(seed)

    def counts(*shape):
        return rng.poisson(1.0, shape).astype(np.uint8)

    return Trials(
        heldin=counts(n, bins, n_in),
        heldout=counts(n, bins, n_out),
        heldin_forward=counts(n, forward, n_in),
        heldout_forward=counts(n, forward, n_out),
        behavior=rng.normal(size=(n, bins, 2)),
        condition=np.arange(n) % 2,
        row=np.arange(n),
    )


class Fixed(PopulationDataModule):
    def __init__(self, recording, **loader):
        super().__init__(**loader)
        self.fixed = recording

    def load(self):
        return self.fixed


def test_a_batch_holds_every_count_in_its_place():
    trials = make_trials()
    batch = TrialDataset(trials, n_out=3, n_forward=2, evaluate=True)[[3, 1]]
    assert batch["inputs"].shape == (2, 5, 4) and batch["targets"].shape == (2, 7, 7)
    for i, trial in enumerate((3, 1)):
        np.testing.assert_array_equal(batch["inputs"][i], trials.heldin[trial])
        np.testing.assert_array_equal(batch["targets"][i, :5, 4:], trials.heldout[trial])
        np.testing.assert_array_equal(batch["targets"][i, 5:, :4], trials.heldin_forward[trial])
        np.testing.assert_array_equal(batch["targets"][i, 5:, 4:], trials.heldout_forward[trial])
    assert batch["mask"].all() and batch["index"].tolist() == [3, 1] and batch["condition"].tolist() == [1, 1]


def test_hidden_and_unscored_counts_are_masked():
    trials = make_trials()
    trials.scored = np.zeros((7, 5), bool)
    trials.scored[:, 2:] = True
    trials.heldout_forward = None
    scored = TrialDataset(trials, n_out=3, n_forward=2, evaluate=True)[[0]]["mask"][0]
    assert not scored[:2, 4:].any() and scored[2:5, 4:].all() and scored[:5, :4].all() and not scored[5:, 4:].any()
    training = TrialDataset(trials, n_out=3, n_forward=2, evaluate=False)[[0]]["mask"][0]
    assert training[:5].all(), "all observed spikes train the model, also where they are not scored"


def test_nan_counts_are_masked():
    trials = make_trials()
    trials.heldout = trials.heldout.astype(np.float32)
    trials.heldin = trials.heldin.astype(np.float32)
    trials.heldout[2, 3, 1] = np.nan
    mask = TrialDataset(trials, n_out=3, n_forward=2, evaluate=True)[[2]]["mask"][0]
    assert not mask[3, 5] and mask.sum() == mask.numel() - 1


def whole_split(trials, n_out, n_forward, evaluate):
    """Counts and mask of all trials, assembled in numpy."""
    n, bins, n_in = trials.heldin.shape
    counts = np.zeros((n, bins + n_forward, n_in + n_out), trials.heldin.dtype)
    seen = np.zeros(counts.shape, bool)
    parts = ((trials.heldin, trials.heldout), (trials.heldin_forward, trials.heldout_forward))
    for rows, pair in zip((slice(0, bins), slice(bins, None)), parts, strict=True):
        for columns, part in zip((slice(0, n_in), slice(n_in, None)), pair, strict=True):
            if part is not None and part.size:
                counts[:, rows, columns] = part
                seen[:, rows, columns] = True
    if counts.dtype.kind == "f":
        seen &= ~np.isnan(counts)
    if evaluate and trials.scored is not None:
        seen[:, :bins, n_in:] &= trials.scored[:, :, None]
    return counts, seen


@pytest.mark.parametrize("missing", [(), ("heldout",), ("heldout", "heldout_forward"), ("heldin_forward",)])
@pytest.mark.parametrize("case", ["counts", "strided", "reversed", "read-only", "activity"])
@pytest.mark.parametrize("evaluate", [True, False])
def test_batches_are_rows_of_the_whole_split(case, missing, evaluate):
    """Values, dtypes and memory layout, on which the bits of sums depend, are those of one array of the whole split."""
    trials, rng = make_trials(), np.random.default_rng(3)
    trials.scored = rng.random((7, 5)) < 0.5
    trials.rates = rng.random((7, 7, 14), np.float32)[:, :, ::2]
    for name in ("heldin", "heldout", "heldin_forward", "heldout_forward"):
        values = getattr(trials, name)
        if case == "activity":
            values = np.where(rng.random(values.shape) < 0.1, np.nan, values).astype(np.float32)
        if case == "strided":
            values = np.repeat(values, 2, axis=2)[:, :, ::2]
        if case == "reversed":
            values = values[:, ::-1]
        values.flags.writeable = case != "read-only"
        setattr(trials, name, None if name in missing else values)
    counts, seen = whole_split(trials, 3, 2, evaluate)
    dataset = TrialDataset(trials, n_out=3, n_forward=2, evaluate=evaluate)
    for index in ([4, 0, 6], list(range(7)), [2]):
        batch = dataset[index]
        for name, whole in (("targets", counts), ("mask", seen), ("rates", np.ascontiguousarray(trials.rates))):
            expected = torch.from_numpy(whole)[index]
            assert torch.equal(batch[name].nan_to_num(), expected.nan_to_num()), name
            assert (batch[name].dtype, batch[name].stride()) == (expected.dtype, expected.stride()), name
            assert name == "mask" or torch.equal(batch[name].isnan(), expected.isnan())
        assert batch["inputs"].data_ptr() == batch["targets"].data_ptr()
        assert torch.equal(batch["inputs"].nan_to_num(), batch["targets"][:, :5, :4].nan_to_num())


def test_a_dataset_copies_no_counts():
    trials = make_trials()
    trials.rates = np.ones((7, 7, 7), np.float32)
    dataset = TrialDataset(trials, n_out=3, n_forward=2, evaluate=True)
    held = [part for _, part in dataset.parts]
    for values, tensor in zip(
        (trials.heldin, trials.heldout, trials.heldin_forward, trials.heldout_forward), held, strict=True
    ):
        assert np.shares_memory(values, tensor.numpy())
    assert np.shares_memory(trials.rates, dataset.extras["rates"].numpy())
    tensors = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    assert not tensors, "and no mask of the whole split"


@pytest.mark.parametrize("groups", [False, True])
def test_folds_are_those_of_an_unshuffled_cross_validation(groups):
    rng = np.random.default_rng(1)
    trials = make_trials(n=11, bins=6)
    trials.behavior[rng.random((11, 6)) < 0.2] = np.nan
    if groups:
        side = rng.random(11) < 0.5
        trials.decode_mask = np.stack([side, ~side], axis=1)
    fold = TrialDataset(trials, n_out=3, n_forward=2, evaluate=False).extras["decode_fold"].numpy()
    for m in range(fold.shape[2]):
        used = ~np.isnan(trials.behavior[:, :, 0]) & (trials.decode_mask[:, m, None] if groups else True)
        assert ((fold[:, :, m] >= 0) == used).all()
        flat = fold[:, :, m][used]
        for k, (_, test) in enumerate(KFold(5).split(flat[:, None])):
            assert (np.flatnonzero(flat == k) == test).all()


def test_two_processes_see_the_batches_of_one():
    def epoch(rank, world, epoch):
        sampler = EpochBatches(37, 16, seed=3, rank=rank, world=world)
        sampler.set_epoch(epoch)
        return list(sampler)

    for number in range(3):
        alone, both = epoch(0, 1, number), [epoch(rank, 2, number) for rank in range(2)]
        assert sorted(i for batch in alone for i in batch) == list(range(37))
        assert {len(batch) for batch in alone} == {12, 13}, "no small last batch"
        for batch, first, second in zip(alone, *both, strict=True):
            assert sorted(first + second) == sorted(batch) and abs(len(first) - len(second)) <= 1
    assert epoch(0, 1, 0) != epoch(0, 1, 1) and epoch(0, 1, 1) == epoch(0, 1, 1)


def test_an_interrupted_epoch_resumes_at_the_next_batch():
    whole, rest = EpochBatches(37, 8, seed=1), EpochBatches(37, 8, seed=1)
    rest.resume(epoch=2, batches=3)
    for number in (2, 3):
        whole.set_epoch(number)
        rest.set_epoch(number)
        assert list(rest) == list(whole)[3 if number == 2 else 0 :]


def test_more_processes_than_trials_in_a_batch_is_an_error():
    with pytest.raises(DataError, match="batch_size"):
        EpochBatches(10, 2, world=4)


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size", "steps_at_once"])
def test_a_size_below_one_is_named(key):
    with pytest.raises(DataError, match=rf"^data.{key}=0: give a whole number from 1 on$"):
        PopulationDataModule(**{key: 0})


def test_evaluation_gives_each_trial_to_one_process():
    dealt = [i for rank in range(3) for batch in Shards(10, 2, rank=rank, world=3) for i in batch]
    assert sorted(dealt) == list(range(10))


def test_spec_follows_from_the_recording():
    train, val = make_trials(), make_trials(n=3, seed=1)
    recording = Recording("toy", 5, {"train": train, "val": val}, np.arange(7), behavior_kind="velocity")
    data = Fixed(recording, batch_size=4)
    spec = data.spec
    assert (spec.n_in, spec.n_out, spec.n_bins, spec.n_forward, spec.behavior_dim) == (4, 3, 5, 2, 2)
    np.testing.assert_allclose(spec.mean_rates[4:], train.heldout.mean((0, 1)))
    assert type(spec)(**{**spec.__dict__}) == type(spec).from_dict(spec.to_dict())
    assert list(data.references()) == ["val"] and data.references()["val"]["n_eval"] == 3
    batches = list(data.train_dataloader())
    assert sorted(torch.cat([b["index"] for b in batches]).tolist()) == list(range(7))
    assert len(data.val_dataloader()) == 2, "velocity is decoded from the training trials"


def test_no_validation_trials_is_an_error():
    recording = Recording("toy", 5, {"train": make_trials(), "val": make_trials(n=0)}, np.arange(7))
    with pytest.raises(DataError, match="no val trials"):
        Fixed(recording).prepare_data()
