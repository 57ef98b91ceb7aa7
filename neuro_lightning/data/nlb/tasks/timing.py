"""A simulated session of the timing dataset dmfc_rsg: ready, set, go (Sohn et al., Neuron 2019).

The population's state runs through the same path in every trial, faster for shorter intervals; so the speed of its
rates predicts when the animal will act.
"""

from __future__ import annotations

import numpy as np

from neuro_lightning.data.nlb.tasks.common import (
    Session,
    assign_conditions,
    bump,
    segment_sizes,
    sigmoid,
    slow_noise,
    steps,
    trial_table,
    whole_steps,
)
from neuro_lightning.data.nlb.tasks.population import Block

SHORT_MS = (480.0, 560.0, 640.0, 720.0, 800.0)
LONG_MS = (800.0, 900.0, 1000.0, 1100.0, 1200.0)


def ready_set_go(rng: np.random.Generator, n_trials: int, *, n_conditions: int) -> Session:
    """Measure the interval between two cues and reproduce it, by eye or by hand, to the left or to the right.

    Args:
        rng: the generator of trials.
        n_trials: number of trials B. One in twenty is an outlier.
        n_conditions: 40, or 16 with two intervals of each prior instead of five.
    """
    n_intervals = n_conditions // 8
    condition, split = assign_conditions(rng, n_trials, n_conditions)
    outlier = np.zeros(n_trials, bool)
    outlier[rng.permutation(n_trials)[: n_trials // 20]] = True
    rows, blocks, clock, first = [], [], 0, 0
    for size in segment_sizes(n_trials, 6):
        begin, latents = clock, []
        for k in range(first, first + size):
            row = _trial(rng, clock, int(condition[k]), n_intervals, bool(outlier[k]))
            row["split"] = split[k]
            latents.append(_latents(rng, row, clock))
            clock += row.pop("length_ms")
            rows.append(row)
        first += size
        blocks.append(Block(begin, np.concatenate(latents).astype(np.float32)))
        clock += 4000
    trials = trial_table(rows)
    return Session(trials, blocks, 1000 * trials["go_time"])


def _trial(rng: np.random.Generator, clock: int, condition: int, n_intervals: int, outlier: bool) -> dict:
    """One row of the trial table; events fall on half milliseconds."""
    condition, k = divmod(condition, n_intervals)
    is_eye, left, is_short = bool(condition & 1), bool(condition & 2), bool(condition & 4)
    ts = (SHORT_MS if is_short else LONG_MS)[k if n_intervals == 5 else 1 + 2 * k]
    prior = np.mean(SHORT_MS if is_short else LONG_MS)
    tp = (0.8 * ts + 0.2 * prior) * rng.normal(1, 0.09) * (rng.choice([0.35, 1.5]) if outlier else 1)
    tp = _half_ms(np.clip(tp, 150, 1450))
    gaps = [200, rng.uniform(150, 400), rng.uniform(500, 900), rng.uniform(500, 1000)]
    fix_on, fix, target_on, ready = (_half_ms(v) for v in np.cumsum(gaps))
    go = ready + ts + tp
    acquired, length = go + _half_ms(rng.uniform(60, 200)), whole_steps(go + 700)
    at = lambda ms: (clock + ms) / 1000  # noqa: E731
    return {
        "start_time": clock / 1000,
        "stop_time": at(length),
        "go_time": at(go),
        "split": "train",
        "fix_on_time": at(fix_on),
        "fix_time": at(fix),
        "target_on_time": at(target_on),
        "ready_time": at(ready),
        "set_time": at(ready + ts),
        "target_acq_time": at(acquired),
        "reward_time": np.nan if outlier else at(acquired + 50),
        "bad_time": at(acquired + 50) if outlier else np.nan,
        "is_short": is_short,
        "is_eye": is_eye,
        "theta": 180.0 if left else 0.0,
        "ts": ts,
        "tp": tp,
        "fix_time_dur": target_on - fix,
        "target_time_dur": ready - target_on,
        "iti": float(rng.choice([500, 1220])),
        "reward_dur": 0.0 if outlier else _half_ms(rng.uniform(60, 140)),
        "is_outlier": outlier,
        "length_ms": length,
    }


def _half_ms(ms: float) -> float:
    return round(2 * float(ms)) / 2


def _latents(rng: np.random.Generator, row: dict, clock: int) -> np.ndarray:
    """(S, D) the paths from ready to set and from set to go, the context, and the movement."""
    t = steps(row["length_ms"])
    ready, set_, go = (1000 * row[k] - clock for k in ("ready_time", "set_time", "go_time"))
    mean = np.mean(SHORT_MS if row["is_short"] else LONG_MS)
    measured = np.clip((t - ready) / mean, 0, 1.4) * (1 - sigmoid(t, set_ + 30, 20))
    phase = np.pi * np.clip((t - set_) / row["tp"], 0, 1)
    running = sigmoid(t, set_, 20) * (1 - sigmoid(t, go + 120, 30))
    path = [running * f(k * phase) for k in (1, 2) for f in (np.cos, np.sin)]
    shown = sigmoid(t, 1000 * row["target_on_time"] - clock + 80, 30)
    sides = np.array([row["is_eye"], row["theta"] > 0, row["is_short"]]) * 2.0 - 1
    context = 0.5 * np.stack([np.ones_like(t), shown, np.ones_like(t)], axis=1) * sides
    acts = np.stack([bump(t, go + 40, 60), sides[1] * bump(t, go, 70), bump(t, ready + 80, 50)], axis=1)
    noise = 0.4 * slow_noise(rng, len(t), 2, 120)
    return np.column_stack([measured, *path, context, acts, noise])
