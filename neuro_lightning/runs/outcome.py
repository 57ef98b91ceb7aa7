"""What came out of a training: the scores of the saved checkpoint, those it is compared with, the objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn

from neuro_lightning.artifacts.lines import announce, say
from neuro_lightning.artifacts.records import RunRecord
from neuro_lightning.artifacts.trial_scores import trial_scores_file, write_trial_scores
from neuro_lightning.callbacks.clock import StepClock
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.data.identity import data_record
from neuro_lightning.data.memory import JOBS, Scores, config_key
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.table import NAMES, REFERENCES, is_baseline, print_results
from neuro_lightning.loggers.building import log_checkpoint, log_summary
from neuro_lightning.metrics.collection import bits_of
from neuro_lightning.metrics.session_scores import with_means
from neuro_lightning.metrics.trial_sums import TrialSums
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.loading import read_checkpoint
from neuro_lightning.nn.heads import Heads
from neuro_lightning.ranks import is_main_process
from neuro_lightning.runs.evaluation import Predictor, evaluate, network_predictor, true_rates
from neuro_lightning.runs.factory import check_match
from neuro_lightning.runs.k_shot import k_shot_scores
from neuro_lightning.runs.logged import log_comparison, reference_scores
from neuro_lightning.settings.config import instantiate, to_plain
from neuro_lightning.settings.registry import find_target
from neuro_lightning.settings.settings import TrainSettings


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """The best checkpoint of a run, if it keeps any."""
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if callback is not None else ""
    return Path(path) if path else None


def final_status(trainer: pl.Trainer) -> str:
    """``finished``, or what a callback that ended the training early calls it (``pruned``, ``paused``)."""
    return next((ended for c in trainer.callbacks if (ended := getattr(c, "ended", None))), "finished")


def report_outcome(
    settings: TrainSettings,
    trainer: pl.Trainer,
    model: PopulationModule,
    data: PopulationDataModule,
    record: RunRecord,
    loggers: list[Any],
) -> float:
    """Score the saved checkpoint, and write the outcome into ``run.json``, the loggers and the terminal.

    A training that was ended early (pruned, paused) is recorded and not scored.

    Returns:
        The objective; NaN in all processes but the main one.
    """
    record.mark_begun()
    if not is_main_process():
        return math.nan
    status = final_status(trainer)
    if status == "finished":
        announce("scoring", _to_score(settings, data))
    scores = score_best(settings, trainer, model, data) if status == "finished" else {}
    result = summarize_run(settings, trainer, model, data, scores)
    record.values.pop("refit", None)  # of an earlier training
    record.update(**result)
    others = reference_scores(scores)
    log_summary(loggers, {**result["metrics"], **others, "objective": result["objective"]["value"], "status": status})
    if status == "finished":
        log_comparison(settings, data, scores, loggers, trainer.global_step)
        best = best_checkpoint(trainer)
        log_checkpoint(loggers, best, result["objective"])
        show_references(settings, trainer, model, scores)
        print_results(scores, data.recording, best, settings.folder, monitor=settings.monitor, mode=settings.mode)
        if line := undertrained_note(settings.monitor, trainer):
            say(line)
    return result["objective"]["value"]


def _to_score(settings: TrainSettings, data: PopulationDataModule) -> str:
    """What is scored at the end, in words."""
    baselines = [f"the {name} baseline" for name, node in (settings.baselines or {}).items() if node is not None]
    return ", ".join(["the best checkpoint", *baselines, *(["the true rates"] if data.spec.true_rates else [])])


def finish_training(
    settings: TrainSettings, record: RunRecord, status: str, value: float, refitted: dict[str, Any] | None
) -> float:
    """Close ``run.json``, and give the objective; NaN in all processes but the main one."""
    if not is_main_process():
        return math.nan
    if status == "finished" and not math.isfinite(value):
        record.close("diverged", f"{settings.monitor} was never finite: the training diverged")
    else:
        record.close(status, **({"refit": refitted} if refitted else {}))
    return value


def score_best(
    settings: TrainSettings, trainer: pl.Trainer, model: PopulationModule, data: PopulationDataModule
) -> dict[str, Scores]:
    """Scores of the saved checkpoint, the baselines, the true rates and the noise ceiling, by who and split.

    Of several sessions the mean over them, and each session's own as ``metric/session``.
    """
    if (path := best_checkpoint(trainer)) is not None:
        model.load_state_dict(read_checkpoint(path)["state_dict"], strict=False)
    parts, device = data.by_session(), trainer.strategy.root_device
    found = {
        name: score_recording(settings, net, part, device)
        for (name, part), net in zip(parts.items(), model.networks, strict=True)
    }
    return join_scores(found) if data.spec.sessions else found[""]


def join_scores(found: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
    """The scores of several sessions, by who and split; see :func:`neuro_lightning.metrics.session_scores.with_means`.

    Args:
        found: by session, who and split.
    """
    joint: dict[str, Scores] = {}
    for who in dict.fromkeys(who for scores in found.values() for who in scores):
        of_who = {session: scores.get(who, {}) for session, scores in found.items()}
        splits = dict.fromkeys(split for scores in of_who.values() for split in scores)
        joint[who] = {
            split: with_means({session: scores[split] for session, scores in of_who.items() if split in scores})
            for split in splits
        }
    return joint


def score_recording(
    settings: TrainSettings, net: nn.Module, data: PopulationDataModule, device: torch.device
) -> dict[str, Scores]:
    """Scores of a network on one recording, and those that it is compared with, by who and split."""

    def scored(predict: Predictor) -> Scores:
        return {split: evaluate(predict, data, split) for split in data.references()}

    def fitted(node: DictConfig) -> Predictor:
        baseline = instantiate(node, trusted=settings.trusted, spec=data.spec)
        baseline.fit_net(data.dataset("train", evaluate=False), data.dataset("val", evaluate=True))
        return network_predictor(baseline.net)

    scores = {"model": score_model(settings, network_predictor(net, device), data, getattr(net, "heads", None))}
    for split, found in k_shot_scores(settings.k_shot, net, data, device).items():
        scores["model"][split] |= found
    for name, node in (settings.baselines or {}).items():
        if node is not None and node._target_ != settings.model._target_:
            check_match(find_target(node._target_, settings.trusted), data.spec)
            scores[name] = scores_of_data(data, to_plain(node), lambda node=node: fitted(node), scored)
    if data.spec.kind == "spikes":  # bits per spike are measured from it
        known = [*(["poisson_d2"] if data.spec.deviance else []), *bits_of(data.spec)]
        scores["mean rate"] = {split: dict.fromkeys(known, 0.0) for split in data.references()}
    if data.spec.true_rates:
        scores["oracle"] = scores_of_data(data, "oracle", lambda: true_rates, scored)
    found = scores_of_data(data, "references", lambda: {s: data.reference_scores(s) for s in data.references()}, dict)
    for split, by_who in found.items():
        for who, values in by_who.items():
            scores.setdefault(who, {})[split] = values
    return scores


def score_model(settings: TrainSettings, predict: Predictor, data: PopulationDataModule, heads: Heads | None) -> Scores:
    """Scores of the model by split; of spikes, what each trial contributes is kept in the run's folder."""
    if data.spec.kind != "spikes":
        return {split: evaluate(predict, data, split, heads=heads) for split in data.references()}
    sums = {split: TrialSums(data.spec) for split in data.references()}
    scores = {split: evaluate(predict, data, split, watch, heads) for split, watch in sums.items()}
    arrays = {split: {k: v.numpy() for k, v in watch.collect()._asdict().items()} for split, watch in sums.items()}
    for split, found in arrays.items():
        trials = data.recording.splits[split]
        found |= {name: values for name in ("row", "condition") if (values := getattr(trials, name)) is not None}
    write_trial_scores(trial_scores_file(settings.folder, data.spec.session), arrays)
    return scores


