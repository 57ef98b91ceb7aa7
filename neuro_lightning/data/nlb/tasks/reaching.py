"""Simulated sessions of the three reaching datasets: the maze, random targets (RTT) and bumps (area 2).

The tasks are those of Churchland et al., Neuron 2010 (maze), O'Doherty et al., Zenodo 2017 (random targets) and
Chowdhury et al., eLife 2020 (bumps). Latent variables lead the hand (in motor cortex) or follow it (in area 2).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from neuro_lightning.data.nlb.tasks.common import (
    BehaviorSeries,
    Session,
    assign_conditions,
    bump,
    min_jerk,
    rotations,
    segment_sizes,
    sigmoid,
    slow_noise,
    steps,
    whole_steps,
)
from neuro_lightning.data.nlb.tasks.population import STEP_MS, Block

SETTLE_MS = 720
"""Recording after movement onset: the window, the forward window and some slack."""


def _reach(t: np.ndarray, onset: float, duration: float, angle: float, length: float, curve: float) -> np.ndarray:
    """(S, 2) velocity per ms of a movement of ``length`` towards ``angle``, bowed sideways by ``curve``."""
    along = length * min_jerk(t, onset, duration)
    half = duration / 2
    across = length * curve * (min_jerk(t, onset, half) - min_jerk(t, onset + half, half)) / 2
    return np.stack(
        [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], axis=1
    )


def _integrate(velocity: np.ndarray) -> np.ndarray:
    """Position from velocity per s at 1 kHz."""
    return np.cumsum(velocity, axis=0) / 1000


# --- maze ----------------------------------------------------------------------------------------------------


def maze(
    rng: np.random.Generator, n_trials: int, *, n_conditions: int, lag_ms: int, trial_ms: float | None = None
) -> Session:
    """Delayed reaches to targets behind barriers: three versions of each maze.

    Args:
        rng: the generator of trials.
        n_trials: number of trials B.
        n_conditions: a multiple of three, at most 108.
        lag_ms: by how much the neurons lead the hand.
        trial_ms: mean time from a trial's start to the next; by default about 2.1 s.
    """
    condition, split = assign_conditions(rng, n_trials, n_conditions)
    geometry = np.random.default_rng(7)  # the mazes are the same in every session, whatever its seed
    angles, lengths = geometry.uniform(0, 2 * np.pi, 36), geometry.uniform(80, 130, 36)
    curves = geometry.uniform(0.5, 1.1, 36) * geometry.choice([-1, 1], 36)
    extra_ms = 0 if trial_ms is None else max(0, int(trial_ms) - 2070)

    rows, blocks, velocities, samples, clock = [], [], [], [], 0
    for c in condition:
        kind, version = divmod(int(c), 3)
        row = _maze_times(rng, clock, extra_ms)
        onset, stop = row["move_onset_ms"] - clock, row["stop_ms"] - clock
        angle = angles[kind] + rng.normal(0, 0.06)
        length, duration = lengths[kind] * rng.normal(1, 0.07), rng.normal(420, 35)
        reach = (duration, angle, length, (0.0, 1.0, 0.6)[version] * curves[kind])
        t = steps(stop)
        velocity_ahead = 1000 * _reach(t, onset - lag_ms, *reach)
        planned = sigmoid(t, row["target_on_ms"] - clock + 90, 25) * (1 - sigmoid(t, onset + 20, 25))
        plan = planned[:, None] * [np.cos(angle), np.sin(angle), version - 1]
        trigger = np.stack([bump(t, onset - 70, 110), bump(t, onset + 130, 90)], axis=1)
        swing = rotations(t, onset - 100, angle + version, length / 100)
        noise = 0.4 * slow_noise(rng, len(t), 2, 90) * np.abs(velocity_ahead).std()
        latents = np.hstack([velocity_ahead, 300 * plan, 300 * swing, 300 * trigger, noise])
        blocks.append(Block(clock, latents.astype(np.float32)))
        velocities.append(1000 * _reach(np.arange(stop), onset, *reach))
        samples.append(clock + np.arange(stop))
        rows.append(row | {"kind": kind, "version": version, "angle": angles[kind], "length": lengths[kind]})
        clock = row["stop_ms"] + STEP_MS * int(rng.integers(0, 14))  # the cameras rest between most trials
    velocity = np.concatenate(velocities)
    velocity += 4 * _band_noise(rng, len(velocity), 2, 40)
    return Session(
        trials=_maze_table(rows, split),
        blocks=blocks,
        series=_maze_series(rng, velocity, [len(s) for s in samples]),
        samples_ms=np.concatenate(samples),
        align_ms=np.array([r["move_onset_ms"] for r in rows], float),
    )


def _maze_times(rng: np.random.Generator, clock: int, extra_ms: int) -> dict[str, int]:
    """One trial's events in ms."""
    target_on = clock + int(rng.integers(300, 500))
    delay = int(rng.integers(0, 900)) + int(rng.uniform(0, 2 * extra_ms))
    rt = int(np.clip(rng.normal(340, 50), 220, 500))
    onset = target_on + delay + rt
    stop = clock + whole_steps(onset - clock + SETTLE_MS + int(rng.integers(0, 250)))
    return {
        "start_ms": clock,
        "stop_ms": stop,
        "target_on_ms": target_on,
        "go_cue_ms": target_on + delay,
        "move_onset_ms": onset,
        "delay": delay,
        "rt": rt,
    }


