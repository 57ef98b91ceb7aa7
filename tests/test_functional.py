"""The tensor maths against closed forms, scikit-learn, SciPy and the benchmark's own tool."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nlb_tools import evaluation as nlb
from scipy.ndimage import gaussian_filter1d
from scipy.special import gammaln
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score as sklearn_r2
from sklearn.model_selection import GridSearchCV, KFold

from neuro_lightning import losses
from neuro_lightning.functional import correlation, likelihood, psth, ridge, smoothing, timing

EXACT = {"rel": 1e-12, "abs": 1e-12}


def spikes_and_rates(seed: int, shape=(7, 11, 5), silent=True, nan=True, zero=True):
    """Counts and unrelated rates with everything that makes scores go wrong."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(1.0, 0.3, shape)
    counts = rng.poisson(rng.gamma(1.0, 0.3, shape)).astype(float)
    if silent:
        counts[..., 1] = 0
    if zero:
        rates[rng.random(shape) < 0.1] = 0
    if nan:
        counts[:2, : shape[1] // 2] = np.nan
        counts[3, :, 2] = np.nan  # neurons may be observed for different times
    return rates, counts


# likelihood


def test_poisson_nll_is_the_closed_form():
    rates, counts = spikes_and_rates(0, nan=False, zero=False)
    expected = (rates - counts * np.log(rates) + gammaln(counts + 1)).sum()
    assert float(likelihood.poisson_nll(torch.tensor(rates), torch.tensor(counts))) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("halves", [False, True])
def test_counts_of_zero_and_one_add_no_factorial(halves):
    """To the bit as if the logarithm of the factorial were taken of all."""
    rates = torch.rand(500, 30, generator=torch.manual_seed(0), dtype=torch.float64)
    counts = torch.poisson(rates * 2)
    counts += 0.5 * halves * (rates > 0.5)
    plain = (rates - counts * rates.log() + torch.lgamma(counts + 1)).sum()
    assert torch.equal(likelihood.poisson_nll(rates, counts), plain)


@pytest.mark.parametrize("seed", range(5))
def test_likelihood_equals_the_reference(seed):
    rates, counts = spikes_and_rates(seed)
    nll = likelihood.poisson_nll(torch.tensor(rates), torch.tensor(counts))
    bits = likelihood.bits_per_spike(torch.tensor(rates), torch.tensor(counts))
    assert float(nll) == pytest.approx(nlb.neg_log_likelihood(rates.copy(), counts), **EXACT)
    assert float(bits) == pytest.approx(nlb.bits_per_spike(rates.copy(), counts), **EXACT)


def test_a_rate_of_zero_costs_what_one_in_a_billion_costs_and_tiny_rates_are_left_alone():
    one = torch.ones(1, 1)
    cost = float(likelihood.poisson_nll(torch.zeros(1, 1), one))
    assert cost == pytest.approx(-math.log(1e-9), rel=1e-9)
    assert float(likelihood.poisson_nll(one.double() * 1e-12, one)) == pytest.approx(-math.log(1e-12), rel=1e-9)


def test_what_is_masked_never_matters():
    rates, counts = (torch.tensor(a) for a in spikes_and_rates(1, nan=False))
    mask = torch.rand(rates.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    clean = likelihood.bits_per_spike(rates, counts, mask)
    assert torch.isfinite(clean)
    rates[~mask], counts[~mask] = torch.nan, torch.nan
    assert likelihood.bits_per_spike(rates, counts, mask) == clean
    assert likelihood.bits_per_spike(rates, counts.nan_to_num(1e6), mask) == clean
    assert likelihood.bits_per_spike(rates, counts) == clean


def test_nan_counts_are_left_out_even_inside_the_mask():
    rates, counts = (torch.tensor(a) for a in spikes_and_rates(2))
    everything = torch.ones(rates.shape, dtype=torch.bool)
    assert likelihood.bits_per_spike(rates, counts, everything) == likelihood.bits_per_spike(rates, counts)


def test_bits_are_zero_for_mean_rates_and_shift_sensitive():
    rng = np.random.default_rng(3)
    rates = torch.tensor(rng.gamma(1.0, 0.5, (20, 30, 4)))
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(1))
    mean = counts.mean((0, 1)).expand_as(counts)
    assert float(likelihood.bits_per_spike(mean, counts)) == pytest.approx(0, abs=1e-12)
    true = likelihood.bits_per_spike(rates, counts)
    assert true > 0.1 > likelihood.bits_per_spike(rates.roll(1, dims=1), counts)


def test_bits_of_each_neuron():
    rates, counts = spikes_and_rates(4)
    sums = likelihood.spike_sums(torch.tensor(rates), torch.tensor(counts))
    each = likelihood.bits_per_spike_from_sums(sums, per_neuron=True)
    assert each[1].isnan()  # silent
    for n in (0, 2, 3, 4):
        expected = nlb.bits_per_spike(rates[..., n : n + 1].copy(), counts[..., n : n + 1])
        assert float(each[n]) == pytest.approx(expected, **EXACT)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_sums_of_parts_are_the_sums_of_the_whole(seed, cut):
    rates, counts = (torch.tensor(a) for a in spikes_and_rates(seed))
    parts = [likelihood.spike_sums(rates[s], counts[s]) for s in (slice(cut), slice(cut, None))]
    whole = likelihood.bits_per_spike(rates, counts)
    summed = likelihood.bits_per_spike_from_sums(likelihood.SpikeSums(*map(torch.add, *parts)))
    assert float(summed) == pytest.approx(float(whole), **EXACT)


def test_negative_rates_have_no_score():
    assert likelihood.bits_per_spike(torch.tensor([[-0.1], [0.1]]), torch.tensor([[0.0], [1.0]])).isnan()


# loss


def test_loss_is_torch_s_poisson_loss_over_the_mask():
    rates, counts = (torch.tensor(a, dtype=torch.float32) for a in spikes_and_rates(5, nan=False, zero=False))
    mask = torch.rand(rates.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    total, number = losses.poisson({"log_rates": rates.log()}, counts, mask, None)
    expected = torch.nn.functional.poisson_nll_loss(rates.log()[mask], counts[mask], reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert number == mask.sum()


def test_loss_never_sees_what_is_masked():
    log_rates = torch.zeros(2, 3, 4, requires_grad=True)
    poisoned = torch.zeros(2, 3, 4).index_fill(1, torch.tensor([2]), torch.inf).requires_grad_()
    counts = torch.ones(2, 3, 4).index_fill(1, torch.tensor([2]), torch.nan)
    mask = ~counts.isnan()
    for values in (log_rates, poisoned):
        total, number = losses.poisson({"log_rates": values}, counts, mask, None)
        total.backward()
        assert total == number == 16
        assert values.grad.isfinite().all() and (values.grad[:, 2] == 0).all()


def test_loss_is_computed_in_float32():
    half = torch.full((1, 1, 1), 12.0, dtype=torch.float16)  # exp(12) overflows float16
    total, number = losses.poisson(
        {"log_rates": half}, torch.ones(1, 1, 1, dtype=torch.uint8), torch.ones(1, 1, 1, dtype=torch.bool), None
    )
    assert total.dtype == number.dtype == torch.float32
    assert float(total) == pytest.approx(math.exp(12) - 12, rel=1e-6)


# correlation


def test_r2_equals_scikit_learn_for_targets_that_do_not_vary_too():
    rng = np.random.default_rng(0)
    target, prediction = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    target[:, 1] = prediction[:, 1] = 2  # constant and met
    target[:, 2] = 0  # constant and missed
    target[:, 3] = prediction[:, 3]
    score = correlation.r2_score(torch.tensor(target), torch.tensor(prediction))
    assert float(score) == pytest.approx(sklearn_r2(target, prediction), **EXACT)
    assert correlation.r2_score(torch.ones(1, 2), torch.ones(1, 2)).isnan()
    assert correlation.r2_score(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [torch.inf]])).isnan()
    one_bad = torch.tensor([[0.0, torch.nan], [1.0, 1.0]])  # one output of two has no score: neither has the mean
    assert correlation.r2_score(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), one_bad).isnan()


