"""HSM and its relatives: sizes, penalties, refusals, every experiment's network, and recovery of a planted one."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import checkpoint, here, record

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.images import ImageDataset, ImageTrials
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import auto_normalised, mse, poisson_normalised
from neuro_lightning.models.hsm import HSM, HSMNet, QuasiNewtonHSM
from neuro_lightning.nn.hsm_layers import Conv, Dense, DoG, Layer, n_units
from neuro_lightning.nn.nonlinearities import NONLINEARITIES
from neuro_lightning.settings.config import check_config, instantiate

CONF = str(Path(__file__).resolve().parents[1] / "conf")
EXPERIMENTS = sorted(path.stem for path in Path(CONF, "experiment").glob("antolik_*.yaml"))


def spec(n=6, shape=(1, 12, 12), mean=0.5, **more):
    return DataSpec("images", kind="images", n_out=n, image_shape=shape, mean_rates=(mean,) * n, **more)


def parts(units=3, hidden=0.5, **output):
    return {
        "first": partial(DoG, units=units),
        "hidden": partial(Dense, units=hidden, activation="softplus"),
        "output": partial(Dense, **{"activation": "softplus", **output}),
    }


def composed(*overrides):
    with initialize_config_dir(CONF):
        return compose("train", overrides=["logger=none", "paths.output_dir=/nowhere", *overrides])


@pytest.mark.parametrize(("neurons", "hidden", "parameters"), [(103, 20, 2426), (55, 11, 833), (102, 20, 2405)])
def test_published_sizes(neurons, hidden, parameters):
    model = instantiate(composed("model=hsm").model, spec=spec(neurons, (1, 31, 31)))
    assert n_units(0.2, neurons) == hidden == model.net.layers["hidden"].out_shape[0]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.net.filters().shape == (9, 1, 31, 31)


@pytest.mark.parametrize("layer", ["conv", "dense", "dog", "dog_conv", "separable"])
def test_deviations_of_first_values_are_keys_that_do_something(layer):
    """Differences of Gaussians draw no weights, so that their configs have no deviation of them."""
    config = composed("model=hsm", f"layer@model.first={layer}").model.first
    assert ("weight_std" in config) == (not layer.startswith("dog"))
    names = [name for name in ("weight_std", "bias_std") if name in config]
    extra = {"filters": 2, "size": 5} if "size" in config else {"units": 2}

    def first(**changes):
        torch.manual_seed(0)
        layer = instantiate(config)((1, 9, 9), 6, **extra, **changes)
        return torch.cat([p.detach().flatten() for p in layer.parameters()])

    assert all(not torch.equal(first(), first(**{name: 0.7})) for name in names)


def test_numbers_of_units():
    assert [n_units(u, 40) for u in (None, 7, 7.0, 0.3, 0.001)] == [40, 7, 7, 12, 1]
    assert n_units(0.29, 100) == 29  # 0.29 * 100 is a little less in floating point
    for wrong in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="neither a whole number"):
            n_units(wrong, 40)


def test_layers_in_a_row_are_the_papers_formula():
    torch.manual_seed(0)
    net = HSMNet(spec(), **parts(), scale_input="none").eval()
    images = torch.randn(5, 1, 12, 12)
    dog, hidden, output = net.layers.values()
    u = images.flatten(1) @ dog.dog().flatten(1).T + dog.bias
    h = torch.log1p((u @ hidden.weight.flatten(1).T + hidden.bias).exp())
    y = torch.log1p((h @ output.weight.flatten(1).T + output.bias).exp())
    result = net(images)
    assert set(result) == {"rates"}
    torch.testing.assert_close(result["rates"], y, rtol=1e-4, atol=1e-5)
    assert (result["rates"] >= 0).all()


def test_penalties_are_there_in_training_only():
    torch.manual_seed(0)
    net = HSMNet(spec(), **parts(reg={"l2": 0.1, "l1": 0}), scale_input="none")
    losses = net(torch.randn(2, 1, 12, 12))["losses"]
    assert list(losses) == ["output_l2"]
    torch.testing.assert_close(losses["output_l2"], 0.05 * net.layers["output"].weight.square().sum())
    assert "losses" not in net.eval()(torch.randn(2, 1, 12, 12))


def test_learnt_scale_of_the_image():
    torch.manual_seed(0)
    net = HSMNet(spec(), **parts(), scale_input="learnt").eval()
    images = torch.randn(2, 1, 12, 12)
    with torch.no_grad():
        plain = net(3 * images - 1)["rates"]
        net.scale.scale.fill_(3.0)
        net.scale.shift.fill_(-1.0)
    torch.testing.assert_close(net(images)["rates"], plain)


def test_images_are_standardised_by_the_training_ones():
    torch.manual_seed(0)
    output = partial(Dense, activation="softplus")
    images = 40 + 7 * torch.randn(5, 1, 6, 6)
    scaled = HSM(spec(shape=(1, 6, 6), image_mean=40.0, image_std=7.0), output=output).net.eval()
    plain = HSM(spec(shape=(1, 6, 6)), output=output, scale_input="none").net.eval()
    plain.layers.load_state_dict(scaled.layers.state_dict())
    torch.testing.assert_close(scaled(images)["rates"], plain((images - 40) / 7)["rates"])


def test_what_figures_show():
    torch.manual_seed(0)
    net = HSMNet(spec(4, (3, 9, 9)), **parts())
    torch.testing.assert_close(net.filters()[:, 0], net.layers["first"].dog().detach())
    table = net.dog_parameters()
    assert set(table) == {"x", "y", "a1", "a2", "s1", "s2"} and all(v.shape == (3,) for v in table.values())
    conv = HSMNet(spec(4, (3, 9, 9)), **parts() | {"first": partial(Conv, filters=5, size=3)})
    assert conv.filters().shape == (5, 3, 3, 3) and conv.dog_parameters() == {}


def test_layers_that_do_not_fit_are_refused():
    negative = replace(spec(), nonnegative=False)
    with pytest.raises(ConfigError, match=r"take model\.output\.activation=auto .*loss@model\.loss=auto"):
        HSM(negative, **parts(), loss=mse)
    with pytest.raises(ConfigError, match="may be negative"):
        HSM(spec(), **parts(activation="none"), loss=partial(poisson_normalised))
    with pytest.raises(ConfigError, match="4 x 1 x 1 numbers for 6 neurons"):
        HSM(spec(), **parts(units=3) | {"output": partial(Dense, units=4, activation="softplus")})
    with pytest.raises(ConfigError, match=r"model\.first: .*5 x 5 pixels"):
        HSM(spec(shape=(1, 4, 4)), **parts())
    with pytest.raises(ConfigError, match=r"dropout=1\.5"):
        Layer((1, 3, 3), dropout=1.5)
    for wrong, said in (
        ({"size": 0}, "size=0"),
        ({"size": 3, "stride": 0}, "stride=0"),
        ({"size": 3, "weight_std": -1}, "w"),
    ):
        with pytest.raises(ConfigError, match=rf"model\.first: {said}"):
            HSM(spec(), **parts() | {"first": partial(Conv, filters=2, **wrong)})
    for layer in (partial(Dense, dropout=0.1), partial(Conv, filters=2, size=3, batch_norm=True)):
        with pytest.raises(ConfigError, match="take model=hsm"):
            QuasiNewtonHSM(spec(), first=layer, output=parts()["output"])
    for data, chosen in ((negative, "none"), (spec(), "softplus")):
        model = HSM(data, **parts(activation="auto"), loss=partial(auto_normalised))
        assert model.net.layers["output"].activation == chosen


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_and_learns(experiment):
    cfg = composed(f"experiment={experiment}")
    check_config(cfg, known=set(cfg))
    torch.manual_seed(0)
    data = spec(10, (1, 31, 31))
    model = instantiate(cfg.model, spec=data)
    assert cfg.data.protocol == "thesis" and cfg.data.batch_size == 16
    output = model.net.train()(torch.randn(3, 1, 31, 31))
    targets = torch.rand(3, 10)
    total, count = model.loss(output, targets, torch.ones(3, 10, dtype=torch.bool), data)
    (total / count + sum(output["losses"].values())).backward()
    assert output["rates"].shape == (3, 10) and (output["rates"] >= 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_settings_of_the_baselines():
    found = {}
    for name in ("antolik_bl1", "antolik_bl2", "antolik_bl3", "antolik_bl4"):
        cfg = composed(f"experiment={name}")
        layers = [cfg.model[layer] for layer in ("first", "hidden", "output")]
        assert cfg.model.first.parametrisation == "published" and cfg.model.first.units == 9
        assert len({layer.bias_std for layer in layers}) == 1 and cfg.model.hidden.reg.l2 == 0
        found[name[-1]] = (cfg.data.input_scale, layers[0].bias_std, cfg.model.optimizer.lr, layers[2].reg.l2)
    assert found == {
        "1": ("raw255", 0.0, 1e-4, 0),
        "2": ("zscore_each", 0.0, 1e-4, 0),
        "3": ("zscore_each", 0.1, 1e-3, 0),
        "4": ("zscore_each", 0.1, 1e-3, 0.1),
    }


def test_dropout_is_of_the_outputs_and_in_training_only():
    torch.manual_seed(0)
    layer = Dense((2, 3, 3), 400, activation="softplus", dropout=0.25)
    maps = torch.randn(5, 2, 3, 3)
    values = layer.eval()(maps)
    torch.testing.assert_close(values, torch.nn.functional.softplus(layer.linear(maps)))
    trained = layer.train()(maps)
    kept = trained != 0
    assert abs(float(kept.float().mean()) - 0.75) < 0.05
    torch.testing.assert_close(trained[kept], values[kept] / 0.75)


def test_a_quasi_newton_fit_counts_penalties_and_validates_without():
    rng = np.random.default_rng(0)
    train, val = (
        ImageDataset(ImageTrials(rng.normal(size=(n, 1, 8, 8)).astype(np.float32), rng.gamma(1, size=(n, 6))))
        for n in (20, 9)
    )
    data = spec(shape=(1, 8, 8))
    model = QuasiNewtonHSM(
        data, **parts(reg={"l2": 0.1}), loss=poisson_normalised, scale_input="none", restarts=1, iterations=4
    )
    model.fit_net(train, val)
    (fit,), net = model.fits, model.net.double()

    def mean_loss(dataset):
        batch = dataset[list(range(len(dataset)))]
        rates, targets = net.eval()(batch["inputs"].double()), batch["targets"].double()
        total, count = poisson_normalised(rates, targets, batch["mask"], data)
        return float(total / count)

    penalty = float(0.05 * net.layers["output"].weight.square().sum())
    assert fit.loss == pytest.approx(mean_loss(train) + penalty, rel=1e-5) and penalty > 1e-4 * fit.loss
    assert fit.score == pytest.approx(mean_loss(val), rel=1e-5)


def test_nonlinearities_their_range_and_their_inverses():
    x = torch.tensor([-2.0, 0.0, 3.0])
    elu = NONLINEARITIES["elu"].function(x)
    torch.testing.assert_close(elu, torch.tensor([np.exp(-2.0), 1.0, 4.0], dtype=torch.float32))
    values = torch.linspace(0.1, 9, 50)
    for name, (function, inverse, never_negative) in NONLINEARITIES.items():
        assert bool((function(torch.linspace(-9, 9, 50)) >= 0).all()) == never_negative, name
        torch.testing.assert_close(function(inverse(values)), values)


def test_batch_normalisation_comes_before_the_bias_and_has_no_scale():
    torch.manual_seed(0)
    layer = Conv((2, 9, 9), 4, filters=3, size=3, stride=1, batch_norm=True)
    maps = layer(5 + 2 * torch.randn(8, 2, 9, 9))
    torch.testing.assert_close(maps.mean((0, 2, 3)), layer.bias.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3, atol=0)
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "weight"]


CENTERS = torch.tensor([[4.0, 10.0, 8.0], [4.0, 5.0, 11.0]])


def plant(n_neurons=12, size=15, n_images=500):
    """Images with a 1/f spectrum, mean responses of a network with three known units, and noisy responses."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n_images, size, size))) / np.maximum(frequency, 1 / size)).real
    images = torch.from_numpy((field / field.std()).astype(np.float32))[:, None]
    torch.manual_seed(1)
    net = HSMNet(spec(n_neurons, (1, size, size)), **parts(hidden=6), scale_input="none").eval()
    first, hidden, output = net.layers.values()
    variance, amplitude = torch.tensor([[2.0, 3.0, 4.0], [6.0, 8.0, 5.0]]), torch.tensor([[8.0] * 3, [6.0] * 3])
    first.dog.assign(center=CENTERS, variance=variance, amplitude=amplitude)
    with torch.no_grad():
        hidden.weight.zero_()
        for k in range(6):  # of each unit one hidden neuron sees the increments and one the decrements
            hidden.weight[k, k // 2] = 2.0 * (-1) ** k
        hidden.bias.fill_(-1.0)
        output.bias.fill_(-1.0)
        output.weight.copy_((torch.rand(n_neurons, 6) * (torch.rand(n_neurons, 6) < 0.4))[:, :, None, None])
        output.weight[range(n_neurons), [n % 6 for n in range(n_neurons)]] += 1.0
        rates = net(images)["rates"]
        rates = rates / rates.mean(0)
    return images, rates, torch.poisson(4 * rates, generator=torch.Generator().manual_seed(0)) / 4


def test_planted_centers_are_found():
    images, rates, responses = plant()
    train, val = (
        ImageDataset(ImageTrials(images[part].numpy(), responses[part].numpy()))
        for part in (slice(400), slice(400, 450))
    )
    data = DataSpec("planted", kind="images", n_out=12, image_shape=(1, 15, 15), mean_rates=(1.0,) * 12)
    model = QuasiNewtonHSM(data, **parts(), loss=poisson_normalised, restarts=2, iterations=200, patience=10)
    model.fit_net(train, val)
    assert len({fit.score for fit in model.fits}) == 2
    found = model.net.dog_parameters()
    distance = torch.hypot(found["x"][:, None] - CENTERS[0], found["y"][:, None] - CENTERS[1])
    assert distance.min(0).values.max() < 0.5, found
    predicted, true = model.net.eval()(images[450:])["rates"].detach(), rates[450:]
    assert 1 - (predicted - true).square().mean() / true.var(0).mean() > 0.9  # of the variance that can be explained


TWIN = ["data=antolik_v1", "data.simulate=true", "data.batch_size=64", "trainer=cpu", "logger=csv", "callbacks=minimal"]


@pytest.mark.parametrize("model", ["hsm", "hsm_qn", "lnp"])
def test_runs_on_the_twin_beat_the_mean_and_a_checkpoint_holds_the_model(tmp_path, model):
    size = ["data.twin={train_images: 300, neurons: 8, dogs: 2, noise: 0.5}", f"paths.data={tmp_path}"]
    few = {
        "hsm": ["trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "model.optimizer.lr=0.05"],
        "hsm_qn": ["model.restarts=2", "model.iterations=60"],
        "lnp": ["model.strengths=[0.1,1.0]"],
    }[model]
    run = here(tmp_path, f"model={model}", *TWIN, *size, *few, "baselines=null", base=[])
    assert run.score == pytest.approx(record(run.folder)["metrics"]["val/corr"]) and run.score > 0.3
    saved = checkpoint(run.folder, "best.ckpt")
    again = instantiate(composed(f"model={model}").model, spec=DataSpec.from_dict(saved["neuro_lightning"]["spec"]))
    state = {name.removeprefix("net."): value for name, value in saved["state_dict"].items() if name[:4] == "net."}
    again.net.load_state_dict(state)
