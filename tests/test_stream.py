"""A trained model, one bin at a time, says what it says of the whole trial."""

import gc

import numpy as np
import pytest
import torch
from networks import parts, spec_of, transformer
from tiny import N_IN, N_OUT

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.models.gpfa import GPFANet
from neuro_lightning.models.gru import GRUNet
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.models.plds import PLDSNet
from neuro_lightning.models.smoothing import SmoothingNet
from neuro_lightning.models.stndt import STNDTNet
from neuro_lightning.nn.stepping import Stepwise
from neuro_lightning.nn.steps import Steps
from neuro_lightning.realtime.stream import Stream

MEAN = [0.5, 0.2, 0.9, 1.0, 0.4, 0.3, 0.8, 0.6]


def gru(*, stride=1, smoothed=(), partial=False, lag=0, **shown) -> GRUNet:
    spec = spec_of(partial=partial, mean_rates=MEAN)
    shown = parts(0.5, 0.5, smoothed_ms=[sd * stride for sd in smoothed], **shown)
    sizes = {"step_ms": stride, "hidden": 6, "layers": 2, "layer_dropout": 0.5}
    return GRUNet(spec, bidirectional=False, fixed_lag_ms=lag, **sizes, **shown)


def ndt(**options) -> NDTNet:
    return transformer(NDTNet, mean_rates=MEAN, **{"context": (0, None), "layers": 2, "feedforward": 7, **options})


def stndt(**options) -> STNDTNet:
    return transformer(STNDTNet, mean_rates=MEAN, **{"context": (0, None), "layers": 2, "feedforward": 7, **options})


def smoothing(*, n_neurons=8) -> SmoothingNet:
    net = SmoothingNet(5, n_neurons, 3, causal=True, mean_rates=MEAN[:5])
    net.sd_bins.fill_(2.5)
    net.heldin_sd_bins.fill_(1.2)
    torch.nn.init.normal_(net.weight)
    return net


def plds(stride=1) -> PLDSNet:
    net = PLDSNet(spec_of(n_forward=4), 3, stride, causal=True)
    draw = torch.Generator().manual_seed(0)
    for name in ("loadings", "heldin_bias", "first_mean", "weight", "bias", "forward_weight", "forward_bias"):
        getattr(net, name).normal_(generator=draw)
    net.transition.mul_(0.9)
    net.noise.mul_(0.3)
    return net


def gpfa(stride=1) -> GPFANet:
    net = GPFANet(spec_of(n_forward=4), 3, stride, causal=True)
    draw = torch.Generator().manual_seed(0)
    for name in ("loadings", "mean", "weight", "bias", "forward_weight", "forward_bias"):
        getattr(net, name).normal_(generator=draw)
    net.timescales.fill_(2.0)
    return net


def by_bins(net: Stepwise, inputs, observed=None, state=None) -> dict[str, torch.Tensor]:
    """What a network says bin by bin, its output shaped as that of the whole trial."""
    state, outputs = net.initial_state(len(inputs)) if state is None else state, []
    for t in range(inputs.shape[1]):
        output, state = net.step(inputs[:, t], state, None if observed is None else observed[:, t])
        outputs.append(output)
    return {name: torch.stack([output[name] for output in outputs], dim=1) for name in outputs[0]}


NETWORKS = {
    "gru": gru,
    "gru in steps": lambda **partial: gru(stride=3, **partial),
    "gru smoothed": lambda **partial: gru(smoothed=(1.0, 3.0), **partial),
    "gru smoothed in steps": lambda **partial: gru(stride=3, smoothed=(0.5, 2.0), width=4, **partial),
    "gru embedded": lambda **partial: gru(count_width=2, max_count=1, stride=2, **partial),
    "gru, three bins late": lambda **partial: gru(lag=3, **partial),
    "gru in steps, two bins late": lambda **partial: gru(stride=3, lag=2, **partial),
    "ndt": ndt,
    "ndt in steps, four bins late": lambda **partial: ndt(stride=3, fixed_lag_ms=4, **partial),
    "ndt in steps, post-norm": lambda **partial: ndt(stride=3, pre_norm=False, positions="sinusoidal", **partial),
    "ndt with a window": lambda **partial: ndt(context=(0, 2), reach=(1, 3), **partial),
    "ndt smoothed": lambda **partial: ndt(stride=2, reach=(1, 3), smoothed=(1.0, 2.0), counts=False, **partial),
    "stndt": stndt,
    "stndt of neurons": lambda **partial: stndt(stride=3, width=None, reach=(1, 3), **partial),
    "stndt smoothed, with a window": lambda **partial: stndt(
        stride=2, width=4, context=(0, 2), smoothed=(1.0,), fixed_lag_ms=3, **partial
    ),
    "ndt embedded": lambda **partial: ndt(count_width=2, max_count=1, **partial),
}


