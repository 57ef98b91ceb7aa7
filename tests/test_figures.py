import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from neuro_lightning.callbacks.drawings import neuron_bits, predicted_psth, spike_drawings
from neuro_lightning.callbacks.figures import Figures, predict_trials
from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.loggers.building import MetricsCSV
from neuro_lightning.report import figures as report


def labels(figure):
    return {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}


def texts(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def drawn(figure):
    """Really draw it: most of matplotlib's errors come only then."""
    assert isinstance(figure, Figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


# ---- pure functions


def test_rates_figure():
    rng = np.random.default_rng(0)
    peak = np.array([8, 2, 5])  # bin in which each neuron's rate peaks
    rates = 0.01 + 0.4 * (np.arange(10)[None, :, None] == peak) + np.zeros((2, 1, 1))
    figure = drawn(
        report.rates_figure(
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
    assert "simulated" not in report.rates_figure(rates, rates, bin_ms=20).get_suptitle()


def test_the_raster_shows_each_spike_where_it_was():
    spikes = np.zeros((1, 5, 2))
    spikes[0, 3, 1] = 2
    spikes[0, 0, 0] = np.nan
    figure = drawn(report.rates_figure(spikes, np.full((1, 5, 2), [0.1, 0.2]), bin_ms=10))
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
    figure = drawn(report.learning_curve(metrics, references={"smoothing": 0.15, "true rates": 0.4}))
    losses, scores = figure.axes
    np.testing.assert_array_equal(losses.lines[0].get_xdata(), [0, 2])
    assert texts(figure) == "0.300" and scores.lines[1].get_xydata().tolist() == [[2, 0.3]]
    legend = [text.get_text() for text in scores.get_legend().get_texts()]
    assert legend == ["validation", "smoothing (0.150)", "true rates (0.400)"]
    assert {"training step", "loss (nats per bin and neuron)", "co-smoothing (bits/spike)"} <= labels(figure)


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(5, 7, 4)) * [3, 1, 0.2, 0.1] + 10
    scores, explained = report.principal_components(latents, 3)
    variances = np.linalg.eigvalsh(np.cov(latents.reshape(-1, 4).T))[::-1]
    np.testing.assert_allclose(explained, variances[:3] / variances.sum())
    np.testing.assert_allclose(scores.reshape(-1, 3).var(0, ddof=1), variances[:3])
    np.testing.assert_allclose(scores.mean((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(report.principal_components(-latents, 3)[0], -scores)  # the axes keep their sign


def test_latents_are_colored_by_condition():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(6, 5, 8))
    figure = drawn(report.latents_figure(latents, bin_ms=5, condition=np.array([0, 0, 3, 3, -1, -1])))
    first = figure.axes[1]
    assert len(first.lines) == 4 + 2  # trials with a condition, and the conditions' means
    colors = [line.get_color() for line in first.lines]
    np.testing.assert_array_equal(colors[0], colors[4])
    np.testing.assert_array_equal(colors[3], colors[5])
    assert not np.array_equal(colors[4], colors[5])
    scores, explained = report.principal_components(latents, 3)
    np.testing.assert_allclose(first.lines[4].get_ydata(), scores[:2, :, 0].mean(0))
    assert f"PC1 ({100 * explained[0]:.0f} %)" in labels(figure)


def test_psths_of_the_neurons_that_vary_most():
    true = np.zeros((3, 4, 5)) + 0.1
    true[:, :, 3] += np.arange(12).reshape(3, 4) / 10
    predicted = true * 0.5
    predicted[1] = np.nan  # a condition without trials
    figure = drawn(report.psth_figure(predicted, true, bin_ms=10, n_neurons=2))
    panel = figure.axes[0]
    assert panel.get_title(loc="left") == "neuron 3" and len(panel.lines) >= 4
    np.testing.assert_allclose(panel.lines[0].get_ydata(), true[0, :, 3] * 100)
    np.testing.assert_allclose(panel.lines[3].get_ydata(), true[2, :, 3] * 50)


def test_neuron_bits_figure():
    figure = drawn(report.neuron_bits_figure(np.array([0.1, 0.2, -0.3, np.nan, 0.4])))
    title = figure.axes[0].get_title(loc="left")
    assert title == "4 neurons, median 0.150, 1 below 0"
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 4


def test_nothing_to_draw_is_said():
    assert texts(drawn(report.rates_figure(np.zeros((0, 5, 3)), np.zeros((0, 5, 3)), bin_ms=5))) == "no trials"
    assert texts(drawn(report.neuron_bits_figure(np.full(3, np.nan)))) == "no neuron fired"
    assert texts(drawn(report.latents_figure(np.zeros((0, 5, 3)), bin_ms=5))) == "no latents"
    none = np.full((2, 5, 3), np.nan)
    assert texts(drawn(report.psth_figure(none, none, bin_ms=5))) == "no conditions"
    assert "nothing was logged" in texts(drawn(report.learning_curve({"step": np.zeros(0)})))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (2, 1, 3), (1, 2, 2)])
def test_small_data(shape):
    n_trials, n_bins, _ = shape
    values = np.random.default_rng(0).random(shape)
    drawn(report.rates_figure(values, values, bin_ms=5, n_bins=n_bins, true_rates=values))
    drawn(report.latents_figure(values, bin_ms=5, condition=np.zeros(n_trials, int)))
    drawn(report.latents_figure(values * 0, bin_ms=5))
    drawn(report.psth_figure(values, values, bin_ms=5))
    drawn(report.neuron_bits_figure(values[0, 0]))
    drawn(report.learning_curve({"step": np.zeros(1), "val/co_bps": np.ones(1)}))


def crossings(axes):
    """Where vertical lines through the whole panel stand."""
    return [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]


def test_times_are_those_from_the_event():
    """Windows from -200 to 400 ms around it, 60 bins, and 40 ms to predict."""
    window, rng = {"bin_ms": 10, "start_ms": -200, "align": "move_onset_time"}, np.random.default_rng(0)
    centers = np.arange(-195, 400, 10)

    spikes = np.zeros((2, 64, 3))
    spikes[:, 20, 1] = 1  # right at the event
    figure = drawn(report.rates_figure(spikes, rng.random((2, 64, 3)), n_bins=60, true_rates=spikes, **window))
    for axes in figure.axes[:6]:
        assert axes.get_xlim() == (-200, 440) and crossings(axes) == [400, 0]
        assert all(image.get_extent()[:2] == [-200, 440] for image in axes.images)
    (segment,) = figure.axes[0].collections[0].get_segments()
    assert segment[:, 0].tolist() == [5, 5]

    figures = [
        report.latents_figure(rng.normal(size=(4, 60, 3)), condition=np.array([0, 0, 1, 1]), **window),
        report.psth_figure(rng.random((2, 60, 2)), rng.random((2, 60, 2)), **window),
    ]
    for figure, panels in zip(figures, (slice(1, 4), slice(0, 2)), strict=True):
        assert "time from move_onset_time (ms)" in labels(drawn(figure)) and "time in trial (ms)" not in labels(figure)
        for axes in figure.axes[panels]:
            curves = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 60]
            assert len(curves) >= 4 and all(np.array_equal(curve, centers) for curve in curves)
            assert crossings(axes) == [0]


def test_shifted_windows_have_their_own_times():
    spikes = np.zeros((2, 10, 1))
    spikes[0, 8] = spikes[1, 5] = 1
    starts = np.array([-80, -50])
    figure = drawn(report.rates_figure(spikes, np.ones((2, 10, 1)), bin_ms=10, start_ms=starts, align="go_time"))
    for axes, start in zip(figure.axes[2:4], starts, strict=True):
        assert axes.images[0].get_extent()[:2] == [start, start + 100] and axes.get_xlim() == (-80, 50)
    assert [axes.collections[0].get_segments()[0][0, 0] for axes in figure.axes[:2]] == [5, 5]


def test_a_window_that_begins_with_its_event_has_no_line():
    figure = drawn(report.psth_figure(np.ones((2, 5, 1)), np.ones((2, 5, 1)), bin_ms=5, align="start_time"))
    assert crossings(figure.axes[0]) == [] and "time from start_time (ms)" in labels(figure)


# ---- the callback


class Net(torch.nn.Module):
    def __init__(self, spec, latents=True):
        super().__init__()
        self.spec, self.with_latents = spec, latents
        self.readout = torch.nn.Linear(spec.n_in, spec.n_neurons)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, inputs):
        padded = torch.nn.functional.pad(inputs, (0, 0, 0, self.spec.n_forward))
        output = {"log_rates": self.dropout(self.readout(padded))}
        return output | ({"latents": padded} if self.with_latents else {})


class Module(pl.LightningModule):
    def __init__(self, spec, latents=True):
        super().__init__()
        self.spec, self.net = spec, Net(spec, latents)

    def training_step(self, batch, index):
        loss = self.net(batch["inputs"])["log_rates"].exp().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val/co_bps", self.net(batch["inputs"])["log_rates"].mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(pl.LightningDataModule):
    def __init__(self, spec, n_trials, conditions=0, rates=False):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        counts = torch.poisson(torch.full((n_trials, spec.n_total, spec.n_neurons), 0.3), generator=draw)
        self.batch = {
            "inputs": counts[:, : spec.n_bins, : spec.n_in],
            "targets": counts,
            "mask": torch.ones(counts.shape, dtype=torch.bool),
            "index": torch.arange(n_trials),
        }
        if conditions:
            self.batch["condition"] = torch.arange(n_trials) % conditions
        if rates:
            self.batch["rates"] = torch.full(counts.shape, 0.3)
        psth = np.full((conditions, spec.n_bins, spec.n_neurons), 0.3) if conditions else None
        self.recording = SimpleNamespace(psth=psth)

    def loader(self):
        halves = [{k: v[part] for k, v in self.batch.items()} for part in (slice(0, 2), slice(2, None))]
        batches = [half for half in halves if len(half["index"])]
        return torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)

    def train_dataloader(self):
        return self.loader()

    def val_dataloader(self):
        return [self.loader()]


