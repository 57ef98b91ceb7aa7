"""The spatiotemporal transformer: attention between neurons, the contrastive term, and what it never sees."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import transformer
from runs import ROOT, TINY, here, rows, same
from tiny import BINS, N_IN, Tiny

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.contrastive import info_nce
from neuro_lightning.models.stndt import STNDTNet
from neuro_lightning.nn.attention import context_mask
from neuro_lightning.nn.masking import RandomMasking
from neuro_lightning.nn.spatial_attention import SpatialAttention, SpatiotemporalLayer, courses_so_far
from neuro_lightning.settings.config import instantiate

HIDDEN = ("heldout", "heldin_forward", "heldout_forward", "behavior", "rates")
RATES = (0.5, 0.0, *([0.02] * 6))


def net(n_in=5, n_neurons=8, n_bins=10, n_forward=3, **options):
    torch.manual_seed(0)
    model = transformer(
        STNDTNet, n_in, n_neurons, n_bins, n_forward, **{"layers": 2, "feedforward": 6, **options}
    ).eval()
    torch.nn.init.normal_(model.readout.linear.weight)
    return model


def views(kind="spikes"):
    return RandomMasking("full", ratio=0.3, token_ratio=0.5, random_ratio=0.5, kind=kind)


def counts(*shape):
    return torch.poisson(torch.ones(*(shape or (4, 10, 5))))


def configured(spec, *words, experiment=None):
    overrides = [f"experiment={experiment}"] if experiment else ["model=stndt"]
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*overrides, *words])
    torch.manual_seed(0)
    return instantiate(cfg.model, spec=spec)


# ---- attention between neurons


@pytest.mark.parametrize(("steps", "heads"), [(6, 2), (7, 2), (7, 3), (5, 1)])
def test_spatial_attention_is_its_formula(steps, heads):
    """Also where the heads do not divide the steps: queries and keys are a little longer then."""
    torch.manual_seed(0)
    attention, courses = SpatialAttention(steps, heads), torch.randn(3, 4, steps)
    width = math.ceil(steps / heads)
    query, key = attention.query_key(courses).split(width * heads, dim=2)
    expected = torch.zeros(3, 4, 4)
    for b in range(3):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(4):
                scores = [math.exp(query[b, i, part] @ key[b, j, part] / math.sqrt(width)) for j in range(4)]
                expected[b, i] += torch.tensor(scores) / sum(scores) / heads
    torch.testing.assert_close(attention(courses), expected)


def test_neurons_attend_by_their_time_courses_alone():
    """There is nothing in the attention that knows a neuron by its place."""
    attention, courses, order = SpatialAttention(6, 2), torch.randn(3, 4, 6), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(attention(courses[:, order]), attention(courses)[:, order][:, :, order])


def test_a_layer_is_its_formula():
    torch.manual_seed(0)
    layer = SpatiotemporalLayer(4, 6, 2, 5, 0.1).eval()
    x, courses, allowed = torch.randn(3, 6, 4), torch.randn(3, 4, 6), context_mask(6, 1, 2)
    for norm in (layer.course_norm, layer.mix_norm, layer.dense_norm):
        torch.nn.init.normal_(norm.weight)
    y = layer.temporal(x, allowed)
    weights = layer.spatial(layer.course_norm(courses))
    mixed = torch.einsum("bij,bsj->bsi", weights, layer.mix_norm(y))
    y = y + mixed
    y = y + layer.dense[3](torch.relu(layer.dense[0](layer.dense_norm(y))))
    torch.testing.assert_close(layer(x, courses, allowed), y)
    assert not torch.allclose(layer(x, courses), y), "the context matters"


def test_in_a_causal_layer_the_channels_of_a_step_attend_by_their_time_courses_up_to_it():
    """Values and gradients are those of a layer that is shown each step's time courses alone."""
    torch.manual_seed(0)
    layer = SpatiotemporalLayer(4, 6, 2, 5, 0.1).eval().double()
    x, allowed = torch.randn(3, 6, 4).double().requires_grad_(), context_mask(6, 0, 6)
    for norm in (layer.course_norm, layer.mix_norm, layer.dense_norm):
        torch.nn.init.normal_(norm.weight)
    found = layer(x, courses_so_far(x), allowed)
    alone = [layer(x, torch.where(torch.arange(6) <= t, x.mT, 0.0), allowed)[:, t] for t in range(6)]
    expected = torch.stack(alone, dim=1)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in (found, expected)]
    torch.testing.assert_close(*slopes)


# ---- the contrastive loss