def scores_of_data(
    data: PopulationDataModule, what: Any, make: Callable[[], Any], score: Callable[[Any], dict]
) -> dict:
    """Scores that depend on the data alone, computed once for the jobs of a sweep in one process.

    Args:
        data: with an identity in a sweep.
        what: is scored, plain values.
        make: makes it. If it draws from the generators that everybody draws from, it depends on the job's seed.
        score: scores it.
    """
    if data.identity is None:
        return score(make())
    key = config_key([data.identity, what, [source.get("path") for source in data.recording.sources]])
    return JOBS.scores(key, make, score)


def summarize_run(
    settings: TrainSettings,
    trainer: pl.Trainer,
    model: PopulationModule,
    data: PopulationDataModule,
    scores: dict[str, Scores],
) -> dict[str, Any]:
    """What ``run.json`` says of a run that has finished, or that a search has ended (no scores)."""
    clock = next((c for c in trainer.callbacks if isinstance(c, StepClock)), None)
    best, epochs = best_checkpoint(trainer), trainer.fit_loop.epoch_progress.current.started
    return {
        "objective": {
            "name": settings.monitor,
            "value": objective(settings, trainer, scores),
            "mode": settings.mode,
            **last_and_best_score(settings.monitor, trainer),
        },
        "metrics": {f"{split}/{k}": v for split, values in scores.get("model", {}).items() for k, v in values.items()},
        "baselines": {who: scored for who, scored in scores.items() if who not in NAMES},
        "oracle": scores.get("oracle"),
        "references": {who: scored for who, scored in scores.items() if who in REFERENCES},
        "data": record_of_data(data, settings.config["data"]),
        "checkpoints": {"best": str(best) if best else None, "epochs": epochs},
        "parameters": model.size,
        "steps": trainer.global_step,
        "ms_per_step": clock.ms_per_step if clock else None,
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
    }


