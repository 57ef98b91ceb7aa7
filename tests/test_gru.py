"""The GRU and its training signal."""

import pytest
import torch
from networks import parts, spec_of

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.nn.masking import CoordinatedDropout, VariableDropout
from neuro_lightning.nn.steps import to_steps


def net(*, stride=1, smoothed=(), mean_rates=(), **options):
    torch.manual_seed(0)
    settings = {"hidden": 6, "layers": 2, "bidirectional": True, "layer_dropout": 0.5, **options}
    shown = parts(0.5, 0.5, smoothed_ms=[sd * stride for sd in smoothed], width=settings.pop("projection", None))
    return GRUNet(spec_of(mean_rates=mean_rates), step_ms=stride, **shown, **settings).eval()


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True), (3, True)])
def test_parameter_count_is_the_closed_form(layers, bidirectional):
    directions, hidden = (2 if bidirectional else 1), 6
    expected = 8 * (hidden * directions) + 8
    for layer in range(layers):
        width = 5 if layer == 0 else hidden * directions
        expected += directions * 3 * hidden * (width + hidden + 2)
    assert sum(p.numel() for p in net(layers=layers, bidirectional=bidirectional).parameters()) == expected


def test_smoothed_counts_widen_the_input_and_a_projection_narrows_it():
    wide, narrow = net(layers=1, smoothed=[2.0, 4.0]), net(layers=1, smoothed=[2.0, 4.0], projection=4)
    assert wide.core.gru.weight_ih_l0.shape == (18, 15) and narrow.core.gru.weight_ih_l0.shape == (18, 4)
    assert narrow.readin.linear.weight.shape == (4, 15)


def test_smoothed_copies_are_those_of_the_observed_steps_and_lean_on_them_in_forward_bins():
    counts = torch.poisson(torch.ones(2, 12, 5))
    model = net(smoothed=[1.5], stride=4)
    steps = to_steps(counts, 15, 4)
    seen = model.readin.embed(steps, 12)
    assert torch.equal(seen[..., :5], steps) and (steps[:, 3] == 0).all()
    torch.testing.assert_close(seen[..., 5:], gaussian_smooth(steps[:, :3], 1.5, n_out=4))


def test_shapes_and_the_starting_rates():
    rates = [0.5, 0.0, *([0.02] * 6)]
    model = net(mean_rates=rates)
    torch.nn.init.zeros_(model.readout.linear.weight)
    output = model(torch.poisson(torch.ones(4, 10, 5)))
    assert output["log_rates"].shape == (4, 13, 8) and output["latents"].shape == (4, 13, 12)
    torch.testing.assert_close(output["log_rates"][0, 0].exp()[[0, 2]], torch.tensor([0.5, 0.02]))


@pytest.mark.parametrize("smoothed", [[], [1.0, 3.0]])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_causal_means_that_the_future_does_not_matter(stride, smoothed):
    inputs = torch.poisson(torch.ones(2, 10, 5))
    changed = inputs.clone()
    changed[:, 6:] += 3
    options = {"stride": stride, "smoothed": smoothed}
    causal, both = net(bidirectional=False, **options), net(bidirectional=True, **options)
    assert torch.equal(causal(inputs)["log_rates"][:, :6], causal(changed)["log_rates"][:, :6])
    assert not torch.equal(causal(inputs)["log_rates"][:, 6:], causal(changed)["log_rates"][:, 6:])
    assert not torch.equal(both(inputs)["log_rates"][:, :6], both(changed)["log_rates"][:, :6])


def test_coarse_steps_keep_the_shapes():
    inputs = torch.poisson(torch.ones(2, 10, 5))
    coarse = net(stride=4)(inputs)
    assert coarse["log_rates"].shape == (2, 13, 8) and coarse["latents"].shape == (2, 13, 12)


def test_a_causal_network_predicts_the_mean_rates_before_its_first_step_ends():
    rates = net(bidirectional=False, stride=4, mean_rates=[0.3] * 8)(torch.ones(1, 10, 5))["log_rates"].exp()
    torch.testing.assert_close(rates[0, :3], torch.full((3, 8), 0.3))
    assert not torch.allclose(rates[0, 3], torch.full((8,), 0.3))


@pytest.mark.parametrize("smoothed", [[], [2.0]])
def test_trials_do_not_see_each_other(smoothed):
    inputs = torch.poisson(torch.ones(4, 10, 5))
    order = torch.tensor([2, 0, 3, 1])
    model = net(smoothed=smoothed)
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


@pytest.mark.parametrize("rescale", [False, True])
def test_variable_dropout_hides_a_share_of_its_own_in_each_trial(rescale):
    torch.manual_seed(0)
    shown, hidden = VariableDropout(0.1, 0.8, rescale=rescale)(torch.ones(200, 50, 20))
    shares = hidden.float().mean((1, 2))
    assert shares.min() < 0.15 and shares.max() > 0.75 and ((shares > 0.06) & (shares < 0.84)).all()
    assert abs(shares.mean() - 0.45) < 0.05 and (shown[hidden] == 0).all()
    values = torch.where(hidden, 0.0, shown).sum((1, 2)) / (~hidden).sum((1, 2))
    expected = 1 / (1 - shares) if rescale else torch.ones(200)
    torch.testing.assert_close(values, expected, rtol=0.1, atol=0)


def test_a_range_of_shares_that_makes_no_sense_is_refused():
    for low, high in ((0.5, 0.4), (0.1, 1.0), (-0.1, 0.5), (0.0, 0.0)):
        with pytest.raises(ConfigError, match="must be in order"):
            VariableDropout(low, high)


def test_any_read_in_goes_with_a_core_of_any_width():
    """Embedded counts stay whole: their vectors are dropped, not the counts."""
    counts = torch.poisson(torch.ones(2, 10, 5))
    for settings, channels in (
        ({"width": "auto"}, 6),
        ({"width": 4, "smoothed_ms": [2.0, 5.0], "counts": False}, 4),
        ({"count_width": 3, "smoothed_ms": [2.0]}, 20),
        ({"count_width": 3, "width": "auto"}, 6),
    ):
        torch.manual_seed(0)
        shown = parts(0.5, 0.5, **settings)
        model = GRUNet(spec_of(), step_ms=2, hidden=6, layers=1, bidirectional=True, layer_dropout=0.0, **shown).train()
        assert model.core.gru.weight_ih_l0.shape == (18, channels) == (18, model.readin.width)
        assert model(counts)["log_rates"].shape == (2, 13, 8)
        assert not torch.equal(model.readin(counts, 13), model.readin(counts, 13)), "dropout"
        whole = torch.equal(model.readin.in_steps(counts, 13), to_steps(counts, 13, 2))
        assert whole is ("count_width" in settings)