def test_the_contrastive_loss_is_its_formula():
    torch.manual_seed(0)
    first, second, temperature = torch.randn(4, 3, 2), torch.randn(4, 3, 2), 0.3
    views = [view.flatten() / view.norm() for view in (*first, *second)]
    total = 0.0
    for i, view in enumerate(views):
        scores = {j: math.exp(view @ other / temperature) for j, other in enumerate(views) if j != i}
        total -= math.log(scores[(i + 4) % 8] / sum(scores.values()))
    assert float(info_nce(first, second, temperature)) == pytest.approx(total / 8, rel=1e-5)


def test_the_contrastive_loss_in_closed_form():
    """Equal views of orthogonal trials: ln(1 + (2 B - 2) exp(-1 / temperature))."""
    trials = torch.eye(5)
    for temperature in (0.07, 0.5, 2.0):
        expected = math.log1p(8 * math.exp(-1 / temperature))
        assert float(info_nce(3 * trials, 0.1 * trials, temperature)) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(info_nce(torch.ones(5, 3), torch.ones(5, 3))) == pytest.approx(math.log(9), rel=1e-5)
    assert info_nce(torch.randn(1, 3), torch.randn(1, 3)) == 0, "one trial has nothing to tell apart"


def test_aligned_views_are_better():
    torch.manual_seed(0)
    trials = torch.randn(6, 4, 3)
    near = trials + 0.1 * torch.randn_like(trials)
    assert info_nce(trials, near) < info_nce(trials, near.roll(1, 0))


def test_the_views_are_new_each_time_and_of_training_only():
    model, inputs = net(views=views()), counts()
    plain = net()
    assert same(model(inputs), plain(inputs)), "it has no weights of its own, and no say in evaluation"
    model.train()
    before = inputs.clone()
    terms = [model(inputs)["losses"]["contrast"] for _ in range(2)]
    assert terms[0] != terms[1] and torch.equal(inputs, before)
    assert "losses" not in plain.train()(inputs)
    same_views = net(views=RandomMasking("full", ratio=0.0)).train()
    first = [info_nce(part, part) for part in same_views.embed(inputs)]
    torch.testing.assert_close(same_views(inputs)["losses"]["contrast"], sum(first))


def test_the_contrastive_term_by_its_weight():
    spec = DataSpec("x", n_in=5, n_out=3, n_bins=10, n_forward=3, bin_ms=10)
    assert configured(spec).net.views is None, "off by default"
    model = configured(spec, "model.contrast.weight=0.3", "model.contrast.ratio=0.2", "model.step_ms=20")
    assert model.weight_loss_terms({"contrast": torch.tensor(2.0)}) == pytest.approx(0.6)
    assert (model.net.views.ratio, model.net.views.block, model.net.views.mode) == (0.2, 2, "full")


def test_the_contrastive_term_is_logged(tmp_path):
    words = [
        "model=stndt",
        "model.layers=1",
        "model.contrast.weight=1",
        "model.dropout.embedding=0",
        "trainer.max_epochs=2",
    ]
    here(tmp_path, *words, base=[word for word in TINY if not word.startswith(("model", "trainer.max"))])
    terms = [float(row["train/contrast"]) for row in rows(tmp_path) if row["train/contrast"]]
    assert len(terms) == 2 and all(0 < term < 2 * math.log(19) for term in terms)


def test_the_contrastive_term_can_be_learned():
    """Trials that differ in one of five neurons: the embedders learn to look at that one."""
    torch.manual_seed(0)
    inputs = torch.cat([3 * torch.eye(8)[:, :, None], 3 * counts(8, 8, 4)], dim=2)
    model = net(n_bins=8, n_forward=0, views=RandomMasking("full", ratio=0.2)).train()
    optimizer, terms = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(60):
        terms.append(model(inputs)["losses"]["contrast"])
        optimizer.zero_grad()
        terms[-1].backward()
        optimizer.step()
    assert sum(terms[-10:]) < 0.7 * sum(terms[:10])


# ---- the network


@pytest.mark.parametrize(("n_neurons", "heads", "width"), [(8, 2, 8), (9, 2, 10), (9, 4, 12)])
@pytest.mark.parametrize(("stride", "steps"), [(1, 13), (4, 4)])
@pytest.mark.parametrize("layers", [1, 3])
def test_parameter_count_is_the_closed_form(n_neurons, heads, width, stride, steps, layers):
    model = net(n_neurons=n_neurons, attention_heads=heads, layers=layers, stride=stride, feedforward=7)
    d, s, longer = width, steps, math.ceil(steps / heads) * heads
    dense = (d + 1) * 7 + 8 * d
    temporal = 4 * (d + 1) * d + dense + 4 * d
    spatial = (s + 1) * 2 * longer + 2 * s + dense + 4 * d
    expected = (5 + 1) * d + (s + 1) * s + layers * (temporal + spatial) + 2 * d + (d + 1) * n_neurons
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    output = model(counts())
    assert output["log_rates"].shape == (4, 13, n_neurons) and output["latents"].shape == (4, 13, d)


