"""Noise ceilings and shares of explainable variance against plain restatements of their definitions."""

import math

import numpy as np
import pytest
import torch

from neuro_lightning.functional import explainable as ex

B, R, N = 40, 6, 5


def responses(images: int = B, repeats: int = R, neurons: int = N, noise: float = 1.0, seed: int = 0):
    """True means (B, N) and single responses (B, R, N), far from zero so that sums must be taken with care."""
    rng = np.random.default_rng(seed)
    means = 50 + rng.gamma(2, 1, (images, neurons))
    return means, means[:, None] + noise * rng.normal(size=(images, repeats, neurons))


def uneven(y: np.ndarray, seed: int = 1) -> np.ndarray:
    """Every image keeps between none and all of its repeats, each neuron other ones."""
    rng = np.random.default_rng(seed)
    y = y.copy()
    keep = rng.integers(0, y.shape[1] + 1, (len(y), 1, y.shape[2]))
    keep[:4] = np.array([0, 1, 2, y.shape[1]])[:, None, None]
    y[np.arange(y.shape[1])[None, :, None] >= keep] = np.nan
    return y


def lists(y: np.ndarray, n: int) -> list[np.ndarray]:
    """The repeats of each image, as a list for the plain restatements."""
    return [image[~np.isnan(image)] for image in y[:, :, n]]


@pytest.fixture(params=["complete", "uneven"])
def repeats(request):
    y = responses()[1]
    return y if request.param == "complete" else uneven(y)


def test_variances_and_oracles_are_their_definitions(repeats):
    found = ex.explainable(torch.from_numpy(repeats))
    for n in range(N):
        shown = [image for image in lists(repeats, n) if len(image)]
        several = [image for image in shown if len(image) > 1]
        s_n, s_t = np.mean([image.var(ddof=1) for image in several]), np.concatenate(shown).var(ddof=1)
        averages = np.array([image.mean() for image in shown])
        pairs = [(image[r], np.delete(image, r).mean()) for image in several for r in range(len(image))]
        expected = {
            "noise_variance": s_n,
            "total_variance": s_t,
            "fev": (s_t - s_n) / s_t,
            "oracle": np.corrcoef(np.array(pairs).T)[0, 1],
            "conservative_oracle": math.sqrt(averages.var() / (averages.var() + s_n)),
            "average_noise": s_n * np.mean([1 / len(image) for image in shown]),
        }
        assert {name: float(getattr(found, name)[n]) for name in expected} == pytest.approx(expected, rel=1e-9)


def test_signal_power_and_cc_max_are_those_of_schoppe_et_al():
    means, y = responses()
    found, prediction = ex.explainable(torch.from_numpy(y)), means + np.sin(means)
    norm = ex.cc_norm(torch.from_numpy(y), torch.from_numpy(prediction))
    for n in range(N):
        single, average = y[:, :, n], y[:, :, n].mean(1)
        power = (single.sum(1).var(ddof=1) - single.var(0, ddof=1).sum()) / (R * (R - 1))
        assert float(found.signal_power[n]) == pytest.approx(power, rel=1e-9)
        assert float(found.cc_max[n]) == pytest.approx(math.sqrt(power / average.var(ddof=1)), rel=1e-9)
        covariance = np.cov(average, prediction[:, n])[0, 1]
        expected = covariance / math.sqrt(prediction[:, n].var(ddof=1) * power)
        assert float(norm[n]) == pytest.approx(expected, rel=1e-9)


def test_scores_of_predictions_are_their_definitions(repeats):
    prediction = responses()[0] ** 1.1
    y, p = torch.from_numpy(repeats), torch.from_numpy(prediction)
    found, feve = ex.explainable(y), ex.feve(y, p)
    for n in range(N):
        flat = [(value, prediction[b, n]) for b, image in enumerate(lists(repeats, n)) for value in image]
        values, guesses = np.array(flat).T
        s_n, s_t = float(found.noise_variance[n]), float(found.total_variance[n])
        assert float(feve[n]) == pytest.approx(1 - (((values - guesses) ** 2).mean() - s_n) / (s_t - s_n), rel=1e-9)
        assert float(ex.trial_correlation(y, p)[n]) == pytest.approx(np.corrcoef(values, guesses)[0, 1], rel=1e-9)
        shown = [(image.mean(), prediction[b, n]) for b, image in enumerate(lists(repeats, n)) if len(image)]
        expected = np.corrcoef(np.array(shown).T)[0, 1]
        assert float(ex.average_correlation(y, p)[n]) == pytest.approx(expected, rel=1e-9)


