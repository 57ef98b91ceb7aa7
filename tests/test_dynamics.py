"""The recurrent part of a trained network by itself: its states are the network's, its fixed points where it rests."""

import pytest
import torch
from figure_checks import drawn
from networks import parts, spec_of
from torch.nn import functional as F

from neuro_lightning.callbacks.drawings_dynamics import figure_of, points_of
from neuro_lightning.functional.fixed_points import fixed_points
from neuro_lightning.models.dynamics import dynamics_of, has_dynamics
from neuro_lightning.models.gru import GRUCore
from neuro_lightning.models.lfads import LFADSNet, Sizes
from neuro_lightning.models.lstm_autoencoder import LSTMAutoencoderNet
from neuro_lightning.nn.recurrent import CELLS

CONTROLLED = Sizes(encoder=5, initial=4, generator=7, factors=3, input_encoder=6, controller=5, inputs=2)
AUTONOMOUS = Sizes(encoder=5, initial=4, generator=7, factors=3)


class Net(torch.nn.Module):
    def __init__(self, layers, bidirectional):
        super().__init__()
        self.core = GRUCore(3, 5, layers, bidirectional=bidirectional, dropout=0.0)

    def forward(self, inputs):
        return {"rates": self.core(inputs)}


def autoencoder(**options):
    torch.manual_seed(0)
    return LSTMAutoencoderNet(spec_of(5, 8, n_forward=0), latent_dim=4, **parts(), **options).eval()


def lfads(sizes=CONTROLLED, **options):
    torch.manual_seed(0)
    settings = {"posterior_samples": 0, "dropout": 0.3, "step_ms": 1, **options}
    net = LFADSNet(spec_of(6, mean_rates=[0.4] * 8), sizes=sizes, **settings, **parts(0.3)).eval()
    if sizes.controlled:  # inputs that are not nearly constant
        net.core.generator.posterior.linear.weight.data *= 5
    return net


def counts(trials=5, bins=10, neurons=6):
    return torch.poisson(torch.ones(trials, bins, neurons), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True)])
def test_the_step_is_that_of_the_networks_last_layer(layers, bidirectional):
    """Under an input that never changes the states of the layer follow the step; with one layer exactly."""
    torch.manual_seed(1)
    net = Net(layers, bidirectional).eval()
    inputs = torch.ones(2, 400, 3)
    found = dynamics_of(net, {"inputs": inputs})
    assert found.visited.shape == (2, 400, 5) and found.name == "GRU layer"
    torch.testing.assert_close(found.visited.float(), net(inputs)["rates"].detach()[..., :5])
    if layers == 1:
        torch.testing.assert_close(found.step(found.visited[:, 3]), found.visited[:, 4], rtol=0, atol=1e-6)
    points = fixed_points(found.step, found.visited[0, ::40])
    settled = found.visited[0, 200]
    assert float((points.states - settled).norm(dim=1).min()) < 0.05 and bool(points.stable[0])


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_the_states_of_an_autoencoder_are_those_that_its_network_had(cell, layers, feedback):
    net, seen = autoencoder(cell=cell, layers=layers, feedback=feedback), []
    rnn = (net.core.second if feedback else net.core.encoder).rnn
    rnn.register_forward_hook(lambda _, given, output: seen.append(output[0]))
    found = dynamics_of(net, {"inputs": counts(neurons=5)})
    assert found.visited.shape == (5, 10, 8 if cell == "lstm" else 4) and found.name == f"{cell.upper()} layer"
    torch.testing.assert_close(found.visited[..., :4].float(), seen[0][..., :4])


def test_an_lstm_that_does_not_listen_to_itself_rests_where_its_gates_say():
    """c = f c + i g, so that c = i g / (1 - f), and h = o tanh(c); nothing but f is left in the Jacobian."""
    net = autoencoder()
    rnn = net.core.encoder.rnn
    rnn.weight_hh_l0.data.zero_()
    inputs = torch.ones(3, 30, 5)
    points = points_of(dynamics_of(net, {"inputs": inputs}))
    gates = inputs[0, 0] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
    add, keep, new, show = gates.detach().double().chunk(4)
    cell = add.sigmoid() * new.tanh() / (1 - keep.sigmoid())
    expected = torch.cat([show.sigmoid() * cell.tanh(), cell])
    torch.testing.assert_close(points.states, expected[None], rtol=0, atol=1e-5)
    values = points.eigenvalues[0].abs().sort().values
    torch.testing.assert_close(values, torch.cat([torch.zeros(4), keep.sigmoid().sort().values]).double())


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS], ids=["controlled", "autonomous"])
def test_the_states_of_a_generator_are_those_that_lfads_reads_its_factors_from(sizes):
    net = lfads(sizes)
    batch = {"inputs": counts()}
    found = dynamics_of(net, {"inputs": counts().to(torch.uint8)})
    assert found.visited.shape == (5, 13, 7) and found.name == "generator"  # 3 forward bins
    with torch.no_grad():
        latents = net(**batch)["latents"]
    weight = F.normalize(net.core.generator.factor_weight, dim=1)
    torch.testing.assert_close(F.linear(found.visited.float(), weight), latents)
    if not sizes.controlled:  # nothing enters: the states of trials follow the step
        torch.testing.assert_close(found.step(found.visited[:, 3]), found.visited[:, 4])


def test_the_constant_input_is_the_mean_of_the_inferred_ones():
    net, batch = lfads(), {"inputs": counts()}
    found, cell = dynamics_of(net, batch), net.core.generator.cell.double()
    with torch.no_grad():
        mean = net.double()(counts().double())["inferred_inputs"].mean((0, 1))
        states = found.visited[:, 0]
        torch.testing.assert_close(found.step(states), cell(mean.expand(5, -1), states), rtol=1e-4, atol=1e-5)


def test_bins_after_a_trials_end_are_no_states():
    net = autoencoder()
    observed = torch.ones(3, 10, 5, dtype=torch.bool)
    observed[1, 6:] = False
    inputs = counts(3, neurons=5).masked_fill(~observed, 99.0)
    found = dynamics_of(net, {"inputs": inputs, "observed": observed})
    assert found.visited.isnan().any(2).sum(1).tolist() == [0, 4, 0]
    whole = dynamics_of(net, {"inputs": inputs[:1]})
    torch.testing.assert_close(found.visited[:1], whole.visited)


def test_which_networks_have_dynamics():
    assert has_dynamics(Net(1, False)) and has_dynamics(autoencoder()) and has_dynamics(lfads())
    assert not has_dynamics(torch.nn.Linear(1, 1))
    large = torch.nn.Module()
    large.core = GRUCore(3, 257, 1, bidirectional=False, dropout=0.0)
    assert not has_dynamics(large), "it would take minutes"


def test_figure_of_a_generator():
    figure = drawn(figure_of(dynamics_of(lfads(), {"inputs": counts()}), simulated=True))
    assert figure.get_suptitle() == "Flow and fixed points of the generator · simulated data"
    assert len(figure.axes[0].lines) >= 5, "a path for each trial"
