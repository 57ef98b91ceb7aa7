import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TESTS, here, record, same

from neuro_lightning import losses
from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.core_readout import CoreReadout
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.core import ConvCore
from neuro_lightning.nn.readouts import DenseReadout, FactorisedReadout, GaussianReadout
from neuro_lightning.nn.vit import ViTCore
from neuro_lightning.settings.config import check_config, instantiate

PICTURES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[pictures]", "data=pictures", "model=core_readout",
    "trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=none", "callbacks=minimal",
    "baselines=null",
]  # fmt: skip
SMALL = {
    "conv": ["model.core.first_kernel=5", "model.core.channels=4", "model.core.layers=2"],
    "vit": ["model.core.patch=4", "model.core.channels=8", "model.core.blocks=1"],
}
RATES = (0.2, 0.0, 1.0, 3.5)
SPEC = DataSpec("tiny", kind="images", n_out=4, image_shape=(3, 14, 12), mean_rates=RATES, unit_ids=(0, 1, 2, 3))
CORES = {
    "conv": partial(ConvCore, channels=6, layers=2, first_kernel=5, kernel=3, laplace=0.1),
    "vit": partial(ViTCore, patch=4, stride=2, channels=8, heads=2, blocks=1, mlp=8),
}
READOUTS = {
    "gaussian": partial(GaussianReadout, l1=0.1),
    "cortex": partial(GaussianReadout, l1=0.1, from_cortex=30),
    "factorised": partial(FactorisedReadout, l1=0.1),
    "dense": partial(DenseReadout, l2=0.1, dropout=0.1),
}


def model(core: str = "conv", readout: str = "gaussian", spec: DataSpec = SPEC, **changes) -> CoreReadout:
    torch.manual_seed(0)
    return CoreReadout(spec, core=CORES[core], readout=READOUTS[readout], **changes)


def test_a_readout_from_the_cortex_knows_its_neurons():
    placed = replace(SPEC, unit_positions=(0.0, 0.0, 10.0, 0.0, 0.0, 10.0, 10.0, 10.0))
    net = model("conv", "cortex", placed).net
    assert net.readout.units.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert DataSpec.from_dict(placed.to_dict()) == placed
    saved = model("conv", "cortex", placed).net
    saved.load_state_dict(net.state_dict())
    assert torch.equal(saved.eval()(images())["rates"], net.eval()(images())["rates"])


def images(n: int = 5) -> torch.Tensor:
    return torch.randn(n, *SPEC.image_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("core", "readout", "output"), product(CORES, ["gaussian", "factorised", "dense"], ["elu", "softplus", "identity"])
)
def test_any_readout_on_any_core(core, readout, output):
    net = model(core, readout, output=output).net.train()
    made = net(images())
    assert made["rates"].shape == (5, 4)
    assert set(made["losses"]) == {
        *({"core_laplace"} if core == "conv" else ()),
        "readout_l2" if readout == "dense" else "readout_l1",
    }
    loss, targets, mask = losses.mse, torch.full((5, 4), torch.nan), torch.zeros(5, 4, dtype=torch.bool)
    targets[:3, :3], mask[:3, :3] = 1.0, True  # a NaN target must not reach a gradient
    total, count = loss(made, targets, mask, SPEC)
    (total / count + sum(made["losses"].values())).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    net.eval()
    first, second = net(images()), net(images())
    assert torch.equal(first["rates"], second["rates"]) and "losses" not in first
    if output != "identity":
        assert (first["rates"] >= 0).all()
    # an image's prediction does not depend on its neighbours in the batch
    torch.testing.assert_close(net(images()[2:3])["rates"], first["rates"][2:3])


@pytest.mark.parametrize("output", ["elu", "softplus", "identity"])
def test_the_bias_starts_at_the_mean_rates(output):
    net = model(output=output).net.eval()
    with torch.no_grad():
        net.readout.features.zero_()
        started = net(images())["rates"]
    wanted = torch.tensor(RATES) if output == "identity" else torch.tensor(RATES).clamp_min(1e-3)
    torch.testing.assert_close(started, wanted.expand(5, 4), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.07, 1.0, 5.0])
def test_softplus_of_a_given_sharpness(beta):
    net = model(output="softplus", softplus_beta=beta).net.eval()
    with torch.no_grad():
        net.readout.features.zero_()
        wanted = torch.tensor(RATES).clamp_min(1e-3).expand(5, 4)
        torch.testing.assert_close(net(images())["rates"], wanted, atol=1e-5, rtol=1e-3)
        net.readout.bias.copy_(torch.tensor([0.0, 1e3, -1e3, 2.0]))
        value = net(images())["rates"][0]
    closed = [math.log(2) / beta, 1e3, 0.0, math.log1p(math.exp(2 * beta)) / beta]
    torch.testing.assert_close(value, torch.tensor(closed), atol=1e-5, rtol=1e-5)
    large = DataSpec("tiny", kind="images", n_out=1, image_shape=(3, 14, 12), mean_rates=(500.0,))
    bias = model(spec=large, output="softplus", softplus_beta=beta).net.readout.bias  # exp(500) has no float32
    assert bias.item() == pytest.approx(500, abs=1e-3)