def run(folder, spec, data, *, latents=True, epochs=2, figures=None, **settings):
    pl.seed_everything(0)
    module = Module(spec, latents)
    checkpoints = pl.callbacks.ModelCheckpoint(dirpath=folder, filename="best", monitor="val/co_bps", mode="max")
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=[MetricsCSV(folder)],
        callbacks=[checkpoints] + ([Figures()] if figures is None else figures),
        **settings,
    )
    trainer.fit(module, datamodule=data)
    return trainer, module


def spec_of(**values):
    return DataSpec(**({"dataset": "toy", "n_in": 3, "n_out": 2, "n_bins": 6, "n_forward": 2, "bin_ms": 5} | values))


@pytest.mark.parametrize(
    ("spec", "trials", "options", "files"),
    [
        (spec_of(simulated=True, true_rates=True), 5, {"conditions": 2, "rates": True},
         {"rates", "neurons", "latents", "psth", "learning_curve"}),
        (spec_of(n_out=0, n_forward=0), 2, {}, {"rates", "neurons", "latents", "learning_curve"}),
        (spec_of(n_in=1, n_out=1, n_bins=1, n_forward=0), 1, {"conditions": 1},
         {"rates", "neurons", "latents", "psth", "learning_curve"}),
        (spec_of(n_in=1, n_out=0, n_bins=1, n_forward=0), 1, {}, {"rates", "neurons", "latents", "learning_curve"}),
    ],
)  # fmt: skip
def test_every_figure_is_drawn_whatever_the_size(tmp_path, spec, trials, options, files):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the figure")
        run(tmp_path, spec, Data(spec, trials, **options), epochs=1)
    assert {name.removesuffix(".png") for name in os.listdir(tmp_path / "figures")} == files


