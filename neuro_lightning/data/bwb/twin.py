"""Simulated sessions of the benchmark in the true layout: neurons that follow a decision task and slow fluctuations.

Chunks of time train, test, train, validate and test, as in the benchmark, but a twin's are shorter. Sessions of one
seed share the dynamics; each has trials and neurons of its own, on two probes. The last session has no wheel.
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.brainset.temporal import import_temporaldata, save, to_spikes
from neuro_lightning.data.bwb.rules import BRAINSET, BUILD, DOMAIN, HELD_OUT, VERSION, held_out_units
from neuro_lightning.data.nlb.tasks.common import slow_noise
from neuro_lightning.data.nlb.tasks.population import STEP_MS, TICKS_PER_MS, Block, Population
from neuro_lightning.data.twin_files import write_twin_files
from neuro_lightning.errors import ConfigError

TWIN = 2
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

PATTERN = ("train", "test", "train", "val", "test")
GAP_S = 2.0


def write_twin(
    folder: str | Path,
    *,
    seed: int = 0,
    n_sessions: int = 1,
    n_units: int = 40,
    chunk_s: float = 40.0,
    n_chunks: int = 10,
    mean_rate_hz: float = 8.0,
) -> list[Path]:
    """Write simulated sessions, or find the very ones that an earlier call has written.

    Args:
        folder: where to.
        seed: the same seed and arguments give the same content.
        n_sessions: how many files.
        n_units: neurons of each.
        chunk_s: length of a chunk, 300 s in the benchmark.
        n_chunks: of the pattern train, test, train, val, test, which is repeated.
        mean_rate_hz: mean firing rate.

    Returns:
        The files.

    Raises:
        ConfigError: sizes that no session can have.
        DataError: ``temporaldata`` is not installed, or the folder cannot be written to.
    """
    if n_sessions < 1 or n_units < 10 or n_chunks < len(PATTERN) or chunk_s < 10 or not 0 < mean_rate_hz <= 100:
        raise ConfigError(
            "a simulated session of the benchmark has at least 10 units, 5 chunks of 10 s and a mean rate of at most "
            f"100 Hz, not {n_units}, {n_chunks}, {chunk_s} and {mean_rate_hz}"
        )
    recipe = {
        "twin": TWIN, "seed": seed, "n_units": n_units, "chunk_s": chunk_s, "n_chunks": n_chunks,
        "mean_rate_hz": mean_rate_hz, "n_sessions": n_sessions,
    }  # fmt: skip
    ids = [str(uuid.UUID(bytes=np.random.default_rng([seed, n]).bytes(16))) for n in range(n_sessions)]

    def simulate() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        found = {f"{name}.h5": partial(save, simulate_session(recipe, n, name)) for n, name in enumerate(ids)}
        return found, {}

    folder = write_twin_files(Path(folder) / f"{n_sessions}_sessions", recipe, simulate)
    return [folder / f"{name}.h5" for name in ids]


def simulate_session(recipe: dict[str, Any], number: int, session: str) -> Any:
    """One session as a ``Data`` of ``temporaldata``.

    Args:
        recipe: see :func:`write_twin`.
        number: of the session, from 0.
        session: its id.
    """
    td = import_temporaldata()
    rng = np.random.default_rng([recipe["seed"], number, 1])
    chunk, n_chunks = recipe["chunk_s"], recipe["n_chunks"]
    end_s = n_chunks * (chunk + GAP_S)
    trials = _trials(rng, end_s)
    times = np.arange(round(end_s * 1000 / STEP_MS)) * STEP_MS / 1000
    wheel, latents = _behavior(rng, times, trials)
    block = Block(0, latents)
    population = Population(rng, [block], recipe["n_units"], recipe["mean_rate_hz"])
    spikes = [ticks / (1000 * TICKS_PER_MS) for ticks in population.spike_ticks(rng, [block])]
    spikes[0] = spikes[0][:1]  # a unit of one spike
    ids = np.array([str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(population.n_units)])
    domain = td.Interval(start=np.array([0.0]), end=np.array([end_s]))
    chunks = np.arange(n_chunks) * (chunk + GAP_S)
    kinds = [PATTERN[k % len(PATTERN)] for k in range(n_chunks)]
    domains = {
        DOMAIN.format(split): td.Interval(
            start=np.array([t for t, kind in zip(chunks, kinds, strict=True) if kind == split]),
            end=np.array([t + chunk for t, kind in zip(chunks, kinds, strict=True) if kind == split]),
        )
        for split in ("train", "val", "test")
    }
    every = round(20 / STEP_MS)
    aligned = td.Interval(start=trials["stim_on_time"] - 0.5, end=trials["stim_on_time"] + 1.5)
    data = td.Data(
        brainset=td.Data(
            id=BRAINSET, derived_version=VERSION, unit_filtering=BUILD, description="Simulated: no mouse moved."
        ),
        session=td.Data(id=session, task="DISCRETE_DECISION"),
        subject=td.Data(id="nobody", species="MUS_MUSCULUS"),
        spikes=to_spikes(spikes, domain),
        units=_units(ids, spikes, end_s),
        trials=td.Interval(timekeys=["start", "end", "stim_on_time", "movement_onset_time"], **trials),
        **({} if number and number == recipe["n_sessions"] - 1 else {
            "wheel": td.RegularTimeSeries(sampling_rate=50.0, domain_start=0.0, wheel_vel=wheel[::every])
        }),
        simulated=True,
        notes=json.dumps({**recipe, "session": number}, sort_keys=True),
        domain=domain,
        **domains,
    )  # fmt: skip
    data.task_aligned_intervals = td.Data(choice=aligned, domain=aligned & domain)
    return data


def _trials(rng: np.random.Generator, end_s: float) -> dict[str, np.ndarray]:
    """Columns of the trials, times in s; the last one is not over when the recording ends."""
    length = rng.uniform(2.3, 4.5, int(end_s / 2.3) + 2).round(3)
    start = 0.3 + np.concatenate([[0.0], np.cumsum(length)[:-1]])
    kept = start + 1.0 < end_s
    start, length = start[kept], length[kept]
    side = rng.choice([-1.0, 1.0], len(start))
    wrong = rng.random(len(start)) < 0.2
    onset = start + 0.5 + rng.uniform(0.15, 0.4, len(start)).round(3)
    return {
        "start": start, "end": start + length, "stim_on_time": (start + 0.5).round(4),
        "movement_onset_time": onset.round(4), "stimulus_side": side,
        "choice": np.where(wrong, side, -side) > 0, "reward": ~wrong, "is_valid": np.ones(len(start), bool),
    }  # fmt: skip


def _behavior(
    rng: np.random.Generator, times: np.ndarray, trials: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The wheel's speed (S,) in rad/s, and what drives the neurons (S, K)."""
    wheel, stimulus = np.zeros(len(times)), np.zeros(len(times))
    for on, onset, side, choice in zip(
        *(trials[name] for name in ("stim_on_time", "movement_onset_time", "stimulus_side", "choice")), strict=True
    ):
        move = slice(*np.searchsorted(times, [onset, onset + 0.4]))
        wheel[move] += (1 if choice else -1) * 3 * np.sin(np.pi * (times[move] - onset) / 0.4)
        shown = slice(*np.searchsorted(times, [on + 0.04, on + 0.8]))
        stimulus[shown] += side * np.exp(-(times[shown] - on) / 0.3)
    slow = slow_noise(rng, len(times), 3, 250.0)
    return wheel, np.concatenate([wheel[:, None] / 2, np.abs(wheel[:, None]) / 2, stimulus[:, None], slow], axis=1)


def _units(ids: np.ndarray, spikes: list[np.ndarray], end_s: float) -> Any:
    """The units' table, with the sets that co-smoothing holds out by the benchmark's rule."""
    n = len(ids)
    columns = {HELD_OUT.format(split): held_out_units(ids.tolist(), split) for split in ("val", "test")}
    return import_temporaldata().ArrayDict(
        id=ids, firing_rate=np.array([len(times) / end_s for times in spikes]), label=np.ones(n),
        probe_id=np.where(np.arange(n) < n // 2, "probe00", "probe01"),
        region_beryl=np.where(np.arange(n) < n // 2, "CP", "MOs"), **columns,
    )  # fmt: skip
