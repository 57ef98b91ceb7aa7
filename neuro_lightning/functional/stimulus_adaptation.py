"""Adaptation of simulated neurons: what drove a neuron shortly before makes it respond less."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STRENGTH = 0.4
"""A neuron that nothing has driven for long responds so much more, as a share, than one driven as on average."""
DECAY = 0.5
"""Share of its state that a neuron keeps from one presentation to the next."""


def adaptation(drive: np.ndarray, strength: float = STRENGTH, decay: float = DECAY) -> np.ndarray:
    """What the response to each presentation is multiplied by, for what was presented before.

    The state a of a neuron is the decaying mean of its earlier drives, in units of the mean drive, and starts at 1;
    the factor is in proportion to ``1 / (1 + strength * a)``, and 1 in the mean over presentations.

    Args:
        drive: (P, N) not negative, of the presentations in their order; a neuron without any stays at 1.
        strength: see :data:`STRENGTH`; 0 is no adaptation.
        decay: see :data:`DECAY`.

    Returns:
        (P, N).
    """
    mean = drive.mean(0)
    relative = drive / np.where(mean > 0, mean, 1.0)
    factors, state = np.empty(drive.shape), np.where(mean > 0, 1.0, 0.0)
    for presentation, driven in enumerate(relative):
        factors[presentation] = 1 / (1 + strength * state)
        state = decay * state + (1 - decay) * driven
    return factors / factors.mean(0)


def mean_over_histories(
    mean_response: Callable[[np.ndarray], np.ndarray], factors: np.ndarray, n: int = 9
) -> np.ndarray:
    """The expected response whatever was presented before: the mean over quantiles of each neuron's factors.

    Args:
        mean_response: the factors (N,) of a history -> the expected responses (B, N) then.
        factors: (P, N) of :func:`adaptation`.
        n: quantiles.

    Returns:
        (B, N).
    """
    histories = np.quantile(factors, (np.arange(n) + 0.5) / n, axis=0)
    return np.mean([mean_response(history) for history in histories / histories.mean(0)], axis=0)
