"""The penalties against NDN3's definitions with dense matrices."""

import numpy as np
import pytest
import torch

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.hsm_layers import Conv, Dense, Separable
from neuro_lightning.nn.regularizers import PENALTIES, laplacian, nonzero_strengths, penalties
from neuro_lightning.nn.separable import SeparableLinear

U, F, H, W = 3, 4, 5, 6


@pytest.fixture
def weight():
    return torch.randn(U, F, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def ordered(weight):
    """(F * H * W, U) with the filter running fastest, as NDN3 keeps weights."""
    return weight.permute(2, 3, 1, 0).reshape(-1, U).numpy()


def quadratic(matrix, columns):
    return np.trace(columns.T @ matrix @ columns)


def second_difference(n):
    return -2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)


def by_definition(name, weight):
    w = ordered(weight)
    squared, pixels = w**2, H * W
    if name == "l1":
        return np.abs(w).sum()
    if name == "l2":
        return 0.5 * (w**2).sum()
    if name == "norm2":
        return ((w**2).sum() - U) ** 2
    if name == "d2x":
        plane = np.kron(second_difference(H), np.eye(W)) + np.kron(np.eye(H), second_difference(W))
        return ((np.kron(plane, np.eye(F)) @ w) ** 2).sum()
    if name == "max":
        return quadratic(np.ones((F * pixels, F * pixels)) - np.eye(F * pixels), squared)
    if name == "max_filt":
        return quadratic(np.kron(np.eye(pixels), np.ones((F, F)) - np.eye(F)), squared)
    if name == "max_space":
        return quadratic(np.kron(np.ones((pixels, pixels)) - np.eye(pixels), np.eye(F)), squared)
    if name == "center":
        y, x = np.mgrid[:H, :W]
        distance = (y - (H - 1) / 2) ** 2 + (x - (W - 1) / 2) ** 2
        return quadratic(np.kron(np.diag(0.01 * distance.ravel()), np.eye(F)), w)
    assert name == "group"
    return sum(np.linalg.norm(weight[u, f].numpy()) for u in range(U) for f in range(F))


@pytest.mark.parametrize("name", PENALTIES)
def test_closed_forms(name, weight):
    np.testing.assert_allclose(float(PENALTIES[name](weight)), by_definition(name, weight), rtol=1e-10)


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients(name, weight):
    assert torch.autograd.gradcheck(PENALTIES[name], weight[:2, :2, :3, :3].clone().requires_grad_())


def test_group_has_a_gradient_at_zero():
    weight = torch.zeros(2, 2, 3, 3, requires_grad=True)
    PENALTIES["group"](weight).backward()
    assert weight.grad.isfinite().all()


def test_laplacian_of_a_parabola_is_its_curvature(weight):
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    inside = laplacian((x**2 + 3 * y**2)[None, None])[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full((5, 5), 8.0))


def test_strengths_scale_and_zero_is_off(weight):
    terms = penalties(weight, nonzero_strengths({"l1": 2.0, "l2": 0, "max": None}))
    assert list(terms) == ["l1"]
    torch.testing.assert_close(terms["l1"], 2 * weight.abs().sum())


def test_invalid_settings_are_refused():
    with pytest.raises(ConfigError, match="no such penalty"):
        nonzero_strengths({"l3": 1.0})
    with pytest.raises(ConfigError, match="must not be negative"):
        nonzero_strengths({"l1": -1.0})
    with pytest.raises(ConfigError, match="max is not defined"):
        Separable((4, 5, 5), 3, reg={"max": 1.0})
    with pytest.raises(ConfigError, match="d2x needs"):
        Dense((9, 1, 1), 3, reg={"d2x": 1.0})


def test_separable_weights_and_their_penalties():
    torch.manual_seed(0)
    layer = SeparableLinear((F, H, W), U).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    feature = layer.feature / layer.feature.norm(dim=1, keepdim=True)
    maps = torch.randn(2, F, H, W, dtype=torch.float64)
    wanted = torch.einsum("bfhw,uf,uhw->bu", maps, feature, layer.spatial) + layer.bias
    torch.testing.assert_close(layer(maps), wanted)
    both = torch.cat([feature, layer.spatial.flatten(1)], 1)
    mask = layer.spatial[:, None]
    forms = {
        "l1": both.abs().sum(),
        "l2": 0.5 * both.square().sum(),
        "d2x": PENALTIES["d2x"](mask),
        "center": PENALTIES["center"](mask),
        "max_space": PENALTIES["max_space"](mask),
        "max_filt": PENALTIES["max_filt"](feature[:, :, None, None]),
    }
    for name, value in forms.items():
        torch.testing.assert_close(layer.penalties({name: 0.5})[name], 0.5 * value)
    with torch.no_grad():  # the length of the feature vector makes no difference
        before = layer(maps)
        layer.feature *= 7
    torch.testing.assert_close(layer(maps), before)


@pytest.mark.parametrize(("size", "stride", "side"), [(13, 2, (16, 11)), (3, 1, (31, 21)), (7, None, (8, 6))])
def test_convolutions_pad_to_the_strided_size(size, stride, side):
    layer = Conv((1, 31, 21), 5, filters=2, size=size, stride=stride, batch_norm=True, activation="softplus")
    assert layer(torch.randn(3, 1, 31, 21)).shape[1:] == layer.out_shape == (2, *side)
