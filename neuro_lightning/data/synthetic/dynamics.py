"""Dynamical systems that drive simulated neurons, and the spikes they cause."""

from __future__ import annotations

import numpy as np


def lorenz(initial: np.ndarray, n_bins: int, step: float) -> np.ndarray:
    """Trajectories of the Lorenz system with its classical parameters, standardized.

    Args:
        initial: (C, 3) states to start from, such as :func:`lorenz_states` gives.
        n_bins: bins of the trajectory.
        step: the system's time in a bin; 0.02 makes about 37 bins an orbit.

    Returns:
        (C, n_bins, 3), each coordinate with about zero mean and unit variance on the attractor.
    """

    def flow(state: np.ndarray) -> np.ndarray:
        x, y, z = state.T
        return np.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], axis=1)

    fine = max(1, round(step / 0.005))  # integration steps in a bin
    h = step / fine
    states = np.empty((len(initial), n_bins, 3))
    state = np.array(initial, float)
    for t in range(n_bins):
        states[:, t] = state
        for _ in range(fine):
            k1 = flow(state)
            k2 = flow(state + h / 2 * k1)
            k3 = flow(state + h / 2 * k2)
            k4 = flow(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return (states - [0.0, 0.0, 23.5]) / [7.9, 9.0, 8.6]


def lorenz_states(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) states on the attractor: random starts, run until they have forgotten where they began."""
    start = rng.normal(size=(n, 3)) * [8.0, 9.0, 8.0] + [0.0, 0.0, 25.0]
    return lorenz(start, 2, 15.0)[:, 1] * [7.9, 9.0, 8.6] + [0.0, 0.0, 23.5]


def chaotic_rnn(initial: np.ndarray, n_bins: int, bin_ms: float, weights: np.ndarray, tau_ms: float) -> np.ndarray:
    """Activity of a random rate network ``tau dx/dt = -x + W tanh(x)`` (Sussillo & Abbott, Neuron 2009).

    Args:
        initial: (C, U) states to start from.
        n_bins: bins of the trajectory.
        bin_ms: width of a bin.
        weights: (U, U), see :func:`random_weights`.
        tau_ms: the units' time constant.

    Returns:
        (C, n_bins, U) ``tanh`` of the units' states, between -1 and 1.
    """
    fine = max(1, round(bin_ms / (tau_ms / 10)))
    h = bin_ms / fine / tau_ms
    activity = np.empty((len(initial), n_bins, initial.shape[1]))
    state = np.array(initial, float)
    for t in range(n_bins):
        activity[:, t] = np.tanh(state)
        for _ in range(fine):
            state = state + h * (np.tanh(state) @ weights.T - state)
    return activity


def random_weights(n_units: int, gain: float, rng: np.random.Generator) -> np.ndarray:
    """(U, U) recurrent weights N(0, gain^2 / U); a gain above about 1.5 makes the network chaotic."""
    return rng.normal(size=(n_units, n_units)) * gain / np.sqrt(n_units)


def log_linear_rates(
    latents: np.ndarray, n_neurons: int, mean_rate: float, depth: float, rng: np.random.Generator
) -> np.ndarray:
    """Rates of neurons whose log-rate is a random linear function of the latents.

    Args:
        latents: (C, L, D), each of about unit variance.
        n_neurons: neurons N.
        mean_rate: mean over all neurons, spikes per bin; single neurons differ by a factor of about two.
        depth: standard deviation of a neuron's log-rate over time.
        rng: draws the readout.

    Returns:
        (C, L, N) spikes per bin.
    """
    readout = rng.normal(size=(latents.shape[2], n_neurons))
    readout *= depth / np.linalg.norm(readout, axis=0)
    drive = np.exp(latents @ readout)
    neuron = mean_rate * np.exp(rng.normal(size=n_neurons) * 0.5 - 0.125)
    return neuron * drive / drive.mean((0, 1))
