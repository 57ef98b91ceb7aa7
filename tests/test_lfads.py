"""LFADS: its parts, and its average over samples of the posterior."""

import pytest
import torch
from networks import parts, spec_of
from torch import nn

from neuro_lightning.models.lfads import LFADSNet, Sizes, standard_draws
from neuro_lightning.nn.generator import Encoder, Generator, lag
from neuro_lightning.nn.recurrent import gru_step, init_gru

CONTROLLED = Sizes(encoder=5, initial=4, generator=7, factors=3, input_encoder=6, controller=5, inputs=2)
AUTONOMOUS = Sizes(encoder=5, initial=4, generator=7, factors=3)


def net(sizes=CONTROLLED, **options) -> LFADSNet:
    torch.manual_seed(0)
    stride, settings = options.pop("stride", 1), {"posterior_samples": 4, "dropout": 0.3, **options}
    settings |= parts(settings["dropout"])
    return LFADSNet(spec_of(6, mean_rates=[0.4] * 8), sizes=sizes, step_ms=stride, **settings).eval()


def counts(trials: int = 5, bins: int = 10) -> torch.Tensor:
    return torch.poisson(torch.ones(trials, bins, 6), generator=torch.Generator().manual_seed(1))


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
