"""Shared variance components against their closed form: planted components are found, noise is not."""

import numpy as np
import pytest
import torch

from neuro_lightning.functional.svca import (
    checkerboard,
    interleaved,
    pooled_share,
    random_half,
    shared_variance,
    svca,
)


def planted(n: int, bins: int, powers: list[float], noise: float, seed: int = 0):
    """(N, T) activity: each half sees latent k along an orthonormal direction with variance ``powers[k]``."""
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((len(powers), bins)) * np.sqrt(powers)[:, None]
    half = np.arange(n) % 2 == 0
    activity = noise * rng.standard_normal((n, bins)) + rng.uniform(0, 9, (n, 1))
    for rows in (half, ~half):
        directions, _ = np.linalg.qr(rng.standard_normal((rows.sum(), len(powers))))
        activity[rows] += directions @ latents
    return torch.tensor(activity), torch.tensor(half)


def test_closed_form():
    """Along a planted direction the halves agree on its power, and each adds its own noise."""
    powers, noise = [90.0, 60.0, 40.0, 25.0], 1.0
    found = svca(*planted(60, 8000, powers, noise))
    np.testing.assert_allclose(found.reliable[:4], powers, rtol=0.08)
    np.testing.assert_allclose(found.ratio[:4], [p / (p + noise**2) for p in powers], atol=0.01)
    assert found.ratio[4:].abs().max() < 0.1
    np.testing.assert_allclose(found.share, sum(powers) / (sum(powers) + 30 * noise**2), rtol=0.03)
    np.testing.assert_allclose(found.cumulative[3], sum(powers) / (sum(powers) + 4), atol=0.01)
    assert len(found.reliable) == 30 and len(svca(*planted(60, 400, powers, 1.0), n_components=5).total) == 5


def test_planted_dimension_is_recovered():
    found = svca(*planted(100, 2000, [50.0] * 8, 1.0))
    assert int((found.ratio > 0.5).sum()) == 8
    assert found.ratio[:8].min() > 0.95 and found.ratio[8:].abs().max() < 0.2


def test_noise_shares_nothing():
    found = svca(*planted(80, 3000, [], 2.0))
    assert abs(float(found.share)) < 0.01 and found.ratio.abs().max() < 0.12
    np.testing.assert_allclose(found.variance, 40 * 4.0, rtol=0.02)


def test_components_are_not_chosen_on_the_bins_that_test_them():
    """Few bins, many neurons: in the bins they are taken from, directions of noise agree perfectly."""
    activity, half = planted(200, 40, [], 1.0)
    assert shared_variance(activity, activity, half, n_components=10).ratio.min() > 0.5
    assert svca(activity, half, n_components=10).ratio.abs().mean() < 0.4


def test_fewer_bins_than_neurons_give_the_same():
    """The shortcut through the bins' span changes nothing: repeated bins have the same directions."""
    activity, half = planted(60, 24, [50.0, 20.0], 1.0)
    test, _ = planted(60, 200, [50.0, 20.0], 1.0)
    short = shared_variance(activity, test, half, n_components=10)
    long = shared_variance(activity.repeat(1, 5), test, half, n_components=10)  # 120 bins: no shortcut
    torch.testing.assert_close(short.reliable, long.reliable, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(short.total, long.total, rtol=1e-6, atol=1e-6)


def test_all_components_hold_all_variance():
    activity, half = planted(30, 500, [5.0], 1.0)
    found = svca(activity, half)
    np.testing.assert_allclose(found.total.sum(), found.variance, rtol=1e-9)


def test_pooled_share_weighs_by_variance():
    strong, weak = svca(*planted(40, 2000, [400.0], 1.0)), svca(*planted(40, 2000, [], 1.0))
    pooled = float(pooled_share([strong, weak]))
    assert pooled == pytest.approx(400 / (400 + 20 + 20), abs=0.03)
    assert abs(pooled - (float(strong.share) + float(weak.share)) / 2) > 0.2


def test_blocks_and_halves():
    train = interleaved(130, 30)
    assert train.tolist() == [t // 30 % 2 == 0 for t in range(130)]
    assert interleaved(8).tolist() == [True, True, False, False] * 2
    assert 0 < int(interleaved(2).sum()) < 2
    board = checkerboard(torch.tensor([[5.0, 5.0], [65.0, 5.0], [65.0, 70.0], [-5.0, 5.0]]))
    assert board.tolist() == [True, False, True, False]
    half = random_half(11, seed=3)
    assert (
        int(half.sum()) == 5 and torch.equal(half, random_half(11, seed=3)) and not torch.equal(half, random_half(11))
    )


def test_refusals():
    activity = torch.randn(6, 20)
    with pytest.raises(ValueError, match="both halves"):
        svca(activity, torch.ones(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="two bins"):
        svca(activity[:, :3], random_half(6), torch.tensor([True, True, False]))
