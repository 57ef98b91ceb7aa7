"""The story of a run, read from top to bottom: what ``train.py`` and ``predict.py`` do."""

from __future__ import annotations

import logging
import math
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LambdaCallback

from neuro_lightning.artifacts.folders import claimed_run
from neuro_lightning.artifacts.records import RunRecord
from neuro_lightning.artifacts.sweep_jobs import swept
from neuro_lightning.callbacks.checkpoint import LAST, PREVIOUS
from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.ensemble.combine import combine
from neuro_lightning.ensemble.compatibility import check_same_data
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.ensemble.report import (
    describe_ensemble,
    print_ensemble,
    print_members,
    progress,
    write_members,
)
from neuro_lightning.errors import CheckpointError, ConfigError, Interrupted, NeuroError
from neuro_lightning.loggers.building import build_loggers, close_loggers, log_checkpoint, log_predictions, log_summary
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.inference import LATENTS, predict_split
from neuro_lightning.models.loading import load_checkpoint, read_checkpoint
from neuro_lightning.ranks import is_main_process
from neuro_lightning.report.table import print_header, print_results, relative
from neuro_lightning.report.written import print_arrays, print_scores
from neuro_lightning.runs.distributed import job_environment, write_job
from neuro_lightning.runs.factory import build_model, build_trainer
from neuro_lightning.runs.monitors import check_monitors, choose_monitor
from neuro_lightning.runs.outcome import (
    best_checkpoint,
    how_it_ended,
    objective,
    outcome,
    score_best,
    show_references,
    still_rising,
)
from neuro_lightning.runs.prediction import (
    check_selection,
    checkpoints_of,
    data_of,
    ensemble_settings,
    output_kind,
    pick_device,
    score_rates,
    splits_of,
)
from neuro_lightning.runs.prediction_files import target_file, write_rates
from neuro_lightning.runs.refit import check_refit, refit_best
from neuro_lightning.runs.training_length import lengthen_short_training
from neuro_lightning.settings.config import PREDICT_KEYS, TRAIN_KEYS, check_config, instantiate, to_plain
from neuro_lightning.settings.overrides import again
from neuro_lightning.submission.plain import write_latents


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
    cfg.resume = readable(cfg.resume, anew=group is not None)
    config = to_plain(cfg)
    output = Path(config["paths"]["output_dir"])
    claimed = claimed_run(output, resume=config["resume"], overwrite=config["overwrite"])
    with job_environment(), claimed, recorded(output, config, overrides, group) as record:
        check_config(cfg, known=TRAIN_KEYS)
        if type(cfg.seed) is not int or not 0 <= cfg.seed < 2**32:
            raise ConfigError(f"seed={cfg.seed}: give a whole number from 0 to {2**32 - 1}")
        if not cfg.trainer.get("profiler"):  # whose report is a remark of Lightning's
            quiet_libraries()
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        data = instantiate(cfg.data, trusted=cfg.trusted)
        if group is not None:  # jobs of a sweep share what they read
            data.share_recording(config["data"])
        data.prepare_data()
        if choose_monitor(cfg, data.spec):
            config.update(to_plain(cfg))
        if lengthen_short_training(cfg, data):
            config.update(to_plain(cfg))
            record.update(config=config)
        model = build_model(cfg, config, data)
        check_monitors(cfg, data)
        if cfg.refit:
            check_refit(cfg, model, data)
        check_resume(cfg)
        write_job(output, config, list(overrides))
        with loggers_of(cfg, config, overrides, group, record, title(model, data, cfg.seed)) as loggers:
            trainer = build_trainer(cfg, loggers, output)
            print_header(data.recording, model, trainer, output)
            trainer.callbacks.append(LambdaCallback(on_train_start=record.keep))
            trainer.fit(model, datamodule=data, ckpt_path=cfg.resume, weights_only=True)
            record.keep()
            status = how_it_ended(trainer)
            if is_main_process():
                scores = score_best(cfg, trainer, model, data) if status == "finished" else {}
                result = outcome(cfg, config, trainer, model, data, scores)
                record.values.pop("refit", None)  # of an earlier training
                record.update(**result)
                log_summary(loggers, {**result["metrics"], "objective": result["objective"]["value"], "status": status})
                if status == "finished":
                    log_checkpoint(loggers, best_checkpoint(trainer), result["objective"])
                    show_references(cfg, trainer, model, scores)
                    shown = {"monitor": cfg.monitor, "mode": cfg.mode}
                    print_results(scores, data.recording, best_checkpoint(trainer), output, **shown)
                    if line := still_rising(cfg.monitor, trainer):
                        print(line)
        refitted = refit_best(cfg, config, data, best_checkpoint(trainer)) if status == "finished" else None
        if not is_main_process():
            return math.nan
        value = objective(cfg, trainer, scores)
        if status == "finished" and not math.isfinite(value):
            record.close("diverged", f"{cfg.monitor} was never finite: the training diverged")
        else:
            record.close(status, **({"refit": refitted} if refitted else {}))
    return value


