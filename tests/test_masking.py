"""What masking hides, how much of it, and what is shown instead."""

import math

import pytest
import torch
from runs import TINY, here

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import poisson
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.masking import (
    MODES,
    CoordinatedDropout,
    NeuronMasking,
    RandomMasking,
    VariableDropout,
    configure_masking,
    seed_ratio,
)

B, T, N = 60, 50, 40


def masked(mode: str, inputs=None, seed: int = 0, **options):
    torch.manual_seed(seed)
    inputs = torch.ones(B, T, N) if inputs is None else inputs
    return RandomMasking(mode, **options)(inputs)


def close(share: float, expected: float, draws: int) -> bool:
    """Within four standard deviations of a share of so many independent draws."""
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws)


@pytest.mark.parametrize(("mode", "draws"), [("timestep", B * T), ("neuron", B * N), ("full", B * T * N)])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.7])
def test_the_share_is_the_ratio(mode, draws, ratio):
    _, hidden = masked(mode, ratio=ratio)
    assert close(float(hidden.double().mean()), ratio, draws)


def test_the_same_steps_in_the_whole_batch():
    hidden = torch.stack([masked("timestep_only", seed=seed)[1] for seed in range(100)])
    assert (hidden == hidden[:, :1, :, :1]).all()
    assert close(float(hidden.double().mean()), 0.25, 100 * T)


@pytest.mark.parametrize(
    ("mode", "axes"), [("timestep", [2]), ("neuron", [1]), ("full", []), ("timestep_only", [0, 2])]
)
@pytest.mark.parametrize("max_span", [1, 5])
def test_entries_that_are_masked_alike(mode, axes, max_span):
    """Along these axes all is hidden or nothing; along the others not."""
    _, hidden = masked(mode, max_span=max_span)
    for axis in range(3):
        constant = (hidden == hidden.narrow(axis, 0, 1)).all()
        assert bool(constant) is (axis in axes)


@pytest.mark.parametrize("mode", MODES)
def test_only_what_is_scored_is_hidden(mode):
    inputs = torch.poisson(torch.full((B, T, N), 2.0)) + 1
    before = inputs.clone()
    shown, hidden = masked(mode, inputs, ratio=0.4)
    assert (shown[hidden] == 0).all() and torch.equal(shown[~hidden], inputs[~hidden])
    assert torch.equal(inputs, before), "the caller's counts stay as they were"


def test_what_is_hidden_never_reaches_what_is_shown():
    for mode in MODES:
        inputs = torch.rand(3, 8, 5)
        _, hidden = masked(mode, inputs, ratio=0.5, seed=1)
        shown, again = masked(mode, inputs.masked_fill(hidden, torch.nan), ratio=0.5, seed=1)
        assert torch.equal(hidden, again) and shown.isfinite().all()


# ---- spans


def with_width(mode: str, width: int, ratio: float, trials: int = 4000, bins: int = 12) -> torch.Tensor:
    torch.manual_seed(0)
    masking = RandomMasking(mode, ratio=ratio, max_span=max(2, width))
    masking._draw_width = lambda: width
    return masking(torch.ones(trials, bins, 2))[1]


@pytest.mark.parametrize("mode", ["timestep", "full"])
@pytest.mark.parametrize("width", [1, 2, 5, 12, 20])
def test_spans_leave_the_share_as_it_is_at_every_step(mode, width):
    hidden = with_width(mode, width, 0.3)[:, :, 0].double()
    assert all(close(float(share), 0.3, len(hidden)) for share in hidden.mean(0)), "edges too"


def test_the_simple_share_of_seeds_would_hide_too_little():
    assert seed_ratio(0.3, 1) == pytest.approx(0.3)
    for width in (2, 5):
        assert 1 - (1 - seed_ratio(0.3, width)) ** width == pytest.approx(0.3)
        assert seed_ratio(0.3, width) > 0.3 / width + 0.005


@pytest.mark.parametrize("width", [2, 3, 5])
def test_no_span_is_shorter_than_its_width(width):
    hidden = with_width("timestep", width, 0.2, trials=300, bins=40)[:, :, 0]
    lengths = []
    for trial in hidden.int().tolist():
        runs = "".join(map(str, trial)).strip("1")  # those cut off by the trial's ends may be shorter
        lengths += [len(run) for run in runs.split("0") if run]
    assert min(lengths) == width, "and single spans are as wide as that"


def test_spans_come_in_over_the_ramp():
    masking = RandomMasking("timestep", max_span=4, ramp_start=10, ramp_end=20)
    shares = {}
    for epoch in (0, 10, 11, 15, 19, 20, 1000):
        masking.at_epoch(epoch)
        shares[epoch] = masking.span_probability
    assert shares == {0: 0.0, 10: 0.0, 11: 0.1, 15: 0.5, 19: 0.9, 20: 1.0, 1000: 1.0}
    assert RandomMasking("timestep", ramp_start=10, ramp_end=20).span_probability == 0, "from the first epoch on"


