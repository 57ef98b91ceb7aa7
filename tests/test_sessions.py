"""Several recordings in one run: which trials make up which batch, what is refused, and who learns from what."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from pictures import Pictures
from runs import same
from test_data_module import Fixed
from tiny_sessions import TinySession

from neuro_lightning.contracts import DataSpec, call_network
from neuro_lightning.data.sampler import EpochBatches, Grouped, SessionBatches, SessionShards
from neuro_lightning.data.sessions import Sessions
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.losses import default_loss
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.models.cnn import CNN
from neuro_lightning.models.core_readout import CoreReadout
from neuro_lightning.models.gru import GRU
from neuro_lightning.models.hsm import HSM
from neuro_lightning.models.lstm_autoencoder import LSTMAutoencoder
from neuro_lightning.models.warm_start import read_network, restore_layers
from neuro_lightning.nn.core import ConvCore
from neuro_lightning.nn.hsm_layers import Dense
from neuro_lightning.nn.readouts import FactorisedReadout
from neuro_lightning.optim import SAM

COUNTS = {"a": 23, "b": 9, "c": 40}
WHOLE = [5, 2, 8]  # batches of five trials


def batches(*, epoch=0, **options) -> SessionBatches:
    sampler = SessionBatches(COUNTS, 5, n_batches=WHOLE, **options)
    sampler.set_epoch(epoch)
    return sampler


def seen(drawn, session) -> list[int]:
    return [trial for number, batch in drawn for trial in batch if number == session]


def tiny(seed=0, **options) -> TinySession:
    return TinySession(**{"n_train": 23, "n_val": 7, "poison": {}, "seed": seed, **options})


def pair(**options) -> Sessions:
    return Sessions({"b": tiny(1, missing=2, n_train=9), "a": tiny(0)}, batch_size=5, **options)


# ---- batches


def test_each_trial_is_seen_once_in_an_epoch():
    drawn = list(batches(seed=3))
    assert len(drawn) == len(batches()) == 15
    for session, n in enumerate(COUNTS.values()):
        assert sorted(seen(drawn, session)) == list(range(n))
    order = [session for session, _ in drawn]
    assert order != sorted(order), "sessions are mixed"


def test_even_draws_show_all_sessions_equally_often():
    drawn = list(batches(even=True))
    assert [sum(number == session for number, _ in drawn) for session in range(3)] == [5, 5, 5]
    few = seen(drawn, 1)
    assert set(few) == set(range(9)) and len(few) > 18, "each trial of the small session twice, some three times"
    assert len(set(seen(drawn, 2))) == 25, "no trial of the large one twice"


def test_batches_are_a_function_of_seed_and_epoch():
    for even in (False, True):
        first = list(batches(seed=1, epoch=2, even=even))
        assert first == list(batches(seed=1, epoch=2, even=even))
        others = [batches(seed=1, epoch=3, even=even), batches(seed=2, epoch=2, even=even)]
        assert all(list(other) != first for other in others)


@pytest.mark.parametrize("even", [False, True])
def test_a_resumed_epoch_goes_on_where_it_was(even):
    whole, resumed = batches(epoch=4, even=even), batches(epoch=4, even=even)
    resumed.resume(4, 6)
    assert list(resumed) == list(whole)[6:]
    resumed.set_epoch(5)
    assert list(resumed) == list(batches(epoch=5, even=even)), "the next epoch is whole"
    resumed.set_epoch(4)
    grouped = list(Grouped(resumed, 4))
    assert [batch for group in grouped for batch in group] == list(whole)[6:]


def test_processes_share_every_batch():
    one = list(batches(epoch=1))
    shares = [list(batches(epoch=1, rank=rank, world=2)) for rank in range(2)]
    for (session, batch), *parts in zip(one, *shares, strict=True):
        assert {number for number, _ in parts} == {session}, "all processes are at the same session"
        assert sorted(trial for _, part in parts for trial in part) == sorted(batch)
    with pytest.raises(DataError, match="a batch of session a with fewer trials than there are processes"):
        batches(world=5)


def test_trials_are_scored_once_and_sessions_take_turns():
    shards = [SessionShards([7, 2], 3, rank=rank, world=2) for rank in range(2)]
    for session, n in enumerate((7, 2)):
        assert sorted(trial for part in shards for trial in seen(part, session)) == list(range(n))
    assert [len(list(part)) for part in shards] == [len(part) for part in shards]
    assert [session for session, _ in SessionShards([7, 2], 3)] == [0, 1, 0, 0]


def test_one_session_has_the_batches_of_a_recording_alone():
    """In another order, as one more draw orders the sessions."""
    alone, session = EpochBatches(23, 5, seed=2), SessionBatches({"a": 23}, 5, n_batches=[5], seed=2)
    assert sorted(list(alone)) == sorted(batch for _, batch in session)


def test_a_batch_is_of_one_session():
    data = pair()
    dataset, found = data.dataset("train", evaluate=False), []
    for session, index in data.training_batches(0, 1):
        batch = dataset[session, index]
        own = data.sessions["ab"[session]].dataset("train", evaluate=False)[index]
        assert batch["session"] == session and same({**own, "session": session}, batch)
        found.append(batch["inputs"].shape[2])
    assert set(found) == {4, 6} and len(dataset) == 32 and data.count_trials("train") == 32


def test_the_order_in_which_sessions_are_given_changes_nothing():
    one, other = pair(), Sessions({"a": tiny(0), "b": tiny(1, missing=2, n_train=9)}, batch_size=5)
    assert one.spec == other.spec and [part.session for part in one.spec.parts] == ["a", "b"]
    assert list(one.training_batches(0, 1)) == list(other.training_batches(0, 1))


def test_fewer_training_trials_are_said_once_or_for_a_session():
    def counts(**options):
        return {name: part.count_trials("train") for name, part in Sessions(**options).sessions.items()}

    def parts():
        return {"a": tiny(0), "b": tiny(1, train_trials=3)}

    assert counts(sessions=parts()) == {"a": 23, "b": 3}
    assert counts(sessions=parts(), train_trials=5) == {"a": 5, "b": 5}


# ---- what is refused


def test_what_must_agree_is_said_in_one_line():
    with pytest.raises(DataError, match=r"^the sessions a and b differ in their bin width in ms: 10 and 20; .*$"):
        _ = Sessions({"a": tiny(0), "b": tiny(1, bin_ms=20)}).sessions
    pictures = Pictures(n_train=8, n_val=4, offset=0)
    with pytest.raises(DataError, match=r"^the sessions a and b differ in their kind: spikes and images; .*$"):
        _ = Sessions({"a": tiny(0), "b": pictures}).sessions
    with pytest.raises(DataError, match="names no recording"):
        Sessions({})
    with pytest.raises(DataError, match=r"data\.sessions\.a: give the config of one recording"):
        Sessions({"a": pair()})


def test_a_session_without_validation_trials_is_named():
    with pytest.raises(DataError, match=r"^session b: tiny has no val trials"):
        _ = Sessions({"a": tiny(0), "b": tiny(1, n_val=0)}).sessions


def test_a_recording_that_cannot_be_read_is_named_and_left_out(caplog):
    class Damaged(TinySession):
        def load(self):
            raise DataError(f"file{self.seed}.nwb: is damaged")

    def parts():
        damaged = {f"c{seed}": Damaged(n_train=3, n_val=3, poison={}, seed=seed) for seed in (1, 2)}
        return {"a": tiny(0), "b": tiny(1), **damaged}

    with pytest.raises(DataError, match=r"session c1: file1\.nwb: is damaged\nsession c2: file2\.nwb: is damaged"):
        _ = Sessions(parts()).sessions
    with caplog.at_level(logging.WARNING):
        assert list(Sessions(parts(), leave_out_damaged=True).sessions) == ["a", "b"]
    assert [r.message for r in caplog.records] == [f"session c{n} is left out: file{n}.nwb: is damaged" for n in (1, 2)]
    with pytest.raises(DataError, match=r"session c1: .*\nsession c2: "):
        _ = Sessions({name: part for name, part in parts().items() if name > "b"}, leave_out_damaged=True).sessions


def test_the_same_recording_twice_is_refused():
    with pytest.raises(DataError, match=r"^23 train trials of session a are training trials of session b: .*$"):
        _ = Sessions({"a": tiny(0), "b": tiny(0)}).sessions
    one, other = tiny(0).load(), tiny(1).load()
    other.splits["val"] = one.splits["train"].take(np.array([2, 5]))
    with pytest.raises(DataError, match=r"^2 val trials of session b are training trials of session a"):
        _ = Sessions({"a": Fixed(one), "b": Fixed(other)}).sessions


def test_other_neurons_may_have_seen_the_same_images(caplog):
    """But an image that trains the core for one session is not new to it in another."""
    one, other = (Pictures(n_train=12, n_val=4, offset=0).load() for _ in range(2))
    for trials in other.splits.values():
        trials.responses = trials.responses[:, ::-1] + 1
    assert len(Sessions({"a": Fixed(one), "b": Fixed(other)}).sessions) == 2 and not caplog.records
    other.splits["val"] = other.splits["train"].take(np.array([0, 3]))
    other.splits["train"] = other.splits["train"].take(np.array([1, 2, 4, 5]))
    with caplog.at_level(logging.WARNING):
        _ = Sessions({"a": Fixed(one), "b": Fixed(other)}).sessions
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("2 val images of session b are training images of session a: ")
    with pytest.raises(DataError, match=r"^12 train trials of session a are training trials of session b"):
        _ = Sessions({name: Fixed(one) for name in "ab"}).sessions


def test_networks_that_share_no_core_are_one_line():
    with pytest.raises(ConfigError, match=r"^sessions a and b cannot share a core of LSTMAutoencoderNet: .*shapes.*$"):
        LSTMAutoencoder(without_forward().spec, latent_dim=2, feedback=True)


def without_forward() -> Sessions:
    return Sessions({"a": tiny(0, forward=False), "b": tiny(1, forward=False, missing=2)})


# ---- images


def picture_sessions() -> Sessions:
    """Two recordings with four and three neurons."""
    recordings = [Pictures(n_train=12, n_val=4, offset=0).load() for _ in range(2)]
    for trials in recordings[1].splits.values():
        trials.responses = trials.responses[:, 1:]
    recordings[1].unit_ids = recordings[1].unit_ids[1:]
    return Sessions({"a": Fixed(recordings[0]), "b": Fixed(recordings[1])}, batch_size=6)


def cnn(spec) -> CNN:
    layers = [{"filters": 2, "kernel": 3, "batch_norm": True, "l2": 0.1}]
    return CNN(spec, conv=layers, dense=[{"units": 3, "l2": 0.2}], logits={"l2": 0.3})


def core_readout(spec) -> CoreReadout:
    core = partial(ConvCore, channels=2, layers=1, first_kernel=3, laplace=0.1)
    return CoreReadout(spec, core=core, readout=partial(FactorisedReadout, l1=0.2))


@pytest.mark.parametrize(("build", "own"), [(cnn, "logits"), (core_readout, "readout")])
def test_sessions_of_images_share_the_core_and_are_regularised_apart(build, own):
    data = picture_sessions()
    model = build(data.spec).train()
    assert model.networks[0].core is model.networks[1].core
    for session in (0, 1):
        batch = data.dataset("train", evaluate=False)[session, [0, 1, 2, 3]]
        model.zero_grad(set_to_none=True)
        output = call_network(model.net, batch, batch["inputs"])
        assert output["rates"].shape == (4, 4 - session)
        sum(output["losses"].values()).backward()
        with_gradient = {name for name, weight in model.net.named_parameters() if weight.grad is not None}
        assert any(name.startswith(f"sessions.{session}.{own}.") for name in with_gradient)
        assert any(".core." in name for name in with_gradient)
        assert not any(name.startswith(f"sessions.{1 - session}.{own}.") for name in with_gradient)


def test_layers_are_frozen_and_begun_with_in_every_session(tmp_path):
    data = picture_sessions()
    source = cnn(data.sessions["a"].spec).net
    layers = {"conv": [{"filters": 2, "kernel": 3, "batch_norm": True}], "dense": [{"units": 3}], "logits": {}}
    model = CNN(data.spec, **layers, freeze=["conv", "logits"])
    trained = {name for name, weight in model.net.named_parameters() if weight.requires_grad}
    assert trained == {"sessions.0.core.dense.0.linear.weight", "sessions.0.core.dense.0.linear.bias"}
    torch.save({"state_dict": {f"net.{name}": value for name, value in source.state_dict().items()}}, tmp_path / "a")
    restore_layers(model.networks[1], read_network(tmp_path / "a"), ["conv"], "a")
    for net in model.networks:
        assert torch.equal(net.core.conv[0].linear.weight, source.core.conv[0].linear.weight)
    torch.save({"state_dict": {f"net.{k}": v for k, v in model.net.state_dict().items()}}, tmp_path / "both")
    again = cnn(data.sessions["b"].spec).net
    restore_layers(again, read_network(tmp_path / "both"), ["conv", "dense"], "both")
    assert same(again.core.state_dict(), model.networks[1].core.state_dict())


def test_a_network_without_a_core_is_one_line():
    with pytest.raises(ConfigError, match=r"^HSMNet has no core that several recordings could share: give one"):
        HSM(picture_sessions().spec, output=partial(Dense, activation="softplus"))


# ---- who learns from what


def gru(spec) -> GRU:
    torch.manual_seed(0)
    return GRU(spec, hidden=3, layers=1, bidirectional=True, step_ms=None, layer_dropout=0.0)


def gradients(model, batch) -> dict[str, torch.Tensor | None]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    output = call_network(model.net, batch, batch["inputs"].float())
    total, count = default_loss(model.spec)(output, batch["targets"], batch["mask"], model.spec.of_batch(batch))
    (total / count).backward()
    return {name: weight.grad for name, weight in model.net.named_parameters()}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, SAM])
def test_what_belongs_to_a_session_stands_still_in_the_others_steps(optimizer):
    """No gradient, no momentum, no weight decay."""
    data = pair()
    model = gru(data.spec)
    options = {SAM: {"base": torch.optim.AdamW}}.get(optimizer, {"lr": 0.1, "weight_decay": 0.5})
    steps = optimizer(model.parameters(), **options)
    own = {part: {k for k in model.net.state_dict() if k.startswith(f"sessions.{part}.") and "core" not in k}
           for part in (0, 1)}  # fmt: skip
    for session in (0, 1, 0, 0, 1):
        batch = data.dataset("train", evaluate=False)[session, [0, 1, 2]]
        before = {name: value.clone() for name, value in model.net.state_dict().items()}

        def closure(batch=batch):
            model.zero_grad(set_to_none=True)
            grads = gradients(model, batch)
            return sum(grad.sum() for grad in grads.values() if grad is not None)

        steps.step(closure)
        moved = {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
        assert not moved & own[1 - session] and moved & own[session]
        assert any(".core." in name for name in moved), "all sessions train the core"


def test_what_was_not_observed_and_other_sessions_give_no_gradient():
    """NaN in hidden targets, and anything in those of another session."""

    def data(**options):
        poison = {"b": {"train.heldout": np.nan}} | options
        return Sessions({name: tiny(i, missing=i, poison=poison.get(name, {})) for i, name in enumerate("ab")})

    clean, other = data(), data(a={"train.heldout": 1e30, "train.heldin": 7})
    model = gru(clean.spec)
    found = [gradients(model, each.dataset("train", evaluate=False)[1, [0, 4]]) for each in (clean, other)]
    for name, grad in found[0].items():
        assert (grad is None) == (name.startswith("sessions.0.") and ".core." not in name)
        assert grad is None or (torch.isfinite(grad).all() and torch.equal(grad, found[1][name])), name


def test_a_score_depends_on_no_other_session():
    data = pair()
    model = gru(data.spec).eval()

    def scores(order):
        metrics = build_metrics(model.spec, **data.references()["val"])
        for session in order:
            batch = data.dataset("val", evaluate=True)[session, list(range(7))]
            with torch.no_grad():
                metrics.update(call_network(model.net, batch, batch["inputs"].float()), batch)
            train = data.dataset("train", evaluate=False)[session, list(range(9))]
            with torch.no_grad():
                metrics.update_train(call_network(model.net, train, train["inputs"].float()), train)
        return metrics.compute()

    both, back = scores([0, 1]), scores([1, 0])
    assert both.keys() == back.keys() and all(both[name] == back[name] or np.isnan(both[name]) for name in both)
    part = data.sessions["b"]
    alone = build_metrics(part.spec, **part.references()["val"])
    for split, update in (("val", alone.update), ("train", alone.update_train)):
        batch = part.dataset(split, evaluate=split == "val")[list(range(7 if split == "val" else 9))]
        with torch.no_grad():
            update(call_network(model.networks[1], batch, batch["inputs"].float()), batch)
    for name, value in alone.compute().items():
        assert both[f"{name}/b"] == pytest.approx(value, nan_ok=True), name
    assert both["co_bps"] == pytest.approx((both["co_bps/a"] + both["co_bps/b"]) / 2)


def test_a_session_without_labels_leaves_the_scores_of_the_others_alone():
    spec = DataSpec("x", n_in=2, n_out=1, n_bins=4, mean_rates=(0.5,) * 3)
    parts = tuple(replace(spec, session=name) for name in ("a", "b", "c"))
    joint = replace(spec, sessions=parts)
    metrics = build_metrics(joint, sessions=[{"n_eval": 5}, {}, {"n_eval": 5}])
    generator, expected = torch.Generator().manual_seed(0), {}
    for number, name in enumerate("abc"):
        rates = torch.rand(5, 4, 3, generator=generator) + 0.1
        batch = {"targets": torch.poisson(rates, generator=generator), "mask": torch.ones(5, 4, 3, dtype=torch.bool),
                 "session": number}  # fmt: skip
        metrics.update({"rates": rates}, batch)
        expected[name] = float(bits_per_spike(rates[..., 2:], batch["targets"][..., 2:]))
    assert metrics.compute() == pytest.approx({
        "co_bps": (expected["a"] + expected["c"]) / 2, "co_bps/a": expected["a"], "co_bps/c": expected["c"]
    })  # fmt: skip
