import numpy as np
import pytest
import torch
from figure_checks import drawn, titles
from torch import nn

from neuro_lightning.callbacks.drawings import image_scores
from neuro_lightning.display import figures_images as images
from neuro_lightning.display import figures_traces as traces
from neuro_lightning.functional.receptive_fields import receptive_fields

RNG = np.random.default_rng(0)


def dogs(**changes):
    table = {"x": [8.0, 3.0], "y": [5.0, 6.0], "a1": [2.0, 1.0], "a2": [1.0, 9.0], "s1": [4.0, 1.0], "s2": [5.0, 3.0]}
    return {name: np.array(values) for name, values in (table | changes).items()}


# ---- receptive fields


class Quadratic(nn.Module):
    """Neuron n: filter_n . image + |image|^2 / 2, whose gradient is filter_n + image."""

    def __init__(self, filters, log):
        super().__init__()
        self.filters, self.log = filters, log

    def forward(self, given):
        values = given.flatten(1) @ self.filters.flatten(1).T + 0.5 * given.square().sum((1, 2, 3))[:, None]
        return {"log_rates": values} if self.log else {"rates": values}


def test_receptive_fields_are_gradients_at_the_mean_image():
    filters, given = torch.randn(70, 2, 4, 5), torch.randn(9, 2, 4, 5)
    neurons = [69, 0, 3, *range(67)]  # more than go into one pass
    fields = receptive_fields(Quadratic(filters, False), given, neurons)
    torch.testing.assert_close(fields, filters[neurons] + given.mean(0))
    with torch.no_grad():  # as in validation
        net = Quadratic(0.1 * filters, True)
        fields = receptive_fields(net, given, [5])
        rate = net(given.mean(0, keepdim=True))["log_rates"][0, 5].exp()
    torch.testing.assert_close(fields[0], rate * (0.1 * filters[5] + given.mean(0)))
    assert receptive_fields(Quadratic(filters, False), given, []).shape == (0, 2, 4, 5)
    with pytest.raises(ValueError, match="need an image"):
        receptive_fields(Quadratic(filters, False), given[:0], [1])


# ---- figures of images


def test_receptive_field_figure():
    fields = RNG.normal(size=(3, 1, 5, 7))
    figure = drawn(images.receptive_field_figure(fields, neurons=[4, 0, 9], scores=[0.5, 0.25, -0.1], simulated=True))
    assert figure.get_suptitle() == "Receptive fields · simulated data"
    assert titles(figure) == ["neuron 4 · r 0.50", "neuron 0 · r 0.25", "neuron 9 · r -0.10"]
    shown = figure.axes[1].get_images()[0]
    np.testing.assert_array_equal(shown.get_array(), fields[1, 0])
    assert shown.get_clim() == (-np.abs(fields[1]).max(), np.abs(fields[1]).max())  # no effect is the middle color
    color = np.zeros((1, 3, 4, 4))
    color[0, 2, 1, 1], color[0, 0, 3, 3] = 2.0, -1.0
    shown = drawn(images.receptive_field_figure(color, neurons=[0])).axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown[1, 1], [0.5, 0.5, 1.0])
    np.testing.assert_allclose(shown[3, 3], [0.25, 0.5, 0.5])
    drawn(images.receptive_field_figure(np.zeros((2, 1, 4, 4)), neurons=[0, 1]))
    assert "no neurons" in [
        t.get_text() for t in drawn(images.receptive_field_figure(fields[:0], neurons=[])).axes[0].texts
    ]


def test_filters_figure_sorts_filters_by_energy():
    filters = np.ones((70, 3, 3)) * np.arange(70)[:, None, None]
    figure = drawn(images.filters_figure(filters))
    assert figure.get_suptitle() == "First-stage filters (64 of 70)"
    assert titles(figure)[:2] == ["69", "68"] and len(titles(figure)) == 64
    assert len(titles(drawn(images.filters_figure(RNG.normal(size=(5, 3, 4, 4)))))) == 5


def test_dog_figure_draws_center_and_surround_at_one_standard_deviation():
    figure = drawn(images.dog_figure(dogs(), image_shape=(1, 20, 30), planted=dogs(x=np.array([9.0, 4.0]))))
    frame, profiles = figure.axes
    planted, found = frame.patches[:2], frame.patches[2:]
    assert [patch.center for patch in planted] == [(9, 5), (4, 6)]
    assert [patch.width for patch in found] == pytest.approx([2 * 2, 2 * 3, 2 * 1, 2 * 2])  # center, surround, twice
    assert frame.get_xlim() == (-0.5, 29.5) and frame.get_ylim() == (19.5, -0.5)  # row 0 at the top
    first, second = (line.get_ydata() for line in profiles.lines[:2])
    middle = len(first) // 2
    assert first[middle] == pytest.approx(1)
    assert second[middle] < 0 and second.min() == pytest.approx(-1, abs=1e-3)  # the second suppresses
    peak = 2 / (2 * np.pi * 4) - 1 / (2 * np.pi * 9)
    reach = 9.0
    edge = (2 / 4 * np.exp(-(reach**2) / 8) - 1 / 9 * np.exp(-(reach**2) / 18)) / (2 * np.pi)
    assert first[0] == pytest.approx(edge / peak)


