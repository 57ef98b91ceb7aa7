"""Sessions that begin in a common space, by their conditions: the maths, and networks of simulated sessions."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT

from neuro_lightning.data.sessions import Sessions
from neuro_lightning.data.synthetic.datamodule import Lorenz
from neuro_lightning.data.synthetic.simulate import Sizes, simulate_lorenz
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.stitching import common_factors, regress, regress_log_rates
from neuro_lightning.models.gru import GRU
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.runs.factory import build_data, build_model
from neuro_lightning.runs.stitching import Session, start_as_others, start_in_common_space
from neuro_lightning.settings.quoting import override
from neuro_lightning.settings.settings import TrainSettings

SIZES = Sizes(n_train=24, n_val=6, n_test=0, n_conditions=6, n_in=12, n_out=4, n_bins=24, mean_rate_hz=60.0)
NET = {"hidden": 8, "layers": 1, "bidirectional": True, "step_ms": 20, "layer_dropout": 0.0}


@pytest.fixture(scope="module")
def sessions():
    return Sessions({name: session(k) for k, name in enumerate("abc")})


def session(k, sizes=SIZES, **options):
    return Lorenz(sizes=sizes, session=k, **options)


def model(data, **readin):
    torch.manual_seed(0)
    return GRU(data.spec, readin=ReadInSettings(**{"width": "auto", **readin}), **NET)


def mean_read_in(net, module, condition):
    """What the map of a read-in gives in the mean over the trials of a condition, (S, D)."""
    batch = module.dataset("train", evaluate=False)[range(module.count_trials("train"))]
    return net.readin(batch["inputs"][batch["condition"] == condition].float(), 24).mean(0).detach()


# ---- the maths


def linear_sessions(n_factors=3):
    """Noiseless rates of three sessions, linear in common latents (C, T, D)."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(5, 20, n_factors, generator=rng, dtype=torch.float64)
    maps = [torch.randn(n_factors, n, generator=rng, dtype=torch.float64) for n in (7, 9, 4)]
    return latents, [latents @ each + 3.0 for each in maps]


def test_common_factors_span_the_latents_of_linear_sessions():
    latents, rates = linear_sessions()
    factors = common_factors(rates, 3)
    assert factors.shape == latents.shape and factors.mean((0, 1)).abs().max() < 1e-10
    rotation = regress(factors, latents, torch.eye(3), 1e-12)
    torch.testing.assert_close(factors @ rotation.weight + rotation.bias, latents)
    spread = factors.flatten(0, 1).var(0)
    assert (spread.diff() < 0).all(), "strongest first"


def test_every_session_is_mapped_to_the_same_factors():
    _, rates = linear_sessions()
    factors = common_factors(rates, 3)
    for each in rates:
        fit = regress(each, factors, torch.eye(each.shape[2]), 1e-12)
        torch.testing.assert_close(each @ fit.weight + fit.bias, factors, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fit.bias, -each.mean((0, 1)) @ fit.weight, rtol=1e-5, atol=1e-5)


def test_no_more_factors_than_there_are():
    _, rates = linear_sessions()
    assert common_factors(rates, 50).shape[2] == 20, "neurons of all sessions"
    assert common_factors([each[:1, :4] for each in rates], 50).shape[2] == 3, "rows less one"


def test_ridge_makes_weights_smaller_and_keeps_the_mean():
    latents, rates = linear_sessions()
    noise = torch.eye(7)
    small, large = (regress(rates[0], latents, noise, ridge) for ridge in (1e-3, 10.0))
    assert large.weight.norm() < 0.6 * small.weight.norm()
    for fit in (small, large):
        torch.testing.assert_close((rates[0] @ fit.weight + fit.bias).mean((0, 1)), latents.mean((0, 1)))


