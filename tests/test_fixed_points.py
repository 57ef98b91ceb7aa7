import math

import numpy as np
import pytest
import torch
from figure_checks import drawn, titles
from matplotlib.colors import same_color

from neuro_lightning.display.figures_dynamics import flow_figure
from neuro_lightning.functional.fixed_points import fixed_points, flow, plane_of

DRAW = torch.Generator().manual_seed(0)


def spiral(angle, size, center):
    turn = size * torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return lambda states: (states - center) @ turn.to(states.dtype) + center


@pytest.mark.parametrize(("size", "stable"), [(0.9, True), (1.1, False)])
def test_the_fixed_point_of_a_spiral_is_its_center_and_its_eigenvalues_are_the_turn(size, stable):
    center = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = fixed_points(spiral(0.3, size, center), torch.randn(20, 2, generator=DRAW))
    torch.testing.assert_close(found.states, center[None], rtol=0, atol=1e-6)
    assert found.starts.tolist() == [20] and found.stable.tolist() == [stable]
    np.testing.assert_allclose(found.eigenvalues[0].abs(), size, rtol=1e-6)
    np.testing.assert_allclose(np.sort(found.eigenvalues[0].angle().numpy()), [-0.3, 0.3], rtol=1e-6)


def test_a_bistable_network_has_two_stable_points_and_a_saddle():
    """x -> tanh(2 x): 0 is unstable with slope 2, the other two are where x = tanh(2 x)."""
    starts = torch.linspace(-1.5, 1.5, 31)[:, None]
    found = fixed_points(lambda states: torch.tanh(2 * states), starts)
    order = found.states[:, 0].argsort()
    states = found.states[order, 0]
    torch.testing.assert_close(states, torch.tanh(2 * states), rtol=0, atol=1e-6)
    np.testing.assert_allclose(states, [-0.957504, 0, 0.957504], atol=1e-5)
    assert found.stable[order].tolist() == [True, False, True]
    assert float(found.eigenvalues[order][1, 0].real) == pytest.approx(2)
    assert int(found.starts.sum()) == 31 and found.starts.tolist() == sorted(found.starts.tolist(), reverse=True)


def test_a_step_that_never_rests_has_none():
    found = fixed_points(lambda states: states + 1, torch.randn(5, 3, generator=DRAW))
    assert found.states.shape == (0, 3) and found.eigenvalues.shape == (0, 3)


def test_flow_is_the_movement_within_the_plane():
    states = torch.randn(50, 4, generator=DRAW) * torch.tensor([1.0, 5, 3, 0.1]) + 2
    mean, axes = plane_of(states)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=axes.dtype))
    assert axes.abs().argmax(1).tolist() == [1, 2]
    places = torch.tensor([[0.0, 0], [1, 2]], dtype=torch.float64)
    found = flow(lambda h: mean + 0.5 * (h - mean), mean, axes, places)
    torch.testing.assert_close(found, -0.5 * places)


def test_flow_figure_draws_what_it_is_given():
    places, velocity = np.array([[0.0, 0], [1, 1]]), np.array([[0.0, 2], [3, 0]])
    points, eigenvalues = np.array([[0.5, 0.5], [2, 2]]), np.array([[0.5 + 0.1j, 0.5 - 0.1j], [1.2 + 0j, 0.1 + 0j]])
    figure = drawn(
        flow_figure(
            places,
            velocity,
            paths=np.zeros((1, 3, 2)),
            points=points,
            eigenvalues=eigenvalues,
            starts=np.array([3, 1]),
            name="generator",
        )
    )
    assert figure.get_suptitle() == "Flow and fixed points of the generator"
    plane, circle = figure.axes
    np.testing.assert_allclose(np.stack([plane.collections[0].U, plane.collections[0].V]), [[0, 1], [1, 0]])
    assert [line.get_xydata()[0].tolist() for line in plane.lines[1:]] == points.tolist()
    assert [same_color(line.get_markerfacecolor(), "white") for line in plane.lines[1:]] == [False, True]
    np.testing.assert_allclose(circle.lines[0].get_xydata(), [[0.5, 0.1], [0.5, -0.1]])
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["stable, largest 0.510, 3 starts", "unstable, largest 1.200, 1 starts"]
    assert titles(figure)[0] == "2 fixed points (filled: stable)"
    none = drawn(
        flow_figure(places, velocity, paths=np.zeros((1, 3, 2)), points=points[:0], eigenvalues=eigenvalues[:0])
    )
    assert titles(none)[0] == "no fixed point was found"
