"""The NMAs autoencoder: its published size, what its latents are, and what it learns."""

import pytest
import torch
from networks import parts, spec_of
from runs import TESTS, checkpoint, here, record

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.models.lstm_autoencoder import LSTMAutoencoder, LSTMAutoencoderNet
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.recurrent import CELLS, TwoWay

TRACES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[tiny_traces]", "data=tiny_traces", "trainer=cpu",
    "model=lstm_autoencoder", "model.latent_dim=4", "logger=csv", "callbacks=minimal", "baselines=null",
    "++trainer.enable_progress_bar=false",
]  # fmt: skip


def size(net):
    return sum(p.numel() for p in net.parameters())


def make(feedback=False, n_in=5, n_neurons=8, **options):
    torch.manual_seed(0)
    size = {"latent_dim": 4, **({"mlp_width": 3} if feedback else {}), **options}
    return LSTMAutoencoderNet(spec_of(n_in, n_neurons, n_forward=0), feedback=feedback, **parts(), **size).eval()


def test_the_published_number_of_parameters():
    spec = DataSpec("stringer", kind="traces", n_in=1131, n_bins=2807, mean_rates=(1.0,) * 1131)
    assert size(LSTMAutoencoder(spec, latent_dim=75).net) == 856_131


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "width", "latent_dim"), [(1, 2, 4), (2, 2, 4), (3, 5, 7)])
def test_every_size_reaches_the_network(cell, layers, width, latent_dim):
    """The published sweeps over the number of latents never did."""
    gates, c = {"lstm": 4, "gru": 3, "rnn": 1}[cell], latent_dim
    expected = sum(2 * gates * c * ((5 if layer == 0 else 2 * c) + c + 2) for layer in range(layers))
    expected += (c + 1) * width * c + (width * c + 1) * width * c + (width * c + 1) * c + (c + 1) * 8
    net = make(cell=cell, layers=layers, mlp_width=width, latent_dim=c)
    assert size(net) == expected
    assert net(torch.randn(2, 6, 5))["latents"].shape == (2, 6, c)


def test_the_feedback_networks_size():
    n, c = 8, 4  # two LSTMs, a perceptron of three times the neurons in between, a linear readout
    expected = 8 * c * (5 + c + 2) + 8 * c * (5 + n + c + 2) + (c + 1) * n
    expected += (c + 1) * 3 * n + (3 * n + 1) * 3 * n + (3 * n + 1) * n
    assert size(make(feedback=True)) == expected
    spec = DataSpec("x", kind="traces", n_in=5, n_out=3)
    assert size(LSTMAutoencoder(spec, latent_dim=c, feedback=True, mlp_width=3).net) == expected


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_are_averaged(cell):
    torch.manual_seed(0)
    block, inputs = TwoWay(3, 4, cell=cell), torch.randn(2, 6, 3)
    one_way = CELLS[cell](3, 4, batch_first=True)
    states = []
    for suffix, order in (("", inputs), ("_reverse", inputs.flip(1))):
        names = [name for name, _ in one_way.named_parameters()]
        one_way.load_state_dict({name: block.rnn.state_dict()[name + suffix] for name in names})
        states.append(one_way(order)[0])
    torch.testing.assert_close(block(inputs), (states[0] + states[1].flip(1)) / 2)


@pytest.mark.parametrize("feedback", [False, True])
def test_the_latents_are_all_that_the_readout_sees(feedback):
    net, inputs = make(feedback), torch.randn(3, 9, 5)
    output = net(inputs)
    assert output["rates"].shape == (3, 9, 8)
    torch.testing.assert_close(output["rates"], net.readout.linear(output["latents"]))
    assert "latents" not in net.train()(inputs)
    assert not torch.equal(net(inputs)["rates"], net(inputs)["rates"]), "dropout"


@pytest.mark.parametrize("feedback", [False, True])
def test_every_bin_sees_the_whole_sequence_and_no_other(feedback):
    net, inputs = make(feedback), torch.randn(3, 9, 5, requires_grad=True)
    net(inputs)["rates"][1, 4].sum().backward()
    assert (inputs.grad[1] != 0).any(1).all() and (inputs.grad[[0, 2]] == 0).all()


def test_the_latents_of_the_mlp_are_as_published():
    """Linear, Mish, linear, Mish, dropout, linear, Mish: no latent is below Mish's least value."""
    assert [type(layer).__name__ for layer in make().core.mlp] == ["Linear", "Mish"] * 2 + ["Dropout", "Linear", "Mish"]
    assert make().core.mlp[4].p == 0.25
    assert float(make()(100 * torch.randn(50, 9, 5))["latents"].min()) >= -0.3089


def test_it_begins_at_the_mean_activity():
    mean = [0.5, 2.0, 1.0]
    for kind, expected in (("traces", mean), ("spikes", torch.tensor(mean).log().tolist())):
        spec = DataSpec("x", kind=kind, n_in=2, n_out=1, n_bins=4, mean_rates=tuple(mean))
        net = LSTMAutoencoder(spec, latent_dim=2).net.eval()
        assert net.readout.linear.bias.tolist() == pytest.approx(expected)
        assert ("rates" if kind == "traces" else "log_rates") in net(torch.ones(1, 4, 2))
        random = LSTMAutoencoder(spec, latent_dim=2, readout=ReadoutSettings(start_at_mean=False)).net
        assert random.readout.linear.bias.tolist() != expected


def test_unsupported_settings_are_refused():
    assert "3 forward bins" in LSTMAutoencoder.refuse(DataSpec("x", n_in=2, n_forward=3))
    assert LSTMAutoencoder.refuse(DataSpec("x", kind="traces", n_in=2)) is None
    with pytest.raises(ValueError, match="cell=elman: there are lstm, rnn, gru"):
        TwoWay(2, 2, cell="elman")
    with pytest.raises(ConfigError, match="mlp_width=0"):
        LSTMAutoencoder(DataSpec("x", kind="traces", n_in=2), latent_dim=2, mlp_width=0)


def test_it_learns_and_its_checkpoint_gives_the_latents_back(tmp_path):
    """Sequences of 40 bins are validated where 20 were trained on; all but the noise can be explained."""
    learn = ["model.dropout=0", "trainer.max_epochs=60", "model.optimizer.base.lr=0.02", "data.n_train=12"]
    here(tmp_path, *learn, base=TRACES)
    metrics = record(tmp_path)["metrics"]
    assert metrics["val/variance"] > 0.6 and metrics["val/co_r2"] > 0.5
    model = load_checkpoint(tmp_path).model
    inputs = torch.randn(2, 30, 8)
    output = model(inputs)
    assert output["latents"].shape == (2, 30, 4)
    weights = {name.removeprefix("net."): w for name, w in checkpoint(tmp_path, "best.ckpt")["state_dict"].items()}
    net = make(n_in=8, n_neurons=11)
    net.load_state_dict({name: w for name, w in weights.items() if name in net.state_dict()})
    torch.testing.assert_close(net(inputs)["latents"], output["latents"])


@pytest.mark.parametrize(
    "options", [["model.cell=gru", "model.layers=2"], ["model.feedback=true", "model.mlp_width=3"]]
)
def test_options_run(tmp_path, options):
    here(tmp_path, *options, "trainer.max_epochs=1", base=TRACES)
    assert record(tmp_path)["metrics"]["val/mse"] < 5


def test_no_latents_is_one_error(tmp_path):
    with pytest.raises(ConfigError, match="latent_dim=0: there must be at least one"):
        here(tmp_path, "model.latent_dim=0", base=TRACES)
