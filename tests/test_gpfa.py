"""GPFA against the brute-force Gaussian, against what was planted, and on the road."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from runs import TESTS, TINY, checkpoint, here, record, same
from torch.distributions import MultivariateNormal

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional import gpfa
from neuro_lightning.functional.gpfa import GPFA, extrapolate, kernel, posterior
from neuro_lightning.functional.poisson_regression import poisson_regression
from neuro_lightning.models import gpfa as models
from neuro_lightning.models.gpfa import GPFANet

RUN = [word for word in TINY if not word.startswith("model")] + ["model=gpfa", "model.iterations=5"]
TRACES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[tiny_traces]", "data=tiny_traces", "trainer=cpu",
    "logger=csv", "callbacks=minimal", "baselines=null", "++trainer.enable_progress_bar=false", "model=gpfa",
]  # fmt: skip


def small(n_latents=2, n_neurons=4, seed=0) -> GPFA:
    rng = np.random.default_rng(seed)
    return GPFA(
        torch.from_numpy(rng.normal(size=(n_neurons, n_latents))),
        torch.from_numpy(rng.normal(size=n_neurons)),
        torch.from_numpy(rng.uniform(0.2, 1, n_neurons)),
        torch.tensor([3.0, 1.5, 6.0, 2.0][:n_latents]).double(),
    )


def joint(model: GPFA, steps: int, total: int):
    """Covariances of all latents over ``total`` steps with activity in ``steps``, and of the activity; flat."""
    dim, neurons = model.loadings.shape[1], len(model.mean)
    prior = torch.zeros(total, dim, total, dim).double()
    for i in range(dim):
        prior[:, i, :, i] = kernel(model.timescales[i], total, total)
    cross = torch.einsum("tisj,nj->tisn", prior[:, :, :steps], model.loadings)
    activity = torch.einsum("ni,tism->tnsm", model.loadings, cross[:steps])
    activity = activity.reshape(steps * neurons, -1) + torch.diag(model.private.repeat(steps))
    return prior.reshape(total * dim, -1), cross.reshape(total * dim, -1), activity


def planted(model: GPFA, trials=40, steps=25, seed=0):
    """Activity (B, T, N) drawn from the model, and the latents behind it."""
    rng = np.random.default_rng(seed)
    chol = torch.linalg.cholesky(kernel(model.timescales, steps, steps))
    latents = torch.einsum("its,bis->bti", chol, torch.from_numpy(rng.normal(size=(trials, len(chol), steps))))
    noise = torch.from_numpy(rng.normal(size=(trials, steps, len(model.mean)))) * model.private.sqrt()
    return latents @ model.loadings.T + model.mean + noise, latents


# ---- the posterior


@pytest.mark.parametrize("n_latents", [1, 2, 4])
def test_the_posterior_is_the_gaussian_conditional(n_latents):
    """Means, covariances and likelihood; with more latents than neurons too."""
    model = small(n_latents, n_neurons=3)
    y, _ = planted(model, trials=3, steps=6)
    prior, cross, activity = joint(model, 6, 6)
    gain = torch.linalg.solve(activity, cross.T).T
    mean = ((y - model.mean).flatten(1) @ gain.T).view(3, 6, n_latents)
    cov = (prior - gain @ cross.T).view(6, n_latents, 6, n_latents)
    found = posterior(y, model)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.over_time, cov.diagonal(dim1=1, dim2=3).permute(2, 0, 1))
    torch.testing.assert_close(found.across, cov.diagonal(dim1=0, dim2=2).permute(2, 0, 1))
    expected = MultivariateNormal(model.mean.repeat(6), activity).log_prob(y.flatten(1)).sum()
    torch.testing.assert_close(found.log_likelihood, expected)
    torch.testing.assert_close(extrapolate(y, model), mean)


def test_steps_ahead_are_the_gaussian_conditional():
    model = small()
    y, _ = planted(model, trials=3, steps=6)
    _, cross, activity = joint(model, 6, 10)
    mean = ((y - model.mean).flatten(1) @ torch.linalg.solve(activity, cross.T)).view(3, 10, 2)
    torch.testing.assert_close(extrapolate(y, model, ahead=4), mean)
    assert float(extrapolate(y, model, ahead=200)[:, -1].abs().max()) < 1e-9, "far ahead nothing is known"


@pytest.mark.parametrize("n_latents", [1, 2, 4])
def test_looking_back_is_the_posterior_of_the_steps_so_far(n_latents):
    """And with the other weights, what they say of the next step; with more latents than neurons too."""
    model = small(n_latents, n_neurons=3)
    y, _ = planted(model, trials=3, steps=6)
    given_all, given_past = gpfa.looking_back(model, 6)
    pull, past = gpfa.evidence(y, model), torch.zeros(3, 6, n_latents).double()
    for t in range(6):
        before = torch.einsum("isj,bsj->bi", given_past[t], past)
        past = torch.cat([past[:, 1:], pull[:, t : t + 1]], 1)
        now = torch.einsum("isj,bsj->bi", given_all[t], past)
        torch.testing.assert_close(now, posterior(y[:, : t + 1], model).mean[:, -1])
        torch.testing.assert_close(before, extrapolate(y[:, :t], model, 1)[:, -1] if t else torch.zeros_like(now))
        assert (given_all[t, :, : 5 - t] == 0).all() and (given_past[t, :, : 6 - t] == 0).all()


# ---- the fit


def test_the_likelihood_never_falls_and_what_was_planted_is_found():
    truth = small(n_latents=2, n_neurons=12)._replace(timescales=torch.tensor([2.0, 7.0]).double())
    y, latents = planted(truth)
    model, history = gpfa.fit(y, 2, timescale=4.0, iterations=150, tolerance=1e-8)
    assert len(history) > 5 and all(b >= a - 1e-7 * abs(a) for a, b in pairwise(history))
    assert history[-1] > float(posterior(y, truth).log_likelihood) > history[0]
    np.testing.assert_allclose(sorted(model.timescales), [2.0, 7.0], rtol=0.25)
    np.testing.assert_allclose(model.private, truth.private, rtol=0.2)
    fresh, latents = planted(truth, seed=1)
    errors = [
        (extrapolate(fresh, m) @ m.loadings.T + m.mean - latents @ truth.loadings.T - truth.mean).square().mean()
        for m in (model, truth)
    ]
    assert float(errors[0]) < 1.2 * float(errors[1])


@pytest.mark.parametrize("trials", [1, 6])
def test_a_silent_neuron_one_trial_and_too_many_latents_are_survived(trials):
    y, _ = planted(small(n_neurons=5), trials=trials, steps=8)
    y = torch.cat([y, torch.zeros(trials, 8, 1).double()], 2)
    model, history = gpfa.fit(y, 50, timescale=3.0, iterations=20)
    assert model.loadings.shape == (6, 6) and all(part.isfinite().all() for part in model)
    assert all(b >= a - 1e-7 * abs(a) for a, b in pairwise(history))
    assert float((extrapolate(y, model) @ model.loadings.T + model.mean)[..., -1].abs().max()) < 1e-6


# ---- the readout


def test_counts_of_several_bins_are_regressed_by_their_exposure():
    """What was not observed counts for nothing, and rates are those of a bin."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(3000, 2)))
    exposure = torch.from_numpy(rng.integers(0, 5, (3000, 2))).double()
    weight, bias = torch.tensor([[0.4, -0.3], [0.2, 0.5]]).double(), torch.tensor([-1.0, -2.0]).double()
    counts = torch.from_numpy(rng.poisson(exposure * (x @ weight + bias).exp())).double()
    found = poisson_regression(x, counts, 1e-6, exposure=exposure)
    torch.testing.assert_close(found[0], weight, atol=0.06, rtol=0)
    torch.testing.assert_close(found[1], bias, atol=0.06, rtol=0)
    whole = poisson_regression(x, counts, 1e-3, exposure=torch.full_like(exposure, 4.0))
    plain = poisson_regression(x, counts, 1e-3)
    torch.testing.assert_close(whole[0], plain[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[1], plain[1] - math.log(4), atol=1e-4, rtol=0)


# ---- as a model


def spec(**changes) -> DataSpec:
    values = {"n_in": 6, "n_out": 4, "n_bins": 12, "n_forward": 3, "bin_ms": 10, **changes}
    return DataSpec("data", **values)


def net(stride=2, n_forward=3, **causal):
    torch.manual_seed(0)
    net = GPFANet(spec(n_forward=n_forward), 2, stride, timescale=3.0, iterations=5, **causal)
    net.learn(net.in_steps(torch.poisson(torch.rand(20, 12, 6))))
    for name in ("weight", "bias", "forward_weight", "forward_bias"):
        getattr(net, name).normal_()
    return net


@pytest.mark.parametrize(("stride", "bins", "forward"), [(1, 12, 3), (2, 12, 3), (5, 12, 7), (5, 12, 0), (12, 12, 1)])
def test_steps_end_with_the_last_bin(stride, bins, forward):
    model, inputs = net(stride, forward), torch.poisson(torch.ones(4, bins, 6))
    output = model(inputs)
    assert output["log_rates"].shape == (4, bins + forward, 10) and output["latents"].shape == (4, bins + forward, 2)
    assert output["log_rates"].isfinite().all() and output["log_rates"].dtype == torch.float32
    lead = bins % stride
    changed = inputs.clone()
    changed[:, :lead] += 1
    assert same(model(changed)["log_rates"], output["log_rates"]), "bins before the first whole step are not shown"
    changed[:, lead] += 1
    assert not same(model(changed)["log_rates"], output["log_rates"])


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_causal_network_infers_from_the_counts_so_far(stride):
    """Each step by the posterior of the steps up to it; in a trial longer than those of the training, of the last."""
    model, inputs = net(stride, causal=True), torch.poisson(torch.ones(4, 17, 6))
    latents, steps = model(inputs)["latents"].double(), model.in_steps(inputs)
    assert (latents[:, : stride - 1] == 0).all()
    for t in range(17 // stride):
        seen = steps[:, max(0, t + 1 - 12 // stride) : t + 1]
        expected = posterior(model.activity(seen), model.model).mean[:, -1]
        torch.testing.assert_close(latents[:, (t + 1) * stride - 1], expected, atol=1e-6, rtol=1e-6)
    ahead = extrapolate(model.activity(steps[:, -(12 // stride) :]), model.model, 1)[:, -1]
    if stride == 1:
        torch.testing.assert_close(latents[:, 17], ahead, atol=1e-6, rtol=1e-6)


def test_what_was_not_recorded_is_expected_from_the_past():
    model, inputs = net(1, causal=True), torch.poisson(torch.ones(4, 3, 6))
    state = model.initial_state(4)
    for t in range(3):
        _, state = model.step(inputs[:, t], state)
    gone = torch.zeros(4, 6, dtype=torch.bool)
    output, after = model.step(torch.full((4, 6), torch.nan), state, gone)
    expected = extrapolate(model.activity(inputs.double()), model.model, 1)[:, -1]
    torch.testing.assert_close(output["latents"].double(), expected, atol=1e-6, rtol=1e-6)
    assert after["past"].isfinite().all()


def test_weights_follow_the_parameters():
    """Also those that a checkpoint brings, with another number of latents."""
    one, inputs = net(causal=True), torch.poisson(torch.ones(4, 12, 6))
    other = GPFANet(spec(), 5, 2, causal=True, timescale=3.0, iterations=5)
    other(inputs)
    other.load_state_dict(one.state_dict())
    assert same(other(inputs), one(inputs))
    one.learn(one.in_steps(torch.poisson(torch.rand(20, 12, 6))))
    assert not same(other(inputs), one(inputs))
    assert "given_all" not in one.state_dict()


def test_a_trial_does_not_depend_on_its_batch():
    model, inputs = net(), torch.poisson(torch.ones(9, 12, 6))
    whole = model(inputs)["log_rates"]
    for part in (inputs[4:5], inputs[[4, 2, 7]]):
        torch.testing.assert_close(model(part)["log_rates"][0], whole[4], atol=1e-6, rtol=1e-6)


def test_the_number_of_latents_is_chosen_and_saved(tmp_path):
    run = here(tmp_path, "model.n_latents=[1,2,4]", base=RUN)
    state = checkpoint(run.folder, "best.ckpt")["state_dict"]
    assert state["net.weight"].shape[0] in (1, 2, 4)
    assert record(run.folder)["parameters"] == sum(
        value.numel() for name, value in state.items() if name.startswith("net.") and value.is_floating_point()
    )
    assert record(run.folder)["metrics"]["test/co_bps"] > 0.02, "the checkpoint was read again, and says something"


def test_a_checkpoint_restores_the_chosen_number_of_latents():
    small, other = net(), GPFANet(spec(), 5, 2, timescale=3.0, iterations=5)
    other.load_state_dict(small.state_dict())
    inputs = torch.poisson(torch.ones(4, 12, 6))
    assert same(other(inputs), small(inputs))


def test_validation_and_test_targets_change_nothing(tmp_path):
    poison = ",".join(f"{split}.{part}:3.0" for split in ("val", "test") for part in ("heldout", "heldin_forward"))
    folders = [here(tmp_path / "clean", base=RUN).folder]
    folders += [here(tmp_path / "poisoned", f"++data.poison={{{poison}}}", base=RUN).folder]
    one, other = (checkpoint(folder, "best.ckpt")["state_dict"] for folder in folders)
    assert same(one, other)
    one, other = (record(folder)["metrics"]["val/co_bps"] for folder in folders)
    assert one != other, "the poison is there"


def test_what_was_not_observed_does_not_train():
    from tiny import Tiny

    nets = []
    for value in (math.nan, 1e30, -1e30):
        data = Tiny(n_train=37, n_val=11, poison={}, batch_size=10, eval_batch_size=4)
        data.prepare_data()
        data.setup(None)
        batch = data.dataset("train", evaluate=False)[list(range(37))]
        batch["targets"] = torch.where(batch["mask"], batch["targets"], value)
        nets.append(net())
        nets[-1].regress(batch, nets[-1].choose(batch, [0.01, 0.1])[1])
    assert not batch["mask"].all() and same(*(dict(n.state_dict()) for n in nets[:2]))
    assert same(*(dict(n.state_dict()) for n in nets[1:]))


def test_unsupported_settings_are_refused():
    options = {"timescale_ms": 100, "iterations": 3, "alpha": 0.1}
    with pytest.raises(ConfigError, match="n_latents=0"):
        models.GPFA(spec(), n_latents=0, step_ms=20, **options)
    with pytest.raises(ConfigError, match="a trial has 12 bins of 10 ms only"):
        models.GPFA(spec(), n_latents=2, step_ms=200, **options)
    with pytest.raises(ConfigError, match="true: GPFA looks back only in spikes"):
        models.GPFA(spec(kind="traces", n_forward=0), n_latents=2, step_ms=None, causal=True, **options)
    assert "2 forward bins" in models.GPFA.refuse(spec(kind="traces", n_forward=2))
    assert models.GPFA.refuse(spec()) is None


def test_traces_are_denoised_and_held_out_ones_predicted(tmp_path):
    here(tmp_path, "model.n_latents=[1,2,4]", "model.iterations=20", base=TRACES)
    metrics = record(tmp_path)["metrics"]
    assert metrics["test/rates_r2"] > 0.9 and metrics["test/co_r2"] > 0.85
    assert checkpoint(tmp_path, "best.ckpt")["state_dict"]["net.weight"].shape[0] in (2, 4)