def test_a_network_without_latents(tmp_path):
    run(tmp_path, spec_of(), Data(spec_of(), 4), latents=False, epochs=1)
    assert not (tmp_path / "figures" / "latents.png").exists()


def figures_of(spec, data, net):
    module = SimpleNamespace(net=net.eval(), spec=spec, device="cpu")
    trials = predict_trials(SimpleNamespace(datamodule=data), module, 100)
    return {name: drawn(drawing()) for name, drawing in spike_drawings(trials, module, data, n=3).items()}


def shown(figure):
    """What a figure's lines, images and bars show, as arrays."""
    lines = [line.get_xydata() for axes in figure.axes for line in axes.lines]
    images = [np.ma.filled(image.get_array(), np.nan) for axes in figure.axes for image in axes.images]
    bars = [patch.get_path().vertices for axes in figure.axes for patch in axes.patches]
    return [*lines, *images, *bars]


def test_a_network_that_returns_rates_has_the_figures_of_one_with_log_rates():
    spec = spec_of(true_rates=True)
    data, net = Data(spec, 5, conditions=2, rates=True), Net(spec)
    data.loader = lambda: [data.batch]
    expected = figures_of(spec, data, net)
    net.register_forward_hook(lambda _, __, output: {"rates": output["log_rates"].exp(), "latents": output["latents"]})
    found = figures_of(spec, data, net)
    assert set(found) == {"rates", "neurons", "latents", "psth"}
    for name, figure in found.items():
        assert len(shown(figure)) == len(shown(expected[name])) > 0
        for value, other in zip(shown(figure), shown(expected[name]), strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5)
    predicted = net(data.batch["inputs"])["rates"].detach()[0, :, 3:]  # spikes per bin of 5 ms, held-out neurons
    image = found["rates"].axes[3].images[0].get_array()
    np.testing.assert_allclose(np.sort(image, axis=0), np.sort(predicted.T * 200, axis=0), rtol=1e-5)


