"""The Neural Data Transformer."""

import shutil
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import transformer
from runs import ROOT, TINY, checkpoint, here, same
from tiny import BINS, FORWARD, N_IN, N_OUT, Tiny

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.nn.masking import MODES
from neuro_lightning.settings.config import instantiate

N = N_IN + N_OUT
SPEC = DataSpec("tiny", n_in=N_IN, n_out=N_OUT, n_bins=BINS, n_forward=FORWARD, bin_ms=10, mean_rates=(0.3,) * N)


def net(**options) -> NDTNet:
    torch.manual_seed(0)
    model = transformer(NDTNet, **{"layers": 2, "feedforward": 7, **options}).eval()
    torch.nn.init.normal_(model.readout.linear.weight)
    return model


def counts(trials: int = 3, bins: int = 10) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.poisson(torch.ones(trials, bins, 5))


def ndt(*overrides: str, spec: DataSpec = SPEC):
    """The configured model, as a run would build it."""
    words = [word for word in TINY if not word.startswith("model")]
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*words, "model=ndt", "masking@model.masking=random", *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model, spec=spec)
    torch.nn.init.normal_(model.net.readout.linear.weight)
    return model


# ---- the network


@pytest.mark.parametrize("count_width", [0, 2])
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_parameter_count_is_the_closed_form(count_width, linear, positions):
    model = net(count_width=count_width, linear=linear, positions=positions, max_count=4, stride=2)
    width, hidden, layers, steps = 8 * max(1, count_width), 7, 2, 7
    expected = layers * (4 * width**2 + 9 * width + 2 * width * hidden + hidden) + 2 * width + (width + 1) * 8
    expected += (4 + 2) * count_width + (positions == "learned") * steps * width
    expected += linear * width * (5 * max(1, count_width) + 1)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_shapes_and_the_starting_rates():
    model = net(mean_rates=[0.5, 0.0, *([0.02] * 6)], width=12)
    torch.nn.init.zeros_(model.readout.linear.weight)
    output = model(counts(4))
    assert output["log_rates"].shape == (4, 13, 8) and output["latents"].shape == (4, 13, 12)
    torch.testing.assert_close(output["log_rates"][0, 0].exp()[[0, 2]], torch.tensor([0.5, 0.02]))


@pytest.mark.parametrize(("neurons", "heads", "width"), [(8, 2, 8), (9, 2, 10), (7, 4, 8), (12, 5, 15)])
def test_the_width_is_the_neurons_rounded_up_to_the_heads(neurons, heads, width):
    assert transformer(NDTNet, 5, neurons, attention_heads=heads).core.width == width


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("pre_norm", [True, False])
def test_causal_means_that_the_future_does_not_matter(stride, pre_norm):
    inputs = counts()
    changed = inputs.clone()
    changed[:, 6:] += 3
    causal = net(context=(0, None), stride=stride, pre_norm=pre_norm)
    both = net(stride=stride, pre_norm=pre_norm)
    before, after = causal(inputs)["log_rates"], causal(changed)["log_rates"]
    assert torch.equal(before[:, :6], after[:, :6]) and not torch.equal(before[:, 6:], after[:, 6:])
    assert not torch.equal(both(inputs)["log_rates"][:, :6], both(changed)["log_rates"][:, :6])


def test_a_causal_network_predicts_the_mean_rates_before_its_first_step_ends():
    rates = net(context=(0, None), stride=4, mean_rates=[0.3] * 8)(counts())["log_rates"].exp()
    torch.testing.assert_close(rates[:, :3], torch.full((3, 3, 8), 0.3))
    assert not torch.allclose(rates[0, 3], torch.full((8,), 0.3))


