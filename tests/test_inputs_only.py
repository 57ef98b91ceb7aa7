"""Training on the inputs of trials that are to be predicted: what is seen of them, and where it is refused."""

import numpy as np
import pytest
import torch
from runs import TINY, checkpoint, here, record
from tiny import BINS, N_IN, Tiny

from neuro_lightning.data.inputs_only import inputs_only
from neuro_lightning.data.recording import Trials
from neuro_lightning.data.sessions import Sessions
from neuro_lightning.errors import ConfigError

VAL = "data.train_on_inputs=[val]"


def tiny(**changes):
    return Tiny(**{"n_train": 37, "n_val": 11, "poison": {}, "batch_size": 10, "eval_batch_size": 4, **changes})


def weights(folder, name="last.ckpt"):
    return checkpoint(folder, name)["state_dict"]


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights by what was trained on and what was written over a part of the recording."""
    folder, found = tmp_path_factory.mktemp("inputs"), {}

    def train(*words):
        if words not in found:
            found[words] = weights(here(folder / str(len(found)), *words).folder)
        return found[words]

    return train


@pytest.mark.parametrize("part", ["heldout", "heldin_forward", "heldout_forward", "behavior", "rates"])
def test_nothing_but_the_inputs_trains(trained, part):
    assert equal(trained(VAL), trained(VAL, f"+data.poison={{val.{part}: 3.0}}"))


def test_the_inputs_train_and_without_the_setting_they_do_not(trained):
    spikes = "+data.poison={val.heldin: 3.0}"
    assert not equal(trained(VAL), trained(VAL, spikes)) and not equal(trained(VAL), trained())
    assert equal(trained(), trained(spikes))


def test_a_batch_holds_the_held_in_spikes_alone(tmp_path):
    data = tiny(train_on_inputs=["val", "test"], labels=True)
    data.prepare_data()
    joint, train, val = data.training_dataset(), data.dataset("train", evaluate=False), data.recording.splits["val"]
    assert len(joint) == data.count_training() == 37 + 11 + 11 and data.count_batches() == 6
    batch = joint[[40, 2, 36, 47, 58]]
    assert batch["index"].tolist() == [2, 36, 40, 47, 58]
    for name, values in train[[2, 36]].items():
        assert torch.equal(batch[name][:2].nan_to_num(9), values.nan_to_num(9)), name
    assert torch.equal(batch["inputs"][2], torch.from_numpy(val.heldin[3]))
    assert batch["mask"][2:, :BINS, :N_IN].all()
    assert int(batch["mask"][2:].sum()) == 3 * BINS * N_IN and (batch["targets"][2:][~batch["mask"][2:]] == 0).all()
    for name in ("behavior", "rates", "labels"):
        assert batch[name][2:].isnan().all(), name
    assert (batch["condition"][2:] == -1).all() and (batch["decode_fold"][2:] == -1).all()
    only = joint[[41, 57]]  # a batch without a training trial
    assert only["index"].tolist() == [41, 57] and set(only) == set(batch)


def test_several_sessions_add_their_own_inputs():
    modules = {"one": tiny(), "two": tiny(n_train=12, n_val=5, train_on_inputs=["test"])}
    data = Sessions(modules, batch_size=10, eval_batch_size=4, train_on_inputs=["val"])
    data.prepare_data()
    assert data.count_training() == 37 + 11 + 12 + 5
    rows = {0: [], 1: []}
    for session, index in data.training_batches(0, 1):
        rows[session] += data.training_dataset()[session, index]["index"].tolist()
    assert sorted(rows[0]) == list(range(48)) and sorted(rows[1]) == list(range(17))


def test_withheld_neurons_are_not_inputs():
    withheld = np.array([[True, False], [False, False]])
    trials = Trials(heldin=np.ones((2, 3, 2)), withheld=withheld)
    assert np.array_equal(inputs_only(trials).observed, ~np.repeat(withheld[:, None], 3, axis=1))


def test_a_resumed_run_and_a_refit_take_the_same_trials(tmp_path):
    whole = here(tmp_path / "whole", VAL, "refit=true", "trainer.max_epochs=2").folder
    here(tmp_path / "part", VAL, "trainer.max_epochs=2", "model.scheduler=null")
    alone = here(tmp_path / "alone", "model.scheduler=null", VAL, "trainer.max_epochs=4").folder
    resume = f"resume={tmp_path / 'part/checkpoints/last.ckpt'}"
    again = here(tmp_path / "part", resume, VAL, "trainer.max_epochs=4", "model.scheduler=null")
    assert equal(weights(alone), weights(again.folder))
    assert record(whole)["refit"]["trials"] == 37 + 11, "validation trials train whole, and not once more as inputs"


def test_the_header_says_it(tmp_path, capsys):
    here(tmp_path, VAL)
    assert "11 val (their inputs train, too)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.train_on_inputs=[vall]"], r"data.train_on_inputs=\[vall\]: no split vall .* there are val, test"),
        (["data.train_on_inputs=[train]"], r"no split train"),
        ([VAL, "++data.heldout=false", "++data.forward=false"], r"the inputs themselves are scored"),
        ([VAL, "model=smoothing"], r"data.train_on_inputs: Smoothing is fitted to whole trials .* give \[\]"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, words, message):
    base = [word for word in TINY if not (word.startswith("model") and "model=smoothing" in words)]
    with pytest.raises(ConfigError, match=message):
        here(tmp_path, *words, base=base)


def test_the_benchmark_forbids_it(tmp_path):
    pytest.importorskip("temporaldata")
    from neuro_lightning.data.bwb.datamodule import BrainWideBench

    with pytest.raises(ConfigError, match="trains on its training domain alone"):
        BrainWideBench(cache_dir=str(tmp_path), root=str(tmp_path), train_on_inputs=["test"])
