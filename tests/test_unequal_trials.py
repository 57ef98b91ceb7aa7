"""Trials of unequal length and neurons that come and go: what was not recorded changes nothing, and is no silence."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from networks import parts, spec_of, transformer

from neuro_lightning.contracts import DataSpec, call_network, rates_of
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.describe import describe, make_dataset
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.losses import poisson
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.gpfa import GPFA
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.models.lfads import LFADSNet, Sizes
from neuro_lightning.models.linear_latents import PCA, FactorAnalysis
from neuro_lightning.models.lstm_autoencoder import LSTMAutoencoderNet
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.models.neural_roberta import NeuralRobertaNet
from neuro_lightning.models.plds import PLDS
from neuro_lightning.models.smoothing import SmoothingNet
from neuro_lightning.models.stndt import STNDTNet
from neuro_lightning.nn.masking import CoordinatedDropout, RandomMasking, VariableDropout

LENGTHS = (20, 13, 7, 1)
N_IN, N = 5, 8
MEAN = np.linspace(0.2, 0.9, N).tolist()
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def make_spec(n_bins, **values):
    return spec_of(N_IN, N, n_bins, 0, MEAN, partial=True, **values)


def sequence(network, n_bins, *, smoothed=(), **settings):
    return network(make_spec(n_bins), **parts(smoothed_ms=smoothed), **settings)


def attention(network, n_bins, **settings):
    return transformer(network, N_IN, N, n_bins, 0, mean_rates=MEAN, partial=True, layers=2, **settings)


GRU = partial(sequence, GRUNet, hidden=6, layers=2, bidirectional=True, layer_dropout=0.0)
LSTM = partial(sequence, LSTMAutoencoderNet, latent_dim=4, dropout=0.0, names=("log_rates",))
LFADS = partial(sequence, LFADSNet, dropout=0.0, posterior_samples=0)
ROBERTA = partial(
    sequence, NeuralRobertaNet, width=None, hidden=4, layers=2, encoder_layers=2, attention_heads=2, dropout=0.0,
    encoder_dropout=0.0,
)  # fmt: skip
NETWORKS = {
    "gru": partial(GRU, step_ms=None),
    "gru, steps": partial(GRU, step_ms=3, smoothed=(4, 9)),
    "gru, causal": partial(GRU, step_ms=4, bidirectional=False, smoothed=(4,)),
    "lstm": LSTM,
    "lstm, feedback": partial(LSTM, feedback=True),
    "rnn": partial(LSTM, cell="rnn", layers=2),
    "lfads": partial(LFADS, sizes=Sizes(5, 3, 6, 4), step_ms=3),
    "lfads, controlled": partial(LFADS, sizes=Sizes(5, 3, 6, 4, 4, 3, 2), step_ms=None),
    "roberta": partial(ROBERTA, step_ms=None),
    "roberta, steps": partial(ROBERTA, step_ms=3),
    "ndt": partial(attention, NDTNet, positions="sinusoidal", stride=3, smoothed=(2,)),
    "ndt, context": partial(attention, NDTNet, positions="sinusoidal", context=(2, 3)),
    "ndt, reach": partial(attention, NDTNet, positions="sinusoidal", reach=(2, 8), stride=2),
    "ndt, embedded": partial(attention, NDTNet, positions="sinusoidal", count_width=3, width=16),
}
FIXED = {
    "stndt": partial(attention, STNDTNet),
    "stndt, channels": partial(attention, STNDTNet, width=12, stride=3, smoothed=(2,)),
    "ndt, learned": partial(attention, NDTNet, positions="learned"),
}


def recorded(n_bins, *, gaps=True):
    """Which inputs of four trials were recorded; with gaps in two of the neurons."""
    observed = (torch.arange(n_bins) < torch.tensor(LENGTHS)[:, None])[..., None].repeat(1, 1, N_IN)
    if gaps:
        observed[0, :, 1] = False
        observed[1, 4:9, 3] = False
    return observed


def counts(n_bins, seed=0):
    drawn = torch.poisson(torch.full((4, max(LENGTHS), N), 0.7), generator=torch.Generator().manual_seed(seed))
    return torch.cat([drawn, torch.zeros(4, n_bins - max(LENGTHS), N)], 1)


def result(net, n_bins):
    """Rates of the trials' own bins, the loss in training mode, and its gradients."""
    observed, values = recorded(n_bins), counts(n_bins)
    mask = torch.cat([observed, recorded(n_bins, gaps=False)[..., : N - N_IN]], 2)
    rates = rates_of(net.eval()(values[..., :N_IN], observed))[:, : max(LENGTHS)][recorded(max(LENGTHS))[..., 2]]
    torch.manual_seed(0)
    output = net.train()(values[..., :N_IN], observed)
    total, count = poisson(output, values, mask, make_spec(n_bins))
    terms = output.get("losses", {})
    # a posterior's sample is of as many draws as there are bins: with a controller it is another one
    loss = total / count + sum(terms.values()) if "kl_co" not in terms else None
    if loss is None:
        return rates, torch.zeros(()), {}
    net.zero_grad()
    loss.backward()
    return rates, loss, {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_do_not_depend_on_padding(name):
    torch.manual_seed(1)
    net = NETWORKS[name](max(LENGTHS)).double()
    rates, loss, gradients = result_of(net, max(LENGTHS))
    assert rates.isfinite().all() and len(rates) == sum(LENGTHS)
    for more in (7, 50):
        longer = NETWORKS[name](max(LENGTHS) + more).double()
        load_weights(longer, net)
        others = result_of(longer, max(LENGTHS) + more)
        torch.testing.assert_close(others[0], rates, **EXACT)
        torch.testing.assert_close(others[1], loss, **EXACT)
        assert set(others[2]) == set(gradients)
        for key, gradient in gradients.items():
            torch.testing.assert_close(middle(others[2][key], gradient), gradient, msg=key, **EXACT)


def result_of(net, n_bins):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return result(net, n_bins)
    finally:
        torch.set_default_dtype(default)


def middle(longer, like):
    """Of a table by distance the part that the shorter one has."""
    skip = (longer.shape[-1] - like.shape[-1]) // 2
    return longer[..., skip : skip + like.shape[-1]]


def load_weights(longer, net):
    state = longer.state_dict()
    for name, value in net.state_dict().items():
        if state[name].shape == value.shape:
            state[name] = value
        else:
            assert name.endswith("bias.table"), name
    longer.load_state_dict(state)


@pytest.mark.parametrize("name", {**NETWORKS, **FIXED})
def test_what_was_not_recorded_is_not_looked_at(name):
    torch.manual_seed(1)
    net, observed = {**NETWORKS, **FIXED}[name](24).eval(), recorded(24)
    values = counts(24)[..., :N_IN]
    rates = rates_of(net(values, observed))
    for poison in (math.nan, 1e30, 7.0):
        assert torch.equal(rates_of(net(torch.where(observed, values, poison), observed)), rates)


@pytest.mark.parametrize("name", {**NETWORKS, **FIXED})
def test_padding_reaches_no_bin_of_a_trial(name):
    """Where only the ends of trials are missing the token stands in padding alone: another one changes nothing."""
    torch.manual_seed(1)
    net, observed = {**NETWORKS, **FIXED}[name](24).eval(), recorded(24, gaps=False)
    values, own = counts(24)[..., :N_IN], observed[..., 0].clone()
    rates = rates_of(net(values, observed))[own]
    with torch.no_grad():
        net.readin.embedding[0].table.weight[-1].add_(5) if net.readin.token is None else net.readin.token.add_(5)
    torch.testing.assert_close(rates_of(net(values, observed))[own], rates, **EXACT)
    observed[0, 2:5, 0] = False
    changed = rates_of(net(values, observed))[own]
    assert (changed - rates).abs().max() > 1e-5, "a missing neuron shows the token"


@pytest.mark.parametrize("name", {**NETWORKS, **FIXED})
def test_a_missing_count_is_no_silence(name):
    torch.manual_seed(1)
    net, observed = {**NETWORKS, **FIXED}[name](24).eval(), recorded(24, gaps=False)
    values = counts(24)[..., :N_IN]
    values[0, 3:9, 0] = 0
    silent = rates_of(net(values, observed))
    observed[0, 3:9, 0] = False
    missing = rates_of(net(values, observed))
    assert (missing - silent)[0].abs().max() > 1e-4 and torch.equal(missing[1], silent[1])


def test_a_missing_count_begins_as_the_neurons_mean():
    net = GRU(20, step_ms=4)
    torch.testing.assert_close(net.readin.token.detach(), 4 * torch.tensor(MEAN[:N_IN]))
    ones, observed = torch.ones(1, 20, N_IN), torch.ones(1, 20, N_IN, dtype=torch.bool)
    observed[0, :4, 0] = observed[0, 4:7, 1] = False
    steps = net.readin.in_steps(ones, 20, observed)[0].detach()
    assert steps[0].tolist() == pytest.approx([4 * MEAN[0], 4, 4, 4, 4])
    assert (steps[1:] == 4).all(), "the bin that was recorded stands for the step"


def test_without_missing_inputs_a_network_is_as_before():
    torch.manual_seed(1)
    net = GRUNet(spec_of(N_IN, N, 24, 0, MEAN), **parts(), hidden=6, layers=1, bidirectional=True, step_ms=None,
                 layer_dropout=0.0)  # fmt: skip
    assert net.readin.token is None and not any("token" in name for name in net.state_dict())
    assert DataSpec.from_dict({"dataset": "old"}).partial is False


def test_the_forward_bins_of_a_trial_that_ends_early_are_predicted():
    spec = spec_of(N_IN, N, 20, 4, MEAN, partial=True)
    net = GRUNet(spec, **parts(), hidden=6, layers=1, bidirectional=True, step_ms=None, layer_dropout=0.0).eval()
    rates = rates_of(net(counts(20)[..., :N_IN], recorded(20)))
    assert rates.shape == (4, 24, N)
    assert ((rates[:, -1] - net.readout.linear.bias.exp()).abs() > 1e-4).all(), "each has a state there"


def test_masking_hides_what_was_recorded_at_its_rate():
    torch.manual_seed(0)
    observed, inputs = torch.rand(40, 50, 6) < 0.6, torch.ones(40, 50, 6)
    shown, hidden = CoordinatedDropout(0.3)(inputs, observed)
    assert hidden.sum() == round(0.3 * int(observed.sum())) and not hidden[~observed].any()
    assert torch.equal(shown == 0, hidden)
    assert torch.equal(CoordinatedDropout(0.0)(inputs, observed)[1], observed)
    for masking in (VariableDropout(0.2, 0.4), RandomMasking("full", ratio=0.3), RandomMasking("timestep", ratio=0.3)):
        hidden = masking(inputs, observed)[1]
        assert not hidden[~observed].any() and float(hidden[observed].float().mean()) == pytest.approx(0.3, abs=0.04)


# ---- data


def trials(seed=0, *, n_trials=12, n_bins=15, poison=None, full=False):
    """Random trials with ends and gaps; ``poison`` stands where nothing was recorded."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(0.8, (n_trials, n_bins, N)).astype(np.float32)
    observed = np.arange(n_bins)[None, :, None] < rng.integers(4, n_bins + 1, n_trials)[:, None, None]
    observed = np.repeat(observed, N, axis=2)
    observed[::3, 2:5, [0, N - 1]] = False
    behavior = rng.normal(size=(n_trials, n_bins, 2))
    if poison is not None:
        values[~observed] = poison
        behavior[~observed.any(2)] = poison
    return Trials.from_counts(
        values, n_bins, N_IN, behavior=behavior, observed=None if full else observed, row=np.arange(n_trials)
    )


def recording(**options):
    splits = {"train": trials(0, **options), "val": trials(1, **options)}
    return Recording("mine", 10, splits, np.arange(N), behavior_kind="velocity")


def test_tensors_do_not_hold_what_was_not_recorded():
    clean, known = recording(), describe(recording())
    assert known.partial and not describe(recording(full=True)).partial
    for poison in (np.nan, 1e30):
        dirty = recording(poison=poison)
        assert describe(dirty) == known
        for split in ("train", "val"):
            batches = [make_dataset(r.splits[split], known, evaluate=True)[list(range(12))] for r in (clean, dirty)]
            for name, values in batches[0].items():
                torch.testing.assert_close(batches[1][name], values, equal_nan=True, rtol=0, atol=0, msg=name)
    train, batch = clean.splits["train"], make_dataset(clean.splits["train"], known, evaluate=False)[[0, 3]]
    assert torch.equal(batch["observed"], torch.from_numpy(train.observed[[0, 3], :, :N_IN]))
    assert torch.equal(batch["mask"], torch.from_numpy(train.observed[[0, 3]]))
    assert (batch["decode_fold"][~batch["observed"].any(2)] == -1).all()
    seen = train.observed[..., 0]
    assert known.mean_rates[0] == pytest.approx(train.heldin[..., 0][seen].mean())


def test_every_batch_says_what_was_recorded_and_others_are_refused():
    spec = describe(recording())
    full = make_dataset(recording(full=True).splits["val"], spec, evaluate=True)[[0]]
    assert full["observed"].all() and full["observed"].shape == full["inputs"].shape
    assert "observed" not in TrialDataset(trials(full=True), n_out=3, n_forward=0, evaluate=True)[[0]]
    with pytest.raises(DataError, match="every input was recorded, and here some were not"):
        make_dataset(trials(), describe(recording(full=True)), evaluate=True)


def test_joined_trials_say_what_was_recorded():
    one, other = trials(0), trials(1, full=True)
    for both in (one.joined(other), other.joined(one)):
        assert both.observed.sum() == one.observed.sum() + other.heldin.shape[0] * 15 * N
    assert other.joined(other).observed is None and len(one.joined(one)) == 24


def test_metrics_see_recorded_bins_alone():
    """NaN where nothing was recorded, and the scores are those of the trials cut to their lengths one by one."""
    spec = describe(recording())
    train, val = (make_dataset(recording().splits[s], spec, evaluate=True)[list(range(12))] for s in ("train", "val"))
    rates = {
        id(b): torch.rand(b["targets"].shape, generator=torch.Generator().manual_seed(3)) + 0.2 for b in (train, val)
    }
    found = []
    for poison in (1.0, math.nan):
        metrics = build_metrics(spec, n_eval=12)
        given = [{"rates": torch.where(b["observed"].any(2, keepdim=True), rates[id(b)], poison)} for b in (train, val)]
        metrics.update_train(given[0], train)
        metrics.update(given[1], val)
        found.append(metrics.compute())
    assert found[0] == found[1] and all(map(math.isfinite, found[0].values())), found
    true = replace(spec, true_rates=True, n_conditions=2, behavior_kind="none")
    psth = torch.rand(2, 15, N).double()
    scores = []
    for poison in (1.0, math.nan):
        seen = val["observed"].any(2, keepdim=True)
        batch = {**val, "rates": torch.where(seen, rates[id(train)], poison), "condition": torch.arange(12) % 2}
        metrics = build_metrics(true, n_eval=12, psth=psth)
        metrics.update({"rates": torch.where(seen, rates[id(val)], poison)}, batch)
        scores.append(metrics.compute())
    assert scores[0] == scores[1] and all(map(math.isfinite, scores[0].values())), scores
    traces = replace(true, kind="traces")
    for poison in (1.0, math.nan):
        seen = val["observed"].any(2, keepdim=True)
        metrics = build_metrics(traces, n_eval=12)
        metrics.update({"rates": torch.where(seen, rates[id(val)], poison)},
                       {**val, "rates": torch.where(seen, rates[id(train)], poison)})  # fmt: skip
        scores.append(metrics.compute())
    assert scores[2] == scores[3] and all(map(math.isfinite, scores[2].values())), scores


# ---- models that are fitted


def test_smoothing_uses_the_kernels_recorded_share():
    net = SmoothingNet(N_IN, N, 0, mean_rates=MEAN[:N_IN])
    values, observed = counts(20)[:, :, :N_IN], recorded(20)
    rates = net(values, observed)["log_rates"]
    torch.testing.assert_close(
        rates[2, :7, :N_IN], (gaussian_smooth(values[2:3, :7], 10.0) + 1e-4).log()[0], rtol=1e-5, atol=1e-5
    )
    assert rates[0, :, 1].exp().tolist() == pytest.approx([MEAN[1] + 1e-4] * 20), "a neuron that a trial lacks"
    longer, more = counts(70)[:, :, :N_IN], recorded(70)
    torch.testing.assert_close(net(longer, more)["log_rates"][observed.any(2).nonzero(as_tuple=True)],
                               rates[observed.any(2)], **EXACT)  # fmt: skip
    poisoned = torch.where(observed, values, math.nan)
    assert torch.equal(net(poisoned, observed)["log_rates"], rates)
    net.fit(make_dataset(trials(), describe(recording()), evaluate=False), sd_bins=[2.0, 4.0], alpha=[0.01, 0.1])
    assert net.weight.isfinite().all() and net.weight.abs().max() > 0


@pytest.mark.parametrize("model", [GPFA, PLDS, PCA, FactorAnalysis])
def test_fits_that_need_every_input_are_refused(model):
    kind = "traces" if model is PCA else "spikes"
    assert "model=smoothing" in model.refuse(make_spec(20, kind=kind))
    assert model.refuse(spec_of(N_IN, N, 20, 0, kind=kind)) is None


def test_a_network_that_does_not_ask_is_refused():
    class Mine(torch.nn.Module):
        def forward(self, inputs):
            return {"rates": inputs}

    with pytest.raises(ConfigError, match=r"Mine cannot run on x: .*takes no `observed`"):
        PopulationModule(Mine(), make_spec(20))
    PopulationModule(Mine(), spec_of())
    told = call_network(GRU(20, step_ms=None), {"inputs": counts(20)[..., :N_IN], "observed": recorded(20)})
    assert rates_of(told).shape == (4, 20, N)
