import copy
import math
from dataclasses import replace

import pytest
import torch
from runs import TESTS, checkpoint, here, record, same

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.losses import poisson
from neuro_lightning.models.cnn import CNN
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.models.warm_start import read_network, restore_layers
from neuro_lightning.nn.conv import ConvLayer, ConvNet, pooled_shape

PICTURES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[pictures]", "data=pictures", "model=cnn", "trainer=cpu",
    "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=none", "callbacks=minimal", "baselines=null",
    "model.conv=[{filters:4,kernel:3},{filters:3,kernel:3,batch_norm:true}]", "model.dense=[{units:8,dropout:0.4}]",
]  # fmt: skip


def spec(shape=(3, 12, 10), n=4, means=None):
    return DataSpec("pictures", kind="images", n_out=n, image_shape=shape, mean_rates=means or (1.0,) * n)


def net(shape=(3, 12, 10), n=4, *, conv=({"filters": 4, "kernel": 3},), dense=({"units": 8},), means=None, **options):
    torch.manual_seed(0)
    start = {"logits": {}, "output_bias": "mean" if means else "zero"}
    return ConvNet(spec(shape, n, means), conv=conv, dense=dense, **{**start, **options})


# ---- the network


def test_the_winner_has_its_published_number_of_parameters():
    conv = [{"filters": filters, "kernel": 5} for filters in (32, 64, 96)]
    model = CNN(spec((3, 48, 48), 18), conv=conv, dense=[{"units": 512, "dropout": 0.4}], logits={"dropout": 0.4})
    assert sum(p.numel() for p in model.net.parameters()) == 1_986_610
    assert model.net.core.dense[0].linear.in_features == 3456
    assert model.net(torch.rand(2, 3, 48, 48))["rates"].shape == (2, 18)


