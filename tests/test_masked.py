"""What is quick about masking is the same to the bit as what is plain."""

import math

import pytest
import torch

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional.likelihood import log_rate_nll
from neuro_lightning.functional.masked import FEW, masked_log_rate_nll, zero_inside, zero_outside
from neuro_lightning.losses import poisson
from neuro_lightning.nn.dropout import keep_factors
from neuro_lightning.nn.masking import _smallest, random_subset

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SHAPE = (8, 50, 41)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Zeros of another sign and NaN of other bits are not the same."""
    integer = BITS[one.element_size()]
    return one.dtype == other.dtype and torch.equal(one.contiguous().view(integer), other.contiguous().view(integer))


@pytest.fixture(params=[torch.float32, torch.float64, torch.bfloat16], ids=str)
def values(request):
    torch.manual_seed(0)
    return torch.randn(SHAPE, dtype=torch.float64).to(request.param)


# ---- zeros outside a mask


def test_zeros_are_those_of_where(values):
    mask = torch.rand(SHAPE) < 0.3
    values[0, 0, :4] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    for one, other in ((values, mask), (values.mT, mask.mT), (values.mT, torch.rand(8, 41, 50) < 0.3)):
        expected = torch.where(other, one, 0.0)
        assert same_bits(zero_outside(one, other), expected) and same_bits(zero_inside(one, ~other), expected)
        assert zero_outside(one, other).stride() == expected.stride(), "sums over it add in the same order"
    steps = mask[:, :, :1].expand(SHAPE)
    assert same_bits(zero_outside(values, steps), torch.where(steps, values, 0.0))


def test_gradients_are_those_of_where(values):
    mask = torch.rand(SHAPE) < 0.3

    def gradients(function) -> tuple[torch.Tensor, torch.Tensor]:
        x = values.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(x.exp() * x).square().sum(), x, create_graph=True)
        return first, torch.autograd.grad(first.sin().sum(), x)[0]

    quick, plain = (gradients(f) for f in (lambda x: zero_outside(x, mask), lambda x: torch.where(mask, x, 0.0)))
    assert all(same_bits(one, other) for one, other in zip(quick, plain, strict=True))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_is_outside_reaches_neither_value_nor_gradient(values, poison):
    mask = torch.rand(SHAPE) < 0.3
    x = values.masked_fill(~mask, poison).requires_grad_()
    zero_outside(x, mask).square().sum().backward()
    assert same_bits(x.grad, torch.where(mask, 2 * values, 0.0))
    x = values.clone().requires_grad_()
    (zero_outside(x, mask) * values.masked_fill(~mask, poison)).sum().backward()  # a gradient of NaN outside
    assert same_bits(x.grad, torch.where(mask, values, 0.0))


def test_stacked_networks_may_mask(values):
    mask = torch.rand(SHAPE) < 0.3
    of_members = torch.vmap(torch.func.grad(lambda x, m: zero_outside(x, m).square().sum()))
    assert mask[0].numel() < FEW <= mask.numel()
    stacked = torch.stack([values, values * 3])
    assert same_bits(of_members(stacked, torch.stack([mask, ~mask]))[1], torch.where(mask, 0.0, 2 * stacked[1]))


# ---- the Poisson loss


def poisson_of(log_rates: torch.Tensor, counts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    logs, counts = torch.where(mask, log_rates, 0.0), torch.where(mask, counts, 0.0)
    return torch.where(mask, log_rate_nll(logs, counts), 0.0)


@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_masked_poisson_loss(poison, dtype):
    torch.manual_seed(0)
    mask = torch.rand(SHAPE) < 0.3
    log_rates, counts = torch.randn(SHAPE, dtype=dtype), torch.poisson(torch.ones(SHAPE, dtype=dtype))
    for values in (log_rates, counts):
        values.masked_fill_(~mask, poison)
    weights = torch.randn(SHAPE, dtype=dtype)
    for combine in (lambda nll: nll.sum() / 1234, lambda nll: (nll * weights).sum()):
        found = []
        for function in (masked_log_rate_nll, poisson_of):
            x = log_rates.clone().requires_grad_()
            nll = function(x, counts, mask)
            combine(nll).backward()
            found.append((nll.detach(), x.grad))
        assert all(same_bits(*pair) for pair in zip(*found, strict=True))


def test_the_loss_of_counts_in_bytes_is_the_plain_one():
    torch.manual_seed(0)
    mask, counts = torch.rand(SHAPE) < 0.3, torch.poisson(torch.ones(SHAPE)).to(torch.uint8)
    output = {"log_rates": torch.randn(SHAPE)}
    total, count = poisson(output, counts, mask, DataSpec("shape"))
    assert same_bits(total, poisson_of(output["log_rates"], counts.float(), mask).sum()) and count == mask.sum()


# ---- an exact share of elements


def plainly(keys: torch.Tensor, n: int, among: torch.Tensor | None) -> torch.Tensor:
    keys = keys if among is None else keys.masked_fill(~among, torch.iinfo(torch.int64).max)
    return keys <= keys.kthvalue(n).values


@pytest.mark.parametrize("share", [0.0, 0.001, 0.27, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("total", [1, 7, 100_000])
@pytest.mark.parametrize("some", [False, True])
def test_the_smallest_keys(share, total, some):
    generator = torch.Generator().manual_seed(total)
    even = torch.empty(total, dtype=torch.int64).random_(generator=generator)
    among = torch.rand(total, generator=generator) < 0.6 if some else None
    if some:
        among[0] = True
    n = max(1, round(share * (total if among is None else int(among.sum()))))
    for keys in (even, even // 10**6, 2**63 - 1 - even // 10**6, even // 2**61):  # the last ones have many ties
        found = _smallest(keys, n, among)
        assert torch.equal(found, plainly(keys, n, among) & (torch.ones_like(found) if among is None else among))


def test_a_seed_gives_the_elements_that_it_gave():
    torch.manual_seed(3)
    subset = random_subset(torch.empty(30, 20, 10), 1_620)
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(subset.flatten(), plainly(torch.empty(6_000, dtype=torch.int64).random_(), 1_620, None))
    assert torch.equal(after, torch.rand(()))


# ---- dropout


@pytest.mark.parametrize("p", [1e-9, 2**-16, 0.3, 0.5, 1 - 2**-16, 1.0])
def test_factors_are_those_of_a_comparison(p, values):
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: values.numel()] >= round(p * 2**16) - 2**15 if p < 1 else torch.tensor(False)
    plain = kept.expand(values.numel()).to(values.dtype).mul_(2**16 / max(1, 2**16 - round(p * 2**16)))
    assert same_bits(keep_factors(draws, values, p).flatten(), plain)
