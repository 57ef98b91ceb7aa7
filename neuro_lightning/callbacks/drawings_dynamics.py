"""The flow and the fixed points of a run's recurrent network, and their figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuro_lightning.contracts import evaluation_mode
from neuro_lightning.display.figures_dynamics import flow_figure
from neuro_lightning.functional.fixed_points import FixedPoints, fixed_points, flow, plane_of
from neuro_lightning.models.dynamics import Dynamics, dynamics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STARTS, LEAST_STARTS = 48, 12
OFTEN = 64  # dimensions up to which there are as many starts; fewer beyond, as a search takes the cube of them in time
GRID = 18


def points_of(found: Dynamics) -> FixedPoints:
    """The fixed points that are found from up to ``STARTS`` states of trials, spread over trials and steps."""
    visited = found.visited[found.visited.isfinite().all(2)]
    starts = min(STARTS, max(LEAST_STARTS, STARTS * OFTEN // visited.shape[1]))
    return fixed_points(found.step, visited[torch.linspace(0, len(visited) - 1, starts).round().long()])


def figure_of(found: Dynamics, *, simulated: bool = False) -> Figure:
    """Flow and fixed points on the plane of the first two principal components of the states in trials."""
    visited = found.visited[found.visited.isfinite().all(2)]
    mean, axes = plane_of(visited)
    points = points_of(found)
    paths = (found.visited - mean) @ axes.T
    flat = (visited - mean) @ axes.T
    low, high = flat.amin(0), flat.amax(0)
    reach = 0.1 * (high - low) + 1e-9
    ends = zip((low - reach).tolist(), (high + reach).tolist(), strict=True)
    x, y = (torch.linspace(*pair, GRID, dtype=torch.float64) for pair in ends)
    places = torch.cartesian_prod(x, y)
    return flow_figure(
        places.numpy(),
        flow(found.step, mean, axes, places).numpy(),
        paths=paths.numpy(),
        points=((points.states - mean) @ axes.T).numpy(),
        eigenvalues=points.eigenvalues.numpy(),
        starts=np.asarray(points.starts),
        name=found.name,
        simulated=simulated,
    )


def draw_flow(module: Any, data: Any) -> Figure:
    """The figure of a run's network, of a batch of its validation trials."""
    with torch.random.fork_rng(), evaluation_mode(module.net):
        found = dynamics_of(module.net, next(iter(data.eval_dataloader("val"))), module.device)
    return figure_of(found, simulated=module.spec.simulated)
