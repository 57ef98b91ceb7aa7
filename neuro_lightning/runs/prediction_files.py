"""Names and writes the files of ``predict.py``: in the run's folder by default, never over an existing file unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuro_lightning.artifacts.checkpoint_files import BEST, REFIT, run_folder
from neuro_lightning.data.describe import evaluation_split
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.ensemble.decoding import Decoded
from neuro_lightning.ensemble.members import is_sweep
from neuro_lightning.ensemble.report import members_file
from neuro_lightning.errors import ConfigError
from neuro_lightning.runs.prediction import submission_arrays
from neuro_lightning.settings.settings import PredictSettings
from neuro_lightning.submission.check import open_h5
from neuro_lightning.submission.kaggle import write_kaggle
from neuro_lightning.submission.layout import EVAL, group_name
from neuro_lightning.submission.plain import write_predictions
from neuro_lightning.submission.write import write_submission

ENSEMBLES = Path("outputs") / "ensembles"  # of models that are no one sweep's


def target_file(settings: PredictSettings, kind: str, data: PopulationDataModule, members: Sequence[Path]) -> Path:
    """The file that is to be written; nothing that is there is lost unless the user says so.

    By default it lies in the run's folder, in that of a sweep for several of its models, else in
    ``outputs/ensembles``, under a name that says what it holds.

    Args:
        settings: of ``predict.py``.
        kind: what the file is to hold.
        data: what is predicted.
        members: the checkpoints.

    Raises:
        ConfigError: the name says another kind of file, or it is there already and ``overwrite`` is not true.
        SubmissionError: ``merge_into`` is no submission.
    """
    recording, merge_into = data.recording, settings.merge_into
    given = settings.file or merge_into
    suffix = ".csv" if kind == "submission" and recording.name == "uwndc19" else ".h5"
    if given is None:
        target = _folder(settings.named, members) / f"{_name(settings, kind, data, members)}{suffix}"
    else:
        target = Path(given)
        _check_suffix(given, {suffix} if suffix == ".csv" else {".h5", ".hdf5"}, kind, recording)
    merged = merge_into is not None and target.resolve() == Path(merge_into).resolve()
    if merge_into is not None:
        groups = [group_name(part.recording.name, part.recording.bin_ms) for part in data.by_session().values()]
        with open_h5(merge_into) as file:
            if not settings.overwrite and (group := next((group for group in groups if group in file), None)):
                raise ConfigError(
                    f"{merge_into} holds {group} already: give overwrite=true to replace it, or file=PATH without "
                    "merge_into for a file of its own"
                )
    for path in (target, members_file(target)):
        if path.exists() and not merged and not settings.overwrite:
            raise ConfigError(f"{path} is there already: give overwrite=true to replace it, or file=PATH for another")
    return target


def write_rates(
    path: Path,
    kind: str,
    recording: Recording,
    rates: Mapping[str, np.ndarray],
    *,
    session: str = "",
    merge_into: str | Path | None = None,
    decoded: Decoded | None = None,
) -> Mapping[str, np.ndarray]:
    """Write predicted rates as the kind of file that is wanted.

    Args:
        path: the file.
        kind: ``submission`` or ``predictions``.
        recording: what was predicted.
        rates: (B, L, N) or (B, N) for each of the splits.
        session: the recording's name among several, whose predictions are added to the file.
        merge_into: a submission whose other datasets are kept.
        decoded: what heads have decoded, for a file of predictions.

    Returns:
        What was written: the rates, or the arrays of a submission by their names.
    """
    if kind == "predictions":
        found = decoded or Decoded()
        write_predictions(path, recording, rates, session, found.values, found.classes)
        heads = {f"{split}/{name}": each for split, by_head in found.values.items() for name, each in by_head.items()}
        return {**rates, **heads}
    if recording.name == "uwndc19":
        write_kaggle(path, rates["test"], recording.info["columns"])
        return rates
    arrays = submission_arrays(recording, rates)
    spikes = np.nanmean(recording.splits[evaluation_split(recording)].heldin, axis=(0, 1), dtype=float)
    write_submission(
        path, recording.name, recording.bin_ms, arrays, merge_into=merge_into, mean_counts={EVAL[0]: spikes}
    )
    return arrays


def _folder(named: Sequence[str], members: Sequence[Path]) -> Path:
    if len(members) == 1:
        return run_folder(members[0])
    return Path(named[0]) if len(named) == 1 and is_sweep(Path(named[0])) else ENSEMBLES


def _name(settings: PredictSettings, kind: str, data: PopulationDataModule, members: Sequence[Path]) -> str:
    recording, parts = data.recording, [kind]
    if kind == "submission" or len(members) > 1:
        parts.append(recording.name)
    if kind == "submission" and recording.kind == "spikes":
        parts.append(f"{recording.bin_ms}ms")
        if all(evaluation_split(part.recording) == "val" for part in data.by_session().values()):
            parts.append("val")
    if settings.session:
        parts.append(settings.session)
    if data.serves_other_file:
        parts.append(Path(recording.sources[0]["path"]).stem)
    if len(members) > 1:
        parts.append(f"{settings.ensemble}_of_{len(members)}")
    elif members[0].name not in (BEST, REFIT):
        parts.append(members[0].stem)
    if settings.similar_trials:
        parts.append("similar_trials")
    return "_".join(parts)


def _check_suffix(file: str, fits: set[str], kind: str, recording: Recording) -> None:
    """Refuses a suffix of another file type, which would mislead the next reader."""
    if Path(file).suffix.lower() not in fits:
        suffix = min(fits, key=len)
        raise ConfigError(f"file={file}: the {kind} of {recording.name} are a {suffix} file; give file=NAME{suffix}")
