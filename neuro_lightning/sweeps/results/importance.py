"""Which of a sweep's keys decide its objective, as far as the sweep can tell.

A random forest learns the ranking of the settings from the values of their keys. How well it does so is measured on
settings that its trees have not seen (*out of bag*): R², the share of the ranking's variance that it explains. The
importance of a key is half of what R² loses when the key's values are shuffled between those settings (Breiman 2001,
Random Forests, Machine Learning 45): where keys are independent, the share of the variance that is gone once the key is
fixed, its interactions included (the total-effect index of Sobol; Homma & Saltelli 1996). Ranks make a setting that
broke down no worse than the last.

Read it so: among *these* settings, 0.6 of the ranking's variance hangs on this key. It says nothing of the direction;
a key whose values were all good has none; and two keys that a search has moved together share what belongs to one. Of
adaptive searches it speaks of the region that they went to: Optuna's fANOVA answers a different question, the variance
over the whole box of the space, most of which a good search never visits.

It is not to be trusted with few settings, so below :data:`MIN_SETTINGS` none is shown; nor where the forest does not
predict settings that it has not seen (R² below 4 / n of n settings, and below :data:`MIN_R2` of any number): then
either nothing matters, or the seeds' spread is larger than the settings' effect. Seeds are noise: a setting counts
once, with its mean, weighted by its seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuro_lightning.sweeps.results.collect import Job, varied
from neuro_lightning.sweeps.results.summary import REPEATS

if TYPE_CHECKING:
    import numpy as np

MIN_SETTINGS = 8
MIN_R2 = 0.2
TREES = 200
REPEATS_OF_SHUFFLING = 8
DECADE = 10.0


@dataclass(frozen=True)
class Importance:
    """What mattered.

    Attributes:
        shares: of the ranking's variance, by key, the largest first, not below 0; empty where not to be trusted.
        r2: of the forest, on settings that its trees have not seen; None where it was not fitted.
        n: settings that it learned from.
        remark: how to read it, or why there is none.
    """

    shares: dict[str, float] = field(default_factory=dict)
    r2: float | None = None
    n: int = 0
    remark: str = ""


def importance(jobs: list[Job]) -> Importance | None:
    """The importance of the keys that differ between a sweep's finished jobs.

    Args:
        jobs: from :func:`~neuro_lightning.sweeps.results.collect.collect`; of one dataset.

    Returns:
        None where nothing but the seed differs.
    """
    keys, settings, scores, seeds = scored_settings(jobs)
    if not keys:
        return None
    n = len(settings)
    if n < MIN_SETTINGS:
        return Importance(n=n, remark=f"it takes {MIN_SETTINGS} settings that finished, and there are {n}")
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(scores) / n
    if np.ptp(ranks) == 0:
        return Importance(n=n, remark="all settings score the same")
    columns = {key: encode([setting.get(key) for setting in settings]) for key in keys}
    r2, lost = _forest(columns, ranks, np.asarray(seeds, float))
    if r2 < max(MIN_R2, 4 / n):  # chance foretells few settings well now and then
        return Importance(
            r2=r2, n=n,
            remark=f"from their keys, the ranking of settings cannot be foretold (R² {r2:.2f} on settings left out, of "
            f"{n}): nothing here matters more than chance does, or there are too few jobs to tell",
        )  # fmt: skip
    shares = dict(sorted(((key, max(value, 0.0)) for key, value in lost.items()), key=lambda item: -item[1]))
    remark = (
        f"The share of the ranking's variance that hangs on a key, its interactions included, as a random forest sees "
        f"it; the forest explains {r2:.2f} of the ranking of settings that it has not seen, from {n} that finished."
    )
    if n < 3 * MIN_SETTINGS:
        remark += " That is few: take it as a hint."
    return Importance(shares, r2, n, remark)


def scored_settings(jobs: list[Job]) -> tuple[list[str], list[dict[str, Any]], list[float], list[int]]:
    """The settings of the jobs that finished, with typed values.

    Args:
        jobs: from :func:`~neuro_lightning.sweeps.results.collect.collect`.

    Returns:
        The keys that differ, but for the seed; and for each setting its values by key, its mean objective and the
        number of its jobs.
    """
    done = [job for job in jobs if job["status"] == "finished" and job["objective"] is not None]
    keys = [key for key in varied(done) if key not in REPEATS]
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in done:
        groups.setdefault(tuple(str(job["overrides"].get(key, "")) for key in keys), []).append(job)
    settings = [{key: group[0]["overrides"].get(key) for key in keys} for group in groups.values()]
    means = [math.fsum(job["objective"] for job in group) / len(group) for group in groups.values()]
    return keys, settings, means, [len(group) for group in groups.values()]


def is_number(value: Any) -> bool:
    """Whether a key's value is a number; true and false are choices."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_logarithmic(values: list[float]) -> bool:
    """Whether numbers are better compared by their logarithm: all positive, and more than chance lie decades below.

    Of numbers that are spread evenly, a tenth lies below a tenth of the largest, a hundredth below a hundredth.
    """
    if min(values) <= 0 or max(values) / min(values) < DECADE:
        return False
    below = [sum(value <= max(values) / step for value in values) / len(values) for step in (DECADE, DECADE**2)]
    return below[0] > 0.25 or (below[1] > 0.04 and below[1] * len(values) > 2)