@contextmanager
def recorded(
    output: Path, config: dict[str, Any], overrides: Sequence[str], group: str | None = None
) -> Iterator[RunRecord]:
    """``run.json`` from the first moment; an error is noted in it and passed on."""
    output.mkdir(parents=True, exist_ok=True)
    record = RunRecord(output, resumed=config["resume"] is not None)
    record.start(config=config, overrides=overrides, seed=config["seed"])
    try:
        yield record
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning answers the first with the second
        record.interrupt()
        place = shlex.quote(str(relative(output if group is None else output.parent)))
        hint = f"go on with: python train.py resume={place}" if any(output.rglob(LAST)) else ""
        if group is not None:
            hint = f"go on with: python train.py -m sweep.resume={place}"
        raise Interrupted(f"interrupted. {hint}{again(config['trusted']) if hint else ''}".rstrip()) from error
    except NeuroError as error:
        # in a sweep a job that cannot go on has failed: left as it was found, it would be tried so for ever
        if config["resume"] is None or group is not None:
            record.fail(error)
        else:
            record.refuse(error)
        raise
    except BaseException as error:
        record.fail(error)
        raise


def readable(checkpoint: str | None, *, anew: bool) -> str | None:
    """The checkpoint that a run goes on from: where ``last.ckpt`` is damaged, the one before it.

    Args:
        checkpoint: the one asked for; None of a new run.
        anew: begin anew (None) where neither can be read.

    Raises:
        CheckpointError: it cannot be read.
    """
    if checkpoint is None or Path(checkpoint).name not in (LAST, PREVIOUS):
        return checkpoint
    path = Path(checkpoint).with_name(LAST)
    try:
        read_checkpoint(path)
        return str(path)
    except CheckpointError as error:
        damaged = error
    previous = path.with_name(PREVIOUS)
    if previous.is_file():
        with suppress(CheckpointError):
            read_checkpoint(previous)
            say(f"{damaged}: goes on from {PREVIOUS}, the one before it")
            return str(previous)
    if not anew:
        raise damaged
    say(f"{damaged}: begins anew")
    return None


def say(line: str) -> None:
    """One line for the user, from the first process."""
    if is_main_process():
        print(line, flush=True)


def check_resume(cfg: DictConfig) -> None:
    """A run that has done more than it is to do cannot go on.

    Raises:
        CheckpointError: saying which key to raise.
    """
    if cfg.resume is None:
        return
    content = read_checkpoint(cfg.resume)
    progress = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    # begun, but for one that a checkpoint after the training's end counts too many
    done = {"max_epochs": max(progress["processed"], progress["started"]), "max_steps": content["global_step"]}
    for key, number in done.items():
        limit = cfg.trainer.get(key)
        if limit is not None and 0 <= limit < number:
            raise CheckpointError(
                f"{cfg.resume} has trained {number} {key.removeprefix('max_')} already: give trainer.{key}={number} "
                f"or more, not {limit}"
            )


def title(model: PopulationModule, data: PopulationDataModule, seed: int) -> tuple[str, str, str]:
    """Model, dataset and seed, the parts of a run's name."""
    return type(model).__name__.lower(), data.recording.name, f"seed{seed}"