@pytest.mark.parametrize(("width", "by"), [(None, "neurons"), (4, "channels"), (12, "channels")])
def test_the_channels_of_the_first_layer_attend_by_their_time_courses(width, by):
    """By their neurons' counts, as published; with another number of channels by those of the embedding."""
    model, inputs, seen = net(width=width), counts(), {}
    model.readin.linear.register_forward_hook(lambda _, __, output: seen.update(channels=output))
    model.core.course_embedder.register_forward_pre_hook(lambda _, given: seen.update(courses=given[0]))
    model(inputs)
    neurons = torch.nn.functional.pad(inputs, (0, 3, 0, 3))
    assert torch.equal(seen["courses"].mT, {**seen, "neurons": neurons}[by])
    assert seen["courses"].shape == (4, width or 8, 13)


def test_it_starts_at_the_mean_rates():
    for kind, name in (("spikes", "log_rates"), ("traces", "rates")):
        model = net(mean_rates=RATES, names=(name,))
        torch.nn.init.zeros_(model.readout.linear.weight)
        output = model(counts())[name]
        expected = torch.tensor(RATES).clamp_min(1e-4).log() if kind == "spikes" else torch.tensor(RATES)
        torch.testing.assert_close(output, expected.expand(4, 13, 8))
        assert transformer(STNDTNet).readout.linear.weight.abs().max() <= 0.01


@pytest.mark.parametrize("stride", [1, 4])
def test_forward_bins_enter_as_zeros_and_short_sequences_are_filled_up(stride):
    inputs, model = counts(), net(stride=stride)
    padded = torch.cat([inputs, torch.zeros(4, 3, 5)], dim=1)
    longer = net(n_bins=13, n_forward=0, stride=stride)
    torch.testing.assert_close(model(inputs)["log_rates"], longer(padded)["log_rates"])
    assert not torch.allclose(model(inputs)["log_rates"], longer(padded + 1)["log_rates"])
    cut = torch.cat([inputs[:, :6], torch.zeros(4, 4, 5)], dim=1)
    torch.testing.assert_close(model(inputs[:, :6])["log_rates"], model(cut)["log_rates"][:, :9])


def test_long_sequences_are_read_in_windows():
    model, inputs = net(n_forward=0, names=("rates",), stride=4), torch.randn(2, 23, 5)
    output = model(inputs)
    assert output["rates"].shape == (2, 23, 8) and output["latents"].shape == (2, 23, 8)
    for start, keep in ((0, slice(0, 10)), (10, slice(10, 20)), (13, slice(20, 23))):
        window = model(inputs[:, start : start + 10])["rates"]
        torch.testing.assert_close(output["rates"][:, keep], window[:, keep.start - start :])


def test_trials_do_not_see_each_other_and_evaluation_draws_nothing():
    inputs, order, model = counts(), torch.tensor([2, 0, 3, 1]), net(views=views(), dropout=(0.3, 0.3, 0.3))
    torch.testing.assert_close(model(inputs[order])["log_rates"], model(inputs)["log_rates"][order])
    assert same(model(inputs), model(inputs))
    assert not same(model.train()(inputs)["log_rates"], model(inputs)["log_rates"]), "dropout"


def test_held_out_neurons_enter_as_zeros():
    """A network of all neurons whose last three are silent is the network that is not shown them."""
    inputs, model, all_shown = counts(), net(), net(n_in=8)
    weights = model.state_dict()
    weights["readin.linear.weight"] = torch.cat([weights["readin.linear.weight"], torch.randn(8, 3)], dim=1)
    all_shown.load_state_dict(weights)
    zeros = torch.zeros(4, 10, 3)
    torch.testing.assert_close(all_shown(torch.cat([inputs, zeros], 2))["log_rates"], model(inputs)["log_rates"])
    assert not torch.allclose(all_shown(torch.cat([inputs, zeros + 1], 2))["log_rates"], model(inputs)["log_rates"])


@pytest.mark.parametrize("contrast", [False, True])
def test_every_parameter_has_a_gradient(contrast):
    """Keys' biases move all scores of a query alike: theirs is zero, but they have one."""
    model = net(views=views() if contrast else None).train()
    output = model(counts())
    (output["log_rates"].square().sum() + sum(output.get("losses", {}).values())).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_the_contrastive_term_trains_both_embedders():
    model = net(views=views()).train()
    model(counts())["losses"]["contrast"].backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    embedders = ("readin.linear", "core.course_embedder")
    assert trained == {f"{name}.{of}" for name in embedders for of in ("weight", "bias")}


