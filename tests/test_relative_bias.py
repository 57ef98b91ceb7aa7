"""The bias of distance in attention, and the transformers that have one."""

import math

import pytest
import torch
from networks import transformer

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.models.stndt import STNDTNet
from neuro_lightning.nn.attention import SelfAttention, attend, context_mask
from neuro_lightning.nn.relative_bias import RelativeBias, log_spaced
from neuro_lightning.nn.smoothed import kernels_in_steps
from neuro_lightning.nn.step_transformer import Attention


def test_the_bias_begins_as_its_closed_form():
    reaches = [0.5, 2.0, 7.0]
    scores = RelativeBias(6, reaches)(6)
    for head, reach in enumerate(reaches):
        for i in range(6):
            for j in range(6):
                assert float(scores[head, i, j]) == pytest.approx(-abs(j - i) / reach)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_each_distance_has_a_score_of_its_own(n):
    """Ahead and back differ, and shorter sequences take the same scores."""
    bias = RelativeBias(6, [1.0, 1.0])
    torch.nn.init.normal_(bias.table)
    scores = bias(n)
    assert scores.shape == (2, n, n)
    for i in range(n):
        for j in range(n):
            assert torch.equal(scores[:, i, j], bias.table[:, j - i + 5])


def test_what_is_not_allowed_stays_so():
    allowed = context_mask(5, 0, 2)
    scores = RelativeBias(5, [1.0])(5, allowed)[0]
    assert torch.equal(scores == -torch.inf, ~allowed)


def test_reaches_are_log_spaced():
    assert log_spaced(20, 320, 5) == pytest.approx([20, 40, 80, 160, 320]) and log_spaced(20, 320, 1) == [20]


@pytest.mark.parametrize("window", [(None, None), (0, None), (1, 2)])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_attention_adds_it_to_the_scores(window, dropout):
    """Written out head by head; a dropout that drops nothing takes the other way on a CPU."""
    torch.manual_seed(0)
    layer = SelfAttention(6, 2, dropout, RelativeBias(5, [0.7, 3.0])).double()
    x, allowed = torch.randn(2, 5, 6, dtype=torch.float64), context_mask(5, *window)
    q, k, v = (part.unflatten(2, (2, 3)) for part in layer.qkv(x).chunk(3, dim=2))
    mixed = torch.empty_like(v)
    for head, reach in enumerate([0.7, 3.0]):
        for i in range(5):
            seen = [j for j in range(5) if allowed is None or allowed[i, j]]
            scores = torch.stack([(q[:, i, head] * k[:, j, head]).sum(1) / 3**0.5 - abs(j - i) / reach for j in seen])
            mixed[:, i, head] = torch.einsum("jb,bjd->bd", scores.softmax(0), v[:, seen, head])
    torch.testing.assert_close(layer(x, allowed), layer.out(mixed.flatten(2)), atol=1e-6, rtol=1e-6)


def test_both_ways_have_the_same_gradients():
    q, k, v = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    bias, found = RelativeBias(7, log_spaced(1, 8, 4)).double(), []
    for way in (torch.nn.functional.scaled_dot_product_attention, lambda *parts: attend(*parts, torch.nn.Identity())):
        bias.zero_grad()
        way(q, k, v, bias(7, context_mask(7, 1, 3))).square().sum().backward()
        found.append(bias.table.grad.clone())
    torch.testing.assert_close(*found)
    unseen = (torch.arange(-6, 7) > 1) | (torch.arange(-6, 7) < -3)
    assert (found[0][:, unseen] == 0).all() and (found[0][:, ~unseen] != 0).all()


def test_untrained_heads_are_smoothers():
    """Queries and keys that say nothing: each head's weights are exponential flanks, normalised."""
    layer = SelfAttention(2, 2, 0.0, RelativeBias(9, [1.0, 4.0]))
    torch.nn.init.zeros_(layer.qkv.weight[:4].data)
    for part, start in ((layer.qkv.weight.data[4:], torch.eye(2)), (layer.out.weight.data, torch.eye(2))):
        part.copy_(start)
    spike = torch.zeros(1, 9, 2)
    spike[0, 4] = 1.0
    found = layer(spike)[0]
    for head, reach in enumerate([1.0, 4.0]):
        for i in range(9):
            total = sum(math.exp(-abs(j - i) / reach) for j in range(9))
            assert float(found[i, head]) == pytest.approx(math.exp(-abs(i - 4) / reach) / total, rel=1e-5)


