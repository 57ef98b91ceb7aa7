"""Colors of conditions: color-blind people tell them apart, and directions lie on a circle."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from figure_checks import drawn
from matplotlib.colors import to_hex

from neuro_lightning.callbacks.drawings_spikes import movement_angles
from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import trial_curves
from neuro_lightning.display.figures_trials import decoding_figure
from neuro_lightning.pages.latents import latents_drawing

# Machado, Oliveira and Fernandes 2009, IEEE Trans. Vis. Comput. Graph. 15:1291: in linear RGB
BLIND = {
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(rgb, seen=None):
    """CIELAB of sRGB colors (n, 3), as a person with such cones sees them."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = linear if seen is None else (linear @ np.array(seen).T).clip(0, 1)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    xyz = xyz / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("seen", [None, *BLIND.values()], ids=["all", *BLIND])
@pytest.mark.parametrize("n", [2, 8, 9, 12])
@pytest.mark.parametrize("directions", [False, True])
def test_color_blind_people_tell_conditions_apart(n, directions, seen):
    """By color, or by line where colors are alike; a difference of 2 is said to be just seen side by side."""
    angles = np.random.default_rng(0).permutation(n) * 2 * np.pi / n - 3 if directions else None
    colors, lines = lab(style.condition_colors(n, angles)[:, :3], seen), style.condition_lines(n, angles)
    assert colors[:, 0].max() < 86, "pale on white"
    for i in range(n):
        for j in range(i):
            difference = np.linalg.norm(colors[i] - colors[j])
            assert difference > (12 if lines[i] == lines[j] else 2), (i, j)


def test_opposite_directions_differ_more_than_neighbours_and_unknown_ones_are_a_line():
    angles = np.arange(16) * 2 * np.pi / 16
    colors = lab(style.condition_colors(16, angles)[:, :3])
    near = np.linalg.norm(colors - np.roll(colors, 1, 0), axis=1)
    far = np.linalg.norm(colors - np.roll(colors, 8, 0), axis=1)
    assert far.min() > near.max(), "the circle closes as well"
    angles[3] = np.nan
    np.testing.assert_array_equal(style.condition_colors(16, angles), style.condition_colors(16))
    lightness = lab(style.condition_colors(16)[:, :3])[:, 0]
    assert (np.diff(lightness) > 0).all(), "and read in grey, too"


def test_conditions_are_colored_by_where_they_move():
    """Condition c moves in direction c; one trial has no behavior, and one no condition."""
    condition = torch.arange(12).repeat(3)
    angle = condition * 2 * np.pi / 12
    velocity = torch.stack([angle.cos(), angle.sin()], -1)[:, None].repeat(1, 5, 1)
    velocity[0], condition[13] = torch.nan, -1
    data = SimpleNamespace(options={"behavior": "hand_vel"})
    found = movement_angles({"condition": condition, "behavior": velocity}, data)
    np.testing.assert_allclose(np.mod(list(found.values()), 2 * np.pi), np.arange(12) * 2 * np.pi / 12, atol=1e-6)
    figure = drawn(decoding_figure(velocity.numpy(), {}, bin_ms=10, condition=condition.numpy(), angles=found))
    lines = figure.subfigs[1].axes[0].lines
    expected = style.condition_colors(12, list(found.values()))
    np.testing.assert_allclose(lines[4].get_color(), expected[5])  # the first trial has no path
    assert lines[12].get_color() == style.MODEL
    curves = trial_curves(np.zeros((36, 5, 2)), condition.numpy(), found)
    np.testing.assert_allclose([look["color"] for _, look, is_mean in curves if is_mean], expected)
    gaze = SimpleNamespace(options={"behavior": "eye"})
    assert movement_angles({"condition": condition, "behavior": velocity}, gaze) is None
    assert movement_angles({"condition": condition}, data) is None


def test_the_turning_latents_have_the_looks_of_the_other_figures():
    """Of 36 conditions, that move in as many directions, twelve are shown, from the first to the last."""
    pytest.importorskip("plotly")
    condition = np.arange(36).repeat(2)
    angle = condition * 2 * np.pi / 36
    velocity = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None].repeat(5, 1)
    trials = SimpleNamespace(condition=condition, behavior=velocity)
    recording = SimpleNamespace(splits={"val": trials})
    run = SimpleNamespace(
        record={"data": {"bin_ms": 10}}, data=SimpleNamespace(recording=recording, options={"behavior": "hand_vel"}),
        latents=lambda split: np.random.default_rng(0).normal(size=(72, 5, 4)),
    )  # fmt: skip
    drawing = json.loads(latents_drawing(run)[1])
    lines = {part["name"]: part["line"] for part in drawing["data"] if part["mode"] == "lines"}
    shown = style.evenly_spaced(36, 12)
    assert list(lines) == [f"condition {k}" for k in shown] and shown[-1] == 35
    expected = style.condition_colors(12, shown * 2 * np.pi / 36)
    assert [line["color"] for line in lines.values()] == [to_hex(color) for color in expected]
    assert [line["dash"] for line in lines.values()] == ["solid", "dash", "dot"] * 4