@pytest.mark.parametrize("n", [2, 3, 50])
def test_pearson_equals_scipy(n):
    x, y = np.random.default_rng(n).normal(size=(2, n))
    assert float(correlation.pearson(torch.tensor(x), torch.tensor(y))) == pytest.approx(pearsonr(x, y)[0], **EXACT)
    assert correlation.pearson(torch.tensor(x), torch.ones(n)).isnan()
    assert correlation.pearson(torch.tensor(x[:1]), torch.tensor(y[:1])).isnan()


# ridge


def grid_search(x, y):
    return GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}).fit(x, y)


def regression_data(case: str, n=203, p=12, k=2):
    rng = np.random.default_rng(len(case))
    x = rng.gamma(2.0, 0.01, (n, p))
    y = 50 * (x[:, :k] - x[:, 2 : 2 + k]) + rng.normal(size=(n, k))
    if case == "collinear":
        x[:, 1], x[:, 3] = x[:, 0], x[:, 0] + 1e-9 * x[:, 2]
    elif case == "constant predictors":
        x[:, :4] = 0.3
    elif case == "no predictors":
        x[:] = 0.25
    elif case == "constant target":
        y[:, 1] = 3
    elif case == "more predictors than rows":
        x, y = np.tile(x, 20)[:25] + rng.gamma(1, 0.01, (25, 20 * p)), y[:25]
    elif case == "large mean":
        x += 100
    elif case == "five rows":
        x, y = x[:5], y[:5]
    return x, y


