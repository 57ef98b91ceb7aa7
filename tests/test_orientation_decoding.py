"""Circular differences, gratings, decoders of their angle, and the metric: closed forms and planted angles."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from neuro_lightning.functional.orientation import (
    bumps,
    circular_difference,
    correlate_templates,
    decode_bumps,
    fit_bumps,
    fit_ridge,
    median_angle_error,
    render_gratings,
    template_decode,
    template_errors,
)
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.metrics.angle import AngleError, decoding_neurons

VIEW = {"degrees_per_pixel": 2.0, "cycles_per_degree": 0.05}


def tuned(angle, n_neurons=80, period=180.0, seed=0):
    """(B, N) noiseless von Mises responses."""
    rng = np.random.default_rng(seed)
    preferred = torch.from_numpy(rng.uniform(0, period, n_neurons))
    turn = (angle[:, None] - preferred) * (2 * math.pi / period)
    return (2 * (turn.cos() - 1)).exp() * torch.from_numpy(rng.uniform(0.5, 2, n_neurons))


def uniform(n, period=180.0, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, period, n))


def noisy(responses, noise, seed=2):
    return responses + noise * torch.from_numpy(np.random.default_rng(seed).normal(size=responses.shape))


@pytest.mark.parametrize(
    ("a", "b", "period", "expected"),
    [
        (1, 179, 180, 2), (179, 1, 180, -2), (1, 179, 360, -178), (359, 1, 360, -2), (0, 180, 180, 0),
        (90, 0, 180, -90), (0, 90, 180, -90), (180, 0, 360, -180), (10, 725, 360, 5), (45, 45, 180, 0),
    ],
)  # fmt: skip
def test_circular_differences(a, b, period, expected):
    """Over the edge of the circle too; half a circle counts as minus half."""
    assert circular_difference(torch.tensor(float(a)), torch.tensor(float(b)), period) == expected


def test_median_angle_error():
    decoded, angle = torch.tensor([179.0, 10.0, 100.0, 7.0]), torch.tensor([2.0, 5.0, 11.0, 7.0])
    assert median_angle_error(decoded, angle, 180) == 4  # the mean of 3 and 5; 89 is an outlier
    assert median_angle_error(decoded[:3], angle[:3], 180) == 5
    assert median_angle_error(decoded[:0], angle[:0], 180).isnan()
    guess = uniform(20_000)
    assert abs(median_angle_error(guess, uniform(20_000, seed=5), 180) - 45) < 1


def test_gratings_are_images_of_their_orientation():
    angle = torch.tensor([0.0, 90.0, 30.0, 210.0, 45.0])
    images = render_gratings(angle, (20, 20), **VIEW)
    assert images.shape == (5, 1, 20, 20) and images.dtype == torch.float32
    across = torch.cos(2 * math.pi * 0.05 * 2 * (torch.arange(20) - 9.5))
    torch.testing.assert_close(images[0, 0], across.expand(20, 20), atol=1e-6, rtol=0)
    torch.testing.assert_close(images[1, 0], images[0, 0].T, atol=1e-6, rtol=0)
    torch.testing.assert_close(images[2], images[3], atol=1e-6, rtol=0)
    # counter-clockwise from rightwards: at 45 degrees luminance is constant along the falling diagonal of rows
    image = images[4, 0]
    torch.testing.assert_close(image[:-1, :-1], image[1:, 1:], atol=1e-6, rtol=0)
    assert (image[:-1, 1:] - image[1:, :-1]).abs().max() > 0.1


def test_opposite_directions_differ_only_where_a_direction_counts():
    pair = torch.tensor([30.0, 210.0])
    opposite = render_gratings(pair, (16, 16), **VIEW, phase=90, period=360)
    torch.testing.assert_close(opposite[0], -opposite[1], atol=1e-6, rtol=0)
    same = render_gratings(pair, (16, 16), **VIEW, phase=90, period=180)
    torch.testing.assert_close(same[0], same[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_ridge_is_the_minimum_whichever_side_is_longer(shape):
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=shape)), torch.from_numpy(rng.normal(size=(shape[0], 3)))
    fit = fit_ridge(x, y, 0.3)
    residual = y - x @ fit.weight - fit.bias
    gradient = -x.T @ residual / len(x) + 0.3 * fit.weight
    assert gradient.abs().max() < 1e-12 and residual.mean(0).abs().max() < 1e-12


def test_bumps_peak_at_their_angle():
    values = bumps(torch.tensor([0.0, 3.75, 176.25, 180.0]), 180)
    assert values.argmax(1).tolist() == [0, 1, 47, 0]
    torch.testing.assert_close(values.mean(1), torch.zeros(4).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(values[0], values[3])
    # by the published formula: width 0.1 on a full turn, twice that on a half
    turn = 2 * np.pi / 180 * (3.75 - 3.75 * np.arange(48))
    expected = np.exp((np.cos(turn) - 1) / 0.2)
    np.testing.assert_allclose(values[1], (expected - expected.mean()) / expected.std(), atol=1e-12)


@pytest.mark.parametrize("period", [180.0, 360.0])
def test_the_linear_decoder_finds_planted_angles(period):
    angle, new = uniform(400, period), uniform(200, period, seed=3)
    mean, std = tuned(angle, period=period).mean(0), tuned(angle, period=period).std(0)
    x, x_new = ((noisy(tuned(a, period=period), 0.1, seed=len(a)) - mean) / std for a in (angle, new))
    error = median_angle_error(decode_bumps(fit_bumps(x, angle, period), x_new, period), new, period)
    assert error < 0.02 * period
    shuffled = angle[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    chance = median_angle_error(decode_bumps(fit_bumps(x, shuffled, period), x_new, period), new, period)
    assert abs(chance - period / 4) < 0.1 * period


def test_the_peak_is_found_between_bumps():
    """48 bumps are 3.75 degrees apart, so their nearest one alone is off by 0.94 in the median."""
    angle, new = uniform(2000), uniform(300, seed=3)
    decoded = decode_bumps(fit_bumps(tuned(angle), angle, 180, penalty=1e-6), tuned(new), 180)
    assert median_angle_error(decoded, new, 180) < 0.1


def test_the_peak_is_that_of_the_bumps_fourier_series():
    """The highest frequency of 48 bumps included, which their finer series splits in two."""
    values = np.random.default_rng(0).normal(size=(40, 48))
    identity = Ridge(torch.eye(48, dtype=torch.float64), torch.zeros(48, dtype=torch.float64))
    finer = scipy.signal.resample(values, 4800, axis=1)
    np.testing.assert_allclose(
        decode_bumps(identity, torch.from_numpy(values), 180), finer.argmax(1) * 180 / 4800, atol=1e-9
    )


def test_decoders_of_responses_that_are_no_numbers():
    angle = uniform(60)
    x = tuned(angle)
    bad = x.clone()
    bad[3, 5] = math.nan
    decoded = decode_bumps(fit_bumps(x, angle, 180), bad, 180)
    assert decoded.isnan().nonzero().flatten().tolist() == [3]


def test_templates_correlate_as_pearson_of_scaled_responses():
    rng = np.random.default_rng(0)
    responses, templates = rng.normal(size=(30, 9)) * np.arange(1, 10), rng.normal(size=(7, 9))
    found = correlate_templates(torch.from_numpy(responses), torch.from_numpy(templates)).numpy()
    z, p = (responses - responses.mean(0)) / responses.std(0), (templates - templates.mean(0)) / responses.std(0)
    np.testing.assert_allclose(found, np.corrcoef(z, p)[:30, 30:], atol=1e-12)


def test_true_tuning_decodes_through_noise_and_gain():
    angle, grid = uniform(300, seed=4), torch.arange(0, 180, 0.5).double()
    observed = noisy(3 * tuned(angle) + 5, 0.5)  # a model may be off by gain and offset
    decoded = template_decode(observed, tuned(grid), grid)
    assert median_angle_error(decoded, angle, 180) < 3
    errors = template_errors(observed, angle, tuned(grid), grid, 180, rows=64)
    torch.testing.assert_close(errors, circular_difference(decoded, angle, 180).abs())
    assert median_angle_error(template_decode(observed, tuned(grid, seed=9), grid), angle, 180) > 25


def test_of_equally_good_angles_the_mean_error_counts():
    angle, grid = torch.tensor([10.0, 80.0]).double(), torch.tensor([0.0, 30.0, 60.0, 90.0]).double()
    observed = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6)))
    errors = template_errors(observed, angle, torch.ones(4, 6), grid, 180)
    assert errors.tolist() == [(10 + 20 + 50 + 80) / 4, (80 + 50 + 20 + 10) / 4]
    one_of_two = torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]).double()  # the first two are alike
    errors = template_errors(one_of_two[[0, 2]], angle, one_of_two, grid[:3], 180)
    assert errors.tolist() == [(10 + 20) / 2, 20]


def test_an_unobserved_neuron_takes_no_side():
    """As if it had responded with its mean."""
    angle = uniform(50)
    observed = noisy(tuned(angle), 0.1)
    gaps = observed.clone()
    gaps[::2, 3] = math.nan
    filled = gaps.clone()
    filled[::2, 3] = gaps[1::2, 3].mean()
    scale = gaps[1::2, 3].std(correction=0) / filled[:, 3].std(correction=0)
    assert scale > 1  # the spread is that of the observed responses, not of the filled-in ones
    found = correlate_templates(gaps, tuned(angle))
    assert found.isfinite().all()
    assert (found - correlate_templates(observed, tuned(angle))).abs().max() < 0.1


# ---- the metric


def measured(cuts, *, predictions, observed, angle, order=None, **kwargs):
    metric = AngleError(len(angle), observed.shape[1], **kwargs)
    order = torch.arange(len(angle)) if order is None else order
    for index in order.split(cuts):
        metric.update(predictions[index], observed[index], index, torch.deg2rad(angle[index]))
    return metric


def test_angle_error_does_not_depend_on_batches():
    angle = uniform(101)
    data = {"predictions": tuned(angle).float(), "observed": noisy(tuned(angle), 0.5).float(), "angle": angle}
    whole = measured(101, **data).compute()
    shuffled = torch.randperm(101, generator=torch.Generator().manual_seed(1))
    assert whole == measured(7, **data, order=shuffled).compute()
    parts = [measured(13, **data, order=order) for order in shuffled.split(40)]  # as three processes have them
    total = measured(101, **data, order=shuffled[:0])
    for name in ("predictions", "responses", "angles", "seen"):
        setattr(total, name, sum(getattr(part, name) for part in parts))
    assert whole == total.compute()
    errors = template_errors(data["observed"], angle, data["predictions"], angle, 180)
    torch.testing.assert_close(whole, torch.from_numpy(np.median(errors.numpy(), keepdims=True))[0], rtol=1e-5, atol=0)


def test_angle_error_of_good_bad_and_constant_models():
    angle = uniform(400)
    observed = noisy(tuned(angle), 0.2)
    good = measured(64, predictions=tuned(angle), observed=observed, angle=angle).compute()
    wrong = measured(64, predictions=tuned(uniform(400, seed=8)), observed=observed, angle=angle).compute()
    constant = tuned(angle).mean(0).expand(400, -1)
    none = measured(64, predictions=constant, observed=observed, angle=angle).compute()
    drowned = measured(64, predictions=constant + 1e-9 * tuned(angle), observed=observed, angle=angle).compute()
    assert good < 3 and abs(wrong - 45) < 8 and abs(none - 45) < 2 and drowned == none
    diverged = tuned(angle)
    diverged[5, 5] = math.nan
    assert measured(64, predictions=diverged, observed=observed, angle=angle).compute().isnan()
    diverged[5, 5] = math.inf
    assert measured(64, predictions=diverged, observed=observed, angle=angle).compute().isnan()


def test_angle_error_takes_directions_by_their_period():
    """To cells tuned to orientation a direction and its opposite are equally good: off by 0 or 180, 90 in the mean."""
    angle = torch.cat([uniform(150), uniform(150) + 180])
    predictions = tuned(uniform(150)).repeat(2, 1)
    data = {"predictions": predictions, "observed": noisy(predictions, 0.01), "angle": angle}
    assert measured(50, **data, period=180).compute() < 1
    assert abs(measured(50, **data, period=360).compute() - 90) < 1


def test_angle_error_of_what_was_not_observed_or_not_seen():
    angle = uniform(40)
    observed = noisy(tuned(angle), 0.1)
    mask = torch.ones_like(observed, dtype=torch.bool)
    mask[::3, :20] = False
    metric = AngleError(50, 80)  # ten trials never come
    assert metric.compute().isnan()
    poisoned = torch.where(mask, observed, 1e30)
    metric.update(tuned(angle), poisoned, torch.arange(40), torch.deg2rad(angle), mask)
    assert metric.compute() < 5
    metric.reset()
    assert metric.compute().isnan()


def test_angle_error_is_that_of_what_was_observed_however_often_a_trial_is_seen():
    angle = uniform(60)
    observed = noisy(tuned(angle, 12), 0.6)
    mask = torch.ones_like(observed, dtype=torch.bool)
    mask[::3, :6] = False
    templates = noisy(tuned(angle, 12), 0.2, seed=5)
    expected = template_errors(torch.where(mask, observed, math.nan), angle, templates, angle, 180).median()
    metric = AngleError(60, 12)
    poisoned = torch.where(mask, observed, 3.0)
    twice = torch.arange(20)  # a sampler that fills up its processes' shares shows some trials again
    for index in (torch.arange(60), twice):
        metric.update(templates[index], poisoned[index], index, torch.deg2rad(angle[index]), mask[index])
    found = metric.compute()
    errors = template_errors(torch.where(mask, observed, math.nan), angle, templates, angle, 180)
    torch.testing.assert_close(found, torch.quantile(errors, 0.5), rtol=1e-9, atol=1e-9)
    assert abs(expected - template_errors(poisoned, angle, templates, angle, 180).median()) > 0.01


def test_a_seeded_choice_of_neurons_bounds_memory():
    chosen = decoding_neurons(2000, 100)
    assert len(set(chosen.tolist())) == 100 and chosen.max() < 2000 and (chosen.diff() > 0).all()
    assert torch.equal(chosen, decoding_neurons(2000, 100)) and torch.equal(decoding_neurons(5), torch.arange(5))
    angle = uniform(60)
    predictions, observed = tuned(angle, 200), noisy(tuned(angle, 200), 0.3)
    small = measured(60, predictions=predictions, observed=observed, angle=angle, max_neurons=30)
    assert small.predictions.shape == (60, 30)
    kept = decoding_neurons(200, 30)
    other = measured(60, predictions=predictions[:, kept], observed=observed[:, kept], angle=angle)
    assert small.compute() == other.compute()
    assert not small.state_dict()
