"""Full-batch quasi-Newton fits of small networks, from several random starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

log = logging.getLogger(__name__)

Objective = Callable[[nn.Module], Tensor]


@dataclass
class Fit:
    """A fitted network, with its losses.

    Attributes:
        state: the network's state, float64.
        loss: the objective there.
        score: the validation loss there, lower is better; the objective itself where there is no validation.
        iterations: quasi-Newton steps taken in all.
        history: (objective, validation loss) each time it was looked at.
    """

    state: dict[str, Tensor]
    loss: float
    score: float
    iterations: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)


class _StopFit(StopIteration):
    """Raised to end a fit whose validation loss has not fallen for ``patience`` looks."""


class _FlatParameters:
    """A network's parameters as one float64 vector, in numpy, which is what scipy works on.

    Args:
        net: in float64.
        objective: of the network; a scalar.
    """

    def __init__(self, net: nn.Module, objective: Objective) -> None:
        self.net, self.objective = net, objective
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def read(self) -> np.ndarray:
        return parameters_to_vector(self.parameters).detach().numpy()

    def write(self, vector: np.ndarray) -> None:
        vector_to_parameters(torch.from_numpy(np.array(vector)), self.parameters)

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        self.write(vector)
        loss = self.objective(self.net)
        gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return float(loss.detach()), parameters_to_vector(gradients).numpy()

    def limits(self) -> list[tuple[float, float]] | None:
        """The network's ``bounds()`` for each entry of the vector; None without any."""
        given = self.net.bounds() if hasattr(self.net, "bounds") else {}
        if not given:
            return None
        rows: list[np.ndarray] = []
        for name, parameter in self.net.named_parameters():
            low, high = given.get(name, (torch.tensor(-torch.inf), torch.tensor(torch.inf)))
            rows.append(np.stack([np.broadcast_to(limit.numpy(), parameter.shape).ravel() for limit in (low, high)], 1))
        return [tuple(row) for row in np.concatenate(rows)]


def quasi_newton(
    net: nn.Module,
    objective: Objective,
    *,
    validation: Objective | None = None,
    iterations: int = 1000,
    every: int = 5,
    patience: int = 20,
) -> Fit:
    """Minimise an objective by L-BFGS-B (scipy) in float64, within the network's ``bounds()`` if it has any.

    The validation loss is looked at on the way, and the network is left where it was lowest.

    Args:
        net: any network; it is converted to float64 and changed.
        objective: of the network in training mode; a scalar without randomness.
        validation: of the network in evaluation mode; None minimises to the end.
        iterations: at most so many steps.
        every: steps from one look at the validation loss to the next.
        patience: looks without a new lowest validation loss before the fit ends.

    Returns:
        The fit; ``net`` holds it.
    """
    from scipy.optimize import minimize

    net.double().train()
    flat, taken, waited = _FlatParameters(net, objective), 0, 0
    best = Fit({}, np.inf, np.inf)
    history: list[tuple[float, float]] = []

    def look(vector: np.ndarray) -> None:
        nonlocal best, waited
        flat.write(vector)
        with torch.no_grad():
            loss = float(objective(net))
            net.eval()
            score = loss if validation is None else float(validation(net))
            net.train()
        history.append((loss, score))
        waited += 1
        if score < best.score:
            state = {name: value.detach().clone() for name, value in net.state_dict().items()}
            best, waited = Fit(state, loss, score), 0

    def after_step(intermediate_result) -> None:
        nonlocal taken
        taken += 1
        if taken % every == 0 and validation is not None:
            look(intermediate_result.x)
            if waited >= patience:
                raise _StopFit

    look(flat.read())
    result = minimize(
        flat,
        flat.read(),
        jac=True,
        method="L-BFGS-B",
        bounds=flat.limits(),
        callback=after_step,
        options={"maxiter": iterations, "maxfun": 20 * iterations, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6},
    )
    look(result.x)
    if best.state:
        net.load_state_dict(best.state)
    best.iterations, best.history = taken, history
    return best


def best_of_restarts(
    build: Callable[[], nn.Module],
    objective: Objective,
    *,
    restarts: int,
    seed: int,
    validation: Objective | None = None,
    **options: int,
) -> tuple[Fit, list[Fit]]:
    """Fit from several random starts and keep the one with the lowest validation loss.

    Args:
        build: makes a network from torch's random numbers.
        objective: see :func:`quasi_newton`.
        restarts: how many starts.
        seed: the starts are those of ``seed, seed + 1, ...``.
        validation: see :func:`quasi_newton`.
        options: likewise.

    Returns:
        The best fit, and all of them in their order.

    Raises:
        ValueError: no start at all, or none that stayed finite.
    """
    if restarts < 1:
        raise ValueError(f"restarts={restarts} must be at least 1")
    fits: list[Fit] = []
    for start in range(restarts):
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + start)
            net = build()
        fits.append(quasi_newton(net, objective, validation=validation, **options))
        log.info(
            "start %d of %d: %d steps in %.1f s, loss %.4f, validation loss %.4f",
            start + 1, restarts, fits[-1].iterations, time.perf_counter() - began, fits[-1].loss, fits[-1].score,
        )  # fmt: skip
    best = min(fits, key=lambda fit: fit.score)
    if not np.isfinite(best.score):
        raise ValueError("no start stayed finite: the inputs or targets may be far too large")
    return best, fits
