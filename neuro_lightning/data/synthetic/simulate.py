"""Simulated recordings whose true rates are known: what a model scores can be held against what is possible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neuro_lightning.data.recording import Recording, Trials, compact
from neuro_lightning.data.synthetic.dynamics import chaotic_rnn, log_linear_rates, lorenz, lorenz_states, random_weights
from neuro_lightning.errors import ConfigError

ROWS, UNITS = 1_000_000, 10_000
"""Numbers of trials and of units by which one session's lie behind another's."""


@dataclass(frozen=True)
class Sizes:
    """How much is simulated.

    Attributes:
        n_train: training trials.
        n_val: validation trials.
        n_test: test trials.
        n_conditions: initial states; trials of one condition share their rates, not their spikes.
        n_in: held-in neurons.
        n_out: held-out neurons.
        n_bins: observed bins.
        n_forward: forward bins.
        bin_ms: bin width, ms.
        mean_rate_hz: mean firing rate, spikes per second.
        depth: standard deviation of a neuron's log-rate over time.
    """

    n_train: int = 400
    n_val: int = 100
    n_test: int = 100
    n_conditions: int = 50
    n_in: int = 48
    n_out: int = 16
    n_bins: int = 100
    n_forward: int = 0
    bin_ms: int = 10
    mean_rate_hz: float = 8.0
    depth: float = 0.7

    def __post_init__(self) -> None:
        for name in ("n_train", "n_val", "n_conditions", "n_in", "n_bins", "bin_ms", "mean_rate_hz"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"data.{name} must be positive, not {getattr(self, name)}")
        for name in ("n_test", "n_out", "n_forward", "depth"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.{name} must not be negative, but is {getattr(self, name)}")


def simulate_lorenz(sizes: Sizes, *, step: float = 0.03, seed: int = 0, session: int | None = None) -> Recording:
    """Neurons driven by the Lorenz attractor, as in the LFADS papers (Pandarinath et al., Nature Methods 2018).

    Args:
        sizes: how much is simulated.
        step: the system's time in a bin; larger is faster.
        seed: of states, readout and spikes.
        session: number of a session. Sessions of one seed and one number of conditions have the same conditions, which
            are initial states, and each has trials and neurons of its own. None is a recording by itself.

    Raises:
        ConfigError: a negative session.
    """
    rng = np.random.default_rng([seed, 1])
    latents = lorenz(lorenz_states(sizes.n_conditions, rng), sizes.n_bins + sizes.n_forward, step)
    behavior = latents[:, : sizes.n_bins, :2]
    if session is None:
        return _recording("lorenz", latents, behavior, sizes, rng)
    if session < 0:
        raise ConfigError(f"data.session={session} must not be negative")
    recording = _recording("lorenz", latents, behavior, sizes, np.random.default_rng([seed, 3, session]))
    return _as_session(recording, session, [[seed, step, k] for k in range(sizes.n_conditions)], f"lorenz-{seed}")


def _as_session(recording: Recording, session: int, values: list[list[float]], family: str) -> Recording:
    """The recording with numbers of units and trials that no other session has, and its conditions by their values."""
    for trials in recording.splits.values():
        trials.row = trials.row + session * ROWS
    identifier = {"identifier": f"{family}-{session}"}
    info = {**recording.info, "session": identifier, "condition_values": values}
    return replace(recording, unit_ids=recording.unit_ids + session * UNITS, info=info)


def simulate_chaotic_rnn(
    sizes: Sizes, *, n_units: int = 50, gain: float = 2.5, tau_ms: float = 100.0, seed: int = 0
) -> Recording:
    """Neurons that are read out from a chaotic rate network, as in the LFADS papers.

    Args:
        sizes: how much is simulated.
        n_units: units of the network.
        gain: of its weights; the larger the more chaotic.
        tau_ms: the units' time constant.
        seed: of weights, states, readout and spikes.
    """
    rng = np.random.default_rng([seed, 2])
    weights = random_weights(n_units, gain, rng)
    settled = chaotic_rnn(rng.normal(size=(sizes.n_conditions, n_units)), 50, 20.0, weights, tau_ms)[:, -1]
    states = np.arctanh(np.clip(settled, -0.999, 0.999))
    latents = chaotic_rnn(states, sizes.n_bins + sizes.n_forward, sizes.bin_ms, weights, tau_ms)
    latents = (latents - latents.mean((0, 1))) / latents.std((0, 1))
    return _recording("chaotic_rnn", latents, latents[:, : sizes.n_bins, :2], sizes, rng)


def _recording(
    name: str, latents: np.ndarray, behavior: np.ndarray, sizes: Sizes, rng: np.random.Generator
) -> Recording:
    """Spikes of (C, L, D) latents: every trial repeats one of the C conditions."""
    n_neurons, bins = sizes.n_in + sizes.n_out, sizes.n_bins
    rates = log_linear_rates(latents, n_neurons, sizes.mean_rate_hz * sizes.bin_ms / 1000, sizes.depth, rng)
    splits, row = {}, 0
    for split, n_trials in (("train", sizes.n_train), ("val", sizes.n_val), ("test", sizes.n_test)):
        if not n_trials:
            continue
        condition = rng.permutation(np.resize(np.arange(sizes.n_conditions), n_trials))
        counts = compact(rng.poisson(rates[condition]))
        splits[split] = Trials.from_counts(
            counts,
            bins,
            sizes.n_in,
            behavior=behavior[condition],
            condition=condition,
            rates=rates[condition].astype(np.float32),
            row=np.arange(row, row + n_trials),
        )
        row += n_trials
    return Recording(
        name=name,
        bin_ms=sizes.bin_ms,
        splits=splits,
        unit_ids=np.arange(n_neurons),
        psth=rates[:, :bins],
        behavior_kind="velocity",
        simulated=True,
    )
