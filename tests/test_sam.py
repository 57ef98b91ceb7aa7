"""Sharpness-aware minimization against arithmetic, against a plain loop, and on the road."""

import copy
import math
import shutil
from functools import partial

import pytest
import torch
from runs import TINY, checkpoint, here, record, rows, same
from torch import nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.optim import SAM, cosine

SGD = partial(torch.optim.SGD, lr=0.1)


def stepped(start, curvature, **options):
    """One step on ``sum(curvature * w**2) / 2``."""
    w, curvature = nn.Parameter(torch.tensor(start, dtype=torch.float64)), torch.tensor(curvature).double()
    optimizer = SAM([w], SGD, **options)

    def closure():
        optimizer.zero_grad()
        loss = (curvature * w.square()).sum() / 2
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert w.grad is None, "cleared, so that a gradient that is there next time was gathered before"
    return w.detach(), loss


def test_one_step_by_hand():
    w, loss = stepped([2.0], [3.0], rho=0.05)  # climbs from 2 to 2.05, where the gradient is 6.15
    torch.testing.assert_close(w, torch.tensor([2 - 0.1 * 6.15]).double())
    assert float(loss) == 6.0, "the loss at the weights themselves"
    w, _ = stepped([3.0, -4.0], [1.0, 1.0], rho=0.5)  # the gradient's norm is 5: climbs by (0.3, -0.4)
    torch.testing.assert_close(w, torch.tensor([3 - 0.33, -4 + 0.44]).double())


def test_an_adaptive_step_by_hand():
    w, _ = stepped([2.0], [3.0], rho=0.05, adaptive=True)  # climbs by rho * w**2 * g / |w * g| = 0.1
    torch.testing.assert_close(w, torch.tensor([2 - 0.1 * 6.3]).double())
    w, _ = stepped([3.0, 0.0], [1.0, 1.0], rho=0.1, adaptive=True)
    torch.testing.assert_close(w, torch.tensor([3 - 0.33, 0.0]).double())


def problem(dtype=torch.float64):
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(4, 5), "b": nn.Linear(5, 2), "unused": nn.Linear(3, 3)}).to(dtype)
    x, y = torch.randn(20, 4, dtype=dtype), torch.randn(20, 2, dtype=dtype)
    return net, lambda: F.mse_loss(net["b"](net["a"](x).tanh()), y)


def closure_of(optimizer, loss_of):
    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    return closure


def by_hand(net, loss_of, base, rho, n_steps):
    """The algorithm as the paper states it."""
    losses = []
    for _ in range(n_steps):
        used = [p for name, p in net.named_parameters() if "unused" not in name]
        loss = loss_of()
        gradient = torch.autograd.grad(loss, used)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
        with torch.no_grad():
            for p, g in zip(used, gradient, strict=True):
                p += rho * g / norm
        there = torch.autograd.grad(loss_of(), used)
        with torch.no_grad():
            for p, g in zip(used, gradient, strict=True):
                p -= rho * g / norm
        for p, g in zip(used, there, strict=True):
            p.grad = g
        base.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("base", [SGD, partial(torch.optim.Adam, lr=0.01, weight_decay=0.1)])
def test_steps_are_those_of_the_paper(base):
    net, loss_of = problem()
    other = copy.deepcopy(net)
    optimizer = SAM(
        [{"params": net["a"].parameters()}, {"params": [*net["b"].parameters(), *net["unused"].parameters()]}],
        base,
        rho=0.3,
    )
    losses = [float(optimizer.step(closure_of(optimizer, loss_of))) for _ in range(8)]
    ours = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.load_state_dict(other.state_dict())
    expected = by_hand(net, loss_of, base(net.parameters()), 0.3, 8)
    assert losses == pytest.approx(expected, rel=1e-9) and losses[-1] < losses[0]
    for name, p in net.named_parameters():
        torch.testing.assert_close(ours[name], p.detach(), rtol=1e-8, atol=1e-10)


def test_without_a_climb_it_is_the_base():
    net, loss_of = problem(torch.float32)
    start = copy.deepcopy(net.state_dict())
    found = []
    for make in (partial(SAM, base=torch.optim.Adam, rho=0.0), torch.optim.Adam):
        net.load_state_dict(start)
        optimizer = make(net.parameters())
        for _ in range(5):
            optimizer.step(closure_of(optimizer, loss_of))
        found.append(copy.deepcopy(net.state_dict()))
    assert same(*map(dict, found))


def test_weights_are_back_when_the_second_pass_fails():
    net, loss_of = problem()
    start = copy.deepcopy(dict(net.state_dict()))
    optimizer = SAM(net.parameters(), SGD, rho=0.5)
    closure, calls = closure_of(optimizer, loss_of), []

    def failing():
        calls.append(0)
        if len(calls) == 2:
            assert not same(start, dict(net.state_dict())), "it has climbed"
            raise RuntimeError("out of memory")
        return closure()

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(failing)
    assert same(start, dict(net.state_dict()))


