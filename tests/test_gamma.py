"""Likelihoods of positive traces: closed forms, what is masked, what is refused."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from torch.distributions import Gamma, Normal

from neuro_lightning import losses
from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.likelihood import gamma_nll, normal_nll, zero_inflated_gamma_nll
from neuro_lightning.settings.config import instantiate

SPEC = DataSpec("data", kind="traces", n_in=3)
SEVERAL = {
    losses.gamma: ("log_rates", "log_shape"),
    losses.zero_inflated_gamma: ("log_rates", "log_shape", "gate_logit"),
    losses.gaussian_variance: ("rates", "log_variance"),
}


def test_gamma_is_the_distribution_of_its_mean_and_shape():
    torch.manual_seed(0)
    log_mean, log_shape = torch.randn(2, 50, dtype=torch.float64)
    oracle = Gamma(log_shape.exp(), log_shape.exp() / log_mean.exp())
    torch.testing.assert_close(oracle.mean, log_mean.exp())
    values = oracle.sample()
    torch.testing.assert_close(gamma_nll(values, log_mean, log_shape), -oracle.log_prob(values))


def test_a_value_is_zero_or_gamma():
    values = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    log_mean, log_shape, gate = (torch.tensor(x, dtype=torch.float64) for x in (0.3, -0.2, 0.25))
    logit = (gate / (1 - gate)).log()
    found = zero_inflated_gamma_nll(values, log_mean, log_shape, logit)
    above = Gamma(log_shape.exp(), log_shape.exp() * gate / log_mean.exp())
    torch.testing.assert_close(found[0], -(1 - gate).log())
    torch.testing.assert_close(found[1:], -gate.log() - above.log_prob(values[1:]))


def test_probabilities_sum_to_one_and_the_expected_value_is_the_one_given():
    log_mean, log_shape, logit = (torch.tensor(x, dtype=torch.float64) for x in (0.4, 1.0, -0.7))
    width = 1e-3
    values = (torch.arange(40_000, dtype=torch.float64) + 0.5) * width
    density = (-zero_inflated_gamma_nll(values, log_mean, log_shape, logit)).exp()
    zero = (-zero_inflated_gamma_nll(torch.zeros(1).double(), log_mean, log_shape, logit)).exp()
    assert float(density.sum() * width + zero) == pytest.approx(1, abs=1e-4)
    assert float((density * values).sum() * width) == pytest.approx(math.exp(0.4), rel=1e-4)


def test_gaussian_of_a_variance():
    torch.manual_seed(0)
    values, mean, log_variance = torch.randn(3, 20)
    expected = -Normal(mean, (log_variance / 2).exp()).log_prob(values)
    torch.testing.assert_close(normal_nll(values, mean, log_variance), expected)


@pytest.mark.parametrize("loss", SEVERAL)
@pytest.mark.parametrize("poison", [math.nan, 1e30, -1e30])
def test_what_is_masked_never_reaches_loss_or_gradient(loss, poison):
    torch.manual_seed(0)
    mask = torch.rand(4, 5, 3) < 0.7
    targets = torch.rand(4, 5, 3).clamp_min(0.3) - 0.3  # with zeros
    results = []
    for hidden in (0.0, poison):
        output = {name: torch.linspace(-1, 1, 60).view(4, 5, 3).requires_grad_() for name in SEVERAL[loss]}
        beneath = {name: torch.where(mask, values, hidden) for name, values in output.items()}
        total, count = loss(beneath, torch.where(mask, targets, hidden), mask, SPEC)
        total.backward()
        results.append([total.detach(), *(values.grad for values in output.values())])
        assert count == mask.sum() and total.isfinite()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other) and one.isfinite().all()
    assert all((gradient[~mask] == 0).all() for gradient in results[1][1:])
    assert all((gradient[mask] != 0).any() for gradient in results[1][1:])


@pytest.mark.parametrize("loss", SEVERAL)
def test_a_network_is_told_what_the_loss_needs(loss):
    names = SEVERAL[loss]
    for asked in (loss, partial(loss)):
        assert losses.readout_names(asked, SPEC) == names
    values = torch.ones(1, 2, 3)
    with pytest.raises(ConfigError, match=f"loss={loss.__name__} needs {names[1]} of the network"):
        loss({names[0]: values}, values, values > 0, SPEC)


def test_other_losses_need_the_expected_value_alone():
    counts, signed = DataSpec("d"), DataSpec("d", kind="traces", nonnegative=False)
    for loss in (None, losses.mse, losses.gaussian):
        assert losses.readout_names(loss, counts) == ("log_rates",) and losses.readout_names(loss, SPEC) == ("rates",)
    for loss in (losses.poisson, partial(losses.poisson_normalised), losses.auto):
        assert losses.readout_names(loss, counts) == losses.readout_names(loss, SPEC) == ("log_rates",)
    assert losses.readout_names(losses.auto, signed) == ("rates",)
    with pytest.raises(ConfigError, match="loss=poisson is for traces without negative values, and those of d are z-"):
        losses.readout_names(losses.poisson, signed)


SEQUENCES = ["gru", "gru_smoothed", "lfads", "lstm_autoencoder", "ndt", "neural_roberta", "stndt"]


def test_every_trained_model_of_sequences_is_in_the_list():
    configs = {path.stem: path.read_text() for path in (Path(__file__).parents[1] / "conf/model").glob("[!_]*.yaml")}
    trained = {name for name, text in configs.items() if "/optimizer@optimizer" in text}
    assert trained - {"cnn", "core_readout", "hsm"} == set(SEQUENCES)
    assert all("/loss@loss: null" in configs[name] for name in SEQUENCES)


@pytest.mark.parametrize("model", SEQUENCES)
@pytest.mark.parametrize("kind", ["spikes", "traces"])
def test_the_loss_that_is_chosen_is_the_one_that_is_used(model, kind):
    torch.manual_seed(0)
    spec = DataSpec("d", kind=kind, n_in=3, n_out=1, n_bins=8, bin_ms=20, mean_rates=(0.5,) * 4)
    targets, mask = torch.rand(2, 8, 4).clamp_min(0.1), torch.rand(2, 8, 4) < 0.8
    chosen = [None, "mse", "poisson", "gaussian_variance"]
    chosen += ["gamma", "zero_inflated_gamma"] if kind == "traces" else []
    with initialize_config_module("conf", version_base=None):
        for name in chosen:
            words = [f"model={model}", "logger=none", *([f"loss@model.loss={name}"] if name else [])]
            module = instantiate(compose("train", words).model, spec=spec)
            used = getattr(losses, name) if name else losses.default_loss(spec)
            output = module(targets[..., :3])
            assert output[losses.readout_names(used, spec)[0]].shape == targets.shape
            total, _ = module.loss(output, targets, mask, spec)
            assert total.isfinite() and torch.equal(total, used(output, targets, mask, spec)[0])
            total.backward()
            assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("loss", [losses.gamma, partial(losses.zero_inflated_gamma)])
def test_only_positive_traces_have_a_gamma_likelihood(loss):
    losses.check_loss(loss, SPEC)
    assert losses.needs_positive(loss, SPEC)
    for spec, what in ((DataSpec("d"), "spikes"), (DataSpec("d", kind="traces", nonnegative=False), "negative")):
        with pytest.raises(ConfigError, match=what) as refused:
            losses.check_loss(loss, spec)
        assert "\n" not in str(refused.value)
    losses.check_loss(losses.poisson, DataSpec("d"))
    losses.check_loss(None, DataSpec("d"))
