"""What a model must not know is poisoned, and nothing changes."""

import math
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import parts, spec_of
from runs import ROOT, TINY, checkpoint, here, record, rows, same
from tiny import BINS, N_IN, Tiny

from neuro_lightning import losses
from neuro_lightning.contracts import DataSpec
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.settings.config import instantiate

POISONS = [math.nan, 1e30, -1e30]
GRU_SETTINGS = {"layers": 2, "step_ms": None, "layer_dropout": 0.5, **parts(0.5, 0.5)}
HIDDEN = ("heldout", "heldin_forward", "heldout_forward", "behavior", "rates")


def tiny(poison: dict[str, float], **loader) -> Tiny:
    return Tiny(n_train=37, n_val=11, poison=poison, batch_size=10, eval_batch_size=4, **loader)


def gru(data: Tiny, *overrides: str):
    """The configured GRU with random weights for these data, as a run would build it."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*TINY, *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model, spec=data.spec)
    torch.nn.init.normal_(model.net.readout.linear.weight)
    return model


# ---- the input


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_is_predicted_never_reaches_the_input(split, poison):
    """Held-out neurons, forward bins, behavior and true rates of a batch are poisoned: inputs and outputs stay."""
    clean, poisoned = tiny({}), tiny({f"{split}.{name}": poison for name in HIDDEN})
    model = gru(clean).eval()
    for one, other in zip(clean.eval_dataloader(split), poisoned.eval_dataloader(split), strict=True):
        assert not same(one["targets"], other["targets"]), "the poison is there"
        assert same(one["inputs"], other["inputs"])
        assert same(model(one["inputs"])["log_rates"], model(other["inputs"])["log_rates"])


def test_the_input_itself_matters():
    clean, poisoned = tiny({}), tiny({"val.heldin": 3.0})
    model = gru(clean).eval()
    one, other = (next(iter(data.eval_dataloader("val"))) for data in (clean, poisoned))
    assert not same(model(one["inputs"])["log_rates"], model(other["inputs"])["log_rates"])


# ---- training and selection


@pytest.fixture(scope="module")
def clean_run(tmp_path_factory):
    return here(tmp_path_factory.mktemp("clean"), "model.optimizer.lr=0.05", "baselines=null")


def learned(folder):
    return [checkpoint(folder, name)["state_dict"] for name in ("best.ckpt", "last.ckpt")]


@pytest.mark.parametrize("poison", ["nan", "1e30"])
def test_test_trials_change_nothing_about_a_run(clean_run, tmp_path, poison):
    """All of their numbers, inputs too: same weights, same choice of checkpoint, same objective, same log."""
    run = here(tmp_path, "model.optimizer.lr=0.05", f"++data.poison={{test:{poison}}}")
    assert same(learned(run.folder), learned(clean_run.folder))
    assert run.score == clean_run.score and rows(run.folder) == rows(clean_run.folder)
    before, after = (record(folder)["metrics"] for folder in (clean_run.folder, run.folder))
    assert {k: v for k, v in before.items() if k[:3] == "val"} == {k: v for k, v in after.items() if k[:3] == "val"}
    assert before["test/co_bps"] != after["test/co_bps"], "the poison is there"


@pytest.mark.parametrize("poison", ["nan", "1e30"])
def test_validation_targets_do_not_train(clean_run, tmp_path, poison):
    """They choose the checkpoint, and nothing else."""
    parts = ",".join(f"val.{name}:{poison}" for name in ("heldout", "heldin_forward", "heldout_forward"))
    run = here(tmp_path, "model.optimizer.lr=0.05", f"++data.poison={{{parts}}}")
    assert same(learned(run.folder)[1], learned(clean_run.folder)[1])
    assert [row["train/loss"] for row in rows(run.folder)] == [row["train/loss"] for row in rows(clean_run.folder)]
    assert [row["val/co_bps"] for row in rows(run.folder)] != [row["val/co_bps"] for row in rows(clean_run.folder)]


def test_the_baseline_is_fitted_without_validation_targets(tmp_path):
    """What smoothing says of the test trials does not change with the validation trials' targets."""
    targets = ",".join(f"val.{name}:3.0" for name in ("heldin", "heldout", "heldin_forward", "heldout_forward"))
    runs = [
        here(tmp_path / name, "trainer.max_epochs=1", *poison, base=[word for word in TINY if word != "baselines=null"])
        for name, poison in (("clean", []), ("poisoned", [f"++data.poison={{{targets}}}"]))
    ]
    clean, poisoned = (record(run.folder)["baselines"]["smoothing"] for run in runs)
    assert clean["test"]["co_bps"] == poisoned["test"]["co_bps"]
    assert clean["val"]["co_bps"] != poisoned["val"]["co_bps"], "the poison is there"


def test_training_targets_do(clean_run, tmp_path):
    run = here(tmp_path, "model.optimizer.lr=0.05", "++data.poison={train.heldout:1.0}")
    assert not same(learned(run.folder)[1], learned(clean_run.folder)[1])


# ---- the loss


SPEC = DataSpec("data", n_out=6, mean_rates=(0.5, 1.0, 2.0, 1.0, 1.0, 3.0))
LOSSES = [losses.poisson, losses.poisson_normalised, losses.mse]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("link", ["log_rates", "rates"])
@pytest.mark.parametrize("poison", POISONS)
def test_what_is_masked_never_reaches_loss_or_gradient(poison, link, loss):
    torch.manual_seed(0)
    mask = torch.rand(4, 5, 6) < 0.7
    targets = torch.poisson(torch.ones(4, 5, 6))
    results = []
    for hidden in (0.0, poison):
        values = torch.linspace(0.1, 2, 120).view(4, 5, 6).requires_grad_()
        total, count = loss({link: values}, torch.where(mask, targets, hidden), mask, SPEC)
        (total / count).backward()
        results.append((total.detach(), count, values.grad))
    assert same(*results)
    assert (results[0][2] != 0)[mask].all() and (results[0][2] == 0)[~mask].all()
    assert results[0][1] == (4 if loss is losses.poisson_normalised else mask.sum())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("link", ["log_rates", "rates"])
