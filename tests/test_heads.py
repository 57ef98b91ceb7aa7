"""Heads: behavior decoded from the latents of a network and trained with it: values, losses, scores, which networks."""

import math

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import spec_of
from runs import ROOT, TINY, same
from tiny import Tiny

from neuro_lightning.artifacts.old_names import update_names, update_override
from neuro_lightning.contracts import IN_BINS, BehaviorInfo, DataSpec, call_network, run_network
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.spike_trials.labels import label_texts, read_labels
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.metrics.heads import DecodedClass, DecodedR2
from neuro_lightning.nn.heads import Heads, HeadSettings, pooled
from neuro_lightning.settings.config import instantiate

VELOCITY = "+head@model.heads.velocity=linear"
KIND = ["+head@model.heads.kind=class", "model.heads.kind.target=kind"]
SIZE = ["+head@model.heads.size=number", "model.heads.size.target=size"]
LABELLED = ["++data.labels=true", VELOCITY, *KIND, *SIZE]
BINS = BehaviorInfo(IN_BINS, mean=(3.0, -1.0), std=(2.0, 0.5))
CHOICE = BehaviorInfo("choice", classes=("left", "right"), codes=(1.0, 4.0))
RT = BehaviorInfo("rt", mean=(300.0,), std=(50.0,), classes=(250.0, 350.0), codes=(250.0, 350.0))
SPEC = spec_of(behaviors=(BINS, CHOICE, RT))
SETTINGS = {
    "velocity": HeadSettings(kind="linear"),
    "choice": HeadSettings(kind="class", target="choice"),
    "rt": HeadSettings(kind="number", target="rt"),
}
MODELS = ["gru", "gru_smoothed", "ndt", "stndt", "lfads", "neural_roberta", "lstm_autoencoder"]


def heads_of(spec=SPEC, width=4, **settings) -> Heads:
    """Heads whose weights are no longer zero."""
    heads = Heads(settings or SETTINGS, spec, width)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return heads


def head(name: str, **options):
    return heads_of(**options).by_name[name]


def batch_of(n=6, bins=10):
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1.0, 300], [4, 200], [4, math.nan], [math.nan, 380], [2, 310], [1, 290]])[:n]
    return {"behavior": torch.randn(n, bins, 2, generator=random), "labels": labels}


# ---- what they give, and their losses


def test_a_head_begins_at_the_mean_of_training_in_the_physical_unit():
    found = Heads(SETTINGS, SPEC, 4)(torch.randn(3, 13, 4), 10)
    assert torch.equal(found["velocity"], torch.tensor([3.0, -1.0]).expand(3, 10, 2))
    assert torch.equal(found["rt"], torch.full((3,), 300.0)) and torch.equal(found["choice"], torch.zeros(3, 2))


def test_values_and_losses_are_their_formulas():
    heads, latents, batch = heads_of(), torch.randn(6, 13, 4), batch_of()
    found = heads(latents, 10)
    w, b = (getattr(heads.by_name["velocity"], name) for name in ("weight", "bias"))
    velocity = (latents[:, :10] @ w.T + b) * torch.tensor([2.0, 0.5]) + torch.tensor([3.0, -1.0])
    torch.testing.assert_close(found["velocity"], velocity)
    w, b = (getattr(heads.by_name["choice"], name) for name in ("weight", "bias"))
    torch.testing.assert_close(found["choice"], latents[:, :10].mean(1) @ w.T + b)
    batch["behavior"][2, 3:, 1] = math.nan
    total, count = heads.by_name["velocity"].loss(found["velocity"], batch, SPEC)
    z = (velocity - batch["behavior"]) / torch.tensor([2.0, 0.5])
    torch.testing.assert_close(total, z[z.isfinite()].square().sum())
    assert count == 6 * 10 * 2 - 7
    total, count = heads.by_name["choice"].loss(found["choice"], batch, SPEC)  # the code 2 is of no training trial
    expected = -found["choice"].log_softmax(1)[[0, 1, 2, 5], [0, 1, 1, 0]].sum()
    torch.testing.assert_close(total, expected)
    assert count == 4
    total, count = heads.by_name["rt"].loss(found["rt"], batch, SPEC)
    torch.testing.assert_close(total, ((found["rt"] - batch["labels"][:, 1]) / 50)[[0, 1, 3, 4, 5]].square().sum())
    assert count == 5