def test_the_context_is_a_window_in_every_layer():
    """Two layers that see 1 ahead and 2 back: a change reaches 2 bins back and 4 ahead."""
    model, inputs = net(context=(1, 2)), counts()
    changed = inputs.clone()
    changed[:, 5] += 2
    moved = (model(inputs)["log_rates"] != model(changed)["log_rates"]).any(2).any(0)
    assert moved.nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_trials_do_not_see_each_other():
    inputs, order = counts(4), torch.tensor([2, 0, 3, 1])
    for model in (net(), net(context=(1, 3), count_width=2, stride=2)):
        whole = model(inputs)["log_rates"]
        torch.testing.assert_close(model(inputs[order])["log_rates"], whole[order])
        torch.testing.assert_close(model(inputs[:1])["log_rates"], whole[:1])


def test_counts_are_looked_up_and_large_ones_share_a_row():
    model = net(count_width=3, max_count=4)
    few, many = counts().clamp(max=4), counts().clamp(max=4)
    few[0, 0, 0], many[0, 0, 0] = 5, 50
    assert torch.equal(model(few)["log_rates"], model(many)["log_rates"])
    few[0, 0, 0] = 4
    assert not torch.equal(model(few)["log_rates"], model(many)["log_rates"])


def test_without_an_embedder_channels_are_neurons():
    model, inputs = net(linear=False), counts()
    shown = model.core.fill_up(model.readin(inputs, 10))
    assert torch.equal(shown[..., :5], inputs) and (shown[..., 5:] == 0).all()


def test_longer_sequences_are_read_in_windows():
    torch.manual_seed(0)
    model, inputs = transformer(NDTNet, n_forward=0, names=("rates",)).eval(), torch.randn(2, 23, 5)
    output = model(inputs)
    assert output["rates"].shape == (2, 23, 8) and output["latents"].shape == (2, 23, 8)
    torch.testing.assert_close(output["rates"][:, 10:20], model(inputs[:, 10:20])["rates"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention_heads": 3, "width": 8}, "model.attention_heads=3 does not divide the width, 8"),
        ({"width": 4, "linear": False}, "model.width=4 holds no 5 channels without model.readin.width=auto"),
        ({"positions": "none"}, "model.positions=none: there are learned, sinusoidal"),
    ],
)
def test_invalid_networks_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        net(**options)


# ---- the configured model


def test_traces_have_no_counts_to_embed():
    traces = replace(SPEC, kind="traces", n_forward=0)
    with pytest.raises(ConfigError, match="tiny has traces, not counts") as refused:
        ndt("readin@model.readin=embedding", spec=traces)
    assert "\n" not in str(refused.value)
    assert ndt(spec=traces).masking.kind == "traces"


def test_steps_context_and_masking_agree():
    model = ndt("model.step_ms=20", "model.attention.context_forward_ms=40", "model.attention.context_backward_ms=0")
    assert model.net.steps.stride == model.masking.block == 2 and model.net.core.allowed.shape == (8, 8)
    assert model.net.core.allowed.sum(1).tolist() == [3] * 6 + [2, 1]


def test_causality_is_set_in_ms():
    model = ndt("model.step_ms=20", "model.attention.context_forward_ms=0").eval()
    inputs = torch.poisson(torch.ones(2, BINS, N_IN))
    changed = inputs.clone()
    changed[:, 5:] += 1
    assert torch.equal(model(inputs)["log_rates"][:, :5], model(changed)["log_rates"][:, :5])


@pytest.mark.parametrize("experiment", ["ndt_ae", "ndt_ae_area2", "ndt_ae_dmfc", "ndt_ae_small"])
def test_published_settings_have_none_of_our_additions(experiment):
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[f"experiment={experiment}"])
    net = instantiate(cfg.model, spec=SPEC).net
    layer, width = net.core.layers[0], net.core.width
    assert width == N * max(1, cfg.model.readin.count_width) and net.steps.stride == 1 and layer.attention.heads == 2
    assert net.readin.kernels == () and isinstance(net.readin.linear, torch.nn.Identity)
    assert layer.attention.bias is None
    assert layer.attention.dropout.p == layer.dropout.p == cfg.model.dropout.layers
    assert sum(p.numel() for p in layer.parameters()) == 4 * width**2 + 9 * width + 2 * width * 128 + 128


