from types import SimpleNamespace

import numpy as np
import pytest
import torch
from figure_checks import drawn, labels, legend_of, texts, titles

from neuro_lightning.callbacks.drawings_spikes import decode, decoders_of, latent_weights, spike_drawings, trial_names
from neuro_lightning.contracts import DataSpec
from neuro_lightning.display import figures_checks as checks
from neuro_lightning.display import figures_trials as trials_figures
from neuro_lightning.functional.ridge import decode_folds


def test_calibration_is_drawn_in_spikes_per_second():
    rate, count, error = np.array([0.1, 0.4]), np.array([0.2, 0.4]), np.array([0.01, np.nan])
    groups = {"held-in neurons": (rate, count, error), "held-out neurons": (np.zeros(0),) * 3}
    (panel,) = drawn(checks.calibration_figure(groups, bin_ms=10)).axes
    np.testing.assert_allclose(panel.lines[0].get_xydata(), [[10, 20], [40, 40]])
    (bars,) = panel.collections
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [20 - 1.96, 20 + 1.96])
    assert legend_of(panel) == ["calibrated", "held-in neurons"]
    assert texts(drawn(checks.calibration_figure({}, bin_ms=10))) == "nothing was observed"


def test_forward_bits_are_drawn_at_their_times():
    bits = {"all neurons": np.array([0.3, 0.2]), "true rates": np.array([0.5, np.nan])}
    (panel,) = drawn(checks.forward_figure(bits, bin_ms=10, first_ms=450, align="go")).axes
    assert panel.lines[0].get_xydata().tolist() == [[455, 0.3], [465, 0.2]]
    assert panel.get_xlabel() == "time from go (ms)" and legend_of(panel) == ["all neurons", "true rates"]
    assert "no spike" in texts(drawn(checks.forward_figure({"a": np.full(2, np.nan)}, bin_ms=5, first_ms=0)))


def test_scores_are_drawn_against_what_can_be_reached():
    scores, best = np.array([0.1, 0.2, np.nan, -9.0]), np.array([0.3, 0.4, 0.5, 0.2])
    heldout = np.array([False, True, False, True])
    look = {"label": "model", "reachable_label": "true rates"}
    (panel,) = drawn(checks.against_figure(scores, best, heldout=heldout, **look)).axes
    assert legend_of(panel) == ["1 held-in neurons", "2 held-out neurons"]
    assert panel.lines[0].get_xydata().tolist() == [[0.3, 0.1]]
    assert titles(panel.figure) == ["1 neurons below the axis"] and panel.get_ylim()[0] > -1.2
    assert texts(drawn(checks.against_figure(scores[2:3], best[:1], **look))) == "no neuron has both"


def test_dimensions_are_drawn_as_sums():
    shares = {"latents": np.array([0.5, 0.3, 0.2]), "rates": np.zeros(0)}
    (panel,) = drawn(checks.dimensions_figure(shares)).axes
    np.testing.assert_allclose(panel.lines[0].get_xydata(), [[1, 0.5], [2, 0.8], [3, 1.0]])
    assert texts(drawn(checks.dimensions_figure({}))) == "nothing varies"


def test_single_trials_are_those_of_the_neurons_that_vary_most():
    rates = np.full((3, 4, 5), 0.1)
    rates[:, :, 3] += np.arange(12).reshape(3, 4) / 10
    figure = drawn(
        trials_figures.single_trials_figure(rates, bin_ms=10, condition=np.array([0, 0, 1]), n_in=3, n_neurons=1)
    )
    (panel,) = figure.axes
    assert titles(figure) == ["neuron 3, held-out"] and len(panel.lines) == 3 + 2
    np.testing.assert_allclose(panel.lines[1].get_ydata(), rates[1, :, 3] * 100)
    np.testing.assert_allclose(panel.lines[3].get_ydata(), rates[:2, :, 3].mean(0) * 100)
    assert texts(drawn(trials_figures.single_trials_figure(np.zeros((0, 4, 0)), bin_ms=10))) == "no trials"


def test_raster_is_sorted_by_the_weights():
    spikes = np.zeros((4, 3))
    spikes[1, 0] = spikes[2, 2] = 1
    look = {"bin_ms": 10, "start_ms": -20, "align": "go", "trial": 17, "heldout": np.array([False, False, True])}
    figure = drawn(trials_figures.sorted_raster_figure(spikes, np.arange(4.0), np.array([0.9, 0.1, -0.5]), **look))
    assert "trial 17" in figure.get_suptitle() and "time from go (ms)" in labels(figure)
    latent, _, raster, bars = figure.axes
    assert latent.lines[0].get_xydata()[0].tolist() == [-15, 0]
    segments = raster.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[-5, -5], [5, 5]]
    assert [segment[:, 1].mean() for segment in segments] == [2, 0]  # neuron 0 on top, neuron 2 at the bottom
    assert not np.array_equal(*raster.collections[0].get_colors()[:2])  # held-out in another color
    assert [bar.get_width() for bar in bars.patches] == [-0.5, 0.1, 0.9]


