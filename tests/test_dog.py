"""Differences of Gaussians against their formula, their bounds, and gradients."""

import math

import numpy as np
import pytest
import torch

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dog import DoGFilters, gaussian_bounds, same_padding
from neuro_lightning.nn.hsm_layers import DoG, DoGConv


def formula(table: dict, k: int, size: tuple[int, int]) -> np.ndarray:
    """One filter, pixel by pixel, as the paper writes it."""
    a1, a2, s1, s2, mx, my = (float(table[name][k]) for name in ("a1", "a2", "s1", "s2", "x", "y"))
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            r2 = (x - mx) ** 2 + (y - my) ** 2
            wide = s1 + s2
            out[y, x] = a1 / (2 * math.pi * s1) * math.exp(-r2 / (2 * s1))
            out[y, x] -= a2 / (2 * math.pi * wide) * math.exp(-r2 / (2 * wide))
    return out


@pytest.mark.parametrize("parametrisation", ["smooth", "published"])
@pytest.mark.parametrize("size", [(31, 31), (9, 14)])
def test_filters_are_those_of_the_formula(parametrisation, size):
    torch.manual_seed(0)
    dog = DoGFilters(4, size, parametrisation=parametrisation).double()
    filters, table = dog().detach().numpy(), dog.table()
    for k in range(4):
        np.testing.assert_allclose(filters[k], formula(table, k, size), rtol=1e-6, atol=1e-9)


def test_values_that_are_set_are_the_values_used():
    wanted = {
        "center": torch.tensor([[3.0, 7.5], [11.0, 4.25]]),
        "variance": torch.tensor([[2.0, 5.0], [6.0, 3.0]]),
        "amplitude": torch.tensor([[4.0, 9.0], [2.0, 8.0]]),
    }
    for parametrisation in ("smooth", "published"):
        dog = DoGFilters(2, (17, 17), parametrisation=parametrisation)
        dog.assign(**wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(dog.bounded(name), value)
        assert torch.equal(dog.table()["x"], dog.bounded("center")[0].detach())


def test_published_bounds():
    bounds = gaussian_bounds((31, 31))
    assert bounds["center"] == ([2.0, 2.0], [29.0, 29.0])
    assert bounds["variance"] == ([1.0, 1.0], [25.0, 25.0])
    assert gaussian_bounds((20, 40))["center"] == ([2.0, 2.0], [38.0, 18.0])  # x runs along the width
    for size in range(5, 40):
        for low, high in gaussian_bounds((size, size)).values():
            assert all(a < b for a, b in zip(low, high, strict=True)), size
    with pytest.raises(ConfigError, match="5 x 5"):
        gaussian_bounds((3, 3))


@pytest.mark.parametrize("parametrisation", ["smooth", "published"])
@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_bounds_hold_wherever_the_parameters_go(parametrisation, shift):
    torch.manual_seed(1)
    dog = DoGFilters(5, (12, 20), parametrisation=parametrisation)
    with torch.no_grad():
        for parameter in dog.parameters():
            parameter += shift
    for name, (low, high) in gaussian_bounds((12, 20)).items():
        values = dog.bounded(name)
        for axis in range(2):
            assert (values[axis] >= low[axis] - 1e-5).all() and (values[axis] <= high[axis] + 1e-5).all()
    assert dog().isfinite().all()


def test_gradients_are_right_and_smooth_ones_do_not_die():
    torch.manual_seed(2)
    dog = DoGFilters(2, (7, 8)).double()
    names = [name for name, _ in dog.named_parameters()]

    def filters(*values):
        return torch.func.functional_call(dog, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(filters, tuple(dog.parameters()))
    image = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    gradients = {}
    for parametrisation in ("smooth", "published"):
        dog = DoGFilters(1, (7, 8), parametrisation=parametrisation)
        with torch.no_grad():  # far beyond the bound of x
            dog.center[0] = 12.0
        (dog() * image).sum().backward()
        gradients[parametrisation] = float(dog.center.grad[0].abs())
    assert gradients["smooth"] > 0 and gradients["published"] == 0


def test_dense_layer_is_a_dot_product_with_the_mean_of_the_channels():
    torch.manual_seed(3)
    layer = DoG((3, 10, 13), 40, units=0.1)
    images = torch.randn(5, 3, 10, 13)
    grey = images.mean(1)
    wanted = torch.einsum("bhw,khw->bk", grey, layer.dog()) + layer.bias
    assert layer.out_shape == (4, 1, 1)
    torch.testing.assert_close(layer(images)[:, :, 0, 0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (7, None), (15, 3)])
def test_convolution_is_the_dot_product_at_each_place(size, stride):
    torch.manual_seed(4)
    layer = DoGConv((2, 16, 21), 9, filters=3, size=size, stride=stride)
    step = layer.stride
    assert stride is not None or step == (size + 1) // 2
    images = torch.randn(2, 2, 16, 21)
    maps = layer(images)
    assert maps.shape[1:] == layer.out_shape == (3, -(-16 // step), -(-21 // step))
    padded = same_padding(images.mean(1, keepdim=True), size, step)
    kernels = layer.dog()
    for y, x in ((0, 0), (maps.shape[2] - 1, maps.shape[3] - 1)):
        patch = padded[:, 0, y * step : y * step + size, x * step : x * step + size]
        wanted = torch.einsum("bhw,khw->bk", patch, kernels) + layer.bias
        torch.testing.assert_close(maps[:, :, y, x], wanted, rtol=1e-5, atol=1e-5)


def test_small_patches_and_unknown_parametrisations_are_refused():
    with pytest.raises(ConfigError, match="5 x 5 pixels at least"):
        DoGConv((1, 31, 31), 9, filters=3, size=3)
    with pytest.raises(ConfigError, match="smooth, published"):
        DoGFilters(2, (9, 9), parametrisation="clipped")


def test_odd_padding_goes_to_the_right_and_lower_edge():
    """As in TensorFlow, whose filters would else be shifted by a pixel."""
    padded = same_padding(torch.ones(1, 1, 4, 6), 4, 2)
    assert padded.shape == (1, 1, 6, 8)
    assert torch.equal(
        same_padding(torch.ones(1, 1, 4, 6), 2, 1)[0, 0], torch.nn.functional.pad(torch.ones(4, 6), (0, 1, 0, 1))
    )
    assert torch.equal(padded[0, 0], torch.nn.functional.pad(torch.ones(4, 6), (1, 1, 1, 1)))


@pytest.mark.parametrize("parametrisation", ["smooth", "published"])
def test_units_start_apart_and_all_over_the_image(parametrisation):
    torch.manual_seed(0)
    dog = DoGFilters(200, (20, 30), parametrisation=parametrisation)
    for name in ("center", "variance", "amplitude"):
        values = dog.bounded(name)
        assert all(len(row.unique()) > 150 for row in values), name
    x, y = dog.bounded("center")
    assert x.min() < 4 and x.max() > 26 and y.min() < 4 and y.max() > 16
