"""What the simulated tasks share: the session, and the shapes of movements and of the latent variables over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neuro_lightning.data.nlb.tasks.population import STEP_MS, Block


@dataclass
class Session:
    """A simulated recording before its spikes are drawn.

    Attributes:
        trials: the trial table's columns, in order; each (B,).
        blocks: the stretches in which spikes were recorded: what ``obs_intervals`` holds.
        align_ms: (B,) the event that windows are cut around, NaN where a trial has none.
        velocity: (S, 2) the hand's or the finger's velocity at 1 kHz; None without.
        samples_ms: (S,) the times of its samples, which may have gaps; None for all from 0 on.
    """

    trials: dict[str, np.ndarray]
    blocks: list[Block]
    align_ms: np.ndarray | None = None
    velocity: np.ndarray | None = None
    samples_ms: np.ndarray | None = None


def trial_table(rows: list[dict]) -> dict[str, np.ndarray]:
    """The columns of a table that is given by its rows; text as objects."""
    return {k: np.array([r[k] for r in rows], object if isinstance(rows[0][k], str) else None) for k in rows[0]}


def min_jerk(t: np.ndarray, onset: float, duration: float) -> np.ndarray:
    """Speed of a minimum-jerk movement of length 1 (Flash & Hogan, J Neurosci 1985), per ms; 0 outside it."""
    s = np.clip((t - onset) / duration, 0, 1)
    return 30 * s**2 * (1 - s) ** 2 / duration


def sigmoid(t: np.ndarray, at: float, width: float) -> np.ndarray:
    """A smooth step from 0 to 1 around ``at``."""
    return 0.5 * (1 + np.tanh((t - at) / (2 * width)))


def bump(t: np.ndarray, at: float, width: float) -> np.ndarray:
    """A Gaussian of height 1 around ``at``."""
    return np.exp(-0.5 * ((t - at) / width) ** 2)


def slow_noise(rng: np.random.Generator, n_steps: int, n_dims: int, tau_ms: float) -> np.ndarray:
    """(S, D) smooth noise of variance 1 that forgets itself over about ``tau_ms``: what no condition explains."""
    sd = tau_ms / STEP_MS
    noise = gaussian_filter1d(rng.standard_normal((n_steps + int(8 * sd), n_dims)), sd, axis=0)
    return noise[int(4 * sd) :][:n_steps] * np.sqrt(2 * sd * np.sqrt(np.pi))


def rotations(t: np.ndarray, onset: float, phase: float, amplitude: float) -> np.ndarray:
    """(S, 4) two decaying rotations that start before a movement (Churchland et al., Nature 2012)."""
    envelope = amplitude * bump(t, onset + 60, 170)
    angles = [2 * np.pi * hz * (t - onset) / 1000 + k * phase for hz, k in ((1.6, 1), (2.6, 2))]
    return np.stack([envelope * f(a) for a in angles for f in (np.cos, np.sin)], axis=1)


def assign_conditions(rng: np.random.Generator, n_trials: int, n_conditions: int) -> tuple[np.ndarray, np.ndarray]:
    """Every condition equally often, in random order, with a quarter of each condition's trials for validation.

    Returns:
        ``(condition, split)``: (B,) int64 and (B,) text, ``train`` or ``val``.
    """
    condition = rng.permutation(np.arange(n_trials) % n_conditions)
    split = np.full(n_trials, "train", object)
    split[rng.permutation(n_trials)[: max(1, round(n_trials / 4))]] = "val"
    for c in range(n_conditions):  # every condition has trials on both sides, so that every PSTH can be scored
        trials = np.flatnonzero(condition == c)
        if len(trials) >= 4:
            split[trials] = "train"
            split[rng.choice(trials, max(1, round(len(trials) / 4)), replace=False)] = "val"
    return condition, split


def steps(duration_ms: float) -> np.ndarray:
    """The times, in ms from a block's start, of its 5 ms steps' middles."""
    return np.arange(int(duration_ms) // STEP_MS) * STEP_MS + STEP_MS / 2


def whole_steps(ms: float) -> int:
    """The next multiple of 5 ms."""
    return int(np.ceil(ms / STEP_MS)) * STEP_MS


def segment_sizes(n_items: int, n_segments: int) -> list[int]:
    """How many items each of ``n_segments`` about equal segments gets; none is empty."""
    return [len(part) for part in np.array_split(np.arange(n_items), min(n_items, n_segments))]
