"""Attention, encoder layers, positions, and the dropout between them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.attention import (
    EncoderLayer,
    LearnedPositions,
    SelfAttention,
    SinusoidalPositions,
    attend,
    attend_with_bias,
    context_mask,
    steps_of_context,
)
from neuro_lightning.nn.dropout import Dropout, dropout_factors


def attention(width=6, heads=2, **options) -> SelfAttention:
    torch.manual_seed(0)
    layer = SelfAttention(width, heads, **options).double().eval()
    nn.init.normal_(layer.qkv.bias)
    return layer


def written_out(layer: SelfAttention, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Trial by trial, head by head, position by position."""
    result = torch.empty_like(x)
    width = x.shape[2] // layer.heads
    for b, trial in enumerate(x):
        q, k, v = layer.qkv(trial).chunk(3, dim=1)
        for head in range(layer.heads):
            at = slice(head * width, (head + 1) * width)
            for i in range(len(trial)):
                seen = torch.arange(len(trial)) if allowed is None else allowed[i].nonzero()[:, 0]
                weights = (k[seen, at] @ q[i, at] / math.sqrt(width)).exp()
                result[b, i, at] = (weights / weights.sum()) @ v[seen, at]
    return layer.out(result)


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("window", [(None, None), (0, None), (1, 2)])
def test_attention_is_a_softmax_over_what_is_seen(heads, window):
    layer, x = attention(heads=heads), torch.randn(3, 5, 6, dtype=torch.float64)
    allowed = context_mask(5, *window)
    torch.testing.assert_close(layer(x, allowed), written_out(layer, x, allowed))


@pytest.mark.parametrize("window", [(None, None), (1, 2)])
def test_attention_with_dropout_written_out_is_the_same(window):
    q, k, v = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    allowed = context_mask(7, *window)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    torch.testing.assert_close(attend(q, k, v, allowed, nn.Identity()), fused)


@pytest.mark.parametrize("window", [(None, None), (0, None)])
@pytest.mark.parametrize("shape", [(64, 8, 35, 8), (5, 2, 17, 7)])
def test_attention_with_a_learned_bias_is_that_of_torch_to_the_bit(shape, window):
    torch.manual_seed(0)
    allowed, found = context_mask(shape[2], *window), []
    given = [*torch.randn(3, *shape), torch.randn(shape[1], shape[2], shape[2])]
    for function in (attend_with_bias, lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m)):
        q, k, v, table = (value.clone().requires_grad_() for value in given)
        bias = table * 1 if allowed is None else table.masked_fill(~allowed, -torch.inf)
        mixed = function(q, k, v, bias)
        mixed.square().sum().backward()
        found.append([mixed, q.grad, k.grad, v.grad, table.grad])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_dropout_of_the_weights_is_for_training_only():
    layer, x = attention(dropout=0.5), torch.randn(2, 8, 6, dtype=torch.float64)
    assert torch.equal(layer(x), layer(x))
    torch.testing.assert_close(layer(x), attention(dropout=0.0)(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    draws = torch.stack([layer(x) for _ in range(2000)])
    error = (draws.mean(0) - layer.eval()(x)) / (draws.std(0) / 2000**0.5)
    assert error.abs().max() < 4.5, "in the mean nothing changes"


def test_gradients():
    layer = attention(dropout=0.0)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, context_mask(4, 0, 2)), x)
    for pre_norm in (True, False):
        encoder = EncoderLayer(6, 2, 5, pre_norm=pre_norm, activation="gelu").double()
        assert torch.autograd.gradcheck(encoder, x)


@pytest.mark.parametrize("heads", [0, 4])
def test_heads_must_divide_the_width(heads):
    with pytest.raises(ConfigError, match=r"model.attention_heads=\d does not divide the width, 6"):
        SelfAttention(6, heads)


# ---- the encoder layer


@pytest.mark.parametrize("pre_norm", [True, False])
def test_an_encoder_layer_has_as_many_parameters_as_its_formula(pre_norm):
    width, hidden = 6, 11
    expected = 4 * width**2 + 4 * width + 2 * width * hidden + width + hidden + 4 * width
    layer = EncoderLayer(width, 3, hidden, pre_norm=pre_norm)
    assert sum(p.numel() for p in layer.parameters()) == expected