@pytest.mark.parametrize("poison", POISONS)
def test_rates_beneath_the_mask_do_no_harm(poison, link, loss):
    mask = torch.tensor([[True, False]])
    values = torch.tensor([[0.5, poison]], requires_grad=True)
    total, _ = loss({link: values}, torch.tensor([[1.0, 2.0]]), mask, DataSpec("data", n_out=2, mean_rates=(1.0, 2.0)))
    total.backward()
    assert total.isfinite() and values.grad[0, 1] == 0 and values.grad.isfinite().all()


def test_losses_equal_their_closed_forms():
    torch.manual_seed(0)
    rates, targets = torch.rand(7, 3, dtype=torch.float64) + 0.1, torch.rand(7, 3, dtype=torch.float64)
    mask = torch.rand(7, 3) < 0.6
    mask[2] = False  # an image that no neuron was shown
    spec = DataSpec("data", n_out=3, mean_rates=(0.5, 2.0, 1.0))
    nll = rates - targets * (rates + losses.EPS).log()
    observed = [(b, n) for b in range(7) for n in range(3) if mask[b, n]]
    for loss, total, count in (
        (losses.poisson, sum(nll[at] for at in observed), len(observed)),
        (losses.poisson_normalised, sum(nll[at] / spec.mean_rates[at[1]] for at in observed), int(mask.any(1).sum())),
        (losses.mse, sum((rates[at] - targets[at]) ** 2 for at in observed), len(observed)),
    ):
        found = loss({"rates": rates}, targets, mask, spec)
        assert float(found[0]) == pytest.approx(float(total)) and found[1] == count
        assert float(loss({"log_rates": rates.log()}, targets, mask, spec)[0]) == pytest.approx(float(total), abs=1e-4)


def test_losses_that_fit_the_responses():
    """Counts take the Poisson losses, z-scored responses squared errors of the same scale."""
    rates, targets = torch.rand(7, 3) + 0.1, torch.rand(7, 3)
    mask = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[2] = False
    counts = DataSpec("data", n_out=3, mean_rates=(0.5, 2.0, 1.0))
    error = float((rates - targets)[mask].square().sum())
    total, count = losses.gaussian({"rates": rates}, targets, mask, counts)
    assert float(total) == pytest.approx(error) and count == mask.any(1).sum() < mask.sum()
    for spec, plain, normalised in (
        (counts, losses.poisson, losses.poisson_normalised),
        (replace(counts, nonnegative=False), losses.mse, losses.gaussian),
    ):
        for automatic, wanted in ((losses.auto, plain), (losses.auto_normalised, normalised)):
            assert automatic({"rates": rates}, targets, mask, spec) == wanted({"rates": rates}, targets, mask, spec)


@pytest.mark.parametrize("poison", POISONS)
def test_targets_that_were_not_observed_do_not_train(poison):
    """Through the whole training step: NaN targets, as in the data, against other values beneath the same mask."""
    data = tiny({})
    batch = next(iter(data.train_dataloader()))
    assert not batch["mask"].all() and batch["targets"].isnan().any()
    gradients = []
    for value in (0.0, poison):
        model = gru(data)
        torch.manual_seed(1)
        model.training_step({**batch, "targets": torch.where(batch["mask"], batch["targets"], value)}, 0).backward()
        gradients.append([weight.grad for weight in model.net.parameters()])
    assert same(*gradients) and all(gradient.isfinite().all() for gradient in gradients[0])


# ---- what coordinated dropout hides


def test_what_is_scored_was_hidden():
    """No held-in spike reaches the prediction that is scored against it, through the whole training step."""
    data = tiny({})
    batch = next(iter(data.train_dataloader()))
    model = gru(data, "model.readin.dropout=0")
    seen = {}

    def spy(net, inputs):
        seen["shown"] = inputs[0]

    def watch(net, inputs, output):
        output["log_rates"].retain_grad()
        seen["log_rates"] = output["log_rates"]

    model.net.register_forward_pre_hook(spy)
    model.net.register_forward_hook(watch)
    counts = batch["inputs"].clone().requires_grad_()
    model.training_step({**batch, "inputs": counts}, 0).backward()
    scored = seen["log_rates"].grad[:, :BINS, :N_IN] != 0
    assert scored.sum() == round(0.27 * counts.numel()), "the share that the config says"
    assert (seen["shown"][scored] == 0).all(), "scored elements are shown as zeros"
    assert (counts.grad[scored] == 0).all(), "and no way leads from them to the loss"
    assert (counts.grad[~scored] != 0).any(), "while the others are the model's input"
    others = seen["log_rates"].grad[:, :BINS, N_IN:] != 0
    assert (others == batch["mask"][:, :BINS, N_IN:]).all(), "held-out targets are all scored"


# ---- time


@pytest.mark.parametrize("poison", [math.nan, 1e4])
def test_a_causal_gru_does_not_see_the_future(poison):
    torch.manual_seed(0)
    inputs = torch.poisson(torch.ones(3, 10, 4))
    poisoned = inputs.clone()
    poisoned[:, 6:] = poison
    for bidirectional in (False, True):
        net = GRUNet(spec_of(4, 6, n_forward=2), hidden=5, bidirectional=bidirectional, **GRU_SETTINGS).eval()
        past, other = (net(x)["log_rates"][:, :6] for x in (inputs, poisoned))
        assert same(past, other) is not bidirectional
