"""A population of neurons with nonlinear tuning to shared variables, and its over-dispersed spike times.

Its constants, and the latent variables of the maze, were fitted by hand to statistics of the public test files of
mc_maze, mc_maze_medium and mc_maze_small; ``benchmarks/twins.py`` shows both. None of our models is of this kind: their
rates are exponentials of latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP_MS = 5
"""Latent variables and rates change every 5 ms; spikes fall anywhere within."""

TICKS_PER_MS = 30
"""The recorders' clock: 30 kHz."""

MAX_RATE_HZ = 150.0

LATEST_STEPS = 16
"""By how much at most a neuron leads or follows the population, in steps: 80 ms."""

GAIN_MS = 600
"""Within this time a neuron's gain drifts to another value."""

GAIN_SD = (0.08, 0.15)
"""Standard deviations of the log gain: what all neurons share (each with a weight of its own), and what is private."""

REFRACTORY_MS = 4.0
"""Mean of the refractory period, which is drawn anew after each spike."""

DEPTH = 1.1
"""How far one standard deviation of the latents moves a neuron's drive."""

BASELINE = (1.2, 0.8, 0.6)
"""A neuron's drive without input: mean and standard deviation over neurons, and how much it rises with the neuron's
rate relative to the mean rate, since fast neurons are modulated by a smaller share of their rate."""

POWER = (1.0, 1.5)
"""The lowest and the highest exponent of a rectified drive."""


@dataclass(frozen=True)
class Block:
    """An uninterrupted stretch of recording.

    Attributes:
        start_ms: its start in the session.
        latents: (S, D) the population's state every 5 ms; the block lasts ``5 * S`` ms.
    """

    start_ms: int
    latents: np.ndarray

    @property
    def stop_ms(self) -> int:
        """Its end in the session."""
        return self.start_ms + STEP_MS * len(self.latents)


class Population:
    """Neurons that rectify, are normalised and saturate.

    A neuron's drive is a rectified power of one direction of the latents, read earlier or later by the neuron's own
    lag. It is divided by a constant, a second rectified direction that suppresses, the population's mean drive and a
    part of itself (Carandini & Heeger, Nat Rev Neurosci 2012). The rate has a gain that drifts, partly shared (Goris et
    al., Nat Neurosci 2014), and each spike is followed by a refractory period.

    Args:
        rng: the generator of the neurons' tuning.
        blocks: the recording that means and variances are taken from.
        n_units: number of neurons N.
        mean_rate_hz: mean firing rate over neurons; single neurons' means are distributed exponentially, as those of
            motor cortex are.
    """

    def __init__(self, rng: np.random.Generator, blocks: list[Block], n_units: int, mean_rate_hz: float) -> None:
        latents = [b.latents for b in blocks[:: max(1, len(blocks) // 400)]]
        every = np.concatenate(latents).astype(np.float64)
        self.mean, self.std = every.mean(0), every.std(0) + 1e-9
        self.drive, self.suppression = (DEPTH * _directions(rng, len(self.mean), n_units) for _ in range(2))
        self.power = rng.uniform(*POWER, n_units)
        self.lag = rng.integers(-LATEST_STEPS, LATEST_STEPS + 1, n_units)
        self.shared = rng.normal(1, 0.7, n_units) * GAIN_SD[0]
        self.scale = np.ones(n_units)
        spread = -np.log((rng.permutation(n_units) + rng.uniform(0.02, 0.98, n_units)) / n_units)
        self.bias = rng.normal(*BASELINE[:2], n_units) + BASELINE[2] * (spread - 1)
        means = np.mean([self._tuned(part).mean(0) for part in latents], axis=0)
        self.scale = mean_rate_hz * spread / spread.mean() / means

    @property
    def n_units(self) -> int:
        """Number of neurons N."""
        return len(self.lag)

    def rates_hz(self, latents: np.ndarray) -> np.ndarray:
        """(S, N) firing rates in Hz for latents (S, D), at a gain of 1."""
        return np.minimum(self._tuned(latents) * self.scale, MAX_RATE_HZ)

    def _tuned(self, latents: np.ndarray) -> np.ndarray:
        """(S, N) responses that are not scaled to rates yet."""
        z = (latents - self.mean) / self.std
        drive = np.maximum(z @ self.drive + self.bias, 0) ** self.power
        suppression = np.maximum(z @ self.suppression, 0)
        responses = (0.05 + drive) / (1 + suppression + 0.5 * drive.mean(1, keepdims=True) + 0.1 * drive)
        at = np.clip(np.arange(len(z))[:, None] - self.lag, 0, len(z) - 1)
        return np.take_along_axis(responses, at, 0)

    def _gain(self, rng: np.random.Generator, n_steps: int) -> np.ndarray:
        """(S, N) gains around 1, interpolated between values that are drawn every ``GAIN_MS``."""
        at = np.arange(n_steps) * STEP_MS / GAIN_MS + rng.random()
        left = at.astype(int)
        values = GAIN_SD[1] * rng.standard_normal((left[-1] + 2, self.n_units))
        values += rng.standard_normal((len(values), 1)) * self.shared
        part = (at - left)[:, None]
        return np.exp(values[left] * (1 - part) + values[left + 1] * part)

    def spike_ticks(self, rng: np.random.Generator, blocks: list[Block]) -> list[np.ndarray]:
        """Spikes of each neuron over all blocks, as sorted, distinct ticks of the 30 kHz clock.

        Args:
            rng: the generator of gains and spikes.
            blocks: in the order of time.
        """
        ticks_per_step = STEP_MS * TICKS_PER_MS
        span = (blocks[-1].stop_ms + 1) * TICKS_PER_MS
        keys = []
        for block in blocks:
            rates = self.rates_hz(block.latents) * self._gain(rng, len(block.latents))
            counts = rng.poisson(rates * (STEP_MS / 1000))
            step, unit = np.nonzero(counts)
            step, unit = (np.repeat(v, counts[step, unit]) for v in (step, unit))
            tick = (block.start_ms // STEP_MS + step) * ticks_per_step + rng.integers(ticks_per_step, size=len(step))
            keys.append(unit * span + tick)
        keys = np.unique(np.concatenate(keys))
        refractory = rng.gamma(2.0, REFRACTORY_MS * TICKS_PER_MS / 2, len(keys))
        keys = keys[np.diff(keys, prepend=-span) > refractory]
        ends = np.searchsorted(keys, np.arange(1, self.n_units) * span)
        return [part - unit * span for unit, part in enumerate(np.split(keys, ends))]


def _directions(rng: np.random.Generator, n_latents: int, n_units: int) -> np.ndarray:
    """(D, N) unit vectors, each with its own share of the latents."""
    weights = rng.standard_normal((n_latents, n_units)) * rng.uniform(0.2, 1, (n_latents, n_units))
    return weights / np.linalg.norm(weights, axis=0)
