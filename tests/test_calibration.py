import math

import pytest
import torch

from neuro_lightning.functional.calibration import calibration
from neuro_lightning.functional.dimensions import variance_shares
from neuro_lightning.functional.likelihood import bits_over_bins, bits_per_spike


def test_groups_hold_equally_many_bins_and_their_means():
    rates = torch.arange(1.0, 21).view(2, 5, 2)
    counts = rates.round() * 2
    found = calibration(rates, counts, n_groups=4)
    assert found.entries.tolist() == [5, 5, 5, 5]
    assert found.rate.tolist() == [3, 8, 13, 18] and found.observed.tolist() == [6, 16, 26, 36]


def test_the_error_is_that_of_a_mean_over_trials():
    """Of one bin a trial it is the standard error of a mean; of counts that a trial's bins share it is no smaller."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((40, 1, 1), 2.0), generator=draw)
    expected = float(counts.flatten().double().std() / math.sqrt(40))
    one = calibration(torch.ones(40, 1, 1), counts)
    many = calibration(torch.ones(40, 9, 1), counts.expand(40, 9, 1))
    assert len(one.rate) == 1  # equal rates are one group
    assert float(one.error[0]) == pytest.approx(expected) == pytest.approx(float(many.error[0]))
    assert calibration(torch.ones(1, 9, 1), torch.ones(1, 9, 1)).error.isnan().all()


def test_what_was_not_observed_takes_no_part():
    rates, counts = torch.ones(2, 3, 2), torch.ones(2, 3, 2)
    observed = torch.ones(2, 3, 2, dtype=torch.bool)
    observed[0, 0, 0] = False
    counts[0, 0, 0], rates[1, 2, 1] = 1e6, torch.nan
    found = calibration(rates, counts, observed)
    assert found.observed.tolist() == [1.0] and found.entries.tolist() == [10]
    assert not len(calibration(rates, counts, observed & False).rate)


def test_bits_over_bins_add_up_to_those_of_all_bins():
    draw = torch.Generator().manual_seed(0)
    rates = torch.rand(30, 4, 3, generator=draw) + 0.1
    counts = torch.poisson(rates, generator=draw)
    mask = torch.rand(rates.shape, generator=draw) > 0.2
    counts[~mask] = torch.nan  # poison
    bits = bits_over_bins(rates, counts, mask)
    spikes = counts.nan_to_num().sum((0, 2)).double()
    assert float((bits * spikes).sum() / spikes.sum()) == pytest.approx(float(bits_per_spike(rates, counts, mask)))
    assert bits_over_bins(rates, counts.nan_to_num() * torch.tensor([0, 1, 1, 1])[:, None])[0].isnan()


def test_shares_of_variance_are_those_of_the_covariance():
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(6, 20, 4, generator=draw) * torch.tensor([4.0, 2, 1, 0.5]) + 10
    expected = torch.linalg.eigvalsh(values.flatten(0, 1).double().T.cov()).flip(0)
    torch.testing.assert_close(variance_shares(values), expected / expected.sum())
    values[0, 0, 0] = torch.nan
    assert len(variance_shares(values)) == 4
    wide = variance_shares(torch.randn(3, 50, generator=draw))
    assert len(wide) == 3 and float(wide.sum()) == pytest.approx(1)
    assert not len(variance_shares(torch.ones(5, 3))) and not len(variance_shares(torch.ones(1, 3)))