def _maze_table(rows: list[dict], split: np.ndarray) -> dict:
    """The trial table, columns as in the published train files."""
    columns = {k: np.array([r[k] for r in rows]) for k in rows[0]}
    version = columns["version"].astype(np.int64)
    n_targets = np.where(version == 2, 3, 1).astype(np.int64)
    n_barriers = np.where(version == 0, 0, 5 + columns["kind"] % 4).astype(np.int64)
    target = np.stack([columns["length"] * f(columns["angle"]) for f in (np.cos, np.sin)], axis=1).round()
    places = [np.array([t, -t, t[::-1]], np.int64)[:n] for t, n in zip(target, n_targets, strict=True)]
    barrier = np.arange(4 * 9).reshape(9, 4) * 7 % 120
    seconds = {
        "start_time": "start_ms",
        "stop_time": "stop_ms",
        "target_on_time": "target_on_ms",
        "go_cue_time": "go_cue_ms",
        "move_onset_time": "move_onset_ms",
    }
    times = {name: columns[key] / 1000 for name, key in seconds.items()}
    return {
        "start_time": times["start_time"],
        "stop_time": times["stop_time"],
        "move_onset_time": times["move_onset_time"],
        "split": split,
        "trial_type": (columns["kind"] + 1).astype(np.int64),
        "trial_version": version,
        "maze_id": (10 * columns["kind"] + 3).astype(np.int64),
        "success": np.ones(len(rows), bool),
        "target_on_time": times["target_on_time"],
        "go_cue_time": times["go_cue_time"],
        "rt": columns["rt"].astype(np.int64),
        "delay": columns["delay"].astype(np.int64),
        "num_targets": n_targets,
        "target_pos": places,
        "num_barriers": n_barriers,
        "barrier_pos": [barrier[:n].astype(np.int64) for n in n_barriers],
        "active_target": np.zeros(len(rows), np.int64),
    }


def _maze_series(rng: np.random.Generator, velocity: np.ndarray, lengths: list[int]) -> list[BehaviorSeries]:
    """Hand, cursor and eye; every trial starts at the center."""
    position = np.concatenate([_integrate(v) for v in np.split(velocity, np.cumsum(lengths)[:-1])])
    xy = ("x", "y")
    eye = position + 6 * _band_noise(rng, len(position), 2, 60)
    return [
        BehaviorSeries("cursor_pos", position + 0.2, "mm", xy, spatial=True),
        BehaviorSeries("eye_pos", eye, "mm", xy, spatial=True),
        BehaviorSeries("hand_pos", position, "mm", xy, spatial=True),
        BehaviorSeries("hand_vel", velocity, "mm/s", xy),
    ]


def _band_noise(rng: np.random.Generator, n_samples: int, n_dims: int, tau_ms: float) -> np.ndarray:
    """(S, K) low-pass noise of variance 1 at 1 kHz: tremor and measurement."""
    decay = np.exp(-1 / tau_ms)
    return lfilter([np.sqrt(1 - decay**2)], [1, -decay], rng.standard_normal((n_samples, n_dims)), axis=0)


# --- random targets ------------------------------------------------------------------------------------------


