"""Another file for a trained model: whether its units are the same ones, and which of its trials trained the model."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from neuro_lightning.data.identity import Identity, identify
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.same_data import find_training_trials, same_session
from neuro_lightning.errors import DataError

log = logging.getLogger(__name__)


def split_seen_trials(recording: Recording, trained: Identity, *, same_units: bool | None) -> Recording:
    """A file's trials, those that trained or validated the model apart from those that test it.

    Args:
        recording: all trials of the file as its split ``test``, units in the order of the model's.
        trained: identity of the data that the model was trained on.
        same_units: the user says that the units of two sessions were matched; None for files that name no session.

    Returns:
        The recording with the splits ``train`` and ``val`` of the trials that the model has seen, and ``test``.

    Raises:
        DataError: the file is of another session, where unit numbers mean other neurons, or all of its trials have
            trained the model.
    """
    path, session = recording.sources[0]["path"], recording.info.get("session")
    if same_units is not None and not same_session(trained["session"], session):
        found = f"{path} is of {_named(session)}, the model of {_named(trained['session'])}"
        if not same_units:
            raise DataError(
                f"{found}: numbers of units count anew in every session (Kilosort begins at 0), so that unit 3 of one "
                "is not unit 3 of the other; give data.same_units=true if the units were matched across sessions"
            )
        log.warning(f"{found}: its units are taken for the same by their numbers alone (data.same_units=true)")
    everyone = identify(recording, {})
    seen = {split: find_training_trials(trained, [split], everyone, "test") for split in ("train", "val")}
    seen["val"] &= ~seen["train"]
    seen["test"] = ~(seen["train"] | seen["val"])
    if seen["train"].all():
        raise DataError(f"{path}: all of its {len(seen['train'])} trials are among those that trained the model")
    if not seen["test"].all():
        log.warning(
            f"{path}: {seen['train'].sum()} of its {len(seen['test'])} trials trained the model and "
            f"{seen['val'].sum()} validated it; they are predicted as such, and do not count as test trials"
        )
    index = {split: np.flatnonzero(chosen) for split, chosen in seen.items() if chosen.any()}
    splits = {split: recording.splits["test"].take(rows) for split, rows in index.items()}
    noted = {"rows": {split: trials.row.tolist() for split, trials in splits.items()}}
    return replace(recording, splits=splits, info={**recording.info, **noted})


def _named(session: dict[str, str | None] | None) -> str:
    known = [session[name] for name in ("identifier", "session_start_time") if session and session.get(name)]
    return f"session {' of '.join(known)}" if known else "a session that is not named"
