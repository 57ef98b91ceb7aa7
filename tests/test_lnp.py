"""Smooth linear and Poisson regression against dense closed forms, brute-force leave-one-out and scipy."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.images import ImageDataset, ImageTrials
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.laplacian_regression import (
    SmoothBasis,
    group_by_mask,
    laplacian_poisson,
    laplacian_regression,
)
from neuro_lightning.models.lnp import LNP, RegularisedLinear

SHAPE = (2, 4, 5)


def laplacian_matrix(channels, height, width):
    """S: 4 on the diagonal, -1 to each neighbour that exists, the same for each channel."""
    s = np.zeros((height * width,) * 2)
    for y in range(height):
        for x in range(width):
            s[y * width + x, y * width + x] = 4
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    s[y * width + x, (y + dy) * width + x + dx] = -1
    return np.kron(np.eye(channels), s)


def data(n_images, n_neurons=3, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n_images, *shape, generator=generator)
    weight = torch.randn(n_neurons, *shape, generator=generator)
    targets = 2 + images.flatten(1) @ weight.flatten(1).T / 3
    return images, targets + torch.randn(targets.shape, generator=generator), weight


def closed_form(images, y, strength):
    """(X'X + strength SS')^-1 X'y of centered data, and the intercept."""
    x = images.flatten(1).double().numpy()
    y = y.double().numpy()
    s = laplacian_matrix(*images.shape[1:])
    xc, yc = x - x.mean(0), y - y.mean(0)
    weight = np.linalg.solve(xc.T @ xc + strength * s @ s.T, xc.T @ yc)
    return weight.T, y.mean(0) - x.mean(0) @ weight


def absolute(images, strength):
    """The penalty that a share of the mean eigenvalue stands for."""
    z = SmoothBasis(images.shape[1:]).coordinates(images)
    return strength * float((z - z.mean(0)).square().sum()) / len(z)


def test_coordinates_make_the_penalty_a_sum_of_squares():
    basis, s = SmoothBasis(SHAPE), laplacian_matrix(*SHAPE)
    images, _, _ = data(3)
    coefficients = torch.randn(2, 40, dtype=torch.float64)
    weights = basis.weights(coefficients)
    assert weights.shape == (2, *SHAPE)
    penalty = np.square(weights.flatten(1).numpy() @ s).sum(1)
    np.testing.assert_allclose(penalty, coefficients.square().sum(1).numpy(), rtol=1e-9)
    torch.testing.assert_close(
        basis.coordinates(images) @ coefficients.T, images.double().flatten(1) @ weights.flatten(1).T
    )


@pytest.mark.parametrize("n_images", [25, 90])  # fewer and more than the 40 weights
def test_closed_form(n_images):
    images, y, _ = data(n_images)
    fit = laplacian_regression(images, y, torch.ones_like(y, dtype=torch.bool), [0.1])
    weight, bias = closed_form(images, y, absolute(images, 0.1))
    np.testing.assert_allclose(fit.weight.flatten(1).numpy(), weight, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.bias.numpy(), bias, rtol=1e-6)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_the_strength_has_the_least_leave_one_out_error(per_neuron):
    images, y, _ = data(30, seed=1)
    y = y.clone()
    y[:, 2] = torch.randn(30, generator=torch.Generator().manual_seed(2))  # nothing to learn: wants a strong penalty
    strengths = [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]
    errors = np.zeros((len(strengths), 3))
    for k, strength in enumerate(strengths):
        for left_out in range(30):
            rest = [i for i in range(30) if i != left_out]
            # the penalty is a fixed number, whichever image is left out
            w, b = closed_form(images[rest], y[rest], absolute(images, strength))
            errors[k] += np.square(w @ images[left_out].flatten().numpy() + b - y[left_out].numpy())
    errors /= y.double().var(0, correction=0).numpy()
    wanted = errors.argmin(0) if per_neuron else np.repeat(errors.mean(1).argmin(), 3)
    fit = laplacian_regression(images, y, torch.ones_like(y, dtype=torch.bool), strengths, per_neuron=per_neuron)
    assert fit.strength.tolist() == [strengths[k] for k in wanted]
    assert not per_neuron or len(set(wanted)) > 1


def test_neurons_are_fitted_on_the_images_they_were_shown():
    images, y, _ = data(40, n_neurons=5)
    mask = torch.ones(40, 5, dtype=torch.bool)
    mask[10:25, 1] = mask[10:25, 3] = False
    mask[:, 4] = False
    mask[2:, 2] = False  # two observations only
    holes = y.clone()
    holes[~mask] = torch.nan
    fit = laplacian_regression(images, holes, mask, [0.01, 1.0])
    for neurons, rows in (([0], mask[:, 0]), ([1, 3], mask[:, 1])):
        alone = laplacian_regression(images[rows], y[rows][:, neurons], mask[rows][:, neurons], [0.01, 1.0])
        torch.testing.assert_close(fit.weight[neurons], alone.weight)
        torch.testing.assert_close(fit.bias[neurons], alone.bias)
    assert not fit.weight[2].any() and not fit.weight[4].any()
    torch.testing.assert_close(fit.bias[2], y[:2, 2].mean().double())
    assert fit.bias[4] == 0
    groups = {tuple(neurons.tolist()): len(rows) for rows, neurons in group_by_mask(mask)}
    assert groups == {(0,): 40, (1, 3): 25, (2,): 2, (4,): 0}


