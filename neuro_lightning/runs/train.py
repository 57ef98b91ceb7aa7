"""What ``train.py`` does: one model on one dataset, from its settings to its scores."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from neuro_lightning.artifacts.checkpoint_files import resumable
from neuro_lightning.artifacts.folders import claimed_run_folder
from neuro_lightning.artifacts.lines import announce
from neuro_lightning.artifacts.records import RunRecord
from neuro_lightning.artifacts.sweep_jobs import varied_overrides
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.table import print_header, relative
from neuro_lightning.errors import ConfigError, Interrupted, NeuroError
from neuro_lightning.loggers.building import build_loggers, closed_in_the_end
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.fitted import FittedModule
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.adapt import with_initial_model
from neuro_lightning.runs.distributed import Job, job_environment, strategy_for_sessions, write_job_settings
from neuro_lightning.runs.factory import build_data, build_model, build_trainer
from neuro_lightning.runs.freed_memory import keep_freed_memory
from neuro_lightning.runs.heads import print_unseen_classes
from neuro_lightning.runs.k_shot import check_k_shot
from neuro_lightning.runs.logged import run_name, sizes_of
from neuro_lightning.runs.monitors import check_monitors, monitor_of_heads, monitor_without_heldout
from neuro_lightning.runs.outcome import best_checkpoint, final_status, finish_training, report_outcome
from neuro_lightning.runs.refit import check_refit, refit_best
from neuro_lightning.runs.resumed import check_training_left, readable_checkpoint
from neuro_lightning.runs.sessions import with_sessions
from neuro_lightning.runs.together import join, wait_for_others
from neuro_lightning.runs.training_length import epochs_of_short_training
from neuro_lightning.settings.overrides import trusted_override
from neuro_lightning.settings.settings import TrainSettings


def train(cfg: DictConfig, overrides: Sequence[str] = (), group: str | None = None) -> float:
    """Train one model on one dataset and leave everything in the run's folder.

    Args:
        cfg: the composed config of ``conf/train.yaml``.
        overrides: what was typed, for the records.
        group: the sweep that the run belongs to.

    Returns:
        The monitored score of the checkpoint that was saved, the objective of sweeps.

    Raises:
        NeuroError: with one message that says what to mend.
    """
    cfg = with_initial_model(with_sessions(cfg, cfg.get("trusted") or ()), overrides)
    settings = replace_damaged_checkpoint(TrainSettings.resolve(cfg, overrides=overrides, group=group))
    with recorded_run(settings) as (record, job):
        settings.check()
        seed_everything(settings)
        announce("reading", "the data")
        data = build_data(settings)
        settings = settings_for_data(settings, data, record)
        model = build_model(settings, data)
        check_before_training(settings, model, data)
        join(settings, model, data)
        write_job_settings(settings, job)
        with loggers_of_run(settings, record, model, data) as loggers:
            trainer = build_trainer(settings, job, loggers, on_train_start=record.mark_begun)
            print_header(data, model, trainer, settings.folder)
            if trainer.world_size > 1:
                announce("starting", f"{trainer.world_size} processes")
            keep_freed_memory()
            trainer.fit(model, datamodule=data, ckpt_path=settings.resume, weights_only=True)
            wait_for_others()
            status = final_status(trainer)
            value = report_outcome(settings, trainer, model, data, record, loggers)
        refitted = refit_best(settings, job, data, best_checkpoint(trainer)) if status == "finished" else None
        return finish_training(settings, record, status, value, refitted)


def replace_damaged_checkpoint(settings: TrainSettings) -> TrainSettings:
    """The settings with the checkpoint that can be read, where ``last.ckpt`` is damaged."""
    usable = readable_checkpoint(settings.resume, start_again=settings.group is not None)
    return settings if usable == settings.resume else settings.changed({"resume": usable})


@contextmanager
def recorded_run(settings: TrainSettings) -> Iterator[tuple[RunRecord, Job]]:
    """Claim the run's folder and write its ``run.json``; an error is recorded there and raised again.

    Raises:
        FolderError: another process is at work in the folder, or it holds another run.
        Interrupted: the user or the cluster stopped the run; the message says how to resume it.
    """
    folder, resumed = settings.folder, settings.resume is not None
    claimed = claimed_run_folder(folder, resume=settings.resume, overwrite=settings.overwrite)
    with job_environment(folder) as job, claimed:
        folder.mkdir(parents=True, exist_ok=True)
        record = RunRecord(folder, resumed=resumed)
        record.start(config=settings.config, overrides=settings.overrides, seed=settings.seed)
        try:
            yield record, job
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning answers the first with the second
            record.interrupt()
            raise Interrupted(f"interrupted; {_how_to_resume(settings)}".rstrip("; ")) from error
        except NeuroError as error:
            # a sweep's job that cannot be resumed has failed: with its record restored the sweep would try it for ever
            if resumed and settings.group is None:
                record.restore(error)
            else:
                record.fail(error)
            raise
        except BaseException as error:
            record.fail(error)
            raise


def _how_to_resume(settings: TrainSettings) -> str:
    if settings.group is not None:
        words = f"-m sweep.resume={shlex.quote(str(relative(settings.folder.parent)))}"
    elif resumable(settings.folder):
        words = f"resume={shlex.quote(str(relative(settings.folder)))}"
    else:
        return ""
    return f"resume with: python train.py {words}{trusted_override(settings.trusted)}"


def seed_everything(settings: TrainSettings) -> None:
    """Seed the generators of Python, NumPy and torch, and silence Lightning's remarks on hardware and its tips."""
    if not settings.trainer.get("profiler"):  # its report is such a remark
        quiet_libraries()
    pl.seed_everything(settings.seed, workers=True, verbose=False)