def record_of_data(data: PopulationDataModule, config: dict[str, Any]) -> dict[str, Any]:
    """Which data these are, for ``run.json``; of several sessions also each one's record."""
    record = data_record(data.recording, **config)
    if not data.spec.sessions:
        return record
    sessions = {name: data_record(part.recording) for name, part in data.by_session().items()}
    return {**record, "sessions": sessions}


def show_references(
    settings: TrainSettings,
    trainer: pl.Trainer,
    model: PopulationModule,
    scores: dict[str, Scores],
) -> None:
    """Draw the learning curve again, now with the lines to beat and to reach."""
    split, metric = settings.monitor.split("/", 1)
    found = {who: values.get(split, {}).get(metric) for who, values in scores.items() if who != "model"}
    found = {who: value for who, value in found.items() if value is not None and math.isfinite(value)}
    best = max if settings.mode == "max" else min
    baselines = [who for who in found if is_baseline(who)]
    drop = set(baselines) - {best(baselines, key=found.get)} if baselines else set()  # the table has them all
    references = {NAMES.get(who, who): value for who, value in found.items() if who not in drop}
    for callback in trainer.callbacks:
        if isinstance(callback, Figures):
            callback.draw_learning_curve(trainer, model, references)


def last_and_best_score(monitor: str, trainer: pl.Trainer) -> dict[str, float | None]:
    """The monitored score at the last validation, and at the best one: seeds are compared at both."""
    callback = trainer.checkpoint_callback
    end = trainer.callback_metrics.get(monitor)
    if end is None:  # resumed when all was done: nothing has been validated again
        end = getattr(callback, "current_score", None)
    values = {"end": end, "peak": getattr(callback, "best_model_score", None)}
    return {name: None if value is None else float(value) for name, value in values.items()}


def undertrained_note(monitor: str, trainer: pl.Trainer) -> str | None:
    """A line for a training whose last validation was its best, of a model that is trained in steps; else None."""
    values = last_and_best_score(monitor, trainer)
    if not trainer.global_step or values["peak"] is None or values["end"] != values["peak"]:
        return None
    return (
        f"The best {monitor} came at the last validation, after {trainer.global_step} steps: a longer training may "
        "score better (trainer.max_epochs=...)"
    )


def objective(settings: TrainSettings, trainer: pl.Trainer, scores: dict[str, Scores]) -> float:
    """The monitored score of the saved checkpoint; a run that diverged is worse than any other."""
    split, name = settings.monitor.split("/", 1)
    value = scores.get("model", {}).get(split, {}).get(name)
    if value is None and trainer.checkpoint_callback is not None:
        best = trainer.checkpoint_callback.best_model_score
        value = math.nan if best is None else float(best)
    if value is None or not math.isfinite(value):
        return -math.inf if settings.mode == "max" else math.inf
    return float(value)
