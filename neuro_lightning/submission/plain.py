"""Predictions and latents as plain h5 files, a group for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission.check import ELSEWHERE

IN_BINS = ("latents", "inferred_inputs")  # have a value for each bin
BESIDE = ("condition", "behavior", "angle", "labels", "row")  # what a reader needs to make sense of a trial


def write_predictions(
    path: str | Path,
    recording: Recording,
    rates: Mapping[str, np.ndarray],
    session: str = "",
    decoded: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    classes: Mapping[str, Sequence[float] | Sequence[str]] | None = None,
) -> Path:
    """Write expected values of the targets with the responses themselves.

    Each split's group holds ``predictions`` (B, L, N) or (B, N), NaN after the end of a trial that is shorter than
    others; ``targets`` likewise with NaN where nothing was observed; and, where there are any, ``condition``,
    ``behavior``, ``angle``, ``labels`` and ``row``. What heads decode is ``decoded/NAME``: behavior (B, T, K) or a
    number of each trial (B,) in the physical unit, or the probabilities (B, C) of the classes that are its attribute.

    Args:
        path: the file to write; it replaces an existing one.
        recording: what was predicted.
        rates: for each split.
        session: the recording's name among several: it is added to the file as a group of this name.
        decoded: by split and head.
        classes: of the heads that decode some.

    Returns:
        The path written.

    Raises:
        SubmissionError: predictions that are not finite, or the file cannot be written.
    """
    if bad := [split for split, values in rates.items() if not np.isfinite(values).all()]:
        raise SubmissionError(
            f"the predictions for {bad[0]} are not all finite: the model has diverged; nothing written"
        )
    targets = {split: observed_targets(recording, split, values.shape) for split, values in rates.items()}
    rates = {split: _until_end(recording, split, values) for split, values in rates.items()}
    arrays = {"predictions": rates, "targets": targets}
    for split, by_head in (decoded or {}).items():
        for name, values in by_head.items():
            values = _until_end(recording, split, values) if values.ndim == 3 else values
            arrays.setdefault(f"decoded/{name}", {})[split] = values
    _write(path, recording, arrays, session, {f"decoded/{name}": found for name, found in (classes or {}).items()})
    return Path(path)


def write_latents(
    path: str | Path, recording: Recording, latents: Mapping[str, Mapping[str, np.ndarray]], session: str = ""
) -> Path:
    """Write the latents of each split, (B, L, D), with ``condition`` (the imaging plane), ``behavior`` and ``row``.

    What else a network says of the population's state (``inferred_inputs``, ``initial_condition``) stands beside them.

    Args:
        path: the file to write; it replaces an existing one.
        recording: what they describe.
        latents: for each split, by name.
        session: as in :func:`write_predictions`.

    Returns:
        The path written.

    Raises:
        SubmissionError: the model has none, or the file cannot be written.
    """
    if any("latents" not in values for values in latents.values()):
        raise SubmissionError("output=latents: this model has no latents; output=predictions writes what it predicts")
    latents = {
        split: {
            name: _until_end(recording, split, found) if name in IN_BINS else found for name, found in values.items()
        }
        for split, values in latents.items()
    }
    names = ["latents", *sorted({name for values in latents.values() for name in values} - {"latents"})]
    arrays = {name: {split: values[name] for split, values in latents.items() if name in values} for name in names}
    return _write(path, recording, arrays, session)


def observed_targets(recording: Recording, split: str, shape: tuple[int, ...]) -> np.ndarray:
    """What was observed of a split where (B, L, N) or (B, N) was predicted, NaN where nothing was.

    Args:
        recording: what was predicted.
        split: the name of the split.
        shape: of the prediction.
    """
    trials = recording.splits[split]
    if recording.kind == "images":
        return trials.responses
    bins, n_in = trials.heldin.shape[1:]
    dataset = TrialDataset(trials, n_out=shape[2] - n_in, n_forward=shape[1] - bins, evaluate=False)
    batch = dataset[list(range(len(dataset)))]
    return np.where(batch["mask"].numpy(), batch["targets"].numpy().astype(np.float32), np.float32(np.nan))


def _until_end(recording: Recording, split: str, values: np.ndarray) -> np.ndarray:
    return values if recording.kind == "images" else recording.splits[split].blank_padding(values)


def _write(
    path: str | Path,
    recording: Recording,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    session: str,
    classes: Mapping[str, Sequence[float] | Sequence[str]] | None = None,
) -> Path:
    path = Path(path)
    if session:
        with h5_file(path, append=True) as file:
            _fill(file.create_group(session), recording, arrays, classes or {})
    else:
        with whole_file(path, SubmissionError, ELSEWHERE) as part, h5_file(part) as file:
            _fill(file, recording, arrays, classes or {})
    return path


def _fill(
    place: h5py.Group,
    recording: Recording,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    classes: Mapping[str, Sequence[float] | Sequence[str]],
) -> None:
    """Write what is known of one recording into a file or into a group of one."""
    place.attrs.update({"dataset": recording.name, "kind": recording.kind})
    place.attrs.update({"simulated": recording.simulated, "bin_ms": recording.bin_ms})
    ids = recording.unit_ids
    place["unit_ids"] = ids.astype(h5py.string_dtype()) if ids.dtype.kind == "U" else ids
    if names := recording.info.get("behavior"):
        place.attrs["behavior"] = list(names)
    for name, texts in recording.info.get("labels", ()):
        place.attrs[f"label {name}"] = texts or "numbers"
    if labels := [name for name, _ in recording.info.get("labels", ())]:
        place.attrs["labels"] = labels
    for name, splits in arrays.items():
        for split, values in splits.items():
            found = place.create_dataset(f"{split}/{name}", data=np.asarray(values, np.float32), compression="gzip")
            if name in classes:
                found.attrs["classes"] = list(classes[name])
    for split in next(iter(arrays.values())):
        for name in BESIDE:
            if (values := getattr(recording.splits[split], name, None)) is not None:
                place[f"{split}/{name}"] = values
