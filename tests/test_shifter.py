"""The shifter: from the pupil to a shift of the readout's positions, and the data that say where the pupil was."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from runs import here, record
from test_core_readout import CORES, READOUTS, SPEC, images, model
from torch import nn

from neuro_lightning import losses
from neuro_lightning.contracts import DataSpec, call_network, run_network
from neuro_lightning.data.arrays.files import save_arrays
from neuro_lightning.data.arrays.images import ImageOptions, load_images
from neuro_lightning.data.describe import describe, make_dataset
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.models.core_readout import CoreReadout, CoreReadoutNet
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.readouts import GaussianReadout
from neuro_lightning.nn.shifter import Shifter

RNG = np.random.default_rng(0)
WITH_PUPIL = replace(SPEC, pupil=True)
ARRAYS = {"images": RNG.normal(size=(40, 8, 9)), "responses": RNG.gamma(2.0, size=(40, 3)),
          "pupil_center": RNG.normal(5, 3, size=(40, 2))}  # fmt: skip


class Itself(nn.Module):
    """A core that gives the image."""

    def __init__(self, shape):
        super().__init__()
        self.out_shape = shape

    def forward(self, given):
        return given

    def penalties(self):
        return {}


def test_the_shift_by_hand():
    shifter = Shifter(5)
    assert sum(p.numel() for p in shifter.parameters()) == 2 * 5 + 5 + 5 * 5 + 5 + 5 * 2 + 2
    pupil = torch.randn(7, 2)
    assert (shifter(pupil) == 0).all()
    nn.init.normal_(shifter.layers[4].weight)
    x = pupil
    for layer in (shifter.layers[0], shifter.layers[2], shifter.layers[4]):
        x = (x @ layer.weight.T + layer.bias).tanh()
    torch.testing.assert_close(shifter(pupil), x)


def test_a_shift_moves_what_all_neurons_read():
    readout = GaussianReadout((1, 3, 9), 2).eval()
    with torch.no_grad():
        readout.position.copy_(torch.tensor([[0.0, 0.0], [-0.5, 0.0]]))
    features = torch.arange(9.0).expand(2, 1, 3, 9)  # a column's value is its number; a column is 0.25 wide
    found = readout(features, torch.tensor([[0.25, 0.0], [-5.0, 0.5]]))
    torch.testing.assert_close(found, torch.tensor([[5.0, 3.0], [0.0, 0.0]]))
    assert torch.equal(readout(features), readout(features, torch.zeros(2, 2)))


def test_it_learns_where_the_eye_looks():
    """A neuron's pixel moves by the pupil: without the shifter no position predicts it."""
    generator = torch.Generator().manual_seed(0)
    given, pupil = torch.randn(400, 1, 5, 9, generator=generator), torch.randn(400, 2, generator=generator)
    spec = DataSpec(
        "tiny", kind="images", n_out=1, image_shape=(1, 5, 9), mean_rates=(0.0,), nonnegative=False, pupil=True
    )
    blurred = nn.functional.avg_pool2d(given, (1, 5), stride=1, padding=(0, 2))
    truth = GaussianReadout((1, 5, 9), 1).eval()
    nn.init.zeros_(truth.position)
    targets = truth(blurred, 0.5 * pupil.tanh()).detach()
    scores = []
    for hidden in (0, 5):
        torch.manual_seed(0)
        readout = partial(GaussianReadout, init_spread=0.05)
        net = CoreReadoutNet(spec, core=Itself, readout=readout, shifter=hidden).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
        for _ in range(200):
            optimizer.zero_grad()
            total, count = losses.mse(net(blurred, pupil), targets, torch.ones(400, 1, dtype=torch.bool), spec)
            (total / count).backward()
            optimizer.step()
        made = net.eval()(blurred, pupil)["rates"]
        scores.append(torch.corrcoef(torch.cat([made, targets], 1).T)[0, 1].item())
    assert scores[0] < 0.8 < 0.9 < scores[1]