def first_batch():
    return next(iter(Tiny(n_train=37, n_val=11, poison={}, batch_size=37).train_dataloader()))


RANDOM = [[f"model.masking.mode={mode}", "model.masking.ratio=0.5"] for mode in MODES]


@pytest.mark.parametrize("words", [*RANDOM, ["masking@model.masking=variable"]])
def test_what_is_scored_was_hidden(words):
    """No held-in spike reaches the prediction that is scored against it, through the whole training step."""
    model, batch = ndt("model.step_ms=20", *words), first_batch()
    seen = {}

    def watch(net, inputs, output):
        output["log_rates"].retain_grad()
        seen.update(shown=inputs[0], log_rates=output["log_rates"])

    model.net.register_forward_hook(watch)
    inputs = batch["inputs"].clone().requires_grad_()
    model.training_step({**batch, "inputs": inputs}, 0).backward()
    scored = seen["log_rates"].grad[:, :BINS, :N_IN] != 0
    assert 0 < scored.double().mean() < 1
    assert (seen["shown"][scored] == 0).all() and (inputs.grad[scored] == 0).all()
    assert (inputs.grad[~scored] != 0).any()
    others = seen["log_rates"].grad[:, :BINS, N_IN:] != 0
    assert (others == batch["mask"][:, :BINS, N_IN:]).all(), "held-out targets are all scored"


@pytest.mark.parametrize(
    "overrides",
    [[], ["readin@model.readin=embedding", "model.readin.width=null", "model.width=16"]],
)
def test_every_parameter_learns(overrides):
    model = ndt(*overrides)
    model.training_step(first_batch(), 0).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all((p.grad != 0).any() for p in model.parameters())


def test_dropout_and_masking_are_for_training_only():
    model, inputs = ndt(), first_batch()["inputs"]
    assert not torch.equal(model(inputs)["log_rates"], model(inputs)["log_rates"])
    model.eval()
    assert torch.equal(model(inputs)["log_rates"], model(inputs)["log_rates"])


KEEP = "_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',auto_insert_metric_name:false,save_top_k:-1"
RAMP = [
    *(word for word in TINY if not word.startswith("model")), "model=ndt", "masking@model.masking=random",
    "model.layers=1", "trainer.max_epochs=4",
    "model.masking.max_span=4", "model.masking.ramp_start=1", "model.masking.ramp_end=3",
    "model.masking.token_ratio=0.5",
    f"+callbacks.steps={{{KEEP},every_n_train_steps:1,filename:'step{{step}}'}}",
]  # fmt: skip


def test_a_resumed_run_has_the_spans_of_its_epoch(tmp_path):
    """Four steps an epoch, spans come in from epoch 1 to 3; interrupted in the midst of epoch 2 and at its end."""
    whole = here(tmp_path / "run", base=RAMP)
    final = checkpoint(whole.folder, "step16.ckpt")["state_dict"]
    for moment in ("step10", "step12"):
        shutil.rmtree(whole.folder)
        shutil.copytree(tmp_path / "snapshots" / moment, whole.folder)
        resumed = here(whole.folder, f"resume='{whole.folder}/checkpoints/{moment}.ckpt'", base=RAMP)
        assert same(checkpoint(resumed.folder, "step16.ckpt")["state_dict"], final) and resumed.score == whole.score


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["readin@model.readin=embedding", "masking@model.masking=coordinated"],
            r"only whole counts have an embedding",
        ),
        (
            ["model.readin.count_width=2"],
            r"model.readin.count_width=2 embeds counts: it needs model.readin.counts=true",
        ),
        (
            ["model.readin.smoothed_ms=[]"],
            r"model.readin.counts=false leaves no input without model.readin.smoothed_ms",
        ),
        (["model.attention_heads=0"], r"model.attention_heads=0"),
        (["model.layers=0"], r"model.layers=0"),
    ],
)
def test_invalid_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        ndt(*words)