def test_the_truth_reaches_the_ceilings_and_the_mean_explains_nothing():
    means, y = responses(3000, 4, 3, noise=2.0)
    y, truth = torch.from_numpy(y), torch.from_numpy(means)
    constant = y.mean((0, 1)).expand_as(truth)
    assert ex.feve(y, truth).numpy() == pytest.approx(1, abs=0.06)
    assert ex.feve(y, constant).numpy() == pytest.approx(0, abs=1e-3)
    ceilings, noise = ex.ceilings(y), truth.var(0)
    assert ceilings["corr"] == pytest.approx(float(ex.average_correlation(y, truth).mean()), abs=0.02)
    assert ceilings["corr"] == pytest.approx(float((noise / (noise + 1)).sqrt().mean()), abs=0.02)
    assert ceilings["trial_corr"] == pytest.approx(float(ex.trial_correlation(y, truth).mean()), abs=0.02)
    error = (y.mean(1) - truth).square()
    assert ceilings["rmse"] == pytest.approx(float(error.mean().sqrt()), rel=0.03)
    assert ceilings["rmse_columns"] == pytest.approx(float(error.mean(0).sqrt().mean()), rel=0.03)
    found = ex.explainable(y)
    slope = float(ex.oracle_fraction(ex.trial_correlation(y, truth), found.oracle))
    assert ceilings["oracle_fraction"] == pytest.approx(slope, rel=0.03)
    assert slope > 1.05  # the leave-one-out oracle has noise of its own
    # the first oracle is too low, the second too high
    assert (found.oracle < found.trial_max).all() and (found.trial_max < found.conservative_oracle).all()
    assert ceilings["feve"] == ceilings["cc_norm"] == 1 and ceilings["feve_neurons"] == 3


def test_unequal_numbers_of_repeats_do_not_bias_signal_or_noise():
    means, y = responses(4000, 5, 2, noise=1.5, seed=3)
    found = ex.explainable(torch.from_numpy(uneven(y)))
    assert found.signal_power.numpy() == pytest.approx(means.var(0), rel=0.12)
    assert found.noise_variance.numpy() == pytest.approx(2.25, rel=0.05)


def test_signal_power_takes_pairs_of_repeats_from_the_images_that_have_both():
    """Far from zero a sum over other images than those of the product would be off by orders of magnitude."""
    y = uneven(responses()[1])
    found = ex.explainable(torch.from_numpy(y)).signal_power
    for n in range(N):
        scatter = freedom = 0.0
        for r in range(R):
            for s in set(range(R)) - {r}:
                both = y[~np.isnan(y[:, r, n] + y[:, s, n]), :, n][:, [r, s]]
                if len(both) > 1:
                    scatter += np.cov(both.T)[0, 1] * (len(both) - 1)
                    freedom += len(both) - 1
        assert float(found[n]) == pytest.approx(scatter / freedom, rel=1e-9)


def test_pooled_and_columnwise_rmse_ceilings_weigh_neurons_by_their_images():
    y = np.sqrt([1.0, 9.0]) * responses(neurons=2)[1]
    y[10:, :, 1] = np.nan  # the noisy neuron was shown a quarter of the images
    y, noise = torch.from_numpy(y), ex.explainable(torch.from_numpy(y)).average_noise
    found = ex.ceilings(y)
    assert found["rmse"] == pytest.approx(math.sqrt(float(noise[0] * B + noise[1] * 10) / (B + 10)))
    assert found["rmse_columns"] == pytest.approx(float(noise.sqrt().mean()))


def test_one_repeat_leaves_no_ceiling():
    means, y = responses(repeats=1)
    y = torch.from_numpy(y)
    found = ex.explainable(y)
    for name in set(found._fields) - {"total_variance"}:
        assert getattr(found, name).isnan().all(), name
    assert found.total_variance.isfinite().all()
    assert ex.feve(y, torch.from_numpy(means)).isnan().all()
    assert all(math.isnan(value) for value in ex.ceilings(y).values())
    assert ex.trial_correlation(y, y[:, 0]).numpy() == pytest.approx(1)


def test_images_without_repeats_count_nowhere():
    means, y = responses()
    padded = np.concatenate([y[:7], np.full((3, R, N), np.nan), y[7:]])
    found, expected = (ex.explainable(torch.from_numpy(v)) for v in (padded, y))
    for name in found._fields:
        assert getattr(found, name).numpy() == pytest.approx(getattr(expected, name).numpy(), rel=1e-9), name
    prediction = torch.from_numpy(np.insert(means, [7, 7, 7], np.nan, axis=0))  # even a prediction of NaN does not
    assert torch.allclose(
        ex.feve(torch.from_numpy(padded), prediction), ex.feve(torch.from_numpy(y), torch.from_numpy(means))
    )


def test_constant_neurons_have_no_ceiling_and_no_correlation():
    means, y = responses(neurons=3)
    y[:, :, 1] = 0.1
    y[:, :, 2] = means[:, None, 2]  # no noise at all
    y, p = torch.from_numpy(y), torch.from_numpy(means)
    found = ex.explainable(y)
    assert found.fev[1].isnan() and found.cc_max[1].isnan() and found.oracle[1].isnan()
    assert found.conservative_oracle[1].isnan() and found.total_variance[1] == 0
    assert ex.feve(y, p)[1].isnan() and ex.trial_correlation(y, p)[1].isnan()
    for ceiling in (found.fev, found.cc_max, found.trial_max, found.oracle, found.conservative_oracle, ex.feve(y, p)):
        assert float(ceiling[2]) == pytest.approx(1)
    ceilings = ex.ceilings(y)
    assert ceilings["corr"] == pytest.approx(float(found.cc_max[0] + 1) / 3)  # the constant one counts as 0
    assert ceilings["feve_neurons"] == 2
    assert ex.trial_correlation(y, torch.full_like(p, 3.3)).isnan().all()