@contextmanager
def loggers_of(
    cfg: DictConfig,
    config: dict[str, Any],
    overrides: Sequence[str],
    group: str | None,
    record: RunRecord,
    names: tuple[str, str, str],
) -> Iterator[list[Any]]:
    """The run's loggers, closed whatever happens: a sweep's next job would write into this one's W&B run."""
    if not is_main_process():
        yield []
        return
    loggers = build_loggers(
        config["logger"] or {},
        output_dir=config["paths"]["output_dir"],
        config=config,
        name=config["name"] or "-".join(names),
        run_id=record.run_id,
        group=group,
        tags=[*names[:2], *config["tags"]],
        swept=swept(record.path.parent, overrides) if group else None,
        resumed_step=read_checkpoint(cfg.resume)["global_step"] if cfg.resume else None,
    )
    exit_code = 1
    try:
        yield loggers
        exit_code = 0
    finally:
        close_loggers(loggers, exit_code=exit_code)


def quiet_libraries() -> None:
    """Lightning's remarks on hardware and its tips are not what a user came for."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    remarks = (
        "does not have many workers", "number of training batches", "isinstance.treespec", "LeafSpec",
        "exists and is not empty", "Checkpoint directory", "configure_optimizers.*returned.*None",
        "training_step.*returned.*None", "sync_dist=True",
    )  # fmt: skip
    for remark in remarks:
        warnings.filterwarnings("ignore", f".*{remark}.*")


def predict(cfg: DictConfig) -> Path:
    """Write what one or several checkpoints predict: a submission, predictions, or latents.

    Args:
        cfg: the composed config of ``conf/predict.yaml``.

    Returns:
        The file that was written.

    Raises:
        NeuroError: with one message that says what to mend.
    """
    config = to_plain(cfg)
    check_config(cfg, known=PREDICT_KEYS)
    settings = ensemble_settings(config)
    members, remarks = find_members(config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]])
    for remark in remarks:
        print(remark)
    saved = load_checkpoint(members[0], trusted=cfg.trusted)
    data = data_of(saved, config["data"], cfg.trusted)
    recording, device = data.recording, pick_device(config["device"])
    kind = output_kind(config["output"], recording, merge=config["merge_into"] is not None)
    members = checkpoints_of(members, config, kind, recording)
    if kind == "latents" and len(members) > 1:
        raise ConfigError("output=latents: the latents of several networks have no mean; give one ckpt")
    path = target_file(config, kind, data, members)
    if kind == "latents":
        saved = load_checkpoint(members[0], trusted=cfg.trusted)
        check_same_data(saved, data.spec, "the checkpoint's data")
        net = saved.model.net
        latents = {split: predict_split(net, data, split, device, LATENTS) for split in recording.splits}
        write_latents(path, recording, latents)
        shown = {split: values["latents"] for split, values in latents.items()}
        print_arrays(path, recording, shown, relative(members[0]), "standard deviation", np.std)
        return path
    check_selection(settings, members, data)
    if len(members) > 1:
        print_members(members)
    splits = splits_of(kind, recording)
    rates, ensemble = combine(members, data, splits, device, settings, trusted=cfg.trusted, progress=progress)
    source = relative(members[0]) if len(members) == 1 else describe_ensemble(ensemble, len(members))
    official = write_rates(path, kind, recording, rates, source, config["merge_into"])
    write_members(path, recording, ensemble, config["merge_into"])
    if ensemble is not None:
        print_ensemble(path, recording, ensemble)
    scores = score_rates(data, rates) if config["evaluate"] else {}
    if config["evaluate"]:
        print_scores(official, scores, recording)
        if settings.method != "mean" and ensemble is not None and evaluation_split(recording) == "val":
            print("Half of these trials selected the members: the ensemble's gain is in the table above.")
    if config["log"]:
        split = evaluation_split(recording)
        log_predictions(path, members, {f"{split}/{name}": value for name, value in (scores or {}).items()})
    return path
