"""``data.response_scale``: networks learn responses over their deviation, and everything else is in the file's unit."""

from functools import partial

import numpy as np
import pytest
import torch
from runs import here

import neuro_lightning as nl
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.arrays.files import save_arrays
from neuro_lightning.data.arrays.images import ImageOptions, load_images
from neuro_lightning.data.describe import describe
from neuro_lightning.data.images import response_factor
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import loss_in_response_units, mse, poisson, poisson_normalised
from neuro_lightning.models.core_readout import CoreReadoutNet
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.core import ConvCore
from neuro_lightning.nn.readouts import GaussianReadout

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(60, 16, 16)).astype(np.float32)
RESPONSES = RNG.gamma(2.0, size=(60, 4)).astype(np.float32)
RESPONSES[3, 1] = np.nan
POWERS = np.float32([1, 4, 8, 0.5])  # of two, by which floating-point numbers are multiplied exactly
SHORT = [
    "data=images", "trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=csv",
    "callbacks=minimal", "++trainer.enable_progress_bar=false", "baselines=null", "data.batch_size=16",
]  # fmt: skip


SMALLER = {
    "core_readout": [],
    "cnn": ["model.conv=[{filters: 4, kernel: 5}]", "model.dense=[{units: 8, dropout: 0.4}]"],
    "hsm": [],
    "hsm_qn": ["model.restarts=1", "model.iterations=3"],
}


def load(tmp_path, scale="std", responses=RESPONSES):
    path = save_arrays(tmp_path / "mine.npz", {"images": IMAGES, "responses": responses})
    return load_images(path, ImageOptions(response_scale=scale))


def test_the_recording_stays_in_the_files_unit_and_notes_the_other(tmp_path):
    found, plain = load(tmp_path), load(tmp_path, "none")
    for split, part in found.splits.items():
        np.testing.assert_array_equal(part.responses, plain.splits[split].responses)
    spec = describe(found)
    np.testing.assert_allclose(spec.response_unit, np.nanstd(found.splits["train"].responses, 0), rtol=1e-6)
    assert DataSpec.from_dict(spec.to_dict()) == spec and describe(plain).response_unit == ()
    scaled = spec.in_response_units()
    np.testing.assert_allclose(np.multiply(scaled.mean_rates, spec.response_unit), spec.mean_rates)
    assert scaled.response_unit == () and describe(plain).in_response_units() is not None
    with pytest.raises(ConfigError, match="response_scale"):
        load(tmp_path, "z")


def test_silent_and_unseen_neurons_are_not_blown_up():
    values = np.column_stack([RESPONSES[:, 0], np.zeros(60), np.full(60, np.nan)])
    factor, info = response_factor(values, "std")
    std = RESPONSES[:, 0].std(dtype=np.float64)
    np.testing.assert_allclose(factor, [std, 0.01 * std / 2, 1], rtol=1e-6)
    assert info == {"method": "std", "unit": factor.tolist()}
    np.testing.assert_array_equal(response_factor(np.zeros((5, 2)), "std")[0], [1, 1])
    np.testing.assert_array_equal(response_factor(values, "none")[0], [1, 1, 1])


@pytest.mark.parametrize("loss", [mse, poisson, poisson_normalised])
def test_the_loss_is_that_of_divided_responses(loss):
    rates, targets = (torch.rand(5, 3, dtype=torch.float64) + 0.1 for _ in range(2))
    mask = torch.rand(5, 3) > 0.3
    spec = DataSpec("x", kind="images", n_out=3, mean_rates=(1.0, 2.0, 3.0), response_unit=(2.0, 0.5, 4.0))
    unit = torch.tensor(spec.response_unit, dtype=torch.float64)
    poisoned = torch.where(mask, targets, np.nan)
    found = loss_in_response_units(loss, {"rates": rates}, poisoned, mask, spec)
    divided = DataSpec("x", kind="images", n_out=3, mean_rates=(0.5, 4.0, 0.75))
    torch.testing.assert_close(found, loss({"rates": rates / unit}, targets / unit, mask, divided))


@pytest.mark.parametrize("model", ["core_readout", "cnn", "hsm", "hsm_qn"])
def test_training_does_not_see_the_unit_of_the_file(tmp_path, model):
    """Predictions of responses in another unit are the same ones in that unit, bit for bit; without it they are not."""

    def predicted(name, responses, scale):
        path = save_arrays(tmp_path / f"{name}.npz", {"images": IMAGES, "responses": responses})
        settings = SMALLER[model]
        run = here(
            tmp_path / name, f"model={model}", f"data.path={path}", f"data.response_scale={scale}", *settings,
            base=SHORT,
        )  # fmt: skip
        saved = load_checkpoint(run.folder / "checkpoints" / "best.ckpt")
        with torch.no_grad():
            return saved.model.eval()(torch.from_numpy(IMAGES[:, None]))["rates"]

    one, other = predicted("one", RESPONSES, "std"), predicted("other", RESPONSES * POWERS, "std")
    assert torch.equal(one * torch.from_numpy(POWERS), other)
    if model == "core_readout":
        raw = predicted("raw", RESPONSES * POWERS, "none")
        assert not torch.allclose(raw, other, rtol=1e-3)


def test_a_saved_run_predicts_and_is_scored_in_the_files_unit(tmp_path):
    settings = ["trainer.max_epochs=2", "callbacks=minimal", "logger=none", "baselines=null", "trainer=cpu"]
    data = nl.images(IMAGES, 100 * RESPONSES, response_scale="std")
    run = nl.train("core_readout", data, settings, folder=tmp_path / "run", verbose=False)
    again = nl.load(run.folder)
    predicted, trials = again.rates("val"), run.data.recording.splits["val"]
    error = np.nanmean((predicted - trials.responses) ** 2) ** 0.5
    assert error == pytest.approx(again.scores["val/rmse"], rel=1e-5) and 50 < predicted.mean() < 500
    np.testing.assert_allclose(again.predict(IMAGES[trials.row]), predicted, rtol=1e-4)


def test_an_output_starts_at_the_mean_in_the_files_unit(tmp_path):
    spec = describe(load(tmp_path))
    net = CoreReadoutNet(spec, core=partial(ConvCore, layers=1), readout=GaussianReadout).eval()
    torch.nn.init.zeros_(net.readout.features)
    np.testing.assert_allclose(net(torch.zeros(1, 1, 16, 16))["rates"][0].detach(), spec.mean_rates, rtol=1e-5)
    assert "unit.unit" not in net.state_dict()
