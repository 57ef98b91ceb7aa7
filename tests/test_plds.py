"""The Poisson linear dynamical system: its fit, what was planted, and the road."""

import math

import numpy as np
import pytest
import torch
from runs import TINY, checkpoint, here, record, same
from tiny import Tiny

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional import plds
from neuro_lightning.functional.kalman import Posterior, laplace_smoother, predict_ahead
from neuro_lightning.models import plds as models
from neuro_lightning.models.plds import PLDSNet

RUN = [word for word in TINY if not word.startswith("model")] + ["model=plds", "model.iterations=4"]


def planted(trials=60, steps=20, neurons=25, seed=0):
    """Counts (B, T, N) of neurons behind a rotation in the plane, and their log-rates."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(9)
    angle = 0.3
    turn = 0.97 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x = [rng.normal(size=(trials, 2))]
    for _ in range(steps - 1):
        x.append(x[-1] @ turn.T + 0.2 * rng.normal(size=(trials, 2)))
    log_rates = np.stack(x, 1) @ (0.7 * fixed.normal(size=(2, neurons))) - 0.7
    return torch.from_numpy(rng.poisson(np.exp(log_rates))).double(), torch.from_numpy(log_rates)


@pytest.fixture(scope="module")
def fitted():
    return plds.fit(planted()[0], 2, timescale=3.0, iterations=12)


def test_what_was_planted_is_found(fitted):
    model, history = fitted
    turns = torch.linalg.eigvals(model.dynamics.transition)
    np.testing.assert_allclose(turns.abs(), 0.97, atol=0.03)
    np.testing.assert_allclose(turns.angle().abs(), 0.3, atol=0.03)
    assert history[-1] > history[0] and abs(history[-1] - history[-2]) < 1e-3 * abs(history[-1])
    counts, log_rates = planted(seed=1)
    x = laplace_smoother(counts, *model).mean
    error = (x @ model.loadings.T + model.bias - log_rates).square().mean()
    assert float(error) < 0.15 * float(log_rates.var())


def test_forward_bins_follow_the_dynamics(fitted):
    """Ahead of what was observed the fit knows more than the last step or the mean rate."""
    model = fitted[0]
    counts, log_rates = planted(seed=1)
    x = predict_ahead(laplace_smoother(counts[:, :14], *model).mean, model.dynamics.transition, 6)[:, 14:]
    ahead = (x @ model.loadings.T + model.bias - log_rates[:, 14:]).square().mean()
    held = (x[:, :1] @ model.loadings.T + model.bias - log_rates[:, 14:]).square().mean()
    mean = (log_rates[:, 14:] - log_rates.mean((0, 1))).square().mean()
    assert float(ahead) < 0.6 * float(mean) and float(ahead) < 0.6 * float(held)


def test_the_expected_likelihood_and_its_ascent():
    """Against samples of the posterior; and no step of the readout's fit lowers it."""
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.poisson(1.5, (3, 4, 5))).double()
    root = torch.from_numpy(0.3 * rng.normal(size=(3, 4, 2, 2)))
    chain = Posterior(torch.from_numpy(rng.normal(size=(3, 4, 2))), root @ root.mT, root[:, 1:], torch.zeros(3))
    loadings, bias = torch.from_numpy(rng.normal(size=(5, 2))), torch.from_numpy(rng.normal(size=5))
    draws = torch.from_numpy(rng.normal(size=(200_000, 1, 1, 2, 1)))
    x = chain.mean + (root @ draws)[..., 0]
    eta = x @ loadings.T + bias
    sampled = (counts * eta - eta.exp()).sum((1, 2)).mean(0) - 0.5 * plds.RIDGE * loadings.square().sum(1)
    rows = [part.flatten(0, 1) for part in (counts, chain.mean, chain.cov)]
    value, _ = plds.expected_log_likelihood(*rows, loadings, bias)
    torch.testing.assert_close(value, sampled, rtol=0.02, atol=0.2)
    for _ in range(30):
        loadings, bias = plds.fit_readout(counts, chain, loadings, bias, iterations=1)
        before, (value, _) = value, plds.expected_log_likelihood(*rows, loadings, bias)
        assert (value >= before - 1e-9).all()
    loadings, bias = loadings.requires_grad_(), bias.requires_grad_()
    plds.expected_log_likelihood(*rows, loadings, bias)[0].sum().backward()
    assert float(loadings.grad.abs().max()) < 1e-4 and float(bias.grad.abs().max()) < 1e-4


@pytest.mark.parametrize("trials", [1, 5])
def test_a_silent_neuron_one_trial_and_too_many_latents_are_survived(trials):
    counts, _ = planted(trials=trials, steps=8, neurons=4)
    counts[..., 1] = 0
    model, history = plds.fit(counts, 50, timescale=3.0, iterations=8)
    assert model.loadings.shape == (4, 4) and np.isfinite(history).all()
    assert all(part.isfinite().all() for part in (model.loadings, model.bias, *model.dynamics))
    rates = (laplace_smoother(counts, *model).mean @ model.loadings.T + model.bias).exp()
    assert float(rates[..., 1].max()) < 0.1 < float(rates.max())