@pytest.mark.parametrize(
    "case",
    ["plain", "collinear", "constant predictors", "no predictors", "constant target", "more predictors than rows",
     "large mean", "five rows", "strong noise in one of the folds"],
)  # fmt: skip
def test_ridge_search_equals_grid_search(case):
    x, y = regression_data(case)
    reference = grid_search(x, y)
    fold = ridge.contiguous_folds(torch.ones(len(x), dtype=torch.bool))
    shift = x.mean(0)
    grams = ridge.fold_grams(torch.tensor(x - shift), torch.tensor(y), fold)
    fit, scores = ridge.ridge_search(grams, y.shape[1])
    assert scores.numpy() == pytest.approx(reference.cv_results_["mean_test_score"], rel=1e-9, abs=1e-9, nan_ok=True)
    np.testing.assert_allclose(fit.weight.numpy().T, reference.best_estimator_.coef_, rtol=1e-6, atol=1e-8)
    x_new, y_new = regression_data("plain")
    x_new = np.resize(x_new, (len(x_new), x.shape[1]))
    score = ridge.ridge_r2(ridge.gram(torch.tensor(x_new - shift), torch.tensor(y_new)), fit)
    assert float(score) == pytest.approx(reference.score(x_new, y_new), rel=1e-9, abs=1e-9)


def test_the_penalties_are_the_benchmark_s():
    np.testing.assert_allclose(ridge.ALPHAS, np.logspace(-4, 0, 9), rtol=1e-15)


def test_of_equal_scores_the_first_penalty_wins():
    x, y = regression_data("no predictors")
    grams = ridge.fold_grams(torch.zeros(x.shape), torch.tensor(y), ridge.contiguous_folds(torch.ones(len(x)).bool()))
    _, scores = ridge.ridge_search(grams, 2)
    assert len(set(scores.tolist())) == 1
    assert grid_search(x, y).best_index_ == scores.argmax() == 0


