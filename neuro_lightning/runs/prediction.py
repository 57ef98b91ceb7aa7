"""The steps of ``predict.py``: builds the data, selects checkpoints, arranges and scores rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from neuro_lightning.artifacts.lines import say
from neuro_lightning.contracts import Batch, Output
from neuro_lightning.data.describe import evaluation_split, labelled
from neuro_lightning.data.identity import checksum, identify
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.nlb.params import NLB_DATASETS
from neuro_lightning.data.nlb.targets import target_group
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.same_data import differences, find_training_trials, rate_differences, split_differs
from neuro_lightning.data.sessions import Sessions
from neuro_lightning.display.table import relative
from neuro_lightning.ensemble.combine import EnsembleSettings
from neuro_lightning.ensemble.decoding import Decoded
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.loading import Saved, check_saved, choose_checkpoint, fitted_on
from neuro_lightning.runs.evaluation import evaluate
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.settings import PredictSettings
from neuro_lightning.submission.layout import EVAL, FORWARD, TRAIN, group_name
from neuro_lightning.submission.score import score


def data_for_checkpoint(saved: Saved, changes: dict[str, Any], trusted: Sequence[str]) -> PopulationDataModule:
    """The data that a checkpoint was trained on, all sessions, or another file of the same neurons.

    Paths are those of the training: a relative one does not mean another file in another folder.

    Args:
        saved: the checkpoint.
        changes: keys of the data's config that differ from training; None keeps what the checkpoint says.
        trusted: packages of your own that may be built from.

    Raises:
        ConfigError: a change that this dataset has no key for, or another file without the session that it is of.
        CheckpointError: these are not the data that it was trained on.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if saved.spec.sessions:
        if which := {"path", "same_units"} & set(given):
            raise ConfigError(
                f"data.{min(which)} is about the neurons of one session: name it as session=NAME, one of "
                + ", ".join(part.session for part in saved.spec.sessions)
            )
        parts = {name: data_for_checkpoint(part, changes, trusted) for name, part in saved.by_session().items()}
        first = next(iter(parts.values()))
        sessions = Sessions(parts, batch_size=first.batch_size, eval_batch_size=first.eval_batch_size)
        sessions.needed = ("train",)  # in data.phase=test nothing is left to validate with
        return sessions
    same_units = given.pop("same_units", False)
    if unknown := set(given) - set(saved.data):
        raise ConfigError(
            f"data.{min(unknown)}: the checkpoint's data ({saved.spec.dataset}) have no such key; "
            f"they have {', '.join(sorted(key for key in saved.data if not key.startswith('_')))}"
        )
    kept = {key: place for key, place in saved.identity["places"].items() if key not in given and Path(place).exists()}
    config = {**saved.data, **kept}
    check_saved(saved.path, "data", config, trusted)
    data = instantiate(OmegaConf.create({**config, **given}), trusted=trusted)
    if "path" in given and _another_file(saved, given["path"]):
        data.serve_other_file(saved.spec, saved.info, saved.identity, same_units=same_units)
    elif same_units:
        raise ConfigError("data.same_units=true is about another file's units; give it with data.path")
    else:
        check_data(saved, data)
    return data


def _another_file(saved: Saved, path: str) -> bool:
    """Whether a file is none of those that a checkpoint was trained on, wherever they lie now."""
    known = {source.get("sha256") for source in saved.identity["sources"]} - {None}
    if known and Path(path).expanduser().is_file():
        return checksum(path) not in known
    return Path(path).resolve() != Path(str(saved.data["path"])).resolve()


def check_data(saved: Saved, data: PopulationDataModule) -> None:
    """Whether these are the data that a checkpoint was trained on, and none of its training trials is evaluated.

    Raises:
        CheckpointError: naming what differs.
    """
    found, target = identify(data.recording, saved.data), evaluation_split(data.recording)
    different = differences(saved.identity, found, splits=False)
    if saved.identity["older"]:
        say(f"{relative(saved.path)} is of an older version: the content of the file that trained it is not known")
        if "val" not in saved.fitted_on and not split_differs(saved.identity, found, "train"):
            different += rate_differences(saved.spec.mean_rates, data.spec.mean_rates)
    for key, one, other in different:
        adopts = type(data).serve_other_file is not PopulationDataModule.serve_other_file
        raise CheckpointError(
            f"{saved.path} was trained on other data: {key} was {one!s:.200} and is {other!s:.200}; put back the data "
            "that trained it" + (", or name another file to predict as data.path=FILE" if adopts else "")
        )
    if trained := find_training_trials(saved.identity, ["train"], found, target).sum():
        raise CheckpointError(
            f"{saved.path} was trained on {trained} of the {len(data.recording.splits[target])} {target} trials that "
            "it is to predict: the split has changed; train again"
        )
    if split_differs(saved.identity, found, target):
        say(f"The {target} trials are others than when {relative(saved.path)} was trained; it has not seen them")