def test_the_map_is_best_on_single_trials():
    """Least squares on many noisy trials finds what regression of their mean finds, with the noise as its penalty."""
    latents, rates = linear_sessions()
    rng = torch.Generator().manual_seed(1)
    mix = torch.randn(7, 7, generator=rng, dtype=torch.float64)
    trials = rates[0] + torch.randn(2000, *rates[0].shape, generator=rng, dtype=torch.float64) @ mix
    fit = regress(rates[0], latents, mix.T @ mix, 1.0)
    x, y = trials.flatten(0, 2), latents.expand(2000, *latents.shape).flatten(0, 2)
    best = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
    errors = [((x - x.mean(0)) @ weight - y + y.mean(0)).square().mean() for weight in (fit.weight, best)]
    assert errors[0] < 1.02 * errors[1]
    plain = regress(rates[0], latents, torch.eye(7), 1e-9)
    assert ((x @ plain.weight + plain.bias - y).square().mean()) > 1.1 * errors[1]


def test_readout_of_log_rates():
    latents, _ = linear_sessions()
    weight, bias = torch.tensor([[0.3, -0.2], [0.1, 0.4], [0.0, 0.2]]).double(), torch.tensor([-1.0, 0.5]).double()
    fit = regress_log_rates(latents, (latents @ weight + bias).exp(), torch.eye(3), 1e-9)
    torch.testing.assert_close(fit.weight, weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fit.bias, bias, rtol=1e-3, atol=1e-3)


# ---- simulated sessions


def test_sessions_share_conditions_and_nothing_else():
    one, two = (simulate_lorenz(SIZES, session=k) for k in (1, 2))
    assert one.info["condition_values"] == two.info["condition_values"]
    np.testing.assert_array_equal(one.splits["train"].behavior[0], behavior_of(two, one.splits["train"].condition[0]))
    assert not set(one.unit_ids) & set(two.unit_ids)
    assert not set(one.splits["train"].row) & set(two.splits["val"].row)
    assert one.info["session"] != two.info["session"] and not np.allclose(one.psth.mean((0, 1)), two.psth.mean((0, 1)))
    other = simulate_lorenz(SIZES, session=1, seed=1)
    assert not {tuple(v) for v in other.info["condition_values"]} & {tuple(v) for v in one.info["condition_values"]}
    with pytest.raises(ConfigError, match=r"data.session=-1"):
        simulate_lorenz(SIZES, session=-1)


def behavior_of(recording, condition):
    trials = recording.splits["train"]
    return trials.behavior[list(trials.condition).index(condition)]


def test_read_ins_of_sessions_agree_after_a_start_by_conditions(sessions):
    def disagreement(net):
        pairs = [mean_read_in(net.networks[k], module, 2) for k, module in enumerate(sessions.by_session().values())]
        pairs = [(each - each.mean(0))[:, :3] for each in pairs]
        return (pairs[0] - pairs[1]).norm() / (pairs[0].norm() + pairs[1].norm())

    trained = model(sessions)
    size = sum(float(net.readin.linear.weight.square().sum()) for net in trained.networks)
    before = disagreement(trained)
    start_in_common_space(trained, sessions)
    assert disagreement(trained) < 0.5 < before
    after = sum(float(net.readin.linear.weight.square().sum()) for net in trained.networks)
    assert after == pytest.approx(size, rel=1e-4)


def test_channels_beyond_the_factors_keep_random_weights():
    few = Sizes(n_train=4, n_val=2, n_test=0, n_conditions=2, n_in=12, n_out=4, n_bins=4, mean_rate_hz=60.0)
    data = Sessions({name: session(k, few) for k, name in enumerate("ab")})
    trained, untouched = model(data), model(data)
    start_in_common_space(trained, data)  # 2 conditions of 2 steps: 3 factors
    changed = trained.networks[1].readin.linear.weight != untouched.networks[1].readin.linear.weight
    assert changed.any(1).tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize("readin", [{}, {"smoothed_ms": [40]}, {"counts": False, "smoothed_ms": [20, 60]}])
def test_a_new_session_reads_in_what_the_others_do(sessions, readin):
    trained, new = model(sessions, **readin), session(3)
    alone = model(new, **readin)
    start_in_common_space(trained, sessions)
    others = list(map(Session, trained.networks, sessions.by_session().values()))

    def error():
        wanted = torch.stack([mean_read_in(net, module, 4) for net, module in others]).mean(0)
        return (mean_read_in(alone.net, new, 4) - wanted).norm() / (wanted - wanted.mean(0)).norm()

    before, core = error(), alone.net.core.state_dict()["gru.weight_hh_l0"].clone()
    assert start_as_others(Session(alone.net, new), others, average=False) is None
    assert error() < 0.7 < before
    assert torch.equal(alone.net.core.state_dict()["gru.weight_hh_l0"], core)


