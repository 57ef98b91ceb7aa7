"""Simulated twins of the Neural Latents Benchmark's datasets: NWB files in the layout of the published ones.

Names, tables, dtypes, observed intervals, gaps in the behavior's clock, unusable trials: all as in the files on DANDI
(https://neurallatents.github.io), so that a twin is read as the real recording is. Trial columns and series that
neither our reader nor the benchmark's code reads are left out. The spikes are Poisson, driven by low-dimensional
dynamics that follow the simulated behavior; the file says that it is simulated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from neuro_lightning.data.nlb.params import NLB_DATASETS, NLBParams, get_params
from neuro_lightning.data.nlb.tasks.common import Session
from neuro_lightning.data.nlb.tasks.population import TICKS_PER_MS, Population
from neuro_lightning.data.nlb.tasks.reaching import bumps, maze, random_targets
from neuro_lightning.data.nlb.tasks.timing import ready_set_go
from neuro_lightning.data.nlb.twin_file import Units, write_nwb
from neuro_lightning.data.twin_files import write_file
from neuro_lightning.errors import ConfigError

VERSION = 3
"""Raised whenever a seed gives other content than before, so that older files are written anew."""

MEAN_RATE_HZ = {"mc_maze": 4.2, "mc_maze_large": 5.1, "mc_maze_medium": 4.1, "mc_maze_small": 4.4, "mc_rtt": 4.0,
                "area2_bump": 7.2, "dmfc_rsg": 9.5}  # fmt: skip
"""Of the published test files: counted in mc_maze, medium and small; of the others estimated from the file's size."""

DEFAULT_TRIALS = {"mc_rtt": 240, "dmfc_rsg": 160}


