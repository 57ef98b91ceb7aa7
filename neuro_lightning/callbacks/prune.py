"""Report a trial's validation scores to its study, and stop the run when the pruner says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from neuro_lightning.artifacts.studies import open_storage, quiet_optuna, running_trial
from neuro_lightning.ranks import is_main_process

if TYPE_CHECKING:
    from optuna.trial import Trial

log = logging.getLogger(__name__)


class Prune(pl.Callback):
    """Reports the monitored score of every validation, at its epoch, and stops the run when the pruner says so.

    It finds its trial in the study's storage, so that it works wherever the job runs. Of a distributed job's processes
    the first reports and decides, and all stop together. A resumed run does not
    report again what it has reported. If the study cannot be reached, the run continues and is not pruned.

    Args:
        trial: its number in the study; None, outside a search, does nothing.
        storage: of the study, see ``neuro_lightning.artifacts.studies.open_storage``.
        study: its name.
        monitor: the score.
        pruner: makes the pruner from the run's number of epochs; None only reports.

    Attributes:
        ended: ``pruned`` when the run was stopped here.
    """

    def __init__(
        self,
        trial: int | None,
        storage: str,
        study: str,
        monitor: str,
        pruner: Callable[[int], Any] | None = None,
    ) -> None:
        self.trial, self.storage, self.study, self.monitor, self.pruner = trial, storage, study, monitor, pruner
        self.ended: str | None = None
        self._running: Trial | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the trial."""
        self.ended = None
        if self.trial is not None and is_main_process():
            self._guarded(self._open, trainer.max_epochs)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and stop if the pruner says so; a run's last validation ends it anyway."""
        if self.trial is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        stop = False
        score = trainer.callback_metrics.get(self.monitor)
        if self._running is not None and score is not None:
            last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs
            stop = bool(self._guarded(self._should_prune, trainer.current_epoch, float(score))) and not last
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True
            self.ended = "pruned"

    def _open(self, max_epochs: int) -> None:
        import optuna

        with quiet_optuna():
            storage = open_storage(self.storage)
            study = optuna.load_study(
                study_name=self.study,
                storage=storage,
                sampler=optuna.samplers.RandomSampler(),  # nothing is sampled here
                pruner=self.pruner(max_epochs) if self.pruner else optuna.pruners.NopPruner(),
            )
            if not study.get_trials(deepcopy=False)[self.trial].state.is_finished():
                self._running = running_trial(study, storage, self.trial)

    def _should_prune(self, epoch: int, score: float) -> bool:
        with quiet_optuna():
            self._running.report(score, epoch)  # an epoch that was reported before a resume keeps its value
            return self._running.should_prune()

    def _guarded(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Call it; an error of the study's database is a warning, so that a long training is not lost."""
        try:
            return act(*arguments)
        except Exception as error:
            log.warning(f"the study {self.study} cannot be reached; the trial continues without it: {error}")
            return None
