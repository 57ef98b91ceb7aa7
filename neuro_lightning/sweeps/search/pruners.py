"""Pruners of a search, which stop bad trials early; their settings are epochs and shares of a training.

A pruner is made when the run's number of epochs is known. Optuna is imported only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro_lightning.errors import ConfigError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def median(max_epochs: int, *, warmup: float = 0.25, startup_trials: int = 5, percentile: float = 50.0) -> BasePruner:
    """Stops a trial whose best score so far is worse than what most trials had reached by then.

    Args:
        max_epochs: of a run.
        warmup: share of a run's epochs in which none is stopped.
        startup_trials: so many trials have finished before the first is stopped.
        percentile: share of trials in percent that are good enough; 50 is the median, 25 is harder.

    Raises:
        ConfigError: a share out of its bounds.
    """
    from optuna.pruners import PercentilePruner

    if not 0 <= warmup <= 1:
        raise ConfigError(f"hydra.sweeper.pruner.warmup={warmup}: give a share of the training from 0 to 1")
    return PercentilePruner(percentile, n_startup_trials=startup_trials, n_warmup_steps=_epochs(max_epochs, warmup))


def patient(max_epochs: int, *, patience: int = 5, warmup: float = 0.25, startup_trials: int = 5) -> BasePruner:
    """As :func:`median`, but does not stop a trial that has improved in its last ``patience`` validations."""
    from optuna.pruners import PatientPruner

    return PatientPruner(median(max_epochs, warmup=warmup, startup_trials=startup_trials), patience=patience)


def halving(max_epochs: int, *, first: float = 0.1, reduction: int = 3) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020): at each rung the best ``1 / reduction`` continue.

    Args:
        max_epochs: of a run.
        first: the first rung, as a share of a run's epochs; each further one is ``reduction`` times later.
        reduction: of the number of trials from one rung to the next.
    """
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=max(1, _epochs(max_epochs, first)), reduction_factor=reduction)


def hyperband(max_epochs: int, *, first: float = 0.1, reduction: int = 3) -> BasePruner:
    """Several successive halvings, begun earlier and later, among which trials are shared out (Li et al. 2018)."""
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(
        min_resource=max(1, _epochs(max_epochs, first)), max_resource=max(1, max_epochs), reduction_factor=reduction
    )


def _epochs(max_epochs: int, share: float) -> int:
    if max_epochs is None or max_epochs < 1:
        raise ConfigError(f"trainer.max_epochs={max_epochs}: a search that stops bad trials early needs a number")
    return round(share * max_epochs)