def write_twin(
    dataset: str,
    folder: str | Path,
    *,
    seed: int = 0,
    n_trials: int | None = None,
    n_test_trials: int | None = None,
    n_units: tuple[int, int] | None = None,
    mean_rate_hz: float | None = None,
    trial_ms: float | None = None,
) -> tuple[Path, Path]:
    """Write a simulated train and test file, or find the very ones that an earlier call has written.

    Args:
        dataset: one of the benchmark's seven.
        folder: the files go to ``<folder>/<dandiset>/sub-X/``, as ``dandi download`` lays them.
        seed: the same seed and arguments give the same content.
        n_trials: trials of train and val together.
        n_test_trials: trials of the test file; by default a quarter of ``n_trials``.
        n_units: held-in and held-out units; by default as many as in the published file.
        mean_rate_hz: mean firing rate; by default that of the published file.
        trial_ms: mean length of a maze trial, about 2,070 ms by default: the published session of 2,295 trials takes
            3,000 ms each.

    Returns:
        The train and the test file's path.

    Raises:
        ConfigError: an unknown dataset, or sizes that no twin can have.
        DataError: the folder cannot be written to.
    """
    params = get_params(dataset)
    n_trials = DEFAULT_TRIALS.get(dataset, 120) if n_trials is None else n_trials
    n_test_trials = max(4, n_trials // 4) if n_test_trials is None else n_test_trials
    n_in, n_out = (params.n_in, params.n_out) if n_units is None else n_units
    mean_rate_hz = MEAN_RATE_HZ[dataset] if mean_rate_hz is None else mean_rate_hz
    most = 96 * 5 * (2 if dataset.startswith("mc_maze") else 1)
    enough = n_trials >= 8 and n_test_trials >= 1 and min(n_in, n_out) >= 1 and n_in + n_out <= most
    if not enough or not 0 < mean_rate_hz <= 100:
        raise ConfigError(
            f"a twin of {dataset} has n_trials >= 8, n_test_trials >= 1, n_units of both kinds, {most} at most, and a "
            f"mean_rate_hz above 0, 100 at most, not {n_trials}, {n_test_trials}, {(n_in, n_out)} and {mean_rate_hz}"
        )
    recipe = {
        "twin": VERSION, "dataset": dataset, "seed": seed, "n_trials": n_trials, "n_test_trials": n_test_trials,
        "n_units": [n_in, n_out], "mean_rate_hz": mean_rate_hz, "trial_ms": trial_ms,
    }  # fmt: skip
    note = json.dumps(recipe, sort_keys=True)
    base = Path(folder).expanduser() / params.dandiset
    train_path, test_path = base / params.train.path, base / params.test.path
    if _note(train_path) == note == _note(test_path):
        return train_path, test_path

    train, test, ids, heldout, population = _simulate(params, recipe)
    spikes = population.spike_ticks(_generator(recipe, 3), train.blocks)
    units = Units(ids, heldout, _seconds(spikes), _observed_intervals(train))
    test_units, table = _test_units(params, ids, heldout, test, population, _generator(recipe, 4))
    about = f"Simulated twin of {params.name}: no animal was recorded."
    for path, *content in ((train_path, units, train), (test_path, test_units, Session(table, []))):
        write_file(path, lambda part, content=content: write_nwb(part, params, *content, about, note))
    return train_path, test_path


def _note(path: Path) -> str | None:
    """How a twin was made, in its own words; None where there is no such file or it cannot be read."""
    import h5py

    with suppress(OSError, KeyError), h5py.File(path, "r") as file:
        return file["general/notes"][()].decode()
    return None


def _generator(recipe: dict, purpose: int) -> np.random.Generator:
    """A generator for one purpose: every dataset and seed has its own numbers."""
    return np.random.default_rng([recipe["seed"], list(NLB_DATASETS).index(recipe["dataset"]), purpose])


def _simulate(params: NLBParams, recipe: dict) -> tuple[Session, Session, np.ndarray, np.ndarray, Population]:
    """The two sessions and the units that fire in both."""
    n_in, n_out = recipe["n_units"]
    task = _task(params, recipe)
    train = task(_generator(recipe, 0), recipe["n_trials"])
    test = task(_generator(recipe, 1), recipe["n_test_trials"])
    rng = _generator(recipe, 2)
    ids = _unit_ids(rng, params.name, n_in + n_out)
    heldout = rng.permutation(np.repeat([False, True], [n_in, n_out]))
    return train, test, ids, heldout, Population(rng, train.blocks, n_in + n_out, recipe["mean_rate_hz"])


def _task(params: NLBParams, recipe: dict) -> Callable[[np.random.Generator, int], Session]:
    """The dataset's task; it has as many conditions as the train file has trials to repeat them at least four times."""
    n_trials = recipe["n_trials"]
    if params.name == "mc_rtt":
        return partial(random_targets, lag_ms=params.lag)
    if params.name == "dmfc_rsg":
        return partial(ready_set_go, n_conditions=40 if n_trials >= 200 else 16)
    if params.name == "area2_bump":
        n_conditions = 16 if n_trials >= 64 else 4
        return partial(bumps, n_conditions=n_conditions, lag_ms=params.lag)
    n_conditions = 3 * int(np.clip(n_trials // 15, 1, 36 if params.name == "mc_maze" else 9))
    return partial(maze, n_conditions=n_conditions, lag_ms=params.lag, trial_ms=recipe["trial_ms"])


def _unit_ids(rng: np.random.Generator, dataset: str, n_units: int) -> np.ndarray:
    """Unit numbers in rising order, on randomly chosen electrodes."""
    n_electrodes = {"dmfc_rsg": 72}.get(dataset, 96)
    arrays = (1000, 2000) if dataset.startswith("mc_maze") else (0,)
    possible = np.array([a + 10 * e + u for a in arrays for e in range(1, n_electrodes + 1) for u in range(1, 6)])
    likely = 0.5 ** (possible % 10)  # an electrode's first unit is found more often than its fifth
    chosen = rng.choice(possible, min(n_units, len(possible)), replace=False, p=likely / likely.sum())
    return np.sort(chosen).astype(np.int32 if dataset == "dmfc_rsg" else np.int64)


def _seconds(ticks: list[np.ndarray]) -> list[np.ndarray]:
    """Ticks of the recorder's clock in s, to the microsecond as in the published files."""
    return [(t / (1000 * TICKS_PER_MS)).round(6) for t in ticks]


def _observed_intervals(session: Session) -> np.ndarray:
    """(k, 2) s: each trial in the maze, each uninterrupted stretch elsewhere."""
    return np.array([[block.start_ms, block.stop_ms] for block in session.blocks]) / 1000


def _test_units(
    params: NLBParams,
    ids: np.ndarray,
    heldout: np.ndarray,
    session: Session,
    population: Population,
    rng: np.random.Generator,
) -> tuple[Units, dict[str, np.ndarray]]:
    """The test trials' windows, cut out and put one after the other, 100 ms apart; held-in units only.

    Returns:
        ``(units, trials)``: the units and the trial table's columns.
    """
    align = session.align_ms[np.isfinite(session.align_ms)]
    cut_from = np.round((align + params.window[0]) * TICKS_PER_MS).astype(np.int64)
    length, period = params.window_ms * TICKS_PER_MS, (params.window_ms + 100) * TICKS_PER_MS
    starts = np.arange(len(align)) * period
    spikes = []
    for unit, ticks in enumerate(population.spike_ticks(rng, session.blocks)):
        if heldout[unit]:
            continue
        bounds = np.searchsorted(ticks, [cut_from, cut_from + length])
        parts = [ticks[a:b] - c + s for a, b, c, s in zip(*bounds, cut_from, starts, strict=True)]
        spikes.append(np.concatenate(parts))
    start = starts / (1000 * TICKS_PER_MS)
    stop = (start + params.window_ms / 1000).round(6)
    table = {"start_time": start, "stop_time": stop}
    if params.align != "start_time":
        table[params.align] = (start - params.window[0] / 1000).round(6)
    table["split"] = np.full(len(align), "test", object)
    units = Units(ids[~heldout], np.zeros((~heldout).sum(), bool), _seconds(spikes), np.stack([start, stop], axis=1))
    return units, table
