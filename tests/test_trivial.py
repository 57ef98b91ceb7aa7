"""Predictors that do not look: what they say, on every kind of data."""

import numpy as np
import pytest
import torch
from runs import TESTS, TINY, here, record

from neuro_lightning.contracts import DataSpec, call_network
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import mse
from neuro_lightning.models.trivial import FLOOR, Constant, Mean, Zero

TRACES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[tiny_traces]", "data=tiny_traces", "trainer=cpu",
    "logger=csv", "callbacks=minimal", "baselines=null", "++trainer.enable_progress_bar=false",
]  # fmt: skip


class Split:
    """Targets of which some were not observed, served as a data module's split."""

    def __init__(self, inputs, targets):
        self.batch = {"inputs": inputs, "targets": targets, "mask": ~targets.isnan()}

    def __len__(self):
        return len(self.batch["inputs"])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def sequences():
    targets = torch.arange(24.0).view(2, 4, 3)
    targets[0, :2, 0] = targets[:, :, 2] = torch.nan
    return Split(torch.zeros(2, 4, 2), targets)


def images():
    targets = torch.tensor([[1.0, torch.nan], [3.0, torch.nan], [torch.nan, 6.0]])
    return Split(torch.zeros(3, 1, 5, 5), targets)


def test_on_traces():
    data, spec = sequences(), DataSpec("x", kind="traces", n_in=2, n_out=1, n_bins=4)
    found = {}
    for model in (Zero(spec), Constant(spec), Constant(spec, value=2.5), Mean(spec)):
        model.fit_net(data)
        rates = model.net(torch.full((5, 9, 2), torch.nan))["rates"]  # longer than in training; not looked at
        assert rates.shape == (5, 9, 3) and (rates == rates[0, 0]).all()
        found[type(model).__name__, getattr(model, "value", None)] = rates[0, 0].tolist()
    first, second = [6, 9, 12, 15, 18, 21], [1, 4, 7, 10, 13, 16, 19, 22]
    overall = np.mean(first + second)
    assert found["Zero", None] == [0, 0, 0] and found["Constant", 2.5] == [2.5] * 3
    assert found["Constant", None] == pytest.approx([overall] * 3)
    assert found["Mean", None] == pytest.approx([13.5, 11.5, overall]), "a neuron never observed gets the mean of all"


def test_each_plane_has_means_of_its_own():
    data = sequences()
    data.batch["condition"] = torch.tensor([1, 0])
    model = Mean(DataSpec("x", kind="traces", n_in=2, n_out=1, n_bins=4, decode_groups=2))
    model.fit_net(data)
    told = {"inputs": torch.zeros(3, 9, 2), "condition": torch.tensor([0, 1, 0])}
    rates = call_network(model.net, told)["rates"]
    overall = np.mean([6, 9, 12, 15, 18, 21, 1, 4, 7, 10, 13, 16, 19, 22])
    assert rates.shape == (3, 9, 3) and (rates == rates[:, :1]).all() and (rates[0] == rates[2]).all()
    assert rates[0, 0].tolist() == pytest.approx([16.5, 17.5, overall])
    assert rates[1, 0].tolist() == pytest.approx([7.5, 5.5, overall])


def test_on_images():
    spec = DataSpec("x", kind="images", n_out=2, image_shape=(1, 5, 5))
    model = Mean(spec)
    model.fit_net(images())
    rates = model.net(torch.randn(4, 1, 5, 5))["rates"]
    assert rates.tolist() == [[2.0, 6.0]] * 4


def test_on_spikes_they_give_log_rates_of_forward_bins_too():
    spec = DataSpec("x", n_in=2, n_out=1, n_bins=3, n_forward=1)
    data = Split(torch.zeros(2, 3, 2), torch.tensor([0.0, 1.0, 2.0]).expand(2, 4, 3))
    model = Mean(spec)
    model.fit_net(data)
    log_rates = model.net(torch.zeros(5, 3, 2))["log_rates"]
    assert log_rates.shape == (5, 4, 3)
    torch.testing.assert_close(log_rates.exp()[0, 0], torch.tensor([FLOOR, 1.0, 2.0]))


def test_the_mean_is_the_best_constant_prediction():
    data, spec = sequences(), DataSpec("x", kind="traces", n_in=2, n_out=1, n_bins=4)
    batch, errors = data[list(range(2))], []
    for model in (Mean(spec), Constant(spec), Zero(spec)):
        model.fit_net(data)
        total, count = mse(model.net(batch["inputs"]), batch["targets"], batch["mask"], spec)
        errors.append(float(total / count))
    assert errors == sorted(errors) and len(set(errors)) == 3


def test_a_run_on_traces(tmp_path):
    scores = {}
    for model in ("zero", "constant", "mean"):
        here(tmp_path / model, f"model={model}", base=TRACES)
        scores[model] = record(tmp_path / model)["metrics"]
    assert scores["mean"]["val/mse"] < scores["constant"]["val/mse"] < scores["zero"]["val/mse"]
    assert scores["mean"]["val/variance"] == pytest.approx(0, abs=0.05)


def test_a_run_on_spikes(tmp_path):
    base = [override for override in TINY if not override.startswith("model")]
    here(tmp_path / "mean", "model=mean", base=base)
    assert record(tmp_path / "mean")["metrics"]["val/co_bps"] == pytest.approx(0, abs=0.05)
    with pytest.raises(ConfigError, match=r"Zero cannot run on tiny \(spikes\): it takes traces or images"):
        here(tmp_path / "zero", "model=zero", base=base)