def test_ridge_has_no_answer_for_too_few_rows_or_for_nan():
    grams = ridge.fold_grams(torch.rand(4, 2), torch.rand(4, 1), torch.arange(4))
    assert ridge.ridge_search(grams, 1)[0].weight.isnan().all()
    assert ridge.ridge_search(torch.full((5, 4, 4), torch.nan), 1)[0].bias.isnan().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=0, max_size=60))
def test_folds_are_those_of_kfold(used):
    fold = ridge.contiguous_folds(torch.tensor(used, dtype=torch.bool)).numpy()
    assert (fold[~np.array(used, dtype=bool)] == -1).all()
    kept = fold[np.array(used, dtype=bool)]
    if len(kept) >= 5:
        for k, (_, test) in enumerate(KFold(5).split(kept)):
            assert (np.flatnonzero(kept == k) == test).all()


def test_decode_folds_skip_unknown_behavior_and_keep_groups_apart():
    behavior = torch.zeros(6, 5, 2)
    behavior[1, 3:, 0] = torch.nan
    behavior[2, :, 1] = torch.nan  # any channel hides the bin
    groups = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    fold = ridge.decode_folds(behavior, groups)
    assert fold.shape == (6, 5, 2) and fold.dtype == torch.int8
    assert (fold[:3, :, 1] == -1).all() and (fold[3:, :, 0] == -1).all()
    assert (fold[..., 0] >= 0).sum() == 8 and (fold[1, 3:, 0] == -1).all() and (fold[2] == -1).all()
    assert fold[3:, :, 1].flatten().tolist() == [k for k in range(5) for _ in range(3)]
    assert (ridge.decode_folds(behavior) >= 0).sum() == 23


# smoothing


