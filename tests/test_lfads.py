"""LFADS: its parts, its posterior average, its ramps, and runs of it."""

import math
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from networks import parts, spec_of
from runs import ROOT, TINY, here, rows
from test_poison import HIDDEN, tiny
from torch import nn

from neuro_lightning.analysis.latents_file import read_latents
from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import gamma, zero_inflated_gamma
from neuro_lightning.models.lfads import LFADS, LFADSNet, Sizes, ramp, scored_fraction, standard_draws
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.generator import Encoder, Generator, lag
from neuro_lightning.nn.masking import CoordinatedDropout
from neuro_lightning.nn.recurrent import gru_step, init_gru
from neuro_lightning.runs.predict import predict

CONTROLLED = Sizes(encoder=5, initial=4, generator=7, factors=3, input_encoder=6, controller=5, inputs=2)
AUTONOMOUS = Sizes(encoder=5, initial=4, generator=7, factors=3)
SMALL = [f"model.sizes.{name}=4" for name in vars(CONTROLLED) if name != "inputs"]
QUICK = ["trainer.max_epochs=6", "model.optimizer.lr=0.05", "model.masking=null", "model.dropout=0"]
WEIGHTS = {"kl_ic": 0.1, "kl_co": 0.2, "l2_gen": 0.3, "l2_con": 0.4}


def net(sizes=CONTROLLED, **options) -> LFADSNet:
    torch.manual_seed(0)
    stride, settings = options.pop("stride", 1), {"posterior_samples": 4, "dropout": 0.3, **options}
    settings |= parts(settings["dropout"])
    return LFADSNet(spec_of(6, mean_rates=[0.4] * 8), sizes=sizes, step_ms=stride, **settings).eval()


def counts(trials: int = 5, bins: int = 10) -> torch.Tensor:
    return torch.poisson(torch.ones(trials, bins, 6), generator=torch.Generator().manual_seed(1))


def module(spec: DataSpec, **options) -> LFADS:
    torch.manual_seed(0)
    fixed = {
        "sizes": CONTROLLED,
        "step_ms": None,
        "dropout": 0.0,
        "posterior_samples": 4,
        "ramp_start": 2,
        "ramp_epochs": 3,
    }
    return LFADS(spec, **{**fixed, **WEIGHTS, **options})


# ---- the parts


def test_the_step_is_that_of_a_gru():
    torch.manual_seed(0)
    cell = nn.GRUCell(3, 5)
    init_gru(cell)
    inputs, state = torch.randn(4, 3), torch.randn(4, 5)
    drive = inputs @ cell.weight_ih.t() + cell.bias_ih
    torch.testing.assert_close(gru_step(cell, drive, state), cell(inputs, state))
    torch.testing.assert_close(gru_step(cell, cell.bias_ih, state), cell(torch.zeros(4, 3), state))


def test_an_autonomous_generator_is_a_gru_without_input():
    torch.manual_seed(0)
    generator = Generator(7, 3, controller=0, encoded=0, inputs=0, dropout=0.5).eval()
    oracle = nn.GRU(1, 7, batch_first=True)
    with torch.no_grad():
        oracle.weight_hh_l0.copy_(generator.cell.weight_hh)
        oracle.bias_ih_l0.copy_(generator.cell.bias_ih)
        oracle.bias_hh_l0.copy_(generator.cell.bias_hh)
        start = 6 * torch.randn(4, 7)
        states, _ = oracle(torch.zeros(4, 9, 1), start.clamp(-5, 5)[None])
        weight = generator.factor_weight / generator.factor_weight.norm(dim=1, keepdim=True)
    course = generator(start, None, torch.zeros(4, 9, 0))
    torch.testing.assert_close(course.factors, states @ weight.t())
    assert course.inputs is None


def test_the_controller_reads_the_factors_of_the_step_before():
    """Step by step with torch's own cells."""
    torch.manual_seed(0)
    generator = Generator(7, 3, controller=5, encoded=4, inputs=2, dropout=0.5).eval()
    state, encoded, noise = torch.randn(4, 7), torch.randn(4, 6, 4), torch.randn(4, 6, 2)
    course = generator(state, encoded, noise)
    weight = nn.functional.normalize(generator.factor_weight, dim=1)
    control, factors = torch.zeros(4, 5), state @ weight.t()
    for t in range(6):
        control = generator.controller(torch.cat([encoded[:, t], factors], 1), control)
        mean, std = generator.posterior(control)
        state = generator.cell(mean + std * noise[:, t], state)
        factors = state @ weight.t()
        torch.testing.assert_close(course.factors[:, t], factors)
        torch.testing.assert_close(course.mean[:, t], mean)