def test_without_explainable_variance_there_is_no_feve():
    # every image has the same two responses: s_n = 1/2 exactly, and s_t is as large or smaller
    y = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(8, 1)[:, :, None]
    found = ex.explainable(y)
    assert float(found.noise_variance[0]) == 0.5 and float(found.fev[0]) < 0
    assert ex.feve(y, y.mean(1)).isnan().all() and found.cc_max.isnan().all()
    ceilings = ex.ceilings(y)
    assert ceilings["corr"] == 0 and ceilings["feve_neurons"] == 0 and math.isnan(ceilings["feve"])
    # s_t = s_n to the last digit
    trials = ex.moment_sums(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool))
    equal = found._replace(total_variance=torch.ones(1).double(), noise_variance=torch.ones(1).double())
    assert ex.feve_from_sums(trials, equal).isnan().all()


def test_feve_is_averaged_over_neurons_with_something_to_explain():
    value, count = ex.mean_feve(torch.tensor([0.5, -90.0, 0.9, torch.nan]), torch.tensor([0.15, 0.149, 0.6, torch.nan]))
    assert float(value) == pytest.approx(0.7) and count == 2
    value, count = ex.mean_feve(torch.tensor([1.0]), torch.tensor([0.1]))
    assert value.isnan() and count == 0


def test_oracle_fraction_is_a_slope_through_the_origin():
    oracle, model = np.array([0.2, 0.5, 0.7, np.nan]), np.array([0.1, np.nan, 0.6, 0.4])
    slope = np.linalg.lstsq(oracle[:3, None], np.nan_to_num(model[:3]), rcond=None)[0][0]
    assert float(ex.oracle_fraction(torch.from_numpy(model), torch.from_numpy(oracle))) == pytest.approx(slope)
    assert ex.oracle_fraction(torch.ones(2), torch.full((2,), torch.nan)).isnan()


def test_sums_of_parts_are_the_sums_of_all(repeats):
    y = ex.centred(torch.from_numpy(repeats))[0]
    parts = [ex.repeat_sums(part) for part in y.split([1, 13, 26])]
    for name, whole in ex.repeat_sums(y)._asdict().items():
        assert torch.allclose(sum(getattr(part, name) for part in parts), whole, rtol=1e-10, atol=1e-10)
        assert whole.shape == ex.RepeatSums.shapes(R, N)[name]


def test_real_recordings_have_sane_ceilings(shared_data):
    for region, (n_repeats, n_neurons) in {1: (10, 103), 2: (8, 55), 3: (12, 102)}.items():
        path = shared_data / "antolik2016" / f"region{region}" / "raw_validation_set.npy"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        y = np.load(path).swapaxes(0, 1)
        assert y.shape == (50, n_repeats, n_neurons)
        ceilings = ex.ceilings(y)
        # published models reach 0.43 to 0.55: the ceiling lies above them
        assert 0.6 < ceilings["corr"] < 0.9 and 0.3 < ceilings["trial_corr"] < ceilings["corr"]
        assert n_neurons / 3 < ceilings["feve_neurons"] < n_neurons


def test_the_mean_over_reliable_neurons_leaves_the_others_out():
    """Near a ceiling of 0 the share is all noise: one such neuron would decide the mean of thousands."""
    correlations = torch.tensor([0.4, 0.3, 0.9, torch.nan, 0.5], dtype=torch.float64)
    ceiling = torch.tensor([0.8, 0.5, 0.001, 0.5, torch.nan], dtype=torch.float64)
    fev = torch.tensor([0.6, 0.15, 0.149, 0.5, 0.7], dtype=torch.float64)
    assert ex.mean_cc_norm(correlations, ceiling, fev) == pytest.approx((0.4 / 0.8 + 0.3 / 0.5 + 0.0) / 3)
    assert ex.mean_cc_norm(correlations, ceiling, torch.full((5,), torch.nan)).isnan()


def test_an_unreliable_neuron_changes_neither_feve_nor_cc_norm():
    means, y = responses(images=60, noise=0.8)
    y[:, :, 2] = 50 + 5 * np.random.default_rng(5).normal(size=y.shape[:2])  # says nothing of the images
    prediction = torch.from_numpy(means)
    found = ex.explainable(torch.from_numpy(y))
    others = [0, 1, 3, 4]
    assert ex.reliable(found.fev).tolist() == [n != 2 for n in range(N)]
    corr = ex.average_correlation(torch.from_numpy(y), prediction)
    expected = (corr / found.cc_max)[others].mean()
    assert ex.mean_cc_norm(corr, found.cc_max.nan_to_num(nan=0.01), found.fev) == pytest.approx(float(expected))
