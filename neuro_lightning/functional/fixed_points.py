"""Fixed points of a recurrent network, where its state would stay, and whether it comes back to them.

From many states the squared speed ``|F(h) - h|^2`` is minimised by the method of Levenberg and Marquardt, all at once,
with Jacobians by automatic differentiation. States of little speed that are no fixed points are left out.

Source: Sussillo and Barak 2013, Neural Computation 25:626 (the method of descent is another).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]


REST = 1e-5  # a step of the search, relative to the spread of the starts, after which it is given up


class FixedPoints(NamedTuple):
    """Fixed points, those that most starts led to first.

    Attributes:
        states: (P, D).
        speed: (P,) what is left of ``|F(h) - h|``.
        eigenvalues: (P, D) complex, of the Jacobian of the step; those within the unit circle decay.
        starts: (P,) how many of the starts led there.
    """

    states: Tensor
    speed: Tensor
    eigenvalues: Tensor
    starts: Tensor

    @property
    def stable(self) -> Tensor:
        """(P,) bool, True where all eigenvalues are within the unit circle."""
        return self.eigenvalues.abs().amax(-1) < 1


def fixed_points(
    step: Step, starts: Tensor, *, n_steps: int = 60, tolerance: float = 1e-6, apart: float = 1e-2
) -> FixedPoints:
    """The fixed points of a step that is repeated under a constant input.

    Args:
        step: states (B, D) -> the next states (B, D), each by itself.
        starts: (S, D) states to begin with, such as those that the network visits.
        n_steps: iterations.
        tolerance: largest speed of a fixed point, relative to the spread of the starts.
        apart: fixed points nearer than that, relative to the spread of the starts, are one.

    Returns:
        In float64, P = 0 where none is found.
    """
    states = starts.double().clone()
    spread = float(states.std(0, correction=0).norm()) or 1.0
    jacobian_of = torch.func.vmap(torch.func.jacrev(lambda state: step(state[None])[0]))
    one = torch.eye(states.shape[1], dtype=states.dtype)
    damping = torch.full((len(states),), 1e-2, dtype=states.dtype)
    residual = step(states) - states
    slopes = jacobian_of(states) - one
    left = torch.arange(len(states))  # those that have neither arrived nor come to rest elsewhere
    for _ in range(n_steps):
        slope = slopes[left]
        squares = slope.mT @ slope + damping[left, None, None] * one
        change = torch.linalg.solve(squares, (slope.mT @ residual[left, :, None]))[..., 0]
        trial = states[left] - change
        found = step(trial) - trial
        better = found.norm(dim=1) < residual[left].norm(dim=1)
        moved = left[better]
        states[moved], residual[moved] = trial[better], found[better]
        damping[left] = torch.where(better, damping[left] / 5, damping[left] * 5).clamp(1e-12, 1e6)
        arrived = residual[left].norm(dim=1) < 0.01 * tolerance * spread
        left = left[~arrived & (change.norm(dim=1) > REST * spread)]
        if not len(left):
            break
        moved = moved[torch.isin(moved, left)]
        slopes[moved] = jacobian_of(states[moved]) - one
    speed = residual.norm(dim=1)
    known = speed < tolerance * spread
    points, speed, starts_of = _distinct(states[known], speed[known], apart * spread)
    return FixedPoints(points, speed, torch.linalg.eigvals(jacobian_of(points)), starts_of)


def _distinct(states: Tensor, speed: Tensor, apart: float) -> tuple[Tensor, Tensor, Tensor]:
    """The slowest state of each group of near ones, its speed, and the sizes of the groups, the largest first."""
    chosen, sizes = [], []
    left = speed.argsort()
    while len(left):
        near = (states[left] - states[left[0]]).norm(dim=1) <= apart
        chosen.append(int(left[0]))
        sizes.append(int(near.sum()))
        left = left[~near]
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    place = torch.tensor([chosen[k] for k in order], dtype=torch.long)
    return states[place], speed[place], torch.tensor([sizes[k] for k in order], dtype=torch.long)


def plane_of(states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the first two principal axes (2, D) of states (S, D); D is 2 at least.

    The largest entry of an axis is positive.
    """
    mean = states.double().mean(0)
    _, _, axes = torch.linalg.svd(states.double() - mean, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return mean, axes * largest.sign()


def flow(step: Step, mean: Tensor, axes: Tensor, places: Tensor) -> Tensor:
    """(M, 2) where states on a plane move within it in a step.

    Args:
        step: states (B, D) -> the next states.
        mean: (D,) a point of the plane.
        axes: (2, D) orthonormal.
        places: (M, 2) on the plane.
    """
    states = mean + places @ axes
    return (step(states) - states) @ axes.T
