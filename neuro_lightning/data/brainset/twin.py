"""Simulated brainsets files: reaches to eight targets, in the layout that torch_brain's pipelines write.

Sessions of one seed share targets and dynamics; each has trials and neurons of its own. The neurons, on two probes, are
tuned to the planned direction, the hand's velocity and slow fluctuations. The recording pauses once, and ends within
the last trial.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.brainset.temporal import import_temporaldata, save, to_spikes
from neuro_lightning.data.nlb.tasks.common import min_jerk, slow_noise
from neuro_lightning.data.nlb.tasks.population import STEP_MS, TICKS_PER_MS, Block, Population
from neuro_lightning.data.twin_files import write_twin_files
from neuro_lightning.errors import ConfigError

VERSION = 2
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

TARGETS = 8
REACH_CM = 8.0
PAUSE_S = 5.0
GAP_S = 0.3


def write_twin(
    folder: str | Path,
    *,
    seed: int = 0,
    n_sessions: int = 1,
    n_trials: int = 120,
    n_units: int = 48,
    mean_rate_hz: float = 10.0,
) -> list[Path]:
    """Write simulated sessions, or find the very ones that an earlier call has written.

    Args:
        folder: where to.
        seed: the same seed and arguments give the same content.
        n_sessions: how many files.
        n_trials: trials of each.
        n_units: neurons of each.
        mean_rate_hz: mean firing rate.

    Returns:
        The files.

    Raises:
        ConfigError: sizes that no session can have.
        DataError: ``temporaldata`` is not installed, or the folder cannot be written to.
    """
    if n_sessions < 1 or n_trials < 10 or n_units < 4 or not 0 < mean_rate_hz <= 100:
        raise ConfigError(
            "a simulated brainset has at least 1 session, 10 trials and 4 units and a mean rate of at most 100 Hz, not "
            f"{n_sessions}, {n_trials}, {n_units} and {mean_rate_hz}"
        )
    recipe = {"twin": VERSION, "seed": seed, "n_trials": n_trials, "n_units": n_units, "mean_rate_hz": mean_rate_hz}
    names = [f"day_{number}.h5" for number in range(1, n_sessions + 1)]

    def simulate() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        sessions = {name: simulate_session(recipe, number) for number, name in enumerate(names, start=1)}
        return {name: partial(save, data) for name, data in sessions.items()}, {}

    folder = write_twin_files(folder, {**recipe, "n_sessions": n_sessions}, simulate)
    return [folder / name for name in names]


def simulate_session(recipe: dict[str, Any], number: int) -> Any:
    """One session as a ``Data`` of ``temporaldata``.

    Args:
        recipe: ``seed``, ``n_trials``, ``n_units`` and ``mean_rate_hz``.
        number: of the session.
    """
    td = import_temporaldata()
    rng = np.random.default_rng([recipe["seed"], number])
    trials, pause = _trials(rng, recipe["n_trials"])
    # the last trial is not over when the recording ends
    edges_s = np.array([[0.0, pause], [pause + PAUSE_S, np.round(trials["go_cue_time"][-1] + 0.2, 2)]])
    domain = td.Interval(start=edges_s[:, 0], end=edges_s[:, 1])
    steps = [np.arange(round(a * 1000) // STEP_MS, round(b * 1000) // STEP_MS) * STEP_MS / 1000 for a, b in edges_s]
    velocity = [_velocity(step, trials) for step in steps]
    latents = [np.concatenate([v / 20, _plan(s, trials), slow_noise(rng, len(s), 2, 120.0)], axis=1)
               for v, s in zip(velocity, steps, strict=True)]  # fmt: skip
    blocks = [Block(round(s[0] * 1000), x) for s, x in zip(steps, latents, strict=True)]
    population = Population(rng, blocks, recipe["n_units"], recipe["mean_rate_hz"])
    spikes = [ticks / (1000 * TICKS_PER_MS) for ticks in population.spike_ticks(rng, blocks)]
    every = 10 // STEP_MS  # 100 Hz
    times, velocity = (np.concatenate([part[::every] for part in parts]) for parts in (steps, velocity))
    cursor = td.IrregularTimeSeries(
        timestamps=times, vel=velocity, pos=np.cumsum(velocity * 0.01, axis=0), domain=domain
    )
    pupil = 3 + 0.2 * slow_noise(rng, round(edges_s[0, 1] * 50), 1, 500.0)  # the camera stops at the pause
    table = td.Interval(timekeys=["start", "end", "target_on_time", "go_cue_time"], **trials)
    valid, test = _split(rng, table)
    data = td.Data(
        brainset=td.Data(
            id="neuro_lightning_simulated", derived_version=str(VERSION), description="Simulated: no animal moved."
        ),
        session=td.Data(id=f"seed_{recipe['seed']}_day_{number}", task="REACHING"),
        subject=td.Data(id="nobody", species="MACACA_MULATTA"),
        spikes=to_spikes(spikes, domain),
        units=_units(number, population, spikes),
        trials=table,
        cursor=cursor,
        pupil=td.RegularTimeSeries(sampling_rate=50.0, domain_start=0.0, diameter=pupil[:, 0]),
        simulated=True,
        notes=json.dumps({**recipe, "session": number}, sort_keys=True),
        domain=domain,
    )
    reach = table.select_by_mask(table.is_valid)
    data.movement_phases = td.Data(
        hold_period=td.Interval(start=reach.target_on_time, end=reach.go_cue_time),
        reach_period=td.Interval(start=reach.go_cue_time, end=reach.end),
        domain="auto",
    )
    data.train_domain = domain.difference((valid | test).dilate(GAP_S / 2))
    data.valid_domain, data.test_domain = valid, test
    return data


def _trials(rng: np.random.Generator, n_trials: int) -> tuple[dict[str, np.ndarray], float]:
    """The columns of the trial table, times in s, and when the recording pauses."""
    hold, reach = rng.uniform(0.3, 0.6, n_trials).round(3), rng.uniform(0.7, 0.9, n_trials).round(3)
    length = 0.2 + hold + reach
    start = 0.5 + np.concatenate([[0.0], np.cumsum(length + GAP_S)[:-1]])
    pause = float(np.round(start[n_trials // 2] - GAP_S / 2, 2))
    start[n_trials // 2 :] += PAUSE_S
    success = rng.random(n_trials) < 0.95
    columns = {
        "start": start,
        "end": start + length,
        "target_on_time": start + 0.2,
        "go_cue_time": start + 0.2 + hold,
        "target_id": rng.permutation(np.arange(n_trials) % TARGETS),
        "result": np.where(success, "R", "F"),
        "is_valid": success,
    }
    return {name: c.round(4) if c.dtype.kind == "f" else c for name, c in columns.items()}, pause


def _angle(trials: dict[str, np.ndarray]) -> np.ndarray:
    return trials["target_id"] * 2 * np.pi / TARGETS


def _velocity(times: np.ndarray, trials: dict[str, np.ndarray]) -> np.ndarray:
    """(S, 2) the cursor's velocity in cm/s: out and back in each trial."""
    velocity = np.zeros((len(times), 2))
    for go, angle in zip(trials["go_cue_time"], _angle(trials), strict=True):
        some = slice(*np.searchsorted(times, [go, go + 0.9]))
        ms = (times[some] - go) * 1000
        speed = REACH_CM * 1000 * (min_jerk(ms, 150, 300) - min_jerk(ms, 500, 300))
        velocity[some] += speed[:, None] * [np.cos(angle), np.sin(angle)]
    return velocity