def test_the_network_gets_the_pupil_of_its_batch():
    batch = {"inputs": images(), "targets": torch.ones(5, 4), "pupil": torch.randn(5, 2)}
    plain, shifted = model().net.eval(), model(spec=WITH_PUPIL, shifter=5).net.eval()
    nn.init.normal_(shifted.shifter.layers[4].weight)
    assert torch.equal(call_network(plain, batch)["rates"], plain(images())["rates"])
    found = call_network(shifted, batch)["rates"]
    assert torch.equal(found, shifted(images(), batch["pupil"])["rates"])
    assert not torch.equal(found, shifted(images())["rates"])
    torch.testing.assert_close(run_network(shifted, batch)["rates"], found)
    half = {**batch, "pupil": batch["pupil"].double()}
    torch.testing.assert_close(call_network(shifted, half)["rates"], found)
    del batch["pupil"]
    assert torch.equal(call_network(shifted, batch)["rates"], shifted(images())["rates"])


def test_each_recording_has_a_shifter_of_its_own():
    parts = tuple(replace(WITH_PUPIL, session=name) for name in ("one", "two"))
    spec = DataSpec("both", kind="images", n_out=8, image_shape=SPEC.image_shape, sessions=parts)
    nets = CoreReadout(spec, core=CORES["conv"], readout=READOUTS["gaussian"], shifter=5).networks
    assert nets[0].core is nets[1].core and nets[0].shifter is not nets[1].shifter


def load(tmp_path, **changes):
    arrays = {name: values for name, values in {**ARRAYS, **changes}.items() if values is not None}
    return load_images(save_arrays(tmp_path / "mine.npz", arrays), ImageOptions())


def test_the_pupil_is_read_and_standardized(tmp_path):
    where = ARRAYS["pupil_center"].copy()
    where[3] = np.nan
    recording = load(tmp_path, pupil_center=where)
    train = recording.splits["train"]
    known = where[train.row[train.row != 3]]
    for part in recording.splits.values():
        wanted = np.nan_to_num((where[part.row] - known.mean(0)) / known.std(0))
        np.testing.assert_allclose(part.pupil, wanted, rtol=1e-4, atol=1e-4)
    spec = describe(recording)
    assert spec.pupil and DataSpec.from_dict(spec.to_dict()) == spec
    assert torch.equal(
        make_dataset(train, spec, evaluate=False)[[1, 0]]["pupil"], torch.from_numpy(train.pupil[[1, 0]])
    )
    without = load(tmp_path, pupil_center=None)
    assert not describe(without).pupil and without.splits["train"].pupil is None
    for wrong, says in ((where[:, :1], "must have 2 columns"), (where[:9], "with 40 images as in images")):
        with pytest.raises(DataError, match=says):
            load(tmp_path, pupil_center=wrong)


def test_the_pupil_of_an_image_shown_again_is_the_mean(tmp_path):
    ids, where = np.repeat(np.arange(40), 2), RNG.normal(size=(80, 2))
    recording = load(tmp_path, image_ids=ids, responses=RNG.gamma(2.0, size=(80, 3)), pupil_center=where)
    mean = where.reshape(40, 2, 2).mean(1)
    train = recording.splits["train"].row
    wanted = (mean - mean[train].mean(0)) / mean[train].std(0)
    np.testing.assert_allclose(recording.splits["val"].pupil, wanted[recording.splits["val"].row], rtol=1e-4, atol=1e-4)


def test_a_run(tmp_path):
    path = save_arrays(tmp_path / "mine.npz", ARRAYS)
    here(tmp_path / "run", base=[
        "model=core_readout", "data=images", f"data.path={path}", "model.shifter=5", "model.core.channels=2",
        "model.core.first_kernel=3", "model.core.layers=1", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
        "trainer.check_val_every_n_epoch=1", "callbacks=minimal", "baselines=null",
    ])  # fmt: skip
    assert np.isfinite(record(tmp_path / "run")["metrics"]["val/corr"])
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").model
    assert saved.net.by_pupil and saved.net.shifter.layers[4].weight.abs().sum() > 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"model\.shifter=5 needs where the pupil was, which tiny does not say"):
        model(shifter=5)
    with pytest.raises(ConfigError, match=r"model\.shifter=5 .* readout@model\.readout=gaussian"):
        model("conv", "dense", WITH_PUPIL, shifter=5)
    with pytest.raises(ConfigError, match=r"model\.shifter=-1 must be 0 or more"):
        model(spec=WITH_PUPIL, shifter=-1)