@pytest.mark.parametrize("jittered", [False, True])
def test_figures_have_the_recording_s_times(jittered):
    spec = spec_of(bin_ms=100)
    data, net = Data(spec, 4, conditions=2), Net(spec)
    data.loader = lambda: [data.batch]
    data.recording.info = {"window": {"start_ms": -200, "align": "go_time"}}
    if jittered:
        data.batch["jitter"] = torch.tensor([0, 1, 0, 2])
    found = figures_of(spec, data, net)
    extents = [axes.images[0].get_extent()[:2] for axes in found["rates"].axes[3:6]]
    shifts = [0, 0, 200] if jittered else [0, 0, 0]  # of trials 0, 2 and 3
    assert extents == [[-200 + shift, 600 + shift] for shift in shifts]
    assert found["psth"].axes[0].lines[0].get_xdata().tolist() == [-150, -50, 50, 150, 250, 350]
    first = found["latents"].axes[1].lines[0].get_xdata()[0]
    assert first == (50 if jittered else -150)  # trials that were shifted have no time of the event in common


def test_the_oracle_is_drawn_once(tmp_path, monkeypatch):
    """It is among the logged metrics and among the scores of the end."""
    from neuro_lightning.runs.outcome import show_references

    shown = []
    monkeypatch.setattr(Figures, "_save", lambda self, name, drawing, trainer: shown.append(drawn(drawing())))
    (tmp_path / "metrics.csv").write_text("step,epoch,val/co_bps,val/oracle_co_bps\n1,0,0.1,0.4\n2,1,0.2,0.4\n")
    callback = Figures()
    trainer = SimpleNamespace(default_root_dir=tmp_path, callbacks=[callback], loggers=[], global_step=2)
    module = SimpleNamespace(spec=spec_of(simulated=True, true_rates=True))
    callback.draw_learning_curve(trainer, module)
    scores = {who: {"val": {"co_bps": value}} for who, value in (("model", 0.2), ("oracle", 0.4), ("smoothing", 0.1))}
    show_references(SimpleNamespace(monitor="val/co_bps", mode="max"), trainer, module, scores)
    levels = [[line.get_ydata()[0] for line in figure.axes[1].lines if len(set(line.get_ydata())) == 1
               and line.get_linestyle() == "--"] for figure in shown]  # fmt: skip
    assert levels == [[0.4], [0.4, 0.1]]
    named = [text.get_text() for text in shown[1].axes[1].get_legend().get_texts()]
    assert [name for name in named if "oracle" in name] == ["true rates (oracle) (0.400)"]