@pytest.mark.parametrize("link", ["softplus", "exp"])
def test_poisson_regression_finds_the_minimum_that_scipy_finds(link):
    images, _, weight = data(60, n_neurons=2, shape=(1, 3, 4))
    rates = torch.nn.functional.softplus(images.flatten(1) @ weight.flatten(1).T)
    y = torch.poisson(2 * rates, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(60, 2, generator=torch.Generator().manual_seed(1)) < 0.8
    holes = torch.where(mask, y, torch.nan)
    fit = laplacian_poisson(images, holes, mask, [0.05], link=link, iterations=300)
    x, s = images.flatten(1).double().numpy(), laplacian_matrix(1, 3, 4)
    penalty = absolute(images, 0.05) / 60
    for n in range(2):
        rows = mask[:, n].numpy()
        counts = y[:, n].double().numpy()[rows]

        def objective(theta, rows=rows, counts=counts):
            eta = x[rows] @ theta[:-1] + theta[-1]
            rate = np.exp(eta) if link == "exp" else np.logaddexp(0, eta)
            nll = (rate - counts * np.log(rate)).mean() / counts.mean()
            return nll + 0.5 * penalty * np.square(s @ theta[:-1]).sum()

        best = minimize(objective, np.zeros(13), method="BFGS", options={"gtol": 1e-7})
        ours = np.append(fit.weight[n].flatten().numpy(), fit.bias[n].item())
        assert objective(ours) <= best.fun + 1e-6
        np.testing.assert_allclose(ours, best.x, atol=5e-3)


def test_strong_penalties_are_chosen_for_noise_and_weak_ones_for_signal():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 1, 6, 6, generator=generator)
    pattern = torch.exp(-((torch.arange(6.0) - 2.5) ** 2) / 4)
    drive = images.flatten(1) @ torch.outer(pattern, pattern).flatten() * 0.5
    signal = torch.poisson(torch.nn.functional.softplus(drive)[:, None].repeat(1, 3), generator=generator)
    noise = torch.poisson(torch.ones(300, 3), generator=generator)
    seen = torch.ones(300, 3, dtype=torch.bool)
    strengths = [1e-2, 0.1, 1.0, 10.0, 100.0]
    assert laplacian_poisson(images, noise, seen, strengths).strength[0] == 100
    assert laplacian_poisson(images, signal, seen, strengths).strength[0] < 10


@pytest.mark.parametrize("kind", [RegularisedLinear, LNP])
def test_models_predict_what_was_fitted(kind):
    images, y, _ = data(200, n_neurons=4, shape=(1, 5, 5))
    y = y.clamp_min(0) if kind is LNP else y
    y[:30, 1] = torch.nan
    train = ImageDataset(ImageTrials(images[:150].numpy(), y[:150].numpy()))
    spec = DataSpec("images", kind="images", n_out=4, image_shape=(1, 5, 5), mean_rates=(1.0,) * 4)
    model = kind(spec, strengths=[0.001, 0.1, 1000.0])
    model.fit_net(train)
    predicted = model.net.eval()(images[150:])["rates"]
    assert predicted.shape == (50, 4) and model.net.filters().shape == (4, 1, 5, 5)
    for n in range(4):
        assert np.corrcoef(predicted[:, n], y[150:, n])[0, 1] > 0.5
    assert kind is RegularisedLinear or (predicted > 0).all()
    again = kind(spec, strengths=[1.0])
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.net(images)["rates"], model.net(images)["rates"])


def test_exponential_link_gives_log_rates():
    spec = DataSpec("images", kind="images", n_out=4, image_shape=(1, 5, 5), mean_rates=(1.0,) * 4)
    images, y, _ = data(60, n_neurons=4, shape=(1, 5, 5))
    model = LNP(spec, strengths=[1.0], link="exp")
    model.fit_net(ImageDataset(ImageTrials(images.numpy(), y.clamp_min(0).numpy())))
    assert set(model.net(images)) == {"log_rates"}


def test_invalid_settings_are_refused():
    spec = DataSpec("images", kind="images", n_out=1, image_shape=(1, 5, 5), mean_rates=(-1.0,), nonnegative=False)
    assert "take model=rln" in LNP.refuse(spec)
    assert RegularisedLinear.refuse(spec) is None
    with pytest.raises(ConfigError, match="positive"):
        RegularisedLinear(spec, strengths=[0.0])
    with pytest.raises(ConfigError, match="softplus, exp"):
        LNP(spec, strengths=[1.0], link="square")


def test_models_are_fitted_on_the_training_images_by_their_own_options():
    rng = np.random.default_rng(0)

    def dataset(n):
        images, responses = rng.normal(size=(n, 1, 5, 5)).astype(np.float32), rng.gamma(1.0, size=(n, 3))
        responses[:, 0] += 9 * np.maximum(images[:, 0, 2, 2], 0)  # the other two neurons say nothing of the image
        return ImageDataset(ImageTrials(images, responses))

    train, val = dataset(40), dataset(30)
    spec = DataSpec("images", kind="images", n_out=3, image_shape=(1, 5, 5), mean_rates=(1.0,) * 3)
    batch, strengths = train[list(range(40))], [0.01, 100.0]
    arguments = (batch["inputs"], batch["targets"], batch["mask"], strengths)
    for model, expected in (
        (RegularisedLinear(spec, strengths=strengths), laplacian_regression(*arguments)),
        (
            RegularisedLinear(spec, strengths=strengths, per_neuron=True),
            laplacian_regression(*arguments, per_neuron=True),
        ),
        (LNP(spec, strengths=strengths, iterations=3), laplacian_poisson(*arguments, iterations=3)),
        (LNP(spec, strengths=strengths, link="exp"), laplacian_poisson(*arguments, link="exp")),
    ):
        model.fit_net(train, val)
        for name, values in expected._asdict().items():
            torch.testing.assert_close(getattr(model.net, name), values.float(), rtol=1e-4, atol=1e-6)