def output_kind_of_all(wanted: str | None, recordings: Sequence[Recording], *, merge: bool = False) -> str:
    """What a file of one recording or of several sessions is to hold; see :func:`output_kind`.

    Without a wish it is a submission where every session has a benchmark.

    Raises:
        ConfigError: a session has no such file, or two would be the same dataset of a submission.
    """
    kinds = {output_kind(wanted, recording, merge=merge) for recording in recordings}
    kind = kinds.pop() if len(kinds) == 1 else "predictions"
    groups = [group_name(recording.name, recording.bin_ms) for recording in recordings]
    if kind == "submission" and (double := next((group for group in groups if groups.count(group) > 1), None)):
        raise ConfigError(
            f"output=submission: several sessions would be {double} in the file; give session=NAME, or "
            "output=predictions"
        )
    return kind


def output_kind(wanted: str | None, recording: Recording, *, merge: bool = False) -> str:
    """What a file is to hold.

    Args:
        wanted: ``submission``, ``predictions``, ``latents`` or None: a submission where the data have a benchmark, or
            where it joins one.
        recording: what is predicted.
        merge: whether it joins another submission.

    Raises:
        ConfigError: these data have no such file.
    """
    spikes = recording.kind == "spikes"
    heldout = spikes and any(trials.heldout is not None for trials in recording.splits.values())
    has_submission = heldout or recording.name == "uwndc19"
    benchmark = recording.name in (*NLB_DATASETS, "uwndc19") or merge
    kind = wanted or ("submission" if has_submission and benchmark else "predictions")
    if kind not in ("submission", "predictions", "latents"):
        raise ConfigError(f"output={kind}: give submission, predictions or latents (where it is written is file=PATH)")
    if kind == "submission" and spikes and not has_submission:
        raise ConfigError(
            f"output=submission: no neurons of {recording.name} are held out, which submissions are about; "
            "give output=predictions"
        )
    if kind == "submission" and spikes and any(trials.observed is not None for trials in recording.splits.values()):
        raise ConfigError(
            f"output=submission: some neurons or bins of {recording.name} were not recorded, for which the benchmark's "
            "file has no place; give output=predictions"
        )
    if kind == "submission" and not has_submission:
        raise ConfigError(f"output=submission: {recording.name} has no benchmark; give output=predictions")
    if merge and (kind != "submission" or recording.kind != "spikes"):
        raise ConfigError("merge_into joins submissions to the Neural Latents Benchmark only; leave it out")
    return kind


def ensemble_settings(settings: PredictSettings) -> EnsembleSettings:
    """How several models are combined.

    Raises:
        ConfigError: a setting that cannot be.
    """
    return EnsembleSettings(
        method=settings.ensemble,
        space=settings.space,
        seed=settings.ensemble_seed,
        max_members=settings.max_members,
        shrinkage=settings.shrinkage,
    )


def choose_checkpoints(
    members: Sequence[Path], settings: PredictSettings, kind: str, recording: Recording
) -> list[Path]:
    """The checkpoint of each run that is to predict a recording.

    A refit has been trained on the validation trials. By itself it is taken for test trials only, and neither for
    latents, which are looked at in all splits, nor where validation trials choose among several models.

    Args:
        members: a checkpoint of each run.
        settings: of ``predict.py``.
        kind: what the file is to hold.
        recording: what is predicted.

    Raises:
        CheckpointError: nothing there, or it was trained on the trials that it is to predict.
        ConfigError: another checkpoint is wanted than the file that is named, or latents of several models.
    """
    if kind == "latents" and len(members) > 1:
        raise ConfigError("output=latents: the latents of several networks have no mean; give one ckpt")
    which, target = settings.checkpoint, evaluation_split(recording)
    validated = kind == "latents" or (len(members) > 1 and settings.ensemble != "mean")
    of_run = "best" if which == "auto" and validated else which
    named = {Path(path).resolve() for path in settings.named}
    return [
        choose_checkpoint(path, which, target)
        if path.resolve() in named
        else choose_checkpoint(path.parent, of_run, target)
        for path in members
    ]


