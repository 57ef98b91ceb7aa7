"""Which of a sweep's keys decide its objective, as far as the sweep can tell.

The finished settings become an Optuna study in memory, with the rank of each as its value: ranks make a setting that
broke down no worse than the last. Importance is Optuna's mean decrease impurity: the share of the variance of the
ranking that the splits of a random forest on a key remove (Louppe et al. 2013). It counts interactions, says nothing
of the direction, and speaks of the region that a search went to.

It is hidden where it cannot be told: below :data:`MIN_SETTINGS` settings, and where a forest does not predict the rank
of settings that its trees have not seen (out-of-bag R² below 4 / n of n settings, and below :data:`MIN_R2` of any
number). Then either nothing matters, or the spread over seeds is larger than the effect of the settings. Seeds are
noise: a setting counts once, with its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.studies import quiet_optuna
from neuro_lightning.artifacts.sweep_jobs import Job, varied_keys
from neuro_lightning.settings.quoting import to_override
from neuro_lightning.sweeps.results.summary import summarize

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

MIN_SETTINGS = 8
MIN_R2 = 0.2
TREES = 200
DECADE = 10.0


@dataclass(frozen=True)
class Importance:
    """The importance of the keys of a sweep.

    Attributes:
        shares: by key, the largest first, 1 in all; empty where they cannot be told.
        r2: of a random forest on settings that its trees have not seen; None where it was not fitted.
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
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`; of one dataset.

    Returns:
        None where nothing but the seed differs.
    """
    keys, settings, scores = scored_settings(jobs)
    if not keys:
        return None
    n = len(settings)
    if n < MIN_SETTINGS:
        return Importance(n=n, remark=f"it takes {MIN_SETTINGS} settings that finished, and there are {n}")
    if len(set(scores)) == 1:
        return Importance(n=n, remark="all settings score the same")
    import optuna
    from scipy.stats import rankdata

    ranks = rankdata(scores) / n
    r2 = predicted_share(keys, settings, ranks)
    if r2 < max(MIN_R2, 4 / n):  # with few settings chance predicts some
        return Importance(
            r2=r2, n=n,
            remark=f"from their keys, the ranking of settings cannot be predicted (R² {r2:.2f} on settings left out, "
            f"of {n}): nothing here matters more than chance does, or there are too few jobs to tell",
        )  # fmt: skip
    with quiet_optuna():
        forest = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(n_trees=TREES, seed=0)
        found = optuna.importance.get_param_importances(study_of(keys, settings, ranks), evaluator=forest)
    remark = (
        f"The share of the ranking's variance that a random forest explains by a key, its interactions included; the "
        f"forest explains {r2:.2f} of the ranking of settings that it has not seen, from {n} that finished."
    )
    if n < 3 * MIN_SETTINGS:
        remark += " That is few: take it as a hint."
    return Importance({key: float(share) for key, share in found.items()}, r2, n, remark)


def scored_settings(jobs: list[Job]) -> tuple[list[str], list[dict[str, Any]], list[float]]:
    """The settings with a score, in the order of their first jobs.

    Args:
        jobs: from :func:`~neuro_lightning.artifacts.sweep_jobs.collect`.

    Returns:
        The keys that differ, without the seed; and for each setting its values by key and its mean objective.
    """
    place = {job["job"]: i for i, job in enumerate(jobs)}
    rows = sorted((row for row in summarize(jobs) if row["n"]), key=lambda row: place[row["jobs"][0]])
    settings = [row["setting"] for row in rows]
    return varied_keys(settings), settings, [row["mean"] for row in rows]


def study_of(keys: list[str], settings: list[dict[str, Any]], scores: Any, mode: str = "max") -> Study:
    """An Optuna study in memory of a sweep's settings and their scores.

    Args:
        keys: that differ.
        settings: values by key.
        scores: of each setting.
        mode: ``max`` or ``min``, which score is better.
    """
    import optuna

    spaces = {key: distribution_of([setting[key] for setting in settings]) for key in keys}
    study = optuna.create_study(direction={"max": "maximize", "min": "minimize"}[mode])
    for setting, score in zip(settings, scores, strict=True):
        params = {key: setting[key] if hasattr(spaces[key], "low") else to_override(setting[key]) for key in keys}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=float(score)))
    return study


def distribution_of(values: list[Any]) -> BaseDistribution:
    """Optuna's distribution of one key: an interval of numbers, or categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(is_number(value) for value in values):
        return FloatDistribution(min(values), max(values), log=is_logarithmic(values))
    return CategoricalDistribution(list(dict.fromkeys(map(to_override, values))))


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


def predicted_share(keys: list[str], settings: list[dict[str, Any]], ranks: Any) -> float:
    """R² of a random forest that predicts ranks of settings from their keys, on settings its trees have not seen."""
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    frame = pd.DataFrame(settings)[keys]
    for key in keys:
        found = distribution_of(list(frame[key]))
        words = not hasattr(found, "low")
        frame[key] = frame[key].map(to_override) if words else np.log(frame[key]) if found.log else frame[key]
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0)
    return float(forest.fit(pd.get_dummies(frame), ranks).oob_score_)