@pytest.mark.parametrize("shape", [(1, 31, 31), (1, 17, 67), (3, 80, 80), (2, 11, 10)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_images_of_any_shape_pass(shape, padding):
    layers = [{"filters": 5, "kernel": 2, "padding": padding}, {"filters": 7, "kernel": 3, "padding": padding}]
    network = net(shape, 3, conv=layers, dense=[])
    assert network.core.conv(torch.rand(2, *shape)).shape[1:] == pooled_shape(shape, [ConvLayer(**c) for c in layers])
    assert network(torch.rand(2, *shape))["rates"].shape == (2, 3)


def test_blocks_apply_their_parts_in_the_published_order():
    network = net(conv=[{"filters": 4, "kernel": 3, "batch_norm": True}], dense=[{"units": 8}]).eval()
    images, block = torch.randn(3, 3, 12, 10), network.core.conv[0]
    block.norm.running_mean.uniform_(), block.norm.weight.data.uniform_()
    hidden = torch.nn.functional.conv2d(images, block.linear.weight, block.linear.bias, padding=1).relu()
    hidden = block.norm(hidden.unflatten(2, (6, 2)).unflatten(4, (5, 2)).amax((3, 5)))  # normalized after the pooling
    hidden = (hidden.flatten(1) @ network.core.dense[0].linear.weight.T + network.core.dense[0].linear.bias).relu()
    rates = (hidden @ network.logits.linear.weight.T + network.logits.linear.bias).relu()
    torch.testing.assert_close(network(images)["rates"], rates)


def test_dropout_acts_on_the_input_of_its_layer_in_training_only():
    network = net(conv=[{"filters": 4, "kernel": 3, "dropout": 0.5}], dense=[{"units": 8, "dropout": 0.5}])
    seen = {}
    for name in ("conv.0.linear", "dense.0.linear"):
        network.core.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    for training in (True, False):
        network.train(training)(torch.ones(50, 3, 12, 10))
        assert set(seen["conv.0.linear"].unique().tolist()) == ({0.0, 2.0} if training else {1.0})
    assert torch.equal(network(images := torch.rand(5, 3, 12, 10))["rates"], network(images)["rates"])


def test_batch_statistics_are_those_of_the_pooled_map():
    """With TensorFlow's epsilon of 1e-3, which matters where rectified maps hardly vary."""
    network = net(conv=[{"filters": 4, "kernel": 3, "batch_norm": True}]).train()
    images, block = 0.05 * torch.rand(6, 3, 12, 10), network.core.conv[0]
    pooled = torch.nn.functional.max_pool2d(block.linear(images).relu(), 2)
    centred = pooled - pooled.mean((0, 2, 3), keepdim=True)
    expected = centred / (pooled.var((0, 2, 3), correction=0, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)


def test_weights_start_glorot_uniform_and_biases_at_zero_or_the_mean():
    network = net(conv=[{"filters": 40, "kernel": 5}], dense=[{"units": 30}])
    for layer, fans in ((network.core.conv[0].linear, (3 + 40) * 25), (network.core.dense[0].linear, 40 * 30 + 30)):
        limit = math.sqrt(6 / fans)
        assert 0.98 * limit < layer.weight.abs().max() <= limit and not layer.bias.any()
    blank = torch.zeros(1, 3, 12, 10)  # nothing but the output's bias is left of a blank image
    for output in ("relu", "softplus", "none"):
        start = net(output=output, means=(0.5, 1.0, 2.0, 3.0))(blank)["rates"]
        torch.testing.assert_close(start, torch.tensor([[0.5, 1.0, 2.0, 3.0]]))
    assert not net()(blank)["rates"].any()


def test_the_l2_penalty_is_a_loss_term_in_training():
    network = net(conv=[{"filters": 4, "kernel": 3, "l2": 0.1}], logits={"l2": 0.5})
    expected = (
        0.05 * network.core.conv[0].linear.weight.square().sum() + 0.25 * network.logits.linear.weight.square().sum()
    )
    torch.testing.assert_close(network(torch.rand(1, 3, 12, 10))["losses"], {"l2": expected})
    assert "losses" not in network.eval()(torch.rand(1, 3, 12, 10))
    assert "losses" not in net().train()(torch.rand(1, 3, 12, 10))


# ---- what a config may say


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conv": [{"filters": 4}]}, r"model.conv\[0\] needs 'kernel', as in \{filters: 32, kernel: 5\}"),
        ({"conv": [{"filters": 4, "kernel": 3, "stride": 2}]}, r"model.conv\[0\].stride: no such setting"),
        ({"conv": [{"filters": 4, "kernel": 3, "padding": "full"}]}, "padding='full': give same or valid"),
        ({"conv": [{"filters": 0, "kernel": 3}]}, r"conv\[0\].filters=0: give a whole number from 1"),
        ({"conv": [{"filters": 4, "kernel": 3, "batch_norm": 1}]}, "batch_norm=1: give true or false"),
        ({"conv": [5]}, r"model.conv\[0\] must be a layer such as"),
        ({"conv": [{"filters": 2, "kernel": 3}] * 4}, "images of 12 x 10 pixels after layer 3, which gets 1 x 1"),
        ({"conv": [{"filters": 2, "kernel": 11, "padding": "valid"}]}, "nothing is left .* after layer 0"),
        ({"dense": [{"units": 4, "dropout": 1}]}, r"model.dense\[0\].dropout=1: give a number from 0 to below 1"),
        ({"logits": {"l2": -1}}, "model.logits.l2=-1: give a number from 0"),
        ({"output": "tanh"}, "model.output=tanh: give auto, none, identity, relu, softplus, elu, exp"),
        ({"output_bias": "median"}, "output_bias=median: give mean or zero"),
        ({"freeze": ["core"]}, "model.freeze=core: the network has no such layer; it has conv, conv.0"),
        ({"freeze": "conv"}, r"model.freeze=conv: give a list of layers, such as \[conv\]"),
        ({"freeze": ["conv", "dense", "logits"]}, "leaves nothing to train"),
    ],
)  # fmt: skip
def test_a_wrong_layer_is_named(wrong, message):
    right = {"conv": [{"filters": 4, "kernel": 3}], "dense": [{"units": 8}], "logits": {}}
    with pytest.raises(ConfigError, match=message):
        CNN(spec(), **(right | wrong))


def test_a_rectified_output_is_refused_where_responses_are_negative():
    negative = replace(spec(), nonnegative=False)
    right = {"conv": [{"filters": 4, "kernel": 3}], "dense": [], "logits": {}}
    assert CNN(spec(), **right).net.output == "relu" and CNN(negative, **right).net.output == "none"
    assert all(CNN(spec(), **right, output=name).net.output == name for name in ("softplus", "none"))
    with pytest.raises(ConfigError, match=r"responses in pictures are: take model.output=auto"):
        CNN(negative, **right, output="relu")
    with pytest.raises(ConfigError, match=r"model.output=none may be negative, which a Poisson loss has no"):
        CNN(spec(), **right, output="none", loss=poisson)


# ---- in a run


def test_it_learns_and_its_checkpoint_rebuilds_it(tmp_path):
    beside_the_mean = [override for override in PICTURES if override != "baselines=null"]
    run = here(tmp_path / "run", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=30", "data.n_train=100",
               "model.conv=[{filters:8,kernel:3}]", "model.dense=[{units:32}]",
               "scheduler@model.scheduler=none", "model.optimizer.lr=0.01", base=beside_the_mean)  # fmt: skip
    assert run.score < 0.6 * record(run.folder)["baselines"]["mean"]["val"]["rmse"]
    saved = load_checkpoint(run.folder / "checkpoints/best.ckpt")
    weights = checkpoint(run.folder, "best.ckpt")["state_dict"]
    assert all(torch.equal(value, weights[f"net.{name}"]) for name, value in saved.model.net.state_dict().items())


def test_negative_responses_have_an_output_that_is_not_rectified(tmp_path):
    run = here(tmp_path / "run", "data.offset=-3", "trainer.max_epochs=1", base=PICTURES)
    model = load_checkpoint(run.folder).model
    assert model(torch.rand(9, 3, 12, 10))["rates"].max() < 0


def test_layers_of_another_run_are_restored_and_stay_frozen(tmp_path):
    first = here(tmp_path / "first", base=PICTURES)
    before = {k: v for k, v in checkpoint(first.folder, "best.ckpt")["state_dict"].items() if ".conv." in k}
    start = [f"model.init_from={first.folder}", "seed=1", "model.dense=[{units:6}]", "trainer.max_epochs=3"]
    frozen = here(tmp_path / "frozen", *start, "model.freeze=[conv]", base=PICTURES)
    after = checkpoint(frozen.folder)["state_dict"]
    assert before and all(same(after[name], value) for name, value in before.items())  # batch statistics too
    free = here(tmp_path / "free", *start, "model.freeze=[conv.0]", base=PICTURES)
    after = checkpoint(free.folder)["state_dict"]
    assert all(same(after[name], value) for name, value in before.items() if "conv.0" in name)
    assert not any(same(after[name], value) for name, value in before.items() if "conv.1" in name)
    assert record(frozen.folder)["config"]["model"]["init_from"] == str(first.folder)

    # the checkpoint needs the first run no more, neither to predict nor to go on
    (tmp_path / "first").rename(tmp_path / "gone")
    load_checkpoint(frozen.folder)
    here(tmp_path / "frozen", *start, "model.freeze=[conv]", "trainer.max_epochs=4",
         f"resume={frozen.folder / 'checkpoints/last.ckpt'}", base=PICTURES)  # fmt: skip
    after = checkpoint(frozen.folder)["state_dict"]
    assert all(same(after[name], value) for name, value in before.items())
    with pytest.raises(CheckpointError, match=r"no checkpoint there; give a .ckpt file or a run's folder"):
        here(tmp_path / "again", *start, base=PICTURES)


def test_frozen_layers_have_no_gradient_and_no_dropout():
    model = CNN(spec(), conv=[{"filters": 4, "kernel": 3, "dropout": 0.5, "batch_norm": True, "l2": 1.0}],
                dense=[{"units": 8}], logits={}, freeze=["conv"])  # fmt: skip
    assert model.training and not any(module.training for module in model.net.core.conv.modules())
    model.eval().train()
    images, statistics = torch.rand(5, 3, 12, 10), model.net.core.conv[0].norm.running_mean.clone()
    output = model.net(images)
    assert "losses" not in output  # a penalty that nothing can lower
    output["rates"].sum().backward()
    assert all((p.grad is None) == name.startswith("core.conv") for name, p in model.net.named_parameters())
    assert torch.equal(model.net.core.conv[0].norm.running_mean, statistics)
    assert torch.equal(model.net.core.conv(images), model.net.core.conv(images))


def test_a_layer_is_not_one_whose_name_begins_alike():
    mine, theirs = (torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("conv", "conv2")}) for _ in range(2))
    before = mine["conv2"].weight.clone()
    restore_layers(mine, theirs.state_dict(), ["conv"], "old.ckpt")
    assert torch.equal(mine["conv"].weight, theirs["conv"].weight) and torch.equal(mine["conv2"].weight, before)