# ---- as a model


def net(n_latents=2, stride=2):
    torch.manual_seed(0)
    spec = DataSpec("data", n_in=6, n_out=4, n_forward=3)
    net = PLDSNet(spec, n_latents, stride, timescale=3.0, iterations=2)
    net.learn(net.in_steps(torch.poisson(torch.rand(20, 12, 6))))
    net.regress(training(math.nan), 0.1)
    return net


def training(value):
    """The tiny recording's training trials, with a value over what was not observed."""
    data = Tiny(n_train=37, n_val=11, poison={}, batch_size=10, eval_batch_size=4)
    data.prepare_data()
    data.setup(None)
    batch = data.dataset("train", evaluate=False)[list(range(37))]
    assert not batch["mask"].all()
    return {**batch, "targets": torch.where(batch["mask"], batch["targets"], value)}


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_every_bin_gets_a_rate(stride):
    output = net(stride=stride)(torch.poisson(torch.ones(4, 12, 6)))
    assert output["log_rates"].shape == (4, 15, 10) and output["latents"].shape == (4, 15, 2)
    assert output["log_rates"].isfinite().all() and output["log_rates"].dtype == torch.float32


def test_a_trial_does_not_depend_on_its_batch():
    model, inputs = net(), torch.poisson(torch.ones(9, 12, 6))
    whole = model(inputs)["log_rates"]
    for part in (inputs[4:5], inputs[[4, 2, 7]]):
        torch.testing.assert_close(model(part)["log_rates"][0], whole[4], atol=1e-5, rtol=1e-5)


def test_what_was_not_observed_does_not_train():
    states = []
    for value in (math.nan, 1e30):
        model = net()
        model.regress(training(value), model.choose(training(value), [0.01, 0.1])[1])
        states.append(dict(model.state_dict()))
    assert same(*states)


def test_validation_and_test_targets_change_nothing(tmp_path):
    poison = ",".join(f"{split}.{part}:3.0" for split in ("val", "test") for part in ("heldout", "heldin_forward"))
    folders = [here(tmp_path / "clean", base=RUN).folder]
    folders += [here(tmp_path / "poisoned", f"++data.poison={{{poison}}}", base=RUN).folder]
    assert same(*(checkpoint(folder, "best.ckpt")["state_dict"] for folder in folders))
    one, other = (record(folder)["metrics"]["val/co_bps"] for folder in folders)
    assert one != other, "the poison is there"
    assert record(folders[0])["metrics"]["test/co_bps"] > 0.02


def test_unsupported_settings_are_refused():
    assert models.PLDS.kinds == ("spikes",)
    options = {"timescale_ms": 100, "iterations": 3, "alpha": 0.1}
    spec = DataSpec("data", n_in=6, n_out=4, n_bins=12, n_forward=3, bin_ms=10)
    with pytest.raises(ConfigError, match="there must be at least one"):
        models.PLDS(spec, n_latents=[-1, 2], step_ms=20, **options)
    with pytest.raises(ConfigError, match="not a multiple of the bin width"):
        models.PLDS(spec, n_latents=2, step_ms=25, **options)


# ---- latents that look back only


def causal(stride=2, forward=3):
    """A network with the planted neurons' first part held in, fitted to causal latents; and counts of new trials."""
    counts = planted(trials=80)[0].float()
    spec = DataSpec("planted", n_in=18, n_out=7, n_bins=20 - forward, n_forward=forward, bin_ms=1)
    model = models.PLDS(
        spec, n_latents=2, step_ms=stride, timescale_ms=4, iterations=6, alpha=[1e-4, 1e-2], causal=True
    )
    mask = torch.ones_like(counts, dtype=torch.bool)
    batch = {"inputs": counts[:, : 20 - forward, :18], "targets": counts, "mask": mask}
    model.fit_net(Whole(batch))
    return model.net, planted(seed=1)


class Whole:
    """Training trials, all of which are one batch."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["inputs"])

    def __getitem__(self, index):
        return self.batch


@pytest.mark.parametrize("stride", [1, 2])
def test_causal_latents_predict_neurons_and_bins_that_they_were_not_shown(stride):
    net, (counts, log_rates) = causal(stride)
    found = net(counts[:, :17, :18].float())["log_rates"].double()
    assert found.shape == log_rates.shape
    for bins, share in ((slice(2, 17), 0.5), (slice(17, 20), 0.8)):
        error = (found - log_rates)[:, bins, 18:].square().mean()
        assert float(error) < share * float((log_rates - log_rates.mean((0, 1)))[:, bins, 18:].square().mean())


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_causal_latents_do_not_see_the_future(stride):
    net, (counts, _) = causal(stride)
    inputs = counts[:, :17, :18].float()
    poisoned = inputs.clone()
    poisoned[:, 9:] = math.nan
    for name, values in net(inputs).items():
        assert same(values[:, :9], net(poisoned)[name][:, :9])