def print_refits(checkpoints: Iterable[Path]) -> None:
    """Print a line where checkpoints are refits."""
    chosen = list(dict.fromkeys(checkpoints))
    if refits := [path for path in chosen if "val" in fitted_on(path)]:
        say(f"Trained on training and validation trials together: {len(refits)} of {len(chosen)} (refit.ckpt)")


def check_selection(settings: EnsembleSettings, members: Sequence[Path], data: PopulationDataModule) -> None:
    """Check that members are selected on validation trials of the file that they were trained with.

    Raises:
        ConfigError: another file is predicted.
    """
    if settings.method != "mean" and len(members) > 1 and data.serves_other_file:
        raise ConfigError(
            f"ensemble={settings.method}: the validation trials of the file that trained the members choose, and "
            f"data.path={data.recording.sources[0]['path']} is another one; give ensemble=mean"
        )


def predicted_splits(kind: str, recording: Recording) -> list[str]:
    """The splits that a file holds: the challenge's CSV has the test images alone, everything else all."""
    return ["test"] if kind == "submission" and recording.name == "uwndc19" else list(recording.splits)


def pick_device(name: str) -> str:
    """``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name not in ("auto", "cpu") and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise ConfigError(f"device={name}: there is none on this machine; give auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def submission_arrays(recording: Recording, rates: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a submission.

    The trials that are not predicted were supplied for training; they come in the order of the trial table, where
    the recording knows it.

    Args:
        recording: what was predicted.
        rates: (B, L, N) spikes per bin for each of its splits.
    """
    target = evaluation_split(recording)
    supplied = [split for split in recording.splits if split != target]
    evaluated = recording.splits[target]
    bins, n_in = evaluated.heldin.shape[1:]
    parts = {"eval": rates[target]}
    if supplied:
        parts["train"] = np.concatenate([rates[split] for split in supplied])
        rows = [recording.splits[split].row for split in supplied]
        if all(row is not None for row in rows):
            parts["train"] = parts["train"][np.argsort(np.concatenate(rows), kind="stable")]
    arrays: dict[str, np.ndarray] = {}
    for names, side, time in (
        (TRAIN, "train", slice(0, bins)),
        (EVAL, "eval", slice(0, bins)),
        (FORWARD, "eval", slice(bins, None)),
    ):
        if side in parts and parts[side][:, time].size:
            arrays[names[0]] = parts[side][:, time, :n_in]
            arrays[names[1]] = parts[side][:, time, n_in:]
    return arrays


def score_rates(
    data: PopulationDataModule,
    rates: dict[str, np.ndarray],
    decoded: Decoded | None = None,
    split: str | None = None,
) -> dict[str, float] | None:
    """Scores of predicted rates and of what heads decode by our names, None where the labels are hidden.

    Args:
        data: what was predicted.
        rates: (B, L, N) or (B, N) for each split.
        decoded: what heads have decoded of each split.
        split: that is scored; None for the one that evaluations are about.
    """
    decoded = decoded or Decoded()
    target = split or evaluation_split(data.recording)
    if not labelled(data.recording.splits[target], data.spec):
        return None

    def given(batch: Batch, split: str) -> Output:
        rows, heads = batch["index"].numpy(), decoded.values.get(split, {})
        found: Output = {"rates": torch.from_numpy(rates[split][rows])}
        return {**found, "heads": {name: torch.from_numpy(each[rows]) for name, each in heads.items()}}

    return evaluate(given, data, target, heads=decoded.heads)


def official_scores(recording: Recording, arrays: dict[str, np.ndarray]) -> list[dict[str, dict[str, float]]] | None:
    """The official evaluation of a benchmark dataset's validation trials, None for anything else."""
    if recording.name not in NLB_DATASETS or evaluation_split(recording) != "val":
        return None
    group = group_name(recording.name, recording.bin_ms)
    return score({group: target_group(recording)}, {group: arrays})