def random_targets(rng: np.random.Generator, n_trials: int, *, lag_ms: int) -> Session:
    """Self-paced reaches to random targets; the "trials" are 600 ms tiles of four continuous segments.

    Args:
        rng: the generator of trials.
        n_trials: number of tiles B.
        lag_ms: by how much the neurons lead the finger.
    """
    starts, blocks, velocities, targets, samples, clock = [], [], [], [], [], 0
    for n_tiles in segment_sizes(n_trials, 4):
        duration = 600 * n_tiles + 400
        velocity, target = _random_reaches(rng, duration + lag_ms)
        blocks.append(Block(clock, _rtt_latents(rng, velocity, target, duration, lag_ms).astype(np.float32)))
        velocities.append(velocity[:duration])
        targets.append(target[:duration])
        samples.append(clock + np.arange(duration))
        starts.append(clock + 600 * np.arange(n_tiles))
        clock += duration + 3000
    start = np.concatenate(starts)
    split = np.full(n_trials, "train", object)
    split[rng.permutation(n_trials)[: max(1, round(n_trials / 4))]] = "val"
    velocity = np.concatenate(velocities) + 3 * _band_noise(rng, sum(map(len, velocities)), 2, 40)
    position = np.concatenate([_integrate(v) for v in np.split(velocity, np.cumsum([len(v) for v in velocities])[:-1])])
    finger = np.column_stack([position, 50 + 2 * _band_noise(rng, len(position), 1, 200)])
    return Session(
        trials={"start_time": start / 1000, "stop_time": (start + 600) / 1000, "split": split},
        blocks=blocks,
        series=[
            BehaviorSeries("cursor_pos", position, "mm", ("x", "y"), spatial=True),
            BehaviorSeries("finger_pos", finger, "mm", ("x", "y", "z"), spatial=True),
            BehaviorSeries("finger_vel", velocity, "mm/s", ("x", "y")),
            BehaviorSeries("target_pos", np.concatenate(targets), "mm", ("x", "y"), spatial=True),
        ],
        samples_ms=np.concatenate(samples),
        align_ms=start.astype(float),
    )


def _random_reaches(rng: np.random.Generator, duration: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, 2) velocity (mm/s) and target (mm) at 1 kHz of reaches between targets on an 8 x 8 grid."""
    t = np.arange(duration)
    velocity, target = np.zeros((duration, 2)), np.zeros((duration, 2))
    place, now = np.zeros(2), 0
    while now < duration:
        new = 15.0 * (rng.integers(0, 8, 2) - 3.5)
        target[now:] = new
        length = rng.normal(440, 60)
        part = slice(now, min(duration, now + 900))
        velocity[part] += 1000 * min_jerk(t[part], now + rng.normal(170, 20), length)[:, None] * (new - place)
        place, now = new, now + int(rng.normal(620, 90))
    return velocity, target


def _rtt_latents(
    rng: np.random.Generator, velocity: np.ndarray, target: np.ndarray, duration: int, lag_ms: int
) -> np.ndarray:
    """(S, D) command, plan and the ringing of the command in two rotations."""
    t = steps(duration)
    command = velocity[lag_ms + t.astype(int)]
    turns = []
    for hz, tau in ((1.5, 220), (2.5, 150)):
        pole = np.exp((-1 / tau + 2j * np.pi * hz / 1000) * STEP_MS)
        ring = lfilter([STEP_MS / tau], [1, -pole], command @ [1, 1j])
        turns += [ring.real, ring.imag]
    scale = command.std()
    plan = lfilter([0.1], [1, -0.9], target[t.astype(int)], axis=0) * scale / 40
    noise = 0.5 * scale * slow_noise(rng, len(t), 2, 90)
    speed = np.linalg.norm(command, axis=1)
    return np.column_stack([command, *turns, plan, speed, noise])


# --- bumps ---------------------------------------------------------------------------------------------------

BUMP_SERIES = (
    ("force", 6, "N", ("fx", "fy", "fz", "mx", "my", "mz")),
    ("joint_ang", 7, "degrees", None),
    ("joint_vel", 7, "degrees/s", None),
)


def bumps(rng: np.random.Generator, n_trials: int, *, n_conditions: int, lag_ms: int) -> Session:
    """Center-out reaches (active) and bumps of the resting hand (passive), eight directions each.

    Beside the trials of train and val there are half as many of split ``none``: aborted ones, and ones whose
    movement onset was not found.

    Args:
        rng: the generator of trials.
        n_trials: usable trials B.
        n_conditions: 16, or 4 with two directions only.
        lag_ms: by how much the neurons lead the hand (negative: they follow).
    """
    condition, split = assign_conditions(rng, n_trials, n_conditions)
    usable = rng.permutation(np.repeat([True, False], [n_trials, n_trials // 2]))
    breaks = set(np.cumsum(segment_sizes(len(usable), 4))[:-1].tolist())
    rows, pieces, segments, clock, used, begin = [], [], [], 0, 0, 0
    for number, good in enumerate(usable):
        if number in breaks:
            segments.append((begin, clock))
            pieces.append(np.zeros((2000, 2)))
            clock += 2000
            begin = clock
        c = int(condition[used]) if good else int(rng.integers(n_conditions))
        row, velocity = _bump_trial(rng, clock, c * (16 // n_conditions), bool(good))
        row["split"] = split[used] if good else "none"
        used += good
        pieces.append(velocity)
        rows.append(row)
        clock += len(velocity)
    segments.append((begin, clock))
    velocity = np.concatenate(pieces) + 0.4 * _band_noise(rng, clock, 2, 40)
    blocks = [Block(a, _bump_latents(rng, velocity, rows, a, b, lag_ms).astype(np.float32)) for a, b in segments]
    return Session(
        trials={k: np.array([r[k] for r in rows], object if k in ("split", "result") else None) for k in rows[0]},
        blocks=blocks,
        series=_bump_behavior(rng, velocity),
        samples_ms=np.arange(clock),
        align_ms=np.array([1000 * r["move_onset_time"] for r in rows]).round(),
    )


def _bump_trial(rng: np.random.Generator, clock: int, condition: int, good: bool) -> tuple[dict, np.ndarray]:
    """One trial's row and its hand velocity (S, 2) in cm/s at 1 kHz."""
    passive, direction = condition >= 8, 45.0 * (condition % 8)
    hold = int(rng.integers(350, 600))
    aborted = not good and rng.random() < 0.5
    bump_on = hold if passive and not aborted else np.nan
    target_on = hold + (1000 if passive else 100)
    go = target_on + int(rng.integers(250, 500))
    reach_on = go + int(np.clip(rng.normal(250, 40), 150, 400))
    onset = hold + 12 if passive else reach_on
    stop = whole_steps(max(reach_on, onset) + SETTLE_MS + 60) if not aborted else whole_steps(hold + 450)
    t, target_dir = np.arange(stop), float(rng.choice(8) * 45) if passive else direction
    velocity = np.zeros((stop, 2))
    if not aborted:
        angle, jitter = np.deg2rad(target_dir), rng.normal(1, 0.08)
        velocity += 1000 * _reach(t, reach_on, rng.normal(430, 35), angle, 9 * jitter, rng.normal(0, 0.15))
        if passive:
            push, force = np.deg2rad(direction), rng.normal(1, 0.08)
            velocity += 1000 * _reach(t, onset - 5, 170, push, 4.0 * force, 0)
            velocity -= 1000 * _reach(t, onset + 140, 330, push, 4.0 * force, rng.normal(0, 0.2))
    events = {"bump_time": bump_on, "target_on_time": target_on, "go_cue_time": go, "move_onset_time": onset}
    if aborted:
        events.update(target_on_time=np.nan, go_cue_time=np.nan, move_onset_time=np.nan)
    elif not good:
        events["move_onset_time"] = np.nan
    times = {k: (clock + v) / 1000 for k, v in events.items()}
    row = {
        "start_time": clock / 1000,
        "stop_time": (clock + stop) / 1000,
        "move_onset_time": times["move_onset_time"],
        "split": "none",
        "result": rng.choice(["A", "I", "F"]) if aborted else "R",
        "ctr_hold": hold / 1000,
        "ctr_hold_bump": bool(passive and not aborted),
        "bump_dir": direction if passive and not aborted else np.nan,
        "bump_time": times["bump_time"],
        "target_on_time": times["target_on_time"],
        "target_dir": target_dir,
        "go_cue_time": times["go_cue_time"],
        "cond_dir": np.nan if aborted else direction,
    }
    return row, velocity


