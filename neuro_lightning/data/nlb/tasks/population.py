"""A population of neurons whose firing rates follow shared latent variables, and its spike times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP_MS = 5
"""Latent variables and rates change every 5 ms; spikes fall anywhere within."""

TICKS_PER_MS = 30
"""The recorders' clock: 30 kHz."""

MAX_RATE_HZ = 150.0


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
    """Neurons with log-linear tuning to the latent variables: the rate is ``exp(bias + weights @ latents)``.

    Args:
        rng: the generator of the neurons' tuning.
        blocks: the recording that means and variances are taken from.
        n_units: number of neurons N.
        mean_rate_hz: mean firing rate over neurons; single neurons' means are log-normal around it.
        depth: standard deviation of a neuron's log rate over time.
    """

    def __init__(
        self, rng: np.random.Generator, blocks: list[Block], n_units: int, mean_rate_hz: float, depth: float = 1.0
    ) -> None:
        latents = np.concatenate([b.latents for b in blocks[:: max(1, len(blocks) // 400)]]).astype(np.float64)
        self.mean, self.std = latents.mean(0), latents.std(0) + 1e-9
        weights = rng.standard_normal((latents.shape[1], n_units)) * rng.uniform(0.2, 1, (latents.shape[1], n_units))
        self.weights = depth * weights / np.linalg.norm(weights, axis=0)
        spread = rng.lognormal(sigma=0.6, size=n_units)
        log_mean = np.log(np.exp((latents - self.mean) / self.std @ self.weights).mean(0))
        self.bias = np.log(mean_rate_hz * spread / spread.mean()) - log_mean

    @property
    def n_units(self) -> int:
        """Number of neurons N."""
        return self.weights.shape[1]

    def rates_hz(self, latents: np.ndarray) -> np.ndarray:
        """(S, N) firing rates in Hz for latents (S, D)."""
        return np.minimum(np.exp(self.bias + (latents - self.mean) / self.std @ self.weights), MAX_RATE_HZ)

    def spike_ticks(self, rng: np.random.Generator, blocks: list[Block]) -> list[np.ndarray]:
        """Poisson spikes of each neuron over all blocks, as sorted, distinct ticks of the 30 kHz clock.

        Args:
            rng: the generator of the spikes.
            blocks: in the order of time.
        """
        ticks_per_step = STEP_MS * TICKS_PER_MS
        span = (blocks[-1].stop_ms + 1) * TICKS_PER_MS
        keys = []
        for block in blocks:
            counts = rng.poisson(self.rates_hz(block.latents) * (STEP_MS / 1000))
            step, unit = np.nonzero(counts)
            step, unit = (np.repeat(v, counts[step, unit]) for v in (step, unit))
            tick = (block.start_ms // STEP_MS + step) * ticks_per_step + rng.integers(ticks_per_step, size=len(step))
            keys.append(unit * span + tick)
        keys = np.unique(np.concatenate(keys))
        ends = np.searchsorted(keys, np.arange(1, self.n_units) * span)
        return [part - unit * span for unit, part in enumerate(np.split(keys, ends))]