def test_responses_figure():
    scores = np.array([0.2, np.nan, 0.9, 0.5])
    predicted, observed = RNG.random((12, 4)), RNG.random((12, 4))
    observed[3] = np.nan
    repeats = RNG.random((12, 3, 4))
    repeats[:, 2, 0] = np.nan
    figure = drawn(images.responses_figure(predicted, observed, scores=scores, ceiling=scores + 0.05, repeats=repeats))
    assert titles(figure) == [
        "3 neurons, mean r = 0.533, mean ceiling 0.583",
        "best: neuron 2, r = 0.90", "median: neuron 3, r = 0.50", "worst: neuron 0, r = 0.20",
    ]  # fmt: skip
    bars, best = figure.axes[0], figure.axes[1]
    assert [bar.get_height() for bar in bars.patches] == [0.9, 0.5, 0.2]
    seen = np.isfinite(observed[:, 2])
    points = next(line for line in best.lines if len(line.get_xdata()) == seen.sum())
    np.testing.assert_array_equal(points.get_xydata(), np.stack([predicted[seen, 2], observed[seen, 2]], 1))
    drawn(images.responses_figure(predicted, observed, scores=np.full(4, np.nan)))


def test_scores_of_images_that_were_shown_once_are_correlations_over_what_was_observed():
    targets, mask = torch.rand(30, 2), torch.ones(30, 2, dtype=torch.bool)
    predicted, mask[:10, 1] = targets * 3 + 1, False
    predicted[:10, 1] = 0
    scores, ceiling = image_scores({"targets": targets, "mask": mask, "predicted": predicted})
    assert ceiling is None
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_tuning_figure():
    angle = np.repeat(np.radians([15.0, 45.0, 75.0, 375.0]), 5)  # the last one is 15 degrees again
    observed = np.repeat([[1.0], [2.0], [4.0], [3.0]], 5, axis=0) + np.zeros((1, 2))
    observed[0, 1] = np.nan
    figure = drawn(images.tuning_figure(angle, observed, 2 * observed, neurons=[1, 0], period=np.pi / 2, n_bins=3))
    assert titles(figure) == ["neuron 1", "neuron 0"]
    means, predicted = figure.axes[1].lines[0], figure.axes[1].lines[-1]
    np.testing.assert_allclose(means.get_xdata(), [15, 45, 75])
    np.testing.assert_allclose(means.get_ydata(), [2, 2, 4])
    np.testing.assert_allclose(predicted.get_ydata(), [4, 4, 8])
    (error,) = figure.axes[1].collections
    low, high = error.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * np.std([1] * 5 + [3] * 5, ddof=1) / 10**0.5)


# ---- figures of traces


def test_reconstruction_figure():
    state = np.sin(np.arange(50) / 5)[:, None] * np.array([1, -1, 1, -1, 1.0, -1])
    observed = state + 0.1 * RNG.normal(size=(50, 6))
    figure = drawn(traces.reconstruction_figure(observed, state, bin_ms=2400, start=100, simulated=True))
    data, reconstruction, left = (axes.get_images()[0] for axes in figure.axes[:3])
    order = traces.similarity_order(state)
    np.testing.assert_allclose(left.get_array(), (observed - state)[:, order].T)
    assert data.get_clim() == reconstruction.get_clim()
    assert data.get_extent()[:2] == pytest.approx([240, 360])  # seconds
    share = 1 - ((observed - state) ** 2).sum() / ((observed - observed.mean(0)) ** 2).sum()
    assert f"{100 * share:.1f} % of the variance" in titles(figure)[1]
    drawn(traces.reconstruction_figure(observed[:0], state[:0], bin_ms=2400))


def test_similarity_order_puts_neurons_that_vary_together_next_to_each_other():
    phase = RNG.permutation(np.arange(40) % 2)
    given = np.sin(np.arange(300)[:, None] / 9 + 2 * phase) + 0.2 * RNG.normal(size=(300, 40))
    assert np.abs(np.diff(phase[traces.similarity_order(given)])).sum() == 1
    few = given[:20]  # fewer bins than neurons
    assert sorted(traces.similarity_order(few)) == list(range(40))
    assert traces.similarity_order(np.zeros((10, 4))).shape == (4,)


def test_latents_figure_of_traces():
    latents = RNG.normal(size=(60, 5))
    figure = drawn(
        traces.latents_figure(
            latents, bin_ms=1200, behavior=RNG.random((60, 1)), behavior_names=("run",), simulated=True
        )
    )
    assert figure.get_suptitle() == "Latents over time · simulated data"
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names[:2] == ["latents, sorted", names[1]] and names[1].startswith("PC1") and "run" in names
    drawn(traces.latents_figure(np.ones((60, 2)), bin_ms=10))  # latents that do not move