def _plan(times: np.ndarray, trials: dict[str, np.ndarray]) -> np.ndarray:
    """(S, 2) the direction that is planned, from the target's onset to the movement."""
    plan = np.zeros((len(times), 2))
    for on, go, angle in zip(trials["target_on_time"], trials["go_cue_time"], _angle(trials), strict=True):
        some = slice(*np.searchsorted(times, [on + 0.05, go + 0.3]))
        plan[some] = [np.cos(angle), np.sin(angle)]
    return plan


def _units(number: int, population: Population, spikes: list[np.ndarray]) -> Any:
    """The units' table: names that say the probe, and waveforms, which nobody reads."""
    n, half = population.n_units, population.n_units // 2
    probe = np.where(np.arange(n) < half, "M1", "PMd")
    return import_temporaldata().ArrayDict(
        id=np.array([f"day{number}/group_{group}/elec{k}/unit_{k}" for k, group in enumerate(probe)]),
        unit_number=np.arange(n),
        count=np.array([len(times) for times in spikes]),
        area_name=probe,
        average_waveform=np.zeros((n, 48), np.float32),
    )


def _split(rng: np.random.Generator, table: Any) -> tuple[Any, Any]:
    """A fifth of the valid trials each to validate and to test."""
    order = rng.permutation(np.flatnonzero(table.is_valid[:-1]))
    fifth = max(1, len(order) // 5)
    parts = np.zeros((2, len(table)), bool)
    parts[0, order[:fifth]] = parts[1, order[fifth : 2 * fifth]] = True
    plain = import_temporaldata().Interval(start=table.start, end=table.end)
    return plain.select_by_mask(parts[0]), plain.select_by_mask(parts[1])