def test_norms_stand_before_the_blocks_or_after_them():
    x = 3 + 5 * torch.randn(2, 4, 6)
    before, after = EncoderLayer(6, 2, 5).eval(), EncoderLayer(6, 2, 5, pre_norm=False).eval()
    for layer in (before, after):
        for dense in (layer.attention.out, layer.dense[-1]):
            nn.init.zeros_(dense.weight), nn.init.zeros_(dense.bias)
    torch.testing.assert_close(before(x), x)
    torch.testing.assert_close(after(x), torch.nn.functional.layer_norm(x, (6,)), atol=1e-4, rtol=1e-4)


def test_the_initial_scale_is_that_of_the_output_and_the_dense_layers():
    layer = EncoderLayer(64, 2, 128, init_scale=0.5)
    for weight in (layer.attention.out.weight, layer.dense[0].weight, layer.dense[-1].weight):
        bound = 0.5 * math.sqrt(6 / sum(weight.shape))
        assert 0.98 * bound < weight.abs().max() <= bound
    assert layer.attention.qkv.weight.abs().max() > 0.98 * math.sqrt(6 / (4 * 64))


def test_there_is_no_such_activation():
    with pytest.raises(ConfigError, match="there are relu, gelu"):
        EncoderLayer(6, 2, 5, activation="tanh")


# ---- context and positions


@pytest.mark.parametrize("forward", [None, -1, 0, 1, 3, 9])
@pytest.mark.parametrize("backward", [None, -1, 0, 2, 9])
def test_the_context_mask_is_its_formula(forward, backward):
    n = 6
    ahead = n if forward in (None, -1) else forward
    back = n if backward in (None, -1) else backward
    expected = torch.tensor([[-back <= j - i <= ahead for j in range(n)] for i in range(n)])
    found = context_mask(n, forward, backward)
    assert torch.equal(torch.ones(n, n, dtype=torch.bool) if found is None else found, expected)
    assert (found is None) == expected.all(), "no mask where nothing is hidden"


def test_context_in_ms_does_not_depend_on_the_step():
    assert steps_of_context(None, 200, 5) == (None, 40) and steps_of_context(0, 200, 20) == (0, 10)
    assert steps_of_context(-1, 30, 20) == (None, 2), "rounded up"


def test_sinusoidal_positions_are_their_formula():
    table = SinusoidalPositions(7, 5)(torch.zeros(1, 7, 5))[0]
    for position in range(7):
        for channel in range(5):
            angle = position / 10_000 ** (channel // 2 * 2 / 5)
            wave = math.cos if channel % 2 else math.sin
            assert float(table[position, channel]) == pytest.approx(wave(angle), abs=1e-6)
    assert not list(SinusoidalPositions(7, 5).state_dict()), "nothing to save"


def test_shorter_sequences_take_the_first_positions():
    for positions in (LearnedPositions(7, 4), SinusoidalPositions(7, 4)):
        x = torch.randn(2, 7, 4)
        assert torch.equal(positions(x[:, :3]), positions(x)[:, :3])
        assert not torch.equal(positions(x)[:, 0] - x[:, 0], positions(x)[:, 1] - x[:, 1])


# ---- dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    factors = dropout_factors(torch.empty(400_001), p)
    dropped = float((factors == 0).double().mean())
    assert abs(dropped - p) <= 4 * math.sqrt(p * (1 - p) / len(factors)) + 2**-17
    if p < 1:
        assert torch.allclose(factors[factors != 0], torch.tensor(1 / (1 - p)), rtol=1e-3)


def test_elements_that_share_a_random_number_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout_factors(torch.empty(4 * 50_000), 0.3).view(-1, 4) != 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 4.5 / 50_000**0.5
    assert ((kept.mean(0) - 0.7).abs() < 4 * math.sqrt(0.21 / 50_000)).all()


def test_dropout_is_for_training_only_and_follows_the_seed():
    layer, x = Dropout(0.4), torch.randn(5, 7, requires_grad=True)
    assert layer.eval()(x) is x and Dropout(0.0).train()(x) is x
    layer.train()
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    first.sum().backward()
    torch.testing.assert_close(x.grad * x, first), "what was dropped has no gradient"
