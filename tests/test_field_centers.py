"""Where neurons look: found from responses, put above the right place of a core's map, and where a training starts."""

import math

import pytest
import torch
from runs import TESTS, checkpoint, here, same

from neuro_lightning.contracts import full_mask
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.field_centers import field_centers
from neuro_lightning.nn.core import ConvCore
from neuro_lightning.nn.readouts import GaussianReadout
from neuro_lightning.nn.vit import ViTCore

PLACES = torch.tensor([[6.0, 9.0], [12.0, 22.0], [9.0, 15.0], [10.0, 5.0]])


def cells(n: int = 1500, size=(20, 28), noise: float = 0.3):
    """Noisy responses of two simple and two complex cells at ``PLACES`` to white noise, and of one that is constant."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 1, *size, generator=generator)
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in size), indexing="ij")
    responses = []
    for kind, (row, column) in enumerate(PLACES):
        window = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 2.0**2))
        even, odd = ((images[:, 0] * window * wave(2 * math.pi * x / 7)).sum((1, 2)) for wave in (torch.cos, torch.sin))
        drive = even.relu() if kind < 2 else torch.hypot(even, odd)
        responses.append(drive / drive.std() + noise * torch.randn(n, generator=generator))
    return images, torch.stack([*responses, torch.ones(n)], 1)


def test_simple_and_complex_cells_are_found():
    images, responses = cells()
    centers = field_centers(images, responses, full_mask(responses.shape))
    assert ((centers[:4] - PLACES).norm(dim=1) <= 2).all()
    assert centers[4].tolist() == [9.5, 13.5]  # one that does not respond is in the middle
    mask = torch.rand(responses.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    poisoned = field_centers(images, torch.where(mask, responses, torch.nan), mask)
    assert ((poisoned[:4] - PLACES).norm(dim=1) <= 2).all()
    seen = field_centers(images[:, [0, 0, 0]], 1000 * responses, full_mask(responses.shape))  # in color, other units
    assert torch.equal(seen, centers)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("core", ["conv", "padded", "vit"])
def test_a_place_in_the_image_is_above_its_point_of_the_map(core, stride):
    shape = (1, 22, 31)
    if core == "vit":
        made = ViTCore(shape, patch=5, stride=stride, channels=4, heads=2)
    else:
        made = ConvCore(shape, channels=1, layers=1, first_kernel=5, stride=stride, pad_first=core == "padded")
    layer = made.embedding if core == "vit" else made.layers[0][0]
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    layer.weight.data[:, :, 2, 2] = 1.0  # passes the middle of its window on
    y, x = torch.meshgrid(torch.arange(22.0), torch.arange(31.0), indexing="ij")
    ramps = layer(torch.stack([y, x])[:, None])[:, :1]  # a map of rows, and one of columns
    pixels = torch.tensor([[4.0, 7.0], [10.5, 20.25], [15.0, 12.0]])
    readout = GaussianReadout(ramps.shape[1:], 3).eval()
    readout.start_at(made.on_map(pixels))
    torch.nn.init.ones_(readout.features)
    torch.testing.assert_close(readout(ramps).T, pixels, atol=1e-4, rtol=0)


PICTURES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[pictures]", "data=pictures", "model=core_readout",
    "trainer=cpu", "trainer.check_val_every_n_epoch=1", "logger=none", "callbacks=minimal", "baselines=null",
    "model.core.first_kernel=5", "model.core.channels=4", "model.core.layers=2", "model.readout.from_images=true",
]  # fmt: skip


def test_a_training_starts_there_and_a_resumed_one_does_not(tmp_path):
    frozen = here(tmp_path / "frozen", "trainer.max_epochs=1", "model.optimizer.lr=0", base=PICTURES)
    positions = checkpoint(frozen.folder)["state_dict"]["net.readout.position"]
    constant = "scheduler@model.scheduler=none"
    whole = here(tmp_path / "whole", "trainer.max_epochs=4", constant, base=PICTURES)
    here(tmp_path / "part", "trainer.max_epochs=2", constant, base=PICTURES)
    last = tmp_path / "part/checkpoints/last.ckpt"
    resumed = here(tmp_path / "part", "trainer.max_epochs=4", constant, f"resume={last}", base=PICTURES)
    one, other = (checkpoint(run.folder)["state_dict"] for run in (whole, resumed))
    assert same(dict(one), dict(other))
    assert positions.abs().max() <= 1 and not torch.equal(positions, torch.zeros_like(positions))


def test_it_is_refused_beside_a_network_that_predicts_positions(tmp_path):
    with pytest.raises(ConfigError, match="from_images=true starts positions that are learnt freely"):
        here(tmp_path, "trainer.max_epochs=1", "model.readout.from_cortex=3", base=PICTURES)