@pytest.mark.parametrize("inputs", [0, 2])
def test_dropout_in_training_hides_states_and_what_the_controller_reads(inputs):
    torch.manual_seed(0)
    generator = Generator(7, 3, controller=5, encoded=4, inputs=inputs, dropout=1.0).train()
    course = generator(torch.randn(4, 7), torch.randn(4, 6, 4) if inputs else None, torch.randn(4, 6, inputs))
    assert course.factors.shape == (4, 6, 3) and (course.factors == 0).all()
    if inputs:
        control = generator.controller(torch.zeros(4, 7), generator.controller(torch.zeros(4, 7), torch.zeros(4, 5)))
        torch.testing.assert_close(course.mean[:, 1], generator.posterior(control)[0])


def test_factors_are_of_unit_length():
    """The weights' scale does not matter, unless rows differ in direction."""
    generator, state = net().core.generator, torch.randn(2, 7)
    before = generator(state, torch.zeros(2, 3, 12), torch.zeros(2, 3, 2)).factors
    generator.factor_weight.data *= torch.tensor([[3.0], [0.1], [7.0]])
    torch.testing.assert_close(generator(state, torch.zeros(2, 3, 12), torch.zeros(2, 3, 2)).factors, before)


def test_the_controllers_input_at_a_bin_does_not_hold_the_bin_itself():
    torch.manual_seed(0)
    encoder, inputs = Encoder(6, 5), counts()
    told, changed = lag(encoder(inputs)[0]), inputs.clone()
    changed[:, 4] += 3
    other = lag(encoder(changed)[0])
    assert torch.equal(told[:, 4], other[:, 4])
    assert torch.equal(told[:, :5, :5], other[:, :5, :5]) and not torch.equal(told[:, 5, :5], other[:, 5, :5])
    assert torch.equal(told[:, 4:, 5:], other[:, 4:, 5:]) and not torch.equal(told[:, 3, 5:], other[:, 3, 5:])
    assert (told[:, 0, :5] == 0).all() and (told[:, -1, 5:] == 0).all()


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
def test_parameter_count_is_the_closed_form(sizes):
    def gru(n_in, hidden):
        return 3 * hidden * (n_in + hidden + 2)

    def encoder(hidden):
        return 2 * (gru(6, hidden) + hidden)

    def linear(n_in, n_out):
        return (n_in + 1) * n_out

    expected = (
        encoder(5) + linear(10, 8) + 4 + linear(4, 7) + gru(2 if sizes.controlled else 0, 7) + 7 * 3 + linear(3, 8)
    )
    if sizes.controlled:
        expected += encoder(6) + 2 * 2 + gru(12 + 3, 5) + 5 + linear(5, 4)
    assert sum(p.numel() for p in net(sizes).parameters()) == expected


@pytest.mark.parametrize("size", ["input_encoder", "controller", "inputs"])
def test_without_one_of_its_parts_there_is_no_controller(size):
    sizes = Sizes(**{**vars(CONTROLLED), size: 0})
    output = net(sizes)(counts())
    assert "inferred_inputs" not in output
    one, other = net(sizes).state_dict(), net(AUTONOMOUS).state_dict()
    assert one.keys() == other.keys() and not any("controller" in name or "input_" in name for name in one)


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
@pytest.mark.parametrize("stride", [1, 4])
def test_shapes(sizes, stride):
    output = net(sizes, stride=stride)(counts())
    assert output["log_rates"].shape == (5, 13, 8) and output["latents"].shape == (5, 13, 3)
    assert output["initial_condition"].shape == (5, 4)
    if sizes.controlled:
        assert output["inferred_inputs"].shape == (5, 13, 2)
    torch.testing.assert_close(output["log_rates"].exp().mean(), torch.tensor(0.4), atol=0.1, rtol=0)


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
def test_every_parameter_learns(sizes):
    model = net(sizes).train()
    output = model(counts())
    (output["log_rates"].square().mean() + sum(output["losses"].values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [name for name, p in model.named_parameters() if not (p.grad != 0).any()] == []


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
def test_mixed_precision(sizes):
    model, inputs = net(sizes), counts()
    exact = model(inputs)["log_rates"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(inputs)["log_rates"].float(), exact, atol=0.05, rtol=0)
        output = model.train()(inputs)
        (output["log_rates"].float().square().mean() + sum(output["losses"].values())).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


# ---- the posterior's mean


def test_draws_come_in_opposite_pairs_and_are_always_the_same():
    draws = standard_draws(4000, 3)
    assert torch.equal(draws, standard_draws(4000, 3)) and torch.equal(draws[::2], -draws[1::2])
    torch.testing.assert_close(draws.var(dim=0), torch.ones(3), atol=0.1, rtol=0)
    assert standard_draws(3, 2).shape == (3, 2) and (standard_draws(0, 2) == 0).all()


def wide(**options) -> LFADSNet:
    """A net whose posteriors are wide and whose rates depend on them."""
    model = net(**options)
    with torch.no_grad():
        model.readout.linear.weight *= 10
    return model


def test_the_mean_over_samples_does_not_depend_on_the_batch():
    model, inputs = wide(), counts(6)
    whole, order = model(inputs), torch.tensor([3, 0, 5, 1, 4, 2])
    parts = [model(part) for part in inputs.split((1, 3, 2))]
    permuted = model(inputs[order])
    for name, values in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), values)
        torch.testing.assert_close(permuted[name], values[order])