def test_layers_of_a_run_of_an_older_version_are_restored():
    """Whose network had no core by this name."""
    weights = read_network(TESTS / "old_runs" / "cnn")
    old = torch.load(TESTS / "old_runs/cnn/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert "net.conv.0.linear.weight" in old and "conv.0.linear.weight" in weights
    filters, channels, kernel, _ = weights["conv.0.linear.weight"].shape
    network = net((channels, 12, 10), conv=[{"filters": filters, "kernel": kernel}])
    restore_layers(network, weights, ["conv.0"], "old.ckpt")
    assert torch.equal(network.core.conv[0].linear.weight, old["net.conv.0.linear.weight"])


def test_layers_that_do_not_fit_are_refused_whole(tmp_path):
    mine, theirs = net(dense=[{"units": 9}]), net()
    weights, before = theirs.state_dict(), copy.deepcopy(mine.state_dict())
    with pytest.raises(CheckpointError, match=r"layer 'dense' does not fit .*: dense.0.linear.weight is \(8, 120\)"):
        restore_layers(mine, weights, ["conv", "dense"], "old.ckpt")
    assert same(dict(mine.state_dict()), dict(before))  # not even the layer that fits
    with pytest.raises(CheckpointError, match=r"conv.1.linear.weight is missing there"):
        restore_layers(net(conv=[{"filters": 4, "kernel": 3}] * 2), weights, ["conv"], "old.ckpt")
    with pytest.raises(CheckpointError, match=r"conv.1.linear.weight is \(4, 4, 3, 3\) there and missing here"):
        restore_layers(mine, net(conv=[{"filters": 4, "kernel": 3}] * 2).state_dict(), ["conv"], "old.ckpt")
    with pytest.raises(ConfigError, match=r"model.init_layers=core: the network has no such layer; it has conv"):
        restore_layers(mine, weights, ["core"], "old.ckpt")
    restore_layers(mine, weights, ["conv"], "old.ckpt")
    assert torch.equal(mine.core.conv[0].linear.weight, theirs.core.conv[0].linear.weight)
    (tmp_path / "other.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"other.ckpt cannot be read as a checkpoint"):
        here(tmp_path / "run", f"model.init_from={tmp_path / 'other.ckpt'}", base=PICTURES)
