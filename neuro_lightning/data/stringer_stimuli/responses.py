"""From recorded activity to a model's targets: z-scores, removal of ongoing activity, choice of neurons, splits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.bounds import check_array
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.images import standardizer
from neuro_lightning.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpontaneousActivity:
    """Spontaneous activity: what responses are measured against. The z-scores of silent neurons are 0.

    Attributes:
        mean: (N,) of each neuron; 0 for silent ones.
        std: (N,) of each neuron; infinite for silent ones.
        components: (N, K) orthonormal directions of the population that are taken out of the responses; K may be 0.
    """

    mean: np.ndarray
    std: np.ndarray
    components: np.ndarray

    @property
    def active(self) -> np.ndarray:
        """The neurons that are not silent."""
        return np.flatnonzero(np.isfinite(self.std))


def spontaneous_activity(path: Path, mean: np.ndarray, std: np.ndarray, what: str) -> SpontaneousActivity:
    """Spontaneous activity of which no component is taken out.

    Args:
        path: the file, for the messages.
        mean: (N,) of each neuron.
        std: (N,) of each neuron, 0 for silent ones.
        what: in the file, for the messages.

    Raises:
        DataError: all neurons are silent.
    """
    silent = int((std <= 0).sum())
    if silent == len(std):
        raise DataError(f"{path}: no neuron has spontaneous activity ({what}), so that no response can be z-scored")
    if silent:
        log.warning(f"{path}: {silent} neurons without spontaneous activity ({what}) are left out")
    mean, std = np.where(std > 0, mean, 0.0), np.where(std > 0, std, np.inf)
    return SpontaneousActivity(mean, std, np.empty((len(std), 0)))


def subtract_spontaneous(
    path: str | Path, responses: np.ndarray, ongoing: SpontaneousActivity, chosen: np.ndarray, *, block: int = 1024
) -> np.ndarray:
    """``z - U U'z`` of the chosen neurons, z the responses z-scored by spontaneous activity.

    All neurons take part in the projection; they are read in blocks, so that memory holds the result and no copy of
    ``responses``. NaN takes no part in it and stays.

    Args:
        path: the file, for the message.
        responses: (N, T) activity of all neurons.
        ongoing: of all neurons.
        chosen: (M,) the neurons wanted.
        block: neurons read at a time.

    Returns:
        (T, M) float32.

    Raises:
        DataError: they are not finite or absurdly large, so that means or deviations in the file must be damaged.
    """
    (n_neurons, n_trials), n_components = responses.shape, ongoing.components.shape[1]

    def zscored(rows: np.ndarray | slice) -> np.ndarray:
        values = responses[rows].astype(np.float64)
        values -= ongoing.mean[rows, None]
        values /= ongoing.std[rows, None]
        return values

    projected = np.zeros((n_components, n_trials))
    if n_components:
        for start in range(0, n_neurons, block):
            rows = slice(start, start + block)
            projected += ongoing.components[rows].T @ np.nan_to_num(zscored(rows))
    result = np.empty((n_trials, len(chosen)), np.float32)
    for start in range(0, len(chosen), block):
        rows = chosen[start : start + block]
        with np.errstate(over="ignore"):  # checked below
            result[:, start : start + block] = (zscored(rows) - ongoing.components[rows] @ projected).T
    check_array(result, f"{path}: the z-scored responses", may_be_nan=True, what="finite z-scores")
    return result


def standardize_responses(
    responses: np.ndarray, train: np.ndarray, rates: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Responses and true rates, z-scored by the responses at ``train``.

    Args:
        responses: (B, ..., N), changed in place: all neurons of a session take 400 MB.
        train: the rows that train.
        rates: (B, N), or None.
    """
    mean, std = standardizer(responses[train])
    responses -= mean
    responses /= std
    return responses, None if rates is None else (rates - mean) / std


def choose_neurons(candidates: np.ndarray, neurons: int | None, seed: int) -> np.ndarray:
    """At most ``neurons`` of the candidates, drawn by ``seed``, in ascending order; None takes all.

    Raises:
        ConfigError: ``neurons`` is no whole number above 0.
    """
    if neurons is None:
        return candidates
    check_whole("neurons", neurons, 1, why=", or null for all neurons")
    if neurons >= len(candidates):
        return candidates
    return np.sort(np.random.default_rng([seed, 2]).choice(candidates, neurons, replace=False))