# ---- in the networks


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_causal_transformer_with_smoothed_counts_and_bias_is_causal(stride):
    torch.manual_seed(0)
    options = {"layers": 2, "width": 12, "reach": (1.0, 8.0), "smoothed": [1.0, 3.0], "stride": stride}
    inputs = torch.poisson(torch.ones(3, 10, 5))
    changed = inputs.clone()
    changed[:, 6:] += 3
    for context, same in (((0, None), True), ((None, None), False)):
        model = transformer(NDTNet, context=context, **options).eval()
        torch.nn.init.normal_(model.readout.linear.weight)
        before, after = model(inputs)["log_rates"], model(changed)["log_rates"]
        assert torch.equal(before[:, :6], after[:, :6]) == same and not torch.equal(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("network", [NDTNet, STNDTNet])
def test_bias_and_smoothed_counts_are_so_many_parameters(network):
    plain, full = (
        sum(p.numel() for p in transformer(network, layers=3, attention_heads=4, width=12, **options).parameters())
        for options in ({}, {"reach": (1.0, 8.0), "smoothed": (1.0, 2.0)})
    )
    assert full - plain == 3 * 4 * (2 * 13 - 1) + 2 * 5 * 12


@pytest.mark.parametrize("network", [NDTNet, STNDTNet])
def test_every_bias_learns(network):
    torch.manual_seed(0)
    model = transformer(network, layers=2, attention_heads=4, width=12, reach=(1.0, 8.0), smoothed=(1.0,)).train()
    torch.nn.init.normal_(model.readout.linear.weight)
    model(torch.poisson(torch.ones(4, 10, 5)))["log_rates"].square().sum().backward()
    tables = [p for name, p in model.named_parameters() if name.endswith("bias.table")]
    assert len(tables) == 2 and all((table.grad != 0).all() for table in tables)


def test_shorter_trials_are_read_with_the_same_bias():
    torch.manual_seed(0)
    model = transformer(NDTNet, n_forward=0, layers=1, reach=(1.0, 8.0)).eval()
    assert model(torch.ones(2, 6, 5))["log_rates"].shape == (2, 6, 8)


@pytest.mark.parametrize("network", [NDTNet, STNDTNet])
def test_without_counts_only_smoothed_ones_enter(network):
    """The embedder is given the kernels' copies, in their order."""
    model = transformer(network, layers=1, width=12, smoothed=(1.0, 3.0), counts=False, stride=1).eval()
    seen, inputs = {}, torch.poisson(torch.ones(2, 10, 5))
    model.readin.linear.register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    model(inputs)
    expected = [gaussian_smooth(inputs, sd, n_out=13) for sd in (1.0, 3.0)]
    torch.testing.assert_close(seen["x"], torch.cat(expected, dim=2))


@pytest.mark.parametrize("reach", [[20], [0, 100], [200, 100], [20, 50, 100]])
def test_a_reach_is_two_numbers_in_order(reach):
    with pytest.raises(
        ConfigError, match=r"model.attention.reach_ms=\[.*\]: the nearest head's reach and the farthest's"
    ):
        Attention(reach_ms=reach)


def test_reaches_and_kernels_are_given_in_ms():
    table = Attention(reach_ms=[20, 320]).bias(2, 3, 20).table
    assert table[:, -1].tolist() == [-2, -0.125] and Attention().bias(2, 3, 20) is None
    assert kernels_in_steps([40, 100], 20) == (2, 5)
    with pytest.raises(
        ConfigError, match=r"model.readin.smoothed_ms=\[40, 0\]: kernels have a standard deviation above 0 ms"
    ):
        kernels_in_steps([40, 0], 20)
