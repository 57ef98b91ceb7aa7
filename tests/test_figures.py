import numpy as np
import pytest
from figure_checks import drawn, labels, legend_of, texts

from neuro_lightning.display import figures
from neuro_lightning.display import figures_spikes as spikes_figures


def test_rates_figure():
    rng = np.random.default_rng(0)
    peak = np.array([8, 2, 5])  # bin in which each neuron's rate peaks
    rates = 0.01 + 0.4 * (np.arange(10)[None, :, None] == peak) + np.zeros((2, 1, 1))
    figure = drawn(
        spikes_figures.rates_figure(
            rng.poisson(rates),
            rates,
            bin_ms=20,
            n_bins=7,
            true_rates=rates / 2,
            trials=np.array([4, 9]),
            neurons="held-out neurons",
            simulated=True,
        )
    )
    assert figure.get_suptitle() == "Spikes and rates · simulated data"
    assert {"time in trial (ms)", "rate (spikes/s)", "predicted rates\nheld-out neurons"} <= labels(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["trial 4", "trial 9"]
    predicted = figure.axes[2].get_images()[0]
    assert predicted.get_array().shape == (3, 10)
    np.testing.assert_allclose(predicted.get_array().argmax(1), [2, 5, 8])  # sorted by their peaks
    np.testing.assert_allclose(predicted.get_array().max(), 0.41 * 50)  # 20 ms bins: spikes/s
    assert predicted.get_extent()[:2] == [0, 200]
    assert "simulated" not in spikes_figures.rates_figure(rates, rates, bin_ms=20).get_suptitle()


def test_raster_draws_each_spike_at_its_time_and_neuron():
    spikes = np.zeros((1, 5, 2))
    spikes[0, 3, 1] = 2
    spikes[0, 0, 0] = np.nan
    figure = drawn(spikes_figures.rates_figure(spikes, np.full((1, 5, 2), [0.1, 0.2]), bin_ms=10))
    (ticks,) = figure.axes[0].collections
    (segment,) = ticks.get_segments()
    np.testing.assert_allclose(segment, [[35, 0.6], [35, 1.4]])


def test_learning_curve_marks_the_best_and_the_references():
    metrics = {
        "step": np.arange(4.0),
        "train/loss": np.array([1, np.nan, 0.5, np.nan]),
        "val/co_bps": np.array([np.nan, 0.1, 0.3, 0.2]),
        "val/loss": np.array([np.nan, 1, 2, 3]),
    }
    figure = drawn(figures.learning_curve(metrics, references={"smoothing": 0.15, "true rates": 0.4}))
    losses, scores = figure.axes
    np.testing.assert_array_equal(losses.lines[0].get_xdata(), [0, 2])
    assert texts(figure) == "0.300" and scores.lines[1].get_xydata().tolist() == [[2, 0.3]]
    assert legend_of(scores) == ["validation", "smoothing (0.150)", "true rates (0.400)"]
    assert {"training step", "loss (nats per bin and neuron)", "co-smoothing (bits/spike)"} <= labels(figure)


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(5, 7, 4)) * [3, 1, 0.2, 0.1] + 10
    scores, explained = figures.principal_components(latents, 3)
    variances = np.linalg.eigvalsh(np.cov(latents.reshape(-1, 4).T))[::-1]
    np.testing.assert_allclose(explained, variances[:3] / variances.sum())
    np.testing.assert_allclose(scores.reshape(-1, 3).var(0, ddof=1), variances[:3])
    np.testing.assert_allclose(scores.mean((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(figures.principal_components(-latents, 3)[0], -scores)  # the axes keep their sign


def test_latents_are_colored_by_condition():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(6, 5, 8))
    figure = drawn(spikes_figures.latents_figure(latents, bin_ms=5, condition=np.array([0, 0, 3, 3, -1, -1])))
    first = figure.axes[1]
    assert len(first.lines) == 4 + 2  # trials with a condition, and the conditions' means
    colors = [line.get_color() for line in first.lines]
    np.testing.assert_array_equal(colors[0], colors[4])
    np.testing.assert_array_equal(colors[3], colors[5])
    assert not np.array_equal(colors[4], colors[5])
    scores, explained = figures.principal_components(latents, 3)
    np.testing.assert_allclose(first.lines[4].get_ydata(), scores[:2, :, 0].mean(0))
    assert f"PC1 ({100 * explained[0]:.0f} %)" in labels(figure)


def test_psth_figure_shows_the_neurons_that_vary_most():
    true = np.zeros((3, 4, 5)) + 0.1
    true[:, :, 3] += np.arange(12).reshape(3, 4) / 10
    predicted = true * 0.5
    predicted[1] = np.nan  # a condition without trials
    figure = drawn(spikes_figures.psth_figure(predicted, true, bin_ms=10, n_neurons=2))
    panel = figure.axes[0]
    assert panel.get_title(loc="left") == "neuron 3" and len(panel.lines) >= 4
    np.testing.assert_allclose(panel.lines[0].get_ydata(), true[0, :, 3] * 100)
    np.testing.assert_allclose(panel.lines[3].get_ydata(), true[2, :, 3] * 50)


def test_histogram_of_the_neurons_scores():
    figure = drawn(figures.neuron_scores_figure(np.array([0.1, 0.2, -0.3, np.nan, 0.4]), label="R2"))
    assert legend_of(figure.axes[0]) == ["4 neurons, median 0.150, 1 below 0"]
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 4


def test_histogram_of_held_out_neurons_apart():
    r2 = np.array([0.1, 0.3, 0.5, np.nan, -7.0, 0.2])
    figure = drawn(figures.neuron_scores_figure(r2, label="R2", heldout=np.array([0, 0, 0, 0, 1, 1], bool)))
    names = ["3 held-in neurons, median 0.300, 0 below 0", "2 held-out neurons, median -3.400, 1 below 0"]
    assert legend_of(figure.axes[0]) == names and figure.axes[0].get_xlim()[0] > -1.5
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 5  # the worst one is in the first bin


def test_figures_without_data_say_why_they_are_empty():
    assert texts(drawn(spikes_figures.rates_figure(np.zeros((0, 5, 3)), np.zeros((0, 5, 3)), bin_ms=5))) == "no trials"
    assert texts(drawn(figures.neuron_scores_figure(np.full(3, np.nan), label="R2"))) == "no neuron has a score"
    assert texts(drawn(spikes_figures.latents_figure(np.zeros((0, 5, 3)), bin_ms=5))) == "no latents"
    none = np.full((2, 5, 3), np.nan)
    assert texts(drawn(spikes_figures.psth_figure(none, none, bin_ms=5))) == "no conditions"
    assert "nothing was logged" in texts(drawn(figures.learning_curve({"step": np.zeros(0)})))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (2, 1, 3), (1, 2, 2)])
