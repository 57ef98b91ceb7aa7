"""Several recordings in one run: each keeps its own neurons, splits and conditions, and a batch holds one of them."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from neuro_lightning.contracts import Batch, DataSpec
from neuro_lightning.data.describe import check_splits, join_specs
from neuro_lightning.data.identity import Identity, identify, response_keys, trial_keys
from neuro_lightning.data.inputs_only import check_inputs_only
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.same_data import find_training_trials, of_one_recording
from neuro_lightning.data.sampler import SessionBatches, SessionShards
from neuro_lightning.errors import DataError
from neuro_lightning.ranks import main_process_only

log = logging.getLogger(__name__)


class Sessions(PopulationDataModule):
    """Serves several recordings of one kind.

    Sessions are ordered by their names: the order in which they are given changes nothing.

    Args:
        sessions: the data module of each recording by its name. How trials are served is said once for all, by
            ``settings``; what the modules themselves say of it does not count.
        sampling: ``proportional`` draws a session in proportion to its trials: each trial is seen once in an epoch.
            ``even`` draws all sessions equally often: an epoch has as many batches as with ``proportional``, trials of
            small sessions are seen more often, and of large ones a part.
        leave_out_damaged: a recording that cannot be read is left out, and a line names it; else it is an error.
        settings: see :class:`PopulationDataModule`; ``train_trials`` holds for each session.
    """

    def __init__(
        self,
        sessions: Mapping[str, PopulationDataModule],
        *,
        sampling: str = "proportional",
        leave_out_damaged: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(sampling=sampling, **settings)
        if len(sessions) < 1:
            raise DataError("data.sessions names no recording: give some, such as data.sessions.monday.path=FILE")
        for name, module in sessions.items():
            if not isinstance(module, PopulationDataModule) or isinstance(module, Sessions):
                raise DataError(f"data.sessions.{name}: give the config of one recording, with a _target_")
            module.batch_size, module.eval_batch_size = self.batch_size, self.eval_batch_size
            if self.limit[0] is not None:
                module.limit = self.limit
            module.train_on_inputs = self.train_on_inputs
        self.leave_out_damaged = leave_out_damaged
        self._given = dict(sorted(sessions.items()))

    @functools.cached_property
    def sessions(self) -> dict[str, PopulationDataModule]:
        """The data module of each recording by its name, all of them read and found to agree.

        Raises:
            DataError: some cannot be read, are of different kinds, or one's validation trials train another.
        """
        found, errors = {}, {}
        for name, module in self._given.items():
            try:
                check_splits(module.recording, self.needed)
                check_inputs_only(module.train_on_inputs, module.recording, module.spec)
                found[name] = module
            except DataError as error:
                errors[name] = error
        for name, error in errors.items() if self.leave_out_damaged else ():
            main_process_only(log.warning)(f"session {name} is left out: {error}")
        if errors and (not found or not self.leave_out_damaged):
            raise DataError("\n".join(f"session {name}: {error}" for name, error in errors.items()))
        check_agreement({name: module.recording for name, module in found.items()})
        return found

    # ---- what all sessions are together

    @functools.cached_property
    def recording(self) -> Recording:
        """What is known of all sessions together, without trials: those are in the sessions' own recordings."""
        recordings = {name: module.recording for name, module in self.sessions.items()}
        names = {recording.name for recording in recordings.values()}
        first = next(iter(recordings.values()))
        return Recording(
            name=names.pop() if len(names) == 1 else "sessions",
            bin_ms=first.bin_ms,
            splits={},
            unit_ids=np.zeros(0, np.int64),
            kind=first.kind,
            simulated=any(recording.simulated for recording in recordings.values()),
            sources=[source for recording in recordings.values() for source in recording.sources],
            info={name: recording.info for name, recording in recordings.items()},
        )

    @property
    def spec(self) -> DataSpec:
        """What a model must know of all sessions."""
        if self._spec is None:
            self._spec = join_specs({name: module.spec for name, module in self.sessions.items()}, self.recording.name)
        return self._spec

    def by_session(self) -> dict[str, PopulationDataModule]:
        """The data module of each session by its name."""
        return self.sessions

    def with_training_only(self, sessions: Mapping[str, PopulationDataModule]) -> Sessions:
        """The same sessions with other data modules, of which only the training split is needed.

        Args:
            sessions: the data module of each.
        """
        other = copy.copy(self)
        other.__dict__.pop("recording", None)
        other.sessions, other._spec = dict(sessions), None
        other._resume_at, other.steps_per_epoch, other.needed = (-1, 0), None, ("train",)
        return other

    def share_recording(self, config: Mapping[str, Any]) -> None:
        """Let each session share its recording with other jobs of this process."""
        super().share_recording(config)
        for name, module in self._given.items():
            train_trials, seed = module.limit
            own = {"train_trials": train_trials, "train_trials_seed": seed}
            module.share_recording({**config["sessions"][name], **own})

    def references(self) -> dict[str, dict[str, Any]]:
        """What the metrics of each labelled split need, session by session; empty for one without the split."""
        found = [module.references() for module in self.sessions.values()]
        splits = dict.fromkeys(split for of_session in found for split in of_session)
        return {split: {"sessions": [of_session.get(split, {}) for of_session in found]} for split in splits}

    def count_batches(self) -> int:
        """Training batches in an epoch."""
        return sum(module.count_batches() for module in self.sessions.values())

    def count_trials(self, split: str) -> int:
        """Trials of a split in all sessions."""
        return sum(module.count_trials(split) for module in self.sessions.values())

    def dataset(self, split: str, *, evaluate: bool) -> Dataset:
        """The split's tensors of all sessions that have it."""
        parts = [
            module.dataset(split, evaluate=evaluate) if split in module.recording.splits else None
            for module in self.sessions.values()
        ]
        return _SessionDataset(parts)

    def training_dataset(self) -> Dataset:
        """What each session trains on, see :class:`PopulationDataModule`."""
        return _SessionDataset([module.training_dataset() for module in self.sessions.values()])

    def count_training(self) -> int:
        """Trials of :meth:`training_dataset`."""
        return sum(module.count_training() for module in self.sessions.values())

    def release_tensors(self) -> None:
        """Free the memory of all sessions' tensors."""
        for module in self.sessions.values():
            module.release_tensors()

    # ---- Lightning

    def prepare_data(self) -> None:
        """Read every session."""
        _ = self.sessions

    def setup(self, stage: str) -> None:
        """Let the sessions know the trainer, whose processes share their trials."""
        for module in self.sessions.values():
            module.trainer = self.trainer

    def training_batches(self, rank: int, world: int) -> SessionBatches:
        """The batches of an epoch, each of one session."""
        return SessionBatches(
            {name: module.count_training() for name, module in self.sessions.items()},
            self.batch_size,
            n_batches=[module.count_batches() for module in self.sessions.values()],
            even=self.sampling == "even",
            seed=self.shuffle_seed,
            rank=rank,
            world=world,
        )

    def trials_in_order(self, split: str, batch_size: int, *, shared: bool = False) -> SessionShards:
        """All trials of a split once; the sessions take turns."""
        rank, world = self._place() if shared else (0, 1)
        counts = [module.count_trials(split) for module in self.sessions.values()]
        return SessionShards(counts, batch_size, rank=rank, world=world)

    def on_after_batch_transfer(self, batch: Batch | list[Batch], dataloader_idx: int) -> Batch | list[Batch]:
        """What the batch's own session does with it: training images may be distorted."""
        if isinstance(batch, list):
            return [self.on_after_batch_transfer(part, dataloader_idx) for part in batch]
        module = list(self.sessions.values())[batch["session"]]
        return module.on_after_batch_transfer(batch, dataloader_idx)