def quiet_libraries() -> None:
    """Silence Lightning's remarks on hardware and its tips."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    remarks = (
        "does not have many workers", "number of training batches", "isinstance.treespec", "LeafSpec",
        "exists and is not empty", "Checkpoint directory", "configure_optimizers.*returned.*None",
        "training_step.*returned.*None", "sync_dist=True",
    )  # fmt: skip
    for remark in remarks:
        warnings.filterwarnings("ignore", f".*{remark}.*")


def settings_for_data(settings: TrainSettings, data: PopulationDataModule, record: RunRecord) -> TrainSettings:
    """The settings with what depends on the data: the monitor without held-out neurons, epochs of few trials, ..."""
    changes = monitor_of_heads(settings) or monitor_without_heldout(settings, data.spec)
    changes |= epochs_of_short_training(settings, data)
    changes |= strategy_for_sessions(settings, data.spec)
    if not changes:
        return settings
    settings = settings.changed(changes)
    record.update(config=settings.config)
    return settings


def check_before_training(settings: TrainSettings, model: PopulationModule, data: PopulationDataModule) -> None:
    """Refuse before the training what would fail during it or after it.

    Raises:
        NeuroError: with one message that says what to mend.
    """
    check_monitors(settings, model, data)
    if data.train_on_inputs and isinstance(model, FittedModule):
        name = type(model).__name__
        raise ConfigError(f"data.train_on_inputs: {name} is fitted to whole trials and cannot use it; give []")
    for net, part in zip(model.networks, data.by_session().values(), strict=True):
        check_k_shot(settings.k_shot, net, part)
    if is_main_process():
        print_unseen_classes(model, data)
    if settings.refit:
        check_refit(settings, model, data)
    check_training_left(settings)


@contextmanager
def loggers_of_run(
    settings: TrainSettings, record: RunRecord, model: PopulationModule, data: PopulationDataModule
) -> Iterator[list[Any]]:
    """The run's loggers, closed whatever happens: a sweep's next job would write into this one's W&B run."""
    if not is_main_process():
        yield []
        return
    names = type(model).__name__.lower(), data.recording.name, f"seed{settings.seed}"
    swept = varied_overrides(settings.folder, settings.overrides) if settings.group else None
    loggers = build_loggers(
        settings.config["logger"] or {},
        output_dir=settings.folder,
        config=settings.config,
        name=run_name(settings, names, swept),
        run_id=record.run_id,
        group=settings.group,
        tags=[*names[:2], *settings.tags],
        swept=swept,
        sizes=sizes_of(model, data),
        resumed_step=read_checkpoint(settings.resume)["global_step"] if settings.resume else None,
    )
    with closed_in_the_end(loggers):
        yield loggers