def test_widths_are_uniform_where_there_are_spans():
    torch.manual_seed(0)
    masking = RandomMasking("timestep", max_span=4, ramp_start=0, ramp_end=10)
    masking.at_epoch(6)
    widths = [masking._draw_width() for _ in range(4000)]
    for width in range(1, 5):
        assert close(widths.count(width) / 4000, 0.6 / 4 + 0.4 * (width == 1), 4000)


# ---- what is shown instead


@pytest.mark.parametrize("mode", ["timestep", "full"])
def test_zeros_random_counts_and_the_counts_themselves(mode):
    """Of 4s, what is not zero and not 4 was drawn at random, from below the maximum."""
    inputs = torch.full((B, T, N), 4.0)
    shown, hidden = masked(mode, inputs, ratio=0.5, token_ratio=0.6, random_ratio=0.5)
    assert (shown[~hidden] == 4).all()
    draws = int(hidden.sum())
    for count in range(5):  # zeros, then 0.4 * 0.5 over the four values, then what stays
        expected = 0.6 * (count == 0) + 0.2 / 4 * (count < 4) + 0.2 * (count == 4)
        assert close(float((shown[hidden] == count).double().mean()), expected, draws)


def test_random_values_of_traces_are_the_same_neurons():
    torch.manual_seed(0)
    inputs = torch.rand(6, 10, 3) + torch.tensor([0.0, 10.0, -20.0])
    masking = RandomMasking("full", ratio=0.9, token_ratio=0.0, random_ratio=1.0, kind="traces")
    shown, hidden = masking(inputs)
    for neuron in range(3):
        assert torch.isin(shown[..., neuron], inputs[..., neuron]).all()
    assert (shown != inputs)[hidden].double().mean() > 0.9 and torch.equal(shown[~hidden], inputs[~hidden])


# ---- steps of several bins


@pytest.mark.parametrize("mode", ["timestep", "timestep_only", "full"])
@pytest.mark.parametrize("max_span", [1, 3])
def test_whole_steps_are_masked(mode, max_span):
    """50 bins in steps of 4: the last step has two."""
    _, hidden = masked(mode, block=4, max_span=max_span, ratio=0.5)
    steps = hidden[:, ::4]
    assert steps.shape[1] == 13
    assert torch.equal(steps.repeat_interleave(4, dim=1)[:, :T], hidden)
    assert not torch.equal(steps[:, 1:], steps[:, :-1]), "and not all of them"


def test_a_step_is_hidden_changed_or_shown_as_a_whole():
    shown, hidden = masked("full", torch.full((B, 48, N), 9.0), block=4, ratio=0.5, token_ratio=0.5, random_ratio=0.0)
    steps = shown.unflatten(1, (12, 4))
    assert (steps == steps[:, :, :1]).all() and set(shown[hidden].tolist()) == {0.0, 9.0}


def test_models_configure_the_masking_with_their_steps():
    masking, other = RandomMasking("timestep"), CoordinatedDropout(0.2)
    for one in (masking, other, None):
        configure_masking(one, block=4, kind="traces")
    assert (masking.block, masking.kind) == (4, "traces") and not hasattr(other, "block")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "bins"}, "masking.mode=bins: there are timestep, neuron"),
        ({"ratio": 1.5}, "masking.ratio must lie in"),
        ({"token_ratio": -0.1}, "masking.token_ratio must lie in"),
        ({"max_span": 0}, "masking.max_span=0"),
        ({"ramp_start": 5, "ramp_end": 4}, "masking.ramp_end=4"),
    ],
)
def test_invalid_maskings_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        RandomMasking(**options)


@pytest.mark.parametrize(
    "masking", [CoordinatedDropout(0.3), VariableDropout(0.1, 0.8), RandomMasking("full", ratio=0.4)], ids=str
)
def test_the_share_of_each_masking(masking):
    torch.manual_seed(0)
    _, hidden = masking(torch.ones(400, 20, 20))
    assert abs(float(hidden.double().mean()) - masking.share) < 0.03


class Everything(torch.nn.Module):
    """A masking that asks for every held-in count to be scored."""

    def forward(self, inputs):
        return inputs, torch.ones_like(inputs, dtype=torch.bool)


class Half(torch.nn.Module):
    """A masking that hides, and scores, the even neurons."""

    def forward(self, inputs):
        scored = torch.zeros_like(inputs, dtype=torch.bool)
        scored[..., ::2] = True
        return inputs.masked_fill(scored, 0.0), scored


