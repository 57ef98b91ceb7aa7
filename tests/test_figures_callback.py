import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from figure_checks import drawn, legend_of
from runs import TINY, here

from neuro_lightning.callbacks.drawings_spikes import neuron_bits, predicted_psth, spike_drawings
from neuro_lightning.callbacks.figures import Figures, predict_trials
from neuro_lightning.contracts import DataSpec
from neuro_lightning.display import figures_spikes
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.loggers.building import MetricsCSV


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

    def by_session(self):
        return {"": self}

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

    def by_session(self):
        return {"": self}

    def loader(self):
        halves = [{k: v[part] for k, v in self.batch.items()} for part in (slice(0, 2), slice(2, None))]
        batches = [half for half in halves if len(half["index"])]
        return torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)

    def train_dataloader(self):
        return self.loader()

    def val_dataloader(self):
        return [self.loader()]

    def eval_dataloader(self, split):
        return self.loader()


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


ALWAYS = {
    "rates", "neurons", "latents", "learning_curve", "calibration", "single_trials", "dimensions", "sorted_raster"
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "trials", "options", "files"),
    [
        (spec_of(simulated=True, true_rates=True), 5, {"conditions": 2, "rates": True},
         {*ALWAYS, "psth", "forward", "against_oracle"}),
        (spec_of(n_out=0, n_forward=0), 2, {}, ALWAYS),
        (spec_of(n_in=1, n_out=1, n_bins=1, n_forward=0), 1, {"conditions": 1},
         {*ALWAYS, "psth"}),
        (spec_of(n_in=1, n_out=0, n_bins=1, n_forward=0), 1, {}, ALWAYS),
    ],
)  # fmt: skip
def test_callback_draws_every_figure_of_data_of_any_size(tmp_path, spec, trials, options, files):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the figure")
        run(tmp_path, spec, Data(spec, trials, **options), epochs=1)
    assert {name.removesuffix(".png") for name in os.listdir(tmp_path / "figures")} == files


def test_latents_of_observed_bins_alone_are_drawn_beside_forward_bins(tmp_path):
    """Smoothing has no latents in forward bins, and its raster is sorted all the same."""
    base = [word for word in TINY if not word.startswith(("model", "callbacks"))]
    run = here(tmp_path, "model=smoothing", base=base).folder
    assert {"sorted_raster.png", "forward.png", "latents.png"} <= {file.name for file in (run / "figures").iterdir()}


def test_network_without_latents_has_no_latents_figure(tmp_path):
    run(tmp_path, spec_of(), Data(spec_of(), 4), latents=False, epochs=1)
    assert not (tmp_path / "figures" / "latents.png").exists()


def figures_of(spec, data, net):
    module = SimpleNamespace(net=net.eval(), spec=spec, device="cpu")
    trials = predict_trials(data, module, 100)
    return {name: drawn(drawing()) for name, drawing in spike_drawings(trials, module, data, n=3).items()}


def shown(figure):
    """The data of a figure's lines, images and bars, as arrays."""
    lines = [line.get_xydata() for axes in figure.axes for line in axes.lines]
    images = [np.ma.filled(image.get_array(), np.nan) for axes in figure.axes for image in axes.images]
    bars = [patch.get_path().vertices for axes in figure.axes for patch in axes.patches]
    return [*lines, *images, *bars]


def test_figures_are_the_same_from_rates_and_from_log_rates():
    spec = spec_of(true_rates=True)
    data, net = Data(spec, 5, conditions=2, rates=True), Net(spec)
    data.loader = lambda: [data.batch]
    expected = figures_of(spec, data, net)
    net.register_forward_hook(lambda _, __, output: {"rates": output["log_rates"].exp(), "latents": output["latents"]})
    found = figures_of(spec, data, net)
    assert set(found) == {*ALWAYS, "psth", "forward", "against_oracle"} - {"learning_curve"}
    for name, figure in found.items():
        assert len(shown(figure)) == len(shown(expected[name])) > 0
        for value, other in zip(shown(figure), shown(expected[name]), strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5)
    predicted = net(data.batch["inputs"])["rates"].detach()[0, :, 3:]  # spikes per bin of 5 ms, held-out neurons
    image = found["rates"].axes[3].images[0].get_array()
    np.testing.assert_allclose(np.sort(image, axis=0), np.sort(predicted.T * 200, axis=0), rtol=1e-5)


@pytest.mark.parametrize("jittered", [False, True])
def test_figures_use_the_recording_s_alignment_window(jittered):
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


def test_learning_curve_draws_the_oracle_once(tmp_path, monkeypatch):
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
    assert [name for name in legend_of(shown[1].axes[1]) if "oracle" in name] == ["true rates (oracle) (0.400)"]


def test_drawing_does_not_change_training(tmp_path):
    spec = spec_of()
    _, plain = run(tmp_path / "a", spec, Data(spec, 5), epochs=3, figures=[])
    _, drawing = run(tmp_path / "b", spec, Data(spec, 5), epochs=3, figures=[Figures(every_n_validations=1)])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawing.state_dict()[name]), name
    assert drawing.net.dropout.training == plain.net.dropout.training


def test_figures_show_the_best_checkpoint(tmp_path, monkeypatch):
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


def test_figure_that_fails_is_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures_spikes, "rates_figure", lambda *a, **k: 1 / 0)
    run(tmp_path, spec_of(), Data(spec_of(), 4), epochs=1)
    assert "\nthe figure rates was not drawn: ZeroDivisionError: division by zero\n" in capsys.readouterr().out
    assert (tmp_path / "figures" / "neurons.png").exists()


def test_only_the_first_process_draws(tmp_path, monkeypatch):
    spec = spec_of()
    trainer, module = run(tmp_path, spec, Data(spec, 4), epochs=1, figures=[])
    monkeypatch.setenv("RANK", "1")
    Figures().on_fit_end(trainer, module)
    assert not (tmp_path / "figures").exists()


def test_neuron_bits_equal_bits_per_spike():
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
