"""The steps of several optimizers, taken at once, are those that each takes alone."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from neuro_lightning.nn.stacked_adam import StackedAdam, can_step_at_once, clip_members

RATES, DECAYS, BETAS, EPSILONS = (
    (1e-2, 3e-3, 0.1),
    (0.1, 0.0, 0.3),
    ((0.9, 0.999), (0.5, 0.9), (0.8, 0.99)),
    (1e-8, 0.1, 1e-4),
)


def network():
    return nn.ParameterList([torch.randn(4, 3), torch.randn(3), torch.randn(())]).double()


def stacked(nets):
    """Rows of stacked parameters, to which the networks' parameters are bound."""
    rows = []
    for own in zip(*(net.parameters() for net in nets), strict=True):
        together = nn.Parameter(torch.stack([each.detach() for each in own]))
        for each, row in zip(own, together.data, strict=True):
            each.data = row
        rows.append((together, list(own)))
    return rows


def optimizers(kind, nets):
    parts = zip(nets, RATES, DECAYS, BETAS, EPSILONS, strict=True)
    return [
        kind([{"params": list(net.parameters())[:2]}, {"params": list(net.parameters())[2:], "lr": 0.05}],
             lr=rate, weight_decay=decay, betas=betas, eps=epsilon)
        for net, rate, decay, betas, epsilon in parts
    ]  # fmt: skip


def gradients(step):
    generator = torch.Generator().manual_seed(step)
    found = [torch.randn(3, *shape, dtype=torch.float64, generator=generator) for shape in ((4, 3), (3,), ())]
    return [found[0], None if step == 0 else found[1], found[2]]  # the second has none at first


def alone(nets, own, steps, *, clip=None):
    for step in steps:
        for k, net in enumerate(nets):
            for parameter, rows in zip(net.parameters(), gradients(step), strict=True):
                parameter.grad = None if rows is None else rows[k].clone()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip[k])
            own[k].step()


def at_once(rows, adam, steps, *, clip=None):
    for step in steps:
        for (together, _), given in zip(rows, gradients(step), strict=True):
            together.grad = given
        if clip is not None:
            clip_members([together for together, _ in rows], torch.tensor(clip, dtype=torch.float64))
        adam.step()


def equal(nets, others, own, theirs):
    for net, other, mine, his in zip(nets, others, own, theirs, strict=True):
        torch.testing.assert_close(list(net.parameters()), list(other.parameters()), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.state_dict(), his.state_dict(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_members_step_as_alone_and_go_on_alone_and_together(kind):
    nets = [network() for _ in RATES]
    others = copy.deepcopy(nets)
    own, theirs = optimizers(kind, nets), optimizers(kind, others)
    assert can_step_at_once(own)
    clip = [1.0, torch.inf, 0.5]
    alone(others, theirs, range(3), clip=clip)
    rows = stacked(nets)
    adam = StackedAdam(own, rows)
    at_once(rows, adam, range(3), clip=clip)
    equal(nets, others, own, theirs)
    for many in (own, theirs):
        many[1].param_groups[0]["lr"] = 0.5
    alone(others, theirs, [3, 4])
    alone(nets, own, [3])  # each takes a step of its own, from the same state
    assert adam.is_bound()
    at_once(rows, adam, [4])
    equal(nets, others, own, theirs)
    own[2].load_state_dict(copy.deepcopy(own[2].state_dict()))
    assert not adam.is_bound()
    at_once(rows, StackedAdam(own, rows), [5])
    alone(others, theirs, [5])
    equal(nets, others, own, theirs)


def test_a_gradient_that_is_not_finite_changes_its_member_alone():
    nets = [network() for _ in RATES]
    others = copy.deepcopy(nets)
    own, theirs, rows = optimizers(AdamW, nets), optimizers(AdamW, others), stacked(nets)
    alone(others, theirs, [1], clip=[1.0] * 3)
    for (together, _), given in zip(rows, gradients(1), strict=True):
        together.grad = given.index_fill(0, torch.tensor([1]), torch.nan)
    clip_members([together for together, _ in rows], 1.0)
    StackedAdam(own, rows).step()
    assert all(parameter.isnan().all() for parameter in nets[1].parameters())
    equal(nets[::2], others[::2], own[::2], theirs[::2])


def test_optimizers_that_step_otherwise_are_told_apart():
    def made(kind, **options):
        return kind([torch.zeros(2, requires_grad=True)], lr=0.1, **options)

    assert can_step_at_once([made(Adam), made(Adam, weight_decay=0.1)])
    assert not can_step_at_once([made(Adam), made(AdamW)])
    assert not can_step_at_once([made(SGD), made(SGD)])
    assert not can_step_at_once([made(AdamW), made(AdamW, amsgrad=True)])
    assert not can_step_at_once([made(AdamW), made(AdamW, maximize=True)])