class Rates(torch.nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.log_rates = torch.nn.Parameter(torch.zeros(shape))

    def forward(self, inputs):
        return {"log_rates": self.log_rates.expand(len(inputs), -1, -1)}


@pytest.mark.parametrize("masking", [Everything(), Half(), None])
def test_counts_that_were_not_observed_are_never_scored(masking):
    """Whatever a masking asks for: neither loss nor gradient sees them, and what is always scored stays so."""
    bins, forward, n_in, n_out = 6, 2, 4, 3
    spec = DataSpec("x", n_in=n_in, n_out=n_out, n_bins=bins, n_forward=forward)
    seen = []

    def loss(output, targets, mask, spec):
        seen.append(mask.clone())
        return poisson(output, targets, mask, spec)

    model = PopulationModule(Rates(bins + forward, n_in + n_out), spec, loss=loss, masking=masking)
    targets = torch.poisson(torch.ones(5, bins + forward, n_in + n_out))
    mask = torch.ones_like(targets, dtype=torch.bool)
    mask[1, 2, 0] = mask[:, 3, 2] = mask[2, :, 5] = mask[4, 7] = False
    targets[~mask] = torch.nan
    batch = {"inputs": targets[:, :bins, :n_in].nan_to_num(), "targets": targets, "mask": mask.clone(),
             "index": torch.arange(5)}  # fmt: skip
    value = model._training_loss(batch, 0)
    value.backward()
    expected = mask.clone()
    if isinstance(masking, Half):
        expected[:, :bins, 1:n_in:2] = False
    assert torch.equal(seen[0], expected) and torch.equal(batch["mask"], mask), "the batch's own mask stays as it was"
    assert torch.isfinite(value) and torch.isfinite(model.net.log_rates.grad).all()
    assert value.item() == pytest.approx(float((1 - 0 * targets[expected]).mean())), "rate 1 less count times ln 1"
    touched = expected.any(0)
    assert (model.net.log_rates.grad[~touched] == 0).all()


# ---- whole neurons, as if they had not been recorded


def test_whole_neurons_are_hidden_at_a_share_that_each_trial_draws():
    torch.manual_seed(0)
    shown, hidden = NeuronMasking(0.1, 0.5)(torch.ones(400, T, N))
    assert (hidden == hidden[:, :1]).all() and torch.equal(shown, (~hidden).float())
    shares = hidden[:, 0].double().mean(1)
    assert shares.min() >= 0.1 and shares.max() <= 0.5 and 0.28 < float(shares.mean()) < 0.32
    each = hidden[:, 0].double().mean(0)
    assert each.min() > 0.2 and each.max() < 0.4, "every neuron's turn comes"
    one = NeuronMasking(0, 0)(torch.ones(9, T, N))[1][:, 0].sum(1)
    assert (one == 1).all()
    with pytest.raises(ConfigError, match=r"masking.low=0.5 and masking.high=0.1"):
        NeuronMasking(0.5, 0.1)


def test_hidden_neurons_are_not_recorded_for_the_network_and_those_that_were_not_are_not_scored():
    """What the network is told in training is what it is told at test: zeros that are marked as not recorded."""
    spec = DataSpec("x", n_in=N, n_bins=T, mean_rates=(0.5,) * N, partial=True)
    told = {}

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(N))

        def forward(self, inputs, observed):
            told.update(inputs=inputs, observed=observed)
            return {"log_rates": inputs * 0 + self.scale}

    model = PopulationModule(Net(), spec, loss=poisson, masking=NeuronMasking(0.2, 0.2))
    observed = torch.ones(8, T, N, dtype=torch.bool)
    observed[:, :, 3] = False
    counts = torch.poisson(torch.full((8, T, N), 0.5))
    counts[:, :, 3] = torch.nan
    batch = {
        "inputs": counts,
        "targets": counts,
        "mask": observed.clone(),
        "observed": observed,
        "index": torch.arange(8),
    }
    model._training_loss(batch, 0).backward()
    hidden = observed & ~told["observed"]
    assert hidden[:, 0].sum(1).tolist() == [8] * 8 and not told["observed"][:, :, 3].any()
    assert (told["inputs"][~told["observed"]] == 0).all()
    assert torch.equal(told["inputs"][told["observed"]], counts[told["observed"]])
    scored = hidden.any(1).any(0)
    assert torch.equal(model.net.scale.grad != 0, scored) and torch.equal(batch["observed"], observed)


def test_neurons_of_data_that_do_not_know_what_was_recorded_are_refused(tmp_path):
    base = [word for word in TINY if not word.startswith("model")]
    with pytest.raises(ConfigError, match=r"masking=neurons hides neurons as not recorded, which tiny does not know"):
        here(tmp_path, "model=ndt", "masking@model.masking=neurons", base=base)
