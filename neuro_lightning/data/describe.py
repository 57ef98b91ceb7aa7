"""What a recording is, whatever its kind: the description that models get, its tensors, what can be scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from neuro_lightning.contracts import IN_BINS, BehaviorInfo, DataSpec
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.images import ImageDataset, ImageTrials
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import DataError

Split = Trials | ImageTrials


def describe(recording: Recording) -> DataSpec:
    """What a model must know of these data."""
    train = recording.splits["train"]
    shared = {
        "dataset": recording.name,
        "kind": recording.kind,
        "mean_rates": tuple(mean_rates(train).tolist()),
        "unit_ids": tuple(np.asarray(recording.unit_ids).tolist()),
        "nonnegative": nonnegative(train),
        "true_rates": train.rates is not None,
        "simulated": recording.simulated,
        "partial": any(some_inputs_missing(trials) for trials in recording.splits.values()),
    }
    if isinstance(train, ImageTrials):
        places = recording.unit_positions
        return DataSpec(
            **shared,
            unit_positions=() if places is None else tuple(places.astype(np.float64).ravel().tolist()),
            response_unit=tuple(recording.info.get("response_unit", ())),
            n_out=train.responses.shape[1],
            image_shape=tuple(train.images.shape[1:]),
            image_mean=float(train.images.mean(dtype=np.float64)),
            image_std=float(train.images.std(dtype=np.float64)) or 1.0,
            pupil=train.pupil is not None,
            n_repeats=max(n_repeats(trials) for trials in recording.splits.values()),
            angle_period=0 if train.angle is None else int(recording.info.get("period", 360)),
        )
    behavior = train.behavior
    return DataSpec(
        **shared,
        deviance=bool(recording.info.get("deviance", False)),
        n_in=train.heldin.shape[2],
        n_out=0 if train.heldout is None else train.heldout.shape[2],
        n_bins=train.heldin.shape[1],
        n_forward=0 if train.heldin_forward is None else train.heldin_forward.shape[1],
        bin_ms=recording.bin_ms,
        behavior_dim=0 if behavior is None else behavior.shape[-1],
        behavior_kind=recording.behavior_kind if behavior is not None else "none",
        decode_groups=1 if train.decode_mask is None else train.decode_mask.shape[1],
        n_conditions=0 if recording.psth is None else len(recording.psth),
        behaviors=tuple(behaviors(recording)),
    )


def behaviors(recording: Recording) -> Iterator[BehaviorInfo]:
    """What can be decoded of each trial, as the training split has it: behavior in bins, then the labels."""
    train = recording.splits["train"]
    if train.behavior is not None and train.behavior.ndim == 3:
        values = train.behavior
        if train.observed is not None:  # as TrialDataset has it
            recorded = train.observed[:, :, : train.heldin.shape[2]].any(2)
            values = np.where(recorded[..., None], values, np.nan)
        mean, std = _moments(values.reshape(-1, values.shape[2]))
        yield BehaviorInfo(IN_BINS, mean=mean, std=std)
    for column, (name, texts) in enumerate(recording.info.get("labels", [])):
        values = train.labels[:, column]
        codes = np.unique(values[np.isfinite(values)])
        if texts is None:
            mean, std = _moments(values[:, None])
            yield BehaviorInfo(name, mean=mean, std=std, classes=tuple(codes.tolist()), codes=tuple(codes.tolist()))
        else:
            classes = tuple(texts[int(code)] for code in codes)
            yield BehaviorInfo(name, classes=classes, codes=tuple(codes.tolist()))


def _moments(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (K,) of values (n, K), NaN ignored; 0 and 1 where none is known or none differs."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, values, 0.0).sum(0, dtype=np.float64) / count
    std = np.sqrt(np.square(np.where(known, values - mean, 0.0)).sum(0, dtype=np.float64) / count)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)  # less is rounding
    return tuple(mean.tolist()), tuple(std.tolist())


def join_specs(specs: Mapping[str, DataSpec], dataset: str) -> DataSpec:
    """The description of several sessions together.

    Args:
        specs: of each session by its name; they agree in kind and bin width.
        dataset: the name of all of them.
    """
    parts = tuple(replace(spec, session=name) for name, spec in specs.items())
    return DataSpec(
        dataset,
        kind=parts[0].kind,
        n_in=sum(part.n_in for part in parts),
        n_out=sum(part.n_out for part in parts),
        n_bins=max(part.n_bins for part in parts),
        n_forward=max(part.n_forward for part in parts),
        bin_ms=parts[0].bin_ms,
        nonnegative=all(part.nonnegative for part in parts),
        image_shape=parts[0].image_shape,
        true_rates=all(part.true_rates for part in parts),
        simulated=any(part.simulated for part in parts),
        partial=any(part.partial for part in parts),
        sessions=parts,
    )


def make_dataset(trials: Split, spec: DataSpec, *, evaluate: bool) -> Dataset:
    """A split as tensors; ``evaluate`` as in :class:`neuro_lightning.data.dataset.TrialDataset`.

    Raises:
        DataError: some inputs were not recorded, which the description does not know of.
    """
    if isinstance(trials, ImageTrials):
        return ImageDataset(trials)
    if not spec.partial and some_inputs_missing(trials):
        raise DataError(
            f"{spec.dataset}: the model was trained where every input was recorded, and here some were not (trials of "
            "unequal length, or neurons that come and go): train on such data, or cut windows that all trials fill"
        )
    return TrialDataset(trials, n_out=spec.n_out, n_forward=spec.n_forward, evaluate=evaluate, partial=spec.partial)


def some_inputs_missing(trials: Split) -> bool:
    """Whether some counts of held-in neurons were not recorded."""
    if getattr(trials, "withheld", None) is not None:
        return True
    observed = getattr(trials, "observed", None)
    return observed is not None and not bool(observed[:, :, : trials.heldin.shape[2]].all())


def labelled(trials: Split, spec: DataSpec) -> bool:
    """Whether predictions of these trials can be scored."""
    if isinstance(trials, ImageTrials):
        return bool(np.isfinite(trials.responses).any())
    if spec.kind == "traces" or not spec.n_out:  # what was observed is the target itself
        return True
    return trials.heldout is not None or trials.heldin_forward is not None or trials.rates is not None


def n_repeats(trials: Split) -> int:
    """The largest number of repeats of an image in a split."""
    repeats = getattr(trials, "repeats", None)
    return 0 if repeats is None else repeats.shape[1]


def evaluation_split(recording: Recording) -> str:
    """The split that a submission predicts: ``test`` where there is one, else ``val``."""
    return "test" if "test" in recording.splits else "val"


def mean_rates(train: Split) -> np.ndarray:
    """(N,) mean of the observed targets, NaN ignored; held-in neurons first, over the observed window."""
    if isinstance(train, ImageTrials):
        seen = np.isfinite(train.responses)
        total = np.where(seen, train.responses, 0.0).sum(0, dtype=np.float64)
        return total / np.maximum(seen.sum(0), 1)
    parts = _observed_targets(train)
    return np.concatenate([np.nan_to_num(np.nanmean(part, axis=(0, 1), dtype=np.float64)) for part in parts])


def _observed_targets(trials: Trials) -> list[np.ndarray]:
    """Counts of held-in and held-out neurons in the observed window, NaN where they were not recorded."""
    parts = [trials.heldin] + ([] if trials.heldout is None else [trials.heldout])
    if trials.observed is None:
        return parts
    recorded = np.split(trials.observed, [trials.heldin.shape[2]], axis=2)
    return [np.where(seen, part, np.float32(np.nan)) for seen, part in zip(recorded, parts, strict=False)]


def nonnegative(train: Split) -> bool:
    """Whether no observed target is below zero."""
    parts = [train.responses] if isinstance(train, ImageTrials) else _observed_targets(train)
    return all(not part.size or bool(np.nanmin(part, initial=0.0) >= 0) for part in parts)


def check_splits(recording: Recording, needed: Sequence[str] = ("train", "val")) -> None:
    """Every recording needs trials to train on and to validate with; a refit trains on both.

    Raises:
        DataError: a split is missing or empty.
    """
    for split in needed:
        if split not in recording.splits or len(recording.splits[split]) == 0:
            raise DataError(
                f"{recording.name} has no {split} trials: check data.phase, data.val_fraction and the trial table"
            )
