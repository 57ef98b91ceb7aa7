"""Coarser time inside a network, and sequences longer than it was made for."""

import pytest
import torch

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.steps import bins_in_step, step_weights, to_bins, to_steps
from neuro_lightning.nn.windows import in_windows


def test_coarse_steps_are_interpolated_between_their_centers():
    weights = step_weights(12, 3, 4, causal=False)
    torch.testing.assert_close(weights.sum(1), torch.ones(12))
    ramp = weights @ torch.tensor([1.5, 5.5, 9.5])  # the steps' centers, in bins
    torch.testing.assert_close(ramp[2:10], torch.arange(2.0, 10.0))
    assert (ramp[:2] == 1.5).all() and (ramp[10:] == 9.5).all(), "held at the ends"


def test_a_step_that_is_no_multiple_of_the_bin_is_refused():
    with pytest.raises(ConfigError, match=r"model.step_ms=15"):
        bins_in_step(15, 10)
    assert [bins_in_step(20, 5), bins_in_step(20, 20), bins_in_step(20, 50), bins_in_step(None, 5)] == [4, 1, 1, 1]


def test_counts_are_summed_and_the_forward_bins_are_empty():
    steps = to_steps(torch.arange(1.0, 7.0).view(1, 6, 1), n_total=10, stride=4)
    assert steps.flatten().tolist() == [10.0, 11.0, 0.0]


def test_a_step_of_one_bin_changes_nothing():
    values = torch.randn(2, 7, 3)
    torch.testing.assert_close(step_weights(7, 7, 1, causal=False), torch.eye(7))
    assert torch.equal(to_steps(values, 7, 1), values) and to_bins(values, 7, 1) is values


@pytest.mark.parametrize("total", [4, 5, 8, 11])
def test_every_bin_of_a_longer_sequence_is_returned_once(total):
    """By the window that begins at or before it, the last window only where no other reaches."""
    inputs = torch.randn(2, total, 3)

    def respond(window):
        assert window.shape[1] == 4
        return {"rates": window, "latents": window[:, :1].expand_as(window), "losses": {"kl": window.sum()}}

    output = in_windows(respond, inputs, 4)
    assert set(output) == {"rates", "latents"} and torch.equal(output["rates"], inputs)
    starts = [start for start in (0, 4, 8) if start + 4 <= total]
    for start in starts:
        assert (output["latents"][:, start : start + 4] == inputs[:, start : start + 1]).all()
    if left := total % 4:
        assert (output["latents"][:, -left:] == inputs[:, total - 4 : total - 3]).all()
