"""What ``predict.py`` does: a submission, predictions or latents of one or several checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.lines import announce, say
from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.predictions import (
    array_rows,
    print_arrays,
    print_hidden,
    print_scores,
    print_without_similar_trials,
)
from neuro_lightning.display.table import kind_of, relative
from neuro_lightning.ensemble.combine import Ensemble, EnsembleSettings, combine
from neuro_lightning.ensemble.compatibility import check_same_data
from neuro_lightning.ensemble.decoding import decode
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.ensemble.report import (
    describe_ensemble,
    print_ensemble,
    print_members,
    progress,
    write_members,
)
from neuro_lightning.errors import ConfigError, SubmissionError
from neuro_lightning.loggers.building import log_predictions
from neuro_lightning.metrics.session_scores import with_means
from neuro_lightning.models.inference import LATENTS, predict_split
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.bwb_submission import is_benchmark, write_benchmark_submission
from neuro_lightning.runs.prediction import (
    check_selection,
    choose_checkpoints,
    data_for_checkpoint,
    ensemble_settings,
    official_scores,
    output_kind_of_all,
    pick_device,
    predicted_splits,
    print_refits,
    score_rates,
)
from neuro_lightning.runs.prediction_files import target_file, write_rates
from neuro_lightning.runs.similar_trials import (
    add_similar_trials,
    check_similar_trials,
    describe_similar_trials,
    remark_on_causality,
)
from neuro_lightning.settings.settings import PredictSettings
from neuro_lightning.submission.check import ELSEWHERE
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
    if settings.similar_trials:
        check_similar_trials(settings.output, data)
    if is_benchmark(data.spec) and settings.output in (None, "submission"):
        return write_benchmark_submission(settings, members, data)
    recordings = {session: part.recording for session, part in data.by_session().items()}
    kind = output_kind_of_all(settings.output, [*recordings.values()], merge=settings.merge_into is not None)
    checkpoints = {name: choose_checkpoints(members, settings, kind, of_it) for name, of_it in recordings.items()}
    print_refits(path for chosen in checkpoints.values() for path in chosen)
    path = target_file(settings, kind, data, next(iter(checkpoints.values())))
    write = write_latents_of if kind == "latents" else write_rates_of
    return write(settings, kind, path, checkpoints, data)


def members_and_data(settings: PredictSettings) -> tuple[list[Path], PopulationDataModule]:
    """A checkpoint of each run that the user named, and the data that the first was trained on or another file.

    Raises:
        ConfigError: a session is named, and the first was trained on a single recording.
    """
    members, remarks = find_members(settings.named)
    for remark in remarks:
        say(remark)
    saved = load_checkpoint(members[0], trusted=settings.trusted)
    if settings.session is not None:
        if not saved.spec.sessions:
            raise ConfigError(f"session={settings.session}: {saved.path} was trained on one recording; leave it out")
        saved = saved.of_session(settings.session)
    announce("reading", "the data")
    return members, data_for_checkpoint(saved, settings.config["data"], settings.trusted)


@contextmanager
def file_of_all(path: Path, data: PopulationDataModule) -> Iterator[Path]:
    """Where to write one recording, or several after each other: their file is there once it holds them all."""
    with whole_file(path, SubmissionError, ELSEWHERE) if data.spec.sessions else nullcontext(path) as place:
        yield place


def title_of(data: PopulationDataModule, session: str | None) -> str:
    """What was predicted, all sessions or a single one, for the titles of tables."""
    name, several = data.recording.name, len(data.spec.sessions)
    if several:
        name = f"{several} sessions" + (f" of {name}" if name != "sessions" else "")
    elif session not in (None, name):
        name = f"{name}, session {session}"
    return f"{name} ({kind_of(data.recording)})"


def write_latents_of(
    settings: PredictSettings, kind: str, path: Path, checkpoints: Mapping[str, list[Path]], data: PopulationDataModule
) -> Path:
    """Write the latents of one checkpoint for all splits of each session."""
    device, rows = pick_device(settings.device), {}
    with file_of_all(path, data) as place:
        for session, part in data.by_session().items():
            name, recording = settings.session or session, part.recording
            saved = load_checkpoint(checkpoints[session][0], trusted=settings.trusted).of_session(name)
            check_same_data(saved, part.spec, "the checkpoint's data")
            net = saved.model.net
            latents = {split: predict_split(net, part, split, device, LATENTS) for split in recording.splits}
            write_latents(place, recording, latents, session)
            rows[session] = array_rows({split: values["latents"] for split, values in latents.items()}, np.std)
            part.release_tensors()
    source = relative(next(iter(checkpoints.values()))[0])
    print_arrays(path, title_of(data, settings.session), rows, source, "standard deviation")
    return path


def write_rates_of(
    settings: PredictSettings, kind: str, path: Path, checkpoints: Mapping[str, list[Path]], data: PopulationDataModule
) -> Path:
    """Write the rates of one checkpoint or of an ensemble, and score them where the labels are known."""
    how, parts, found = ensemble_settings(settings), data.by_session(), {}
    for session, part in parts.items():
        check_selection(how, checkpoints[session], part)
    members = next(iter(checkpoints.values()))
    if len(members) > 1:
        print_members(members)
    if share := settings.similar_trials:
        for line in dict.fromkeys(describe_similar_trials(share, part.recording) for part in parts.values()):
            say(line)
        models = (load_checkpoint(member, trusted=settings.trusted).model for member in members)
        if remark := remark_on_causality(models):
            say(remark)
    merge_into = settings.merge_into
    with file_of_all(path, data) as place:
        for session, part in parts.items():
            found[session] = write_session(settings, kind, place, checkpoints[session], part, session, merge_into)
            merge_into = place  # the next session joins this one
            part.release_tensors()
    ensembles = {session: one.ensemble for session, one in found.items()}
    source = (
        describe_ensemble(next(iter(ensembles.values())), len(members)) if len(members) > 1 else relative(members[0])
    )
    unit = "spikes per bin" if kind == "submission" and data.recording.kind == "spikes" else "mean"
    print_arrays(
        path, title_of(data, settings.session), {session: one.rows for session, one in found.items()}, source, unit
    )
    entries = {one.group: (parts[session].recording, one.ensemble) for session, one in found.items()}
    write_members(path, entries, settings.merge_into)
    for session, ensemble in ensembles.items():
        if ensemble is not None:
            print_ensemble(path, parts[session].recording, ensemble, session)
    scores = show_scores(settings, how, found, data)
    if settings.log:
        metrics = {f"{split}/{name}": value for split, values in scores.items() for name, value in values.items()}
        log_predictions(path, members, metrics)
    return path


@dataclass(frozen=True)
class Predicted:
    """What became of one recording.

    Attributes:
        group: its name in the file that says which members predicted it.
        split: that is scored.
        rows: what was written, see :func:`~neuro_lightning.display.predictions.array_rows`.
        ensemble: what predicted it, None for a single model.
        scores: None where the labels are hidden, or nothing is to be scored.
        official: scores of the benchmark's evaluation, None where it does not apply.
        models_alone: scores of the rates before similar trials were added, None where none were.
    """

    group: str
    split: str
    rows: list[list[str]]
    ensemble: Ensemble | None
    scores: dict[str, float] | None
    official: list[dict[str, dict[str, float]]] | None
    models_alone: dict[str, float] | None = None


def write_session(
    settings: PredictSettings,
    kind: str,
    path: Path,
    checkpoints: Sequence[Path],
    data: PopulationDataModule,
    session: str,
    merge_into: str | Path | None,
) -> Predicted:
    """Predict one recording, write it into the file, and score it.

    Args:
        settings: of ``predict.py``.
        kind: ``submission`` or ``predictions``.
        path: the file.
        checkpoints: of the models.
        data: the recording.
        session: its name among several, which is its group in a file of predictions.
        merge_into: a submission that it joins.
    """
    recording, how = data.recording, ensemble_settings(settings)
    splits, device = predicted_splits(kind, recording), pick_device(settings.device)
    which = {"session": settings.session or session, "trusted": settings.trusted}
    announce("writing", f"rates of {recording.name}")
    rates, ensemble = combine(checkpoints, data, splits, device, how, **which, progress=progress)
    decoded = decode(checkpoints, data, splits, device, **which, ensemble=ensemble)
    scored, models_alone = settings.evaluate, None
    if settings.similar_trials:
        models_alone = score_rates(data, rates, decoded) if scored else None
        rates = add_similar_trials(rates, recording, settings.similar_trials)
    arrays = write_rates(path, kind, recording, rates, session=session, merge_into=merge_into, decoded=decoded)
    in_submission = kind == "submission" and recording.kind == "spikes"
    return Predicted(
        group=group_name(recording.name, recording.bin_ms) if in_submission else session or recording.name,
        split=evaluation_split(recording),
        rows=array_rows(arrays),
        ensemble=ensemble,
        scores=score_rates(data, rates, decoded) if scored else None,
        official=official_scores(recording, arrays) if scored and in_submission else None,
        models_alone=models_alone,
    )


def show_scores(
    settings: PredictSettings, how: EnsembleSettings, found: Mapping[str, Predicted], data: PopulationDataModule
) -> dict[str, dict[str, float]]:
    """Print the scores of what was written, those of each session and their mean; returns them by split."""
    if not settings.evaluate:
        return {}
    splits = list(dict.fromkeys(one.split for one in found.values()))
    scores, title = {}, title_of(data, settings.session)
    for split in splits:
        known = {name: one.scores for name, one in found.items() if one.split == split and one.scores is not None}
        if known:
            scores[split] = with_means(known) if data.spec.sessions else known[""]
        if hidden := [name for name, one in found.items() if one.split == split and one.scores is None]:
            print_hidden(split, data.recording.kind, [name for name in hidden if name])
    if scores:
        print_scores(scores, title, [entry for one in found.values() for entry in one.official or ()])
    for split in splits:
        alone = {name: one.models_alone for name, one in found.items() if one.split == split and one.models_alone}
        if alone:
            print_without_similar_trials(split, with_means(alone) if data.spec.sessions else alone[""])
    chosen = [one for one in found.values() if one.ensemble is not None and one.split == "val"]
    if how.method != "mean" and chosen:
        say("Half of these trials selected the members: the ensemble's gain is in the table above.")
    return scores