def test_weights_are_correlations_with_the_latent():
    rng = np.random.default_rng(0)
    latent, rates = rng.normal(size=(4, 6)), rng.normal(size=(4, 6, 3))
    latent[0, 0], rates[1, 1] = np.nan, np.nan
    rates[..., 2] = 1.0
    known = np.isfinite(latent) & np.isfinite(rates).all(2)
    found = latent_weights(latent, rates)
    np.testing.assert_allclose(found[0], np.corrcoef(latent[known], rates[known][:, 0])[0, 1])
    assert np.isnan(found[2])


def test_decoded_velocity_and_its_path():
    behavior = np.full((2, 4, 2), 2.0)
    behavior[0, 0] = np.nan
    decoded = {"ridge": behavior * 0.5, "head": behavior * 0}
    figure = drawn(
        trials_figures.decoding_figure(
            behavior, decoded, bin_ms=100, trials=np.array([31, 8]), names=["x", "y"], unit="mm/s",
            scores={"ridge": 0.75},
        )
    )  # fmt: skip
    assert titles(figure) == ["trial 31", "trial 8", "paths, true", "paths, ridge", "paths, head"]
    true, ridge, _ = figure.axes[0].lines
    np.testing.assert_array_equal(true.get_ydata(), behavior[0, :, 0])
    np.testing.assert_array_equal(ridge.get_ydata(), behavior[0, :, 0] / 2)
    assert {"x (mm/s)", "y (mm/s)", "time in trial (ms)"} <= labels(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true", "ridge (R2 0.75)", "head"]
    np.testing.assert_allclose(figure.axes[5].lines[1].get_xdata(), [0.1, 0.2, 0.3, 0.4])  # half of 2 per second
    np.testing.assert_allclose(figure.axes[4].lines[0].get_xdata(), [np.nan, 0.2, 0.4, 0.6])
    one = drawn(trials_figures.decoding_figure(behavior[..., :1], {}, bin_ms=100))
    assert titles(one) == ["trial 0", "trial 1"]
    none = drawn(trials_figures.decoding_figure(behavior * np.nan, decoded, bin_ms=100))
    assert texts(none) == "no trial with known behavior"


class Data:
    """Behavior that is a linear map of the counts of three neurons, in trials whose rows are not their numbers."""

    def __init__(self, spec):
        draw = torch.Generator().manual_seed(0)
        counts = torch.poisson(torch.full((12, spec.n_bins, spec.n_neurons), 2.0), generator=draw)
        behavior = counts[..., :2] * torch.tensor([1.0, -2.0]) + 3
        self.batch = {
            "inputs": counts, "targets": counts, "mask": torch.ones(counts.shape, dtype=torch.bool),
            "index": torch.arange(12), "behavior": behavior, "decode_fold": decode_folds(behavior),
        }  # fmt: skip
        part = SimpleNamespace(row=np.arange(12) + 100)
        self.recording = SimpleNamespace(psth=None, splits={"val": part, "train": part})

    def eval_dataloader(self, split):
        return [self.batch]


class Same(torch.nn.Module):
    def forward(self, inputs):
        return {"rates": inputs.clamp(min=1e-3)}


@pytest.fixture
def run():
    from neuro_lightning.callbacks.shown_trials import predict_trials

    spec = DataSpec("toy", n_in=3, n_bins=10, bin_ms=20, behavior_dim=2, behavior_kind="velocity")
    data, module = Data(spec), SimpleNamespace(net=Same(), spec=spec, device="cpu")
    return predict_trials(data, module, 100), module, data


def test_a_runs_behavior_is_decoded_from_its_rates(run):
    trials, module, data = run
    decoded = decode(trials["predicted"], trials["decode_fold"], decoders_of(trials, module, data))
    np.testing.assert_allclose(decoded, trials["behavior"], atol=0.02)
    figure = drawn(spike_drawings(trials, module, data, n=3)["decoding"]())
    assert titles(figure)[:2] == ["trial 100", "trial 106"]
    assert "ridge on rates (R2 1.00)" in [text.get_text() for text in figure.legends[0].get_texts()]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), decoded[0, :, 0])


def test_trials_are_called_by_their_rows_in_the_file(run):
    trials, module, data = run
    assert trial_names(trials).tolist() == list(range(100, 112))
    assert trial_names({"index": torch.arange(2)}).tolist() == [0, 1]
    assert titles(drawn(spike_drawings(trials, module, data, n=2)["rates"]()))[:2] == ["trial 100", "trial 111"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (2, 40, 3000)])
def test_figures_of_one_trial_and_of_thousands_of_neurons(shape):
    values = np.random.default_rng(0).random(shape)
    drawn(trials_figures.single_trials_figure(values, bin_ms=5))
    drawn(trials_figures.sorted_raster_figure(values[0] > 0.9, values[0, :, 0], values[0, 0], bin_ms=5))
    drawn(checks.against_figure(values[0, 0], values[0, 0], label="a", reachable_label="b"))