def test_drawing_changes_nothing(tmp_path):
    spec = spec_of()
    _, plain = run(tmp_path / "a", spec, Data(spec, 5), epochs=3, figures=[])
    _, drawing = run(tmp_path / "b", spec, Data(spec, 5), epochs=3, figures=[Figures(every_n_validations=1)])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawing.state_dict()[name]), name
    assert drawing.net.dropout.training == plain.net.dropout.training


def test_the_best_checkpoint_is_drawn(tmp_path, monkeypatch):
    drawn_with = []

    class Spy(Figures):
        def draw(self, trainer, pl_module, references=None):
            drawn_with.append(pl_module.net.readout.bias.detach().clone())

    spec = spec_of()
    trainer, module = run(tmp_path, spec, Data(spec, 4), epochs=3, figures=[Spy()])
    best = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    torch.testing.assert_close(drawn_with, [best["state_dict"]["net.readout.bias"]], rtol=0, atol=0)
    last = module.net.readout.bias.detach()
    assert best["epoch"] == 0 and not torch.equal(last, drawn_with[0])
    monkeypatch.setattr(module.net.readout.bias, "data", last + 1)  # the best weights are taken back afterwards
    Spy().on_fit_end(trainer, module)
    assert torch.equal(module.net.readout.bias.detach(), last + 1)


def test_figures_reach_the_loggers_at_the_right_steps(tmp_path, monkeypatch):
    from neuro_lightning.callbacks import figures

    logged = []
    monkeypatch.setattr(figures, "log_figure", lambda loggers, name, path, step: logged.append((name, step)))
    spec = spec_of()
    run(tmp_path, spec, Data(spec, 4), epochs=4, figures=[Figures(every_n_validations=2)])
    assert [step for name, step in logged if name == "figures/rates"] == [4, 8, 8]  # and at the end


def test_a_figure_that_fails_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "rates_figure", lambda *a, **k: 1 / 0)
    with pytest.warns(UserWarning, match="the figure rates was not drawn: ZeroDivisionError"):
        run(tmp_path, spec_of(), Data(spec_of(), 4), epochs=1)
    assert (tmp_path / "figures" / "neurons.png").exists()


def test_only_the_first_process_draws(tmp_path, monkeypatch):
    spec = spec_of()
    trainer, module = run(tmp_path, spec, Data(spec, 4), epochs=1, figures=[])
    monkeypatch.setenv("RANK", "1")
    Figures().on_fit_end(trainer, module)
    assert not (tmp_path / "figures").exists()


def test_neuron_bits_are_the_benchmark_s():
    spec = spec_of()
    draw = torch.Generator().manual_seed(0)
    shape = (4, spec.n_total, spec.n_neurons)
    trials = {
        "predicted": torch.randn(shape, generator=draw).exp(),
        "targets": torch.poisson(torch.ones(shape)),
        "mask": torch.rand(shape, generator=draw) > 0.2,
    }
    bits = neuron_bits(trials, spec)
    assert bits.shape == (2,)
    rates, counts, mask = (trials[k][:, :6, 4:] for k in ("predicted", "targets", "mask"))
    np.testing.assert_allclose(bits[1], bits_per_spike(rates, counts, mask), rtol=1e-6)


def test_predicted_psth_is_the_mean_over_trials():
    spec = spec_of()
    rates = torch.rand(4, spec.n_total, spec.n_neurons)
    psth = predicted_psth({"predicted": rates, "condition": torch.tensor([0, 2, 2, -1])}, spec, 3)
    np.testing.assert_allclose(psth[2], rates[1:3, :6].mean(0), rtol=1e-6)
    np.testing.assert_allclose(psth[0], rates[0, :6], rtol=1e-6)
    assert np.isnan(psth[1]).all()
