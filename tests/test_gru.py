"""The GRU and its training signal."""

import pytest
import torch

from neuro_lightning.models.gru import GRUNet
from neuro_lightning.nn.masking import CoordinatedDropout


def net(**options):
    torch.manual_seed(0)
    return GRUNet(5, 8, 3, hidden=6, **options).eval()


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True), (3, True)])
def test_parameter_count_is_the_closed_form(layers, bidirectional):
    directions, hidden = (2 if bidirectional else 1), 6
    expected = 8 * (hidden * directions) + 8
    for layer in range(layers):
        width = 5 if layer == 0 else hidden * directions
        expected += directions * 3 * hidden * (width + hidden + 2)
    assert sum(p.numel() for p in net(layers=layers, bidirectional=bidirectional).parameters()) == expected


def test_shapes_and_the_starting_rates():
    rates = [0.5, 0.0, *([0.02] * 6)]
    model = net(mean_rates=rates)
    torch.nn.init.zeros_(model.readout.weight)
    output = model(torch.poisson(torch.ones(4, 10, 5)))
    assert output["log_rates"].shape == (4, 13, 8) and output["latents"].shape == (4, 13, 12)
    torch.testing.assert_close(output["log_rates"][0, 0].exp()[[0, 2]], torch.tensor([0.5, 0.02]))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_causal_means_that_the_future_does_not_matter(stride):
    inputs = torch.poisson(torch.ones(2, 10, 5))
    changed = inputs.clone()
    changed[:, 6:] += 3
    causal, both = net(bidirectional=False, stride=stride), net(bidirectional=True, stride=stride)
    assert torch.equal(causal(inputs)["log_rates"][:, :6], causal(changed)["log_rates"][:, :6])
    assert not torch.equal(causal(inputs)["log_rates"][:, 6:], causal(changed)["log_rates"][:, 6:])
    assert not torch.equal(both(inputs)["log_rates"][:, :6], both(changed)["log_rates"][:, :6])


def test_coarse_steps_keep_the_shapes():
    inputs = torch.poisson(torch.ones(2, 10, 5))
    coarse = net(stride=4)(inputs)
    assert coarse["log_rates"].shape == (2, 13, 8) and coarse["latents"].shape == (2, 13, 12)


def test_before_its_first_step_ends_a_causal_network_says_the_mean_rates():
    rates = net(bidirectional=False, stride=4, mean_rates=[0.3] * 8)(torch.ones(1, 10, 5))["log_rates"].exp()
    torch.testing.assert_close(rates[0, :3], torch.full((3, 8), 0.3))
    assert not torch.allclose(rates[0, 3], torch.full((8,), 0.3))


def test_trials_do_not_see_each_other():
    inputs = torch.poisson(torch.ones(4, 10, 5))
    order = torch.tensor([2, 0, 3, 1])
    model = net()
    torch.testing.assert_close(model(inputs[order])["log_rates"], model(inputs)["log_rates"][order])


@pytest.mark.parametrize("rescale", [False, True])
def test_coordinated_dropout_hides_an_exact_share_and_scores_just_that(rescale):
    torch.manual_seed(0)
    inputs = torch.ones(3, 20, 7)
    shown, hidden = CoordinatedDropout(0.27, rescale=rescale)(inputs)
    assert hidden.sum() == round(0.27 * inputs.numel())
    assert (shown[hidden] == 0).all()
    torch.testing.assert_close(shown[~hidden], torch.full_like(shown[~hidden], 1 / 0.73 if rescale else 1.0))
    assert (inputs == 1).all(), "the caller's counts stay as they were"


def test_a_count_that_is_shown_never_reaches_the_loss():
    """The scored elements' gradient with respect to their own input is zero: they were hidden."""
    torch.manual_seed(0)
    inputs = torch.poisson(torch.ones(2, 10, 5)).requires_grad_()
    shown, hidden = CoordinatedDropout(0.3)(inputs)
    (shown * torch.randn_like(shown)).sum().backward()
    assert (inputs.grad[hidden] == 0).all() and (inputs.grad[~hidden] != 0).all()


def test_a_share_of_one_is_refused():
    with pytest.raises(ValueError, match="rate"):
        CoordinatedDropout(1.0)