def test_figures_of_very_small_data(shape):
    n_trials, n_bins, _ = shape
    values = np.random.default_rng(0).random(shape)
    drawn(spikes_figures.rates_figure(values, values, bin_ms=5, n_bins=n_bins, true_rates=values))
    drawn(spikes_figures.latents_figure(values, bin_ms=5, condition=np.zeros(n_trials, int)))
    drawn(spikes_figures.latents_figure(values * 0, bin_ms=5))
    drawn(spikes_figures.psth_figure(values, values, bin_ms=5))
    drawn(figures.neuron_scores_figure(values[0, 0], label="R2"))
    drawn(figures.learning_curve({"step": np.zeros(1), "val/co_bps": np.ones(1)}))


def crossings(axes):
    """Times of the vertical lines through the whole panel."""
    return [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]


def test_time_axes_are_relative_to_the_alignment_event():
    """Windows from -200 to 400 ms around it, 60 bins, and 40 ms to predict."""
    window, rng = {"bin_ms": 10, "start_ms": -200, "align": "move_onset_time"}, np.random.default_rng(0)
    centers = np.arange(-195, 400, 10)

    spikes = np.zeros((2, 64, 3))
    spikes[:, 20, 1] = 1  # right at the event
    figure = drawn(spikes_figures.rates_figure(spikes, rng.random((2, 64, 3)), n_bins=60, true_rates=spikes, **window))
    for axes in figure.axes[:6]:
        assert axes.get_xlim() == (-200, 440) and crossings(axes) == [400, 0]
        assert all(image.get_extent()[:2] == [-200, 440] for image in axes.images)
    (segment,) = figure.axes[0].collections[0].get_segments()
    assert segment[:, 0].tolist() == [5, 5]

    figures = [
        spikes_figures.latents_figure(rng.normal(size=(4, 60, 3)), condition=np.array([0, 0, 1, 1]), **window),
        spikes_figures.psth_figure(rng.random((2, 60, 2)), rng.random((2, 60, 2)), **window),
    ]
    for figure, panels in zip(figures, (slice(1, 4), slice(0, 2)), strict=True):
        assert "time from move_onset_time (ms)" in labels(drawn(figure)) and "time in trial (ms)" not in labels(figure)
        for axes in figure.axes[panels]:
            curves = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 60]
            assert len(curves) >= 4 and all(np.array_equal(curve, centers) for curve in curves)
            assert crossings(axes) == [0]


def test_jittered_trials_have_their_own_time_axis():
    spikes = np.zeros((2, 10, 1))
    spikes[0, 8] = spikes[1, 5] = 1
    starts = np.array([-80, -50])
    figure = drawn(
        spikes_figures.rates_figure(spikes, np.ones((2, 10, 1)), bin_ms=10, start_ms=starts, align="go_time")
    )
    for axes, start in zip(figure.axes[2:4], starts, strict=True):
        assert axes.images[0].get_extent()[:2] == [start, start + 100] and axes.get_xlim() == (-80, 50)
    assert [axes.collections[0].get_segments()[0][0, 0] for axes in figure.axes[:2]] == [5, 5]


def test_event_at_the_window_start_is_not_marked():
    figure = drawn(spikes_figures.psth_figure(np.ones((2, 5, 1)), np.ones((2, 5, 1)), bin_ms=5, align="start_time"))
    assert crossings(figure.axes[0]) == [] and "time from start_time (ms)" in labels(figure)