# ---- the configured model


def test_a_context_is_rounded_up_to_steps():
    spec = DataSpec("x", n_in=5, n_out=3, n_bins=40, n_forward=4, bin_ms=5)
    model = configured(spec, "model.attention.context_forward_ms=25", "model.attention.context_backward_ms=60")
    assert torch.equal(model.net.core.allowed, context_mask(11, 2, 3))
    model = configured(spec, "model.attention.context_forward_ms=null", "model.attention.context_backward_ms=null")
    assert model.net.core.allowed is None


def test_unsupported_settings_are_refused():
    spec = DataSpec("x", n_in=5, n_out=3, n_bins=10, bin_ms=5)
    for word in ("model.attention_heads=0", "model.contrast.weight=-1", "model.contrast.temperature=0"):
        with pytest.raises(ConfigError, match=word.replace(".", r"\.")):
            configured(spec, word)


@pytest.mark.parametrize(
    ("experiment", "n_in", "n_out", "n_bins"),
    [("maze", 137, 45, 140), ("rtt", 98, 32, 120), ("area2", 49, 16, 120), ("dmfc", 40, 14, 300)],
)
def test_published_settings_fit_their_recordings(experiment, n_in, n_out, n_bins):
    """A channel for each neuron, a step for each bin, nothing added for the heads' sake."""
    spec = DataSpec("x", n_in=n_in, n_out=n_out, n_bins=n_bins, n_forward=40, bin_ms=5)
    model = configured(spec, experiment=f"stndt_{experiment}")
    assert model.net.core.width == n_in + n_out and model.net.core.course_embedder.in_features == n_bins + 40
    assert model.net.core.layers[0].spatial.query_key.out_features == 2 * (n_bins + 40)
    assert model.contrast.weight == 0.1 and model.masking.mode == "full" and model.masking.block == 1
    assert len(model.net.core.layers) == (6 if experiment == "dmfc" else 4)
    layer = model.net.core.layers[0].temporal
    assert model.net.readin.kernels == () and layer.attention.bias is None
    assert layer.attention.dropout.p == layer.dropout.p


@pytest.mark.parametrize("poison", [math.nan, 1e30])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_is_predicted_never_reaches_the_input(split, poison):
    data = [
        Tiny(n_train=21, n_val=9, poison=part, batch_size=10, eval_batch_size=4)
        for part in ({}, {f"{split}.{name}": poison for name in HIDDEN})
    ]
    model = configured(data[0].spec, "model.step_ms=20").eval()
    torch.nn.init.normal_(model.net.readout.linear.weight)
    for one, other in zip(*(each.eval_dataloader(split) for each in data), strict=True):
        assert not same(one["targets"], other["targets"]), "the poison is there"
        assert same(model(one["inputs"])["log_rates"], model(other["inputs"])["log_rates"])
        assert not torch.equal(model(one["inputs"])["log_rates"], model(one["inputs"] + 1)["log_rates"])


def test_what_is_scored_was_hidden():
    """No held-in spike reaches the prediction that is scored against it, nor by the way of its views."""
    data = Tiny(n_train=21, n_val=9, poison={}, batch_size=10, eval_batch_size=4)
    batch, seen = next(iter(data.train_dataloader())), {}
    model = configured(
        data.spec,
        "model.contrast.weight=1",
        "masking@model.masking=coordinated",
        "model.masking.rate=0.25",
        "model.step_ms=null",
    )
    torch.nn.init.normal_(model.net.readout.linear.weight)

    def watch(net, inputs, output):
        output["log_rates"].retain_grad()
        seen["log_rates"] = output["log_rates"]

    model.net.register_forward_hook(watch)
    inputs = batch["inputs"].float().clone().requires_grad_()
    model.train().training_step({**batch, "inputs": inputs}, 0).backward()
    scored = seen["log_rates"].grad[:, :BINS, :N_IN] != 0
    assert 0.15 < scored.float().mean() < 0.35
    assert (inputs.grad[scored] == 0).all() and (inputs.grad[~scored] != 0).any()


def test_a_context_below_zero_is_unlimited():
    spec = DataSpec("x", n_in=5, n_out=3, n_bins=10, n_forward=3, bin_ms=20)
    model = configured(spec, "model.attention.context_forward_ms=-1", "model.attention.context_backward_ms=-1")
    assert model.net.core.allowed is None