def test_a_saved_state_continues_bit_for_bit():
    net, loss_of = problem(torch.float32)
    make = partial(SAM, base=partial(torch.optim.Adam, lr=0.01), rho=0.1)
    optimizer = make(net.parameters())
    for _ in range(3):
        optimizer.step(closure_of(optimizer, loss_of))
    saved = copy.deepcopy((dict(net.state_dict()), optimizer.state_dict()))
    assert {"exp_avg", "exp_avg_sq", "step"} <= set(saved[1]["state"][0])
    assert saved[1]["param_groups"][0]["rho"] == 0.1 and saved[1]["param_groups"][0]["lr"] == 0.01
    for _ in range(3):
        optimizer.step(closure_of(optimizer, loss_of))
    final = copy.deepcopy((dict(net.state_dict()), optimizer.state_dict()))
    net.load_state_dict(saved[0])
    resumed = make(net.parameters())
    resumed.load_state_dict(saved[1])
    for _ in range(3):
        resumed.step(closure_of(resumed, loss_of))
    assert same(final, (dict(net.state_dict()), resumed.state_dict()))


def test_a_schedule_moves_the_base():
    net, loss_of = problem()
    optimizer = SAM(net["a"].parameters(), SGD)
    optimizer.add_param_group({"params": list(net["b"].parameters()), "lr": 0.2})
    schedule = cosine(optimizer, 10, warmup=0.0)["scheduler"]
    for _ in range(10):
        optimizer.step(closure_of(optimizer, loss_of))
        schedule.step()
    assert [group["lr"] for group in optimizer.base.param_groups] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert [group["initial_lr"] for group in optimizer.base.param_groups] == [0.1, 0.2]
    assert optimizer.param_groups[1]["rho"] == 0.05


def test_what_it_cannot_do_is_said():
    net, loss_of = problem()
    optimizer = SAM(net.parameters(), SGD)
    with pytest.raises(ConfigError, match=r"trainer\.precision must be"):
        optimizer.step()
    loss_of().backward()
    with pytest.raises(ConfigError, match="accumulate_grad_batches"):
        optimizer.step(closure_of(optimizer, loss_of))
    with pytest.raises(ConfigError, match="rho=-1"):
        SAM(net.parameters(), SGD, rho=-1)


# ---- on the road

ROAD = [
    "optimizer@model.optimizer=sam", "optimizer@model.optimizer.base=adamw", "model.optimizer.base.lr=0.01",
    "trainer.max_epochs=2", "trainer.gradient_clip_val=0.5",
]  # fmt: skip
KEEP = "_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',auto_insert_metric_name:false,save_top_k:-1"


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    """Dropout, hidden inputs and clipping are on; the checkpoint is from the middle of the second epoch."""
    steps = f"+callbacks.steps={{{KEEP},every_n_train_steps:3,filename:'step{{step}}'}}"
    run = here(tmp_path / "run", *ROAD, steps)
    whole, log = checkpoint(run.folder), rows(run.folder)
    assert record(run.folder)["steps"] == 8, "two passes are one step"
    groups = whole["optimizer_states"][0]["param_groups"]
    assert groups[0]["rho"] == 0.05 and groups[0]["initial_lr"] == 0.01 and whole["optimizer_states"][0]["state"]
    shutil.rmtree(run.folder)
    shutil.copytree(tmp_path / "snapshots" / "step6", run.folder)
    again = here(run.folder, *ROAD, steps, f"resume='{run.folder}/checkpoints/step6.ckpt'")
    final = checkpoint(run.folder)
    for what in ("state_dict", "optimizer_states", "lr_schedulers", "neuro_lightning"):
        assert same(final[what], whole[what]), what
    assert rows(run.folder) == log and again.score == run.score


def test_it_climbs_on_the_road(tmp_path):
    """What is logged is the loss at the weights; the weights are others than without a climb."""
    one, other = (here(tmp_path / str(rho), *ROAD, f"model.optimizer.rho={rho}") for rho in (0.0, 0.5))
    first = [float(rows(run.folder)[0]["train/loss"]) for run in (one, other)]
    assert first[0] == pytest.approx(first[1], rel=0.2) and first[0] != first[1]
    assert not same(checkpoint(one.folder)["state_dict"], checkpoint(other.folder)["state_dict"])


def test_gradients_cannot_be_gathered_over_batches(tmp_path):
    with pytest.raises(ConfigError, match="accumulate_grad_batches=1"):
        here(tmp_path, *ROAD, "+trainer.accumulate_grad_batches=2", base=TINY)