def test_training_lowers_the_loss_of_responses_to_one_pixel():
    """Neuron n's rate follows one pixel: after a few steps the prediction does as well."""
    spec = DataSpec("tiny", kind="images", n_out=2, image_shape=(1, 14, 12), mean_rates=(1.0, 1.0))
    given = torch.randn(200, 1, 14, 12, generator=torch.Generator().manual_seed(1))
    targets = torch.stack([given[:, 0, 6, 4], given[:, 0, 8, 7]], 1).exp().clamp(max=5)
    net = model(readout="factorised", spec=spec).net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        total, count = losses.poisson(net(given), targets, torch.ones_like(targets, dtype=torch.bool), spec)
        (total / count).backward()
        optimizer.step()
    made = net.eval()(given)["rates"]
    for neuron in range(2):
        assert torch.corrcoef(torch.stack([made[:, neuron], targets[:, neuron]]))[0, 1] > 0.8


def test_filters_are_those_of_the_first_stage():
    assert model().net.filters().shape == (6, 3, 5, 5)
    assert model("vit").net.filters().shape == (8, 3, 4, 4)


def test_invalid_settings_are_refused():
    zscored = DataSpec(
        "gratings", kind="images", n_out=2, image_shape=(1, 14, 12), mean_rates=(1e-9, -1e-9), nonnegative=False
    )
    assert model(spec=zscored).net.output == "identity" and model().net.output == "elu"
    with pytest.raises(ConfigError, match=r"responses in gratings are: take model\.output=auto"):
        model(spec=zscored, output="elu")
    with pytest.raises(ConfigError, match=r"take loss@model\.loss=mse$"):
        model(spec=zscored, output="identity", loss=partial(losses.poisson))
    model(spec=zscored, output="identity", loss=partial(losses.mse))
    for wrong in ({"stride": 0}, {"laplace": -1.0}, {"group_sparsity": -1.0}):
        with pytest.raises(ValueError, match=f"core.{next(iter(wrong))}"):
            ConvCore((1, 14, 12), **wrong)
    with pytest.raises(ValueError, match=r"core\.stride=0"):
        ViTCore((1, 14, 12), stride=0)
    with pytest.raises(ConfigError, match=r"from_cortex=30 needs where each neuron lies .* tiny does not say"):
        model("conv", "cortex")
    for beta, output in ((0.0, "softplus"), (0.07, "elu")):
        with pytest.raises(ConfigError, match=rf"model\.softplus_beta={beta} must be above 0, and needs"):
            model(output=output, softplus_beta=beta)
    with pytest.raises(ConfigError, match=r"model\.output=tanh is none of auto, none, identity, relu, softplus, elu"):
        model(output="tanh")


# ---- as composed by the configs


@pytest.mark.parametrize(("core", "readout", "loss"), [("conv", "gaussian", "poisson"), ("vit", "factorised", "mse")])
def test_a_run_and_its_checkpoint(tmp_path, core, readout, loss):
    groups = [f"core@model.core={core}", f"readout@model.readout={readout}", f"loss@model.loss={loss}"]
    here(tmp_path, *groups, *SMALL[core], base=PICTURES)
    assert {"val/corr", "val/rmse"} <= set(record(tmp_path)["metrics"])
    path = tmp_path / "checkpoints" / "last.ckpt"
    saved = load_checkpoint(path, trusted=["pictures"]).model.eval()  # with no data at hand
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert same(dict(saved.state_dict()), dict(weights)) and len(weights) > 10
    given = torch.rand(3, 3, 12, 10)
    assert saved(given)["rates"].shape == (3, 4) and (saved(given)["rates"] >= 0).all()
    here(tmp_path / "again", *groups, *SMALL[core], base=PICTURES)  # draws of the readout included
    again = torch.load(tmp_path / "again" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert same(dict(weights), dict(again))


def composed(*overrides: str):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", overrides=["data=antolik_v1", "paths.output_dir=out", *overrides])


@pytest.mark.parametrize("experiment", ["sensorium", "ln", "v1t", "klindt"])
def test_experiments_have_the_published_settings(experiment):
    cfg = composed(f"experiment=core_readout_{experiment}")
    check_config(cfg, known=set(cfg))
    spec = DataSpec("lurz", kind="images", n_out=10, image_shape=(1, 36, 64), mean_rates=(1.0,) * 10)
    net = instantiate(cfg.model, spec=spec).net
    parameters = sum(p.numel() for p in net.parameters())
    if experiment == "sensorium":  # core, then position, matrix, features and bias of each neuron
        assert parameters == 39_680 + 10 * (2 + 4 + 64 + 1)
        assert net.core.layers[0][1].momentum == 0.9 and net.output == "elu" and net.readout.keep_inside
        rates = []
        optimizer = torch.optim.Adam(net.parameters(), lr=9e-3)
        schedule = instantiate(cfg.model, spec=spec)._scheduler(optimizer, 1)["scheduler"]
        schedule.step(0.2)
        while not schedule.finished:
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step(0.2 + 1e-7)
        assert rates == pytest.approx([lr for lr in (9e-3, 2.7e-3, 8.1e-4, 2.43e-4) for _ in range(6)])
    if experiment == "ln":
        assert not any(isinstance(layer, torch.nn.ELU) for layer in net.core.modules())
    if experiment == "v1t":
        assert net.core.out_shape == (156, 29, 57) and len(net.core.blocks) == 4
    if experiment == "klindt":
        assert net.core.out_shape == (48, 24, 52)
        assert parameters == 48 * 169 + 2 * 48 * 48 * 9 + 3 * 2 * 48 + 10 * (24 * 52 + 48 + 1)