class _SessionDataset(Dataset):
    """Serves batches of several sessions: ``dataset[1, [3, 2]]`` holds two trials of the second.

    Args:
        parts: the tensors of each session, None for one without the split.
    """

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts if part is not None)

    def __getitem__(self, which: tuple[int, list[int]]) -> dict[str, torch.Tensor | int]:
        session, index = which
        return {**self.parts[session][index], "session": session}


def check_agreement(recordings: Mapping[str, Recording]) -> None:
    """Whether one model can be trained on these recordings; a line warns where they share images.

    Raises:
        DataError: naming two that differ, or of which one's trials are the other's training trials.
    """
    first, reference = next(iter(recordings.items()))
    for name, recording in recordings.items():
        for what, one, other, how in (
            ("kind", reference.kind, recording.kind, "give recordings of one kind"),
            ("bin width in ms", reference.bin_ms, recording.bin_ms, "give all the same, such as data.bin_ms=20"),
            ("image shape", _image_shape(reference), _image_shape(recording), "crop or shrink them alike"),
        ):
            if one != other:
                raise DataError(
                    f"the sessions {first} and {name} differ in their {what}: {one} and {other}; one core needs the "
                    f"same for all: {how}"
                )
    identities = {name: identify(recording, {}) for name, recording in recordings.items()}
    contents = {name: _contents(recording, identities[name]) for name, recording in recordings.items()}
    for name, other in itertools.permutations(recordings, 2):
        for split, keys in contents[name].items():
            found = np.isin(keys, contents[other]["train"]) & (keys != 0)
            if split != "train" and of_one_recording(identities[name], identities[other]):
                found |= find_training_trials(identities[other], ["train"], identities[name], split)
            if n := int(found.sum()):
                raise DataError(
                    f"{n} {split} trials of session {name} are training trials of session {other}: are they one "
                    "recording? Leave out one of them"
                )
            if split != "train" and (n := _count_shared_images(recordings[name], split, recordings[other])):
                main_process_only(log.warning)(
                    f"{n} {split} images of session {name} are training images of session {other}: the core is not "
                    "scored on new images only; sessions that are split by the same seed share none"
                )


def _contents(recording: Recording, identity: Identity) -> dict[str, np.ndarray]:
    """A number for what each trial of a split holds, of images together with the responses to them."""
    if recording.kind == "images":
        return {split: response_keys(trials) for split, trials in recording.splits.items()}
    return {split: part["keys"].numpy() for split, part in identity["trials"].items()}


def _count_shared_images(recording: Recording, split: str, other: Recording) -> int:
    """Images of a split that train another session, whatever the responses to them."""
    if recording.kind != "images":
        return 0
    return int(np.isin(trial_keys(recording.splits[split]), trial_keys(other.splits["train"])).sum())


def _image_shape(recording: Recording) -> tuple[int, ...] | None:
    images = getattr(recording.splits["train"], "images", None)
    return None if images is None else images.shape[1:]
