"""What ``predict.py`` does: a submission, predictions or latents of one or several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

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
from neuro_lightning.loggers.building import log_predictions
from neuro_lightning.models.inference import LATENTS, predict_split
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.report.predictions import print_arrays, print_scores
from neuro_lightning.report.table import relative
from neuro_lightning.runs.prediction import (
    check_selection,
    choose_checkpoints,
    data_for_checkpoint,
    ensemble_settings,
    output_kind,
    pick_device,
    predicted_splits,
    score_rates,
)
from neuro_lightning.runs.prediction_files import target_file, write_rates
from neuro_lightning.settings.settings import PredictSettings
from neuro_lightning.submission.layout import group_name
from neuro_lightning.submission.plain import write_latents


def predict(cfg: DictConfig) -> Path:
    """Write what one or several checkpoints predict: a submission, predictions, or latents.

    Args:
        cfg: the composed config of ``conf/predict.yaml``.

    Returns:
        The file that was written.

    Raises:
        NeuroError: with one message that says what to mend.
    """
    settings = PredictSettings.resolve(cfg)
    settings.check()
    members, data = members_and_data(settings)
    kind = output_kind(settings.output, data.recording, merge=settings.merge_into is not None)
    checkpoints = choose_checkpoints(members, settings, kind, data.recording)
    path = target_file(settings, kind, data, checkpoints)
    write = write_latents_of if kind == "latents" else write_rates_of
    return write(settings, kind, path, checkpoints, data)


def members_and_data(settings: PredictSettings) -> tuple[list[Path], PopulationDataModule]:
    """A checkpoint of each run that the user named, and the data that the first was trained on or another file."""
    members, remarks = find_members(settings.named)
    for remark in remarks:
        print(remark)
    saved = load_checkpoint(members[0], trusted=settings.trusted)
    return members, data_for_checkpoint(saved, settings.config["data"], settings.trusted)


def write_latents_of(
    settings: PredictSettings, kind: str, path: Path, checkpoints: Sequence[Path], data: PopulationDataModule
) -> Path:
    """Write the latents of one checkpoint for all splits."""
    recording, device = data.recording, pick_device(settings.device)
    saved = load_checkpoint(checkpoints[0], trusted=settings.trusted)
    check_same_data(saved, data.spec, "the checkpoint's data")
    net = saved.model.net
    latents = {split: predict_split(net, data, split, device, LATENTS) for split in recording.splits}
    write_latents(path, recording, latents)
    shown = {split: values["latents"] for split, values in latents.items()}
    print_arrays(path, recording, shown, relative(checkpoints[0]), "standard deviation", np.std)
    return path


def write_rates_of(
    settings: PredictSettings, kind: str, path: Path, checkpoints: Sequence[Path], data: PopulationDataModule
) -> Path:
    """Write the rates of one checkpoint or of an ensemble, and score them where the labels are known."""
    how, recording, several = ensemble_settings(settings), data.recording, len(checkpoints) > 1
    check_selection(how, checkpoints, data)
    if several:
        print_members(checkpoints)
    splits, device = predicted_splits(kind, recording), pick_device(settings.device)
    rates, ensemble = combine(checkpoints, data, splits, device, how, trusted=settings.trusted, progress=progress)
    source = describe_ensemble(ensemble, len(checkpoints)) if several else relative(checkpoints[0])
    official = write_rates(path, kind, recording, rates, source, settings.merge_into)
    in_submission = kind == "submission" and recording.kind == "spikes"
    group = group_name(recording.name, recording.bin_ms) if in_submission else recording.name
    write_members(path, group, recording, ensemble, settings.merge_into)
    if ensemble is not None:
        print_ensemble(path, recording, ensemble)
    split, scores = evaluation_split(recording), None
    if settings.evaluate:
        scores = score_rates(data, rates)
        print_scores(official, scores, recording)
        if how.method != "mean" and ensemble is not None and split == "val":
            print("Half of these trials selected the members: the ensemble's gain is in the table above.")
    if settings.log:
        log_predictions(path, checkpoints, {f"{split}/{name}": value for name, value in (scores or {}).items()})
    return path