def test_the_mean_over_samples_does_not_depend_on_the_chunk_size(monkeypatch):
    model, inputs = wide(posterior_samples=7), counts()
    whole = model(inputs)
    monkeypatch.setattr("neuro_lightning.models.lfads.ELEMENTS", 1)
    for name, values in model(inputs).items():
        torch.testing.assert_close(values, whole[name])


def test_the_mean_over_samples_does_not_depend_on_the_random_state():
    model, inputs = wide(), counts()
    first = model(inputs)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(model(inputs)["log_rates"], first["log_rates"])
    assert torch.equal(torch.get_rng_state(), before), "evaluation draws nothing"


def test_rates_are_averaged_and_converge():
    """The error falls with the root of the number of samples."""
    model, inputs = wide(), counts()

    def rates(samples, start=0):
        model.posterior_samples = samples
        return model(inputs)["log_rates"].exp()

    with torch.no_grad():
        truth = rates(20_000)
        errors = {samples: (rates(samples) - truth).square().mean().sqrt().item() for samples in (8, 128, 2048)}
    assert 2 < errors[8] / errors[128] < 8 and 2 < errors[128] / errors[2048] < 8, errors
    assert errors[2048] < 0.2 * (rates(0) - truth).square().mean().sqrt(), (
        "the mean of the rates is not that of the mean"
    )


def test_training_is_one_sample_of_the_global_generator():
    model, inputs = wide(dropout=0.0).train(), counts()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(model(inputs)["log_rates"])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


# ---- what must not be known


@pytest.mark.parametrize("poison", [math.nan, 1e30])
def test_what_is_predicted_never_reaches_the_input(poison):
    clean, poisoned = tiny({}), tiny({f"val.{name}": poison for name in HIDDEN})
    model = module(clean.spec).eval()
    for one, other in zip(clean.eval_dataloader("val"), poisoned.eval_dataloader("val"), strict=True):
        assert torch.equal(model(one["inputs"])["log_rates"], model(other["inputs"])["log_rates"])


def test_what_is_hidden_and_scored_does_not_reach_its_prediction():
    """Through the whole training step, with a controller that looks at bins before and after."""
    data = tiny({})
    batch = next(iter(data.train_dataloader()))
    model = module(data.spec, masking=CoordinatedDropout(0.3))
    inputs = batch["inputs"].clone().requires_grad_()
    shown = {}
    model.masking.register_forward_hook(lambda _, __, result: shown.update(hidden=result[1]))
    model.training_step({**batch, "inputs": inputs}, 0).backward()
    assert (inputs.grad[shown["hidden"]] == 0).all() and (inputs.grad[~shown["hidden"]] != 0).any()


# ---- the loss


def test_weights_rise_as_published():
    assert [ramp(epoch, 0, 80) for epoch in (0, 40, 80, 200)] == [1 / 81, 41 / 81, 1, 1]
    assert [ramp(epoch, 2, 3) for epoch in range(7)] == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert ramp(0, 0, 0) == 1


def test_terms_are_weighted_by_the_epoch():
    data = tiny({})
    terms = {name: torch.tensor(value) for name, value in zip(WEIGHTS, (1.0, 10.0, 100.0, 1000.0), strict=True)}
    model = module(data.spec)
    full = sum(WEIGHTS[name] * float(terms[name]) for name in WEIGHTS)
    for epoch, share in enumerate((0, 0, 0.25, 0.5, 0.75, 1, 1)):
        model._trainer = SimpleNamespace(current_epoch=epoch)
        assert float(model.weight_loss_terms(terms)) == pytest.approx(share * full)


