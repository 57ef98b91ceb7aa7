"""Networks stacked into one equal each of them alone, and draw random numbers of their own."""

import pytest
import torch
from networks import parts, spec_of, transformer
from torch import nn

from neuro_lightning.errors import ConfigError
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.nn.stack import Stack
from neuro_lightning.nn.stacked_adam import clip_members

K = 3


class States(nn.Module):
    """A recurrent network's states and last states."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(5, 7, batch_first=True, **options)

    def forward(self, x):
        states, last = self.rnn(x)
        return torch.cat([t.flatten() for t in (states, *(last if isinstance(last, tuple) else (last,)))])


def gru(dropout=0.0):
    shown = parts(dropout, dropout, smoothed_ms=[2.0])
    return GRUNet(spec_of(), step_ms=2, hidden=6, layers=2, bidirectional=True, layer_dropout=dropout, **shown)


NETWORKS = {
    "gru": lambda: States(nn.GRU, num_layers=2, bidirectional=True),
    "gru of one direction": lambda: States(nn.GRU),
    "lstm": lambda: States(nn.LSTM, num_layers=2, bidirectional=True),
    "GRUNet": gru,
    "NDTNet": lambda: transformer(NDTNet, stride=2, width=8),
}


def built(make, n=K):
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(make())
    return found


def score(output):
    return (output["log_rates"] if isinstance(output, dict) else output).sin().flatten(1).sum(1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_member_equals_its_network_alone_in_value_and_gradient(name, dtype, tolerance):
    nets = [net.to(dtype) for net in built(NETWORKS[name])]
    stack, inputs = Stack(nets), torch.randn(K, 4, 10, 5, dtype=dtype)
    stacked = score(stack(inputs))
    stacked.sum().backward()
    rows = dict(stack.net.named_parameters())
    for k, net in enumerate(nets):
        output = net(inputs[k])
        alone = score({"log_rates": output["log_rates"][None]} if isinstance(output, dict) else output[None])
        alone.sum().backward()
        torch.testing.assert_close(stacked[k : k + 1], alone, rtol=tolerance, atol=tolerance)
        for key, value in net.named_parameters():
            torch.testing.assert_close(rows[key].grad[k], value.grad, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("make", [gru, lambda p: transformer(NDTNet, stride=2, width=8, dropout=(p, p, p))])
def test_each_member_drops_what_its_network_alone_drops(make, dtype):
    nets = [make(rate).to(dtype).train() for rate in (0.5, 0.2, 0.0)]
    stack, inputs = Stack(nets), torch.randn(K, 4, 10, 5, dtype=dtype)
    stack.generators[:] = [torch.Generator().manual_seed(k) for k in range(K)]
    stacked = stack(inputs)["log_rates"]
    for k, net in enumerate(nets):
        torch.manual_seed(k)
        torch.testing.assert_close(stacked[k], net(inputs[k])["log_rates"])
    assert not torch.allclose(stack(inputs)["log_rates"][:2], stacked[:2]), "numbers are drawn anew"
    assert torch.equal(stack.eval()(inputs)["log_rates"], stack(inputs)["log_rates"])


def test_dropout_keeps_the_mean_and_drops_each_members_share():
    class Dropped(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.scale, self.dropout = nn.Parameter(torch.ones(1)), nn.Dropout(rate)

        def forward(self, x):
            return self.dropout(x) * self.scale

    rates = torch.tensor([0.25, 0.6, 0.0, 1.0])
    torch.manual_seed(0)
    dropped = Stack([Dropped(rate) for rate in rates.tolist()])(torch.ones(4, 100, 1001))
    torch.testing.assert_close((dropped == 0).float().mean((1, 2)), rates, rtol=0, atol=0.01)
    torch.testing.assert_close(dropped.mean((1, 2)), torch.tensor([1.0, 1, 1, 0]), rtol=0, atol=0.02)


def test_gradients_are_clipped_for_each_member_and_nan_stays_with_its_own():
    nets = built(lambda: nn.Sequential(nn.Linear(4, 3)))
    stack, inputs = Stack(nets), torch.randn(K, 6, 4) * torch.tensor([1e-3, 10.0, torch.nan])[:, None, None]
    stack(inputs).square().sum().backward()
    norms = clip_members(stack.parameters(), 1.0)
    rows = dict(stack.net.named_parameters())
    for k, net in enumerate(nets[:2]):
        net(inputs[k]).square().sum().backward()
        torch.testing.assert_close(norms[k], nn.utils.clip_grad_norm_(net.parameters(), 1.0))
        for key, value in net.named_parameters():
            torch.testing.assert_close(rows[key].grad[k], value.grad)
    assert norms[2].isnan()


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(10), nn.GRUCell(5, 5), nn.RNN(5, 5, batch_first=True)])
def test_what_cannot_be_stacked_is_refused(layer):
    with pytest.raises(ConfigError, match=r"cannot be stacked"):
        Stack([nn.Sequential(layer)] * 2)


def test_networks_of_other_shapes_are_refused():
    with pytest.raises(ConfigError, match="different shapes"):
        Stack([nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4))])


def test_layers_that_differ_in_a_number_are_refused():
    with pytest.raises(ConfigError, match=r"1 is p=0.1, inplace=False and otherwise in other members"):
        Stack([nn.Sequential(nn.Linear(2, 2), nn.Dropout2d(p)) for p in (0.1, 0.2)])


def test_a_parameter_under_two_names_is_refused():
    def tied():
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        return net

    with pytest.raises(ConfigError, match=r"1.weight is a parameter under two names"):
        Stack([tied(), tied()])
