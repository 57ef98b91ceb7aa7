"""Adds to predicted rates what was recorded in similar training trials: ``predict.py similar_trials=0.25``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, padding
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.similar_trials import LEAST_TRIALS, number_of_neighbors, rates_of_similar_trials
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.stepping import Stepwise
from neuro_lightning.runs.bwb_submission import is_benchmark
from neuro_lightning.submission.plain import observed_targets


def check_similar_trials(output: str | None, data: PopulationDataModule) -> None:
    """Refuse data without trials that can be compared, and files that hold no rates.

    Args:
        output: what the file is to hold, as the user named it.
        data: what is to be predicted, one recording or several sessions.

    Raises:
        ConfigError: saying which.
    """
    if output == "latents":
        raise ConfigError("similar_trials is about rates: leave it out of output=latents")
    if is_benchmark(data.spec):
        raise ConfigError(f"similar_trials is not for {data.recording.name}, whose windows are no trials: leave it out")
    for session, part in data.by_session().items():
        if part.recording.kind != "spikes":
            raise ConfigError(f"similar_trials is for trials of spikes, not for {part.recording.kind}: leave it out")
        if any(is_unequal(trials.observed) for trials in part.recording.splits.values()):
            raise ConfigError("similar_trials compares trials of one length, and these are unequal: leave it out")
        if part.serves_other_file:
            raise ConfigError(
                "similar_trials needs the trials that trained the model, and data.path names another file"
            )
        if (count := len(part.recording.splits["train"].heldin)) < LEAST_TRIALS:
            where = f" in {session}" if session else ""
            raise ConfigError(f"similar_trials needs {LEAST_TRIALS} training trials; there are {count}{where}")


def add_similar_trials(rates: Mapping[str, np.ndarray], recording: Recording, share: float) -> dict[str, np.ndarray]:
    """The rates of each split, a share of which is now the mean of the training trials that are predicted most alike.

    A training trial is no neighbor of its own.

    Args:
        rates: (B, L, N) in spikes per bin for each split, ``train`` among them.
        recording: what was predicted.
        share: of the similar trials, 0 to 1.
    """
    predicted = {split: torch.from_numpy(np.asarray(values, np.float32)) for split, values in rates.items()}
    counts = torch.from_numpy(observed_targets(recording, "train", rates["train"].shape))
    mixed = {}
    for split, values in rates.items():
        similar = rates_of_similar_trials(
            predicted[split], predicted["train"], counts, bin_ms=recording.bin_ms, same=split == "train"
        )
        mixed[split] = (1 - share) * values + share * similar.numpy().astype(values.dtype)
    return mixed


def describe_similar_trials(share: float, recording: Recording) -> str:
    """A line on what the rates of a recording consist of."""
    trials = len(recording.splits["train"].heldin)
    return (
        f"Similar trials: {share:.0%} of each rate is the mean of {number_of_neighbors(trials)} of {trials} training "
        "trials, those that are predicted most alike."
    )


def remark_on_causality(models: Iterable[PopulationModule]) -> str:
    """A line that says that mixed rates are not causal, where the models that predicted them are; else nothing."""
    for model in models:
        if not all(isinstance(net, Stepwise) and not net.looks_ahead for net in model.networks):
            return ""
    return (
        "These rates are not causal, though the model looks back only: similar trials are found by the whole of a "
        "trial. Leave similar_trials out where later bins must not be known."
    )


def is_unequal(observed: np.ndarray | None) -> bool:
    """Whether (B, T, N) bool, where each trial was recorded, has trials that end before the others."""
    return observed is not None and bool(padding(observed).any())