def test_a_trial_is_summed_up_by_its_recorded_bins():
    heads, latents = heads_of(), torch.randn(2, 13, 4)
    observed = torch.ones(2, 10, 5, dtype=torch.bool)
    observed[1, 6:] = False
    poisoned = latents.clone()
    poisoned[1, 6:] = math.nan
    found, short = heads(poisoned, 10, observed), heads(latents[1:, :6], 6)
    for name in ("choice", "rt"):
        torch.testing.assert_close(found[name][1:], short[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_unknown_gives_no_gradient(name):
    """Nor does it change that of the others, whatever stands there."""
    each, batch = head(name), batch_of()
    latents = torch.randn(6, 10, 4)
    unknown = {**batch, "behavior": batch["behavior"].clone(), "labels": torch.full_like(batch["labels"], math.nan)}
    unknown["behavior"][:] = math.nan
    for given, zero in ((batch, False), (unknown, True)):
        inputs = latents.clone().requires_grad_()
        total, count = each.loss(each(inputs, None), given, SPEC)
        gradients = torch.autograd.grad(total, [inputs, *each.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert all(not gradient.any() for gradient in gradients) == zero and (count == 0) == zero


def test_a_long_training_on_fixed_latents_is_least_squares():
    each, latents, batch = head("velocity").double(), torch.randn(40, 10, 4).double(), batch_of()
    behavior = latents @ torch.randn(4, 2).double() * 3 + torch.randn(40, 10, 2) + 7
    behavior[:5, 2:] = math.nan
    exact = {"max_iter": 500, "line_search_fn": "strong_wolfe", "tolerance_grad": 1e-12, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(each.parameters(), **exact)

    def closure():
        optimizer.zero_grad()
        total, count = each.loss(each(latents, None), {**batch, "behavior": behavior}, SPEC)
        (total / count).backward()
        return total / count

    optimizer.step(closure)
    known = behavior.isfinite().all(-1)
    x = torch.cat([latents[known], torch.ones(int(known.sum()), 1)], dim=1)
    expected = x @ torch.linalg.lstsq(x, behavior[known]).solution
    torch.testing.assert_close(each(latents, None)[known], expected, rtol=1e-6, atol=1e-6)


# ---- scores


def test_r2_is_that_of_scikit_learn_however_the_trials_come():
    from sklearn.metrics import r2_score

    truth, decoded, used = torch.randn(30, 2).double() + 50, torch.randn(30, 2).double() + 50, torch.rand(30, 1) < 0.7
    metric = DecodedR2(torch.tensor([50.0, 50.0]))
    truth[~used[:, 0]] = math.nan
    for part in (slice(0, 7), slice(7, 30)):
        metric.update(decoded[part], truth[part], used[part])
    rows_used = used[:, 0].numpy()
    assert float(metric.compute()) == pytest.approx(r2_score(truth[rows_used], decoded[rows_used]), abs=1e-12)
    metric.update(torch.full((1, 2), math.nan), truth[used[:, 0]][:1], torch.ones(1, 1, dtype=torch.bool))
    assert math.isnan(metric.compute())


def test_accuracy_counts_known_trials_and_chance_is_the_most_frequent_class():
    metric = DecodedClass(3)
    assert metric.compute().isnan().all()
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 2, 0], [math.nan, 0, 0]])
    metric.update(logits, torch.tensor([0, 1, 1, -1, 1]))
    assert metric.compute().tolist() == [0.5, 0.75]


# ---- what is known of the data


def test_mean_and_scale_are_those_of_known_training_entries():
    data = Tiny(n_train=20, n_val=5, poison={"val": 1e30, "test": math.nan}, labels=True)
    behavior, labels = data.recording.splits["train"].behavior, data.recording.splits["train"].labels
    found = {info.name: info for info in data.spec.behaviors}
    assert list(found) == [IN_BINS, "kind", "size"]
    np.testing.assert_allclose(found[IN_BINS].mean, behavior.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found[IN_BINS].std, behavior.std((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found["size"].std, labels[:, 1].std(), rtol=1e-12)
    assert found["kind"].classes == ("apart", "ball") and found["kind"].codes == (0.0, 1.0)
    assert DataSpec.from_dict(data.spec.to_dict()) == data.spec


def recording_with(**columns) -> SpikeRecording:
    times = np.arange(4.0)
    trials = {"id": np.arange(4), "start_time": times, "stop_time": times + 1, **columns}
    return SpikeRecording("x", np.zeros(0), np.zeros(0, bool), [], [], trials)


def test_columns_of_trials_become_numbers():
    source = recording_with(
        side=np.array(["right", "", "left", "none"]),
        correct=np.array([True, False, True, True]),
        rt=np.array([0.2, np.inf, np.nan, 0.4]),
        raw=np.array([b"a", b"b", b"a", b"a"], object),
    )
    row = np.array([2, 0, 1, 3])
    labels = label_texts(source, ["side", "correct", "rt", "raw"], row)
    assert labels == [("side", ["left", "right"]), ("correct", None), ("rt", None), ("raw", ["a", "b"])]
    expected = [[0, 1, np.nan, 0], [1, 1, 0.2, 0], [np.nan, 0, np.nan, 1], [np.nan, 1, 0.4, 0]]
    np.testing.assert_equal(read_labels(source, labels, row), expected)
    other = recording_with(side=np.array(["up", "left", "left", "right"]), rt=np.array(["a", "b", "c", "d"]))
    found = read_labels(other, labels, np.arange(4))
    np.testing.assert_equal(found[:, 0], [np.nan, 0, 0, 1])
    assert np.isnan(found[:, 1:]).all() and read_labels(source, [], row) is None
    with pytest.raises(DataError, match="no column 'choice'"):
        label_texts(source, ["choice"], row)
    with pytest.raises(ConfigError, match="twice"):
        label_texts(source, ["rt", "rt"], row)


def test_sessions_share_a_head_with_joint_scale_and_the_classes_of_all():
    other = BehaviorInfo("choice", classes=("middle", "right"), codes=(0.0, 3.0))
    one = spec_of(behaviors=(BINS, CHOICE), session="one")
    two = spec_of(behaviors=(BehaviorInfo(IN_BINS, mean=(5.0, -1.0), std=(2.0, 0.5)), other), session="two")
    spec = spec_of(sessions=(one, two))
    heads = heads_of(spec, velocity=SETTINGS["velocity"], choice=SETTINGS["choice"])
    assert heads.by_name["velocity"].mean.tolist() == [4, -1]
    assert heads.by_name["velocity"].std.tolist() == pytest.approx([math.sqrt(5), 0.5])
    assert pooled([[1.0], [3.0]], [[1.0], [1.0]]) == ((2.0,), (math.sqrt(2),))
    choice = heads.by_name["choice"]
    assert choice.classes == ("left", "middle", "right")
    labels = {"labels": torch.tensor([[3.0], [1.0], [0.0], [4.0]])}
    assert choice.target(labels, one).tolist() == [-1, 0, -1, 2] and choice.target(labels, two).tolist() == [
        2,
        -1,
        1,
        -1,
    ]


@pytest.mark.parametrize(
    ("spec", "settings", "words"),
    [
        (spec_of(), SETTINGS["velocity"], "no behavior bin by bin: give data.behavior"),
        (spec_of(behaviors=(BINS,)), SETTINGS["choice"], r"no label choice: give data.labels=\[choice\]"),
        (SPEC, HeadSettings(kind="number", target="choice"), "is text: take head@model.heads.x=class"),
        (spec_of(behaviors=(BehaviorInfo("choice", classes=(1.0,), codes=(1.0,), mean=(1.0,), std=(1.0,)),)),
         SETTINGS["choice"], "nothing to decode"),
        (spec_of(behaviors=(BehaviorInfo("choice", classes=tuple(range(60))),)), SETTINGS["choice"], "60 values"),
        (spec_of(sessions=(spec_of(behaviors=(BINS,), session="a"), spec_of(session="b"))), SETTINGS["velocity"],
         "session b of x has no behavior"),
        (spec_of(sessions=(spec_of(behaviors=(BINS,), session="a"),
                           spec_of(behaviors=(BehaviorInfo(IN_BINS, mean=(1.0,), std=(1.0,)),), session="b"))),
         SETTINGS["velocity"], "sessions a and b cannot share a head, they have 2 and 1 channels"),
    ],
)  # fmt: skip
def test_data_without_the_behavior_are_refused_in_one_line(spec, settings, words):
    with pytest.raises(ConfigError, match=words) as error:
        Heads({"x": settings}, spec, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"kind": "cubic"}, "kind=cubic"), ({"kind": "class"}, "name the trial column"), ({"kind": "linear", "weight": -1},
     "weight=-1"), ({"kind": "linear", "target": "x"}, "takes no target")],
)  # fmt: skip
def test_settings_without_a_meaning_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        HeadSettings(**given)


# ---- in a network


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_sequences_takes_heads(name):
    """In training, too, where they train the core; and the rates stay what they are without."""
    forward = name != "lstm_autoencoder"
    data = Tiny(n_train=8, n_val=4, poison={}, labels=True, forward=forward)
    base, built = [*(word for word in TINY if not word.startswith("model")), f"model={name}"], []
    for words in (LABELLED, []):
        with initialize_config_dir(str(ROOT / "conf")):
            cfg = compose("train", overrides=[*base, *words])
        torch.manual_seed(0)
        built.append((instantiate(cfg.model, spec=data.spec), torch.rand(3)))
    (model, drawn), (bare, drawn_without) = built
    assert same(drawn, drawn_without), "heads draw no random numbers"
    weights = bare.net.state_dict()
    assert same({k: v for k, v in model.net.state_dict().items() if not k.startswith("heads.")}, dict(weights))
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)
    batch = data.dataset("train", evaluate=False)[list(range(8))]
    inputs = batch["inputs"].float()
    output = call_network(model.train().net, batch, inputs)
    assert {key: tuple(value.shape) for key, value in output["heads"].items()} == {
        "velocity": (8, 12, 2), "kind": (8, 2), "size": (8,),
    }  # fmt: skip
    total, _ = model.heads.by_name["kind"].loss(output["heads"]["kind"], batch, data.spec)
    assert any(g is not None and g.any() for g in torch.autograd.grad(total, list(model.net.core.parameters()),
                                                                     allow_unused=True))  # fmt: skip
    one, other = (run_network(each.eval().net, batch) for each in (model, bare))
    key = next(key for key in ("log_rates", "rates") if key in one)
    assert same(one[key], other[key]) and "heads" not in other


def test_networks_of_closed_form_take_none():
    done = [word for word in TINY if not word.startswith("model")]
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*done, "model=smoothing", VELOCITY])
    with pytest.raises(ConfigError, match=r"heads"):
        instantiate(cfg.model, spec=SPEC)


def test_attention_heads_of_older_versions_have_another_key():
    old = {"_target_": "neuro_lightning.models.ndt.NDT", "readin": {}, "heads": 4}
    assert update_names(old) == {**{k: v for k, v in old.items() if k != "heads"}, "attention_heads": 4}
    new = {"_target_": "neuro_lightning.models.ndt.NDT", "readin": {}, "heads": {"velocity": {"kind": "linear"}}}
    assert update_names(new) == new
    assert update_override("model.heads=2", old["_target_"]) == "model.attention_heads=2"
    assert update_override("model.heads=null", old["_target_"]) == "model.heads=null"
