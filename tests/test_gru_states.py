"""States of stacked GRUs equal torch's, in value and gradient, over lengths that fill a block of steps or do not."""

import pytest
import torch
from torch import nn

from neuro_lightning.functional.gru_states import BLOCK, gru_states


@pytest.mark.parametrize("steps", [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_states_and_gradients_are_those_of_torch(steps):
    nets = [nn.GRU(3, 4, batch_first=True).double() for _ in range(2)]
    inputs = torch.randn(2, 6, steps, 3, dtype=torch.float64)
    factors = torch.randn(2, 6, steps, 4, dtype=torch.float64)
    drive = torch.stack([x @ net.weight_ih_l0.T + net.bias_ih_l0 for net, x in zip(nets, inputs, strict=True)])
    drive = drive.detach().requires_grad_()
    weight = torch.stack([net.weight_hh_l0.T for net in nets]).detach().requires_grad_()
    bias = torch.stack([net.bias_hh_l0 for net in nets]).detach().requires_grad_()
    states = gru_states(drive.transpose(1, 2), weight, bias).transpose(1, 2)
    (states * factors).sum().backward()
    for k, net in enumerate(nets):
        alone = net(inputs[k])[0]
        (alone * factors[k]).sum().backward()
        torch.testing.assert_close(states[k], alone)
        torch.testing.assert_close(drive.grad[k].flatten(0, 1).T @ inputs[k].flatten(0, 1), net.weight_ih_l0.grad)
        torch.testing.assert_close(weight.grad[k].T, net.weight_hh_l0.grad)
        torch.testing.assert_close(bias.grad[k], net.bias_hh_l0.grad)


def test_a_weight_that_members_share_gets_the_sum_of_their_gradients():
    drive = torch.randn(3, 1, 4, 2, 6, dtype=torch.float64)
    weight = torch.randn(1, 2, 6, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, 6, dtype=torch.float64)
    torch.vmap(gru_states, (0, None, None))(drive, weight, bias).sin().sum().backward()
    together = weight.grad.clone()
    weight.grad = None
    sum(gru_states(one, weight, bias).sin().sum() for one in drive).backward()
    torch.testing.assert_close(together, weight.grad)
