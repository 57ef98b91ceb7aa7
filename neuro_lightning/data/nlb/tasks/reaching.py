"""Simulated sessions of the three reaching datasets: the maze, random targets (RTT) and bumps (area 2).

The tasks are those of Churchland et al., Neuron 2010 (maze), O'Doherty et al., Zenodo 2017 (random targets) and
Chowdhury et al., eLife 2020 (bumps). Latent variables lead the hand (in motor cortex) or follow it (in area 2).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from neuro_lightning.data.nlb.tasks.common import (
    Session,
    assign_conditions,
    bump,
    min_jerk,
    rotations,
    segment_sizes,
    sigmoid,
    slow_noise,
    steps,
    trial_table,
    whole_steps,
)
from neuro_lightning.data.nlb.tasks.population import STEP_MS, Block

SETTLE_MS = 720
"""Recording after movement onset: the window, the forward window and some slack."""


DEMANDS = 6
"""How many numbers say what a maze asks for beside its target: half of them before the movement, half during it."""

PEAKS_MS = np.array([[-150, 50], [-90, 50], [-30, 55], [40, 65], [130, 85], [240, 110]])
"""When after the onset of a movement what all movements share has its peaks, and their widths."""


def _reach(t: np.ndarray, onset: float, duration: float, angle: float, length: float, curve: float) -> np.ndarray:
    """(S, 2) velocity per ms of a movement of ``length`` towards ``angle``, bowed sideways by ``curve``."""
    along = length * min_jerk(t, onset, duration)
    half = duration / 2
    across = length * curve * (min_jerk(t, onset, half) - min_jerk(t, onset + half, half)) / 2
    return np.stack(
        [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], axis=1
    )


def _band_noise(rng: np.random.Generator, n_samples: int, tau_ms: float) -> np.ndarray:
    """(S, 2) low-pass noise of variance 1 at 1 kHz: tremor and measurement."""
    decay = np.exp(-1 / tau_ms)
    return lfilter([np.sqrt(1 - decay**2)], [1, -decay], rng.standard_normal((n_samples, 2)), axis=0)


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
    demands = geometry.standard_normal((36, 1, DEMANDS)) + geometry.standard_normal((36, 3, DEMANDS))
    extra_ms = 0 if trial_ms is None else max(0, int(trial_ms) - 2070)

    rows, blocks, velocities, samples, clock = [], [], [], [], 0
    for c, part in zip(condition, split, strict=True):
        kind, version = divmod(int(c), 3)
        target_on, go, onset, stop = _maze_times(rng, extra_ms)
        angle = angles[kind] + rng.normal(0, 0.06)
        length, duration = lengths[kind] * rng.normal(1, 0.07), rng.normal(420, 35)
        reach = (duration, angle, length, (0.0, 1.0, 0.6)[version] * curves[kind])
        latents = _maze_latents(rng, steps(stop), target_on, onset, lag_ms, reach, version, demands[kind, version])
        blocks.append(Block(clock, latents.astype(np.float32)))
        velocities.append(1000 * _reach(np.arange(stop), onset, *reach))
        samples.append(clock + np.arange(stop))
        row = {
            "start_time": clock / 1000,
            "stop_time": (clock + stop) / 1000,
            "move_onset_time": (clock + onset) / 1000,
            "split": part,
            "trial_type": kind + 1,
            "trial_version": version,
            "target_on_time": (clock + target_on) / 1000,
            "go_cue_time": (clock + go) / 1000,
        }
        rows.append(row)
        clock += stop + STEP_MS * int(rng.integers(0, 14))  # the cameras rest between most trials
    velocity = np.concatenate(velocities)
    velocity += 4 * _band_noise(rng, len(velocity), 40)
    trials = trial_table(rows)
    return Session(trials, blocks, (1000 * trials["move_onset_time"]).round(), velocity, np.concatenate(samples))


def _maze_latents(
    rng: np.random.Generator,
    t: np.ndarray,
    target_on: int,
    onset: float,
    lag_ms: int,
    reach: tuple[float, float, float, float],
    version: int,
    demands: np.ndarray,
) -> np.ndarray:
    """(S, D) command, plan, the maze's demands, rotations, what all movements share, slow fluctuations."""
    onset += rng.normal(0, 15)  # the hand's onset tells the neurons' to within some 15 ms
    _, angle, length, _ = reach
    command = _reach(t, onset - lag_ms, *reach)
    shown = sigmoid(t, target_on + 90, 25) * (1 - sigmoid(t, onset + 550, 60))
    moves = sigmoid(t, onset - 60, 35)
    plan = (shown * (1 - 0.6 * moves))[:, None] * [np.cos(angle), np.sin(angle), version - 1]
    before, during = np.split(demands, 2)
    asked = [(shown * (1 - 0.5 * moves))[:, None] * before, (shown * moves)[:, None] * during]
    swing = rotations(t, onset - 100, angle + version, length / 100)
    shared = np.column_stack([shown * moves, *(bump(t, onset + at, width) for at, width in PEAKS_MS)])
    return np.hstack([command, plan, *asked, swing, shared, slow_noise(rng, len(t), 4, 90)])


def _maze_times(rng: np.random.Generator, extra_ms: int) -> tuple[int, int, int, int]:
    """When the target, the go cue and the movement come and the trial ends, ms from its start."""
    target_on = int(rng.integers(300, 500))
    go = target_on + int(rng.integers(0, 900)) + int(rng.uniform(0, 2 * extra_ms))
    onset = go + int(np.clip(rng.normal(340, 50), 220, 500))
    return target_on, go, onset, whole_steps(onset + SETTLE_MS + int(rng.integers(0, 250)))


# --- random targets ------------------------------------------------------------------------------------------


def random_targets(rng: np.random.Generator, n_trials: int, *, lag_ms: int) -> Session:
    """Self-paced reaches to random targets; the "trials" are 600 ms tiles of four continuous segments.

    Args:
        rng: the generator of trials.
        n_trials: number of tiles B.
        lag_ms: by how much the neurons lead the finger.
    """
    starts, blocks, velocities, samples, clock = [], [], [], [], 0
    for n_tiles in segment_sizes(n_trials, 4):
        duration = 600 * n_tiles + 400
        velocity, target = _random_reaches(rng, duration + lag_ms)
        blocks.append(Block(clock, _rtt_latents(rng, velocity, target, duration, lag_ms).astype(np.float32)))
        velocities.append(velocity[:duration])
        samples.append(clock + np.arange(duration))
        starts.append(clock + 600 * np.arange(n_tiles))
        clock += duration + 3000
    start = np.concatenate(starts)
    split = np.full(n_trials, "train", object)
    split[rng.permutation(n_trials)[: max(1, round(n_trials / 4))]] = "val"
    velocity = np.concatenate(velocities) + 3 * _band_noise(rng, sum(map(len, velocities)), 40)
    trials = {"start_time": start / 1000, "stop_time": (start + 600) / 1000, "split": split}
    return Session(trials, blocks, start.astype(float), velocity, np.concatenate(samples))


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
    velocity = np.concatenate(pieces) + 0.4 * _band_noise(rng, clock, 40)
    blocks = [Block(a, _bump_latents(rng, velocity, rows, a, b, lag_ms).astype(np.float32)) for a, b in segments]
    trials = trial_table(rows)
    return Session(trials, blocks, (1000 * trials["move_onset_time"]).round(), velocity)


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
