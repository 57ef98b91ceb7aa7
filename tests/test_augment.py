"""Distortions of training images: what each does, what its draws depend on, and what is refused."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro_lightning.contracts import full_mask
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.augment import (
    Brightness,
    FlipLeftRight,
    FlipUpDown,
    Rotate,
    RotateChoice,
    Saturation,
    apply_transforms,
    rotate,
    saturate,
    seed_transforms,
)
from neuro_lightning.nn.draws import uniform
from neuro_lightning.settings.config import check_config, instantiate

CONF = Path(__file__).resolve().parents[1] / "conf"
ALL = [FlipLeftRight(), FlipUpDown(), Rotate(60), RotateChoice([0, 90, 45]), Brightness(0.5), Saturation(0.3, 2.5)]
ids = [type(t).__name__ for t in ALL]


def images(n=6, c=3, h=12, w=12, seed=0):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed))


def distort(transforms, x, epoch, seed=0):
    """Images 0, 1, ... through a list of transforms, one after the other."""
    batch = {"inputs": x, "index": torch.arange(len(x)), "targets": torch.zeros(len(x), 2)}
    batch["mask"] = full_mask(batch["targets"].shape)
    return apply_transforms(seed_transforms(transforms, seed), batch, epoch)["inputs"]


# ---- the draws


def splitmix64(state: int) -> int:
    """The published output function, in whole numbers of any size."""
    state &= 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_draws_are_splitmix64_of_the_image_number():
    from neuro_lightning.nn.draws import GAMMA, _key

    index = torch.tensor([0, 1, 550, 2**40])
    found = uniform(index, seed=3, epoch=7, stream=1, n=2)
    for i, number in enumerate(index.tolist()):
        for draw in range(2):
            wanted = (splitmix64(_key(3, 7, 1, draw) + number * GAMMA) >> 40) / 2**24
            assert found[i, draw].item() == wanted
    assert found.dtype == torch.float32 and found.shape == (4, 2)


def test_draws_are_uniform_and_independent():
    """50 epochs of 551 images: moments, a histogram, and no correlation along any argument."""
    index = torch.arange(551)
    u = torch.stack([uniform(index, seed=0, epoch=e, stream=0)[:, 0] for e in range(50)]).double()  # (epochs, images)
    assert u.min() >= 0 and u.max() < 1
    n = u.numel()
    assert abs(u.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    counts = torch.histc(u, 20, 0, 1)
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 43.8  # chi-square with 19 degrees of freedom, p = 0.001
    other = {
        "image": (u[:, :-1], u[:, 1:]),
        "epoch": (u[:-1], u[1:]),
        "seed": (u[0], uniform(index, seed=1, epoch=0, stream=0)[:, 0].double()),
        "stream": (u[0], uniform(index, seed=0, epoch=0, stream=1)[:, 0].double()),
        "epoch as seed": (u[1], uniform(index, seed=1, epoch=0, stream=0)[:, 0].double()),
        "draw": (u[0], uniform(index, seed=0, epoch=0, stream=0, n=2)[:, 1].double()),
    }
    for name, (a, b) in other.items():
        r = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(r) < 4 / a.numel() ** 0.5, name


@settings(max_examples=25, deadline=None)
@given(st.integers(-(2**63), 2**63), st.integers(0, 10**6), st.integers(0, 2**62))
def test_draws_for_large_and_negative_numbers(seed, epoch, number):
    u = uniform(torch.tensor([number]), seed=seed, epoch=epoch, stream=0)
    assert 0 <= u.item() < 1 and torch.equal(u, uniform(torch.tensor([number]), seed=seed, epoch=epoch, stream=0))


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_an_image_gets_the_same_whatever_else_is_in_its_batch(transform):
    x, index = images(40), torch.arange(100, 140)
    whole = transform(x, index, 3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(transform(x[order], index[order], 3), whole[order])
    parts = [transform(x[rank::2], index[rank::2], 3) for rank in range(2)]  # as two processes would
    assert torch.equal(parts[0], whole[0::2]) and torch.equal(parts[1], whole[1::2])
    torch.manual_seed(99)  # nobody's random state matters
    assert torch.equal(transform(x, index, 3), whole)
    assert not torch.equal(transform(x, index, 4), whole)


def test_each_place_in_the_list_and_each_seed_has_draws_of_its_own():
    x = images(64)
    same = distort([FlipLeftRight(), FlipLeftRight()], x, 0)  # equal draws would cancel each other
    assert not torch.equal(same, x)
    assert not torch.equal(*(distort([Rotate(30)], x, 0, seed) for seed in (0, 1)))
    flips = [FlipLeftRight(), Brightness(0.2)]
    named = {"flip": flips[0], "brightness": flips[1]}
    assert torch.equal(distort(named, x, 2, 5), distort(flips, x, 2, 5))
    again = seed_transforms(seed_transforms(flips, 5), 5)
    assert [(t.seed, t.stream) for t in again] == [(5, 0), (5, 1)] and flips[1].stream == 0
    assert torch.equal(distort([lambda x, i, e: x + e], x, 2), x + 2)  # one's own
    assert all(torch.equal(distort(none, x, 0), x) for none in (None, [], {}))


# ---- what they do


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_distorted_images_stay_in_range(transform):
    x = images(50)
    x[:10], x[10:20] = 0.0, 1.0
    x[20:30] = (x[20:30] > 0.5).float()  # full colours
    before, wild = x.clone(), x.clone().requires_grad_()
    out = transform(x, torch.arange(50), 0)
    assert torch.equal(x, before) and out.shape == x.shape and out.dtype == x.dtype
    assert out.min() >= 0 and out.max() <= 1 and torch.isfinite(out).all()
    assert not transform(wild, torch.arange(50), 0).requires_grad


@pytest.mark.parametrize(("flip", "axis"), [(FlipLeftRight, -1), (FlipUpDown, -2)])
def test_flips(flip, axis):
    x, index = images(2000, 1, 2, 3), torch.arange(2000)
    out = flip()(x, index, 0)
    flipped = (out != x).flatten(1).any(1)
    assert torch.equal(out[flipped], x[flipped].flip(axis)) and torch.equal(out[~flipped], x[~flipped])
    assert 0.45 < flipped.float().mean() < 0.55
    assert torch.equal(flip(p=1)(x, index, 0), x.flip(axis)) and torch.equal(flip(p=0)(x, index, 0), x)


@pytest.mark.parametrize("size", [(12, 12), (7, 7), (6, 10)])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_right_angles_turn_as_rot90_does(size, interpolation):
    x = images(3, 2, *size)
    for quarters in (0, 1, 2, 3, -1):
        if size[0] != size[1] and quarters % 2:
            continue
        out = rotate(x, torch.full((3,), 90.0 * quarters), interpolation)
        torch.testing.assert_close(out, torch.rot90(x, quarters, (2, 3)), rtol=0, atol=2e-5)


def test_other_angles_turn_a_tall_image_without_shear():
    """A dot goes where a turn of the plane takes it, counterclockwise; the corners become black."""
    x = torch.zeros(1, 1, 41, 31)
    x[0, 0, 20, 25] = 1  # ten pixels right of the centre
    out = rotate(x, torch.tensor([30.0]))[0, 0]
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(31.0), indexing="ij")
    centre = (rows * out).sum() / out.sum() - 20, (columns * out).sum() / out.sum() - 15
    np.testing.assert_allclose(centre, (-10 * np.sin(np.pi / 6), 10 * np.cos(np.pi / 6)), atol=0.15)
    ones = rotate(torch.ones(1, 1, 41, 31), torch.tensor([30.0]))[0, 0]
    assert ones[0, 0] == ones[-1, -1] == 0 and ones[20, 15] == 1


def test_rotations_follow_their_draws():
    x = images(400, 1, 9, 9)
    u = torch.rand(400, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Rotate(20).distort(x, u), rotate(x, 40 * u - 20))
    assert torch.equal(Rotate(20, "NEAREST").distort(x, u), rotate(x, 40 * u - 20, "nearest"))
    chosen = RotateChoice([0, 90], "nearest")(x, torch.arange(400), 0)
    turned = (chosen != x).flatten(1).any(1)
    assert torch.equal(chosen[turned], torch.rot90(x, 1, (2, 3))[turned]) and 0.4 < turned.float().mean() < 0.6


def test_brightness():
    x = images(300)
    u = torch.linspace(0, 0.999, 300)
    out = Brightness(0.4).distort(x, u)
    expected = np.clip(x.numpy() * (0.6 + 0.8 * u.numpy())[:, None, None, None], 0, 1)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0, 1.3, 50.0])
def test_saturation_is_that_of_hsv(factor):
    x = images(2, 3, 5, 5)
    x[0, :, 0] = 0.4  # grey
    x[0, :, 1] = 0.0  # black
    x[0, 0, 2], x[0, 1:, 2] = 1.0, 0.0  # full red
    out = saturate(x, torch.full((2,), factor))
    for image, result in zip(x, out, strict=True):
        for pixel, found in zip(image.flatten(1).T, result.flatten(1).T, strict=True):
            h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
            np.testing.assert_allclose(found, colorsys.hsv_to_rgb(h, min(1, s * factor), v), atol=1e-6)


def test_saturation_factors_lie_between_the_bounds():
    x = torch.zeros(500, 3, 1, 1)
    x[:, 0], x[:, 1:] = 0.5, 0.4  # S = 0.2
    out = Saturation(0.7, 1.3)(x, torch.arange(500), 0)
    saturation = (out.amax(1) - out.amin(1)) / out.amax(1) / 0.2
    assert 0.7 - 1e-5 <= saturation.min() < 0.72 and 1.28 < saturation.max() <= 1.3 + 1e-5


# ---- what is refused


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FlipLeftRight(p=1.5), "p=1.5"),
        (lambda: FlipUpDown(p=-0.1), "p=-0.1"),
        (lambda: Rotate(0), "max_angle=0"),
        (lambda: Rotate(181), "max_angle=181"),
        (lambda: Rotate(float("nan")), "max_angle=nan"),
        (lambda: Rotate(10, "bicubic"), "bilinear or nearest"),
        (lambda: RotateChoice([]), "at least one angle"),
        (lambda: RotateChoice([0, float("inf")]), "angles"),
        (lambda: RotateChoice("90"), "angles"),
        (lambda: Brightness(0), "max_factor=0"),
        (lambda: Brightness(1.5), "max_factor=1.5"),
        (lambda: Saturation(-0.1, 1), "min_value=-0.1"),
        (lambda: Saturation(1.3, 0.7), "max_value=0.7"),
        (lambda: Saturation(0.7, float("inf")), "max_value=inf"),
        (lambda: seed_transforms([{"max_angle": 3}], 0), "no transform"),
    ],
)
def test_bounds_are_checked(build, says):
    with pytest.raises(ConfigError, match=says):
        build()


def test_saturation_needs_colour():
    with pytest.raises(ConfigError, match="RGB"):
        Saturation(0.7, 1.3)(images(2, c=1), torch.arange(2), 0)


# ---- configs

PRESETS = sorted(path.stem for path in (CONF / "augment").glob("*.yaml"))


def config(*overrides):
    with initialize_config_dir(str(CONF)):
        return compose("train", overrides=["data=uwndc19", "data.simulate=true", "paths.output_dir=.", *overrides])


def test_presets_are_there():
    assert {"none", "winner", "rotation", "flips", "brightness"} <= set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build(preset):
    data = instantiate(config(f"augment@data.augment={preset}", "seed=4").data)
    assert all(t.seed == 4 for t in data.augment)
    out = distort(data.augment, images(), 0, 4)
    assert torch.equal(out, images()) == (preset == "none")


def test_the_command_line_chooses_and_mixes():
    data = instantiate(config().data)
    assert [(type(t), t.min_value, t.max_value) for t in data.augment] == [(Saturation, 0.7, 1.3)]  # the winner's
    mixed = instantiate(config("augment@data.augment=[winner,rotation,flips]").data)
    names = [type(t).__name__ for t in mixed.augment]
    assert names == ["Saturation", "Rotate", "FlipLeftRight", "FlipUpDown"]
    assert [t.stream for t in mixed.augment] == [0, 1, 2, 3]
    changed = instantiate(config("data.augment.saturation.max_value=2").data)
    assert changed.augment[0].max_value == 2
    assert instantiate(config("data.augment=null").data).augment == []
    with pytest.raises(ConfigError, match="angle"):
        check_config(config("+data.augment.saturation.angle=2"), known=set(config()))