def test_divergences_keep_their_weight_whatever_is_scored():
    """Published losses are divided by all elements of the targets, ours by those that are scored."""
    spec = DataSpec("d", n_in=6, n_out=2, n_bins=10, n_forward=3)
    scored = 0.3 * 10 * 6 + 10 * 2 + 3 * 8
    assert scored_fraction(spec, 0.3) == pytest.approx(scored / (13 * 8)) and scored_fraction(spec, 0) == 1
    model = module(spec, masking=CoordinatedDropout(0.3))
    assert model.weights["kl_co"] == pytest.approx(0.2 * 13 * 8 / scored) and model.weights["l2_gen"] == 0.3


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
def test_terms_of_a_training_step(sizes):
    losses = net(sizes).train()(counts())["losses"]
    assert set(losses) == (set(WEIGHTS) if sizes.controlled else {"kl_ic", "l2_gen"})
    assert losses["kl_ic"] > 0
    torch.testing.assert_close(losses["l2_gen"], net(sizes).core.generator.cell.weight_hh.square().mean() / 2)


# ---- traces


TRACES = DataSpec("t", kind="traces", n_in=6, n_bins=10, bin_ms=1000, mean_rates=(0.5,) * 6)


def test_longer_sequences_are_read_in_windows():
    model = module(TRACES).eval()
    longer = counts(2, 25)
    output = model(longer)
    assert output["rates"].shape == (2, 25, 6) and output["inferred_inputs"].shape == (2, 25, 2)
    assert "initial_condition" not in output
    torch.testing.assert_close(output["rates"][:, :10], model(longer[:, :10])["rates"])


@pytest.mark.parametrize(
    ("loss", "names"), [(gamma, ["log_shape"]), (zero_inflated_gamma, ["log_shape", "gate_logit"])]
)
def test_losses_of_several_parameters(loss, names):
    model = module(TRACES, loss=loss)
    targets = torch.rand(4, 10, 6).sub(0.3).clamp_min(0)
    output = model.net(targets)
    assert set(output) == {"log_rates", *names, "losses"}
    total, _ = loss(output, targets, torch.ones_like(targets, dtype=torch.bool), TRACES)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(model.eval()(targets)["log_rates"].exp().mean(), torch.tensor(0.5), atol=0.1, rtol=0)


def test_counts_have_no_gamma_likelihood(tmp_path):
    with pytest.raises(ConfigError, match="loss=gamma is for traces") as refused:
        run(tmp_path, "data=tiny", "loss@model.loss=gamma")
    assert "\n" not in str(refused.value)


# ---- runs


def run(folder, *words):
    kept = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    return here(folder, *SMALL, *words, base=[*kept, "trusted=[tiny,tiny_traces]", "model=lfads"])


def test_a_run_learns_and_its_terms_are_logged(tmp_path):
    finished = run(tmp_path, "data=tiny", *QUICK)
    found = rows(finished.folder)
    assert float(found[-1]["train/loss"]) < float(found[0]["train/loss"])
    assert all(float(row[f"train/{name}"]) > 0 for row in found for name in WEIGHTS)
    saved = load_checkpoint(finished.folder, trusted=["tiny"])
    inputs = torch.ones(2, 12, 6)
    assert torch.equal(saved.model(inputs)["log_rates"], saved.model(inputs)["log_rates"])


@pytest.mark.parametrize("words", [[], ["loss@model.loss=gaussian_variance"]])
def test_traces_fit(tmp_path, words):
    finished = run(tmp_path, "data=tiny_traces", *QUICK, *words)
    found = [float(row["train/loss"]) for row in rows(finished.folder)]
    assert np.isfinite(found).all() and found[-1] < found[0]


@pytest.mark.parametrize("data", ["tiny", "tiny_traces"])
def test_what_was_inferred_is_written_beside_the_latents(tmp_path, data):
    run(tmp_path, f"data={data}", "trainer.max_epochs=1")
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=["trusted=[tiny,tiny_traces]", f"ckpt={tmp_path}", "output=latents"])
    saved = load_checkpoint(tmp_path, trusted=[data])
    with h5py.File(predict(cfg)) as file:
        for split in ("train", "val", "test"):
            found = {name: file[split][name][()] for name in file[split]}
            trials, bins, _ = found["latents"].shape
            assert found["latents"].shape[2] == 4 and found["inferred_inputs"].shape == (trials, bins, 4)
            if data == "tiny" or split == "train":  # a sequence that is read in windows has no beginning of its own
                assert found["initial_condition"].shape == (trials, 4)
            else:
                assert "initial_condition" not in found
    batch = next(iter(tiny({}).eval_dataloader("test"))) if data == "tiny" else None
    if batch is not None:
        own = saved.model(batch["inputs"])["inferred_inputs"]
        np.testing.assert_allclose(found["inferred_inputs"][: len(own)], own.detach().numpy(), atol=1e-5)
    assert read_latents(tmp_path, ["train"]).values.shape[2] == 4