def test_a_new_readout_gives_the_neurons_own_rates(sessions):
    trained, new = model(sessions), session(3)
    alone = model(new)
    alone.net.core.load_state_dict(trained.networks[0].core.state_dict())
    others = list(map(Session, trained.networks, sessions.by_session().values()))
    random = alone.net.readin.linear.weight.clone()
    assert start_as_others(Session(alone.net, new), others, average=True, read_in=False) is None
    assert torch.equal(alone.net.readin.linear.weight, random)
    batch = others[0].module.dataset("train", evaluate=False)[range(24)]
    rates = alone.net.readout(trained.networks[0].eval().encode(batch["inputs"].float()), 24)["log_rates"].exp()
    own = new.dataset("train", evaluate=False)[range(24)]["targets"].float()
    torch.testing.assert_close(rates.mean((0, 1)), own.mean((0, 1)), rtol=0.1, atol=0.02)


OTHERS = {
    "lfads": ["model=lfads"],
    "embedded counts": ["model=ndt", "readin@model.readin=embedding", "masking@model.masking=random"],
}


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_any_network_of_sequences_can_begin_so(tmp_path, words):
    """In a training of several sessions, and as a new session of it."""
    sizes = "{n_train: 12, n_val: 4, n_test: 0, n_conditions: 3, n_in: 6, n_out: 2, n_bins: 12, n_forward: 4}"
    few = [f"data.sessions.{name}.sizes={sizes}" for name in ("one", "two", "three")]
    words = ["data=lorenz_sessions", "~data.sessions.four", *few, *words, override("paths.output_dir", tmp_path)]
    read_ins = []
    for start in ("random", "conditions"):
        with initialize_config_dir(str(ROOT / "conf")):
            cfg = compose("train", overrides=[*words, f"model.readin.start={start}"])
        settings = TrainSettings.resolve(cfg)
        torch.manual_seed(0)
        data = build_data(settings)
        built = build_model(settings, data)
        read_ins.append(built.networks[0].readin.linear.weight.clone())
    assert not torch.equal(*read_ins) and read_ins[1].isfinite().all()
    first, *others = map(Session, built.networks, data.by_session().values())
    before = first.net.readout.linear.weight.clone()
    assert start_as_others(first, others, average=False) is None
    after = first.net.readout.linear.weight
    assert (after != before).any(1).all() and after.isfinite().all()


def test_only_training_trials_count(sessions):
    plain, poisoned = (session(3) for _ in range(2))
    poisoned.recording.splits["val"].heldin[...] = 200
    poisoned.recording.splits["val"].heldout[...] = 200
    others = list(map(Session, model(sessions).networks, sessions.by_session().values()))
    weights = []
    for data in (plain, poisoned):
        alone = model(data)
        start_as_others(Session(alone.net, data), others, average=False)
        weights.append(alone.net.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_does_not_match_is_refused_in_one_line(sessions):
    alone = Sessions({"a": session(0)})
    with pytest.raises(ConfigError, match="one session has no other"):
        start_in_common_space(model(alone), alone)
    strange = Sessions({"a": session(0), "b": session(1, seed=1)})
    with pytest.raises(ConfigError, match=r"share no two conditions.*start=random"):
        start_in_common_space(model(strange), strange)
    longer = session(3, Sizes(**{**vars(SIZES), "n_bins": 30}))
    others = list(map(Session, model(sessions).networks, sessions.by_session().values()))
    assert "bins of a trial: 24 and 30" in start_as_others(Session(model(longer).net, longer), others, average=False)
    assert "no linear read-in" in start_as_others(Session(model(longer, width=None).net, longer), others, average=True)
    with pytest.raises(ConfigError, match=r"model.readin.start=middle"):
        ReadInSettings(start="middle")
    with pytest.raises(DataError, match=r"bin width"):
        Sessions({"a": session(0), "b": session(1, Sizes(bin_ms=20))}).prepare_data()