@pytest.mark.parametrize("partial", [False, True], ids=["all recorded", "some missing"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_bin_is_that_of_the_whole_trial(name, partial):
    """Also where counts are missing, whether or not the network was trained with missing ones."""
    torch.manual_seed(0)
    inputs, observed = torch.poisson(torch.ones(3, 10, 5)), torch.rand(3, 10, 5) < 0.6
    observed[:, -1] = True  # bins at the end without any are padding, which no experiment has
    net = NETWORKS[name](partial=partial).eval().double()
    torch.nn.init.normal_(net.readout.linear.weight)
    for given in ([inputs.double()], [inputs.double(), observed]):
        whole, bins = net(*given), by_bins(net, *given)
        assert set(bins) == {"log_rates", "latents"}
        for key, values in bins.items():
            torch.testing.assert_close(values[:, net.lag :], whole[key][:, : 10 - net.lag], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_neurons", [8, 5], ids=["some held out", "none held out"])
def test_causal_smoothing_bin_by_bin(n_neurons):
    torch.manual_seed(0)
    inputs, observed = torch.poisson(torch.ones(3, 40, 5)), torch.rand(3, 40, 5) < 0.6
    net = smoothing(n_neurons=n_neurons)
    for given in ([inputs], [inputs, observed]):
        whole = net(*given)
        for key, values in by_bins(net, *given).items():
            torch.testing.assert_close(values, whole[key][:, :40], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 3])
def test_a_filtered_gaussian_process_bin_by_bin(stride):
    """In a trial that is longer than those of the training, too."""
    net, inputs = gpfa(stride), torch.poisson(torch.ones(3, 16, 5))
    whole = net(inputs)
    for key, values in by_bins(net, inputs).items():
        torch.testing.assert_close(values, whole[key][:, :16], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 3])
def test_a_filtered_linear_dynamical_system_bin_by_bin(stride):
    net = plds(stride)
    inputs = torch.poisson(torch.ones(3, 11, 5))
    whole = net(inputs)
    for key, values in by_bins(net, inputs).items():
        torch.testing.assert_close(values, whole[key][:, :11], rtol=1e-6, atol=1e-6)
    state = net.initial_state(1)
    unseen = net.step(torch.zeros(1, 5), state, torch.zeros(1, 5, dtype=torch.bool))[1]
    if stride == 1:
        torch.testing.assert_close(unseen["latents"][0], net.first_mean)  # without counts the prior is what is known


def test_what_is_missing_is_no_zero():
    """A network that was trained with all neurons takes one that is gone for one at its mean."""
    net = gru().eval()
    inputs, there = torch.poisson(torch.ones(1, 10, 5)), torch.ones(1, 10, 5, dtype=torch.bool)
    there[..., 2] = False
    mean = inputs.clone()
    mean[..., 2] = MEAN[2]
    torch.testing.assert_close(by_bins(net, inputs, there), by_bins(net, mean))


# ---- a stream


def stream_of(net, **spec) -> Stream:
    return Stream(net, spec_of(mean_rates=MEAN, **spec))


@pytest.mark.parametrize("make", [gru, ndt, smoothing])
def test_a_state_is_saved_and_gone_back_to(make, tmp_path):
    torch.manual_seed(0)
    counts, stream = np.random.default_rng(0).poisson(1, (10, 5)), stream_of(make())
    assert stream.state == {}
    for t in range(4):
        stream.step(counts[t])
    torch.save(stream.state, tmp_path / "state.pt")
    rest = [stream.step(counts[t]).rates for t in range(4, 10)]
    other = stream_of(make())
    other.network.load_state_dict(stream.network.state_dict())
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.bins == 4
    np.testing.assert_array_equal([other.step(counts[t]).rates for t in range(4, 10)], rest)
    stream.reset()
    first = stream.step(counts[0]).rates
    other.load_state({})
    np.testing.assert_array_equal(other.step(counts[0]).rates, first)


def test_a_batch_is_its_trials_side_by_side():
    counts, stream = np.random.default_rng(0).poisson(1, (10, 3, 5)), stream_of(gru())
    together = np.stack([stream.step(part).rates for part in counts])
    for trial in range(3):
        stream.reset()
        alone = np.stack([stream.step(part).rates for part in counts[:, trial]])
        np.testing.assert_allclose(together[:, trial], alone, rtol=1e-5)
    assert together.shape == (10, 3, 8) and alone.shape == (10, 8)


def test_nan_and_the_mask_say_the_same():
    counts = np.random.default_rng(0).poisson(1, (10, 5)).astype(float)
    one, other = stream_of(gru(partial=True).eval()), stream_of(None or gru(partial=True).eval())
    other.network.load_state_dict(one.network.state_dict())
    present = np.array([True, False, True, True, True])
    for part in counts:
        missing = np.where(present, part, np.nan)
        np.testing.assert_array_equal(one.step(part, present).rates, other.step(missing).rates)


@pytest.mark.parametrize("make", [gru, ndt, smoothing, plds, gpfa])
def test_bins_that_never_come_are_missing_and_those_that_come_again_change_nothing(make):
    """Of the bins 0 1 4 3 4 5, 2 and 3 are missing: 3 has come too late, and 4 twice."""
    counts, net = np.random.default_rng(0).poisson(1, (6, 5)), make()
    stream = stream_of(net)
    bins = [stream.step(counts[number], number=number) for number in (0, 1, 4, 3, 4, 5)]
    assert bins[3] is bins[4] is bins[2] and (stream.missing, stream.dropped, stream.bins) == (2, 2, 6)
    stream.reset()
    gone = np.full(5, np.nan)
    expected = [stream.step(each).rates for each in (counts[0], counts[1], gone, gone, counts[4], counts[5])]
    np.testing.assert_array_equal([bins[0].rates, bins[1].rates, bins[2].rates, bins[5].rates],
                                  [expected[at] for at in (0, 1, 4, 5)])  # fmt: skip
    with pytest.raises(DataError, match="bin 200 comes after bin 5"):
        stream.step(counts[0], number=200)


def test_a_trial_may_begin_with_bins_that_are_missing():
    stream = stream_of(gru())
    first = stream.step(np.ones(5), number=2)
    assert stream.missing == 2 and stream.bins == 3 and np.isfinite(first.rates).all()


def test_an_answer_that_is_late_is_about_an_earlier_bin():
    stream = stream_of(gru(lag=3))
    assert stream.lag == 3
    rates = np.stack([stream.step(np.ones(5)).rates for _ in range(6)])
    assert np.isnan(rates[:3]).all() and np.isfinite(rates[3:]).all()


@pytest.mark.parametrize(("lag", "bidirectional"), [(10, False), (-1, False), (2, True)])
def test_a_lag_that_makes_no_sense_is_refused(lag, bidirectional):
    with pytest.raises(ConfigError, match=f"model.fixed_lag_ms={lag}"):
        Steps.of(spec_of(), 1, causal=not bidirectional, lag_ms=lag)


def test_bad_bins_are_refused_in_one_line():
    stream = stream_of(ndt())
    with pytest.raises(DataError, match=r"shape \(4,\); the model takes \(5,\) or \(B, 5\)"):
        stream.step(np.zeros(4))
    with pytest.raises(DataError, match="bin 0 has negative counts"):
        stream.step(np.full(5, -1))
    with pytest.raises(DataError, match="present must be bool, True for each of the 5 neurons"):
        stream.step(np.zeros(5), np.ones(4, dtype=bool))
    for _ in range(10):
        stream.step(np.zeros(5))
    with pytest.raises(DataError, match="more than the 10 bins"):
        stream.step(np.zeros(5))
    stream.reset()
    stream.step(np.zeros(5))
    with pytest.raises(DataError, match=r"after \(5,\): reset\(\)"):
        stream.step(np.zeros((2, 5)))
    with pytest.raises(DataError, match="another model"):
        stream.load_state({**stream.state, "latents": torch.zeros(1, 3)})
    with pytest.raises(DataError, match="no state of a stream"):
        stream.load_state({"latents": torch.zeros(1, 3)})


def test_a_recurrent_network_runs_on():
    stream = stream_of(gru(smoothed=(1.0,)))
    assert stream.longest is None
    assert all(np.isfinite(stream.step(np.ones(5)).rates).all() for _ in range(50))


@pytest.mark.parametrize("make", [gru, smoothing, plds, gpfa])
def test_what_is_remembered_does_not_grow(make):
    stream, sizes = stream_of(make()), []
    for _ in range(300):
        stream.step(np.ones(5))
        sizes.append(sum(value.numel() for value in stream.state.values()))
    assert len(set(sizes)) == 1


def test_a_stream_leaves_nothing_to_the_garbage_collector():
    """So that a program may turn it off."""
    stream = stream_of(ndt())
    for _ in range(5):
        stream.step(np.ones(5))
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            stream.step(np.ones(5))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_stream_does_not_keep_the_arrays_that_it_is_given():
    """A program may write the next bin into the same array."""
    counts = np.random.default_rng(0).poisson(1, (10, 5)).astype(np.float32)
    one, other, shared = stream_of(smoothing()), stream_of(smoothing()), np.empty(5, np.float32)
    other.network.load_state_dict(one.network.state_dict())
    for each in counts:
        shared[:] = each
        found = one.step(shared).rates
        shared[:] = -1
        np.testing.assert_array_equal(found, other.step(each).rates)


def test_traces_and_several_sessions_are_refused():
    with pytest.raises(ConfigError, match="a stream takes spikes, not traces"):
        Stream(gru(), DataSpec("mine", "traces", n_in=N_IN, n_out=N_OUT))
    sessions = (spec_of(session="monday"), spec_of(session="tuesday"))
    with pytest.raises(ConfigError, match="session=NAME, monday, tuesday"):
        Stream(gru(), DataSpec("mine", sessions=sessions))