@pytest.mark.parametrize("sd", [0.7, 3.0])
def test_smoothing_equals_a_filter_inside_the_window(sd):
    counts = torch.poisson(torch.full((2, 60, 3), 0.5), generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter1d(counts.double().numpy(), sd, axis=1, mode="constant", truncate=10)
    inside = smoothing.gaussian_smooth(counts, sd)[:, 25:35].numpy()
    assert inside == pytest.approx(expected[:, 25:35], abs=1e-6)


def test_smoothing_keeps_constants():
    counts = torch.full((1, 20, 2), 3.0)
    for causal in (False, True):
        assert smoothing.gaussian_smooth(counts, 4.0, causal=causal).numpy() == pytest.approx(3.0)


def test_causal_smoothing_ignores_the_future():
    counts = torch.rand(1, 12, 2)
    changed = counts.clone()
    changed[:, 7:] += 5
    smooth = [smoothing.gaussian_smooth(c, 3.0, causal=True)[:, :7] for c in (counts, changed)]
    assert torch.equal(*smooth)
    assert not torch.equal(*[smoothing.gaussian_smooth(c, 3.0)[:, :7] for c in (counts, changed)])


def test_smoothing_extrapolates_from_the_last_bins():
    counts = torch.zeros(1, 50, 1).index_fill(1, torch.tensor([49]), 1.0)
    for causal in (False, True):
        smooth = smoothing.gaussian_smooth(counts, 2.0, causal=causal, n_out=400)
        assert smooth.shape == (1, 400, 1) and smooth.isfinite().all()
        assert smooth[0, -1, 0] == pytest.approx(1)
        assert torch.equal(smooth[:, :50], smoothing.gaussian_smooth(counts, 2.0, causal=causal))


def test_smoothing_takes_integers_gradients_and_refuses_nonsense():
    assert smoothing.gaussian_smooth(torch.ones(1, 5, 1, dtype=torch.uint8), 1.0).dtype == torch.float32
    sd = torch.tensor(2.0, requires_grad=True)
    smoothing.gaussian_smooth(torch.rand(1, 9, 1), sd).square().sum().backward()
    assert sd.grad.isfinite() and sd.grad != 0
    with pytest.raises(ValueError, match="positive"):
        smoothing.gaussian_smooth(torch.ones(1, 5, 1), 0.0)


# PSTHs and timing


def psth_data(seed: int):
    """Rates of 9 trials in 4 conditions (one without trials), PSTHs padded with NaN in front, jitter both ways."""
    rng = np.random.default_rng(seed)
    rates, true = rng.random((9, 12, 3)), rng.random((4, 12, 3))
    true[0, :4], true[2, :5] = np.nan, np.nan
    condition = np.array([0, 0, 3, -1, 2, 2, 3, 3, 2])
    true[..., 2] = 0  # a silent neuron
    return rates, true, condition, np.array([0, 3, 0, 5, 2, 0, 0, 0, 4])


@pytest.mark.parametrize("seed", range(3))
def test_psth_r2_equals_the_reference(seed):
    rates, true, condition, jitter = psth_data(seed)
    groups = [np.flatnonzero(condition == c) for c in range(4)]
    for shift in (jitter, None):
        sums = psth.condition_sums(
            torch.tensor(rates), torch.tensor(condition), 4, None if shift is None else torch.tensor(shift)
        )
        expected = nlb.eval_psth(true, rates, groups, jitter=shift)
        assert float(psth.psth_r2(torch.tensor(true), *sums)) == pytest.approx(expected, **EXACT)


def test_a_shift_into_scored_bins_has_no_score():
    rates, true, condition, jitter = (torch.tensor(a) for a in psth_data(0))
    jitter[2] = 1  # condition 3 is scored from its first bin on
    assert psth.psth_r2(true, *psth.condition_sums(rates, condition, 4, jitter)).isnan()


def test_shift_trials_moves_both_ways():
    rates = torch.arange(4.0).view(1, 4, 1).repeat(2, 1, 1)
    moved = psth.shift_trials(rates, torch.tensor([1, -2]))[..., 0]
    assert moved[0].isnan().tolist() == [True, False, False, False] and moved[0, 1:].tolist() == [0, 1, 2]
    assert moved[1].isnan().tolist() == [False, False, True, True] and moved[1, :2].tolist() == [2, 3]


def test_neural_speed_and_its_correlation_equal_the_reference():
    rng = np.random.default_rng(0)
    rates, spikes = rng.random((40, 15, 4)), np.zeros((40, 15, 2))
    for b in range(40):
        spikes[b, : rng.integers(0, 10)] = np.nan
        spikes[b, 15 - rng.integers(0, 4) :] = np.nan
    spikes[3, 11] = np.nan  # a gap
    behavior = np.column_stack([rng.integers(0, 2, (40, 3)) * 1.0, rng.random((40, 2))])
    behavior[[5, 9]] = np.nan
    speed = timing.neural_speed(torch.tensor(rates), ~torch.tensor(spikes[..., 0]).isnan())
    corr = timing.grouped_correlation(speed, torch.tensor(behavior[:, 4]), torch.tensor(behavior[:, :3]))
    assert float(corr) == pytest.approx(nlb.speed_tp_correlation(spikes, rates, behavior), **EXACT)


def test_speed_needs_two_bins_and_a_group_two_trials():
    rates = torch.rand(2, 5, 3)
    scored = torch.tensor([[False, True, False, False, False], [False, True, True, False, False]])
    speed = timing.neural_speed(rates, scored)
    assert speed[0].isnan() and float(speed[1]) == pytest.approx(float((rates[1, 2] - rates[1, 1]).norm()))
    x, y = torch.tensor([1.0, 2, 3, 9]), torch.tensor([3.0, 2, 1, 5])
    groups = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    assert float(timing.grouped_correlation(x, y, groups)) == pytest.approx(-1)
    assert timing.grouped_correlation(x[3:], y[3:], groups[3:]).isnan()


def test_a_group_of_two_trials_has_a_correlation_and_counts_as_much_as_a_larger_one():
    x, y = torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])
    groups = torch.tensor([[0.0], [0.0], [1.0], [1.0], [1.0]])
    assert float(timing.grouped_correlation(x, y, groups)) == pytest.approx(0)  # of 1 and -1