def _bump_latents(
    rng: np.random.Generator, velocity: np.ndarray, rows: list[dict], start: int, stop: int, lag_ms: int
) -> np.ndarray:
    """(S, D) the felt velocity, its stretch-like change, and a faster and a slower trace of it."""
    t = steps(stop - start)
    at = np.clip(start + t.astype(int) + lag_ms, 0, len(velocity) - 1)
    felt = velocity[at]
    slow, fast = (lfilter([1 - a], [1, -a], felt, axis=0) for a in (0.97, 0.8))
    speed = np.linalg.norm(fast, axis=1)
    passive = np.zeros(len(t))
    for row in rows:
        if row["ctr_hold_bump"]:
            passive += bump(t, 1000 * row["bump_time"] - start + 90, 50) if start < 1000 * row["stop_time"] else 0
    scale = felt.std()
    noise = 0.5 * scale * slow_noise(rng, len(t), 2, 90)
    return np.column_stack([felt, fast, slow, felt - fast, speed, scale * passive, noise])


def _bump_behavior(rng: np.random.Generator, velocity: np.ndarray) -> list[BehaviorSeries]:
    """Hand, force and joints, but no muscles, all from the hand; positions are pulled back to the center slowly."""
    leak = np.exp(-1 / 2000)
    position = lfilter([1e-3], [1, -leak], velocity, axis=0)
    xy = ("x", "y")
    series = [
        BehaviorSeries("hand_pos", position, "cm", xy, spatial=True, rate_based=True),
        BehaviorSeries("hand_vel", velocity, "cm/s", xy, rate_based=True),
    ]
    for name, n_columns, unit, columns in BUMP_SERIES:
        source = velocity if name.endswith("vel") or name == "force" else position
        data = source @ rng.standard_normal((2, n_columns))
        names = columns or tuple(f"{name}_{k}" for k in range(n_columns))
        series.append(BehaviorSeries(name, data, unit, names, rate_based=True))
    return series
