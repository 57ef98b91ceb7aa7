"""The flow and the fixed points of a run's recurrent network, and their figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.contracts import evaluation_mode, run_network
from neuro_lightning.display.figures_dynamics import flow_figure
from neuro_lightning.functional.fixed_points import Step, fixed_points, flow, plane_of
from neuro_lightning.models.gru import GRUCore
from neuro_lightning.nn.padding import inside, run_recurrent
from neuro_lightning.nn.recurrent import gru_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STARTS = 48
MOST_TRIALS = 64
GRID = 18


class Dynamics(NamedTuple):
    """A GRU layer by itself.

    Attributes:
        step: states (B, H) -> the next states, under the layer's mean input.
        visited: (B, S, H) its states in trials, NaN after a trial's end.
    """

    step: Step
    visited: Tensor


def has_dynamics(net: Any) -> bool:
    """Whether the core of a network is a GRU of at least two units."""
    core = getattr(net, "core", None)
    return isinstance(core, GRUCore) and core.gru.hidden_size > 1


def dynamics_of(net: Any, batch: Any, device: torch.device | str = "cpu") -> Dynamics:
    """The last GRU layer's forward direction, in float64, with the mean over a batch of what it reads as its input.

    Args:
        net: with a :class:`GRUCore`, in evaluation mode.
        batch: of trials; ``MOST_TRIALS`` of them are used.
        device: where the network is.
    """
    gru, given = net.core.gru, []
    handle = net.core.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    part = {name: values[:MOST_TRIALS] if isinstance(values, Tensor) else values for name, values in batch.items()}
    try:
        run_network(net, part, device)
    finally:
        handle.remove()
    inputs, lengths = given[0][0], given[0][1] if len(given[0]) > 1 else None
    with torch.no_grad():
        visited = run_recurrent(gru, inputs, lengths)[0][..., : gru.hidden_size].double().cpu()
        if gru.num_layers > 1:
            lower = torch.nn.GRU(
                gru.input_size, gru.hidden_size, gru.num_layers - 1, batch_first=True, bidirectional=gru.bidirectional
            )
            kept = lower.state_dict()
            lower.load_state_dict({name: values for name, values in gru.state_dict().items() if name in kept})
            inputs = run_recurrent(lower.to(inputs.device), inputs, lengths)[0]
        inside_trials = torch.ones(visited.shape[:2], dtype=torch.bool)
        if lengths is not None:
            inside_trials = inside(lengths.cpu(), visited.shape[1])
        cell = torch.nn.GRUCell(inputs.shape[2], gru.hidden_size).requires_grad_(False)
        last = f"_l{gru.num_layers - 1}"
        cell.load_state_dict({name: gru.state_dict()[name + last] for name in cell.state_dict()})
        cell = cell.double()
        drive = inputs.double().cpu()[inside_trials].mean(0) @ cell.weight_ih.T + cell.bias_ih
    visited[~inside_trials] = torch.nan
    return Dynamics(lambda states: gru_step(cell, drive.expand(len(states), -1), states), visited)


def draw_flow(module: Any, data: Any) -> Figure:
    """The figure of a run's network; see :func:`dynamics_of`."""
    with torch.random.fork_rng(), evaluation_mode(module.net):
        batch = next(iter(data.eval_dataloader("val")))
        found = dynamics_of(module.net, batch, module.device)
    visited = found.visited[found.visited.isfinite().all(2)]
    mean, axes = plane_of(visited)
    starts = visited[torch.linspace(0, len(visited) - 1, STARTS).round().long()]
    points = fixed_points(found.step, starts)
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
        simulated=module.spec.simulated,
    )
