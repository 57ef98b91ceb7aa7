"""The LightningDataModule that every dataset shares: from a recording to batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from neuro_lightning.contracts import Batch, DataSpec
from neuro_lightning.data.checks.options import check_choice, check_whole
from neuro_lightning.data.describe import check_splits, describe, labelled, make_dataset, n_repeats
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.inputs_only import WithInputs, check_inputs_only, inputs_only
from neuro_lightning.data.memory import JOBS, config_key
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.sampler import EpochBatches, Grouped, Shards, TrainingBatches
from neuro_lightning.data.splitting import limit_training
from neuro_lightning.errors import DataError
from neuro_lightning.functional.explainable import ceilings
from neuro_lightning.nn.augment import Transform, apply_transforms, seed_transforms
from neuro_lightning.ranks import main_process_only

log = logging.getLogger(__name__)

# how trials are served to a training; all else decides what the recording is, and what scores depend on
SERVING = {"batch_size", "shuffle_seed", "steps_at_once", "least_steps", "augment", "sampling", "train_on_inputs"}
SAMPLING = ("proportional", "even")  # of several recordings
# which of the training trials are used: after the recording is read
LIMIT = {"train_trials", "train_trials_seed"}


class PopulationDataModule(pl.LightningDataModule):
    """Serves the trials of a recording. A dataset family is a subclass with a :meth:`load`.

    Args:
        batch_size: trials in a training batch, over all processes.
        eval_batch_size: trials in a batch of validation, test and prediction, per process.
        shuffle_seed: of the order of the training trials.
        steps_at_once: batches that the trainer hands to the model together. The result is the same, bit for bit; a
            network whose steps take a millisecond trains twice as fast. Several processes take one at a time.
        least_steps: a training whose number of epochs is left open takes at least so many; None for no bound.
        train_trials: train on so many trials at most, see :func:`neuro_lightning.data.splitting.limit_training`; None
            for all.
        train_trials_seed: draws them.
        sampling: of several recordings, see :class:`neuro_lightning.data.sessions.Sessions`; one takes no notice of it.
        train_on_inputs: splits whose held-in spikes are trained on as well, and nothing else of them: they are given
            where held-out neurons are to be predicted, see :mod:`neuro_lightning.data.inputs_only`.
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        shuffle_seed: int = 0,
        steps_at_once: int = 1,
        least_steps: int | None = None,
        train_trials: int | None = None,
        train_trials_seed: int = 0,
        sampling: str = "proportional",
        train_on_inputs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_choice("sampling", sampling, SAMPLING)
        self.sampling = sampling
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "steps_at_once": steps_at_once}
        for key, value in sizes.items():
            if value < 1:
                raise DataError(f"data.{key}={value}: give a whole number from 1 on")
        self._steps_at_once = steps_at_once
        self.batch_size, self.eval_batch_size, self.shuffle_seed = batch_size, eval_batch_size, shuffle_seed
        self.least_steps = least_steps
        self.limit = (train_trials, train_trials_seed)
        self.train_on_inputs = list(dict.fromkeys(train_on_inputs))
        self._recording: Recording | None = None
        self._spec: DataSpec | None = None
        self._identity: str | None = None  # of the recording, for the jobs of a sweep that share it
        self.identity: str | None = None  # of the data that are scored on
        self._datasets: dict[tuple[str, bool], Dataset] = {}
        self._resume_at = (-1, 0)
        self.steps_per_epoch: int | None = None  # where the trainer does not see every step
        self.n_batches: int | None = None  # in an epoch; None: as batch_size makes them
        self.needed = ("train", "val")
        self.serves_other_file = False  # serves another file than the model was trained on

    def load(self) -> Recording:
        """Read, download or simulate the recording; what it costs is cached on disk by the subclass.

        Raises:
            DataError: the data are missing, damaged, or not what the config says.
        """
        raise NotImplementedError

    # ---- the recording

    @property
    def recording(self) -> Recording:
        """The recording, read at the first use; an earlier job of the same process may have read it."""
        if self._recording is None:
            recording = JOBS.recording(self._identity, self.load) if self._identity else self.load()
            self._recording = recording if self.serves_other_file else limit_training(recording, *self.limit)
            for warning in self._recording.info.get("warnings", ()):  # also where the recording comes from a cache
                main_process_only(log.warning)(warning)
        return self._recording

    def share_recording(self, config: Mapping[str, Any]) -> None:
        """Take the recording over from an earlier job of this process with the same data, and leave it to later ones.

        Args:
            config: the config that this was built from, as plain values.
        """
        self._identity = config_key(config, without={*SERVING, *LIMIT, "eval_batch_size"})
        self.identity = config_key(config, without=SERVING)

    def serve_other_file(
        self, spec: DataSpec, info: dict[str, Any], identity: Identity, *, same_units: bool = False
    ) -> None:
        """Serve another file's trials as a trained model expects them; for families that can.

        Args:
            spec: of the data the model was trained on.
            info: what the recording it was trained on noted (which neurons were held out, ...).
            identity: of that recording.
            same_units: the units of two sessions were matched: their numbers mean the same neurons.

        Raises:
            DataError: the family has one file only.
        """
        raise DataError(f"data.path: {spec.dataset} cannot be predicted from another file; leave data.path out")

    @property
    def stride(self) -> int | None:
        """Bins between the starts of training windows; None where sequences are not cut, or windows do not overlap."""
        return None

    @property
    def spec(self) -> DataSpec:
        """What a model must know of these data."""
        if self._spec is None:
            self._spec = describe(self.recording)
        return self._spec

    def references(self) -> dict[str, dict[str, Any]]:
        """What the metrics of each labelled split need: its number of trials, the target PSTHs, the repeats."""
        psth = self.recording.psth
        psth = None if psth is None else torch.from_numpy(np.asarray(psth, np.float64))
        return {
            name: {"n_eval": len(trials), "psth": psth, "n_repeats": n_repeats(trials)}
            for name, trials in self.recording.splits.items()
            if name != "train" and labelled(trials, self.spec)
        }

    def ceilings(self, split: str) -> dict[str, float]:
        """The best that any model can expect on a split, by metric; empty where nothing tells.

        Where images were shown several times it is what the responses' own variability leaves to predict.
        """
        repeats = getattr(self.recording.splits[split], "repeats", None)
        if repeats is None:
            return {}
        return ceilings(torch.from_numpy(np.asarray(repeats, np.float64)))

    def reference_scores(self, split: str) -> dict[str, dict[str, float]]:
        """Scores that stand beside a model's, by who: the noise ceiling, where there is one."""
        found = self.ceilings(split)
        return {"ceiling": found} if found else {}

    def dataset(self, split: str, *, evaluate: bool) -> Dataset:
        """The split's tensors, made once."""
        if (split, evaluate) not in self._datasets:
            dataset = make_dataset(self.recording.splits[split], self.spec, evaluate=evaluate)
            self._datasets[split, evaluate] = dataset
        return self._datasets[split, evaluate]

    def by_session(self) -> dict[str, PopulationDataModule]:
        """The data module of each recording by its name; one alone has none."""
        return {"": self}

    def count_trials(self, split: str) -> int:
        """Trials of a split; 0 without it."""
        return len(self.recording.splits.get(split, ()))

    def training_dataset(self) -> Dataset:
        """The training split, and the inputs of others where ``train_on_inputs`` names some."""
        train = self.dataset("train", evaluate=False)
        parts = [inputs_only(self.recording.splits[split]) for split in self.train_on_inputs]
        return WithInputs(train, [make_dataset(part, self.spec, evaluate=False) for part in parts]) if parts else train

    def count_training(self) -> int:
        """Trials of :meth:`training_dataset`."""
        return sum(self.count_trials(split) for split in ("train", *self.train_on_inputs))

    def count_batches(self) -> int:
        """Training batches in an epoch."""
        return self.n_batches or max(1, math.ceil(self.count_training() / self.batch_size))

    def release_tensors(self) -> None:
        """Free the memory of all splits' tensors; they are made again where they are asked for."""
        self._datasets.clear()

    def serve_training_only(self, recording: Recording, *, n_batches: int) -> None:
        """Serve another recording, of which only the training split is needed, from its first epoch on.

        Args:
            recording: what to serve.
            n_batches: batches in an epoch, whatever their size.
        """
        self._recording, self._spec, self._datasets = recording, None, {}
        self._resume_at, self.steps_per_epoch = (-1, 0), None
        self.n_batches, self.needed = n_batches, ("train",)

    # ---- Lightning

    @property
    def steps_at_once(self) -> int:
        """How many steps the model takes in one batch of the trainer's: 1 where the trainer itself must see each."""
        trainer = self.trainer
        if trainer is None or trainer.world_size > 1 or trainer.accumulate_grad_batches > 1 or trainer.overfit_batches:
            return 1
        mixed = trainer.precision not in ("32-true", "64-true")  # Lightning casts or scales around each step
        return 1 if mixed or trainer.limit_train_batches != 1.0 or trainer.max_steps != -1 else self._steps_at_once

    def take_at_once(self, steps: int) -> None:
        """Hand the model so many batches together, where the settings say one and the trainer allows it."""
        self._steps_at_once = steps if self._steps_at_once == 1 else self._steps_at_once

    def prepare_data(self) -> None:
        """Fill the cache on one process, so that the others find it, and check that there is enough to train on."""
        check_splits(self.recording, self.needed)
        check_inputs_only(self.train_on_inputs, self.recording, self.spec)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches."""
        if self.trainer is not None and self.trainer.overfit_batches:
            order = self.trials_in_order("train", self.batch_size, shared=True)
            return _loader(self.dataset("train", evaluate=False), order)
        dataset = self.training_dataset()
        sampler = self.training_batches(*self._place())
        sampler.resume(*self._resume_at)
        if self.steps_at_once > 1:
            self.steps_per_epoch = len(sampler)
            return _loader(_Groups(dataset), Grouped(sampler, self.steps_at_once))
        return _loader(dataset, sampler)

    def val_dataloader(self) -> list[DataLoader]:
        """The validation trials and, when velocity is decoded, the training trials that the decoder learns from."""
        loaders = [self.eval_dataloader("val", shared=True)]
        if any(part.behavior_kind == "velocity" for part in self.spec.parts):
            loaders.append(self.eval_dataloader("train", evaluate=False, shared=True))
        return loaders

    def eval_dataloader(self, split: str, *, evaluate: bool = True, shared: bool = False) -> DataLoader:
        """All trials of a split in order; ``shared`` deals them to the processes without padding."""
        dataset = self.dataset(split, evaluate=evaluate)
        return _loader(dataset, self.trials_in_order(split, self.eval_batch_size, shared=shared))

    def training_batches(self, rank: int, world: int) -> TrainingBatches:
        """The batches of an epoch, shuffled and shared out among processes."""
        share = {"seed": self.shuffle_seed, "rank": rank, "world": world, "n_batches": self.n_batches}
        return EpochBatches(self.count_training(), self.batch_size, **share)

    def trials_in_order(self, split: str, batch_size: int, *, shared: bool = False) -> Sampler:
        """All trials of a split once; ``shared`` as in :meth:`eval_dataloader`."""
        rank, world = self._place() if shared else (0, 1)
        return Shards(self.count_trials(split), batch_size, rank=rank, world=world)

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(
        self, batch: Batch | list[Batch], device: torch.device, dataloader_idx: int
    ) -> Batch | list[Batch]:
        """A batch is a dictionary of tensors: Lightning's search through any kind of nest takes longer than a step."""
        if isinstance(batch, list):
            return [self.transfer_batch_to_device(part, device, dataloader_idx) for part in batch]
        return {
            name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }

    # ---- resume

    def state_dict(self) -> dict[str, int]:
        """How far into which epoch a checkpoint was taken."""
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        done = 0 if progress.is_last_batch else progress.current.ready * self.steps_at_once
        return {"epoch": self.trainer.current_epoch, "batches": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume there: the epoch's finished batches are left out."""
        self._resume_at = (state_dict["epoch"], state_dict["batches"])


def one_file(path: str | list[str]) -> Path:
    """The path of the one file of a recording; several are the paths of sessions, each with a data module of its own.

    Raises:
        DataError: there are several.
    """
    if isinstance(path, list):
        raise DataError("data.path: several files are several sessions, see neuro_lightning.data.sessions.Sessions")
    return Path(path)


def _loader(dataset: Dataset, sampler: Sampler) -> DataLoader:
    # batch_size=None: the sampler's lists of trials go to the dataset whole, which needs no collation
    return DataLoader(dataset, batch_size=None, sampler=sampler)


class _Groups(Dataset):
    """Several batches of a dataset at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, groups: list[list[int]]) -> list[Batch]:
        return [self.dataset[index] for index in groups]


class TwinDataModule(PopulationDataModule):
    """A dataset of files for which a simulated twin can stand in; goes before the other base class.

    Args:
        root: the folder of data.
        simulate: use a simulated twin, written below ``root`` in the layout of the real files.
        simulate_seed: of the twin.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(self, *, root: str, simulate: bool = False, simulate_seed: int = 0, **loader: Any) -> None:
        super().__init__(**loader)
        check_whole("simulate_seed", simulate_seed)
        self.root, self.simulate, self.simulate_seed = Path(root).expanduser(), simulate, simulate_seed

    def twin_folder(self, name: str) -> Path:
        """Where the twin of a dataset goes."""
        return self.root / "simulated" / name / f"seed_{self.simulate_seed}"


class ImageDataModule(PopulationDataModule):
    """Serves images and the responses to them; training images may be distorted.

    Args:
        augment: transforms ``(images (B, C, H, W), index (B,), epoch) -> images``, a list or by name, applied in this
            order to training batches, on the device; see ``neuro_lightning.nn.augment``; and ``CutMix``, which mixes
            responses, too. None or empty for none.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(self, *, augment: Sequence[Transform] | Mapping[str, Transform] | None = None, **loader: Any) -> None:
        super().__init__(**loader)
        self.augment = seed_transforms(augment, self.shuffle_seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Distort a training batch, on the device it has come to."""
        if isinstance(batch, list):
            return [self.on_after_batch_transfer(part, dataloader_idx) for part in batch]
        if self.augment and self.trainer is not None and self.trainer.training:
            batch = apply_transforms(self.augment, batch, self.trainer.current_epoch)
        return batch