def encode(values: list[Any]) -> np.ndarray:
    """One key as columns for a forest.

    Args:
        values: of each setting: numbers, words, true, false or None.

    Returns:
        (settings, columns): the numbers, logarithms where they span decades, and a column of 0 and 1 for each word.
        A setting without a number has the others' mean there.
    """
    import numpy as np

    numbers = [float(value) for value in values if is_number(value)]
    words = sorted({str(value) for value in values if not is_number(value)})
    columns = []
    if len(set(numbers)) > 1:
        scale = math.log if is_logarithmic(numbers) else float
        known = [scale(float(value)) if is_number(value) else math.nan for value in values]
        center = np.nanmean(known)
        columns.append([center if math.isnan(value) else value for value in known])
    columns += [[float(not is_number(value) and str(value) == word) for value in values] for word in words]
    return np.asarray(columns, float).T


def _forest(columns: dict[str, np.ndarray], target: np.ndarray, weights: np.ndarray) -> tuple[float, dict[str, float]]:
    """R² on settings out of bag, and half of what it loses without each key."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(0)
    inputs = np.concatenate(list(columns.values()), axis=1)
    ends = np.cumsum([block.shape[1] for block in columns.values()])
    blocks = {key: slice(end - columns[key].shape[1], end) for key, end in zip(columns, ends, strict=True)}
    forest = RandomForestRegressor(TREES, random_state=0)  # whole trees of all keys: settings are few
    forest.fit(inputs, target, sample_weight=weights)
    orders = [rng.permutation(len(target)) for _ in range(REPEATS_OF_SHUFFLING)]
    cases = [(None, None), *((key, order) for key in columns for order in orders)]
    total, count = np.zeros((len(cases), len(target))), np.zeros(len(target))
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        left = np.setdiff1d(np.arange(len(target)), seen)
        if not len(left):
            continue
        shuffled = np.repeat(inputs[left][None], len(cases), axis=0)
        for i, (key, order) in enumerate(cases):
            if key is not None:
                shuffled[i, :, blocks[key]] = inputs[order[left], blocks[key]]
        total[:, left] += tree.predict(shuffled.reshape(-1, inputs.shape[1])).reshape(len(cases), -1)
        count[left] += 1
    known = count > 0
    foretold, weights, target = total[:, known] / count[known], weights[known], target[known]
    center = np.average(target, weights=weights)
    r2 = 1 - ((foretold - target) ** 2 @ weights) / ((target - center) ** 2 @ weights)
    by_key = r2[1:].reshape(len(columns), -1).mean(1)  # shuffled values err by twice the variance they carry
    return float(r2[0]), {key: float(r2[0] - without) / 2 for key, without in zip(columns, by_key, strict=True)}
